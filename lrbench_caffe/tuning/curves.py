"""The search's view of a training: its tests so far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lrbench_caffe.metrics import Measurement
from lrbench_caffe.records import UNSUCCESSFUL
from lrbench_caffe.tuning.measure import Measure

EXACT = 1e-5  # points: more than Caffe's 32 bits round an output by, less than one record is worth


@dataclass(frozen=True)
class Curve:
    """The tests of one training so far, the one before the first update left out.

    Attributes:
        iterations: of the tests, rising, shape (n,).
        scores: in points (see ``Measure``; of Top-1 its percent), shape (n,); the fewest there are
            for a test without a value, as of a precision where nothing was found.
        trained: iterations that were trained; beyond the last test where it diverged.
        status: one of records.STATUSES.
    """

    iterations: np.ndarray
    scores: np.ndarray
    trained: int
    status: str

    @classmethod
    def of(
        cls, measurements: Sequence[Measurement], trained: int, status: str, measure: Measure
    ) -> Curve:
        """From a run's measurements of one test net."""
        tests = [m for m in measurements if m.iteration > 0]
        iterations = np.array([m.iteration for m in tests], dtype=np.int64)
        return cls(iterations, measure.scores_of(tests), trained, status)

    @property
    def alive(self) -> bool:
        """Whether it can continue: neither diverged nor failed."""
        return self.status not in UNSUCCESSFUL

    @property
    def best(self) -> float:
        """The highest score so far, 0 without a test."""
        return float(self.scores.max()) if len(self.scores) else 0.0

    def in_parts(self, ends: np.ndarray) -> Curve:
        """The same with one test for each whole part, the best in it, at its end.

        Args:
            ends: the iterations at which the parts end, rising.
        """
        parts = np.searchsorted(ends, self.iterations)  # the number of each test's part
        last = self.iterations[-1] if len(parts) else 0
        whole = [n for n in np.unique(parts) if n < len(ends) and ends[n] <= last]
        scores = np.array([self.scores[parts == n].max() for n in whole], dtype=np.float64)
        return replace(self, iterations=np.asarray(ends)[whole].astype(np.int64), scores=scores)

    def reaches(self, score: float) -> int | None:
        """The first test with at least this score, None if none has."""
        there = np.flatnonzero(self.scores >= score - EXACT)
        return int(self.iterations[there[0]]) if len(there) else None


def cost_order(curve: Curve, target: float | None) -> tuple[float, float]:
    """What to sort curves by where the iterations to a target count, the best first.

    Args:
        target: a score; None where there is no target.
    """
    reached = None if target is None else curve.reaches(target)
    return math.inf if reached is None else reached, -curve.best


def decisive(measurements: Sequence[Measurement], measure: Measure) -> Measurement | None:
    """The test on held-out records at which a training counts.

    It is the last one that is worse than the best one by at most a standard error: the rule of one
    standard error of Breiman et al. (Classification and Regression Trees, 1984). Smaller
    differences are noise, so this is the end of most trainings, and earlier only where more of the
    training did harm. The error of
    a Top-1 is sqrt(p (1 - p) / (n + 2)), with n records and p = (right ones + 1) / (n + 2), which
    is not 0 where all are right. That of another measure is not known, and taken to be 0.
    """
    best = measure.best_test(measurements)
    if best is None:
        return None
    least = min(measure.goodness(value) for value in measure.values([best]))
    if measure.is_top1:
        share = (measure.values([best])[0] / 100 * best.samples + 1) / (best.samples + 2)
        least -= 100 * math.sqrt(share * (1 - share) / (best.samples + 2))
    tests = [(m, v) for m in measurements if m.iteration > 0 for v in measure.values([m])]
    return [m for m, value in tests if measure.goodness(value) >= least][-1]
