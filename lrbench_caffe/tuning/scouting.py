"""Finds the highest LRs that do not diverge: a few scouts go up until one does, or down.

Two trainings are of one *level* where their mean LRs over the first fifth are alike. Nothing whose
LR is as high for as long as that of one that diverged is tried before all else was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lrbench_caffe.lr import Policy
from lrbench_caffe.tuning.curves import Curve
from lrbench_caffe.tuning.measure import Measure

# Levels, in decades of the LR.
LEVEL = 0.2  # share of a training whose mean LR is its level
START = 0.03  # LR of the first scout if nothing is known
STRIDE = 0.35  # between two scouts
MOST = 6  # scouts that are tried where none learns and none diverges
ALIKE = (
    0.95  # of the mean LR until another one diverged, from where on a candidate is taken to diverge
)


@dataclass(frozen=True)
class Begun:
    """A training that has begun, of a candidate or of another policy."""

    policy: Policy
    level: float
    curve: Curve


class Scouts:
    """Estimates from the trainings so far which LRs the candidates tolerate.

    Args:
        policies: the candidates, bound to max_iter; ``levels``: theirs, shape (n,).
        measure: what they are compared by.
        random: decides among levels that are about as good.
    """

    def __init__(
        self,
        policies: Sequence[Policy],
        levels: np.ndarray,
        measure: Measure,
        random: np.random.Generator,
    ) -> None:
        self._policies = policies
        self._levels = levels
        self._measure = measure
        self._random = random
        # What ``hopeless`` has computed for each that diverged, by its policy and iterations.
        self._as_high: dict[tuple[str, int], np.ndarray] = {}

    def learned(self, curve: Curve, begun: Sequence[Begun]) -> bool:
        """Whether a training is above chance, or has no test yet.

        Args:
            begun: all trainings; it is compared with what they had after as many tests.
        """
        tests = len(curve.scores)
        if not curve.alive or not tests:
            return curve.alive
        if self._measure.known_chance:  # which spares looking at all others for each
            return self._measure.has_learned(curve.best)
        record = max((float(b.curve.scores[:tests].max(initial=0.0)) for b in begun), default=0.0)
        return self._measure.has_learned(curve.best, record)

    def limit(self, begun: Sequence[Begun]) -> float:
        """The lowest level that is too high though none above it is not; infinity for none.

        One that begins at its highest LR may diverge at a level that others tolerate, which rise to
        it.
        """
        borne = [b.level for b in begun if self.learned(b.curve, begun) and len(b.curve.scores)]
        highest = max(borne, default=-np.inf)
        return min((b.level for b in self._too_high(begun) if b.level > highest), default=np.inf)

    def hopeless(self, begun: Sequence[Begun]) -> np.ndarray:
        """Which candidates have LRs as high as one had until it diverged; booleans, shape (n,)."""
        hopeless = np.zeros(len(self._policies), dtype=bool)
        for one in self._too_high(begun):
            key = (str(one.policy), max(1, one.curve.trained))
            if key not in self._as_high:
                means = np.array([_mean_lr(policy, key[1]) for policy in self._policies])
                self._as_high[key] = means >= ALIKE * _mean_lr(one.policy, key[1])
            hopeless |= self._as_high[key]
        return hopeless

    def next(self, begun: Sequence[Begun], untried: np.ndarray) -> int | None:
        """A candidate to find the limit with, from the usual LR upwards until one diverges, else downwards
        until one does not; None when it is found, or where so little training teaches none of them.

        Args:
            untried: which candidates have not begun; booleans, shape (n,).
        """
        limit = self.limit(begun)
        tolerable = [b.level for b in begun if self.learned(b.curve, begun) and b.level < limit]
        if tolerable and np.isfinite(limit):
            return None
        fresh = np.flatnonzero(untried & ~self.hopeless(begun))
        if not tolerable and np.isinf(limit):
            if (~untried).sum() >= MOST:
                return None
            wanted = np.abs(self._levels[fresh] - np.log10(START))
        elif tolerable:
            fresh = fresh[self._levels[fresh] >= max(tolerable) + STRIDE]
            wanted = self._levels[fresh]
        else:
            fresh = fresh[self._levels[fresh] <= limit - STRIDE]
            wanted = -self._levels[fresh]
        if not len(fresh):
            return None
        return int(fresh[np.argmin(wanted + self._random.uniform(0, 0.1, len(fresh)))])

    def _too_high(self, begun: Sequence[Begun]) -> list[Begun]:
        """The trainings that diverged, or learned nothing though a lower level did."""
        levels = [b.level for b in begun if self.learned(b.curve, begun) and len(b.curve.scores)]
        least = min(
            levels, default=np.inf
        )  # what learns nothing below that is too low, not too high
        # One that failed says nothing about its LR: memory, a crash or a disk ended it.
        return [
            b
            for b in begun
            if b.curve.status == "diverged"
            or (b.curve.alive and not self.learned(b.curve, begun) and b.level > least)
        ]


def level(policy: Policy, max_iter: int) -> float:
    """log10 of the mean LR over the first fifth of a training."""
    rates = np.asarray(policy(np.arange(max(1, round(LEVEL * max_iter)))), dtype=np.float64)
    return float(np.log10(max(float(rates.mean()), 1e-12)))


def _mean_lr(policy: Policy, iterations: int) -> float:
    """The mean LR of the first iterations of a training."""
    return float(np.asarray(policy(np.arange(iterations)), dtype=np.float64).mean())
