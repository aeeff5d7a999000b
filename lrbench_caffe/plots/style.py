"""The common style of all plots: colours, and how many points a line has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

ACCURACY, TEST, TRAIN, LR = "#2a6f97", "#c1121f", "#8d99ae", "#386641"
# For lines that must be distinguishable; Okabe and Ito's palette, also for colour-blind people.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
DASHES = ("-", "--", ":", "-.")  # the colours begin again with the next one
MAX_POINTS = 4000  # more cannot be distinguished on a page


def series(number: int) -> dict[str, Any]:
    """Colour and dashes of line ``number``, from 0."""
    return {
        "color": SERIES[number % len(SERIES)],
        "linestyle": DASHES[number // len(SERIES) % len(DASHES)],
    }


def thin(t: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most about ``MAX_POINTS`` of the points of a line: the lowest and the highest of each stretch.

    Those at equal distances could all be at the same place of a cycle.
    """
    if len(t) <= MAX_POINTS:
        return t, values
    length = -(-len(t) // (MAX_POINTS // 2))
    usable = len(t) // length * length
    begins, rows = np.arange(0, usable, length), values[:usable].reshape(-1, length)
    shown = np.unique([*(begins + rows.argmin(1)), *(begins + rows.argmax(1)), len(t) - 1])
    return t[shown], values[shown]


def stretch(iterations: int) -> int:
    """The number of iterations in a mean of the training loss: a 200th of the whole."""
    return max(1, iterations // 200)


def smooth(t: np.ndarray, losses: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Training losses as means over stretches of ``length`` iterations: the middles and the means."""
    usable = len(t) // length * length
    return t[:usable:length] + (length - 1) / 2, losses[:usable].reshape(-1, length).mean(axis=1)


def needs_log(losses: np.ndarray) -> bool:
    """Whether only a log axis shows all losses, as of a training that diverged.

    Of one that diverged soon, most losses are huge, but not the first.
    """
    positive = losses[np.isfinite(losses) & (losses > 0)]
    return bool(len(positive) and positive.max() > 20 * min(np.median(positive), positive[0]))


def accuracy_limits(curves: list[list[float]]) -> tuple[float, float] | None:
    """The range of an accuracy axis: the differences are at the top, the untrained net is not of interest."""
    shown = [value for curve in curves for value in (curve[1:] or curve)]
    if not shown:
        return None
    low, high = min(shown), max(value for curve in curves for value in curve)
    margin = max(0.08 * (high - low), 0.05)
    return low - margin, high + margin


def _plain_log_formatter() -> Any:
    """Labels as 0.95 rather than as powers of ten, at the ticks where matplotlib's own has any.

    It is a formatter itself, as only that is told all ticks of its axis, by which it decides.
    """
    from matplotlib.ticker import LogFormatter

    class PlainLogFormatter(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    return PlainLogFormatter()


@dataclass(frozen=True)
class ValueAxis:
    """An axis of what trainings are compared by.

    Attributes:
        heading: its name with the unit.
        percent: whether the values are in percent.
        log: whether it is logarithmic, as for a loss.
        higher: whether more of it is better.
    """

    heading: str = "Top-1 (%)"
    percent: bool = True
    log: bool = False
    higher: bool = True

    def label(self, axes: Any) -> None:
        """Name the vertical axis."""
        axes.set_ylabel(self.heading)
        if self.log:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(_plain_log_formatter())
            axes.yaxis.set_minor_formatter(_plain_log_formatter())

    def limits(self, curves: list[list[float]]) -> tuple[float, float] | None:
        """The ends of the axis, None where the picture may choose them."""
        if self.percent:
            return accuracy_limits(curves)
        values = np.array([v for curve in curves for v in curve if not self.log or v > 0])
        if not len(values) or values.min() == values.max():
            return None
        if self.log:
            factor = (values.max() / values.min()) ** 0.08
            return float(values.min() / factor), float(values.max() * factor)
        margin = 0.08 * (values.max() - values.min())
        return float(values.min() - margin), float(values.max() + margin)
