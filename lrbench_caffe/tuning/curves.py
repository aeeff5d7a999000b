"""The search's view of a training: its tests so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lrbench_caffe.metrics import Measurement
from lrbench_caffe.records import UNSUCCESSFUL


@dataclass(frozen=True)
class Curve:
    """The tests of one training so far, the one before the first update left out.

    Attributes:
        iterations: of the tests, rising, shape (n,).
        top1: in percent. test_loss, train_loss: the latter the mean since the previous test; NaN
            where not measured. All of shape (n,).
        trained: iterations that were trained; beyond the last test where it diverged.
        status: one of records.STATUSES.
    """

    iterations: np.ndarray
    top1: np.ndarray
    test_loss: np.ndarray
    train_loss: np.ndarray
    trained: int
    status: str

    @classmethod
    def of(cls, measurements: Sequence[Measurement], trained: int, status: str) -> Curve:
        """From a run's measurements of one test net."""
        tests = [m for m in measurements if m.iteration > 0 and m.top1 is not None]

        def column(name: str) -> np.ndarray:
            values = [getattr(m, name) for m in tests]
            return np.array([np.nan if v is None else v for v in values], dtype=np.float64)

        iterations = np.array([m.iteration for m in tests], dtype=np.int64)
        return cls(
            iterations, column("top1"), column("test_loss"), column("train_loss"), trained, status
        )

    @property
    def alive(self) -> bool:
        """Whether it can continue: neither diverged nor failed."""
        return self.status not in UNSUCCESSFUL

    @property
    def best(self) -> float:
        """The highest Top-1 so far, 0 without a test."""
        return float(self.top1.max()) if len(self.top1) else 0.0

    def reaches(self, top1: float) -> int | None:
        """The first test with at least this Top-1, None if none has."""
        there = np.flatnonzero(self.top1 >= top1)
        return int(self.iterations[there[0]]) if len(there) else None
