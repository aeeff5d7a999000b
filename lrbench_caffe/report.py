"""Rows for people: the same rows become a terminal table, Markdown or CSV."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from lrbench_caffe.metrics import Measurement, best

Rows = list[list[str]]


def number(value: float | None, digits: int) -> str:
    """A value with fixed digits; a dash for one that was not measured."""
    return "-" if value is None or value != value else f"{value:.{digits}f}"


def metrics_rows(measurements: Sequence[Measurement], num_params: int) -> Rows:
    """The eight metrics at the best test and at the last one (paper, section III).

    Returns:
        Rows of metric, value at the best test, value at the last test; the first row is the heading.
    """
    top = best(list(measurements))
    last = measurements[-1]
    columns = [top or last, last]
    rows = [["metric", f"best (iteration {columns[0].iteration})", f"last (iteration {last.iteration})"]]
    for name, attribute, digits in (
        ("Top-1 (%)", "top1", 2),
        ("Top-5 (%)", "top5", 2),
        ("AC", "ac", 4),
        ("CD", "cd", 4),
        ("CDAC", "cdac", 4),
        ("LD", "ld", 4),
    ):
        rows.append([name, *(number(getattr(m, attribute), digits) for m in columns)])
    rows.append(["#Iterations at the highest Top-1", str(top.iteration) if top else "-", ""])
    rows.append(["#Param", str(num_params), ""])
    return rows


def terminal_table(rows: Rows, title: str | None = None) -> Table:
    """Rows, the first one the heading, as a table for the terminal; numbers to the right."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for index, heading in enumerate(rows[0]):
        table.add_column(heading, justify="left" if index == 0 else "right")
    for row in rows[1:]:
        table.add_row(*row)
    return table
