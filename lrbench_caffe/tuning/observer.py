"""Who is told what a study does, for people to see."""

from __future__ import annotations

from lrbench_caffe.jobs import Job, JobResult
from lrbench_caffe.tuning.measure import Measure


class TuningObserver:
    """Is told what a study does. This one ignores it."""

    def compares(self, measure: Measure) -> None:
        """What policies are compared by; before all else."""

    def begun(self, training: Job, scale: float = 1.0) -> None:
        """A training begins, now or as soon as there is room.

        Args:
            scale: see ``Study``.
        """

    def waiting(self, iterations: int) -> None:
        """Nothing has ended for half a second; so many iterations were trained in all that has."""

    def ended(self, result: JobResult, iterations: int) -> None:
        """A training has ended."""

    def expect(self, iterations: int) -> None:
        """So many iterations will be trained in all, as far as can be said now."""

    def warn(self, text: str) -> None:
        """A remark about the LR database that a person should know."""

    def say(self, text: str) -> None:
        """A remark that a person should know."""
