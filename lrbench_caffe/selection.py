"""Which policies of the LR database a command is about, and in which order: flags, and what they select."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lrbench_caffe import ranking
from lrbench_caffe.errors import InputError
from lrbench_caffe.lr.functions import find_function
from lrbench_caffe.ranking import COSTS, CRITERIA, Candidate, Criterion, Ranked, Target
from lrbench_caffe.records import SOURCES, PolicySummary, Task
from lrbench_caffe.similarity import similarity
from lrbench_caffe.task import open_task

if TYPE_CHECKING:
    from lrbench_caffe.database import Database
    from lrbench_caffe.database.summaries import Reached


@dataclass(frozen=True)
class Selection:
    """What the flags select.

    Attributes:
        title: the task and the order, for people.
        candidates: all policies of the task that fit.
        ranked: those that are asked for, in order.
        unfinished: the policies that only diverged or failed.
        cost: the cost that is compared with Top-1.
    """

    title: str
    candidates: list[Candidate]
    ranked: list[Ranked]
    unfinished: list[PolicySummary]
    cost: Criterion


def add_flags(p: argparse.ArgumentParser) -> None:
    """The flags that ``select`` reads."""
    which = p.add_argument_group("which policies")
    which.add_argument("solver", nargs="?", metavar="SOLVER", help="the task that this solver trains")
    which.add_argument(
        "--task", metavar="NAME", help="a task of the database: its number, or DATASET/NETWORK or part of it"
    )
    which.add_argument("--functions", metavar="NAMES", help="LR functions, by commas (default: all)")
    which.add_argument("--source", metavar="NAMES", help=f"by commas, of {', '.join(SOURCES)} (default: all)")
    which.add_argument(
        "--max-iter", type=int, metavar="N", help="trainings of N iterations only (default: of any length)"
    )
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
    p.add_argument("--db", metavar="URL", help="the LR database (default: LRBENCH_DB, else the embedded one)")
    p.add_argument("--caffe-python", metavar="FILE", help="the Python that can import caffe, for SOLVER")


def check(args: argparse.Namespace) -> None:
    """See to it that the flags go together.

    Raises:
        InputError: they do not, or a value is not allowed.
    """
    if args.solver and args.task:
        raise InputError("SOLVER and --task: allowed: one of them")
    if args.top < 0:
        raise InputError(f"--top: {args.top}; allowed: 1 or more, 0 for all")
    if args.max_iter is not None and args.max_iter < 1:
        raise InputError(f"--max-iter: {args.max_iter}; allowed: 1 or more")
    if args.pareto and args.weights:
        raise InputError("--pareto and --weights: allowed: one of them")
    if args.target_top1 is not None and not 0 < args.target_top1 <= 100:
        raise InputError(f"--target-top1: {args.target_top1:g}; allowed: above 0, at most 100 (percent)")
    names = [c.name for c in ranking.criteria(args.by)]
    names += weights_of(args)
    if "target" in names and args.target_top1 is None:
        raise InputError("target needs --target-top1 X, the Top-1 to reach")
    for source in _list(args.source) or []:
        if source not in SOURCES:
            raise InputError(f"--source: {source!r}; allowed: {', '.join(SOURCES)}")


def select(
    args: argparse.Namespace, database: Database, tasks: list[Task], *, everything: bool = False
) -> Selection:
    """The policies of a task that the flags are about, in order.

    Args:
        tasks: the database's records of one task, from ``find_tasks``.
        everything: read all candidates, also where the order needs the first few only.
    """
    candidates = list(_candidates(args, database, tasks, everything))
    unfinished = [] if args.pareto else _unfinished(args, database, tasks)
    cost = _cost(args)
    every = _ranked(args, candidates, cost)
    ranked = every[: args.top or None]
    title = f"{tasks[0].title}, {_title(args, cost)}"
    if len(ranked) < len(every):
        title += f": the first {len(ranked)} (--top 0: all)"
    return Selection(title, candidates, ranked, unfinished, cost)


def nothing_found(args: argparse.Namespace, tasks: list[Task]) -> InputError:
    """The error where a task has no result that fits."""
    return InputError(f"{tasks[0].title}: no finished run with a Top-1{_fitting(args)}")


def _list(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip().lower() for part in text.split(",") if part.strip()]


def weights_of(args: argparse.Namespace) -> dict[str, float]:
    return ranking.weights(args.weights) if args.weights else {}


def _cost(args: argparse.Namespace) -> Criterion:
    """The cost axis of --pareto and --plot: the first cost that is asked for, else #Iterations."""
    names = [c.name for c in ranking.criteria(args.by)]
    names += weights_of(args)
    return CRITERIA[next((name for name in names if name in COSTS), "iterations")]


def find_tasks(args: argparse.Namespace, known: list[Task]) -> list[Task] | None:
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


def _candidates(
    args: argparse.Namespace, database: Database, tasks: list[Task], everything: bool
) -> Iterator[Candidate]:
    functions = _functions(args)
    order, limit = _how_many(args, everything)
    for task in tasks:
        assert task.id is not None
        found = database.summaries(
            task.id, functions=functions, sources=_list(args.source), order_by=order, limit=limit
        )
        summaries = [summary for summary in found if summary.top1 and _has_length(args, summary)]
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
            limit=None if args.max_iter else args.top or None,
            unfinished=True,
        )
        if _has_length(args, summary)
    ]
    return found[: args.top or None]


def _has_length(args: argparse.Namespace, summary: PolicySummary) -> bool:
    return args.max_iter is None or summary.max_iter == args.max_iter


def _functions(args: argparse.Namespace) -> list[str] | None:
    return [find_function(name).name for name in _list(args.functions) or []] or None


def _fitting(args: argparse.Namespace) -> str:
    given = {"--functions": args.functions, "--source": args.source, "--max-iter": args.max_iter}
    flags = [flag for flag, value in given.items() if value]
    return f" fits {' and '.join(flags)}" if flags else ""


def _how_many(args: argparse.Namespace, everything: bool) -> tuple[str, int | None]:
    """The order and number of policies to read: by one criterion the database has them sorted."""
    first, *others = (c.name for c in ranking.criteria(args.by))
    if first == "target":
        return "top1", None
    if first == "num_params":  # which those have, too, that never finished
        return first, None
    if args.top == 0 or args.max_iter or args.weights or args.pareto or everything or others:
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
        return ranking.rank_weighted(candidates, weights_of(args))
    return ranking.rank(candidates, ranking.criteria(args.by))


def _title(args: argparse.Namespace, cost: Criterion) -> str:
    if args.pareto:
        return f"Pareto front of Top-1 and {cost.heading}"
    if args.weights:
        return f"by {args.weights}"
    return "by " + ", ".join(c.heading for c in ranking.criteria(args.by))
