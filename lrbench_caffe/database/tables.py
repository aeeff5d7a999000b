"""Runs and tasks as rows for people."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from lrbench_caffe.layout import Layout
from lrbench_caffe.metrics import best
from lrbench_caffe.records import Dataset, PolicySummary, RunRecord, Task
from lrbench_caffe.report import Rows, number

SHORT_UID = 12  # characters of a uid that a table shows; any unique beginning names the run

TASKS = Layout(
    ("task", "data", "form", "network", "framework", "runs", "top1", "policy"),
    order=("task", "data", "network", "runs", "top1", "policy"),
    text=("policy", "form"),
    words=("task", "data", "network", "framework"),
    common=("framework",),
)
RUNS = Layout(
    ("uid", "began", "task", "policy", "max_iter", "top1", "at", "tests", "source", "status"),
    order=("uid", "policy", "top1", "status", "max_iter", "task", "began"),
    text=("policy", "task"),
    words=("uid", "began", "source", "status"),
    common=("task", "max_iter", "source"),
)
MEASUREMENTS = Layout(
    ("iteration", "net", "lr", "top1", "top5", "ac", "cd", "cdac", "test_loss", "train_loss", "ld", "s"),
    order=("iteration", "net", "top1", "test_loss", "lr", "train_loss", "top5", "ld", "ac", "cd"),
    text=(),
    words=("iteration",),
    common=("net",),
)


def moment(seconds: float | None) -> str:
    """Local time of seconds since 1970."""
    return "-" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def form(dataset: Dataset) -> str:
    """A data set's form: "1 x 28 x 28, 10 classes"."""
    sizes = (dataset.channels, dataset.height, dataset.width)
    shape = " x ".join("?" if size is None else str(size) for size in sizes)
    return shape if dataset.classes is None else f"{shape}, {dataset.classes} classes"


def task_rows(
    tasks: Sequence[Task], runs: Mapping[int, int], best_policies: Mapping[int, PolicySummary]
) -> Rows:
    """A row for each task, with its best policy; the first row is the heading."""
    rows = [["task", "data set", "form", "network", "framework", "runs", "best Top-1 (%)", "policy"]]
    for task in tasks:
        assert task.id is not None
        top = best_policies.get(task.id)
        rows.append(
            [
                str(task.id),
                task.dataset.name,
                form(task.dataset),
                task.network.name,
                task.framework.name,
                str(runs.get(task.id, 0)),
                number(top.top1.mean if top and top.top1 else None, 2),
                top.policy.text if top else "-",
            ]
        )
    return rows


def run_rows(records: Sequence[RunRecord]) -> Rows:
    """A row for each run; the first row is the heading."""
    columns = (
        "uid",
        "began",
        "task",
        "policy",
        "max_iter",
        "best Top-1 (%)",
        "at",
        "tests",
        "source",
        "status",
    )
    rows = [list(columns)]
    for record in records:
        top = best([m for m in record.measurements if m.net == 0])
        rows.append(
            [
                record.uid[:SHORT_UID],
                moment(record.started),
                f"{record.dataset.name}, {record.network.name}",
                record.policy.text,
                str(record.max_iter),
                number(top.top1 if top else None, 2),
                str(top.iteration) if top else "-",
                str(len(record.measurements)),
                record.source,
                record.status,
            ]
        )
    return rows


def detail_rows(record: RunRecord) -> Rows:
    """All of a run but its measurements, as rows of name and value; the first row is the heading."""
    parts = record.framework, record.dataset, record.network, record.solver
    framework, dataset, network, solver = parts
    layers = ", ".join(f"{count} {kind}" for kind, count in network.layers.items())
    values = {
        "source": f"{record.source}: {record.origin}",
        "status": record.status + (f": {record.reason}" if record.reason else ""),
        "began": moment(record.started),
        "ended": moment(record.ended),
        "machine": record.machine,
        "framework": f"{framework.name} {framework.version}, {framework.device}",
        "task type": record.task_type,
        "data set": f"{dataset.name}: {form(dataset)}",
        "samples": f"{dataset.train_samples} for training, {dataset.test_samples} for tests",
        "data set digest": dataset.digest,
        "network": f"{network.name}: {layers}",
        "network digest": network.digest,
        "parameters": f"{network.parameters} in {network.depth} layers with weights",
        "policy": record.policy.text,
        "#Param": record.policy.num_params,
        "solver": f"{solver.type}, base_lr {solver.base_lr}, momentum {solver.momentum}, "
        f"weight_decay {solver.weight_decay}, batch {solver.batch} x {solver.iter_size}",
        "seed": record.seed,
        "iterations": f"{record.max_iter}, a test every {record.test_interval}, {record.epoch} an epoch",
        "trainings": record.repeats,
        "Top-1 deviation": record.top1_sd,
    }
    shown = [[name, "-" if value is None else str(value)] for name, value in values.items()]
    return [["run", record.uid], *shown]


def measurement_rows(record: RunRecord) -> Rows:
    """A row for each measurement; the first row is the heading."""
    names = ("top1", "top5", "ac", "cd", "cdac", "test_loss", "train_loss", "ld")
    headings = ("Top-1", "Top-5", "AC", "CD", "CDAC", "test loss", "train loss", "LD")
    rows = [["iteration", "net", "LR", *headings, "s"]]
    for m in record.measurements:
        digits = [2 if name.startswith("top") else 4 for name in names]
        values = [number(getattr(m, name), count) for name, count in zip(names, digits)]
        rows.append([str(m.iteration), str(m.net), f"{m.lr:.6g}", *values, f"{m.seconds:.1f}"])
    return rows
