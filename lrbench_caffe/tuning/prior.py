"""What is known before a tuning, to the LR database or to its user: policies to try first, a range of LRs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lrbench_caffe.knowledge.evidence import Evidence, Proposal, Wanted
from lrbench_caffe.knowledge.lookup import is_known
from lrbench_caffe.knowledge.trials import learned
from lrbench_caffe.lr import FunctionPolicy, parse
from lrbench_caffe.prototxt.solver import Solver
from lrbench_caffe.runs.opening import open_database
from lrbench_caffe.training.choosing import recommend_for
from lrbench_caffe.tuning.measure import Measure
from lrbench_caffe.tuning.plan import TuningPlan
from lrbench_caffe.tuning.space import BELOW_LIMIT, GoodRange, TuningCandidate

PROPOSALS = 6  # the best ones of the database that are tried, too
APART = 3.0  # factor between highest LRs from which on they say something of a range
GIVEN = "given"  # why a policy is tried that the user asked for


@dataclass(frozen=True)
class Prior:
    """The knowledge before the tuning, kept in study.json: the study's own runs would change it.

    Attributes:
        policies: texts of policies to try, the most promising first, each with its evidence.
        good: the range of LRs, None where the task itself is not known well enough.
        results: mean of the measure over those that ended as what is to be trained would: on this
            task, from this start, at this length; by the texts of their policies.
    """

    policies: tuple[tuple[str, str], ...] = ()
    good: GoodRange | None = None
    results: tuple[tuple[str, float], ...] = ()

    def candidates(self, max_iter: int) -> list[TuningCandidate]:
        return [TuningCandidate(parse(text).bind(max_iter), why) for text, why in self.policies]

    def with_given(self, policies: Sequence[str], lr_range: Sequence[float]) -> Prior:
        """The same, with what the user gave before what the database knows.

        Args:
            policies: to try first, as texts.
            lr_range: the lowest and the highest LR, empty for none.
        """
        known = {text: why for text, why in self.policies if text not in policies}
        policies_first = {**dict.fromkeys(policies, GIVEN), **known}
        good = _good_range(*lr_range) if lr_range else self.good
        return replace(self, policies=tuple(policies_first.items()), good=good)

    def as_json(self) -> dict[str, Any]:
        good = self.good and [self.good.low, self.good.high, self.good.best, self.good.limit]
        return {"policies": [list(pair) for pair in self.policies], "range": good,
                "results": [list(pair) for pair in self.results]}  # fmt: skip

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Prior:
        """What ``as_json`` made.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: something else did.
        """
        good = None
        if content["range"] is not None:
            *ends, limit = content["range"]
            low, high, best = map(float, ends)
            good = GoodRange(low, high, best, None if limit is None else float(limit))
        policies = tuple((str(text), str(why)) for text, why in content["policies"])
        results = tuple((str(text), float(value)) for text, value in content.get("results", ()))
        for text, _ in policies:
            parse(text)
        return cls(policies, good, results)


def range_source(plan: TuningPlan) -> str:
    """Where the range is from, if no range test found it."""
    return "given" if plan.lr_range else "from the LR database"


def look_up(
    db: str | None,
    wanted: Wanted,
    solver: Solver,
    max_iter: int,
    names: Sequence[str],
    say: Callable[[str], None],
    measure: Measure,
) -> Prior:
    """Ask the LR database about this task and similar ones, from the same start.

    What is fine-tuned has weights of its own in most cases, so results from other weights are tried
    first, too; but they narrow no range, and none of them counts for the policy. Only what learned
    is tried, and whether results on the task itself may narrow the range is decided as for
    ``recommend`` (knowledge/trials.py).

    Args:
        db: its URL, None for the user's own.
        wanted: what is trained, and what it begins with.
        max_iter: length of the trainings.
        names: the LR functions to choose from.
        say: see ``open_database``.
        measure: what they are compared by; where no result has it, nothing is known.
    """
    with open_database(db, to_write=True, say=say) as database:
        if not is_known(database, wanted.task, measure.name):
            return Prior()
        recommendation = recommend_for(
            database, wanted, solver, max_iter,
            functions=names, top=PROPOSALS, by=measure.name, higher=measure.higher,
        )  # fmt: skip
    usable = [proposal for proposal in recommendation.proposals if _usable(proposal)]
    policies = tuple((str(p.policy), f"from the LR database: {p.evidence[0]}") for p in usable)
    same = [p for p in usable if p.main.same_task and p.main.same_start]
    good = (
        _range(same, max_iter) if recommendation.experienced and _differ(same, max_iter) else None
    )
    results = tuple(
        (str(p.policy), top1) for p in same if (top1 := _recorded(p, max_iter)) is not None
    )
    return Prior(policies, good, results)


def _recorded(proposal: Proposal, max_iter: int) -> float | None:
    """The mean over whole trainings of this very policy, with these settings and of this length; None where
    one diverged, or is none."""
    summary = proposal.main.summary
    if summary.source != "measured" or summary.max_iter != max_iter or summary.diverged:
        return None
    expected = proposal.expected
    return expected.mean if expected else None


def _usable(proposal: Proposal) -> bool:
    complete = isinstance(proposal.policy, FunctionPolicy) and not proposal.policy.pending
    return complete and _alike_start(proposal.main) and learned(proposal.main)


def _alike_start(evidence: Evidence) -> bool:
    """Whether the trainings there began as this one: from the same, or both with or without weights."""
    kinds = {evidence.summary.start.begins_as, evidence.wanted.start.begins_as}
    return evidence.same_start or kinds in ({"weights"}, {"scratch"})


def _differ(proposals: Sequence[Proposal], max_iter: int) -> bool:
    """Whether their highest LRs lie apart: trainings at about one LR do not tell whether it is good."""
    highest = [float(_rates(p, max_iter).max()) for p in proposals]
    return bool(highest) and max(highest) >= APART * min(highest)


def _range(proposals: Sequence[Proposal], max_iter: int) -> GoodRange:
    """From the lowest to the highest LR of the best policies; for a constant LR the middle, by factors."""
    rates = [_rates(p, max_iter) for p in proposals]
    high = max(float(r.max()) for r in rates)
    low = max(min(float(r[r > 0].min()) for r in rates), high / 100)
    return _good_range(*(float(f"{lr:.2g}") for lr in (low, high)))


def _good_range(low: float, high: float) -> GoodRange:
    """A range of which no more is known; the limit is set so that nothing above it is proposed."""
    middle = min(max(float(f"{math.sqrt(low * high):.2g}"), low), high)
    return GoodRange(low, high, middle, high / BELOW_LIMIT)


def _rates(proposal: Proposal, max_iter: int) -> np.ndarray:
    times = np.unique(np.linspace(0, max_iter - 1, 1000).astype(int))
    return np.asarray(proposal.policy.bind(max_iter)(times))
