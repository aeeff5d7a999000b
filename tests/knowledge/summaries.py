"""Policy summaries for tests."""

from __future__ import annotations

from typing import Any

from lrbench_caffe.knowledge.ranking import RankingEntry, TargetCost
from lrbench_caffe.lr import parse
from lrbench_caffe.records import PolicyRecord, PolicySummary, RunRecord, SolverSettings, Spread

SOLVER = SolverSettings("SGD", 100, 1, 0.01, 0.9, 0.0005)


def summary(
    policy: str = "FIX(k0=0.01)", top1: float | None = 99.0, sd: float | None = None, **other: Any
):
    """A summary with the values that matter to a test."""
    spreads = {
        name: None if (value := other.pop(name, None)) is None else Spread(float(value), None)
        for name in ("iterations", "top5", "ac", "cd", "cdac", "ld", "test_loss")
    }
    return PolicySummary(
        **{
            "task_id": 1,
            "policy": PolicyRecord.of(parse(policy)),
            "source": "measured",
            "max_iter": 10_000,
            "epoch": 600.0,
            "solver": SOLVER,
            "runs": 1,
            "repeats": 1,
            "failed": 0,
            "diverged": 0,
            "top1": None if top1 is None else Spread(top1, sd),
            "origin": "runs/x",
            **spreads,
            **other,
        }
    )


def candidate(*args: Any, target: TargetCost | None = None, **kwargs: Any) -> RankingEntry:
    return RankingEntry(summary(*args, **kwargs), target)


def of_record(record: RunRecord, task_id: int = 1) -> PolicySummary:
    """A row of the paper as its summary: one run of one measurement."""
    (m,) = record.measurements
    values = {name: getattr(m, name) for name in ("top5", "ac", "cd", "cdac", "ld", "test_loss")}
    return summary(
        str(record.policy.text),
        m.top1,
        record.top1_sd,
        iterations=m.iteration,
        task_id=task_id,
        source=record.source,
        max_iter=record.max_iter,
        epoch=record.epoch,
        solver=record.solver,
        repeats=record.repeats,
        origin=record.origin,
        **values,
    )
