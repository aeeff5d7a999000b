"""What an optimiser has spent on the recorded curves, and what it has found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .curves import Curve


class Ledger:
    """Trains by replay: keeps the cost in iterations, and the best Top-1 over the cost.

    A training continues from where it was: only new iterations cost something. The test before the
    first iteration is free. A training that diverges costs what it took until then, and ends there.

    Attributes:
        curves: of the policies, all of each; only an oracle may look at them.
        cost: iterations trained so far, over all policies.
        best: the highest Top-1 that any test of what was trained has shown.
        trace: (cost, best) at the start and whenever `best` rose.
    """

    def __init__(self, curves: Sequence[Curve]) -> None:
        self.curves = curves
        self._trained = [0] * len(curves)
        self.cost = 0
        self.best = 0.0
        self.trace: list[tuple[int, float]] = [(0, 0.0)]
        self._goal = max(curve.best for curve in curves)

    @property
    def full_cost(self) -> int:
        """Iterations that training every policy in full takes."""
        return sum(curve.end for curve in self.curves)

    @property
    def over(self) -> bool:
        """True when nothing more can be found."""
        return self.best >= self._goal or self.cost >= self.full_cost

    def knows(self, index: int) -> bool:
        """Whether this policy was trained before, be it in part."""
        return self._trained[index] > 0

    def train(self, index: int, until: int) -> Curve:
        """Train a policy up to this iteration, or until it diverges; returns its curve so far."""
        curve, before = self.curves[index], self._trained[index]
        after = max(before, min(until, curve.end))
        for iteration, top1 in zip(curve.iterations, curve.top1):
            if before <= iteration <= after and np.isfinite(top1) and top1 > self.best:
                self.best = float(top1)
                self.trace.append((self.cost + int(iteration) - before, self.best))
        self.cost += after - before
        self._trained[index] = after
        return curve.up_to(after)
