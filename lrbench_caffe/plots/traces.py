"""The picture of a chart that the browser draws: its lines, points and axes."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lrbench_caffe.plots.files import plain, tick_label, title_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Values = Mapping[str, Any]


def traces_figure(title: str, traces: Sequence[Values], layout: Values) -> Figure:
    """Draw a chart of one panel, given as the chart library of the pages takes it.

    Args:
        traces: lines and points, each with x and y; their texts are HTML.
        layout: the axes, bands along the vertical axis ("shapes"), and texts ("annotations").
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.2), layout="constrained")
    axes: Any = figure.subplots()
    for trace in traces:
        _draw(axes, trace)
    for band in layout.get("shapes", ()):
        axes.axvspan(band["x0"], band["x1"], color=band["line"]["color"], alpha=0.12)
    for note in layout.get("annotations", ()):
        axes.text(note["x"], note["y"], note["text"], ha="center", va="center", fontsize=8)
    _axis(axes.xaxis, axes.set_xscale, axes.set_xlim, layout["xaxis"])
    _axis(axes.yaxis, axes.set_yscale, axes.set_ylim, layout["yaxis"])
    axes.set_title(title_lines(title), fontsize=10)
    axes.grid(alpha=0.3)
    if layout.get("showlegend", True):
        figure.legend(fontsize=8, loc="outside lower center", ncols=2)
    return plain(figure)


def _draw(axes: Any, trace: Values) -> None:
    line, marker = trace.get("line", {}), trace.get("marker", {})
    lines = "lines" in trace["mode"]
    known = trace.get("showlegend", True) and "name" in trace
    y = [np.nan if value is None else value for value in trace["y"]]
    axes.plot(
        trace["x"],
        y,
        color=line.get("color", marker.get("color")),
        linewidth=line.get("width", 1.3),
        linestyle="-" if lines else "none",
        drawstyle="steps-post" if line.get("shape") == "hv" else "default",
        marker="." if "markers" in trace["mode"] else None,
        label=html.unescape(trace["name"]) if known else None,
    )


def _axis(axis: Any, set_scale: Any, set_limits: Any, given: Values) -> None:
    if given.get("type") == "log":
        set_scale("log")
    if "range" in given:
        set_limits(*given["range"])
    axis.set_label_text(html.unescape(given.get("title", "")))
    if "tickvals" in given:
        axis.set_ticks(given["tickvals"], [tick_label(html.unescape(t)) for t in given["ticktext"]])
    elif not given.get("showticklabels", True):
        axis.set_ticklabels([])
