"""Proposes LR policies for a training from what the database knows of the same or similar tasks.

The rules are in docs/recommending.md. In short: results on the same task (similarity 1) come first if at
least three policies can be compared there, then those on the most similar tasks. Within a task the order is
by a cautious Top-1,

    caution = ((mean - 2 s / sqrt(n)) * runs + chance * diverged) / (runs + diverged)

where n is the number of trainings behind the mean, s the larger of the policy's own deviation and the task's
usual one (so a single training counts, with the risk that it was a lucky one), and chance is 100 % / classes,
what a diverged training is worth.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from lrbench_caffe.adaptation import Change, Training, adapt, change, explain
from lrbench_caffe.errors import InputError
from lrbench_caffe.lr import Policy, parse
from lrbench_caffe.lr.functions import find_function
from lrbench_caffe.records import PolicySummary, SolverSettings, Spread, Task
from lrbench_caffe.report import number
from lrbench_caffe.similarity import similarity

COMPARED = 3  # policies on the same task, for a choice among them to mean something
LIMIT = 100  # results of a task that are looked at, the best ones
NEAREST = 50  # tasks that are looked at, the most similar ones
SAME = 1.0
MANY = 2  # trainings: fewer say nothing about noise


class Experience(Protocol):
    """What is asked of the database."""

    def tasks(self) -> list[Task]: ...

    def summaries(
        self,
        task_id: int,
        *,
        functions: Sequence[str] | None = None,
        order_by: str = "top1",
        limit: int | None = None,
    ) -> list[PolicySummary]: ...


@dataclass(frozen=True)
class Evidence:
    """A result that speaks for a proposal.

    Attributes:
        summary: the result.
        task: what was trained there, and ``similarity`` to what is to be trained.
        by: how the trainings differ.
        caution: the cautious Top-1 (see the module).
    """

    summary: PolicySummary
    task: Task
    similarity: float
    by: Change
    caution: float

    @property
    def same_task(self) -> bool:
        return self.similarity == SAME

    @property
    def length_ratio(self) -> float:
        """Length of the trainings there over that of this one, both in epochs."""
        return self.by.old.max_iter * self.by.epoch / self.by.new.max_iter


@dataclass(frozen=True)
class Proposal:
    """A policy for this training.

    Attributes:
        policy: adapted to it.
        original: as it was used there.
        main: the result it is proposed for; ``more``: other results with what becomes the same policy here.
        changes: what was adapted, for people.
    """

    policy: Policy
    original: Policy
    main: Evidence
    more: tuple[Evidence, ...]
    changes: tuple[str, ...]

    @property
    def expected(self) -> Spread | None:
        """Top-1 to expect; None unless just this was trained before: task, policy, solver and length."""
        if not self.main.same_task or self.changes or self._differences() or not self._reached():
            return None
        return self.main.summary.top1

    @property
    def iterations(self) -> float | None:
        """#Iterations at the highest Top-1 there, as iterations of this training (the same epochs)."""
        there = self.main.summary.iterations
        return there.mean * self.main.by.epoch if there else None

    @property
    def evidence(self) -> tuple[str, ...]:
        """Where the proposal comes from and what it promises, in lines for people."""
        lines = [self._result(), self._cost(), *self.changes, self._promise()]
        lines += [f"also: {_origin(other)}: {_top1(other.summary)}" for other in self.more]
        return tuple(line for line in lines if line)

    def _result(self) -> str:
        main = self.main
        where = "on the same task" if main.same_task else f"on a similar task ({main.similarity:.2f})"
        if main.same_task and main.task.dataset.digest is None:
            where += " (the same data by name and form)"
        original = "" if str(self.original) == str(self.policy) else f" with {self.original:.7g}"
        return f"{_top1(main.summary)} {where}, {main.task.title}{original} ({_origin(main)})"

    def _cost(self) -> str:
        there, summary = self.main.summary.iterations, self.main.summary
        if there is None or self.iterations is None:
            return ""
        text = f"highest Top-1 at iteration {there.mean:.0f} of {summary.max_iter}"
        if summary.epoch:
            text += f" ({there.mean / summary.epoch:.1f} epochs)"
        if round(self.iterations) != round(there.mean):
            text += f", which is iteration {self.iterations:.0f} here"
        if self.iterations > self.main.by.new.max_iter:
            text += f"; this training ends at {self.main.by.new.max_iter}"
        return text

    def _promise(self) -> str:
        if self.expected:
            return f"expected: Top-1 {_spread(self.expected)} %"
        if not self.main.same_task:
            return "expected Top-1: not known, since this task is another one"
        why = ["the policy is adapted"] if self.changes else self._differences()
        if not why:
            why = ["the length differs"]
        return f"expected Top-1: not known, since {', '.join(why)}"

    def _differences(self) -> list[str]:
        """What else decides a training and is known to differ."""
        old, new = self.main.by.old, self.main.by.new
        pairs = {
            "the solver type": (old.solver.type, new.solver.type),
            "the number of samples per iteration": (old.samples, new.samples),
            "momentum": (old.solver.momentum, new.solver.momentum),
            "weight_decay": (old.solver.weight_decay, new.solver.weight_decay),
        }
        return [
            f"{name} differs" for name, (a, b) in pairs.items() if a is not None and b is not None and a != b
        ]

    def _reached(self) -> bool:
        """Whether this training goes as far, with the same LRs up to there."""
        by = self.main.by
        if self.policy.needs_max_iter and by.length != 1:
            return False
        return self.iterations is not None and self.iterations <= by.new.max_iter


@dataclass(frozen=True)
class Recommendation:
    """What the database says about a training.

    Attributes:
        proposals: the best first.
        compared: number of policies that are known on the same task, up to ``LIMIT``.
        similar: the other tasks that were looked at, with their similarity, the nearest first.
    """

    proposals: tuple[Proposal, ...]
    compared: int
    similar: tuple[tuple[Task, float], ...]


def recommend(
    database: Experience,
    task: Task,
    *,
    solver: SolverSettings,
    max_iter: int,
    epoch: float | None,
    functions: Sequence[str] | None = None,
    top: int = 5,
) -> Recommendation:
    """Propose policies for a training.

    Args:
        database: what is known.
        task: what will be trained.
        solver: its settings (see task.solver_settings).
        max_iter, epoch: its length and epoch in iterations; None for an epoch that is not known.
        functions: propose these LR functions only.
        top: number of proposals at most.

    Raises:
        PolicyError: an unknown function.
        InputError: top is below 1.
    """
    if top < 1:
        raise InputError(f"--top: {top}; allowed: 1 or more")
    names = [find_function(name).name for name in functions] if functions is not None else None
    new = Training(task.network.digest, solver, max_iter, epoch)
    groups = _groups(database, task)
    same = groups.pop(0)[1] if groups and groups[0][0] == SAME else []
    looked: list[tuple[Task, float]] = []

    def elsewhere() -> Iterator[Proposal]:
        for nearness, tasks in groups:
            looked.extend((found, nearness) for found in tasks)
            yield from _proposals(_evidence(database, tasks, nearness, new, names)[0])

    own, compared = _evidence(database, same, SAME, new, names)
    here = _proposals(own)
    if compared >= COMPARED:
        ordered = _chain(here, elsewhere())
    else:
        # Too few to choose from: else the first policy that anyone tried would be proposed for ever.
        others = elsewhere()
        ordered = _chain([first] if (first := next(others, None)) else [], here, others)
    return Recommendation(tuple(_distinct(ordered, top)), compared, tuple(looked))


def _groups(database: Experience, task: Task) -> list[tuple[float, list[Task]]]:
    """The database's tasks that are at all alike, those that are the same as each other together."""
    rated = sorted(
        ((similarity(task, other), other) for other in database.tasks()), key=lambda pair: -pair[0]
    )[:NEAREST]
    groups: list[tuple[float, list[Task]]] = []
    for nearness, other in rated:
        if nearness <= 0:
            break
        home = next(
            (tasks for at, tasks in groups if at == nearness and similarity(tasks[0], other) == SAME), None
        )
        if home is None:
            groups.append((nearness, [other]))
        else:
            home.append(other)
    return groups


def _evidence(
    database: Experience, tasks: list[Task], nearness: float, new: Training, functions: list[str] | None
) -> tuple[list[Evidence], int]:
    """The results on a group of tasks, the best first, and how many policies were compared there."""
    found = [
        (task, summary)
        for task in tasks
        if task.id is not None
        for summary in database.summaries(task.id, limit=LIMIT)
        if summary.top1 is not None
    ]
    usual = usual_deviation([summary for _, summary in found])
    compared = len({summary.policy.text for _, summary in found})
    if functions is not None:
        found = [
            (task, summary)
            for task in tasks
            if task.id is not None
            for summary in database.summaries(task.id, functions=functions, limit=LIMIT)
            if summary.top1 is not None
        ]
    rated = []
    for task, summary in found:
        old = Training(task.network.digest, summary.solver, summary.max_iter, summary.epoch)
        caution = cautious_top1(summary, usual, task.dataset.classes)
        rated.append(Evidence(summary, task, nearness, change(old, new), caution))
    return sorted(rated, key=lambda e: -e.caution), compared


def _proposals(evidence: list[Evidence]) -> list[Proposal]:
    """A proposal for each policy, by the result that counts most for it; the best first."""
    by_policy: dict[str, list[tuple[Evidence, Policy, Policy]]] = {}
    for item in evidence:
        original = parse(item.summary.policy.text, strict=False)
        adapted = adapt(original, item.by)
        by_policy.setdefault(str(adapted), []).append((item, original, adapted))
    proposals = []
    for results in by_policy.values():
        main, original, adapted = min(results, key=lambda result: _rank_of_evidence(result[0]))
        more = tuple(item for item, _, _ in results if item is not main)
        proposals.append(Proposal(adapted, original, main, more, tuple(explain(original, main.by))))
    return sorted(proposals, key=lambda proposal: -proposal.main.caution)


def _rank_of_evidence(evidence: Evidence) -> tuple[float, bool, int, float]:
    """Which result counts for a policy: of the nearest length; measured, if more than once; of most runs."""
    summary = evidence.summary
    own = summary.source == "measured" and summary.repeats >= MANY
    off = round(abs(math.log(evidence.length_ratio)), 1)
    return off, not own, -summary.repeats, -evidence.caution


def _chain(*parts: Iterable[Proposal]) -> Iterator[Proposal]:
    for part in parts:
        yield from part


def _distinct(proposals: Iterator[Proposal], top: int) -> list[Proposal]:
    """The first ``top`` policies; one that is proposed twice stands at its first place with all results."""
    found: dict[str, Proposal] = {}
    for proposal in proposals:
        text = str(proposal.policy)
        if text in found:
            found[text] = _merged(found[text], proposal)
        elif len(found) == top:
            break
        else:
            found[text] = proposal
    return list(found.values())


def _merged(first: Proposal, second: Proposal) -> Proposal:
    """Two proposals of one policy: the nearer task's result is the main one."""
    if second.main.similarity > first.main.similarity:
        first, second = second, first
    more = (*first.more, second.main, *second.more)
    return Proposal(first.policy, first.original, first.main, more, first.changes)


# -- statistics -------------------------------------------------------------------------------------


def usual_deviation(summaries: Sequence[PolicySummary]) -> float:
    """How far single trainings of one policy usually lie apart: the root of the median of the variances.

    Over the policies with two or more trainings; 0 where there are none. Sample variances,
    sd^2 * n / (n - 1) of the population's.
    """
    variances = [own**2 for summary in summaries if (own := _own_deviation(summary)) is not None]
    return math.sqrt(statistics.median(variances)) if variances else 0.0


def _own_deviation(summary: PolicySummary) -> float | None:
    top1, n = summary.top1, summary.repeats
    if top1 is None or top1.sd is None or n < MANY:
        return None
    return top1.sd * math.sqrt(n / (n - 1))


def cautious_top1(summary: PolicySummary, usual: float, classes: int | None) -> float:
    """The Top-1 that a policy is compared by (see the module); -inf where none is known."""
    if summary.top1 is None:
        return -math.inf
    deviation = max(usual, _own_deviation(summary) or 0.0)
    low = summary.top1.mean - 2 * deviation / math.sqrt(max(1, summary.repeats))
    chance = 100.0 / classes if classes else 0.0
    trials = summary.runs + summary.diverged
    return (low * summary.runs + chance * summary.diverged) / trials if trials else low


# -- words ------------------------------------------------------------------------------------------


def _spread(spread: Spread) -> str:
    return number(spread.mean, 2) + (f" ± {number(spread.sd, 2)}" if spread.sd is not None else "")


def _top1(summary: PolicySummary) -> str:
    if summary.top1 is None:
        return "no Top-1"
    times = f"{summary.repeats} trainings" if summary.repeats > 1 else "1 training"
    diverged = f", {summary.diverged} more diverged" if summary.diverged else ""
    return f"Top-1 {_spread(summary.top1)} % ({times}{diverged})"


def _origin(evidence: Evidence) -> str:
    summary = evidence.summary
    runs = f"{summary.runs} run{'s' if summary.runs != 1 else ''}"
    if summary.source == "paper":
        return summary.origin
    return f"{summary.source}, {runs}, the newest {summary.origin}"
