"""Plateau triggers: "when the metric has not improved for n tests", and the watch that notices it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from . import parameters as par

TRIGGER_PARAMETERS = (par.N, par.METRIC, par.MIN_DELTA)


@dataclass(frozen=True)
class Trigger:
    """A decision that training makes: the metric has not improved for n tests in a row.

    Arguments:
        n: tests in a row without improvement, above 0.
        metric: "top1" (percent, higher is better) or "test_loss" (lower is better).
        min_delta: an improvement is a change by more than this, in the metric's unit.

    Raises:
        PolicyError: a value outside its range.

    >>> str(Trigger(n=3)), str(Trigger(n=5, metric="test_loss", min_delta=0.01))
    ('plateau(n=3)', 'plateau(n=5, metric=test_loss, min_delta=0.01)')

    The paper's section V-B (NSTEP) asks for it: lower the LR "when the test accuracy or loss fails
    to improve".
    """

    n: int
    metric: str = "top1"
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        given = {"n": self.n, "metric": self.metric, "min_delta": self.min_delta}
        for name, value in par.accept_all("plateau", TRIGGER_PARAMETERS, given).items():
            object.__setattr__(self, name, value)

    def __format__(self, spec: str) -> str:
        return f"plateau({par.print_arguments(TRIGGER_PARAMETERS, vars(self), spec)})"

    def __str__(self) -> str:
        return format(self)


class PlateauWatch:
    """Watches the metric of a trigger test by test; the one thing here that has state.

    A test improves if its value is better than the best one since the start by more than min_delta.
    The first test always improves; NaN never does. After it fires, the watch starts afresh: it
    forgets the best value. So its state depends on the tests since the last decision only, and a
    resumed run rebuilds it by repeating those.

    >>> watch = PlateauWatch(Trigger(n=2))
    >>> [watch.update(top1) for top1 in (90.0, 91.0, 91.0, 90.5, 90.0)]
    [False, False, False, True, False]
    """

    def __init__(self, trigger: Trigger) -> None:
        self.trigger = trigger
        self._best: float | None = None
        self._stale = 0

    def update(self, value: float) -> bool:
        """Takes the metric of one test; True when it is the n-th in a row without improvement."""
        if self._improves(value):
            self._best, self._stale = value, 0
            return False
        self._stale += 1
        if self._stale < self.trigger.n:
            return False
        self._best, self._stale = None, 0
        return True

    def _improves(self, value: float) -> bool:
        if math.isnan(value) or self._best is None:
            return not math.isnan(value)
        gain = self._best - value if self.trigger.metric == "test_loss" else value - self._best
        return gain > self.trigger.min_delta
