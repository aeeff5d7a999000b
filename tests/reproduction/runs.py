"""Runs of the paper's tasks, as trainings here leave them in the LR database."""

from __future__ import annotations

from typing import Any

from lrbench_caffe.lr import Policy
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.paper.tables import paper_solver, paper_task
from lrbench_caffe.records import Framework, PolicyRecord, RunRecord
from lrbench_caffe.reproduction.plan import ExperimentPlan


def measured(iteration: int, top1: float | None, **others: Any) -> Measurement:
    values = {
        "top5": 99.9,
        "ac": 0.99,
        "cd": 0.03,
        "cdac": 0.002,
        "test_loss": 0.05,
        "train_loss": 0.03,
    }
    values = {**values, "ld": 0.02, "seconds": 1.0, **others}
    return Measurement(iteration=iteration, lr=0.01, top1=top1, **values)


def run(
    plan: ExperimentPlan, policy: Policy, seed: int, tests: list[Measurement], **others: Any
) -> RunRecord:
    task = paper_task(plan.setup.key)
    values: dict[str, Any] = {
        "uid": f"{policy}-{seed}", "source": "measured", "origin": "runs/x",
        "framework": Framework("Caffe", "1.0.0", "CPU"), "task_type": task.task_type, "dataset": task.dataset,
        "network": task.network, "policy": PolicyRecord.of(policy), "solver": paper_solver(plan.setup.key),
        "seed": seed, "max_iter": plan.max_iter, "test_interval": plan.test_interval, "epoch": 600.0,
        "machine": "here", "started": 1.0, "ended": 2.0, "status": "finished", "measurements": tests,
    }  # fmt: skip
    return RunRecord(**{**values, **others})
