"""What rank writes: a table, Markdown, CSV or JSON, on the terminal or to a file."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from lrbench_caffe.errors import InputError
from lrbench_caffe.files import publish
from lrbench_caffe.knowledge.criteria import CRITERIA, Criterion
from lrbench_caffe.knowledge.exporting import ranking_rows
from lrbench_caffe.knowledge.selection import Selection
from lrbench_caffe.records import Task
from lrbench_caffe.tabular import Rows, csv_text, json_text, markdown_table
from lrbench_caffe.terminal import tables
from lrbench_caffe.terminal.rank_tables import TASKS_LAYOUT, headed, rank_rows, task_rows
from lrbench_caffe.terminal.run_tables import start_labels, start_notes
from lrbench_caffe.terminal.tables import Layout, print_table

DATA_FORMATS = ("csv", "json")  # their columns do not depend on what is there
FORMATS = ("table", "markdown", *DATA_FORMATS)
TEXT_COLUMNS = 2  # to the left: the place and the policy, or a task's name and number
SHORT = {"top1", "test_loss", "ld", "iterations", "num_params"}  # criteria of a table's columns


def write_tasks(args: argparse.Namespace, tasks: list[Task]) -> None:
    title = "tasks in the LR database; --task NAME ranks one's policies"
    _write(args, task_rows(tasks), TASKS_LAYOUT, title, columns=args.columns)


def write_ranking(args: argparse.Namespace, selected: Selection) -> None:
    """Write the policies of each start, the best first."""
    shown = _shown(args, selected)
    if args.format != "table" and selected.order.note:
        print(f"note: {selected.order.note}", file=sys.stderr)
    if args.format in DATA_FORMATS:
        _write(args, ranking_rows(selected.ranked, shown))
        return
    labels = start_labels(group.start for group in selected.groups)
    if args.format != "table":
        labels = {start: str(start) for start in labels}
    scored = bool(selected.order.weights)
    rows: Rows = []
    for group in selected.groups:
        rows += rank_rows(group, shown, scored, labels[group.start])
    notes = [selected.order.note] if selected.order.note else []
    notes += start_notes(labels)
    columns = args.columns
    if columns not in (None, tables.ALL) and len(labels) > 1:
        columns += ",start"  # else places of different rankings would look like one
    _write(args, *headed(rows, shown, scored, selected), selected.title, notes, columns)


def _shown(args: argparse.Namespace, selected: Selection) -> list[Criterion]:
    """The criteria with a column: in the terminal those that are asked for and the most important ones."""
    asked = list(selected.order.asked)
    short = args.format == "table" and args.columns is None
    names = set(SHORT) if short else set(CRITERIA) - {"target"}
    if args.target_top1 is not None:
        names.add("target")
    kept = [c for c in CRITERIA.values() if c in asked or c.name in names]
    if args.format not in DATA_FORMATS:
        kept = [c for c in kept if c in asked or _is_known(c, selected)]
    return kept + [criterion for criterion in asked if criterion not in kept]


def _is_known(criterion: Criterion, selected: Selection) -> bool:
    return any(entry.spread(criterion.name) for entry in selected.candidates)


def _write(
    args: argparse.Namespace,
    rows: Rows,
    layout: Layout | None = None,
    title: str = "",
    notes: Sequence[str] = (),
    columns: str | None = None,
) -> None:
    if args.format == "table" and layout:
        buffer = io.StringIO() if args.out else None
        print_table(rows, layout, title=title, columns=columns, notes=notes, file=buffer)
        if buffer:
            _save(args.out, buffer.getvalue())
        return
    text = {"csv": csv_text, "json": json_text}.get(args.format, _markdown)(rows)
    if args.out:
        _save(args.out, text)
    else:
        sys.stdout.write(text)


def _markdown(rows: Rows) -> str:
    return markdown_table(rows, TEXT_COLUMNS)


def _save(out: str, text: str) -> None:
    try:
        publish(Path(out), text.encode())
    except OSError as error:
        raise InputError(f"--out: cannot write {out}: {error.strerror}") from error
