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
from dataclasses import replace
from pathlib import Path

from lrbench_caffe import plots
from lrbench_caffe.errors import InputError
from lrbench_caffe.files import publish
from lrbench_caffe.knowledge import ranking, selection
from lrbench_caffe.knowledge.ranking import CRITERIA, Comparison, Criterion, Ranked, RankingEntry, TargetCost
from lrbench_caffe.records import PolicySummary, Task
from lrbench_caffe.tabular import (
    Rows,
    csv_text,
    json_text,
    markdown_table,
    number,
)
from lrbench_caffe.terminal import cli, tables
from lrbench_caffe.terminal.database import open_at_terminal
from lrbench_caffe.terminal.run_tables import start_labels, start_notes
from lrbench_caffe.terminal.selection_flags import add_flags, selection_query
from lrbench_caffe.terminal.tables import Layout, print_table

FORMATS = ("table", "markdown", "csv", "json")
TEXT_COLUMNS = 2  # to the left: the place and the policy, or a task's name and number
TASKS_LAYOUT = Layout(
    ("task", "id", "image", "classes", "samples", "parameters", "depth"),
    order=("task", "id", "image", "classes", "samples", "parameters"),
    text=("task",),
)


def parser() -> cli.Parser:
    p = cli.Parser(prog="python -m lrbench_caffe.rank", description=__doc__)
    add_flags(p)
    out = p.add_argument_group("output")
    out.add_argument("--format", choices=FORMATS, default="table", help="output format (default: table)")
    out.add_argument(
        "--json", dest="format", action="store_const", const="json", help="print JSON, like --format json"
    )
    tables.add_flag(out)
    out.add_argument("--out", metavar="FILE", help="write to this file instead of the terminal")
    out.add_argument("--plot", metavar="FILE", help="draw Top-1 over cost, with the Pareto front")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    query = selection_query(args)
    plot = plots.plot_file("--plot", args.plot) if args.plot else None
    with open_at_terminal(args.db) as database:
        known = database.tasks()
        tasks = selection.find_tasks(query, known)
        if tasks is None:
            _write(
                args,
                _task_rows(known),
                TASKS_LAYOUT,
                "tasks in the LR database; --task NAME ranks one's policies",
            )
            return 0
        found = selection.select(query, database, tasks, everything=plot is not None)
    data = args.format in ("csv", "json")
    if not found.candidates and (data or not found.unfinished):
        raise selection.nothing_found(query, tasks)
    shown = _shown(args, found)
    if data:
        _write(args, data_rows(found.ranked, shown))
    else:
        scored = bool(found.order.weights)
        labels = start_labels(group.start for group in found.groups)
        if args.format != "table":
            labels = {start: str(start) for start in labels}
        rows = [row for group in found.groups for row in rank_rows(group, shown, scored, labels[group.start])]
        notes = [*([found.order.note] if found.order.note else []), *start_notes(labels)]
        if args.columns not in (None, tables.ALL) and len(labels) > 1:
            args.columns += ",start"  # else places of different rankings would look like one
        _write(args, *_headed(rows, shown, scored, found), found.title, notes)
    if plot and found.candidates:
        _plot(plot, found)
    return 0


def _plot(path: Path, found: selection.Selection) -> None:
    """Draw the policies of the first start; those of others are not to be compared with them."""
    group, order = found.groups[0], found.order
    title = found.title if len(found.groups) == 1 else f"{found.title}; {group.start}"
    front = ranking.pareto_front(group.candidates, order.cost, order.utility)
    try:
        plots.save(plots.pareto_figure(title, group.candidates, front, order.cost, order.utility), path)
    except OSError as error:
        raise InputError(f"--plot: cannot write {path}: {error.strerror}") from error
    print(f"plot: {path}", file=sys.stderr)


def _shown(args: argparse.Namespace, found: selection.Selection) -> list[Criterion]:
    """The criteria with a column: in the terminal those that are asked for and the most important ones."""
    asked = list(found.order.asked)
    short = args.format == "table" and args.columns is None
    names = {"top1", "test_loss", "ld", "iterations", "num_params"} if short else set(CRITERIA) - {"target"}
    if args.target_top1 is not None:
        names.add("target")
    kept = [c for c in CRITERIA.values() if c in asked or c.name in names]
    if args.format not in ("csv", "json"):  # whose columns do not depend on what is there
        kept = [c for c in kept if c in asked or any(one.spread(c.name) for one in found.candidates)]
    return kept + [criterion for criterion in asked if criterion not in kept]


# -- rows -------------------------------------------------------------------------------------------


def rank_rows(group: selection.Group, shown: Sequence[Criterion], scored: bool, start: str) -> Rows:
    """The ranking of one start for people, without a heading: deviations beside their means.

    Args:
        start: what the column of that name has.
    """
    rows = []
    for row in group.ranked:
        cells = ["-" if row.place is None else str(row.place), row.candidate.summary.policy.text]
        cells += [_cell(row.candidate, criterion) for criterion in shown]
        cells += [number(row.score, 4)] * scored + [_mark(row.from_best), _mark(row.from_next)]
        rows.append([*cells, *_group(row.candidate.summary, start)])
    nothing = ["-"] * (len(shown) + scored + 2)
    return [*rows, *(["-", s.policy.text, *nothing, *_group(s, start)] for s in group.unfinished)]


def _headed(
    rows: Rows, shown: Sequence[Criterion], scored: bool, found: selection.Selection
) -> tuple[Rows, Layout]:
    """The rows with their heading, and their layout."""
    heading = ["#", "policy", *(c.heading for c in shown), *["score"] * scored, "vs best", "vs next"]
    names = ["place", "policy", *(c.name for c in shown), *["score"] * scored, "vs_best", "vs_next"]
    by = [criterion.name for criterion in found.order.asked]
    names += ["source", "start", "trainings", "max_iter"]
    order = ["place", "policy", *_telling(rows, names), *["score"] * scored, *by]
    form = Layout(
        names=names,
        order=list(dict.fromkeys([*order, "start", "vs_best", "trainings", "max_iter"])),
        text=("policy",),
        words=("place", "source", "start"),
        common=("source", "start", "max_iter"),
    )
    rows = [[*heading, "source", "start", "trainings", "max_iter"], *rows]
    if any(group.start.kind != "scratch" for group in found.groups):
        return rows, form
    column = form.names.index("start")  # from scratch is no news
    kept = [i for i in range(len(form.names)) if i != column]
    return [[row[i] for i in kept] for row in rows], replace(form, names=[form.names[i] for i in kept])


def _telling(rows: Rows, names: Sequence[str]) -> list[str]:
    """The columns that tell rows of one policy apart: as few as will do."""
    told = ["policy"]
    for name in ("start", "max_iter", "source", "trainings"):
        with_it = [*told, name]
        if len(_distinct(rows, names, with_it)) > len(_distinct(rows, names, told)):
            told = with_it
    return told[1:]


def _distinct(rows: Rows, names: Sequence[str], columns: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(row[names.index(column)] for column in columns) for row in rows}


def _group(summary: PolicySummary, start: str) -> list[str]:
    """Source, start, trainings and length: "measured", "scratch", "3 (+2 diverged)", "10000"."""
    counts = (("diverged", summary.diverged), ("failed", summary.failed))
    more = ", ".join(f"{count} {what}" for what, count in counts if count)
    trainings = f"{summary.trainings()}" + (f" (+{more})" if more else "")
    return [summary.source, start, trainings, str(summary.max_iter)]


def data_rows(ranked: Sequence[Ranked], shown: Sequence[Criterion]) -> Rows:
    """The same for programs: plain names, and a column for each number."""
    names = [name for c in shown for name in _columns(c)]
    heading = ["place", "policy", "function", *names, "score", "p_best", "p_next", "source", "trainings"]
    rows = [[*heading, "max_iter", "diverged", "failed", "start", "start_digest", "origin"]]
    for row in ranked:
        summary = row.candidate.summary
        cells = ["-" if row.place is None else str(row.place), summary.policy.text, summary.policy.function]
        cells += [value for c in shown for value in _values(row.candidate, c)]
        cells += [_exact(row.score), _p(row.from_best), _p(row.from_next), summary.source]
        counts = (summary.trainings(), summary.max_iter, summary.diverged, summary.failed)
        start = (str(summary.start), summary.start.digest or "-")
        rows.append([*cells, *map(str, counts), *start, summary.origin])
    return rows


def _cell(candidate: RankingEntry, criterion: Criterion) -> str:
    spread = candidate.spread(criterion.name)
    if criterion.name == "target":
        return _target_text(candidate.target)
    text = number(spread.mean if spread else None, criterion.digits)
    return text if spread is None or spread.sd is None else f"{text} ± {number(spread.sd, criterion.digits)}"


def _target_text(target: TargetCost | None) -> str:
    """ "<=4000", "5200, 2 of 3", "5200, 1 of 3 (+2 diverged)"."""
    if target is None:
        return "-"
    share = f", {target.runs} of {target.of}" if target.runs < target.of or target.diverged else ""
    more = f" (+{target.diverged} diverged)" if target.diverged else ""
    return f"{'<=' if target.at_most else ''}{target.iterations:.0f}{share}{more}"


def _mark(comparison: Comparison | None) -> str:
    if comparison is None:
        return ""
    return comparison.mark if comparison.p is None else f"{comparison.mark} p={comparison.p:.2g}".strip()


def _columns(criterion: Criterion) -> list[str]:
    """The columns of a criterion in ``data_rows``."""
    if criterion.name == "target":
        return ["target", "target_runs", "target_of"]
    return [criterion.name] if criterion.name == "num_params" else [criterion.name, f"{criterion.name}_sd"]


def _values(candidate: RankingEntry, criterion: Criterion) -> list[str]:
    if criterion.name == "target":
        target = candidate.target
        return [f"{target.iterations:.10g}", str(target.runs), str(target.of)] if target else ["-"] * 3
    spread = candidate.spread(criterion.name)
    values = (spread.mean, spread.sd) if spread else (None, None)
    return [_exact(value) for value in values[: len(_columns(criterion))]]


def _exact(value: float | None) -> str:
    return "-" if value is None else f"{value:.10g}"


def _p(comparison: Comparison | None) -> str:
    return "-" if comparison is None or comparison.p is None else f"{comparison.p:.4g}"


def _task_rows(tasks: list[Task]) -> Rows:
    heading = ["task", "id", "image", "classes", "training samples", "parameters", "depth"]
    return [
        heading,
        *(
            [
                task.title,
                str(task.id),
                "x".join(
                    str(n or "?") for n in (task.dataset.channels, task.dataset.height, task.dataset.width)
                ),
                str(task.dataset.classes or "-"),
                str(task.dataset.train_samples or "-"),
                str(task.network.parameters or "-"),
                str(task.network.depth),
            ]
            for task in tasks
        ),
    ]


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
