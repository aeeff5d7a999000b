"""The schedule monitor: the LR of every iteration, and when tests and snapshots are due.

It holds no clock and does no work: the trainer owns the iteration and asks. Given the same policy
and the same measurements it says the same, so a resumed run repeats what the first one decided.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from lrbench_caffe.lr import PlateauWatch, Policy
from lrbench_caffe.metrics import Measurement

LONGEST_STRETCH = 100_000  # iterations; their learning rates are in memory


@dataclass(frozen=True)
class Stretch:
    """Iterations that run without interruption.

    Attributes:
        start: the first iteration.
        stop: the one after the last.
        lrs: their learning rates, shape (stop - start,), float64.
    """

    start: int
    stop: int
    lrs: np.ndarray


@dataclass(frozen=True)
class Decision:
    """A plateau was found: from ``iteration`` on the policy is ``policy``."""

    iteration: int
    metric: str
    policy: str


class ScheduleMonitor:
    """Plans a training.

    Args:
        policy: the LR policy, bound to max_iter.
        max_iter: the iteration at which the training ends.
        until: the iteration at which this session of it ends, None for max_iter.
        branch_points: iterations after which other runs may branch from this one.
        test_interval: iterations between tests, 0 for none.
        snapshot_interval: iterations between snapshots, 0 for none.
        test_initialization: whether there is a test before the first update.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        max_iter: int,
        test_interval: int,
        snapshot_interval: int = 0,
        test_initialization: bool = True,
        until: int | None = None,
        branch_points: Collection[int] = (),
    ) -> None:
        self.policy = policy
        self.max_iter = max_iter
        self.until = max_iter if until is None else min(until, max_iter)
        self.pauses = until is not None  # this session is a part of the run
        self.test_interval = test_interval
        self.snapshot_interval = snapshot_interval
        self.test_initialization = test_initialization
        self.branch_points = frozenset(branch_points)
        self._watch = self._new_watch()

    def lr(self, iteration: int) -> float:
        """The learning rate of the update at ``iteration``; past the end, where there is none, the end's."""
        return float(self.policy(min(iteration, self.max_iter)))

    def test_due(self, iteration: int) -> bool:
        """As in Caffe, every test_interval iterations; and at the end, so that the result is known."""
        if not self.test_interval:
            return False
        return iteration >= self.max_iter or self._test_interval_ends(iteration)

    def _test_interval_ends(self, iteration: int) -> bool:
        return iteration % self.test_interval == 0 and (iteration > 0 or self.test_initialization)

    def tests_before(self, iteration: int) -> list[int]:
        """The iterations of the tests before that of ``iteration``, in a training that got that far."""
        if not self.test_interval:
            return []
        return [t for t in range(0, iteration, self.test_interval) if self._test_interval_ends(t)]

    def snapshot_due(self, iteration: int) -> bool:
        return (
            bool(self.snapshot_interval)
            and iteration > 0
            and iteration % self.snapshot_interval == 0
        )

    def next_stretch(self, iteration: int) -> Stretch:
        """The iterations from ``iteration`` to the next test, snapshot or end, but not too many at once."""
        later = (point for point in self.branch_points if point > iteration)
        stop = min(self.until, iteration + LONGEST_STRETCH, *later)
        for interval in (self.test_interval, self.snapshot_interval):
            if interval:
                stop = min(stop, (iteration // interval + 1) * interval)
        return Stretch(
            iteration, stop, np.asarray(self.policy(np.arange(iteration, stop)), dtype=np.float64)
        )

    def observe(self, measurement: Measurement) -> Decision | None:
        """Look at a test's result; if it completes a plateau, the policy enters its next segment."""
        trigger = self.policy.pending
        if trigger is None or self._watch is None or not measurement.of_first_net:
            return None
        if measurement.iteration <= self.policy.pending_since:
            return None
        value = getattr(measurement, trigger.metric)
        # An infinite loss is written as null, like NaN: a resumed run must decide the same of both.
        if not self._watch.update(
            value if value is not None and math.isfinite(value) else math.nan
        ):
            return None
        self.policy = self.policy.decide(measurement.iteration)
        self._watch = self._new_watch()
        return Decision(measurement.iteration, trigger.metric, str(self.policy))

    def _new_watch(self) -> PlateauWatch | None:
        return PlateauWatch(self.policy.pending) if self.policy.pending else None
