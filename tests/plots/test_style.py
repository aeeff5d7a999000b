"""The common style of the pictures: axes and lines."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from lrbench_caffe.lr import parse
from lrbench_caffe.plots.schedules import schedule_figure
from lrbench_caffe.plots.style import ValueAxis, needs_log, smooth, thin
from lrbench_caffe.plots.training import RunCurves, runs_figure


def labels(low: float, high: float) -> list[str]:
    """The labels of a logarithmic axis that are seen, from below."""
    figure = Figure()
    axes = figure.subplots()
    axes.plot([0, 1], [low, high])
    ValueAxis("loss", percent=False, log=True, higher=False).label(axes)
    axes.set_ylim(low, high)
    ticks = [*axes.yaxis.get_major_ticks(), *axes.yaxis.get_minor_ticks()]
    figure.draw_without_rendering()
    seen = [tick for tick in ticks if low <= tick.get_loc() <= high and tick.label1.get_text()]
    return [tick.label1.get_text() for tick in sorted(seen, key=lambda tick: tick.get_loc())]


def test_a_log_axis_over_decades_has_a_label_at_each_and_a_short_one_between_them():
    assert labels(0.003, 20) == ["0.01", "0.1", "1", "10"]
    assert {"0.4", "0.5", "0.6"} <= set(labels(0.3, 0.7))  # an axis without a decade


@pytest.mark.parametrize(
    ("losses", "log"),
    [
        ([13.8, 1.1e8, math.inf], True),
        ([2.3, 38.0, 82.0, 80.0, math.nan], True),
        ([2.3, 2.0, 1.5, 1.0, 0.9], False),
        ([0.9, 2.3, 2.0, 15.0, 1.5], False),
        ([2.3] * 9 + [50.0], True),
        ([math.nan], False),
    ],
)
def test_a_training_that_diverged_soon_needs_a_log_axis_too(losses, log):
    assert needs_log(np.array(losses)) == log


def test_few_points_of_a_line_are_the_ends_of_its_stretches():
    t = np.arange(20_000)
    lrs = np.where(t % 5 == 3, 0.06, 0.01)  # no fifth iteration from the first has the highest LR
    at, shown = thin(t, lrs)
    # 2,000 stretches of 10 iterations, and the last one.
    assert len(at) == 4001 and at[-1] == 19_999
    assert (shown == 0.06).sum() == 2000 and (lrs[at] == shown).all()
    assert [len(line) for line in thin(t[:4000], lrs[:4000])] == [4000, 4000]


@pytest.mark.parametrize(
    ("length", "middles"), [(1, [10, 11, 12, 13]), (2, [10.5, 12.5]), (3, [11])]
)
def test_the_mean_of_a_stretch_is_at_its_middle(length, middles):
    t = np.arange(10, 14)
    at, means = smooth(t, 2.0 * t, length)
    assert at.tolist() == middles
    assert means.tolist() == [2.0 * middle for middle in middles]  # of a straight line


def test_a_single_point_is_seen():
    (axes,) = schedule_figure([parse("FIX(k0=0.01)")], 1).axes
    assert [line.get_marker() for line in axes.lines] == ["."]
    (axes,) = schedule_figure([parse("FIX(k0=0.01)")], 2).axes
    assert [line.get_marker() for line in axes.lines] == ["None"]
    run = RunCurves("a", np.array([(0, 0.01, 2.0)]), [])
    _, loss, lr = runs_figure("a", [run]).axes
    assert [line.get_marker() for line in (*loss.lines, *lr.lines) if len(line.get_xdata())] == [
        ".", "."
    ]  # fmt: skip
