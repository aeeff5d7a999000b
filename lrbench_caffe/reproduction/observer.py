"""Who watches a reproduction: the terminal, or nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from lrbench_caffe.jobs import JobResult
from lrbench_caffe.reproduction.missing import Item
from lrbench_caffe.tabular import Rows


class TrainingsObserver:
    """Is told how the trainings go; what does not concern it, it leaves as it is here."""

    def look(self) -> None:
        """Half a second has passed, or a training has ended."""

    def ended(self, result: JobResult) -> None:
        """A training has ended, as it should or not."""

    def say(self, text: str) -> None:
        """Something a person should know."""


class ReproductionObserver:
    """Is told what a reproduction does; for people, or for nobody, as here."""

    def say(self, text: str) -> None:
        """Something a person should know."""

    def warn(self, text: str) -> None:
        """Something about the LR database that a person should know."""

    def table(self, rows: Rows, title: str, left: int) -> None:
        """A result.

        Args:
            rows: the first one is the heading.
            left: how many of the first columns are text.
        """

    def training(
        self, items: Sequence[Item], paces: Mapping[str, float], slots: int
    ) -> AbstractContextManager[TrainingsObserver]:
        """Who watches the trainings; entered before the first and left after the last one.

        Args:
            items: all that is to be trained.
            paces: seconds that an iteration takes, by the setup's key; empty where that is not known.
            slots: how many are trained at a time.
        """
        return nullcontext(TrainingsObserver())
