"""Which policies of the LR database a command is about, and in which order: flags, and what they select."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lrbench_caffe.errors import InputError
from lrbench_caffe.knowledge import ranking
from lrbench_caffe.knowledge.ranking import COSTS, CRITERIA, Criterion, Ranked, RankingEntry, TargetCost
from lrbench_caffe.knowledge.similarity import similarity
from lrbench_caffe.knowledge.utility import classifies
from lrbench_caffe.lr.functions import find_function
from lrbench_caffe.prototxt.task import open_task
from lrbench_caffe.records import SOURCES, STARTS, UNKNOWN_START, PolicySummary, Start, Task

if TYPE_CHECKING:
    from lrbench_caffe.database import Database
    from lrbench_caffe.database.summaries import Reached


@dataclass(frozen=True)
class Order:
    """What is ranked by.

    Attributes:
        by: the criteria, the first counts most.
        weights: of a weighted ranking, else empty.
        utility, cost: the axes of the Pareto front and of the plot.
        note: how the direction of the net's own outputs was found; empty without any.
    """

    by: tuple[Criterion, ...]
    weights: dict[Criterion, float]
    utility: Criterion
    cost: Criterion
    note: str = ""

    @property
    def asked(self) -> tuple[Criterion, ...]:
        return tuple(dict.fromkeys((*self.weights, *self.by)))


@dataclass(frozen=True)
class Group:
    """The policies of one start: only they are compared with each other.

    Attributes:
        start: what the trainings began with.
        candidates: all policies that fit.
        ranked: those that are asked for, in order; without places where the start is not known.
        unfinished: the policies that only diverged or failed.
        known: how many could be ranked, or at least one more than are.
    """

    start: Start
    candidates: list[RankingEntry]
    ranked: list[Ranked]
    unfinished: list[PolicySummary]
    known: int


@dataclass(frozen=True)
class Selection:
    """What the flags select.

    Attributes:
        title: the task and the order, for people.
        groups: by start: from scratch first, those that are not known last.
        order: what is ranked by.
    """

    title: str
    groups: list[Group]
    order: Order

    @property
    def candidates(self) -> list[RankingEntry]:
        return [candidate for group in self.groups for candidate in group.candidates]

    @property
    def ranked(self) -> list[Ranked]:
        return [row for group in self.groups for row in group.ranked]

    @property
    def unfinished(self) -> list[PolicySummary]:
        return [summary for group in self.groups for summary in group.unfinished]


def add_flags(p: argparse.ArgumentParser) -> None:
    """The flags that ``select`` reads."""
    which = p.add_argument_group("which policies")
    which.add_argument("solver", nargs="?", metavar="SOLVER", help="the task that this solver trains")
    which.add_argument(
        "--task", metavar="NAME", help="a task of the database: its number, or DATASET/NETWORK or part of it"
    )
    which.add_argument("--functions", metavar="NAMES", help="comma-separated LR functions (default: all)")
    which.add_argument(
        "--source", metavar="NAMES", help=f"comma-separated, of {', '.join(SOURCES)} (default: all)"
    )
    which.add_argument(
        "--start", metavar="KINDS",
        help=f"comma-separated, of {', '.join(STARTS)}: what trainings began with (default: all)",
    )  # fmt: skip
    which.add_argument(
        "--max-iter", type=int, metavar="N", help="trainings of N iterations only (default: of any length)"
    )
    order = p.add_argument_group("order")
    order.add_argument(
        "--by", metavar="CRITERIA",
        help=f"comma-separated, the first counts most: {', '.join(CRITERIA)}, or any output of the test "
        "net by its name (default: top1; test_loss where the net does not classify)",
    )  # fmt: skip
    direction = order.add_mutually_exclusive_group()
    for flag in ("higher", "lower"):
        direction.add_argument(
            f"--{flag}", action="store_true", help=f"of the net's own outputs, {flag} is better"
        )
    order.add_argument(
        "--weights", metavar="NAME=W,...", help="by a weighted mean of normalised criteria instead"
    )
    order.add_argument(
        "--target-top1", type=float, metavar="X", help="show the iterations to reach a Top-1 of X percent"
    )
    order.add_argument(
        "--top", type=int, default=10, metavar="N", help="show N of each start; 0: all (default: 10)"
    )
    order.add_argument(
        "--pareto", action="store_true",
        help="show the policies that none beats in both Top-1 and cost (--by COST; default: iterations)",
    )  # fmt: skip
    p.add_argument("--db", metavar="URL", help="the LR database (default: LRBENCH_DB, else the embedded one)")
    p.add_argument("--head", metavar="NAME", help="the scores blob that Top-1 is measured on, for SOLVER")
    p.add_argument("--caffe-python", metavar="FILE", help="the Python that can import caffe, for SOLVER")


def check(args: argparse.Namespace) -> None:
    """Check that the flags go together.

    Raises:
        InputError: they do not, or a value is not allowed.
    """
    if args.head and not args.solver:
        raise InputError("--head: it belongs to a SOLVER; a task that --task names has its own")
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
    names = [name.partition("=")[0].strip() for name in _list(f"{args.by or ''},{args.weights or ''}") or []]
    if "target" in names and args.target_top1 is None:
        raise InputError("target needs --target-top1 X, the Top-1 to reach")
    for flag, allowed in (("source", SOURCES), ("start", STARTS)):
        for name in _list(getattr(args, flag)) or []:
            if name not in allowed:
                raise InputError(f"--{flag}: {name!r}; allowed: {', '.join(allowed)}")


def select(
    args: argparse.Namespace, database: Database, tasks: list[Task], *, everything: bool = False
) -> Selection:
    """The policies of a task that the flags are about, in order.

    Args:
        tasks: the database's records of one task, from ``find_tasks``.
        everything: read all candidates, also where the order needs the first few only.

    Raises:
        InputError: a criterion that the task does not have.
    """
    order = _order(args, database, tasks)
    starts = _starts(args, database, tasks)
    groups = [_group(args, database, tasks, start, order, everything) for start in starts]
    groups = [group for group in groups if group.candidates or group.unfinished]
    shown = sum(len(group.ranked) for group in groups)
    title = f"{tasks[0].title}, {_title(args, order)}"
    if any(args.top and len(group.ranked) == args.top < group.known for group in groups):
        title += f": the first {shown} (--top 0: all)"
    return Selection(title, groups, order)


def nothing_found(args: argparse.Namespace, tasks: list[Task]) -> InputError:
    """The error where a task has no result that fits."""
    what = "a Top-1" if classifies(tasks[0]) else "a test"
    return InputError(f"{tasks[0].title}: no finished run with {what}{_fitting(args)}")


def _list(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip().lower() for part in text.split(",") if part.strip()]


def _order(args: argparse.Namespace, database: Database, tasks: list[Task]) -> Order:
    default = "top1" if all(map(classifies, tasks)) else "test_loss"
    given = f"{args.by or ''},{args.weights or ''}".split(",")
    named = [part.partition("=")[0].strip().lower() for part in given if part.strip()]
    results: list[PolicySummary] = []
    if any(name not in CRITERIA for name in named):
        results = [summary for task in tasks for summary in database.summaries(_id(task))]
    higher = True if args.higher else False if args.lower else None
    by = ranking.criteria(args.by or default, results, higher)
    weights = ranking.weights(args.weights, results, higher) if args.weights else {}
    asked = [*weights, *by]
    if higher is not None and all(criterion.kind != "output" for criterion in asked):
        raise InputError("--higher and --lower: allowed with --by or --weights of an output of the net")
    costs = [criterion for criterion in asked if criterion.name in COSTS]
    utility = next((c for c in asked if c.kind in ("utility", "output")), CRITERIA[default])
    return Order(
        tuple(by), weights, utility, (costs or [CRITERIA["iterations"]])[0], ranking.direction_note(asked)
    )


def find_tasks(args: argparse.Namespace, known: list[Task]) -> list[Task] | None:
    """The database's records of one task (the paper's and this machine's are two); None if none is named."""
    if args.solver:
        _, wanted = open_task(Path(args.solver), args.caffe_python, args.head)
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

    if text.isdecimal():
        return text.lstrip("0") == str(task.id)
    data, slash, network = text.partition("/")
    if not slash:
        return plain(text) in plain(task.title)
    return plain(data) in plain(task.dataset.name) and plain(network) in plain(task.network.name)


def _starts(args: argparse.Namespace, database: Database, tasks: list[Task]) -> list[Start]:
    """What trainings of the task began with: from scratch first, those that are not known last, together."""
    kinds = _list(args.start) or STARTS
    found = {
        start if start.known else UNKNOWN_START for task in tasks for start in database.starts(_id(task))
    }
    fitting = [start for start in found if start.kind in kinds]
    return sorted(fitting, key=lambda start: (STARTS.index(start.kind), str(start)))


def _group(
    args: argparse.Namespace,
    database: Database,
    tasks: list[Task],
    start: Start,
    order: Order,
    everything: bool,
) -> Group:
    candidates = list(_candidates(args, database, tasks, start, order, everything))
    unfinished = [] if args.pareto else _unfinished(args, database, tasks, start)
    every = _ranked(args, candidates, order)
    if not start.known:  # nobody can say which of them may be compared
        every = [replace(row, place=None, from_best=None, from_next=None) for row in every]
    return Group(start, candidates, every[: args.top or None], unfinished, len(every))


def _candidates(
    args: argparse.Namespace,
    database: Database,
    tasks: list[Task],
    start: Start,
    order: Order,
    everything: bool,
) -> Iterator[RankingEntry]:
    first, limit = _how_many(args, order, everything)
    for task in tasks:
        found = database.summaries(
            _id(task), functions=_functions(args), sources=_list(args.source), start=start, order_by=first,
            limit=limit,
        )  # fmt: skip
        summaries = [summary for summary in found if _measured(summary) and _has_length(args, summary)]
        reached = {}
        if args.target_top1 is not None:
            reached = database.iterations_to_top1(_id(task), args.target_top1, summaries)
        for summary in summaries:
            yield RankingEntry(summary, _target(reached.get(summary.id or 0), summary))


def _unfinished(
    args: argparse.Namespace, database: Database, tasks: list[Task], start: Start
) -> list[PolicySummary]:
    """The policies that only diverged or failed."""
    found = [
        summary
        for task in tasks
        for summary in database.summaries(
            _id(task),
            functions=_functions(args),
            sources=_list(args.source),
            start=start,
            limit=None if args.max_iter else args.top or None,
            unfinished=True,
        )
        if _has_length(args, summary)
    ]
    return found[: args.top or None]


def _id(task: Task) -> int:
    assert task.id is not None
    return task.id


def _measured(summary: PolicySummary) -> bool:
    return bool(summary.top1 or summary.test_loss or summary.outputs)


def _has_length(args: argparse.Namespace, summary: PolicySummary) -> bool:
    return args.max_iter is None or summary.max_iter == args.max_iter


def _functions(args: argparse.Namespace) -> list[str] | None:
    return [find_function(name).name for name in _list(args.functions) or []] or None


def _fitting(args: argparse.Namespace) -> str:
    given = {
        "--functions": args.functions,
        "--source": args.source,
        "--start": args.start,
        "--max-iter": args.max_iter,
    }
    flags = [flag for flag, value in given.items() if value]
    return f" fits {' and '.join(flags)}" if flags else ""


def _how_many(args: argparse.Namespace, order: Order, everything: bool) -> tuple[str, int | None]:
    """The order and number of policies to read: by one criterion the database has them sorted."""
    first = order.by[0]
    if first.name == "target" or first.kind == "output":
        return "top1", None
    if first.name == "num_params":  # which those have, too, that never finished
        return first.name, None
    if args.top == 0 or args.max_iter or args.weights or args.pareto or everything or len(order.by) > 1:
        return first.name, None
    return first.name, args.top + 1  # the last one shown is compared with the next


def _target(reached: Reached | None, summary: PolicySummary) -> TargetCost | None:
    if reached is None:
        return None
    return TargetCost(
        reached.iterations,
        reached.runs,
        reached.of,
        at_most=summary.source == "paper",
        diverged=summary.diverged,
    )


def _ranked(args: argparse.Namespace, candidates: list[RankingEntry], order: Order) -> list[Ranked]:
    if args.pareto:
        front = ranking.pareto_front(candidates, order.cost, order.utility)
        return ranking.rank(front, [order.utility])
    if args.weights:
        return ranking.rank_weighted(candidates, order.weights)
    return ranking.rank(candidates, order.by)


def _title(args: argparse.Namespace, order: Order) -> str:
    if args.pareto:
        return f"Pareto front of {order.utility.heading.removesuffix(' (%)')} and {order.cost.heading}"
    if args.weights:
        return f"by {args.weights}"
    return "by " + ", ".join(criterion.heading for criterion in order.by)
