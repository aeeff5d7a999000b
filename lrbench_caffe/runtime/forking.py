"""A process without threads that forks itself on request: loading modules takes longer than a small training.

Jobs have one with the driver's modules (``jobs.forkserver``), and one with Caffe's (worker.py). Who
asks sends a message with descriptors, the first of them a socket, the channel. Over it comes
the id of the forked process, and at its end its exit code (``forked.py`` is that side).

Standard library only, for any Python 3: it also runs beside worker.py, in pycaffe's interpreter.
"""

import array
import ctypes
import os
import select
import signal
import socket
import struct

NUMBER = struct.Struct("!q")  # a message: first the process's id, then its exit code
PART = 1 << 16  # bytes
_PR_SET_PDEATHSIG = 1


class Forked(object):
    """What a forked process was asked for with: the message, the channel and further descriptors."""

    def __init__(self, message, channel, descriptors):
        self.message = message
        self.channel = channel
        self.descriptors = descriptors


def end_with(parent, number):
    """Let a signal end this process when its parent is gone; False if it is gone already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    return os.getppid() == parent


def serve(descriptor, count, orphaned, abandoned=None, loading=None):
    """Fork a process for each request, until all who can ask are gone.

    Args:
        descriptor: of the socket that requests come through.
        count: how many descriptors come with each; the first one is its channel.
        orphaned: the signal that a forked process gets when this one ends.
        abandoned: the signal that it gets when the other end of its channel is closed, None for
            none; nothing else comes through the channel, then.
        loading: loads a part of what is needed later at each step, while nothing is asked.

    Returns:
        In a forked process, with a session of its own, what it was asked for with. In the server
        None, at its end, or where it has threads: a fork would not have them.
    """
    asker = socket.socket(fileno=descriptor)
    asker.set_inheritable(False)
    if len(os.listdir("/proc/self/task")) > 1:
        return None
    wake, waker = socket.socketpair()
    waker.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker.fileno())
    channels = {}  # by the ids of the processes that run
    watched = {}  # those whose other end is open
    idle = loading is not None
    while True:
        ready = select.select([asker, wake] + list(watched), [], [], 0 if idle else None)[0]
        if wake in ready:
            wake.recv(PART)
            _report_ends(channels, watched)
        for channel in ready:
            pid = watched.pop(channel, None)
            if pid is not None:
                os.kill(pid, abandoned)  # it was not reaped yet: the id is still its own
        if asker in ready:
            message, numbers = _receive(asker, count)
            if not message:
                return None
            server, channel = os.getpid(), socket.socket(fileno=numbers[0])
            pid = _fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for other in [asker, wake, waker] + list(channels.values()):
                    other.close()
                _become_other(server, channel, orphaned)
                return Forked(message, channel, numbers[1:])
            for number in numbers[1:]:
                os.close(number)
            if pid is None:
                channel.close()
            else:
                channels[pid] = channel
                if abandoned is not None:
                    watched[channel] = pid
        if idle and not ready:
            idle = next(loading, None) is not None


def _receive(asker, count):
    """A message with its descriptors, as ``socket.recv_fds`` of Python 3.9."""
    numbers = array.array("i")
    message, more, _, _ = asker.recvmsg(PART, socket.CMSG_LEN(count * numbers.itemsize))
    for level, kind, data in more:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    return message, list(numbers)


def _fork():
    """As ``os.fork``; None where the system has no more processes or memory."""
    try:
        return os.fork()
    except OSError:
        return None


def _report_ends(channels, watched):
    for pid in list(channels):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            channel = channels.pop(pid)
            watched.pop(channel, None)
            try:
                channel.sendall(NUMBER.pack(code))
            except OSError:
                pass  # nobody waits for it any more
            channel.close()


def _become_other(server, channel, orphaned):
    """Have a session of one's own, end with the server, and tell one's id."""
    os.setsid()
    if not end_with(server, orphaned):
        os._exit(0)
    channel.set_inheritable(
        False
    )  # open until the end, which the other side sees without the server
    try:
        channel.sendall(NUMBER.pack(os.getpid()))
    except OSError:
        os._exit(0)
