"""The programs that setup starts, the locks it holds, and how all of them end."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

from lrbench_caffe import installation
from lrbench_caffe.errors import LRBenchError
from lrbench_caffe.setup.progress import say

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NO_SPACE = re.compile("No space left on device|enough free space")
APT_PROBLEM = re.compile(r"^(E: |W: Failed to fetch|W: GPG error)", re.MULTILINE)

_children: set[subprocess.Popen[str]] = set()
_children_lock = threading.Lock()
_stopping = threading.Event()
_lock_files: list[int] = []


class SetupError(LRBenchError):
    """Something could not be set up; the message is one line for people."""


class Interrupted(BaseException):
    """A signal asked us to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


# -- programs --------------------------------------------------------------------------------------


def run(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
    show_failure: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a program with its output captured.

    It gets its own process group, so that Ctrl-C reaches this process alone, which then ends all of
    its children. It inherits the locks: should this process be killed outright, the next setup
    waits for its orphans.

    Args:
        command: the program and its arguments.
        cwd: the folder to run it in.
        env: its environment.
        check: whether a failure raises an error.
        show_failure: whether its whole output is printed when it fails.

    Raises:
        SetupError: it failed, with its last words, or setup was interrupted.
    """
    child = _start(command, cwd, env)
    try:
        output, _ = child.communicate()
    finally:
        with _children_lock:
            _children.discard(child)
    if _stopping.is_set():
        raise SetupError("interrupted")
    if check and child.returncode != 0:
        if show_failure:
            sys.stderr.write(output)
        if NO_SPACE.search(output):
            raise SetupError(no_space(cwd or Path.cwd()))
        raise SetupError(f"{command[0]} failed: {last_words(output, child.returncode)}")
    return subprocess.CompletedProcess(command, child.returncode, output, "")


def _start(
    command: Sequence[str], cwd: Path | None, env: Mapping[str, str] | None
) -> subprocess.Popen[str]:
    with _children_lock:
        if _stopping.is_set():
            raise SetupError("interrupted")
        child = subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            pass_fds=_lock_files,
        )
        _children.add(child)
    return child


def last_words(output: str, code: int) -> str:
    """Return the line of a program's output that says most about why it failed."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if APT_PROBLEM.match(line) or re.match(r"ERROR|error", line)]
    return re.sub("^[EW]: ", "", (telling or lines[-1:] or [f"exit code {code}"])[0])


def no_space(place: Path) -> str:
    """Return the message for a full disk."""
    return f"no space left on the disk that holds {place}"


# -- locks -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(path: Path, subject: str) -> Iterator[None]:
    """Hold an exclusive lock: of several setups at once, one works and the others wait.

    Args:
        path: the lock's file; created where it is missing.
        subject: what the line about waiting begins with.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        waiting = False
        while not _try_lock(descriptor):
            if not waiting:
                say(subject, f"another {installation.setup_command()} is running; waiting for it")
                waiting = True
            if _stopping.wait(0.2):
                raise SetupError("interrupted")
        _lock_files.append(descriptor)
        yield
    finally:
        if descriptor in _lock_files:
            _lock_files.remove(descriptor)
            # Closing it is not enough: pip, which another thread runs, has inherited it.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    """Take the lock if it is free. Some network disks have no locks; there one must do without."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    return True


# -- jobs ------------------------------------------------------------------------------------------


def stopping() -> bool:
    """Tell whether a signal has asked us to stop."""
    return _stopping.is_set()


def run_jobs(jobs: Mapping[str, Callable[[], None]]) -> int:
    """Run jobs at the same time: they wait for the network most of the time, for different servers.

    One that fails does not stop the others. A signal ends all of them, with what they have started.

    Args:
        jobs: what to call, by what the line about a failure begins with.

    Returns:
        the exit code.
    """
    handlers = {caught: signal.signal(caught, _interrupt) for caught in STOP_SIGNALS}
    try:
        with ThreadPoolExecutor(len(jobs)) as pool:
            succeeded = list(pool.map(lambda subject: _attempt(subject, jobs[subject]), jobs))
    except Interrupted as stop:
        again = f"run {installation.setup_command()} again to continue"
        print(f"interrupted; {again}", file=sys.stderr, flush=True)
        return 128 + stop.number
    finally:
        for caught, handler in handlers.items():
            signal.signal(caught, handler)
    return 0 if all(succeeded) else 1


def _attempt(subject: str, job: Callable[[], None]) -> bool:
    """Run a job; print why it failed, unless it failed because we were told to stop."""
    try:
        job()
    except SetupError as error:
        message = str(error)
    except OSError as error:
        full = error.errno == errno.ENOSPC and error.filename
        message = no_space(Path(error.filename)) if full else f"{error.filename}: {error.strerror}"
    else:
        return True
    if not _stopping.is_set():
        print(f"error: {subject}: {message}", file=sys.stderr, flush=True)
    return False


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Handle a signal that asks us to stop: the children end, then the threads that wait for them."""
    for caught in STOP_SIGNALS:
        signal.signal(caught, signal.SIG_IGN)  # cleaning up takes a second; once is enough
    _stop_children()
    raise Interrupted(number)


def _stop_children() -> None:
    """End whatever still runs, and let nothing new start."""
    with _children_lock:
        _stopping.set()
        for child in _children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGTERM)
