"""Pictures of range tests and tunings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lrbench_caffe.plots.files import plain, title_lines
from lrbench_caffe.plots.style import ACCURACY, TEST, TRAIN, ValueAxis, series

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Line = tuple[np.ndarray, np.ndarray]  # x and y, of one length


def ramp_figure(
    title: str, passes: Sequence[Line], mean: Line, good: tuple[float, float]
) -> Figure:
    """Draw the loss over an LR that rises, with the range that was read off it.

    Args:
        passes: LRs and losses of each pass.
        mean: LRs and losses that the range was read off.
        good: lowest and highest good LR.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes: Any = figure.subplots()
    for number, (lrs, losses) in enumerate(passes):
        label = None if number else "each pass"
        axes.plot(lrs, losses, color=TRAIN, linewidth=0.5, alpha=0.6, label=label)
    axes.plot(*mean, color=ACCURACY, label="mean of passes, smoothed")
    axes.axvspan(*good, color=TEST, alpha=0.12, label=f"good: {good[0]:g} to {good[1]:g}")
    axes.set_xscale("log")
    begin, bottom = float(mean[1][0]), float(mean[1].min())
    axes.set_ylim(bottom - 0.1 * abs(begin - bottom), begin + 0.5 * abs(begin - bottom))
    axes.set_title(title_lines(title), fontsize=10)
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return plain(figure)


def tuning_figure(
    title: str,
    named: Mapping[str, Sequence[Line]],
    others: Sequence[Line],
    values: ValueAxis = ValueAxis(),  # noqa: B008
) -> Figure:
    """Draw Top-1, or what else is compared by, of every training over its iterations.

    Args:
        named: the trainings of the policies to tell apart, by the policy's text.
        others: the other trainings, in grey.
        values: what is compared by.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    axes: Any = figure.subplots()
    for line in others:
        axes.plot(*line, color=TRAIN, linewidth=0.7, alpha=0.5, zorder=1)
    shown = []
    for place, (name, lines) in enumerate(named.items()):
        for number, (iterations, measured) in enumerate(lines):
            label = None if number else name
            axes.plot(
                iterations,
                measured,
                marker=".",
                linewidth=1.3,
                label=label,
                zorder=3,
                **series(place),
            )
            shown.append(list(measured[len(measured) // 4 :]))
    values.label(axes)
    # The best of the others is to be seen, too; how bad they are is not of interest.
    top = max if values.higher else min
    tops = [float(top(measured)) for _, measured in others if len(measured)]
    best = [top(value for curve in shown for value in curve)] if any(shown) else []
    shown += [[top(tops)]] if tops and best and top(tops + best) != best[0] else []
    limits = values.limits(shown)
    if limits:
        axes.set_ylim(*limits)
    axes.set_xlabel("iteration")
    axes.set_title(title_lines(title), fontsize=10)
    axes.grid(alpha=0.3)
    figure.legend(fontsize=8, loc="outside lower center")
    return plain(figure)
