"""Proposes LR policies for a training from what the database knows of the same or similar tasks.

The rules are in docs/recommending.md. In short: results on the same task (similarity 1) from the
same start come first where they are experience to choose from (trials.py), then those on the most
similar tasks from the same start, then those from other starts. Within a task the order is by a
cautious value (utility.py). What is known here to be worse than the best here, or only to diverge,
is not proposed because it was good elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from lrbench_caffe.errors import ParameterError, named
from lrbench_caffe.knowledge.adaptation import TrainingContext
from lrbench_caffe.knowledge.criteria import direction_note
from lrbench_caffe.knowledge.evidence import Evidence, Proposal, Wanted
from lrbench_caffe.knowledge.lookup import Lookup, ResultGroup, ResultSource, measure_of
from lrbench_caffe.knowledge.recommendation import Recommendation, against
from lrbench_caffe.knowledge.similarity import SAME
from lrbench_caffe.knowledge.trials import (
    Trials,
    comparable,
    improved,
    judge,
    learned,
    nearly_equal,
    too_long,
    too_short,
)
from lrbench_caffe.lr import Policy
from lrbench_caffe.lr.functions import find_function
from lrbench_caffe.records import SCRATCH, SolverSettings, Start, Task

TOP = 3  # proposals where nobody names a number


def usual_top(functions: Sequence[str] | None) -> int:
    """How many policies are proposed where nobody says: one for each function, ``TOP`` at least."""
    return max(TOP, len(functions or ()))


def recommend(
    database: ResultSource,
    task: Task,
    *,
    solver: SolverSettings,
    max_iter: int,
    epoch: float | None,
    start: Start = SCRATCH,
    functions: Sequence[str] | None = None,
    by: str | None = None,
    higher: bool | None = None,
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
        by: an output of the test net to compare by. By default the Top-1; where the net does not
            classify the test loss, and where it has none its first output by name.
        higher: whether more of that output is better; None to guess by its name.
        top: number of proposals at most.

    Raises:
        PolicyError: an unknown function.
        InputError: top is below 1, or no result has the output.
    """
    if top < 1:
        raise ParameterError("{top}: {0}; allowed: 1 or more", top)
    names = [find_function(name).name for name in functions] if functions is not None else None
    new = TrainingContext(task.network.digest, solver, max_iter, epoch)
    lookup = Lookup(database, Wanted(task, start), new, measure_of(database, task, by, higher))
    found = _ProposalSearch(lookup, names).recommendation(top)
    return found.attributed(database.contributions([item.summary for item in found.results]))


@dataclass
class _ProposalSearch:
    """The answer in the making: what was looked up, and what was met on the way."""

    lookup: Lookup
    functions: list[str] | None
    looked: dict[int, tuple[Task, float]] = field(default_factory=dict)
    passed_over: dict[str, tuple[Policy, Evidence]] = field(default_factory=dict)
    idle: dict[str, tuple[Policy, Evidence]] = field(default_factory=dict)

    def recommendation(self, top: int) -> Recommendation:
        groups = self.lookup.groups()
        own = next((group for group in groups if group.own), None)
        others = [group for group in groups if not group.own]
        known = self.lookup.proposals(own) if own else []
        trials = judge(known, self.nearest(others) if known else [])
        tried = [proposal for proposal in trials.proposals if self._is_wanted(proposal)]
        chosen = _distinct(self.ordered(trials, tried, others), top, self.functions)
        diverged = sum(proposal.main.only_diverged for proposal in trials.proposals)
        proposed = {str(proposal.policy) for proposal in chosen}
        told = {*proposed, *self.idle}
        passed_over = [pair for text, pair in self.passed_over.items() if text not in told]
        idle = [pair for text, pair in self.idle.items() if text not in proposed]
        return Recommendation(
            proposals=tuple(chosen),
            compared=len(trials.proposals) - diverged,
            similar=tuple(self.looked.values()),
            set_aside=trials.against,
            diverged=diverged,
            passed_over=tuple(passed_over),
            idle=tuple(idle),
            other_starts=any(self._is_other_start(group) for group in others),
            missing=tuple(self.missing(chosen, tried, top)),
            note=direction_note([self.lookup.measure]),
        )

    def _is_wanted(self, proposal: Proposal) -> bool:
        return self.functions is None or proposal.policy.function in self.functions

    def _is_other_start(self, group: ResultGroup) -> bool:
        return group.nearness == SAME and not group.own and self.lookup.has_results(group)

    def nearest(self, others: Iterable[ResultGroup]) -> list[Proposal]:
        """Proposals from the most similar task, of any function, from a start of the same kind."""
        for group in others:
            if group.start > 1 or group.nearness == SAME:
                continue
            if promising := [p for p in self.lookup.proposals(group) if _speaks(p)]:
                return promising
        return []

    def ordered(
        self, trials: Trials, tried: list[Proposal], others: list[ResultGroup]
    ) -> Iterator[Proposal]:
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
        self.idle.update({str(p.policy): (p.policy, p.main) for p in alive if not improved(p.main)})
        rest = [p for p in alive if p not in good + longer + lost and improved(p.main)]
        near = chain(
            longer, self.elsewhere(trials, [group for group in others if group.start <= 1])
        )
        if trials.against and (first := next(near, None)):
            # Else the best of what happened to be tried here would be proposed forever.
            yield first
        yield from good
        yield from near
        yield from self.elsewhere(trials, [group for group in others if group.start > 1])
        yield from rest

    def elsewhere(self, trials: Trials, groups: list[ResultGroup]) -> Iterator[Proposal]:
        """Proposals from other tasks and other starts that no result here speaks against."""
        for group in groups:
            proposals = self.lookup.proposals(group, self.functions)
            if group.nearness < SAME:
                self.looked.update({id(task): (task, group.nearness) for task in group.tasks})
            for proposal in proposals:
                if known := _worse_here(proposal.policy, trials):
                    self.passed_over[str(proposal.policy)] = (proposal.policy, known)
                elif _speaks(proposal):
                    yield proposal
                elif not proposal.main.only_diverged:
                    self.idle.setdefault(str(proposal.policy), (proposal.policy, proposal.main))

    def missing(
        self, chosen: list[Proposal], tried: list[Proposal], top: int
    ) -> Iterator[tuple[str, str]]:
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
            elif len(self.functions or ()) > top == len(chosen):  # else each was looked for
                yield name, f"others come first ({named('top')} {top})"
            else:
                yield name, self.lookup.refused.get(name, "no result on this task or a similar one")


def _speaks(proposal: Proposal) -> bool:
    """Whether the result speaks for the policy at all."""
    return not proposal.main.only_diverged and improved(proposal.main)


def _worse_here(policy: Policy, trials: Trials) -> Evidence | None:
    """The result on the same task that speaks against a policy: of itself or of nearly the same one."""
    tried = [p for p in trials.proposals if p.main.only_diverged or comparable(p.main)]
    alike = [proposal for proposal in tried if nearly_equal(proposal.policy, policy)]
    if not alike:
        return None
    known = next(
        (proposal for proposal in alike if str(proposal.policy) == str(policy)), alike[0]
    ).main
    return known if not learned(known) or known.caution < tried[0].main.caution else None


def _distinct(
    ordered: Iterable[Proposal], top: int, functions: Sequence[str] | None
) -> list[Proposal]:
    """``top`` policies, as they are ordered, among them one of each function that was asked for.

    A policy that is proposed twice has its first place and all results. Where more functions were
    asked for than there are places, the first policies have them.
    """
    chosen: dict[str, Proposal] = {}
    waiting = set(functions) if functions is not None and len(functions) <= top else set()
    for proposal in ordered:
        text, function = str(proposal.policy), proposal.policy.function
        if text in chosen:
            chosen[text] = _merged(chosen[text], proposal)
        elif len(chosen) >= top and not waiting:
            break
        elif len(chosen) < top or function in waiting:
            chosen[text] = proposal
        waiting.discard(function)
    return _places(list(chosen.values()), top)


def _places(proposals: list[Proposal], top: int) -> list[Proposal]:
    """The first ``top``; a further one, which is the first of its function, takes the place of the last one
    whose function has another."""
    chosen = proposals[:top]
    for proposal in proposals[top:]:
        functions = [other.policy.function for other in chosen]
        last = max(i for i, name in enumerate(functions) if functions.index(name) < i)
        chosen = [*chosen[:last], *chosen[last + 1 :], proposal]
    return chosen


def _merged(first: Proposal, second: Proposal) -> Proposal:
    """Two proposals of one policy: the result of the same start, then of the nearer task, is the main one."""
    if (second.main.same_start, second.main.similarity) > (
        first.main.same_start,
        first.main.similarity,
    ):
        main, other = second, first
    else:
        main, other = first, second
    more = (*main.more, other.main, *other.more)
    return Proposal(main.policy, main.original, main.main, more, main.changes)
