"""Selects policies of the LR database, in a given order: a query and its result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lrbench_caffe import installation
from lrbench_caffe.errors import InputError, ParameterError, named
from lrbench_caffe.knowledge import criteria, ranking
from lrbench_caffe.knowledge.criteria import COSTS, CRITERIA, Criterion
from lrbench_caffe.knowledge.ranking import Ranked, RankingEntry, TargetCost
from lrbench_caffe.knowledge.similarity import comparable, is_held_out
from lrbench_caffe.knowledge.utility import classifies
from lrbench_caffe.lr.functions import find_function
from lrbench_caffe.parameters import (
    check_names,
    check_not_empty,
    check_percent,
    check_switch,
    check_text,
    check_whole,
    to_python_values,
)
from lrbench_caffe.records import SOURCES, STARTS, UNKNOWN_START, PolicySummary, Start, Task

if TYPE_CHECKING:
    from lrbench_caffe.database import Database
    from lrbench_caffe.database.summaries import Reached

MOST_ROWS = 2**31 - 1  # that a database is asked for; its numbers end somewhere, ``top`` does not


class Results(Protocol):
    """What a selection reads: a ``Database``, or what remembers the answers of one."""

    def summaries(self, *task: Any, **query: Any) -> list[PolicySummary]: ...

    def starts(self, task_id: int) -> list[Start]: ...

    def iterations_to_top1(
        self, task_id: int, top1: float, among: Sequence[PolicySummary] | None = None
    ) -> dict[int, Reached]: ...


@dataclass(frozen=True)
class Order:
    """The criteria of a ranking.

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
class StartRanking:
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
    """The policies that a query selects.

    Attributes:
        title: the task and the order, for people.
        groups: by start: from scratch first, those that are not known last.
        order: what is ranked by.
    """

    title: str
    groups: list[StartRanking]
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


@dataclass(frozen=True)
class Query:
    """Which policies of which task, and in which order.

    Attributes:
        solver: the task is what this solver file trains.
        task: or its number in the database, or DATASET/NETWORK or part of it.
        head: the blob of scores that Top-1 is of, for ``solver``.
        caffe_python: the Python that can import caffe, for ``solver``.
        functions: LR functions; none for all.
        sources, starts: of ``SOURCES`` and ``STARTS``; none for all.
        max_iter: trainings of this length only.
        by: criteria, comma-separated, the first counts most; None for the task's own.
        weights: "NAME=W,...", by a weighted mean of normalised criteria instead.
        higher: whether more is better of the net's own outputs; None to guess.
        target_top1: a Top-1 in percent, for the iterations to reach it.
        top: how many of each start; 0 for all.
        pareto: only the policies that none beats in both utility and cost.
    """

    solver: Path | None = None
    task: str | None = None
    head: str | None = None
    caffe_python: str | None = None
    functions: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()
    max_iter: int | None = None
    by: str | None = None
    weights: str | None = None
    higher: bool | None = None
    target_top1: float | None = None
    top: int = 10
    pareto: bool = False

    def __post_init__(self) -> None:
        """Check the values, and that the parameters go together.

        Raises:
            ParameterError: they do not, or a value is not allowed.
        """
        to_python_values(self)
        check_whole(self, "max_iter", "top")
        check_text(self, "head", "caffe_python", "by", "weights")
        check_not_empty(self, by="names of criteria", weights="NAME=W,...")
        check_text(self, "task", allowed="a task's number, or DATASET/NETWORK")
        check_names(self, "functions", "sources", "starts")
        check_switch(self, "higher", "pareto")
        check_percent(self, "target_top1")
        if self.head and not self.solver:
            raise ParameterError(
                "{head}: it belongs to a {solver}; a task that {task} names has its own"
            )
        if self.solver and self.task:
            raise ParameterError("{solver} and {task}: allowed: one of them")
        if self.top < 0:
            raise ParameterError("{top}: {0}; allowed: 1 or more, 0 for all", self.top)
        if self.max_iter is not None and self.max_iter < 1:
            raise ParameterError("{max_iter}: {0}; allowed: 1 or more", self.max_iter)
        if self.pareto and self.weights:
            raise ParameterError("{pareto} and {weights}: allowed: one of them")
        for parameter, allowed in (("sources", SOURCES), ("starts", STARTS)):
            for name in getattr(self, parameter):
                if name not in allowed:
                    raise ParameterError(
                        "{" + parameter + "}: {0!r}; allowed: {1}", name, ", ".join(allowed)
                    )

    @property
    def named(self) -> list[str]:
        """The named criteria, as they were given."""
        given = f"{self.by or ''},{self.weights or ''}".split(",")
        return [part.partition("=")[0].strip() for part in given if part.strip()]


def select(
    query: Query, database: Results, tasks: list[Task], *, everything: bool = False
) -> Selection:
    """The policies of a task that a query selects, in order.

    Args:
        tasks: the database's records of one task, from ``find_tasks``.
        everything: read all candidates, also where the order needs the first few only.

    Raises:
        InputError: a criterion that the task does not have.
    """
    order = _order(query, database, tasks)
    starts = _starts(query, database, tasks)
    groups = [_group(query, database, tasks, start, order, everything) for start in starts]
    groups = [group for group in groups if group.candidates or group.unfinished]
    if query.named:
        _check_measured(order.asked[0], groups, tasks[0])
    shown = sum(len(group.ranked) for group in groups)
    title = f"{tasks[0].title}, {_title(query, order)}"
    if any(query.top and len(group.ranked) == query.top < group.known for group in groups):
        title += f": the first {shown} ({named('top')} 0: all)"
    return Selection(title, groups, order)


def select_ranked(
    query: Query, database: Database, wanted: Task | None, *, everything: bool = False
) -> Selection:
    """The policies of the task that a query names, for a caller who needs at least one.

    Args:
        wanted: as for ``find_tasks``.
        everything: as for ``select``.

    Raises:
        InputError: no task is named, or the database has none that fits, or no result of it.
    """
    known = database.tasks()
    tasks = find_tasks(query, known, wanted)
    if tasks is None:
        names = ", ".join(f"{task.title} ({task.id})" for task in known)
        raise ParameterError("{solver} or {task} is missing; known tasks: {0}", names or "none")
    selected = select(query, database, tasks, everything=everything)
    if not selected.ranked:
        raise nothing_found(query, tasks)
    return selected


def best_of_task(database: Results, task: Task) -> PolicySummary | None:
    """The task's best policy from scratch; where there is none, from the first other start that has one.

    By Top-1 or, where no run of the start has one, by test loss.
    """
    first = None
    for start in _in_order(database.starts(_id(task))):
        for order in ("top1", "test_loss"):
            found = database.summaries(_id(task), start=start, order_by=order, limit=1)
            top = next(iter(found), None)
            if top and getattr(top, order):
                return top
            first = first or top
    return first


def nothing_found(query: Query, tasks: list[Task]) -> InputError:
    """The error where a task has no result that fits."""
    what = "a Top-1" if classifies(tasks[0]) else "a test"
    return ParameterError("{0}: no finished run with {1}" + _fitting(query), tasks[0].title, what)


def _order(query: Query, database: Results, tasks: list[Task]) -> Order:
    results: list[PolicySummary] = []
    if any(name not in CRITERIA for name in query.named):
        results = [summary for task in tasks for summary in database.summaries(_id(task))]
    higher = query.higher
    by = criteria.criteria(query.by, results, higher) if query.by else [_default(database, tasks)]
    weights = criteria.weights(query.weights, results, higher) if query.weights else {}
    asked = [*weights, *by]
    if CRITERIA["target"] in asked and query.target_top1 is None:
        raise ParameterError("target needs {target_top1} X, the Top-1 to reach")
    if higher is not None and all(criterion.kind != "output" for criterion in asked):
        raise ParameterError("{higher}: allowed with {by} or {weights} of an output of the net")
    costs = [criterion for criterion in asked if criterion.name in COSTS]
    utilities = [criterion for criterion in asked if criterion.kind in ("utility", "output")]
    utility = utilities[0] if utilities else _default(database, tasks)
    unused = [c.name for c in asked if c not in (utility, *costs[:1])]
    if query.pareto and unused:
        raise ParameterError(
            "{by}: {0}; allowed with {pareto}: one utility ({1}, an output of the net) and one cost ({2})",
            ", ".join(unused),
            ", ".join(c.name for c in CRITERIA.values() if c.kind == "utility"),
            ", ".join(COSTS),
        )
    return Order(
        tuple(by),
        weights,
        utility,
        (costs or [CRITERIA["iterations"]])[0],
        criteria.direction_note(asked),
    )


def _default(database: Results, tasks: list[Task]) -> Criterion:
    """What a task's policies are compared by where nothing is asked for: by what was measured of it.

    The Top-1, and for a net that does not classify the test loss, else an output of the net.
    """
    usual = ["top1"] * all(map(classifies, tasks)) + ["test_loss"]
    for name in usual:
        best = (database.summaries(_id(task), order_by=name, limit=1) for task in tasks)
        if any(getattr(summary, name) for found in best for summary in found):
            return CRITERIA[name]
    outputs = criteria.outputs_of(
        summary for task in tasks for summary in database.summaries(_id(task))
    )
    return criteria.first_output(outputs) if outputs else CRITERIA[usual[0]]


def _check_measured(criterion: Criterion, groups: list[StartRanking], task: Task) -> None:
    """Raise an error where no policy has what they are to be ranked by first."""
    entries = [entry for group in groups for entry in group.candidates]
    if not entries or criterion.name == "target":  # which nobody may have reached
        return
    if not any(entry.spread(criterion.name) for entry in entries):
        known = [c for c in CRITERIA if any(entry.spread(c) for entry in entries)]
        known += criteria.outputs_of(entry.summary for entry in entries)
        raise ParameterError(
            "{by}: {0}: it was not measured on {1}; known: {2}",
            criterion.name,
            task.title,
            ", ".join(known),
        )


def find_tasks(query: Query, known: list[Task], wanted: Task | None = None) -> list[Task] | None:
    """The database's records of one task (the paper's and this machine's are two); None if none is named.

    Args:
        known: all tasks of the database.
        wanted: the task of the query's solver, where it has one.

    Raises:
        InputError: the database has no such task, or several that fit.
    """
    if query.solver:
        assert wanted is not None
        fitting = [task for task in known if comparable(wanted, task)]
        if not fitting:
            raise InputError(
                f"{query.solver}: the database has no run of {wanted.title} yet "
                f"({installation.command('recommend')} finds similar tasks)"
            )
        return fitting
    if not query.task:
        return None
    fitting = _named(query.task, known)
    names = ", ".join(f"{task.title} ({task.id})" for task in fitting or known)
    if not fitting:
        raise ParameterError(
            "{task}: {0!r} is not in the database; known: {1}", query.task, names or "none"
        )
    if not all(comparable(fitting[0], other) for other in fitting[1:]):
        raise ParameterError(
            "{task}: {0!r} is more than one task: {1}; name one, or its number", query.task, names
        )
    return fitting


def _named(text: str, known: list[Task]) -> list[Task]:
    """The tasks of a number, or of a name or its part.

    A whole name counts more than a part, and a task more than what was held out of its training
    data, whose name begins like its own.
    """
    if text.isdecimal():
        return [task for task in known if text.lstrip("0") == str(task.id)]
    fitting = [task for task in known if _fits(task, text)]
    fitting = [task for task in fitting if not any(is_held_out(task, of) for of in fitting)]
    whole = [task for task in fitting if _is_whole_name(task, text)]
    if not whole:
        return fitting
    return [task for task in fitting if any(comparable(task, one) for one in whole)]


def _fits(task: Task, text: str) -> bool:
    data, slash, network = text.partition("/")
    if not slash:
        return _plain(text) in _plain(task.title)
    return _plain(data) in _plain(task.dataset.name) and _plain(network) in _plain(
        task.network.name
    )


def _is_whole_name(task: Task, text: str) -> bool:
    names = (task.title, task.dataset.name, task.network.name)
    return _plain(text) in map(_plain, names)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _starts(query: Query, database: Results, tasks: list[Task]) -> list[Start]:
    """The starts of the task's trainings: from scratch first, unknown ones last, together."""
    kinds = query.starts or STARTS
    starts = {
        start if start.known else UNKNOWN_START
        for task in tasks
        for start in database.starts(_id(task))
    }
    fitting = [start for start in starts if start.kind in kinds]
    return _in_order(fitting)


def _in_order(starts: Iterable[Start]) -> list[Start]:
    """Starts, from scratch first, unknown ones last."""
    return sorted(starts, key=lambda start: (STARTS.index(start.kind), str(start)))


def _group(
    query: Query,
    database: Results,
    tasks: list[Task],
    start: Start,
    order: Order,
    everything: bool,
) -> StartRanking:
    candidates = list(_candidates(query, database, tasks, start, order, everything))
    unfinished = [] if query.pareto else _unfinished(query, database, tasks, start)
    rankable = candidates
    if query.pareto:
        rankable = ranking.pareto_front(candidates, order.cost, order.utility)
    ranked = _ranked(query, rankable, order)
    if not start.known:  # it is unknown which of them may be compared
        ranked = [replace(row, place=None, from_best=None, from_next=None) for row in ranked]
    return StartRanking(start, candidates, ranked, unfinished, len(rankable))


def _candidates(
    query: Query,
    database: Results,
    tasks: list[Task],
    start: Start,
    order: Order,
    everything: bool,
) -> Iterator[RankingEntry]:
    first, limit = _how_many(query, order, everything)
    for task in tasks:
        recorded = database.summaries(
            _id(task),
            functions=_functions(query),
            sources=query.sources or None,
            start=start,
            order_by=first,
            limit=limit,
        )
        summaries = [
            summary for summary in recorded if _measured(summary) and _has_length(query, summary)
        ]
        reached = {}
        if query.target_top1 is not None:
            reached = database.iterations_to_top1(_id(task), query.target_top1, summaries)
        for summary in summaries:
            yield RankingEntry(summary, _target(reached.get(summary.id or 0), summary))


def _unfinished(
    query: Query, database: Results, tasks: list[Task], start: Start
) -> list[PolicySummary]:
    """The policies that only diverged or failed."""
    unfinished = [
        summary
        for task in tasks
        for summary in database.summaries(
            _id(task),
            functions=_functions(query),
            sources=query.sources or None,
            start=start,
            limit=None if query.max_iter else min(query.top, MOST_ROWS) or None,
            unfinished=True,
        )
        if _has_length(query, summary)
    ]
    return unfinished[: query.top or None]


def _id(task: Task) -> int:
    assert task.id is not None
    return task.id


def _measured(summary: PolicySummary) -> bool:
    return bool(summary.top1 or summary.test_loss or summary.outputs)


def _has_length(query: Query, summary: PolicySummary) -> bool:
    return query.max_iter is None or summary.max_iter == query.max_iter


def _functions(query: Query) -> list[str] | None:
    return [find_function(name).name for name in query.functions] or None


def _fitting(query: Query) -> str:
    names = [n for n in ("functions", "sources", "starts", "max_iter") if getattr(query, n)]
    return f" fits {' and '.join(f'{{{name}}}' for name in names)}" if names else ""


def _how_many(query: Query, order: Order, everything: bool) -> tuple[str, int | None]:
    """The order and number of policies to read: by one criterion the database has them sorted."""
    first = order.by[0]
    if first.name == "target" or first.kind == "output":
        return "top1", None
    if first.name == "num_params":  # which those have, too, that never finished
        return first.name, None
    if (
        query.top == 0
        or query.max_iter
        or query.weights
        or query.pareto
        or everything
        or len(order.by) > 1
    ):
        return first.name, None
    return first.name, min(query.top + 1, MOST_ROWS)  # the last one shown is compared with the next


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


def _ranked(query: Query, rankable: list[RankingEntry], order: Order) -> list[Ranked]:
    top = query.top or None
    if query.weights:
        return ranking.rank_weighted(rankable, order.weights, top)
    return ranking.rank(rankable, [order.utility] if query.pareto else order.by, top)


def _title(query: Query, order: Order) -> str:
    if query.pareto:
        return (
            f"Pareto front of {order.utility.heading.removesuffix(' (%)')} and {order.cost.heading}"
        )
    if query.weights:
        return f"by {query.weights}"
    return "by " + ", ".join(map(_titled, order.by))


def _titled(criterion: Criterion) -> str:
    """A criterion in a title; of an output of the net with the direction, which nobody can know."""
    if criterion.kind != "output":
        return criterion.heading
    return f"{criterion.heading} ({criterion.better})"
