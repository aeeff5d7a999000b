"""A training's progress in a notebook."""

from __future__ import annotations

import html
import time
from typing import Any

from lrbench_caffe.metrics import TOP1, Measurement
from lrbench_caffe.training.observer import Observer

REFRESH_SECONDS = 0.2


class NotebookProgress(Observer):
    """A progress bar with the latest LR, loss and Top-1; it vanishes when the training ends.

    Args:
        stop: the iteration that the training ends at.
    """

    def __init__(self, stop: int) -> None:
        self._stop = stop
        self._top1 = "-"
        self._drawn = 0.0
        self._handle: Any = None

    def __enter__(self) -> NotebookProgress:
        from IPython.display import HTML, display

        self._handle = display(HTML(self._bar(0, "starting")), display_id=True)
        return self

    def __exit__(self, *_: object) -> None:
        from IPython.display import HTML

        self._handle.update(HTML(""))

    def trained(self, iteration: int, lr: float, loss: float) -> None:
        if time.monotonic() - self._drawn >= REFRESH_SECONDS:
            self._draw(iteration, f"lr {lr:.3g}, loss {loss:.4f}, Top-1 {self._top1}")

    def tested(self, measurements: list[Measurement]) -> None:
        for measurement in measurements:
            if measurement.of_first_net and measurement.top1 is not None:
                self._top1 = TOP1.text(measurement.top1)

    def _draw(self, iteration: int, words: str) -> None:
        from IPython.display import HTML

        self._handle.update(HTML(self._bar(iteration, words)))
        self._drawn = time.monotonic()

    def _bar(self, iteration: int, words: str) -> str:
        return (
            f'<progress max="{self._stop}" value="{iteration}"></progress> '
            f"{iteration}/{self._stop} {html.escape(words)}"
        )
