"""Rank the LR policies that the LR database knows for a task.

python -m lrbench_caffe.rank                                        (which tasks are known)
python -m lrbench_caffe.rank solvers/lenet_mnist_solver.prototxt    (by Top-1)
python -m lrbench_caffe.rank --task mnist/lenet --by ld,iterations --top 5
python -m lrbench_caffe.rank --task cifar10/cnn3 --by target --target-top1 80
python -m lrbench_caffe.rank --task cifar10/cnn3 --weights top1=2,iterations=1
python -m lrbench_caffe.rank --task cifar10/cnn3 --pareto --plot front.png
python -m lrbench_caffe.rank --task mnist/lenet --format csv --out table7.csv

A policy's metrics are those at its first highest Top-1, as mean and deviation over its trainings. The marks
are of Welch's test by the first criterion, against the best policy and against the next one: ~ the difference
is within noise (p >= 0.05), ? it cannot be tested (a single training, or no deviation known). See
docs/ranking.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from lrbench_caffe import cli, plots, ranking, selection
from lrbench_caffe.database.terminal import open_at_terminal
from lrbench_caffe.errors import InputError
from lrbench_caffe.ranking import CRITERIA, Candidate, Comparison, Criterion, Ranked, Target
from lrbench_caffe.records import PolicySummary, Task
from lrbench_caffe.report import (
    Rows,
    csv_text,
    json_text,
    markdown_table,
    number,
    table_width,
    terminal_table,
)

FORMATS = ("table", "markdown", "csv", "json")
TEXT_COLUMNS = 2  # to the left: the place and the policy, or a task's name and number


def parser() -> cli.Parser:
    p = cli.Parser(prog="python -m lrbench_caffe.rank", description=__doc__)
    selection.add_flags(p)
    out = p.add_argument_group("output")
    out.add_argument("--format", choices=FORMATS, default="table", help="(default: table)")
    out.add_argument(
        "--json", dest="format", action="store_const", const="json", help="as JSON, like --format json"
    )
    out.add_argument("--out", metavar="FILE", help="write there instead of the terminal")
    out.add_argument("--plot", metavar="FILE", help="draw Top-1 over cost, with the Pareto front")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    selection.check(args)
    plot = plots.plot_file("--plot", args.plot) if args.plot else None
    with open_at_terminal(args.db) as database:
        known = database.tasks()
        tasks = selection.find_tasks(args, known)
        if tasks is None:
            _write(args, _task_rows(known), "tasks in the LR database; --task NAME ranks one's policies")
            return 0
        found = selection.select(args, database, tasks, everything=plot is not None)
    data = args.format in ("csv", "json")
    if not found.candidates and (data or not found.unfinished):
        raise selection.nothing_found(args, tasks)
    shown = _shown(args)
    rows = data_rows(found.ranked, shown) if data else rank_rows(found.ranked, shown, found.unfinished)
    _write(args, rows, found.title)
    if plot and found.candidates:
        _plot(plot, found)
    return 0


def _plot(path: Path, found: selection.Selection) -> None:
    front = ranking.pareto_front(found.candidates, found.cost)
    try:
        plots.pareto_plot(path, found.title, found.candidates, front, found.cost)
    except OSError as error:
        raise InputError(f"--plot: cannot write {path}: {error.strerror}") from error
    print(f"plot: {path}", file=sys.stderr)


def _shown(args: argparse.Namespace) -> list[Criterion]:
    """The columns: all; in the terminal, which is narrow, what is asked for and the most important ones."""
    asked = {*(c.name for c in ranking.criteria(args.by)), *(selection.weights_of(args))}
    if args.format == "table":
        asked |= {"top1", "ld", "iterations", "num_params"}
    else:
        asked |= set(CRITERIA) - {"target"}
    if args.target_top1 is not None:
        asked.add("target")
    return [c for c in CRITERIA.values() if c.name in asked]


# -- rows -------------------------------------------------------------------------------------------


def rank_rows(
    ranked: Sequence[Ranked], shown: Sequence[Criterion], unfinished: Sequence[PolicySummary] = ()
) -> Rows:
    """A ranking for people: headings as in the paper, deviations beside their means ("99.33 ± 0.02").

    Args:
        unfinished: policies to list at the end, without a place.
    """
    scored = any(row.score is not None for row in ranked)
    heading = ["#", "policy", *(c.heading for c in shown), *["score"] * scored, "vs best", "vs next"]
    rows = [[*heading, "source", "trainings", "max_iter"]]
    for row in ranked:
        summary = row.candidate.summary
        cells = [str(row.place), summary.policy.text, *(_cell(row.candidate, c) for c in shown)]
        cells += [number(row.score, 4)] * scored + [_mark(row.from_best), _mark(row.from_next)]
        rows.append([*cells, *_group(summary)])
    nothing = ["-"] * (len(heading) - 2)
    return [*rows, *(["-", summary.policy.text, *nothing, *_group(summary)] for summary in unfinished)]


def _group(summary: PolicySummary) -> list[str]:
    """Source, trainings and length: "measured", "3 (+2 diverged)", "10000"."""
    counts = (("diverged", summary.diverged), ("failed", summary.failed))
    more = ", ".join(f"{count} {what}" for what, count in counts if count)
    trainings = f"{summary.trainings()}" + (f" (+{more})" if more else "")
    return [summary.source, trainings, str(summary.max_iter)]


def data_rows(ranked: Sequence[Ranked], shown: Sequence[Criterion]) -> Rows:
    """The same for programs: plain names, and a column for each number."""
    names = [name for c in shown for name in _columns(c)]
    heading = ["place", "policy", "function", *names, "score", "p_best", "p_next", "source", "trainings"]
    rows = [[*heading, "max_iter", "diverged", "failed", "origin"]]
    for row in ranked:
        summary = row.candidate.summary
        cells = [str(row.place), summary.policy.text, summary.policy.function]
        cells += [value for c in shown for value in _values(row.candidate, c)]
        cells += [_exact(row.score), _p(row.from_best), _p(row.from_next), summary.source]
        counts = (summary.trainings(), summary.max_iter, summary.diverged, summary.failed)
        rows.append([*cells, *map(str, counts), summary.origin])
    return rows


def _cell(candidate: Candidate, criterion: Criterion) -> str:
    spread = candidate.spread(criterion.name)
    if criterion.name == "target":
        return _target_text(candidate.target)
    text = number(spread.mean if spread else None, criterion.digits)
    return text if spread is None or spread.sd is None else f"{text} ± {number(spread.sd, criterion.digits)}"


def _target_text(target: Target | None) -> str:
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


def _values(candidate: Candidate, criterion: Criterion) -> list[str]:
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


def _write(args: argparse.Namespace, rows: Rows, title: str) -> None:
    if args.format == "table":
        _write_table(args.out, rows, title)
        return
    text = {"csv": csv_text, "json": json_text}.get(args.format, _markdown)(rows)
    if args.out:
        _save(args.out, text)
    else:
        sys.stdout.write(text)


def _markdown(rows: Rows) -> str:
    return markdown_table(rows, TEXT_COLUMNS)


def _write_table(out: str | None, rows: Rows, title: str) -> None:
    console = Console(width=max(table_width(rows), len(title), Console().width), file=sys.stdout)
    table = terminal_table(rows, title, TEXT_COLUMNS)
    if not out:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    _save(out, captured.get())


def _save(out: str, text: str) -> None:
    try:
        Path(out).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--out: cannot write {out}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(cli.run(main))
