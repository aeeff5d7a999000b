"""Decides whether results on the task itself are enough to choose from; see docs/recommending.md.

The best of three bad trials is not a good policy, only the best of what was tried. So own results
(of the same task and start) count as experience only if

1. at least ``ENOUGH`` policies were tried at a comparable length: half of this training's or more,
   and at most twice as long, or at their best within this one's length;
2. the best of them learned (``Utility.learned``; from trained weights that is compared with what
   they have by themselves), and the most similar task does not promise more;
3. their LRs bracket it: of the best, or of one within noise of it, the highest LR lies ``APART``
   times above that of another one and as much below that of a third, or of one that diverged. What
   learned nothing is not within noise of it.

Once the best policy of the most similar task was tried here, nothing more can be learned from that
task, and its promise and the bracket are not asked for. The paper's results count as bracketed: it
tuned its ranges.

What a similar task promises is its share of the way from chance to 100 %, times the similarity.
Losses of two tasks cannot be compared, so they promise nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lrbench_caffe.knowledge.evidence import Evidence, Proposal
from lrbench_caffe.lr import FunctionPolicy, Policy

ENOUGH = 3  # policies, for a choice among them to mean something
SHORTEST, LONGEST = 0.5, 2.0  # of a comparable training, as a share of this one's epochs
APART = 1.2  # factor between highest LRs
NEARLY = 0.05  # parameters that differ by less make no other policy
POINTS = 1000  # iterations at which a policy is looked at for its highest LR


@dataclass(frozen=True)
class Trials:
    """The results on the task itself, from the same start.

    Attributes:
        proposals: all of it, the best first.
        against: why it does not count as experience; empty where it does.
    """

    proposals: tuple[Proposal, ...]
    against: tuple[str, ...]


def judge(proposals: Sequence[Proposal], nearest: Sequence[Proposal]) -> Trials:
    """Decide whether own results are enough to choose from.

    Args:
        proposals: what was tried on the task itself, the best first.
        nearest: what the most similar other task speaks for, the best first.
    """
    tried = [proposal for proposal in proposals if comparable(proposal.main)]
    return Trials(tuple(proposals), tuple(_against(proposals, tried, nearest)))


def comparable(evidence: Evidence) -> bool:
    """Whether the trainings there were about as long as this one, or were at their best within its length."""
    return not too_short(evidence) and not too_long(evidence)


def too_short(evidence: Evidence) -> bool:
    return evidence.length_ratio < SHORTEST


def too_long(evidence: Evidence) -> bool:
    """Whether the best tests there are beyond the end of this training."""
    if evidence.length_ratio <= LONGEST:
        return False
    return evidence.iterations is None or evidence.iterations > evidence.change.new.max_iter


def learned(evidence: Evidence) -> bool:
    """Whether the policy, judged cautiously, is better than chance, or than its start."""
    if evidence.only_diverged or not improved(evidence):
        return False
    least = evidence.utility.learned
    return least is None or evidence.caution >= evidence.utility.goodness(least)


def improved(evidence: Evidence) -> bool:
    """Whether any update made it better: whether the best test is not the first one, nor equal to it."""
    summary, utility = evidence.summary, evidence.utility
    if summary.iterations is not None and summary.iterations.mean <= (summary.start.iteration or 0):
        return False
    spread, least = utility.spread(summary), utility.improved
    return (
        spread is None or least is None or utility.goodness(spread.mean) > utility.goodness(least)
    )


def _against(
    proposals: Sequence[Proposal], tried: Sequence[Proposal], nearest: Sequence[Proposal]
) -> list[str]:
    if all(proposal.main.only_diverged for proposal in proposals):
        return []
    if not tried:
        lengths = sorted({proposal.main.summary.max_iter for proposal in proposals})
        there = f"{lengths[0]}" if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"
        best = proposals[0]
        length = f"they have {there} iterations, this training has {best.main.change.new.max_iter}"
        return [f"{length} (the best, {best.policy:.7g}: {best.main.result})"]
    best = tried[0]
    reasons = []
    if len(tried) < ENOUGH:
        count = "1 policy was" if len(tried) == 1 else f"{len(tried)} policies were"
        reasons.append(
            f"{count} tried at a comparable length, too few to choose from (fewer than {ENOUGH})"
        )
    if not learned(best.main):
        return [*reasons, _not_learned(best)]
    other = next((proposal for proposal in nearest if not proposal.main.only_diverged), None)
    if other and any(nearly_equal(other.policy, own.policy) for own in tried):
        return reasons
    if other and (promise := _promised_more(best, other)):
        reasons.append(promise)
    if len(tried) >= ENOUGH and (
        edge := _edge(tried, [p for p in proposals if p.main.only_diverged])
    ):
        reasons.append(f"the best, {best.policy:.7g}, has the {edge} LR of all that were tried")
    return reasons


def _not_learned(best: Proposal) -> str:
    utility = best.main.utility
    if best.main.only_diverged:
        return "all of them diverged"
    if not improved(best.main):
        first = "" if utility.before is None else f", {utility.text(utility.before)}"
        return (
            f"the best, {best.policy:.7g}, brought no improvement: {best.main.result}, "
            f"not clearly better than before the first update{first}"
        )
    assert utility.learned is not None
    if utility.before is not None:
        nothing, value = "before the first update it", utility.before
    else:
        nothing, value = "chance" if utility.is_top1 else "the untrained net's", utility.worthless
    return (
        f"the best, {best.policy:.7g}, hardly learned: {best.main.result}; {nothing} is "
        f"{utility.text(value)}, {utility.text(utility.learned)} would count"
    )


def _promised_more(best: Proposal, other: Proposal) -> str | None:
    """The promise of a similar task, if it exceeds the best here."""
    there, utility = other.main, best.main.utility
    if not utility.is_top1 or best.main.caution >= (
        promise := promised(there, chance=utility.worthless)
    ):
        return None
    return (
        f"the best, {best.policy:.7g}, has {best.main.result}; {there.task.title} ({there.similarity:.2f}) "
        f"suggests about {promise:.0f} %"
    )


def promised(there: Evidence, chance: float) -> float:
    """The expected Top-1 by a result on a similar task, in percent.

        chance + similarity * (caution there - chance there) / (100 - chance there) * (100 - chance)

    Args:
        there: the result.
        chance: of the task to be trained, in percent.
    """
    none = there.utility.worthless
    share = max(0.0, there.caution - none) / (100 - none) if none < 100 else 0.0
    return chance + there.similarity * share * (100 - chance)


def _edge(tried: Sequence[Proposal], diverged: Sequence[Proposal]) -> str | None:
    """ "lowest" or "highest" where no LR beyond that of the best, and of those within noise of it, was tried.

    Args:
        tried: at a comparable length, the best first.
        diverged: what only diverged, at any length.
    """
    best = tried[0]
    if best.main.summary.source == "paper":
        return None
    lrs = [highest_lr(proposal) for proposal in (*tried, *diverged)]
    alike = [p for p in tried if learned(p.main) and within_noise(best.main, p.main)]
    good = [highest_lr(proposal) for proposal in alike]
    if any(min(lrs) <= lr / APART and lr * APART <= max(lrs) for lr in good):
        return None
    return "highest" if max(lrs) < good[0] * APART else "lowest"


def within_noise(best: Evidence, other: Evidence) -> bool:
    """Whether the difference of two policies' means is at most twice its standard error."""
    if other is best:
        return True
    a, b = best.utility.spread(best.summary), other.utility.spread(other.summary)
    if a is None or b is None:
        return False
    error = math.hypot(best.standard_error, other.standard_error)
    return abs(a.mean - b.mean) <= 2 * error


def highest_lr(proposal: Proposal) -> float:
    """The highest LR of a policy in this training, sampled at up to ``POINTS`` iterations."""
    max_iter = proposal.main.change.new.max_iter
    times = np.unique(np.linspace(0, max_iter - 1, POINTS).astype(int))
    return float(np.max(proposal.policy.bind(max_iter)(times)))


def nearly_equal(a: Policy, b: Policy) -> bool:
    """Whether two policies are of one function with parameters within ``NEARLY`` of each other.

    >>> from lrbench_caffe.lr import parse
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
    if name == "gamma":  # a decay is characterised by its distance from 1
        return near and math.isclose(1 - x, 1 - y, rel_tol=NEARLY)
    return near
