"""A study whose trainings branch from one another, with a pool that answers by rule instead of training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lrbench_caffe.jobs import Job, JobResult
from lrbench_caffe.lr import Policy, parse
from lrbench_caffe.tuning import study as studies
from lrbench_caffe.tuning.beginnings import Beginnings
from lrbench_caffe.tuning.report import cost_rows, time_line
from lrbench_caffe.tuning.study import Study
from tests.tuning.rule_pool import MAX_ITER, RulePool, plan, result, tune

STEPS = ("FIX", "STEP", "NSTEP")
MANY = {"functions": STEPS, "budget": 60_000, "top": 3}


class WatchingPool(RulePool):
    """Notes which trainings branch; none may be begun before what it branches from has ended.

    A later part of that may be in training.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.branched: list[tuple[str, str]] = []

    def submit(self, training: Job) -> None:
        if training.branch is not None:
            origin = next(job for job in self.submitted if job.out == training.branch)
            assert origin not in [result.training for result in self._results]
            self.branched.append((training.out, training.branch))
        super().submit(training)


def asked(pool: RulePool) -> list[tuple[str | None, int, int | None]]:
    """What was trained, in any order: a training that waits for another one lets others go first."""
    wanted = [(job.policy, job.seed, job.until) for job in pool.submitted]
    return sorted(wanted, key=repr)


def test_a_training_waits_for_the_one_that_it_branches_from(tmp_path: Path) -> None:
    for next_one in (0, -1):
        pool = WatchingPool(next_one=next_one)
        tune(tmp_path / str(next_one), pool, **MANY)
        assert len(pool.branched) >= 10
        seeds = [{Path(name).name[-5:] for name in pair} for pair in pool.branched]
        assert all(len(pair) == 1 for pair in seeds)
        assert {"seed1", "seed2"} <= set().union(*seeds)


def test_branches_change_no_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_branches, without = RulePool(), RulePool()
    study, outcome = tune(tmp_path, with_branches, **MANY)
    monkeypatch.setattr(Beginnings, "plan", lambda *_: (None, ()))
    plain, same = tune(tmp_path, without, **MANY)
    assert any(job.branch for job in with_branches.submitted)
    assert not any(job.branch or job.branch_points for job in without.submitted)
    assert result(study, outcome) == result(plain, same)
    assert asked(with_branches) == asked(without)


def test_they_are_the_same_however_the_trainings_end(tmp_path: Path) -> None:
    first, last, two = RulePool(next_one=0), RulePool(), RulePool(next_one=0)
    two.slots = two.room = 2
    plans = []
    for pool in (first, last, two):
        tune(tmp_path, pool, **MANY)
        plans.append({job: (job.branch, job.branch_points) for job in pool.submitted})
    assert plans[0] == plans[1] == plans[2]


class Clock(RulePool):
    """Trains on a few slots, ten iterations at a time, and makes the snapshots that it is asked for.

    Attributes:
        begun: policy, from where to where, of each part in the order of their beginnings.
        spent: iterations that were trained; time: iterations that one slot would have trained.
    """

    def __init__(self, slots: int) -> None:
        super().__init__()
        self.slots = self.room = slots
        self.begun: list[tuple[str, int, int]] = []
        self.spent = self.time = 0
        self._running: dict[Job, int] = {}  # and where each is
        self.snapshots: dict[str, set[int]] = {}

    def submit(self, training: Job) -> None:
        assert len(self._running) < self.slots
        at = max(self.snapshots.get(training.out, ()), default=0)
        if training.branch is not None and training.branch_at is not None:
            theirs = self.snapshots.get(training.branch, set())
            last = min(training.branch_at, MAX_ITER - 1)
            at = max([at, *(point for point in theirs if point <= last)])
        self._running[training] = at
        self.begun.append((training.policy or "", at, training.until or MAX_ITER))

    def next(self, timeout: float | None = None) -> JobResult | None:
        for training, at in self._running.items():
            if at >= (training.until or MAX_ITER):
                self.snapshots.setdefault(training.out, set()).add(at)
                del self._running[training]
                return self._train(training)
        self.time += 10
        for training, at in self._running.items():
            end = min(at + 10, training.until or MAX_ITER)
            made = {point for point in training.branch_points if at < point <= end}
            self.snapshots.setdefault(training.out, set()).update(made)
            self._running[training] = end
            self.spent += end - at
        return None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Its snapshots are those that the study sees."""
    clock = Clock(slots=2)
    monkeypatch.setattr(
        studies, "recorded",
        lambda run: [SimpleNamespace(iteration=i) for i in clock.snapshots.get(str(run.path), ())],
    )  # fmt: skip
    return clock


def policy(text: str) -> Policy:
    return parse(text).bind(MAX_ITER)


def test_a_policy_that_never_parts_from_another_is_not_trained_again(
    tmp_path: Path, clock: Clock
) -> None:
    """The solver's own steps come after the end of the study's trainings."""
    fix, own = policy("FIX(k0=0.01)"), policy("NSTEP(k0=0.01, gamma=0.1, l=[5000, 8000])")
    Study(tmp_path, plan(slots=2, seeds=1), clock, db="").repeat([fix], own)
    assert clock.begun == [(str(fix), 0, 1000), (str(own), 999, 1000)]
    assert (clock.spent, clock.time) == (1001, 1010)


def test_the_second_part_of_a_training_does_not_begin_before_its_first(
    tmp_path: Path, clock: Clock
) -> None:
    """Three that part at 500, on two slots: one of them is cut in two."""
    fix, steep, flat = (
        policy(text)
        for text in (
            "FIX(k0=0.01)", "NSTEP(k0=0.01, gamma=0.1, l=[500])", "NSTEP(k0=0.01, gamma=0.5, l=[500])",
        )
    )  # fmt: skip
    Study(tmp_path, plan(slots=2, seeds=1), clock, db="").repeat([fix, steep], flat)
    assert clock.begun[0] == (str(fix), 0, 1000)
    parts = [(str(steep), 500, 500), (str(steep), 500, 1000), (str(flat), 500, 1000)]
    assert sorted(clock.begun[1:]) == sorted(parts)
    assert clock.spent == 2000


class RecordingPool(RulePool):
    """Leaves a run.json: each training that branches took over 40 iterations, which had taken 3 s there."""

    def submit(self, training: Job) -> None:
        run = training.run
        if not run.exists:
            run.path.mkdir(parents=True)
            taken = {"run": "x", "uid": None, "after": 10, "at": 50, "seconds": 0.5}
            branches = {"branches": [taken]} if training.branch else {}
            run.write({"solver": "s", "iteration": 0, "max_iter": MAX_ITER, **branches})
        super().submit(training)


def test_the_report_tells_what_was_not_trained_twice(tmp_path: Path) -> None:
    study, outcome = tune(tmp_path, RecordingPool(), **MANY)
    pool = RulePool()
    plain, same = tune(tmp_path / "plain", pool, **MANY)
    first = {job.out: job.branch for job in reversed(pool.submitted)}
    count = sum(branch is not None for branch in first.values())
    assert study.taken_over == 40 * count > 0
    assert study.seconds == pytest.approx(plain.seconds - 0.5 * count)
    rows = {row[0]: row[1] for row in cost_rows(study, outcome)}
    assert rows["of these not trained twice"] == f"{40 * count:,}"
    assert rows["in all"] == f"{sum(outcome.spent.values()):,}" == f"{plain.iterations:,}"
    assert result(study, outcome)["iterations_taken_over"] == 40 * count
    assert all("twice" not in row[0] for row in cost_rows(plain, same))
    # What was not trained took no time.
    assert time_line(study, outcome) != time_line(plain, same)
