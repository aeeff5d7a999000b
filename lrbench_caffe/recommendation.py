"""Proposes LR policies for a training from what the database knows of the same or similar tasks.

The rules are in docs/recommending.md. In short: results on the same task (similarity 1) from the same start
come first where they are experience to choose from (trials.py), then those on the most similar tasks from the
same start, then those from other starts. Within a task the order is by a cautious value (utility.py). What
is known here to be worse than the best here, or only to diverge, is not proposed because it was good
elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from typing import Protocol

from lrbench_caffe.adaptation import CannotAdapt, Training, adapt, change, explain
from lrbench_caffe.errors import InputError
from lrbench_caffe.evidence import SAME, Evidence, Proposal, Wanted
from lrbench_caffe.lr import Policy, PolicyError, parse
from lrbench_caffe.lr.functions import find_function
from lrbench_caffe.records import SCRATCH, UNKNOWN_START, PolicySummary, SolverSettings, Start, Task
from lrbench_caffe.similarity import similarity
from lrbench_caffe.trials import Trials, comparable, judge, learned, nearly_equal, too_long, too_short
from lrbench_caffe.utility import (
    MANY,
    Utility,
    caution,
    classifies,
    only_diverged,
    standard_error,
    usual_deviation,
)

LIMIT = 100  # results of a task that are looked at, the best ones
NEAREST = 50  # tasks that are looked at, the most similar ones
STARTS = ("the same", "of the same kind", "another", "unknown")  # how a start compares with the wanted one


class ResultSource(Protocol):
    """What is asked of the database."""

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


@dataclass(frozen=True)
class Recommendation:
    """What the database says about a training.

    Attributes:
        proposals: the best first.
        compared: number of policies with a result on the same task from the same start, up to ``LIMIT``.
        similar: the other tasks that were looked at, with their similarity, the nearest first.
        set_aside: why the results on the same task are no experience to choose from; empty where they are,
            or where there are none.
        diverged: number of policies more that only diverged on the same task.
        passed_over: policies that other tasks speak for and that are not proposed, each with the result here
            that speaks against it.
        missing: LR functions that were asked for and are not among the proposals, each with the reason.
    """

    proposals: tuple[Proposal, ...]
    compared: int
    similar: tuple[tuple[Task, float], ...]
    set_aside: tuple[str, ...] = ()
    diverged: int = 0
    passed_over: tuple[tuple[Policy, Evidence], ...] = ()
    missing: tuple[tuple[str, str], ...] = ()

    @property
    def experienced(self) -> bool:
        """Whether the results on the same task are experience to choose from."""
        return self.compared > 0 and not self.set_aside

    @property
    def remarks(self) -> tuple[str, ...]:
        """What was set aside, passed over and not found, in lines for people."""
        lines = []
        if self.set_aside:
            lines.append(f"results on this task set aside: {'; '.join(self.set_aside)}")
        for policy, result in self.passed_over:
            lines.append(f"passed over: {policy:.7g}, since {against(result)}")
        lines += [f"{function} is not proposed: {reason}" for function, reason in self.missing]
        return tuple(lines)


def recommend(
    database: ResultSource,
    task: Task,
    *,
    solver: SolverSettings,
    max_iter: int,
    epoch: float | None,
    start: Start = SCRATCH,
    functions: Sequence[str] | None = None,
    top: int = 5,
) -> Recommendation:
    """Propose policies for a training.

    Args:
        database: what is known.
        task: what will be trained.
        solver: its settings (see task.solver_settings).
        max_iter, epoch: its length and epoch in iterations; None for an epoch that is not known.
        start: what it begins with.
        functions: propose these LR functions only, each if possible.
        top: number of proposals at most.

    Raises:
        PolicyError: an unknown function.
        InputError: top is below 1.
    """
    if top < 1:
        raise InputError(f"--top: {top}; allowed: 1 or more")
    names = [find_function(name).name for name in functions] if functions is not None else None
    new = Training(task.network.digest, solver, max_iter, epoch)
    return _Search(database, Wanted(task, start), new, names).recommendation(top)


@dataclass(frozen=True)
class _Group:
    """Results that are looked at together: of tasks that are the same as each other, and of like starts.

    Attributes:
        start: how the start compares with the wanted one: an index of ``STARTS``.
        nearness: similarity of the tasks to the wanted one.
    """

    start: int
    nearness: float
    tasks: tuple[Task, ...]

    @property
    def own(self) -> bool:
        """Whether this is what was tried on the task itself, from the same start."""
        return self.start == 0 and self.nearness == SAME


@dataclass
class _Search:
    """One question to the database, and what was met on the way to its answer."""

    database: ResultSource
    wanted: Wanted
    new: Training
    functions: list[str] | None
    looked: dict[int, tuple[Task, float]] = field(default_factory=dict)
    passed_over: dict[str, tuple[Policy, Evidence]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)  # why a function's results do not fit
    known_starts: dict[int, list[Start]] = field(default_factory=dict)  # by task

    def recommendation(self, top: int) -> Recommendation:
        groups = self.groups()
        own = next((group for group in groups if group.own), None)
        others = [group for group in groups if not group.own]
        known = self.proposals(own) if own else []
        trials = judge(known, self.nearest(others) if known else [])
        tried = [p for p in trials.proposals if self.functions is None or p.policy.function in self.functions]
        chosen = _distinct(self.ordered(trials, tried, others), top, self.functions)
        proposed = {str(proposal.policy) for proposal in chosen}
        return Recommendation(
            proposals=tuple(chosen),
            compared=sum(not proposal.main.only_diverged for proposal in trials.proposals),
            similar=tuple(self.looked.values()),
            set_aside=trials.against,
            diverged=sum(proposal.main.only_diverged for proposal in trials.proposals),
            passed_over=tuple(pair for text, pair in self.passed_over.items() if text not in proposed),
            missing=tuple(self.missing(chosen, tried, top)),
        )

    # -- where to look ----------------------------------------------------------------------------------

    def groups(self) -> list[_Group]:
        """The database's results in the order in which they are looked at."""
        homes: list[tuple[float, list[Task]]] = []
        rated = ((similarity(self.wanted.task, other), other) for other in self.database.tasks())
        for nearness, other in sorted(rated, key=lambda pair: -pair[0])[:NEAREST]:
            if nearness <= 0:
                break
            home = next((h for at, h in homes if at == nearness and similarity(h[0], other) == SAME), None)
            if home is None:
                homes.append((nearness, [other]))
            else:
                home.append(other)
        return [
            _Group(start, nearness, tuple(tasks)) for start in range(len(STARTS)) for nearness, tasks in homes
        ]

    def nearest(self, others: Iterable[_Group]) -> list[Proposal]:
        """What the most similar task speaks for, of any function, from a start of the same kind."""
        for group in others:
            if group.start > 1 or group.nearness == SAME:
                continue
            if found := [p for p in self.proposals(group) if not p.main.only_diverged]:
                return found
        return []

    # -- in which order ---------------------------------------------------------------------------------

    def ordered(self, trials: Trials, tried: list[Proposal], others: list[_Group]) -> Iterator[Proposal]:
        """All that may be proposed, the best first.

        Args:
            tried: those of the trials whose function is asked for.
        """
        alive = [proposal for proposal in tried if not proposal.main.only_diverged]
        able = [p for p in alive if learned(p.main)]
        good = [p for p in able if comparable(p.main)] + [p for p in able if too_short(p.main)]
        longer = [p for p in able if too_long(p.main)]
        some_learned = any(comparable(p.main) and learned(p.main) for p in trials.proposals)
        lost = [p for p in alive if some_learned and comparable(p.main)]
        rest = [p for p in alive if p not in good + longer + lost]
        near = chain(longer, self.elsewhere(trials, [group for group in others if group.start <= 1]))
        if trials.against and (first := next(near, None)):
            # Else the best of what happened to be tried here would be proposed for ever.
            yield first
        yield from good
        yield from near
        yield from self.elsewhere(trials, [group for group in others if group.start > 1])
        yield from rest

    def elsewhere(self, trials: Trials, groups: list[_Group]) -> Iterator[Proposal]:
        """What other tasks and other starts speak for, and nothing here against."""
        for group in groups:
            found = self.proposals(group, self.functions)
            if group.nearness < SAME:
                self.looked.update({id(task): (task, group.nearness) for task in group.tasks})
            for proposal in found:
                if known := _worse_here(proposal.policy, trials):
                    self.passed_over[str(proposal.policy)] = (proposal.policy, known)
                elif not proposal.main.only_diverged:
                    yield proposal

    def missing(self, chosen: list[Proposal], tried: list[Proposal], top: int) -> Iterator[tuple[str, str]]:
        """The functions that were asked for and are not proposed, with the reason."""
        proposed = {proposal.policy.function for proposal in chosen}
        passed = {policy.function: result for policy, result in self.passed_over.values()}
        for name in self.functions or ():
            if name in proposed:
                continue
            if name in passed:
                yield name, against(passed[name])
            elif own := next((p.main for p in tried if p.policy.function == name), None):
                yield name, against(own)
            elif len(chosen) == top:
                yield name, f"others come first (--top {top})"
            else:
                yield name, self.refused.get(name, "no result on this task or a similar one")

    # -- results and what follows from them -------------------------------------------------------------

    def proposals(self, group: _Group, functions: list[str] | None = None) -> list[Proposal]:
        """A proposal for each policy, by the result that counts most for it; the best first."""
        by_policy: dict[str, list[tuple[Evidence, Policy, Policy]]] = {}
        for item in self.evidence(group, functions):
            original = parse(item.summary.policy.text, strict=False)
            try:
                adapted = adapt(original, item.change)
            except CannotAdapt as error:
                self.refused[original.function] = f"what is known cannot be adapted: {error}"
                continue
            if _allowed(adapted) or not _allowed(original):  # what only Caffe allows stays what it is
                by_policy.setdefault(str(adapted), []).append((item, original, adapted))
            else:
                self.refused[original.function] = f"{original:.7g} would become {adapted:.7g}, not allowed"
        return sorted(map(_proposal, by_policy.values()), key=lambda proposal: -proposal.main.caution)

    def evidence(self, group: _Group, functions: list[str] | None) -> list[Evidence]:
        """The results of a group."""
        found = self.results(group, None)
        utility = self.utility(group, [summary for _, summary in found])
        usual = usual_deviation([summary for _, summary in found], utility)
        if functions is not None:
            found = self.results(group, functions)
        rated = []
        for task, summary in found:
            old = Training(task.network.digest, summary.solver, summary.max_iter, summary.epoch)
            try:
                by = change(old, self.new)
            except CannotAdapt as error:
                self.refused[summary.policy.function] = f"what is known cannot be adapted: {error}"
                continue
            spread = standard_error(summary, usual, utility)
            value = caution(summary, spread, utility)
            rated.append(Evidence(summary, task, group.nearness, self.wanted, by, utility, value, spread))
        return rated

    def results(self, group: _Group, functions: list[str] | None) -> list[tuple[Task, PolicySummary]]:
        """The best ``LIMIT`` of each task and start."""
        order = "top1" if classifies(self.wanted.task) else "test_loss"
        return [
            (task, summary)
            for task in group.tasks
            for start in self.starts(task, group.start)
            for summary in self.database.summaries(
                _id(task), functions=functions, start=start, order_by=order, limit=LIMIT
            )
            if getattr(summary, order) is not None or only_diverged(summary)
        ]

    def starts(self, task: Task, alike: int) -> list[Start]:
        """What trainings of a task began with, of those that compare with the wanted start in this way."""
        known = self.known_starts.get(_id(task))
        if known is None:
            found = (start if start.known else UNKNOWN_START for start in self.database.starts(_id(task)))
            known = self.known_starts[_id(task)] = list(dict.fromkeys(found))
        return [start for start in known if _start(start, self.wanted.start) == alike]

    def utility(self, group: _Group, summaries: list[PolicySummary]) -> Utility:
        if classifies(self.wanted.task):
            return Utility.top1(group.tasks[0].dataset.classes)
        losses = (
            self.database.untrained_loss(_id(task), start)
            for task in group.tasks
            for start in self.starts(task, group.start)
        )
        return Utility.test_loss(next((loss for loss in losses if loss is not None), None), summaries)


def _id(task: Task) -> int:
    assert task.id is not None
    return task.id


def _start(start: Start, wanted: Start) -> int:
    """How a start compares with the wanted one: an index of ``STARTS``."""
    if start.same(wanted):
        return 0
    if not start.known:
        return 3
    return 1 if start.kind == wanted.kind else 2


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


def _worse_here(policy: Policy, trials: Trials) -> Evidence | None:
    """The result on the same task that speaks against a policy: of itself or of nearly the same one."""
    tried = [p for p in trials.proposals if p.main.only_diverged or comparable(p.main)]
    alike = [proposal for proposal in tried if nearly_equal(proposal.policy, policy)]
    if not alike:
        return None
    known = next((proposal for proposal in alike if str(proposal.policy) == str(policy)), alike[0]).main
    return known if not learned(known) or known.caution < tried[0].main.caution else None


def _distinct(ordered: Iterable[Proposal], top: int, functions: Sequence[str] | None) -> list[Proposal]:
    """``top`` policies, as they are ordered, among them one of each function that was asked for.

    One that is proposed twice stands at its first place with all results. Where more functions were asked
    for than there are places, the first policies have them.
    """
    found: dict[str, Proposal] = {}
    waiting = set(functions) if functions is not None and len(functions) <= top else set()
    for proposal in ordered:
        text, function = str(proposal.policy), proposal.policy.function
        if text in found:
            found[text] = _merged(found[text], proposal)
        elif len(found) >= top and not waiting:
            break
        elif len(found) < top or function in waiting:
            found[text] = proposal
        waiting.discard(function)
    return _places(list(found.values()), top)


def _places(found: list[Proposal], top: int) -> list[Proposal]:
    """The first ``top``; a further one, which is the first of its function, takes the place of the last one
    whose function has another."""
    chosen = found[:top]
    for proposal in found[top:]:
        functions = [other.policy.function for other in chosen]
        last = max(i for i, name in enumerate(functions) if functions.index(name) < i)
        chosen = [*chosen[:last], *chosen[last + 1 :], proposal]
    return chosen


def _merged(first: Proposal, second: Proposal) -> Proposal:
    """Two proposals of one policy: the result of the same start, then of the nearer task, is the main one."""
    if (second.main.same_start, second.main.similarity) > (first.main.same_start, first.main.similarity):
        main, other = second, first
    else:
        main, other = first, second
    more = (*main.more, other.main, *other.more)
    return Proposal(main.policy, main.original, main.main, more, main.changes)


def against(evidence: Evidence) -> str:
    """What a result says against a policy, for people."""
    return f"{evidence.result} on this task ({evidence.origin})"
