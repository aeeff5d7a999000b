"""The observers of a training: progress display, the LR database's recorder, a tuner."""

from __future__ import annotations

from collections.abc import Sequence

from lrbench_caffe.metrics import Measurement
from lrbench_caffe.runtime.replies import Opened


class Observer:
    """Is told what happens. Subclasses override what concerns them.

    The training waits for it, so it must be quick, and it must not raise.
    """

    def opened(self, opened: Opened) -> None:
        """Caffe has loaded the solver."""

    def begin(self, iteration: int) -> None:
        """The first update of this session is that of ``iteration``."""

    def replaying(self, done: int, total: int) -> None:
        """The positions in a resumed run's data are being restored."""

    def trained(self, iteration: int, lr: float, loss: float) -> None:
        """Updates up to ``iteration`` are done; ``lr`` and ``loss`` are the last one's."""

    def tested(self, measurements: list[Measurement]) -> None:
        """A test was done."""

    def note(self, text: str) -> None:
        """Something a person should know."""

    def ended(self, status: str, reason: str | None) -> None:
        """The session ended: one of records.STATUSES, with a reason unless it finished."""


class Audience(Observer):
    """Several observers as one."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def opened(self, opened: Opened) -> None:
        for observer in self._observers:
            observer.opened(opened)

    def begin(self, iteration: int) -> None:
        for observer in self._observers:
            observer.begin(iteration)

    def replaying(self, done: int, total: int) -> None:
        for observer in self._observers:
            observer.replaying(done, total)

    def trained(self, iteration: int, lr: float, loss: float) -> None:
        for observer in self._observers:
            observer.trained(iteration, lr, loss)

    def tested(self, measurements: list[Measurement]) -> None:
        for observer in self._observers:
            observer.tested(measurements)

    def note(self, text: str) -> None:
        for observer in self._observers:
            observer.note(text)

    def ended(self, status: str, reason: str | None) -> None:
        for observer in self._observers:
            observer.ended(status, reason)
