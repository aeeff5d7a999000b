"""Starts the process of one training, watches it, and ends it where that is necessary.

A Caffe that aborts, crashes, hangs or is killed for its memory is one failed run with its reason.
``train`` itself notices a Caffe that hangs; here it is ``train`` that is watched, by the processor
time that it uses. A training that is suspended is waited for, on whichever side the suspension is
(see ``liveness``).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Union

from lrbench_caffe.errors import InputError, LRBenchError, PassingError, TrainingError
from lrbench_caffe.files import is_full, open_own
from lrbench_caffe.jobs import attempts
from lrbench_caffe.jobs.forkserver import ForkServer
from lrbench_caffe.jobs.training import Job, JobResult, failed_result, read_result
from lrbench_caffe.runtime.failures import Death
from lrbench_caffe.runtime.faults import BAD_INPUT, is_of_machine, is_of_memory, passes
from lrbench_caffe.runtime.forked import ForkedProcess
from lrbench_caffe.runtime.liveness import POLL, Silence, activity, ends_within, paused

LOOK = 10  # polls between two looks for a sign of life
STOP_SECONDS = 60.0  # for which a stopped training may write its snapshot
GRACE = (
    60.0  # beyond hang_seconds: ``train`` itself notices a Caffe that hangs, this is for ``train``
)
OUTPUT = "output.log"  # what ``train`` prints
SCANTY = 1 << 16  # bytes free: a full disk may have a few for root, or in half-filled blocks
LOCK = ".job"
# Exit codes of the process, beside those of ``train``.
PASSES = os.EX_TEMPFAIL  # bad input that may be accepted at the next attempt
CAFFE_KILLED = 128 + signal.SIGKILL  # Linux kills a process for its memory

Process = Union["subprocess.Popen[bytes]", ForkedProcess]


class Stopped(TrainingError):
    """The training was stopped on request."""


def on_stderr(text: str) -> None:
    """A line for whoever reads this process's stderr: of a command, or the log of a cluster's worker."""
    print(text, file=sys.stderr, flush=True)


def run_child(
    training: Job,
    stop: threading.Event | None = None,
    gpu: str | None = None,
    warn: Callable[[str], None] = on_stderr,
    server: ForkServer | None = None,
) -> JobResult:
    """Train in a process of its own, and wait for it.

    Nothing is done for a training that is there already. One that another process is at is waited
    for.

    Args:
        stop: set by another thread to stop it with a snapshot.
        gpu: the GPU's name in CUDA_VISIBLE_DEVICES, None for the CPU.
        warn: called with warnings for the user while it trains.
        server: forks the process, where it can; else Python is started.

    Returns:
        What came out. A training that failed is a result, too.

    Raises:
        Stopped: ``stop`` was set.
        InputError: nothing can be written there.
    """
    stop = stop or threading.Event()
    try:
        result = _found(training)
        if result is None:
            with _alone(training, stop):
                _wait_for_others(training, stop)
                result = _found(training) or _train(training, stop, gpu, warn, server)
        attempts.end(training)  # one of a cluster whose command was killed
        return result
    except (OSError, InputError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not (isinstance(cause, OSError) and passes(cause)):
            raise
        reason = f"{cause.filename or training.out}: {cause.strerror}"
        return judged(JobResult(training, "failed", reason, training.reached), 1)


def _found(training: Job) -> JobResult | None:
    """The existing result, unless it has to be tried again."""
    result = read_result(training)
    return None if result is None or (result.lost and training.retry) else result


def _train(
    training: Job,
    stop: threading.Event,
    gpu: str | None,
    warn: Callable[[str], None],
    server: ForkServer | None,
) -> JobResult:
    began = time.monotonic()
    with open_own(Path(training.out) / OUTPUT, "ab") as file:
        process = _start(training, gpu, file, stop, server)
        try:
            hung = _wait(process, stop, _Watch(process.pid, training, warn))
        finally:
            code = _end(process)
    if stop.is_set():
        raise Stopped(f"{training.out}: stopped")
    seconds = time.monotonic() - began
    result = read_result(training, seconds)
    if result is not None and not (result.lost and code not in (0, 1, CAFFE_KILLED)):
        return judged(result, code)
    # One that ended before it could write anything has the failure of an earlier attempt there.
    return _failure(training, code, hung, seconds)


def _start(
    training: Job,
    gpu: str | None,
    output: IO[bytes],
    stop: threading.Event,
    server: ForkServer | None,
) -> Process:
    arguments, environment = training.arguments(gpu), training.environment(gpu)
    forked = server.start(arguments, environment, output, stop) if server is not None else None
    return forked or subprocess.Popen(
        [sys.executable, "-m", "lrbench_caffe.jobs", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is for our caller, who then stops it properly
    )


@contextlib.contextmanager
def _alone(training: Job, stop: threading.Event) -> Iterator[None]:
    """Be the only caller at a run directory: two parts of a training may be begun at the same time."""
    folder = Path(training.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open_own(folder / LOCK, "ab")
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}") from error
    with file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if stop.wait(POLL):
                    raise Stopped(f"{training.out}: stopped") from None
        yield


def _wait_for_others(training: Job, stop: threading.Event) -> None:
    """Wait while a process trains in the run directory whose caller is gone: it is being stopped."""
    while training.run.running:
        if stop.wait(POLL):
            raise Stopped(f"{training.out}: stopped")


def _wait(process: Process, stop: threading.Event, watch: _Watch) -> bool:
    """Wait for the end; returns True for a process that gave no sign of life."""
    while not watch.hangs():
        for _ in range(LOOK):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL)
                return False
            if stop.is_set():
                process.terminate()
                ends_within(process, STOP_SECONDS)
                return False
    return True


class _Watch:
    """Looks at the process of a training now and then. A ``train`` that waits for Caffe wakes up often."""

    def __init__(self, pid: int, training: Job, warn: Callable[[str], None]) -> None:
        self._pid = pid
        self._warn = warn
        self._out = training.out
        self._silence = Silence(training.hang_seconds + GRACE if training.hang_seconds else 0)
        self._activity: object = None
        self._paused: str | None = None

    def hangs(self) -> bool:
        before, self._activity = self._activity, activity(self._pid)
        if self._activity is None or self._activity != before:
            self._silence.heard()
            self._paused = None
            return False
        was_paused, self._paused = self._paused, paused(self._pid)
        if self._paused is None:
            return self._silence.too_long()
        self._silence.heard()
        if not was_paused:
            line = f"note: {self._out}: the training is {self._paused}: waiting until it continues"
            with contextlib.suppress(OSError, ValueError):  # nobody may be there to be told
                self._warn(line)
        return False


def _end(process: Process) -> int:
    """End it, where it has not ended; returns its exit code."""
    if process.poll() is None:
        process.kill()  # its worker ends with it
    return process.wait()


def _failure(training: Job, code: int, hung: bool, seconds: float) -> JobResult:
    """The result of a training that left none itself."""
    if hung:
        reason = f"no sign of life for {training.hang_seconds + GRACE:g} seconds"
    elif code < 0:
        reason = f"killed by {signal.Signals(-code).name}" + (
            ", perhaps for lack of memory" if code == -signal.SIGKILL else ""
        )
    else:
        reason = _last_line(Path(training.out) / OUTPUT) or _silent_reason(training, code)
    return judged(failed_result(training, reason, seconds), code)


def _silent_reason(training: Job, code: int) -> str:
    """Why a training ended that could not even say so: there may have been no room for its words."""
    full = is_full(Path(training.out), SCANTY)
    return os.strerror(errno.ENOSPC) if full else f"exit code {code}"


def judged(result: JobResult, code: int) -> JobResult:
    """The result, completed by what the exit code says about retrying."""
    words = result.reason or ""
    return replace(
        result,
        refused=code == BAD_INPUT and not is_of_machine(words),
        memory=code in (CAFFE_KILLED, -signal.SIGKILL) or is_of_memory(words),
    )


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else ""


def exit_code(error: LRBenchError) -> int:
    """What the exit code of the process says of a failure: more than that of ``train``."""
    if isinstance(error, PassingError):
        return PASSES
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, Death) and cause.signal == signal.SIGKILL:
            return CAFFE_KILLED
        cause = cause.__cause__
    return error.exit_code
