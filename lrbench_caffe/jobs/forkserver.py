"""Starts trainings as forks of a process that has their modules: loading takes longer than a small training.

The server is a process of its own without threads. It forks, and tells how each process ended; the
forked process gets its arguments from the command itself. The server ends with its command, however
that ends, and its trainings stop, with a snapshot, when it does. Whatever it cannot start is started
without it.

The trainings, in turn, have their workers from a server that has loaded Caffe, where that can be.
It ends with the last of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import IO

from lrbench_caffe.runtime.forked import ForkedProcess, Unanswered, ask_for_fork
from lrbench_caffe.runtime.forking import PART, serve
from lrbench_caffe.runtime.processes import CaffeServer
from lrbench_caffe.training.expecting import expected_process

SERVE = "serve"  # the first argument of the server, before its socket's descriptor and Caffe's


# -- in the command --------------------------------------------------------------------------------


class ForkServer:
    """The servers of one pool. They are started when the first training is.

    The server of trainings ends with the thread that starts the first one, too, so that thread must
    live as long as its trainings.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asker: socket.socket | None = None
        self._servers: list[subprocess.Popen[bytes]] = []
        self._gave_up = False

    def start(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        output: IO[bytes],
        stop: threading.Event,
    ) -> ForkedProcess | None:
        """Fork a training, with a session of its own and nothing on stdin.

        Args:
            arguments, environment: what it is given.
            output: where its stdout and stderr go.
            stop: set by another thread when it is not wanted any more.

        Returns:
            None where that cannot be: nothing was started, and nothing will be.
        """
        if self._gave_up:
            return None
        try:
            asker = self._connected(arguments, environment)
            server = self._servers[-1].pid
            process = ask_for_fork(asker, b".", [output.fileno()], signal.SIGTERM, stop, server)
        except Unanswered:
            self._gave_up = True
            return None
        except OSError:
            return None
        if process is not None:
            process.tell(json.dumps([list(arguments), os.getcwd(), dict(environment)]).encode())
        return process

    def _connected(self, arguments: Sequence[str], environment: Mapping[str, str]) -> socket.socket:
        with self._lock:
            if self._asker is None:
                self._asker, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                caffe, its_caffe = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with its, caffe, its_caffe:
                    numbers = [its.fileno(), caffe.fileno()]
                    # First, as it takes longer.
                    wanted = expected_process(arguments, environment)
                    if wanted is not None:
                        with contextlib.suppress(OSError):
                            self._servers.append(CaffeServer.start(wanted, its_caffe.fileno()))
                    self._servers.append(start_server(numbers, environment))
            return self._asker

    def close(self) -> None:
        """End the servers. Their trainings have ended."""
        if self._asker is not None:
            self._asker.close()
        for server in self._servers:
            server.kill()
            server.wait()


def start_server(numbers: Sequence[int], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start the server of trainings, with the descriptors of its sockets."""
    return subprocess.Popen(
        [sys.executable, "-m", "lrbench_caffe.jobs", SERVE, *map(str, numbers)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=numbers,
        start_new_session=True,  # Ctrl-C and Ctrl-Z are for the command
    )


# -- the server ------------------------------------------------------------------------------------


def serve_trainings(
    descriptor: int, caffe: int, loading: Iterator[object]
) -> tuple[list[str], CaffeServer] | None:
    """Fork a process for each request, until the command is gone.

    Args:
        descriptor: of the socket that the command asks through.
        caffe: of the socket that asks for workers.
        loading: loads a part of what trainings need later at each step, while nothing is asked.

    Returns:
        In a forked process, the arguments of its training, and what has workers for it. In the
        server None, at its end, or where it has threads.
    """
    os.set_inheritable(caffe, False)
    forked = serve(descriptor, 2, signal.SIGTERM, loading=loading)
    if forked is None:
        return None
    for number in (1, 2):
        os.dup2(forked.descriptors[0], number)
    os.close(forked.descriptors[0])
    request = b""
    with contextlib.suppress(OSError):
        request = b"".join(iter(lambda: forked.channel.recv(PART), b""))
    try:
        arguments, folder, environment = json.loads(request)
    except ValueError:  # the command is gone, or has started it itself
        os._exit(0)
    forked.channel.detach()  # open until the end
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    return list(arguments), CaffeServer(socket.socket(fileno=caffe))
