"""Starts trainings as forks of a process that has their modules: loading takes longer than a small training.

The server is a process of its own without threads. It asks for nothing but two descriptors, forks,
and tells how each process ended; the forked process gets the rest from the command itself. The
server ends with its command, however that ends, and its trainings stop, with a snapshot, when it
does. Whatever it cannot start is started without it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from lrbench_caffe.runtime.liveness import POLL, Silence

SERVE = "serve"  # the first argument of the server, before its socket's descriptor
START_SECONDS = 60.0  # for a fork; the server may still load its modules, from a cold network disk
NUMBER = struct.Struct("!q")  # a message: first the process's id, then its exit code
PART = 1 << 16  # bytes
_PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> bool:
    """Let SIGTERM end this process when its parent is gone; False if it is gone already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    return os.getppid() == parent


# -- in the command --------------------------------------------------------------------------------


class ForkedProcess:
    """A process that the server has forked, as ``subprocess.Popen`` shows one.

    Attributes:
        pid: its id, which is also that of its process group and session.
        returncode: None while it runs; else its exit code, or minus the signal that ended it. Of a
            process whose server was killed, which ends it, SIGTERM.
    """

    def __init__(
        self, pid: int, channel: socket.socket, server: subprocess.Popen[bytes] | None
    ) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._channel = channel
        self._server = server

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._channel.settimeout(timeout)
            try:
                message = self._channel.recv(NUMBER.size)
            except (BlockingIOError, socket.timeout):
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0) from None
            except ConnectionError:
                message = b""
            self.returncode = NUMBER.unpack(message)[0] if message else -signal.SIGTERM
            self._channel.close()
        return self.returncode

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
            if self._server is not None:  # which would not tell of the end while it is suspended
                self._server.send_signal(signal.SIGCONT)


class ForkServer:
    """The server of one pool. It is started when the first training is.

    The server ends with the thread that starts the first training, too, so that thread must live
    as long as its trainings.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asker: socket.socket | None = None
        self._server: subprocess.Popen[bytes] | None = None
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
        with contextlib.ExitStack() as stack:
            ours, its = socket.socketpair()
            stack.callback(ours.close)
            with its, contextlib.suppress(OSError):
                socket.send_fds(
                    self._connected(environment), [b"."], [its.fileno(), output.fileno()]
                )
            pid = self._forked(ours, stop)
            if pid is None:
                return None
            request = json.dumps([list(arguments), os.getcwd(), dict(environment)]).encode()
            ours.settimeout(None)
            with contextlib.suppress(ConnectionError):  # it has ended already: that is a result
                ours.sendall(request)
                ours.shutdown(socket.SHUT_WR)
            stack.pop_all()
        return ForkedProcess(pid, ours, self._server)

    def _connected(self, environment: Mapping[str, str]) -> socket.socket:
        with self._lock:
            if self._asker is None:
                self._asker, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                number = its.fileno()
                with its:
                    self._server = subprocess.Popen(
                        [sys.executable, "-m", "lrbench_caffe.jobs", SERVE, str(number)],
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                        pass_fds=[number],
                        start_new_session=True,  # Ctrl-C and Ctrl-Z are for the command
                    )
            return self._asker

    def _forked(self, ours: socket.socket, stop: threading.Event) -> int | None:
        """The new process, which waits for our request before it does anything."""
        silence = Silence(START_SECONDS)
        ours.settimeout(POLL)
        while not stop.is_set():
            try:
                message = ours.recv(NUMBER.size)
            except socket.timeout:
                if silence.too_long():
                    self._gave_up = True
                    return None
            except ConnectionError:
                return None
            else:
                return NUMBER.unpack(message)[0] if message else None
        return None

    def close(self) -> None:
        """End the server. Its trainings have ended."""
        if self._asker is not None:
            self._asker.close()
        if self._server is not None:
            self._server.kill()
            self._server.wait()


# -- the server ------------------------------------------------------------------------------------


def serve(descriptor: int, loading: Iterator[object]) -> list[str] | None:
    """Fork a process for each request, until the command is gone.

    Args:
        descriptor: of the socket that the command asks through.
        loading: loads a part of what trainings need later at each step, while nothing is asked.

    Returns:
        In a forked process, the arguments of its training. In the server None, at its end, or where
        it has threads: a fork would not have them.
    """
    asker = socket.socket(fileno=descriptor)
    asker.set_inheritable(False)
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        return None
    wake, waker = socket.socketpair()
    waker.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    channels: dict[int, socket.socket] = {}  # of the processes that run
    idle = True
    while True:
        ready = select.select([asker, wake], [], [], 0 if idle else None)[0]
        if wake in ready:
            wake.recv(PART)
            _report_ends(channels)
        if asker in ready:
            message, fds, _, _ = socket.recv_fds(asker, 1, 2)
            if not message:
                return None
            server, channel, output = os.getpid(), socket.socket(fileno=fds[0]), fds[1]
            pid = _fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for other in (asker, wake, waker, *channels.values()):
                    other.close()
                return _become_training(server, channel, output)
            os.close(output)
            if pid is None:
                channel.close()
            else:
                channels[pid] = channel
        if idle and not ready:
            idle = next(loading, None) is not None


def _fork() -> int | None:
    """As ``os.fork``; None where the system has no more processes or memory."""
    try:
        return os.fork()
    except OSError:
        return None


def _report_ends(channels: dict[int, socket.socket]) -> None:
    for pid in list(channels):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with channels.pop(pid) as channel, contextlib.suppress(OSError):
                channel.sendall(NUMBER.pack(os.waitstatus_to_exitcode(status)))


def _become_training(server: int, channel: socket.socket, output: int) -> list[str]:
    """Make this process what the command wants, as a process that it starts itself would be."""
    os.setsid()
    for number in (1, 2):
        os.dup2(output, number)
    os.close(output)
    if not end_with(server):
        os._exit(0)
    request = b""
    with contextlib.suppress(OSError):
        channel.sendall(NUMBER.pack(os.getpid()))
        request = b"".join(iter(lambda: channel.recv(PART), b""))
    try:
        arguments, folder, environment = json.loads(request)
    except ValueError:  # the command is gone, or has started it itself
        os._exit(0)
    channel.set_inheritable(False)
    channel.detach()  # open until the end, which the command sees even if the server is gone
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    return list(arguments)
