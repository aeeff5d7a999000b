"""Decides which candidate to train next, and how far. Pure: it gets results and returns steps.

A step may be asked for while others are being trained: it is then decided without their results.

What was found on recorded curves (tools/bench_tuner), and what the rules below make of it:

- The range of LRs decides most, the function little. Two trainings are of one *level* where their
  mean LRs over the first fifth are alike. A few scouts find the highest level that does not
  diverge; what diverges costs little. What has as high an LR for as long as one that diverged is
  tried last, when nothing else is left: most of it diverges, too, but not all.
- Very early, Top-1 says little about the end, whatever the level; so a candidate is opened with 15 %
  of its training at once. Later its best Top-1 so far tells most. The best so far, not the last: a
  cyclic policy is not thrown away in the part of its cycle where the LR is high and Top-1 low.
- Good trainings are flat long before their end. Whether one may yet come above its best is seen
  from how lively it is: from how much Top-1 changes from test to test. One that is flat is left,
  not lost: its turn may come again.
- Within the good range the order is nearly chance. Then the next candidate that is opened beats the
  best of m others with a chance of 1 / (m + 1): the chance of a record.

So each step is given to the candidate with the highest chance of a new best for each test that it
costs. Before that, policies that were good in earlier trainings are opened, all of them.

All of this was found with some twenty tests in a training. Where there are more, those of a part of
it count as one, with the best of their values: neither the decisions nor the number of steps depend
on how often is tested. For cost every test counts, as the target may be reached at any.

Top-1 stands for any measure: what is compared are scores in points (see ``measure``), of Top-1 its
percent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lrbench_caffe.lr import Policy
from lrbench_caffe.tuning.curves import Curve, cost_order
from lrbench_caffe.tuning.measure import Measure
from lrbench_caffe.tuning.scouting import Begun, Scouts, level

PARTS = 20  # of a training, at least: what the rules below take for tests

# Levels, in decades of the LR.
NEAR = 0.15  # within which levels are taken to be alike
MARGIN = 0.1  # below the limit
WIDE = 0.6  # below the best level, from where on candidates are expected to be slow

# The cost of a candidate until it shows its worth, as shares of a training.
OPEN = 0.15  # with which it is opened
TICKET = 0.35  # that it takes all in all
FRESH = 3  # candidates that are opened at least, where policies are known
PRIOR = 0.7  # the prior of a level weighs as much as this many trainings
RIVAL = 2.0  # points below the best, from where on a training is not a rival
LAST = -1.0  # what a candidate is worth that is expected to diverge: less than any other

# The chance that a test of a training brings a new best.
FORGET = 0.85  # factor for every test since its best without a new one
REACH = 0.6  # how far above its best it may come, in mean changes from test to test
RECENT = 3  # tests that the mean change is over
LEAST_REACH = 0.03  # points
GAIN = 0.04  # share of the error that it is expected to lose yet, near its end; more before it

# An LR that falls at the end calms the weights: Top-1 rises then.
JUST = 0.2  # share of the time between two tests whose LR is that of the test
SAME_LR = 0.05  # decades within which LRs are the same
CALMING = 0.05  # share of the error that is lost where the LR falls to a tenth
LATE = 0.6  # share of a training after which its end begins
CALM = 0.7  # decades below its level that the LR has to fall for a training to end calmly
RESTLESS = 1.0  # points that one is expected to miss whose LR does not fall


@dataclass(frozen=True)
class Step:
    """Train candidate ``index`` up to iteration ``until``."""

    index: int
    until: int


@dataclass(frozen=True)
class _Lot:
    """The trainings that were opened.

    Attributes:
        levels: of each.
        ends: the best score that is expected of each.
        rivals: how many were trained far enough, and are good enough, for a new one to have to beat
            them.
    """

    levels: np.ndarray
    ends: np.ndarray
    rivals: int

    @cached_property
    def good(self) -> float:
        """The final score of one of the better candidates."""
        return float(np.quantile(self.ends, 0.8))


class PolicySearch:
    """A search among policies.

    Args:
        policies: the candidates, bound to max_iter.
        max_iter, test_interval: of their trainings.
        budget: iterations that the search may spend, None for all.
        seed: of the order of what is equally promising.
        measure: what policies are compared by.
        goal: "accuracy", or "cost": the fewest iterations to the target.
        target: a value of the measure; with "accuracy", what is good enough.
        first: policies among them that are opened before all others, whatever their LRs are.
    """

    def __init__(
        self,
        policies: Sequence[Policy],
        *,
        max_iter: int,
        test_interval: int,
        budget: int | None = None,
        seed: int = 0,
        measure: Measure,
        goal: str = "accuracy",
        target: float | None = None,
        first: Sequence[Policy] = (),
    ) -> None:
        self.policies = list(policies)
        wanted = {str(policy) for policy in first}
        self._first = [index for index, policy in enumerate(self.policies) if str(policy) in wanted]
        self.measure = measure
        self._target = None if target is None else measure.score(target)
        self._cheap = goal == "cost" and target is not None
        tests = max(1, max_iter // test_interval)
        parts = tests if self._cheap else tests // max(1, tests // PARTS)
        self._interval = test_interval
        self._ends = test_interval * np.round(np.arange(1, parts + 1) * tests / parts).astype(int)
        self._tests = parts  # that is what a part counts as
        self._opening = opening(self._tests)
        self._budget = budget
        self._random = np.random.default_rng(seed)
        self._level = np.array([level(policy, max_iter) for policy in self.policies])
        self._scouts = Scouts(self.policies, self._level, measure, self._random)
        means = [mean_rates(policy, self._ends) for policy in self.policies]
        self._lasting = np.array([lasting for lasting, _ in means])
        self._recent = np.array([recent for _, recent in means])
        late = self._lasting[:, int(LATE * self._tests) :]
        self._calm = np.minimum(0.0, late.min(axis=1) - self._level)
        self._whole: list[Curve | None] = [None] * len(self.policies)  # with all tests
        self._curves: list[Curve | None] = [None] * len(self.policies)  # with one for each part
        self._done = np.zeros(len(self.policies), dtype=int)  # tests
        self._known: list[Begun] = []  # of other policies
        self._spent = 0
        self._training: dict[
            int, int
        ] = {}  # candidates in training, and what their steps cost at most
        self._scouting = True

    # -- results --------------------------------------------------------------------------------

    def know(self, policy: Policy, curve: Curve) -> None:
        """Add an earlier training, of a candidate or of another policy."""
        text = str(policy)
        for index, candidate in enumerate(self.policies):
            if str(candidate) == text:
                self._take(index, curve)
                return
        at = level(policy, int(self._ends[-1]))
        self._known.append(Begun(policy, at, self._in_parts(curve)))

    def tell(self, step: Step, curve: Curve) -> None:
        """Add the result of a step: the training's whole curve so far."""
        before = self._curves[step.index]
        del self._training[step.index]
        self._spent += curve.trained - (before.trained if before else 0)
        self._take(step.index, curve)

    def _take(self, index: int, curve: Curve) -> None:
        self._whole[index] = curve
        self._curves[index] = curve = self._in_parts(curve)
        self._done[index] = len(curve.scores) if curve.alive else self._tests

    def _in_parts(self, curve: Curve) -> Curve:
        every_test = len(self._ends) * self._interval == self._ends[-1]
        return curve if every_test else curve.in_parts(self._ends)

    @property
    def opening(self) -> int:
        """The iteration up to which a candidate is trained at first."""
        return int(self._ends[self._opening - 1])

    @property
    def target_reached(self) -> bool:
        """Whether a candidate has reached the target."""
        # A training of the range test may be there already; it is a candidate that has to be.
        if self._cheap or self._target is None:
            return False
        tested = (curve for curve in self._whole if curve is not None and len(curve.scores))
        return any(curve.reaches(self._target) is not None for curve in tested)

    @property
    def won(self) -> bool:
        """Whether a candidate has reached the target at its first test: for cost nothing can be better."""
        return self._useful() < 1

    @property
    def best(self) -> int | None:
        """The candidate with the best result so far, None before there is one."""
        order = self.ranking()
        return order[0] if order else None

    def ranking(self) -> list[int]:
        """The candidates that have results, the best first: by the first highest score; for cost, by the
        iterations to the target."""

        def key(index: int) -> tuple[float, float]:
            curve = self._whole[index]
            assert curve is not None
            return cost_order(curve, self._target if self._cheap else None)

        known = [
            i for i, c in enumerate(self._whole) if c is not None and c.alive and len(c.scores)
        ]
        return sorted(known, key=key)

    # -- the next step --------------------------------------------------------------------------

    def ask(self) -> Step | None:
        """The next step; None where there is none before the result of one that is being trained, and, where
        none is, when the search is over."""
        if self.over:
            return None
        index = self._unopened()
        if index is not None:
            return self._step(index, self._opening)
        index = self._scout() if self._scouting and not self._training else None
        if index is not None:
            return self._step(index, 1)
        if self._scouting and self._training:
            return None
        self._scouting = False
        value = self._value()
        value[list(self._training)] = -np.inf
        value = self._fresh_first(value)
        index = int(np.argmax(value))
        if not np.isfinite(value[index]):
            return None
        done = int(self._done[index])
        return self._step(index, self._opening if done < self._opening else done + 1)

    def _fresh_first(self, value: np.ndarray) -> np.ndarray:
        """Only new candidates have a value where policies were known and fewer than ``FRESH`` others were
        opened: the best of what is known says nothing of what is not."""
        others = np.ones(len(value), dtype=bool)
        others[self._first] = False
        opened = int((others & (self._done >= self._opening)).sum())
        opened += sum(bool(others[index]) for index in self._training)
        new = others & (self._done < self._opening) & (value > LAST)
        if not self._first or opened >= FRESH or not new.any():
            return value
        return np.where(new, value, -np.inf)

    def _step(self, index: int, tests: int) -> Step:
        """Candidate ``index`` is being trained up to its n-th test, or the last that can be the cheapest."""
        done, until = int(self._done[index]), int(self._ends[min(tests, self._useful()) - 1])
        self._training[index] = until - (int(self._ends[done - 1]) if done else 0)
        return Step(index, until)

    @property
    def over(self) -> bool:
        """Whether the search is over."""
        if self.target_reached or self.won:
            return True
        if self._budget is None or self._unopened() is not None:
            return False
        return self.spent_up

    @property
    def spent_up(self) -> bool:
        """Whether the budget is used up."""
        if self._budget is None:
            return False
        return self._spent + sum(self._training.values()) >= self._budget

    def _unopened(self) -> int | None:
        """The next of those that are opened before all others, whatever is left to spend."""
        wanted = min(self._opening, self._useful())
        waiting = (i for i in self._first if self._done[i] < wanted and i not in self._training)
        return next(waiting, None)

    def _record(self) -> float:
        """The best score of all so far."""
        return max((begun.curve.best for begun in self._begun()), default=0.0)

    def _begun(self) -> list[Begun]:
        """Everything that has begun."""
        curves = zip(self.policies, self._level, self._curves)
        return self._known + [
            Begun(policy, at, curve) for policy, at, curve in curves if curve is not None
        ]

    def _scout(self) -> int | None:
        return self._scouts.next(self._begun(), self._done == 0)

    # -- what a step is worth -------------------------------------------------------------------

    def _value(self) -> np.ndarray:
        """For each candidate, the chance that its next step brings a new best, by the tests that it costs."""
        begun, lot, aim = self._begun(), self._lot(), self._aim()
        limit, hopeless = self._scouts.limit(begun), self._scouts.hopeless(begun)
        value = np.full(len(self.policies), -np.inf)
        for index in map(int, np.flatnonzero(self._done < self._useful())):
            curve = self._curves[index]
            if curve is not None and len(curve.scores) >= self._opening:
                value[index] = self._value_of_open(index, curve, aim)
            elif hopeless[index]:
                value[index] = LAST
            else:
                value[index] = self._value_of_new(index, limit, lot)
        # What is about equally promising is tried in any order, but in the same one for the same
        # seed.
        noise = np.exp(0.3 * self._random.standard_normal(len(value)))
        return np.where(value > LAST, value * noise, value)

    def _lot(self) -> _Lot | None:
        """The trainings that a new candidate is measured by, None before there is one."""
        levels: list[float] = []
        ends: list[float] = []
        rivals = 0
        record, everything = self._record(), self._begun()
        for begun in everything:
            curve = begun.curve
            if not self._scouts.learned(curve, everything) or len(curve.scores) < self._opening:
                continue
            levels.append(begun.level)
            ends.append(curve.best + self._gain(curve) * FORGET ** _age(curve))
            rivals += len(curve.scores) >= self._opening + 2 and curve.best > record - RIVAL
        return _Lot(np.array(levels), np.array(ends), rivals) if levels else None

    def _aim(self) -> float:
        return self._target if self._cheap and self._target is not None else self._record()

    def _value_of_open(self, index: int, curve: Curve, aim: float) -> float:
        share = len(curve.scores) / self._tests
        certain = 0.9 if share < 0.25 else 0.5
        behind = max(0.0, aim - curve.best)
        reach = _liveliness(curve) + self._calming(index, curve)
        return float(certain * FORGET ** self._age(index, curve) * np.exp(-behind / reach))

    def _age(self, index: int, curve: Curve) -> int:
        """Tests since the best one that could have surpassed it: those whose LR is not higher."""
        best, done = int(curve.scores.argmax()), len(curve.scores)
        rates = self._recent[index]
        return int((rates[best + 1 : done] <= rates[best] + SAME_LR).sum())

    def _calming(self, index: int, curve: Curve) -> float:
        """The score that is to be gained when the LR falls below all that it was until now."""
        done = len(curve.scores)
        rates = self._lasting[index]
        fall = (
            min(1.0, max(0.0, float(rates[:done].min() - rates[done:].min())))
            if done < len(rates)
            else 0.0
        )
        return CALMING * fall * self.measure.headroom(curve.best)

    def _gain(self, curve: Curve) -> float:
        """The score that a training is expected to gain yet; the error falls roughly as 1/t."""
        share = len(curve.scores) / self._tests
        return float(self.measure.headroom(curve.best) * GAIN / share**1.2)

    def _useful(self) -> int:
        """The tests in which a candidate may become the best: for cost, those before the first of all that
        reached the target."""
        if not self._cheap or np.isinf(cheapest := self._cheapest()):
            return self._tests
        return min(self._tests, math.ceil(cheapest / self._interval) - 1)

    def _cheapest(self) -> float:
        assert self._target is not None
        reached = [c.reaches(self._target) for c in self._curves if c is not None]
        return min((at for at in reached if at is not None), default=np.inf)

    def _value_of_new(self, index: int, limit: float, lot: _Lot | None) -> float:
        at = self._level[index]
        top = limit - MARGIN  # the highest level that is taken to be good
        if np.isinf(limit):
            top = at if lot is None else float(lot.levels.max()) + NEAR
        expected = -max(0.0, top - WIDE - at) / WIDE - 4 * max(0.0, at - top)
        expected -= RESTLESS * max(0.0, 1.0 + self._calm[index] / CALM)
        rivals = 0
        if lot is not None:
            weights = np.exp(-0.5 * ((at - lot.levels) / NEAR) ** 2)
            seen = float((weights * (lot.ends - lot.good)).sum())
            expected = (seen + PRIOR * expected) / (float(weights.sum()) + PRIOR)
            rivals = lot.rivals
        return float(np.exp(min(0.0, expected) / 0.4) / (rivals + 1) / (TICKET * self._tests))


def opening(tests: int) -> int:
    """The tests that a candidate is opened with, for a number of tests in a training."""
    return max(1, round(OPEN * tests))


def mean_rates(policy: Policy, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log10 of the mean LRs in the parts of a training, and of those in the last ``JUST`` of each.

    Args:
        ends: the iterations at which the parts end, shape (n,).

    Returns:
        Two arrays of shape (n,).
    """
    rates = np.asarray(policy(np.arange(int(ends[-1]))), dtype=np.float64)
    parts = np.split(rates, ends[:-1])
    recent = [part[-max(1, round(JUST * len(part))) :] for part in parts]
    return _log_means(parts), _log_means(recent)


def _log_means(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.log10(np.maximum([part.mean() for part in parts], 1e-12))


def _liveliness(curve: Curve) -> float:
    """How far above its best a training may yet come, in points, by how lively it is.

    One that is saturated hardly changes from test to test; one that still learns, or whose LR is
    high, does.
    """
    changes = np.abs(np.diff(curve.scores[-RECENT - 1 :]))
    return REACH * float(changes.mean()) + LEAST_REACH if len(changes) else 1.0


def _age(curve: Curve) -> int:
    """Tests since the best one."""
    return len(curve.scores) - 1 - int(curve.scores.argmax())
