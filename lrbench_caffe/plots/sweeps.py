"""Accuracy over one parameter of a policy, and a training with its LR updates marked (Figures 3 to 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lrbench_caffe.metrics import Measurement
from lrbench_caffe.plots.files import OVER_ALL, plain, title_lines
from lrbench_caffe.plots.style import ACCURACY, TEST, TRAIN, ValueAxis, series

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Point(NamedTuple):
    """A value over a parameter.

    Attributes:
        x: the parameter.
        mean: Top-1 in percent, or what else is compared by.
        sd: its deviation over trainings, None for a single one.
    """

    x: float
    mean: float
    sd: float | None = None


def range_figure(
    curves: Mapping[str, Sequence[Point]],
    *,
    good: tuple[float, float],
    marks: Sequence[float],
    close_up: tuple[float, float],
    stated: Sequence[Point] = (),
    note: str = "",
    error: bool = False,
    values: ValueAxis = ValueAxis(),  # noqa: B008
) -> Figure:
    """Draw accuracy over a fixed LR, with the good part enlarged (Figure 3).

    Args:
        curves: Top-1 over k0, by the name of the curve, such as "10 epochs".
        good: the range of good LRs, marked in red.
        marks: other LRs to mark, in black.
        close_up: the LRs that the second picture shows.
        stated: values to compare with, drawn as squares.
        note: a line over it all.
        error: whether to draw the error, 100 - Top-1, of the good part, too, as the paper does.
        values: what is compared by.
    """
    from matplotlib.figure import Figure

    low, high = close_up
    panels = [
        ("(a) overall", values, _as_they_are),
        (
            "(b) accuracy, enlarged" if values.percent else "(b) enlarged",
            values,
            _within(low, high),
        ),
    ]
    if error:
        panels.append(("(c) error, enlarged", ValueAxis("error (%)"), _errors(low, high)))
    figure = Figure(figsize=(1 + 4 * len(panels), 4.4), layout="constrained")
    if note:
        figure.suptitle(title_lines(note, OVER_ALL), fontsize=10)
    overall, *enlarged = figure.subplots(1, len(panels))
    for axes, (title, name, points_of) in zip((overall, *enlarged), panels):
        for number, (label, points) in enumerate(curves.items()):
            _draw_points(axes, points_of(points), label, series(number))
        _draw_stated(axes, points_of(stated))
        _mark_range(axes, good, marks)
        _log_axis(axes)
        name.label(axes)
        axes.set_title(title, fontsize=10)
    for axes in enlarged:
        _enlarge(axes, low, high)
    handles, labels = overall.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=max(1, len(labels)), fontsize=8
    )
    return plain(figure)


def _log_axis(axes: Any) -> None:
    from matplotlib.ticker import NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("k0")
    axes.grid(alpha=0.3)


def _draw_stated(axes: Any, points: Sequence[Point]) -> None:
    if points:
        over = [p.x for p in points]
        means = [p.mean for p in points]
        axes.plot(over, means, "s", color="black", markersize=5, label="paper")


def _enlarge(axes: Any, low: float, high: float) -> None:
    """Show the LRs from ``low`` to ``high``."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator

    axes.set_xlim(0.94 * low, 1.06 * high)
    # Less than a decade or two: powers of ten alone would leave the axis without numbers.
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    # Side by side the numbers run into each other.
    axes.tick_params(axis="x", labelsize=8, labelrotation=45)


def _as_they_are(points: Sequence[Point]) -> list[Point]:
    return list(points)


def _within(low: float, high: float) -> Any:
    return lambda points: [p for p in points if low <= p.x <= high]


def _errors(low: float, high: float) -> Any:
    return lambda points: [p._replace(mean=100 - p.mean) for p in points if low <= p.x <= high]


def _mark_range(axes: Any, good: tuple[float, float], marks: Sequence[float]) -> None:
    axes.axvspan(*good, color=TEST, alpha=0.06)
    for x, colour in [*((x, "black") for x in marks), *((x, TEST) for x in good)]:
        axes.axvline(x, color=colour, linestyle="--", linewidth=0.8)


def _draw_points(axes: Any, points: Sequence[Point], label: str, look: dict[str, Any]) -> None:
    ordered = sorted(points)
    places = [p.x for p in ordered]
    means = [p.mean for p in ordered]
    deviations = [p.sd or 0.0 for p in ordered]
    axes.errorbar(
        places, means, yerr=deviations,
        marker=".", linewidth=1.2, elinewidth=0.8, label=label, **look,
    )  # fmt: skip


def steps_figure(
    points: Sequence[Point],
    *,
    marks: Sequence[float],
    paper: Sequence[Point] = (),
    note: str = "",
) -> Figure:
    """Draw accuracy over the step size l (Figure 4).

    Args:
        points: the highest Top-1 over l.
        marks: values of l to mark.
        paper: the paper's values, drawn as squares.
        note: a line over it.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    title = "\n".join(text for text in ("STEP: highest Top-1 over l", note) if text)
    axes.set_title(title_lines(title), fontsize=10)
    if points:
        _draw_points(axes, points, "measured", {"color": ACCURACY})
    if paper:
        axes.plot(
            [p.x for p in paper],
            [p.mean for p in paper],
            "s",
            color="black",
            markersize=4,
            label="paper",
        )
    for mark in marks:
        axes.axvline(mark, color="black", linestyle="--", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("l (iterations)")
    axes.set_ylabel("highest Top-1 (%)")
    axes.grid(alpha=0.3)
    if points or paper:
        axes.legend(fontsize=8, loc="lower right")
    return plain(figure)


def updates_figure(
    title: str, measurements: Sequence[Measurement], updates: Sequence[int]
) -> Figure:
    """Draw accuracy and losses of one training over iterations, with the LR updates marked (Figure 5).

    Args:
        measurements: the tests of one net, by iteration.
        updates: iterations at which the LR changes.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.6), layout="constrained")
    accuracy = figure.subplots()
    loss = accuracy.twinx()
    accuracy.set_title(title_lines(title), fontsize=10)
    for axes, name, label, colour in (
        (accuracy, "top1", "Top-1", ACCURACY),
        (loss, "test_loss", "test loss", TEST),
        (loss, "train_loss", "training loss", TRAIN),
    ):
        known = [
            (m.iteration, value) for m in measurements if (value := getattr(m, name)) is not None
        ]
        if known:
            axes.plot(*np.array(known).T, color=colour, linewidth=1, label=label)
    for update in updates:
        accuracy.axvline(update, color="black", linestyle="--", linewidth=0.8)
    accuracy.set_xlabel("iteration")
    accuracy.set_ylabel("Top-1 (%)", color=ACCURACY)
    loss.set_ylabel("loss", color=TEST)
    accuracy.grid(alpha=0.3)
    handles = [*accuracy.get_legend_handles_labels()[0], *loss.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8)
    return plain(figure)
