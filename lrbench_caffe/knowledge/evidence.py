"""The results behind a proposal, and what it promises.

A value is promised only where just this training was done before: the same task (known by its
data), start, policy and solver settings, and a training there that was at least as long, with its
best test within the length of this one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from lrbench_caffe.knowledge.adaptation import Change
from lrbench_caffe.knowledge.contributors import told
from lrbench_caffe.knowledge.similarity import SAME
from lrbench_caffe.knowledge.utility import Utility, only_diverged
from lrbench_caffe.lr import Policy
from lrbench_caffe.records import PolicySummary, Spread, Start, Task
from lrbench_caffe.tabular import count_of


@dataclass(frozen=True)
class Wanted:
    """The wanted training: the task, and its start."""

    task: Task
    start: Start


@dataclass(frozen=True)
class Evidence:
    """A result that speaks for a policy.

    Attributes:
        summary: the result.
        task: what was trained there, and ``similarity`` to ``wanted``.
        wanted: what is to be trained.
        change: how the trainings differ.
        utility: what policies are compared by.
        caution: the cautious value of it, higher is better; ``standard_error`` is of its mean
            (utility.py).
        contributors: how many of its runs were uploaded, by contributor.
    """

    summary: PolicySummary
    task: Task
    similarity: float
    wanted: Wanted
    change: Change
    utility: Utility
    caution: float
    standard_error: float
    contributors: Mapping[str, int] = field(default_factory=dict)

    @property
    def same_task(self) -> bool:
        return self.similarity == SAME

    @property
    def same_start(self) -> bool:
        return self.summary.start.same(self.wanted.start)

    @property
    def only_diverged(self) -> bool:
        return only_diverged(self.summary)

    @property
    def length_ratio(self) -> float:
        """Length of the trainings there over that of this one, both in epochs."""
        return self.change.old.max_iter * self.change.epoch / self.change.new.max_iter

    @property
    def iterations(self) -> float | None:
        """#Iterations at the best test there, as iterations of this training (the same epochs)."""
        there = self.summary.iterations
        return there.mean * self.change.epoch if there else None

    @property
    def latest(self) -> float | None:
        """The same of the training whose best test is the last, at most: none of n values is more than
        sqrt(n - 1) deviations above their mean (Samuelson's inequality)."""
        there = self.summary.iterations
        if there is None:
            return None
        further = math.sqrt(self.summary.trainings(there) - 1) * (there.sd or 0.0)
        return (there.mean + further) * self.change.epoch

    @property
    def result(self) -> str:
        """ "Top-1 99.33 ± 0.02 % (5 trainings)"."""
        summary, utility = self.summary, self.utility
        if self.only_diverged:
            return f"{count_of(summary.diverged, 'training')} diverged"
        spread = utility.spread(summary)
        if spread is None:
            return f"no {utility.title}"
        diverged = f", {summary.diverged} more diverged" if summary.diverged else ""
        trainings = count_of(summary.trainings(spread), "training")
        return f"{utility.title} {utility.spread_text(spread)} ({trainings}{diverged})"

    @property
    def origin(self) -> str:
        """ "Wu et al. 2019, Table VII" or "measured, 3 runs, of these 2 from ada, the newest runs/x"."""
        summary = self.summary
        if summary.source == "paper":
            return summary.origin
        count = summary.runs or summary.diverged
        runs = f"{count_of(count, 'run')}{told(self.contributors, count)}"
        return f"{summary.source}, {runs}, the newest {summary.origin}"

    @property
    def start(self) -> str:
        """The start of the training there, if it differs from this one's; else empty."""
        start = self.summary.start
        if self.same_start or (
            not self.same_task and start.kind == self.wanted.start.kind == "weights"
        ):
            return ""
        return f", from {start}" if start.known else f", from an unknown start ({start})"


@dataclass(frozen=True)
class Proposal:
    """A policy for this training.

    Attributes:
        policy: adapted to it.
        original: as it was used there.
        main: the result it is proposed for; ``more``: other results with what becomes the same
            policy here.
        changes: what was adapted, for people.
    """

    policy: Policy
    original: Policy
    main: Evidence
    more: tuple[Evidence, ...]
    changes: tuple[str, ...]

    @property
    def expected(self) -> Spread | None:
        """The value to expect (see the module); None where it is not known."""
        return None if self.unknown else self.main.utility.spread(self.main.summary)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Why nothing is promised; empty if something is."""
        main = self.main
        if not main.same_task:
            return ("the task differs",)
        if not main.wanted.task.dataset.content_known:
            return ("this data cannot be distinguished from other data of its form",)
        if not main.same_start:
            known = main.summary.start.known
            return ("the start differs" if known else "its start is unknown",)
        return tuple(
            ["the policy is adapted"] if self.changes else self._differences() or self._length()
        )

    @property
    def iterations(self) -> float | None:
        """#Iterations at the best test there, as iterations of this training (the same epochs)."""
        return self.main.iterations

    @property
    def evidence(self) -> tuple[str, ...]:
        """Where the proposal comes from and what it promises, as lines of text."""
        lines = [self._result(), self._cost(), *self.changes, self._promise()]
        lines += [f"also: {other.origin}{other.start}: {other.result}" for other in self.more]
        return tuple(line for line in lines if line)

    def _result(self) -> str:
        main = self.main
        where = (
            "on the same task" if main.same_task else f"on a similar task ({main.similarity:.2f})"
        )
        if main.same_task and main.task.dataset.digest is None:
            where += " (the same data by name and form)"
        original = "" if str(self.original) == str(self.policy) else f" with {self.original:.7g}"
        return f"{main.result} {where}{main.start}, {main.task.title}{original} ({main.origin})"

    def _cost(self) -> str:
        main, summary = self.main, self.main.summary
        there = summary.iterations
        if there is None or main.iterations is None:
            return ""
        text = f"{main.utility.best} at iteration {there.mean:.0f} of {summary.max_iter}"
        if summary.epoch:
            text += f" ({there.mean / summary.epoch:.1f} epochs)"
        if round(main.iterations) != round(there.mean):
            text += f", which is iteration {main.iterations:.0f} here"
        if main.iterations > main.change.new.max_iter:
            text += f"; this training ends at {main.change.new.max_iter}"
        return text

    def _promise(self) -> str:
        utility, summary = self.main.utility, self.main.summary
        expected = self.expected
        if expected is None:
            return f"expected {utility.title}: not known, since {', '.join(self.unknown)}"
        risk = ""
        if summary.diverged:
            risk = f", unless it diverges, as {summary.diverged} of {summary.runs + summary.diverged} did"
        return f"expected: {utility.title} {utility.spread_text(expected)}{risk}"

    def _differences(self) -> list[str]:
        """The other known differences that decide a training."""
        old, new = self.main.change.old, self.main.change.new
        pairs = {
            "the solver type": (old.solver.type, new.solver.type),
            "the number of samples per iteration": (old.samples, new.samples),
            "momentum": (old.solver.momentum, new.solver.momentum),
            "weight_decay": (old.solver.weight_decay, new.solver.weight_decay),
        }
        return [
            f"{name} differs"
            for name, (a, b) in pairs.items()
            if a is not None and b is not None and a != b
        ]

    def _length(self) -> list[str]:
        """What another length leaves unknown; nothing if this training reaches the best test."""
        change = self.main.change
        if change.length == 1:
            return []
        if self.policy.needs_max_iter:
            return ["the length differs"]
        if change.length > 1:
            return [
                f"this training is longer ({change.new.max_iter} iterations, not {change.old.max_iter})"
            ]
        if self.main.latest is None or self.main.latest > change.new.max_iter:
            return [
                f"this training is shorter ({change.new.max_iter} iterations, not {change.old.max_iter})"
            ]
        return []
