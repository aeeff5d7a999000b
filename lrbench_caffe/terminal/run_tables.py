"""Runs and tasks as rows for people."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from lrbench_caffe.metrics import TEST_LOSS, TOP1, best, of_first_net
from lrbench_caffe.records import (
    UNKNOWN_START,
    PolicySummary,
    RunRecord,
    Start,
    Task,
)
from lrbench_caffe.tabular import Rows, form, number
from lrbench_caffe.terminal.tables import Layout

SHORT_UID = 12  # characters of a uid that a table shows; any unique beginning names the run


def moment(seconds: float | None) -> str:
    """Local time of seconds since 1970."""
    return "-" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def start_labels(starts: Iterable[Start]) -> dict[Start, str]:
    """A short name for each start: "scratch", "weights 1", "weights 2", "snapshot"."""
    known = list(dict.fromkeys(start if start.known else UNKNOWN_START for start in starts))
    kinds = [start.kind for start in known]
    return {
        start: f"{kind} {kinds[: i + 1].count(kind)}" if kinds.count(kind) > 1 else kind
        for i, (start, kind) in enumerate(zip(known, kinds))
    }


def start_notes(labels: Mapping[Start, str]) -> list[str]:
    """The meaning of the short names, in lines below the table."""
    return [f"{label}: {start}" for start, label in labels.items() if label != str(start)]


def task_rows(
    tasks: Sequence[Task], runs: Mapping[int, int], best_policies: Mapping[int, PolicySummary]
) -> Rows:
    """A row for each task, with its best policy; the first row is the heading."""
    rows = [
        [
            "task",
            "data set",
            "form",
            "network",
            "framework",
            "runs",
            "Top-1 (%)",
            "loss",
            "start",
            "policy",
        ]
    ]
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
                number(top.top1.mean if top and top.top1 else None, TOP1.digits),
                number(top.test_loss.mean if top and top.test_loss else None, TEST_LOSS.digits),
                top.start.kind if top else "-",
                top.policy.text if top else "-",
            ]
        )
    return rows


def task_layout(rows: Rows) -> Layout:
    """How the table of ``task_rows`` is made to fit."""
    names = (
        "task",
        "data",
        "form",
        "network",
        "framework",
        "runs",
        "top1",
        "loss",
        "start",
        "policy",
    )
    told = (
        ["start"]
        if any(row[names.index("start")] not in ("scratch", "-") for row in rows[1:])
        else []
    )
    order = ("task", "data", "network", *_goals(rows, names), *told, "policy", "runs", "form")
    words = ("data", "form", "network", "framework", "start")
    return Layout(names, order, words=words, common=("framework", "start"))


def run_rows(records: Sequence[RunRecord]) -> Rows:
    """A row for each run; the first row is the heading."""
    columns = (
        "uid",
        "began",
        "data set",
        "network",
        "policy",
        "seed",
        "start",
        "max_iter",
        "Top-1 (%)",
        "loss",
        "at",
        "tests",
        "source",
        "status",
    )
    rows = [list(columns)]
    labels = start_labels(record.start for record in records)
    for record in records:
        top = best(of_first_net(record.measurements))
        rows.append(
            [
                record.uid[:SHORT_UID],
                moment(record.started),
                record.dataset.name,
                record.network.name,
                record.policy.text,
                "-" if record.seed is None else str(record.seed),
                labels[record.start if record.start.known else UNKNOWN_START],
                str(record.max_iter),
                number(top.top1 if top else None, TOP1.digits),
                number(top.test_loss if top else None, TEST_LOSS.digits),
                str(top.iteration) if top else "-",
                str(len(record.measurements)),
                record.source,
                record.status,
            ]
        )
    return rows


def run_layout(rows: Rows) -> Layout:
    """How the table of ``run_rows`` is made to fit."""
    names = (
        "uid", "began", "data", "network", "policy", "seed", "start", "max_iter", "top1", "loss", "at",
        "tests", "source", "status",
    )  # fmt: skip
    goals = _goals(rows, names)
    order = (
        "uid",
        "policy",
        *goals,
        "start",
        "status",
        "data",
        "at",
        "seed",
        "max_iter",
        "network",
    )
    words = ("uid", "began", "data", "network", "start", "source", "status")
    return Layout(
        names, order, words=words, common=("data", "network", "start", "source", "max_iter")
    )


def _goals(rows: Rows, names: Sequence[str]) -> tuple[str, ...]:
    """The metrics that rows are judged by: Top-1, and the test loss if a row has no Top-1."""
    tops = [row[names.index("top1")] for row in rows[1:]]
    if not any(top != "-" for top in tops):
        return ("loss",)
    return ("top1", "loss") if "-" in tops else ("top1",)


def measurement_layout(rows: Rows) -> Layout:
    """How the table of ``measurement_rows`` is made to fit."""
    names = [
        heading.lower().replace("-", "").replace(" ", "_")
        for heading in rows[0][: rows[0].index("s")]
    ]
    outputs = [heading.lower() for heading in rows[0][len(names) + 1 :]]
    order = dict.fromkeys(["iteration", "top1", "test_loss", "lr", *names, *outputs])
    del order["net"]
    return Layout([*names, "s", *outputs], list(order), text=(), common=("net",))
