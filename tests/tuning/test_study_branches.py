"""A study whose trainings branch from one another, with a pool that answers by rule instead of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lrbench_caffe.jobs import Job
from lrbench_caffe.tuning.beginnings import Beginnings
from lrbench_caffe.tuning.report import cost_rows, time_line
from tests.tuning.rule_pool import MAX_ITER, RulePool, result, tune

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
