"""A process that hangs, and one that cannot run: with a clock of our own, and with real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lrbench_caffe.runtime import liveness
from lrbench_caffe.runtime.liveness import Silence, activity, ends_within, paused

FREEZER = Path("/sys/fs/cgroup/freezer")


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def looks(silence: Silence, clock: Clock, gaps: list[float]) -> list[bool]:
    """What each look says after these seconds."""
    found = []
    for gap in gaps:
        clock.now += gap
        found.append(silence.too_long())
    return found


def test_silence_is_too_long_after_the_limit():
    clock = Clock()
    silence = Silence(2.0, clock=clock)
    assert looks(silence, clock, [0.5] * 5) == [False] * 4 + [True]
    silence.heard()
    assert looks(silence, clock, [0.5] * 5) == [False] * 4 + [True]


def test_without_a_limit_no_silence_is_too_long():
    clock = Clock()
    assert not any(looks(Silence(0, clock=clock), clock, [0.9] * 1000))


def test_a_gap_of_ones_own_begins_the_silence_anew():
    """600 s: 599 of them silent, then this process is stopped for an hour."""
    clock = Clock()
    silence = Silence(600.0, clock=clock)
    assert not any(looks(silence, clock, [1.0] * 599))
    assert not any(looks(silence, clock, [3600.0, *[1.0] * 600]))
    assert looks(silence, clock, [1.0]) == [True]


def test_a_short_gap_counts_for_a_second():
    """On a machine that swaps each look is 20 s late: the limit is stretched, but there is one."""
    clock = Clock()
    silence = Silence(600.0, clock=clock)
    assert looks(silence, clock, [20.0] * 601) == [False] * 600 + [True]


def test_a_clock_that_goes_back_does_not_count():
    clock = Clock()
    silence = Silence(2.0, clock=clock)
    assert looks(silence, clock, [0.9, -500.0, 0.9, 0.9]) == [False, False, False, True]


def test_time_in_which_others_have_the_processor_does_not_count(monkeypatch):
    """Of each half second it waits 0.4 s for a processor: 0.1 s count. Of a wait all the time, a tenth."""
    clock, queued = Clock(), [100.0]
    monkeypatch.setattr(liveness, "queued_seconds", lambda pid: queued[0])

    def looks_until_too_long(wait: float) -> int:
        silence, count = Silence(2.0, 7, clock), 1
        silence.too_long()  # what it waited before does not matter
        while True:
            clock.now += 0.5
            queued[0] += wait
            if silence.too_long():
                return count
            count += 1

    assert looks_until_too_long(0.4) == 21  # 2.1 s of 10.5
    assert looks_until_too_long(5.0) == 41  # 2.05 s of 20.5
    assert looks_until_too_long(-1.0) == 5  # a thread that had waited has ended


# -- real processes --------------------------------------------------------------------------------


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def begin(*command: str) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE))
        return started[-1]

    yield begin
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def test_a_stopped_process_is_paused_until_it_continues(start):
    process = start("sleep", "100")
    assert paused(process.pid) is None
    process.send_signal(signal.SIGSTOP)
    wait_for(lambda: paused(process.pid) == f"stopped (process {process.pid})")
    process.send_signal(signal.SIGCONT)
    wait_for(lambda: paused(process.pid) is None)


def test_a_process_is_paused_where_one_that_it_started_is(start):
    """As where a script starts the interpreter that pycaffe lives in."""
    script = start("sh", "-c", "sh -c 'sleep 100 & echo $!; wait'; true")
    assert script.stdout
    sleeper = int(script.stdout.readline())
    os.kill(sleeper, signal.SIGSTOP)
    wait_for(lambda: paused(script.pid) == f"stopped (process {sleeper})")


@pytest.mark.skipif(not os.access(FREEZER, os.W_OK), reason="no freezer of cgroups that we may use")
def test_a_process_in_a_frozen_cgroup(start):
    group = FREEZER / f"lrbench-test-{os.getpid()}"
    group.mkdir()
    try:
        process = start("sleep", "100")
        (group / "tasks").write_text(str(process.pid))
        assert paused(process.pid) is None
        (group / "freezer.state").write_text("FROZEN")
        wait_for(lambda: paused(process.pid) == f"frozen with its cgroup (process {process.pid})")
        (group / "freezer.state").write_text("THAWED")
        wait_for(lambda: paused(process.pid) is None)
        process.kill()
        process.wait()
    finally:
        (group / "freezer.state").write_text("THAWED")
        group.rmdir()


@pytest.mark.parametrize(
    ("events", "frozen"), [("populated 1\nfrozen 1\n", True), ("populated 1\nfrozen 0\n", False)]
)
def test_the_second_version_of_cgroups(tmp_path, monkeypatch, events, frozen):
    """The kernel's documentation: "cgroup.events ... frozen: 1 if the cgroup is frozen; otherwise, 0"."""
    proc, group = tmp_path / "proc" / "7", tmp_path / "cgroup" / "user.slice" / "job"
    (proc / "task").mkdir(parents=True)
    (proc / "stat").write_text("7 (python) S 1 7 7 0 -1 0 0 0 0 0 5 6 0 0\n")
    (proc / "cgroup").write_text("0::/user.slice/job\n")
    group.mkdir(parents=True)
    (group / "cgroup.events").write_text(events)
    monkeypatch.setattr(liveness, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(liveness, "_CGROUPS", tmp_path / "cgroup")
    assert paused(7) == ("frozen with its cgroup (process 7)" if frozen else None)


def test_a_process_that_is_gone_is_not_paused(start):
    process = start("true")
    process.wait()
    assert paused(process.pid) is None
    assert activity(process.pid) is None


def test_activity(start):
    busy = start(sys.executable, "-c", "while True: pass")
    first = activity(busy.pid)
    wait_for(lambda: activity(busy.pid) != first)
    idle = start("sleep", "100")
    wait_for(lambda: "sleep" in Path(f"/proc/{idle.pid}/comm").read_text())
    wait_for(lambda: Path(f"/proc/{idle.pid}/stat").read_text().split()[2] == "S")
    first = activity(idle.pid)
    time.sleep(0.3)
    assert activity(idle.pid) == first


def test_seconds_in_the_queue_for_a_processor(start):
    """Two that want one processor: both wait for about half of the time."""
    processor = min(os.sched_getaffinity(0))
    busy = f"import os; os.sched_setaffinity(0, [{processor}])\nwhile True: pass"
    both = [start(sys.executable, "-c", busy) for _ in range(2)]
    wait_for(lambda: all(liveness.queued_seconds(process.pid) > 0.2 for process in both))


def test_ends_within(start):
    assert ends_within(start("true"), 30)
    assert not ends_within(start("sleep", "100"), 0.2)
