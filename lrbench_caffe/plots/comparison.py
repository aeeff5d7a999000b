"""The paper's results beside ours: Top-1 and its cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lrbench_caffe.plots.files import OVER_ALL, plain, tick_label, title_lines
from lrbench_caffe.plots.style import ACCURACY, TEST
from lrbench_caffe.records import Spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

APART = 0.16  # of a line, from its middle: the paper's above, ours below


class Pair(NamedTuple):
    """A policy's results; None for what is not known."""

    name: str
    paper_top1: Spread | None
    our_top1: Spread | None
    paper_cost: Spread | None
    our_cost: Spread | None


def comparison_figure(title: str, pairs: Sequence[Pair]) -> Figure:
    """Draw Top-1 and #Iterations of each policy, the paper's and ours, with their deviations.

    Args:
        pairs: the policies, the first at the top.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(11, 1.8 + 0.36 * len(pairs)), layout="constrained")
    figure.suptitle(title_lines(title, OVER_ALL), fontsize=10)
    accuracy, cost = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
    for y, pair in enumerate(pairs):
        _draw(accuracy, pair.paper_top1, y - APART, "s", TEST)
        _draw(accuracy, pair.our_top1, y + APART, "o", ACCURACY)
        _draw(cost, pair.paper_cost, y - APART, "s", TEST)
        _draw(cost, pair.our_cost, y + APART, "o", ACCURACY)
    accuracy.set_yticks(range(len(pairs)), [tick_label(pair.name) for pair in pairs])
    accuracy.set_ylim(len(pairs) - 0.5, -0.5)
    accuracy.tick_params(axis="y", labelsize=7, length=0)
    accuracy.set_xlabel("Top-1 (%), mean ± deviation")
    cost.tick_params(axis="y", length=0)
    cost.set_xlabel("#Iterations at the highest Top-1")
    for axes in (accuracy, cost):
        axes.grid(axis="x", alpha=0.3)
        for y in range(1, len(pairs)):
            axes.axhline(y - 0.5, color="black", linewidth=0.3, alpha=0.3)
    marks = []
    if any(pair.paper_top1 or pair.paper_cost for pair in pairs):
        marks.append(Line2D([], [], marker="s", linestyle="", color=TEST, label="paper"))
    if any(pair.our_top1 or pair.our_cost for pair in pairs):
        marks.append(Line2D([], [], marker="o", linestyle="", color=ACCURACY, label="ours"))
    if marks:
        figure.legend(handles=marks, loc="outside lower center", ncols=2, fontsize=8)
    return plain(figure)


def _draw(axes: Any, spread: Spread | None, y: float, marker: str, colour: str) -> None:
    if spread is not None:
        axes.errorbar(
            [spread.mean], [y], xerr=[spread.sd or 0.0], fmt=marker, color=colour, markersize=4,
            elinewidth=1, capsize=2 if spread.sd else 0,
        )  # fmt: skip
