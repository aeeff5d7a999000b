"""Looks up results that resemble the wanted training, and makes proposals from them.

Results are read in groups of equal tasks and equal starts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol

from lrbench_caffe.errors import ParameterError, did_you_mean
from lrbench_caffe.knowledge.adaptation import (
    CannotAdapt,
    TrainingContext,
    adapt,
    change_between,
    explain,
)
from lrbench_caffe.knowledge.criteria import (
    Criterion,
    beside_test_loss,
    first_output,
    output,
    outputs_of,
    own_criterion,
)
from lrbench_caffe.knowledge.evidence import Evidence, Proposal, Wanted
from lrbench_caffe.knowledge.similarity import SAME, comparable, is_held_out, similarity
from lrbench_caffe.knowledge.utility import (
    MANY,
    OWN,
    Utility,
    caution,
    classifies,
    only_diverged,
    standard_error,
    usual_deviation,
    value_of,
)
from lrbench_caffe.lr import Policy, PolicyError, parse
from lrbench_caffe.records import UNKNOWN_START, PolicySummary, Start, Task

LIMIT = 100  # results of a task that are looked at, the best ones
NEAREST = 50  # tasks that are looked at, the most similar ones
EQUAL = 1e-4  # relative; values that differ by less say that no policy did anything
STARTS = (
    "the same",
    "of the same kind",
    "another",
    "unknown",
)  # how a start compares with the wanted one


class ResultSource(Protocol):
    """The queries that a lookup needs; the database answers them."""

    def tasks(self) -> list[Task]: ...

    def summaries(
        self,
        task_id: int,
        *,
        functions: Sequence[str] | None = None,
        start: Start | None = None,
        order_by: str = "top1",
        limit: int | None = None,
    ) -> list[PolicySummary]: ...

    def starts(self, task_id: int) -> list[Start]: ...

    def untrained_loss(self, task_id: int, start: Start) -> float | None: ...

    def untrained_top1(self, task_id: int, start: Start) -> float | None: ...

    def contributions(self, among: Sequence[PolicySummary]) -> dict[int, dict[str, int]]: ...


def measure_of(
    database: ResultSource, task: Task, by: str | None, higher: bool | None
) -> Criterion:
    """The measure by which policies for a task are compared.

    Args:
        by: an output of the test net; None for the Top-1, where the net does not classify the test
            loss, and where it has none an output (see ``first_output``).
        higher: whether more of that output is better; None to find out.

    Raises:
        InputError: no result has the output, or nothing tells which direction is better.
    """
    if by in OWN or (by is None and classifies(task)):
        return own_criterion(by or "top1", higher)
    alike = _results_alike(database, task)
    results = [summary for group in alike for summary in group]
    outputs = outputs_of(results)
    if by is None:
        if not outputs or any(summary.test_loss for summary in results):
            return own_criterion("test_loss", higher)
        first = first_output(outputs)
        return first if higher is None else output(first.name, higher)
    if by not in outputs and by.lower() in OWN:
        return own_criterion(by.lower(), higher)
    if by not in outputs:
        known = (*OWN, *outputs)
        hint = did_you_mean(by, known) or ";"
        raise ParameterError("{by}: unknown output {0!r}{1} known: {2}", by, hint, ", ".join(known))
    # The same name may be another loss in another net, so the most similar task decides.
    pairs = (beside_test_loss(by, group) for group in alike)
    return output(by, higher, next(filter(None, pairs), ()))


def is_known(database: ResultSource, task: Task, by: str) -> bool:
    """Whether any result on a task like this one has a measure."""
    return by in OWN or any(
        by in one.outputs for group in _results_alike(database, task) for one in group
    )


def _results_alike(database: ResultSource, task: Task) -> list[list[PolicySummary]]:
    """The results on a task and on those like it, task by task, the most similar first."""
    rated = ((similarity(task, other), _id(other)) for other in database.tasks())
    alike = sorted((pair for pair in rated if pair[0] > 0), key=lambda pair: -pair[0])
    return [database.summaries(task_id, order_by="test_loss") for _, task_id in alike]


@dataclass(frozen=True)
class ResultGroup:
    """Results of equal tasks and equal starts.

    Attributes:
        start: how the start compares with the wanted one: an index of ``STARTS``.
        nearness: similarity of the tasks to the wanted one.
    """

    start: int
    nearness: float
    tasks: tuple[Task, ...]

    @property
    def own(self) -> bool:
        """Whether the results are of the task itself, from the same start."""
        return self.start == 0 and self.nearness == SAME


@dataclass
class Lookup:
    """One lookup in the database.

    Attributes:
        database: where to look.
        wanted: what will be trained; ``new``: its net, settings and length.
        measure: what policies are compared by.
        refused: by LR function, why results with it do not fit; filled on the way.
    """

    database: ResultSource
    wanted: Wanted
    new: TrainingContext
    measure: Criterion
    refused: dict[str, str] = field(default_factory=dict)
    _starts: dict[int, list[Start]] = field(default_factory=dict)  # by task

    def groups(self) -> list[ResultGroup]:
        """The database's results in the order in which they are looked at.

        What ``tune`` trained on a part of this task's training data is none: its best were chosen
        from many by few records, and what they are worth here is measured at its end.
        """
        homes: list[tuple[float, list[Task]]] = []
        wanted = self.wanted.task
        others = [other for other in self.database.tasks() if not is_held_out(other, wanted)]
        rated = ((similarity(wanted, other), other) for other in others)
        for nearness, other in sorted(rated, key=lambda pair: -pair[0])[:NEAREST]:
            if nearness <= 0:
                break
            home = next((h for at, h in homes if at == nearness and comparable(h[0], other)), None)
            if home is None:
                homes.append((nearness, [other]))
            else:
                home.append(other)
        return [
            ResultGroup(start, nearness, tuple(tasks))
            for start in range(len(STARTS))
            for nearness, tasks in homes
        ]

    def proposals(self, group: ResultGroup, functions: list[str] | None = None) -> list[Proposal]:
        """A proposal for each policy, by the result that counts most for it; the best first."""
        by_policy: dict[str, list[tuple[Evidence, Policy, Policy]]] = {}
        for item in self._evidence(group, functions):
            original = parse(item.summary.policy.text, strict=False)
            try:
                adapted = adapt(original, item.change)
            except CannotAdapt as error:
                self.refused[original.function] = f"the results cannot be adapted: {error}"
                continue
            if _allowed(adapted) or not _allowed(
                original
            ):  # what only Caffe allows stays what it is
                by_policy.setdefault(str(adapted), []).append((item, original, adapted))
            else:
                self.refused[original.function] = (
                    f"{original:.7g} would become {adapted:.7g}, not allowed"
                )
        return sorted(
            map(_proposal, by_policy.values()), key=lambda proposal: -proposal.main.caution
        )

    def has_results(self, group: ResultGroup) -> bool:
        """Whether any training of the group is known."""
        return any(self._starts_of(task, group.start) for task in group.tasks)

    def _evidence(self, group: ResultGroup, functions: list[str] | None) -> list[Evidence]:
        """The results of a group."""
        results = self._results(group, None)
        utility = self._utility(group, [summary for _, summary in results])
        usual = usual_deviation([summary for _, summary in results], utility)
        if functions is not None:
            results = self._results(group, functions)
        rated = []
        begun = {
            start: self._begun(group, start, utility, results)
            for start in {s.start for _, s in results}
        }
        for task, summary in results:
            old = TrainingContext(
                task.network.digest, summary.solver, summary.max_iter, summary.epoch
            )
            try:
                change = change_between(old, self.new)
            except CannotAdapt as error:
                self.refused[summary.policy.function] = f"the results cannot be adapted: {error}"
                continue
            spread = standard_error(summary, usual, utility)
            value = caution(summary, spread, utility)
            own = begun[summary.start]
            rated.append(
                Evidence(summary, task, group.nearness, self.wanted, change, own, value, spread)
            )
        return rated

    def _results(
        self, group: ResultGroup, functions: list[str] | None
    ) -> list[tuple[Task, PolicySummary]]:
        """The best ``LIMIT`` of each task and start."""
        name, own = self.measure.name, self.measure.name in OWN
        results: list[tuple[Task, PolicySummary]] = []
        for task in group.tasks:
            for start in self._starts_of(task, group.start):
                summaries = self.database.summaries(
                    _id(task), functions=functions, start=start, order_by=name if own else "top1",
                    limit=LIMIT if own else None,
                )  # fmt: skip
                known = [s for s in summaries if only_diverged(s) or value_of(s, name)]
                if not own:  # which the database has not in order
                    known = sorted(known, key=lambda s: _goodness(s, self.measure), reverse=True)[
                        :LIMIT
                    ]
                results += [(task, summary) for summary in known]
        return results

    def _starts_of(self, task: Task, alike: int) -> list[Start]:
        """The starts of a task's trainings that compare with the wanted start in this way."""
        known = self._starts.get(_id(task))
        if known is None:
            starts = (
                start if start.known else UNKNOWN_START for start in self.database.starts(_id(task))
            )
            known = self._starts[_id(task)] = list(dict.fromkeys(starts))
        return [start for start in known if _start(start, self.wanted.start) == alike]

    def _utility(self, group: ResultGroup, summaries: list[PolicySummary]) -> Utility:
        if self.measure.name == "top1":
            return Utility.top1(group.tasks[0].dataset.classes)
        if self.measure.name != "test_loss":
            return Utility.output(self.measure.name, self.measure.higher, summaries)
        losses = (
            self.database.untrained_loss(_id(task), start)
            for task in group.tasks
            for start in self._starts_of(task, group.start)
        )
        return Utility.test_loss(
            next((loss for loss in losses if loss is not None), None), summaries
        )

    def _begun(
        self,
        group: ResultGroup,
        start: Start,
        utility: Utility,
        results: list[tuple[Task, PolicySummary]],
    ) -> Utility:
        """The utility of trainings with this start, which has a value of its own if it is trained weights.

        It is that of the test before the first update. Where there was none, several policies with
        one and the same value have none of them done anything, so it is theirs.
        """
        if start.kind == "scratch" or not start.known or utility.name not in OWN:
            return utility
        read = self.database.untrained_top1 if utility.is_top1 else self.database.untrained_loss
        measured = (read(_id(task), start) for task in group.tasks)
        before = next((value for value in measured if value is not None), None)
        if before is None:
            pairs = [(s.policy.text, utility.spread(s)) for _, s in results if s.start == start]
            means = {text: spread.mean for text, spread in pairs if spread}
            low, high = min(means.values(), default=0.0), max(means.values(), default=0.0)
            if len(means) < MANY or not math.isclose(low, high, rel_tol=EQUAL) or low == 100:
                return utility
            before = high if utility.higher else low
        return utility.begun(before)


def _goodness(summary: PolicySummary, measure: Criterion) -> float:
    """A result as a number of which more is better; the lowest for one that only diverged."""
    spread = value_of(summary, measure.name)
    if spread is None:
        return -math.inf
    return spread.mean if measure.higher else -spread.mean


def _id(task: Task) -> int:
    assert task.id is not None
    return task.id


def _start(start: Start, wanted: Start) -> int:
    """How a start compares with the wanted one: an index of ``STARTS``."""
    if start.same(wanted):
        return 0
    if not start.known:
        return 3
    return 1 if start.begins_as == wanted.begins_as else 2


def _proposal(results: list[tuple[Evidence, Policy, Policy]]) -> Proposal:
    """The proposal of results with what becomes the same policy here."""
    main, original, adapted = min(results, key=lambda result: _rank_of_evidence(result[0]))
    more = tuple(item for item, _, _ in results if item is not main)
    return Proposal(adapted, original, main, more, tuple(explain(original, main.change)))


def _rank_of_evidence(evidence: Evidence) -> tuple[float, bool, int, float]:
    """Which result counts for a policy: of the nearest length; measured, if more than once; of most runs."""
    summary = evidence.summary
    trainings = summary.trainings() + summary.diverged
    own = summary.source == "measured" and trainings >= MANY
    off = round(abs(math.log(evidence.length_ratio)), 1)
    return off, not own, -trainings, -evidence.caution


@cache
def _allowed(policy: Policy) -> bool:
    """Whether the parameters are what the function takes from a person."""
    try:
        parse(str(policy))
    except PolicyError:
        return False
    return True
