"""Decides whether a silent process hangs or cannot run at the moment. Standard library only.

Only time in which both the silent process and the one that waits for it can run is counted. Linux'
monotonic clock is not affected by steps of the wall clock and stands still while the machine
sleeps; but it runs on while processes are stopped (SIGSTOP: Ctrl-Z, SLURM's suspend), while they
are frozen with their cgroup (a paused container), and while others have the processor.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

LONGEST_LOOK = 1.0  # seconds that count at most for the time between two looks
LEAST = (
    0.1  # of the time between looks counts at least, however long a process waited for a processor
)
ASLEEP = (
    0.05  # of the limit: a process that did not look for longer was suspended, like the other one
)
POLL = 0.05  # seconds between two looks at a process that is waited for

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


class Silence:
    """The time since a process gave a sign of life.

    Args:
        limit: seconds after which it hangs; 0 for never.
        pid: the process, where the time in which it waits for a processor is not to count.
        clock: a clock that is not stepped.

    Whoever waits looks several times a second. A longer gap between two looks counts for a second
    at most; one of more than a twentieth of the limit, in which the waiting process was suspended
    itself, begins the silence anew.
    """

    def __init__(
        self, limit: float, pid: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = limit
        self._pid = pid
        self._clock = clock
        self.heard()

    def heard(self) -> None:
        """There was a sign of life, or it cannot give any: the silence begins anew."""
        self._seconds = self._waited = 0.0
        self._looked = self._clock()
        self._queued: float | None = None  # at the last look

    def too_long(self) -> bool:
        """Look again: whether the silence has lasted for longer than the limit."""
        now = self._clock()
        gap = max(0.0, now - self._looked)
        if gap > max(LONGEST_LOOK, ASLEEP * self._limit):
            self.heard()
            return False
        self._looked = now
        self._seconds += min(gap, LONGEST_LOOK)
        queued = queued_seconds(self._pid) if self._pid is not None else 0.0
        if self._queued is not None:
            self._waited += max(0.0, queued - self._queued)  # less where a thread has ended
        self._queued = queued
        return 0 < self._limit < max(self._seconds - self._waited, LEAST * self._seconds)


class Waitable(Protocol):
    """A process that can be waited for, as ``subprocess.Popen`` can."""

    def wait(self, timeout: float | None = None) -> int: ...


def ends_within(process: Waitable, seconds: float) -> bool:
    """Wait for the end of a process, for so many seconds in which this one can run."""
    silence = Silence(seconds)
    while not silence.too_long():
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(POLL)
            return True
    return False


def paused(pid: int) -> str | None:
    """Why a process, or one that it has started, cannot run now; None where all can, or it is not known.

    Stopped are those that got SIGSTOP or that a debugger holds.
    """
    for one in _family(pid):
        if _state(one) in ("T", "t"):
            return f"stopped (process {one})"
        if _frozen(one):
            return f"frozen with its cgroup (process {one})"
    return None


def activity(pid: int) -> object:
    """Something that is another one whenever a process has run, or waited for a processor, since the last
    look; None where the system does not tell."""
    stat = _stat(pid)
    if stat is None:
        return None
    # The processor time of all threads is in hundredths of a second, that of the first one in
    # nanoseconds.
    with contextlib.suppress(OSError):
        return stat[11:13], (_PROC / str(pid) / "schedstat").read_text()
    return stat[11:13]


def queued_seconds(pid: int) -> float:
    """For how long all threads of a process, and of those that it has started, have waited for a processor
    so far, together; 0.0 where the system does not tell."""
    total = 0.0
    for one in _family(pid):
        for file in (_PROC / str(one) / "task").glob("*/schedstat"):
            with contextlib.suppress(OSError, ValueError, IndexError):
                total += int(file.read_text().split()[1]) / 1e9
    return total


def parent_of(pid: int) -> int | None:
    """The process that has started another one, None where that is gone."""
    stat = _stat(pid)
    return None if stat is None else int(stat[1])


def _family(pid: int) -> Iterator[int]:
    """A process and all that it has started: pycaffe's interpreter may be started by a script."""
    yield pid
    for children in (_PROC / str(pid) / "task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                yield from _family(int(child))


def _state(pid: int) -> str | None:
    stat = _stat(pid)
    return None if stat is None else stat[0]


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on; the name before it may hold anything."""
    try:
        return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def _frozen(pid: int) -> bool:
    """Whether its cgroup is, of the second version or of the first."""
    try:
        lines = (_PROC / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return False
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            places = [
                root / group.lstrip("/") / "cgroup.events"
                for root in (_CGROUPS, _CGROUPS / "unified")
            ]
        elif "freezer" in controllers.split(","):
            places = [_CGROUPS / "freezer" / group.lstrip("/") / "freezer.state"]
        else:
            continue
        for place in places:
            with contextlib.suppress(OSError):
                words = place.read_text().split()
                if words == ["FROZEN"] or ("frozen", "1") in zip(words, words[1:]):
                    return True
    return False
