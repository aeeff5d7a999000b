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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from lrbench_caffe.database.summaries import Reached

from lrbench_caffe import cli, plots, ranking
from lrbench_caffe.database import Database
from lrbench_caffe.database.terminal import open_at_terminal
from lrbench_caffe.errors import InputError
from lrbench_caffe.lr.functions import find_function
from lrbench_caffe.ranking import COSTS, CRITERIA, Candidate, Comparison, Criterion, Ranked, Target
from lrbench_caffe.records import SOURCES, PolicySummary, Task
from lrbench_caffe.report import Rows, csv_text, json_text, markdown_table, number, terminal_table
from lrbench_caffe.similarity import similarity
from lrbench_caffe.task import open_task

FORMATS = ("table", "markdown", "csv", "json")
TEXT_COLUMNS = 2  # to the left: the place and the policy, or a task's name and number


def parser() -> cli.Parser:
    p = cli.Parser(prog="python -m lrbench_caffe.rank", description=__doc__)
    which = p.add_argument_group("which policies")
    which.add_argument("solver", nargs="?", metavar="SOLVER", help="the task that this solver trains")
    which.add_argument(
        "--task", metavar="NAME", help="a task of the database: its number, or DATASET/NETWORK or part of it"
    )
    which.add_argument("--functions", metavar="NAMES", help="LR functions, by commas (default: all)")
    which.add_argument("--source", metavar="NAMES", help=f"by commas, of {', '.join(SOURCES)} (default: all)")
    order = p.add_argument_group("order")
    order.add_argument(
        "--by", default="top1", metavar="CRITERIA",
        help=f"by commas, the first counts most: {', '.join(CRITERIA)} (default: top1)",
    )  # fmt: skip
    order.add_argument(
        "--weights", metavar="NAME=W,...", help="by a weighted mean of normalised criteria instead"
    )
    order.add_argument(
        "--target-top1", type=float, metavar="X", help="show the iterations to reach a Top-1 of X percent"
    )
    order.add_argument("--top", type=int, default=10, metavar="N", help="show N; 0: all (default: 10)")
    order.add_argument(
        "--pareto", action="store_true",
        help="show the policies that none beats in both Top-1 and cost (--by COST; default: iterations)",
    )  # fmt: skip
    out = p.add_argument_group("output")
    out.add_argument("--format", choices=FORMATS, default="table", help="(default: table)")
    out.add_argument("--out", metavar="FILE", help="write there instead of the terminal")
    out.add_argument("--plot", metavar="FILE", help="write a PNG of Top-1 over cost, with the Pareto front")
    p.add_argument("--db", metavar="URL", help="the LR database (default: LRBENCH_DB, else the embedded one)")
    p.add_argument("--caffe-python", metavar="FILE", help="the Python that can import caffe, for SOLVER")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    _check(args)
    with open_at_terminal(args.db) as database:
        known = database.tasks()
        tasks = _tasks(args, known)
        if tasks is None:
            _write(args, _task_rows(known), "tasks in the LR database; --task NAME ranks one's policies")
            return 0
        candidates = list(_candidates(args, database, tasks))
        unfinished = [] if args.pareto else _unfinished(args, database, tasks)
    data = args.format in ("csv", "json")
    if not candidates and (data or not unfinished):
        raise InputError(f"{tasks[0].title}: no finished run with a Top-1{_fitting(args)}")
    cost = _cost(args)
    ranked = _ranked(args, candidates, cost)
    title = f"{tasks[0].title}, {_title(args, cost)}"
    best, shown = ranked[: args.top or None], _shown(args)
    _write(args, data_rows(best, shown) if data else rank_rows(best, shown, unfinished), title)
    if args.plot and candidates:
        _plot(args.plot, title, candidates, cost)
    return 0


def _plot(file: str, title: str, candidates: list[Candidate], cost: Criterion) -> None:
    front = ranking.pareto_front(candidates, cost)
    try:
        plots.pareto_plot(Path(file), title, candidates, front, cost)
    except OSError as error:
        raise InputError(f"--plot: cannot write {file}: {error.strerror}") from error
    print(f"plot: {file}", file=sys.stderr)


# -- what is asked for ------------------------------------------------------------------------------


def _check(args: argparse.Namespace) -> None:
    if args.solver and args.task:
        raise InputError("SOLVER and --task: allowed: one of them")
    if args.top < 0:
        raise InputError(f"--top: {args.top}; allowed: 1 or more, 0 for all")
    if args.pareto and args.weights:
        raise InputError("--pareto and --weights: allowed: one of them")
    if args.target_top1 is not None and not 0 < args.target_top1 <= 100:
        raise InputError(f"--target-top1: {args.target_top1:g}; allowed: above 0, at most 100 (percent)")
    names = [c.name for c in ranking.criteria(args.by)]
    names += _weights(args)
    if "target" in names and args.target_top1 is None:
        raise InputError("target needs --target-top1 X, the Top-1 to reach")
    for source in _list(args.source) or []:
        if source not in SOURCES:
            raise InputError(f"--source: {source!r}; allowed: {', '.join(SOURCES)}")


def _list(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip().lower() for part in text.split(",") if part.strip()]


def _shown(args: argparse.Namespace) -> list[Criterion]:
    """The columns: all; in the terminal, which is narrow, what is asked for and the most important ones."""
    asked = {*(c.name for c in ranking.criteria(args.by)), *(_weights(args))}
    if args.format == "table":
        asked |= {"top1", "ld", "iterations", "num_params"}
    else:
        asked |= set(CRITERIA) - {"target"}
    if args.target_top1 is not None:
        asked.add("target")
    return [c for c in CRITERIA.values() if c.name in asked]


def _weights(args: argparse.Namespace) -> dict[str, float]:
    return ranking.weights(args.weights) if args.weights else {}


def _cost(args: argparse.Namespace) -> Criterion:
    """The cost axis of --pareto and --plot: the first cost that is asked for, else #Iterations."""
    names = [c.name for c in ranking.criteria(args.by)]
    names += _weights(args)
    return CRITERIA[next((name for name in names if name in COSTS), "iterations")]


def _tasks(args: argparse.Namespace, known: list[Task]) -> list[Task] | None:
    """The database's records of one task (the paper's and this machine's are two); None if none is named."""
    if args.solver:
        _, wanted = open_task(Path(args.solver), args.caffe_python)
        found = [task for task in known if similarity(wanted, task) == 1]
        if not found:
            raise InputError(
                f"{args.solver}: the database has no run of {wanted.title} yet "
                "(python -m lrbench_caffe.recommend finds similar tasks)"
            )
        return found
    if not args.task:
        return None
    found = [task for task in known if _fits(task, args.task)]
    names = ", ".join(f"{task.title} ({task.id})" for task in found or known)
    if not found:
        raise InputError(f"--task: {args.task!r} is not in the database; known: {names or 'none'}")
    if any(similarity(found[0], other) != 1 for other in found[1:]):
        raise InputError(f"--task: {args.task!r} is more than one task: {names}; name one, or its number")
    return found


def _fits(task: Task, text: str) -> bool:
    def plain(name: str) -> str:
        return "".join(letter for letter in name.lower() if letter.isalnum())

    if text.isdigit():
        return task.id == int(text)
    data, slash, network = text.partition("/")
    if not slash:
        return plain(text) in plain(task.title)
    return plain(data) in plain(task.dataset.name) and plain(network) in plain(task.network.name)


def _candidates(args: argparse.Namespace, database: Database, tasks: list[Task]) -> Iterator[Candidate]:
    functions = _functions(args)
    order, limit = _how_many(args)
    for task in tasks:
        assert task.id is not None
        found = database.summaries(
            task.id, functions=functions, sources=_list(args.source), order_by=order, limit=limit
        )
        summaries = [summary for summary in found if summary.top1]
        reached = {}
        if args.target_top1 is not None:
            reached = database.iterations_to_top1(task.id, args.target_top1, summaries)
        for summary in summaries:
            yield Candidate(summary, _target(reached.get(summary.id or 0), summary))


def _unfinished(args: argparse.Namespace, database: Database, tasks: list[Task]) -> list[PolicySummary]:
    """The policies that only diverged or failed."""
    found = [
        summary
        for task in tasks
        if task.id is not None
        for summary in database.summaries(
            task.id,
            functions=_functions(args),
            sources=_list(args.source),
            limit=args.top or None,
            unfinished=True,
        )
    ]
    return found[: args.top or None]


def _functions(args: argparse.Namespace) -> list[str] | None:
    return [find_function(name).name for name in _list(args.functions) or []] or None


def _fitting(args: argparse.Namespace) -> str:
    flags = [flag for flag, given in (("--functions", args.functions), ("--source", args.source)) if given]
    return f" fits {' and '.join(flags)}" if flags else ""


def _how_many(args: argparse.Namespace) -> tuple[str, int | None]:
    """The order and number of policies to read: by one criterion the database has them sorted."""
    first, *others = (c.name for c in ranking.criteria(args.by))
    if first == "target":
        return "top1", None
    if first == "num_params":  # which those have, too, that never finished
        return first, None
    if args.top == 0 or args.weights or args.pareto or args.plot or others:
        return first, None
    return first, args.top + 1  # the last one shown is compared with the next


def _target(reached: Reached | None, summary: PolicySummary) -> Target | None:
    if reached is None:
        return None
    return Target(
        reached.iterations,
        reached.runs,
        reached.of,
        at_most=summary.source == "paper",
        diverged=summary.diverged,
    )


def _ranked(args: argparse.Namespace, candidates: list[Candidate], cost: Criterion) -> list[Ranked]:
    if args.pareto:
        return ranking.rank(ranking.pareto_front(candidates, cost), [CRITERIA["top1"]])
    if args.weights:
        return ranking.rank_weighted(candidates, _weights(args))
    return ranking.rank(candidates, ranking.criteria(args.by))


def _title(args: argparse.Namespace, cost: Criterion) -> str:
    if args.pareto:
        return f"Pareto front of Top-1 and {cost.heading}"
    if args.weights:
        return f"by {args.weights}"
    return "by " + ", ".join(c.heading for c in ranking.criteria(args.by))


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
    # As wide as it needs to be: wrapped numbers cannot be read.
    width = sum(max(len(row[i]) for row in rows) + 3 for i in range(len(rows[0]))) + 2
    console = Console(width=max(width, len(title), Console().width), file=sys.stdout)
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
