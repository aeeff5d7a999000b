"""The iterations by which a schedule is drawn."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lrbench_caffe.lr import parse
from lrbench_caffe.plots.schedules import schedule_figure, shown_iterations, spread_out
from lrbench_caffe.web.charts import policies_chart

# A cycle has 70 or 14 iterations, from its bottom to its bottom; those of SIN2 become lower.
TRI, SIN = parse("TRI(k0=0.01, k1=0.06, l=35)"), parse("SIN(k0=0.01, k1=0.06, l=7)")
SIN2 = parse("SIN2(k0=0.01, k1=0.06, l=7)")
LONGEST = 2**31 - 1


@pytest.mark.parametrize(
    ("policy", "max_iter"),
    [(TRI, 70_000), (SIN, 70_000), (SIN, 3_000_000), (TRI, LONGEST)],
)
def test_each_stretch_of_a_cyclic_policy_shows_its_bottom_and_its_top(policy, max_iter):
    t = shown_iterations(policy, max_iter, 1000)
    lrs = policy(t)
    assert len(t) <= 1002 and (t[0], t[-1]) == (0, max_iter - 1) and (np.diff(t) > 0).all()
    # 500 stretches: each has one of both.
    assert (lrs == 0.01).sum() >= 499 and (lrs == 0.06).sum() >= 499


def test_a_short_schedule_is_drawn_as_it_is_and_a_falling_one_by_the_ends_of_its_stretches():
    assert shown_iterations(TRI, 1000, 1000).tolist() == list(range(1000))
    # Five stretches of 4 iterations.
    falling = shown_iterations(parse("EXP(k0=0.1, gamma=0.9)"), 20, 10)
    assert falling.tolist() == [0, 3, 4, 7, 8, 11, 12, 15, 16, 19]


def test_the_lowest_lr_of_a_log_axis_is_not_0():
    policy = parse("TRI(k0=0, k1=0.06, l=5)", strict=False)
    t = shown_iterations(policy, 10_000, 100, log=True)
    assert (policy(t[1:]) > 0).all() and policy(t).max() == 0.06
    assert policy(shown_iterations(policy, 10_000, 100)).min() == 0


def test_pages_and_pictures_show_both_ends_of_a_cycle():
    (trace,) = json.loads(policies_chart([TRI], 70_000))["traces"]
    assert (min(trace["y"]), max(trace["y"])) == (0.01, 0.06)
    assert trace["x"][-1] == 69_999
    (line,) = schedule_figure([SIN2], 3_000_000).axes[0].lines
    assert (line.get_ydata().min(), line.get_ydata().max()) == (0.01, 0.06)


def test_iterations_are_spread_out_over_every_cycle():
    t = spread_out(1_000_000, 1000)
    assert t[0] == 0 and len(t) == 1000 and t[-1] > 998_000
    for cycle in (
        1000,
        2000,
        500,
        70,
    ):  # none falls on few places of a cycle, as every 1,000th would
        assert len(np.unique(t % cycle * 10 // cycle)) == 10


@pytest.mark.parametrize("number", [1, 30])
def test_the_legend_of_long_policies_fits_below_the_drawing(number):
    steps = list(range(1000, 3000, 50))
    policies = [parse(f"NSTEP(k0={n}, gamma=0.5, l={steps})") for n in range(1, number + 1)]
    figure = schedule_figure(policies, 4000)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box, (drawing,) = legend.get_window_extent(), figure.axes
    assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y0 >= figure.bbox.y0
    assert drawing.get_window_extent().height > 0.2 * figure.dpi * 8
    texts = [text.get_text().replace("\n", " ") for text in legend.get_texts()]
    assert texts == [f"{policy:.6g}" for policy in policies]
