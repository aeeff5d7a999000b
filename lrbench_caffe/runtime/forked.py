"""Asks a process that forks itself (see ``forking``) for a fork, and looks after it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Sequence

from lrbench_caffe.runtime.forking import NUMBER
from lrbench_caffe.runtime.liveness import POLL, Silence, parent_of

START_SECONDS = 60.0  # for a fork; the server may still load its modules, from a cold network disk


class Unanswered(Exception):
    """A server that does not answer: nothing was started, and nothing will be."""


class ForkedProcess:
    """A process that a server has forked, as ``subprocess.Popen`` shows one.

    Attributes:
        pid: its id, which is also that of its process group and session.
        returncode: None while it runs; else its exit code, or minus the signal that ended it. Of a
            process whose server was killed, the signal that it gets then.
    """

    def __init__(self, pid: int, channel: socket.socket, orphaned: signal.Signals) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._channel = channel
        self._orphaned = orphaned

    def tell(self, data: bytes) -> None:
        """Send it something through the channel, to the end."""
        with contextlib.suppress(ConnectionError):  # it has ended already: that is a result
            self._channel.settimeout(None)
            self._channel.sendall(data)
            self._channel.shutdown(socket.SHUT_WR)

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
            self.returncode = NUMBER.unpack(message)[0] if message else -self._orphaned
            self._channel.close()
        return self.returncode

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            server = parent_of(self.pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
            if server is not None:  # which would not tell of the end while it is suspended
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(server, signal.SIGCONT)


def ask_for_fork(
    asker: socket.socket,
    message: bytes,
    descriptors: Sequence[int],
    orphaned: signal.Signals,
    stop: threading.Event | None = None,
    server: int | None = None,
) -> ForkedProcess | None:
    """Ask a server for a process.

    Args:
        asker: the socket that it takes requests from.
        message, descriptors: what the process is to have.
        orphaned: the signal that it gets when the server is gone.
        stop: set by another thread when it is not wanted any more.
        server: its process, whose wait for a processor is not to count; None if it is not known.

    Returns:
        None where that cannot be: nothing was started, and nothing will be.

    Raises:
        Unanswered: the same, after a long wait; there is no use in asking again.
    """
    with contextlib.ExitStack() as stack:
        ours, its = socket.socketpair()
        stack.callback(ours.close)
        with its, contextlib.suppress(OSError):
            socket.send_fds(asker, [message], [its.fileno(), *descriptors])
        pid = _id_of_fork(ours, stop, server)
        if pid is None:
            return None
        stack.pop_all()
    return ForkedProcess(pid, ours, orphaned)


def _id_of_fork(
    ours: socket.socket, stop: threading.Event | None, server: int | None
) -> int | None:
    silence = Silence(START_SECONDS, server)
    ours.settimeout(POLL)
    while not (stop and stop.is_set()):
        try:
            message = ours.recv(NUMBER.size)
        except socket.timeout:
            if silence.too_long():
                raise Unanswered from None
        except ConnectionError:
            return None
        else:
            return NUMBER.unpack(message)[0] if message else None
    return None
