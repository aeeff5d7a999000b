"""Rows: the same ones become Markdown, CSV or JSON, or a table on the terminal (``terminal.tables``)."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Sequence

from lrbench_caffe.metrics import LOSSES, METRICS, RANKED, Measurement, best, scalar_names
from lrbench_caffe.plaintext import csv_cell, markdown
from lrbench_caffe.records import Dataset, RunRecord

Rows = list[list[str]]
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,3})?")  # of JSON


def number(value: float | None, digits: int) -> str:
    """A value with fixed digits; a dash for one that was not measured."""
    return "-" if value is None or value != value else f"{value:.{digits}f}"


def count_of(count: int, noun: str) -> str:
    """ "1 training", "2 trainings"."""
    return f"{count} {noun}{'s' * (count != 1)}"


def plus_minus(mean: str, sd: str | None) -> str:
    """ "99.31 ± 0.02"; only the mean if no deviation is known."""
    return mean if sd is None else f"{mean} ± {sd}"


def clock(seconds: float) -> str:
    """A time as h:mm:ss."""
    return f"{int(seconds // 3600)}:{int(seconds // 60 % 60):02d}:{int(seconds % 60):02d}"


def metrics_rows(measurements: Sequence[Measurement], num_params: int) -> Rows:
    """The eight metrics at the best test and at the last one (paper, section III), and the net's own outputs.

    All measurements are of one test net.
    The best test is the one with the first highest Top-1 or, for a net that does not classify, the
    first lowest test loss; such a net has its losses and outputs only.

    Returns:
        Rows of metric, value at the best test, value at the last test; the first row is the
        heading.
    """
    top = best(measurements)
    last = measurements[-1]
    columns = [top or last, last]
    classifies = any(m.top1 is not None for m in measurements)
    rows = [["metric", f"best, at {columns[0].iteration}", f"last, at {last.iteration}"]]
    for metric in map(METRICS.__getitem__, RANKED):
        if classifies or metric.of == LOSSES:
            values = [number(getattr(m, metric.name), metric.digits) for m in columns]
            rows.append([metric.heading, *values])
    for name in scalar_names(m.outputs for m in measurements):
        if any(name in m.outputs for m in columns):
            rows.append(
                [name, *(f"{m.outputs[name]:.6g}" if name in m.outputs else "-" for m in columns)]
            )
    losses = any(m.test_loss is not None for m in measurements)
    reached = (
        "the highest Top-1" if classifies else "the lowest test loss" if losses else "the last test"
    )
    rows.append([f"#Iterations at {reached}", str(top.iteration) if top else "-", ""])
    rows.append(["#Param", str(num_params), ""])
    return rows


def metrics_of_nets(measurements: Sequence[Measurement], num_params: int) -> dict[int, Rows]:
    """The rows of ``metrics_rows`` for each test net, by its number."""
    nets = sorted({m.net for m in measurements})
    return {
        net: metrics_rows([m for m in measurements if m.net == net], num_params) for net in nets
    }


def form(dataset: Dataset) -> str:
    """A data set's form: "1 x 28 x 28, 10 classes"."""
    sizes = (dataset.channels, dataset.height, dataset.width)
    shape = " x ".join("?" if size is None else str(size) for size in sizes)
    return shape if dataset.classes is None else f"{shape}, {dataset.classes} classes"


def detail_rows(record: RunRecord, moment: Callable[[float | None], str]) -> Rows:
    """A run without its measurements, as rows of name and value; the first row is the heading.

    Args:
        moment: writes seconds since 1970 as a time.
    """
    parts = record.framework, record.dataset, record.network, record.solver
    framework, dataset, network, solver = parts
    layers = ", ".join(f"{count} {kind}" for kind, count in network.layers.items())
    values = {
        "source": f"{record.source}: {record.origin}",
        "start": record.start,
        "status": record.status + (f": {record.reason}" if record.reason else ""),
        "began": moment(record.started),
        "ended": moment(record.ended),
        "machine": record.machine,
        "layers": record.layers,
        "framework": f"{framework.name} {framework.version}, {framework.device}",
        "task type": record.task_type,
        "Top-1 of": record.head,
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
    """A row for each measurement, without the metrics that no test has; the first row is the heading."""
    tests = record.measurements
    metrics = [
        metric
        for metric in METRICS.values()
        if any(getattr(m, metric.name) is not None for m in tests)
    ]
    outputs = list(dict.fromkeys(name for m in tests for name in m.outputs))
    rows = [["iteration", "net", "LR", *(metric.title for metric in metrics), "s", *outputs]]
    for m in tests:
        values = [number(getattr(m, metric.name), metric.digits) for metric in metrics]
        more = [f"{m.outputs[name]:.6g}" if name in m.outputs else "-" for name in outputs]
        rows.append(
            [str(m.iteration), str(m.net), f"{m.lr:.6g}", *values, f"{m.seconds:.1f}", *more]
        )
    return rows


def markdown_table(rows: Rows, left: int = 1) -> str:
    """Rows, the first one the heading, as Markdown; the first ``left`` columns to the left."""
    heading, *body = [list(map(markdown, row)) for row in rows]
    rule = ["---"] * left + ["---:"] * (len(heading) - left)
    return "".join(f"| {' | '.join(row)} |\n" for row in [heading, rule, *body])


def csv_text(rows: Rows) -> str:
    """Rows as CSV for spreadsheets; a dash, for what was not measured, becomes an empty field."""
    import csv  # most commands print tables

    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(map(csv_cell, rows[0]))
    writer.writerows([["" if cell == "-" else csv_cell(cell) for cell in row] for row in rows[1:]])
    return buffer.getvalue()


def json_text(rows: Rows) -> str:
    """Rows as a JSON list of objects by heading: numbers as numbers, a dash as null."""
    return json.dumps(records_of(rows), indent=2) + "\n"


def records_of(rows: Rows) -> list[dict[str, str | int | float | None]]:
    """A mapping from the heading for each row: numbers as numbers, a dash as None."""
    return [dict(zip(rows[0], map(_value, row))) for row in rows[1:]]


def _value(cell: str) -> str | int | float | None:
    if cell == "-":
        return None
    value = json.loads(cell) if _NUMBER.fullmatch(cell) else math.inf
    return value if math.isfinite(value) else cell
