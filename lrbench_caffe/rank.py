"""Rank the LR policies that the LR database knows for a task.

python -m lrbench_caffe.rank                                        (lists the known tasks)
python -m lrbench_caffe.rank solvers/lenet_mnist_solver.prototxt    (by Top-1)
python -m lrbench_caffe.rank --task mnist/lenet --by ld,iterations --top 5
python -m lrbench_caffe.rank --task cifar10/cnn3 --by target --target-top1 80
python -m lrbench_caffe.rank --task cifar10/cnn3 --weights top1=2,iterations=1
python -m lrbench_caffe.rank --task cifar10/cnn3 --pareto --plot front.png
python -m lrbench_caffe.rank --task mnist/lenet --format csv --out table7.csv

A policy's metrics are those at its first highest Top-1, as mean and deviation over its trainings. The marks
come from Welch's test on the first criterion, against the best policy and against the next one: ~ means that
the difference is within noise (p >= 0.05), ? that no test is possible (a single training, or no known
deviation). See docs/ranking.md.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from lrbench_caffe import plots
from lrbench_caffe.errors import InputError
from lrbench_caffe.files import publish
from lrbench_caffe.knowledge import selection
from lrbench_caffe.knowledge.exporting import ranking_rows
from lrbench_caffe.knowledge.ranking import CRITERIA, Criterion
from lrbench_caffe.prototxt.task import solver_task
from lrbench_caffe.tabular import (
    Rows,
    csv_text,
    json_text,
    markdown_table,
)
from lrbench_caffe.terminal import cli, tables
from lrbench_caffe.terminal.database import open_at_terminal
from lrbench_caffe.terminal.rank_tables import TASKS_LAYOUT, headed, rank_rows, task_rows
from lrbench_caffe.terminal.run_tables import start_labels, start_notes
from lrbench_caffe.terminal.selection_flags import add_flags, selection_query
from lrbench_caffe.terminal.tables import Layout, print_table

FORMATS = ("table", "markdown", "csv", "json")
TEXT_COLUMNS = 2  # to the left: the place and the policy, or a task's name and number


def parser() -> cli.Parser:
    p = cli.Parser(prog="python -m lrbench_caffe.rank", description=__doc__)
    add_flags(p)
    out = p.add_argument_group("output")
    out.add_argument(
        "--format", choices=FORMATS, default="table", help="output format (default: table)"
    )
    out.add_argument(
        "--json",
        dest="format",
        action="store_const",
        const="json",
        help="print JSON, like --format json",
    )
    tables.add_flag(out)
    out.add_argument("--out", metavar="FILE", help="write to this file instead of the terminal")
    out.add_argument("--plot", metavar="FILE", help="draw Top-1 over cost, with the Pareto front")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    query = selection_query(args)
    wanted = solver_task(query.solver, query.caffe_python, query.head)
    plot = plots.plot_file("--plot", args.plot) if args.plot else None
    with open_at_terminal(args.db) as database:
        known = database.tasks()
        tasks = selection.find_tasks(query, known, wanted)
        if tasks is None:
            _write(
                args,
                task_rows(known),
                TASKS_LAYOUT,
                "tasks in the LR database; --task NAME ranks one's policies",
            )
            return 0
        selected = selection.select(query, database, tasks, everything=plot is not None)
    data = args.format in ("csv", "json")
    if not selected.candidates and (data or not selected.unfinished):
        raise selection.nothing_found(query, tasks)
    shown = _shown(args, selected)
    if data:
        _write(args, ranking_rows(selected.ranked, shown))
    else:
        scored = bool(selected.order.weights)
        labels = start_labels(group.start for group in selected.groups)
        if args.format != "table":
            labels = {start: str(start) for start in labels}
        rows = [
            row
            for group in selected.groups
            for row in rank_rows(group, shown, scored, labels[group.start])
        ]
        notes = [*([selected.order.note] if selected.order.note else []), *start_notes(labels)]
        if args.columns not in (None, tables.ALL) and len(labels) > 1:
            args.columns += ",start"  # else places of different rankings would look like one
        _write(args, *headed(rows, shown, scored, selected), selected.title, notes)
    if plot and selected.candidates:
        _plot(plot, selected)
    return 0


def _plot(path: Path, selected: selection.Selection) -> None:
    try:
        plots.save(plots.front_figure(selected), path)
    except OSError as error:
        raise InputError(f"--plot: cannot write {path}: {error.strerror}") from error
    print(f"plot: {path}", file=sys.stderr)


def _shown(args: argparse.Namespace, selected: selection.Selection) -> list[Criterion]:
    """The criteria with a column: in the terminal those that are asked for and the most important ones."""
    asked = list(selected.order.asked)
    short = args.format == "table" and args.columns is None
    names = (
        {"top1", "test_loss", "ld", "iterations", "num_params"}
        if short
        else set(CRITERIA) - {"target"}
    )
    if args.target_top1 is not None:
        names.add("target")
    kept = [c for c in CRITERIA.values() if c in asked or c.name in names]
    if args.format not in ("csv", "json"):  # whose columns do not depend on what is there
        kept = [
            c for c in kept if c in asked or any(one.spread(c.name) for one in selected.candidates)
        ]
    return kept + [criterion for criterion in asked if criterion not in kept]


def _write(
    args: argparse.Namespace,
    rows: Rows,
    layout: Layout | None = None,
    title: str = "",
    notes: Sequence[str] = (),
) -> None:
    if args.format == "table" and layout:
        buffer = io.StringIO() if args.out else None
        print_table(rows, layout, title=title, columns=args.columns, notes=notes, file=buffer)
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


if __name__ == "__main__":
    sys.exit(cli.run(main))
