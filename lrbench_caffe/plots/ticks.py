"""The labels of a logarithmic axis."""

from __future__ import annotations

from matplotlib.ticker import LogFormatter


class PlainLogFormatter(LogFormatter):
    """Labels as 0.95 rather than as powers of ten, at the ticks where matplotlib's own has any.

    It is a formatter itself, as only that is told all ticks of its axis, by which it decides.
    """

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""
