"""Which trainings are tried again, when, and how often: with a pool that loses them by rule."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator

import pytest

from lrbench_caffe.errors import InputError, LRBenchError, PassingError, TrainingError
from lrbench_caffe.jobs import Job, JobResult, RetryingPool, child, retrying
from lrbench_caffe.jobs.child import PASSES
from lrbench_caffe.jobs.retrying import RETRIES
from lrbench_caffe.runtime.failures import Death, OpenFailure

KILLED = "Caffe was killed by SIGSEGV"
MEMORY = (
    "Caffe was killed by SIGKILL: Linux kills processes when memory runs out, and did so just now"
)


class LosingPool:
    """Ends each training at once: as its script says, and finished when that has nothing more.

    Results come when they are asked for, the last one that was begun first.
    """

    slots = 2

    def __init__(self, room: int = 2, **scripts: list[tuple[str, int]]) -> None:
        self.room = room
        self._scripts = {name: iter(script) for name, script in scripts.items()}
        self.running: list[Job] = []
        self.begun: list[tuple[str, ...]] = []  # what ran at each beginning, the new one last

    def submit(self, training: Job) -> None:
        self.running.append(training)
        self.begun.append(tuple(one.out for one in self.running))

    def next(self, timeout: float | None = None) -> JobResult | None:
        if not self.running:
            return None
        training = self.running.pop()
        script: Iterator[tuple[str, int]] = self._scripts.get(training.out, iter(()))
        reason, iteration = next(script, ("", 100))
        status = "failed" if reason else "finished"
        refused, memory = reason.startswith("refused"), reason == MEMORY
        return JobResult(
            training, status, reason or None, iteration, refused=refused, memory=memory
        )

    def close(self) -> None: ...


def training(name: str) -> Job:
    return Job("solver.prototxt", seed=1, out=name, policy="FIX(k0=0.1)", retry=True)


def carry_out(pool: LosingPool, *names: str) -> tuple[dict[str, JobResult], list[str]]:
    """Train all; their results, and what was said."""
    said: list[str] = []
    retry = RetryingPool(pool, said.append)
    for name in names:
        retry.submit(training(name))
    found: dict[str, JobResult] = {}
    while len(found) < len(names):
        result = retry.next(timeout=10)
        assert result is not None
        found[result.training.out] = result
    assert retry.next(timeout=0) is None
    return found, said


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "PAUSES", (0.0,))


def test_what_is_lost_is_tried_again_until_it_ends() -> None:
    found, said = carry_out(LosingPool(a=[(KILLED, 5), (KILLED, 3)]), "a", "b")
    assert {name: (one.status, one.losses) for name, one in found.items()} == {
        "a": ("finished", 2), "b": ("finished", 0),
    }  # fmt: skip
    assert said[0] == (
        f"FIX(k0=0.1)  seed 1  lost at iteration 5: {KILLED}; it is tried again (1 of at most 6 times)"
    )
    assert len(said) == 2


def test_it_is_given_up_after_so_many_losses_without_progress() -> None:
    found, said = carry_out(LosingPool(a=[(KILLED, 5), (KILLED, 4)] * 10), "a")
    assert (found["a"].status, found["a"].losses, len(said)) == ("failed", RETRIES + 1, RETRIES)
    assert found["a"].loss == (
        f"FIX(k0=0.1), seed 1: lost at iteration 5 (7 times, the last time: {KILLED})"
    )


def test_what_is_lost_in_the_same_way_each_time_is_given_up_sooner() -> None:
    """Caffe aborts at a damaged record; a kill that comes while Caffe starts may come again."""
    aborted = "Caffe was killed by SIGABRT: Check failed: x"
    found, _ = carry_out(
        LosingPool(a=[(KILLED, 5), *[(aborted, 40)] * 9], b=[(KILLED, 0)] * 6), "a", "b"
    )
    assert (found["a"].status, found["a"].losses, found["b"].status) == ("failed", 4, "finished")


def test_a_full_disk_ends_the_command() -> None:
    """No other training could be recorded either, and each would be tried seven times."""
    pool = LosingPool(a=[(os.strerror(errno.ENOSPC), 0)] * 9)
    with pytest.raises(
        LRBenchError, match="^a: No space left on device; the same command continues"
    ):
        carry_out(pool, "a")
    assert len(pool.begun) == RETRIES + 1


def test_one_that_gets_further_each_time_is_not_given_up() -> None:
    found, _ = carry_out(LosingPool(a=[(KILLED, 5 * n) for n in range(1, 12)]), "a")
    assert (found["a"].status, found["a"].losses) == ("finished", 11)


def test_what_a_cluster_gave_up_is_not_tried_again() -> None:
    class GivesUp(LosingPool):
        def next(self, timeout: float | None = None) -> JobResult | None:
            one = self.running.pop() if self.running else None
            return one and JobResult(one, "failed", "its worker was lost 4 times", 0, losses=4)

    found, said = carry_out(GivesUp(), "a")
    assert (found["a"].status, found["a"].losses, said) == ("failed", 4, [])


def test_no_more_is_handed_over_than_there_is_room_for() -> None:
    pool = LosingPool(room=2)
    carry_out(pool, "a", "b", "c", "d")
    assert max(map(len, pool.begun)) == 2


@pytest.mark.parametrize(
    "losses", [[(MEMORY, 5)], [(KILLED, 0)] * RETRIES], ids=["memory", "the last attempt"]
)
def test_alone_where_memory_may_be_short(losses: list[tuple[str, int]]) -> None:
    pool = LosingPool(room=2, b=losses)
    found, said = carry_out(pool, "a", "b", "c", "d")
    assert {one.status for one in found.values()} == {"finished"}
    assert "it is tried again, alone (" in said[-1]
    last = (
        len(pool.begun) - 1 - pool.begun[::-1].index(("b",))
    )  # when it began with nothing beside it
    assert all("b" not in running for running in pool.begun[last + 1 :])


def test_what_is_refused_is_not_tried_again_and_ends_all() -> None:
    with pytest.raises(InputError, match="^refused: net.prototxt: layer 'x'"):
        carry_out(LosingPool(a=[("refused: net.prototxt: layer 'x'", 0)]), "a", "b")


@pytest.mark.parametrize(
    ("code", "reason", "refused"),
    [
        (2, "net.prototxt: layer 'ip' (InnerProduct) of the training net: Caffe refuses it", True),
        (1, "net.prototxt: layer 'ip'", False),
        (-9, "killed by SIGKILL", False),
        (2, f"cannot write to runs/x: {os.strerror(errno.ENOSPC)}", False),
        (
            2,
            "python: cannot import caffe: libcaffe.so: failed to map segment from shared object",
            False,
        ),
        (2, "net.prototxt: layer 'ip': MemoryError", False),
        (PASSES, "./python (--caffe-python): Caffe ended with exit code 127: Aborted", False),
        (2, "./python (--caffe-python): cannot import caffe: No module named 'caffe'", True),
        (PASSES, "runs/x is in use by a training that is still running", False),
        (2, "cannot write to runs/x: Permission denied", True),
    ],
)
def test_whose_fault_it_is(code: int, reason: str, refused: bool) -> None:
    assert child.judged(JobResult(training("a"), "failed", reason, 0), code).refused == refused


@pytest.mark.parametrize(
    ("code", "reason", "memory"),
    [
        (-9, "killed by SIGKILL", True),
        (137, "Caffe was killed by SIGKILL, by another process", True),
        (1, "Caffe was killed by SIGSEGV", False),
        (1, "Caffe was killed by SIGABRT: terminate called after ... 'std::bad_alloc'", True),
        (1, "syncedmem.cpp:71] Check failed: error == cudaSuccess (2 vs. 0)  out of memory", True),
        (1, f"cannot start python: {os.strerror(errno.ENOMEM)}", True),
        (1, "runs/memory: the loss is nan", False),
    ],
)
def test_whether_memory_was_short(code: int, reason: str, memory: bool) -> None:
    assert child.judged(JobResult(training("a"), "failed", reason, 0), code).memory == memory


def caused(error: LRBenchError, *causes: Exception) -> LRBenchError:
    last: BaseException = error
    for cause in causes:
        last.__cause__ = cause
        last = cause
    return error


KILL, SEGV = (Death("Caffe ended", number, "") for number in (signal.SIGKILL, signal.SIGSEGV))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("net.prototxt: no layers"), 2),
        (caused(InputError("net.prototxt: Caffe refuses it"), SEGV), 2),
        (PassingError("runs/x is in use"), 75),
        (TrainingError("the loss is nan"), 1),
        (caused(TrainingError("Caffe ended"), SEGV), 1),
        (caused(TrainingError("Caffe ended"), KILL), 137),
        (caused(TrainingError("Caffe ended"), OpenFailure("while it opened", 0, []), KILL), 137),
    ],
)
def test_the_exit_code_of_a_training_says_what_it_died_of(error: LRBenchError, code: int) -> None:
    assert child.exit_code(error) == code
