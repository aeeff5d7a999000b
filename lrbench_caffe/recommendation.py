"""Proposes LR policies for a training from what the database knows of the same or similar tasks.

The rules are in docs/recommending.md. In short: results on the same task (similarity 1) come first if at
least three policies can be compared there, then those on the most similar tasks. Within a task the order is
by a cautious Top-1,

    caution = ((mean - 2 s / sqrt(n)) * runs + chance * diverged) / (runs + diverged)

where n is the number of trainings behind the mean, s the larger of the policy's own deviation and the task's
usual one (so a single training counts, with the risk that it was a lucky one), and chance is 100 % / classes,
what a diverged training is worth. What is known here to be worse than the best here, or only to diverge, is
not proposed because it was good elsewhere.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from lrbench_caffe.adaptation import CannotAdapt, Change, Training, adapt, change, explain
from lrbench_caffe.errors import InputError
from lrbench_caffe.lr import FunctionPolicy, Policy, PolicyError, parse
from lrbench_caffe.lr.functions import find_function
from lrbench_caffe.records import PolicySummary, SolverSettings, Spread, Task
from lrbench_caffe.report import number
from lrbench_caffe.similarity import similarity

COMPARED = 3  # policies on the same task, for a choice among them to mean something
LIMIT = 100  # results of a task that are looked at, the best ones
NEAREST = 50  # tasks that are looked at, the most similar ones
SAME = 1.0
MANY = 2  # trainings: fewer say nothing about noise
NEARLY = 0.05  # parameters that differ by less make no other policy


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
    def only_diverged(self) -> bool:
        return _only_diverged(self.summary)

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
        diverged: number of policies more that only diverged on the same task.
        passed_over: policies that other tasks speak for, each with the result here that speaks against it.
    """

    proposals: tuple[Proposal, ...]
    compared: int
    similar: tuple[tuple[Task, float], ...]
    diverged: int = 0
    passed_over: tuple[tuple[Policy, Evidence], ...] = ()


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
    results = _evidence(database, same, SAME, new, None)
    tried = _proposals(results)
    own = tried if names is None else _proposals(_evidence(database, same, SAME, new, names))
    here = [proposal for proposal in own if not proposal.main.only_diverged]
    compared = len({item.summary.policy.text for item in results if item.summary.top1})
    looked: list[tuple[Task, float]] = []
    passed_over: dict[str, tuple[Policy, Evidence]] = {}

    def elsewhere() -> Iterator[Proposal]:
        for nearness, tasks in groups:
            looked.extend((found, nearness) for found in tasks)
            for proposal in _proposals(_evidence(database, tasks, nearness, new, names)):
                if against := _worse_here(proposal.policy, tried):
                    passed_over[str(proposal.policy)] = (proposal.policy, against)
                elif not proposal.main.only_diverged:
                    yield proposal

    if compared >= COMPARED:
        ordered = _chain(here, elsewhere())
    else:
        # Too few to choose from: else the first policy that anyone tried would be proposed for ever.
        others = elsewhere()
        ordered = _chain([first] if (first := next(others, None)) else [], here, others)
    proposals = tuple(_distinct(ordered, top))
    diverged = sum(proposal.main.only_diverged for proposal in tried)
    return Recommendation(proposals, compared, tuple(looked), diverged, tuple(passed_over.values()))


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
) -> list[Evidence]:
    """The results on a group of tasks, the best first."""
    found = _results(database, tasks, None)
    usual = usual_deviation([summary for _, summary in found])
    if functions is not None:
        found = _results(database, tasks, functions)
    rated = []
    for task, summary in found:
        old = Training(task.network.digest, summary.solver, summary.max_iter, summary.epoch)
        caution = cautious_top1(summary, usual, task.dataset.classes)
        with suppress(CannotAdapt):
            rated.append(Evidence(summary, task, nearness, change(old, new), caution))
    return sorted(rated, key=lambda e: -e.caution)


def _results(
    database: Experience, tasks: list[Task], functions: list[str] | None
) -> list[tuple[Task, PolicySummary]]:
    return [
        (task, summary)
        for task in tasks
        if task.id is not None
        for summary in database.summaries(task.id, functions=functions, limit=LIMIT)
        if summary.top1 is not None or _only_diverged(summary)
    ]


def _only_diverged(summary: PolicySummary) -> bool:
    return summary.diverged > 0 and summary.runs == 0


def _proposals(evidence: list[Evidence]) -> list[Proposal]:
    """A proposal for each policy, by the result that counts most for it; the best first."""
    by_policy: dict[str, list[tuple[Evidence, Policy, Policy]]] = {}
    for item in evidence:
        original = parse(item.summary.policy.text, strict=False)
        try:
            adapted = adapt(original, item.by)
        except CannotAdapt:
            continue
        if _allowed(adapted) or not _allowed(original):  # what only Caffe allows stays what it is
            by_policy.setdefault(str(adapted), []).append((item, original, adapted))
    proposals = []
    for results in by_policy.values():
        main, original, adapted = min(results, key=lambda result: _rank_of_evidence(result[0]))
        more = tuple(item for item, _, _ in results if item is not main)
        proposals.append(Proposal(adapted, original, main, more, tuple(explain(original, main.by))))
    return sorted(proposals, key=lambda proposal: -proposal.main.caution)


def _allowed(policy: Policy) -> bool:
    """Whether the parameters are what the function takes from a person."""
    try:
        parse(str(policy))
    except PolicyError:
        return False
    return True


def _worse_here(policy: Policy, tried: list[Proposal]) -> Evidence | None:
    """The result on the same task that speaks against a policy: of itself or of nearly the same one.

    Args:
        tried: what was tried on the same task, the best first.
    """
    alike = [proposal for proposal in tried if nearly_equal(proposal.policy, policy)]
    if not alike:
        return None
    known = next((proposal for proposal in alike if str(proposal.policy) == str(policy)), alike[0]).main
    return known if known.only_diverged or known.caution < tried[0].main.caution else None


def nearly_equal(a: Policy, b: Policy) -> bool:
    """Whether two policies are of one function with parameters within ``NEARLY`` of each other.

    >>> nearly_equal(parse("SIN2(k0=0.01, k1=0.06, l=86)"), parse("SIN2(k0=0.01, k1=0.06, l=88)"))
    True
    >>> nearly_equal(parse("EXP(k0=0.01, gamma=0.9999)"), parse("EXP(k0=0.01, gamma=0.99994)"))
    False
    """
    if str(a) == str(b):
        return True
    if not isinstance(a, FunctionPolicy) or not isinstance(b, FunctionPolicy):
        return False
    if a.name != b.name or a.params.keys() != b.params.keys():
        return False
    return all(_near(name, value, b.params[name]) for name, value in a.params.items())


def _near(name: str, x: object, y: object) -> bool:
    if isinstance(x, tuple) and isinstance(y, tuple):
        return len(x) == len(y) and all(_near(name, *pair) for pair in zip(x, y))
    if not isinstance(x, (int, float)) or not isinstance(y, (int, float)):
        return x == y
    near = math.isclose(x, y, rel_tol=NEARLY)
    if name == "gamma":  # a decay is told by how far it is from 1
        return near and math.isclose(1 - x, 1 - y, rel_tol=NEARLY)
    return near


def _rank_of_evidence(evidence: Evidence) -> tuple[float, bool, int, float]:
    """Which result counts for a policy: of the nearest length; measured, if more than once; of most runs."""
    summary = evidence.summary
    trainings = summary.trainings() + summary.diverged
    own = summary.source == "measured" and trainings >= MANY
    off = round(abs(math.log(evidence.length_ratio)), 1)
    return off, not own, -trainings, -evidence.caution


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
    top1, n = summary.top1, summary.trainings()
    if top1 is None or top1.sd is None or n < MANY:
        return None
    return top1.sd * math.sqrt(n / (n - 1))


def cautious_top1(summary: PolicySummary, usual: float, classes: int | None) -> float:
    """The Top-1 that a policy is compared by (see the module); -inf where nothing is known."""
    chance = 100.0 / classes if classes else 0.0
    if summary.top1 is None:
        return chance if _only_diverged(summary) else -math.inf
    deviation = max(usual, _own_deviation(summary) or 0.0)
    low = summary.top1.mean - 2 * deviation / math.sqrt(max(1, summary.trainings()))
    trials = summary.runs + summary.diverged
    return (low * summary.runs + chance * summary.diverged) / trials if trials else low


# -- words ------------------------------------------------------------------------------------------


def _spread(spread: Spread) -> str:
    return number(spread.mean, 2) + (f" ± {number(spread.sd, 2)}" if spread.sd is not None else "")


def against(evidence: Evidence) -> str:
    """What a result says against a policy, for people."""
    return f"{_top1(evidence.summary)} on this task ({_origin(evidence)})"


def _top1(summary: PolicySummary) -> str:
    if _only_diverged(summary):
        return f"{summary.diverged} training{'s' * (summary.diverged > 1)} diverged"
    if summary.top1 is None:
        return "no Top-1"
    n = summary.trainings()
    times = f"{n} trainings" if n > 1 else "1 training"
    diverged = f", {summary.diverged} more diverged" if summary.diverged else ""
    return f"Top-1 {_spread(summary.top1)} % ({times}{diverged})"


def _origin(evidence: Evidence) -> str:
    summary = evidence.summary
    count = summary.runs or summary.diverged
    runs = f"{count} run{'s' if count != 1 else ''}"
    if summary.source == "paper":
        return summary.origin
    return f"{summary.source}, {runs}, the newest {summary.origin}"
