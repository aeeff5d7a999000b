"""What is due when, which LR every iteration gets, and the decisions on a plateau."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrbench_caffe.lr import parse
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.training.monitor import ScheduleMonitor


def monitor(
    policy: str = "FIX(k0=0.1)", max_iter: int = 10, test: int = 4, **options
) -> ScheduleMonitor:
    return ScheduleMonitor(
        parse(policy).bind(max_iter), max_iter=max_iter, test_interval=test, **options
    )


def stretches(plan: ScheduleMonitor, start: int = 0) -> list[tuple[int, int]]:
    found = []
    while start < plan.max_iter:
        stretch = plan.next_stretch(start)
        found.append((stretch.start, stretch.stop))
        start = stretch.stop
    return found


def due(asked, stop: int) -> list[int]:
    return [t for t in range(stop + 1) if asked(t)]


def test_by_hand():
    plan = monitor(max_iter=10, test=4, snapshot_interval=3)
    assert due(plan.test_due, 10) == [0, 4, 8, 10]  # 10 is the end
    assert due(plan.snapshot_due, 10) == [3, 6, 9]
    assert stretches(plan) == [(0, 3), (3, 4), (4, 6), (6, 8), (8, 9), (9, 10)]
    assert stretches(plan, 5) == [(5, 6), (6, 8), (8, 9), (9, 10)]


def test_a_start_past_the_end():
    """A snapshot of iteration 13 was tested at the intervals' ends, and is tested once more."""
    plan = monitor("POLY(k0=0.1, k1=0, p=0.5)", max_iter=10, test=4)
    assert plan.tests_before(13) == [0, 4, 8, 12]
    assert plan.test_due(13)
    assert plan.lr(13) == plan.lr(10)


def test_without_a_test_before_the_first_update():
    plan = monitor(test_initialization=False)
    assert due(plan.test_due, 10) == [4, 8, 10]
    assert stretches(plan) == [(0, 4), (4, 8), (8, 10)]


def test_without_tests_and_snapshots():
    plan = monitor(test=0)
    assert due(plan.test_due, 10) == due(plan.snapshot_due, 10) == []
    assert stretches(plan) == [(0, 10)]


def test_intervals_longer_than_the_training():
    plan = monitor(test=100, snapshot_interval=1000)
    assert due(plan.test_due, 10) == [0, 10]
    assert stretches(plan) == [(0, 10)]


def test_learning_rates_by_hand():
    # STEP: 0.4, halved every 3 iterations.
    plan = monitor("STEP(k0=0.4, gamma=0.5, l=3)", max_iter=8, test=5)
    first, second = plan.next_stretch(0), plan.next_stretch(5)
    assert first.lrs == pytest.approx([0.4, 0.4, 0.4, 0.2, 0.2])
    assert second.lrs == pytest.approx([0.2, 0.1, 0.1])
    assert first.lrs.dtype == np.float64
    assert plan.lr(6) == pytest.approx(0.1)


intervals = st.integers(0, 70)


@given(
    max_iter=st.integers(1, 200),
    test=intervals,
    snapshot=intervals,
    first=st.booleans(),
    policy=st.sampled_from(
        [
            "SIN2(k0=0.01, k1=0.06, l=20)",
            "POLY(k0=0.1, p=1.2)",
            "FIX(k0=1); 30: EXP(k0=2, gamma=0.9)",
        ]
    ),
    data=st.data(),
)
def test_stretches_cover_every_iteration_once_and_stop_where_something_is_due(
    max_iter, test, snapshot, first, policy, data
):
    plan = monitor(policy, max_iter, test, snapshot_interval=snapshot, test_initialization=first)
    start = data.draw(st.integers(0, max_iter - 1))
    covered: list[int] = []
    lrs: list[float] = []
    at = start
    while at < max_iter:
        stretch = plan.next_stretch(at)
        assert stretch.start == at < stretch.stop
        inside = range(at + 1, stretch.stop)
        assert not any(plan.test_due(t) or plan.snapshot_due(t) for t in inside)
        covered += range(stretch.start, stretch.stop)
        lrs += list(stretch.lrs)
        at = stretch.stop
    assert covered == list(range(start, max_iter))
    assert lrs == [parse(policy).bind(max_iter)(t) for t in covered]
    if test:
        expected = {t for t in range(0, max_iter + 1, test) if t or first} | {max_iter}
        assert due(plan.test_due, max_iter) == sorted(expected)


# -- plateaus --------------------------------------------------------------------------------------

ROW = Measurement(0, 0.1, 0.0, None, None, None, None, None, None, None, 0.0)
NSTEP = "FIX(k0=0.1); plateau(n=2): FIX(k0=0.01); plateau(n=1): FIX(k0=0.001)"


def observe(plan: ScheduleMonitor, **values: list) -> list[tuple[int, str, float]]:
    """Tests at 100, 200, ...; the decisions as (iteration, metric, LR from there on)."""
    found = []
    ((name, series),) = values.items()
    for number, value in enumerate(series, 1):
        row = dataclasses.replace(ROW, iteration=100 * number, **{name: value})
        decision = plan.observe(row)
        if decision:
            found.append((decision.iteration, decision.metric, plan.lr(decision.iteration)))
            assert decision.policy == str(plan.policy)
    return found


def test_a_plateau_by_hand():
    plan = monitor(NSTEP, max_iter=1000, test=100)
    # Best 60 at 200; no better at 300 and 400: on. The watch starts afresh: 50 at 500 is its first
    # value, 49 at 600 is one test without improvement. Nothing is left to decide after that.
    assert observe(plan, top1=[50, 60, 60, 59, 50, 49, 10, 10]) == [
        (400, "top1", 0.01),
        (600, "top1", 0.001),
    ]
    assert [plan.lr(t) for t in (0, 399, 400, 599, 600, 999)] == [
        0.1,
        0.1,
        0.01,
        0.01,
        0.001,
        0.001,
    ]
    assert plan.next_stretch(395).lrs == pytest.approx([0.1] * 5)
    assert plan.next_stretch(400).lrs == pytest.approx([0.01] * 100)


def test_test_loss_falls_when_it_improves():
    plan = monitor(
        "FIX(k0=0.1); plateau(n=2, metric=test_loss, min_delta=0.1): FIX(k0=0.01)", 1000, 100
    )
    # 0.95 and 0.91 are less than 0.1 below 1.
    assert observe(plan, test_loss=[2.0, 1.0, 0.95, 0.91]) == [(400, "test_loss", 0.01)]


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_what_was_not_measured_is_no_improvement(value):
    plan = monitor("FIX(k0=0.1); plateau(n=2, metric=test_loss): FIX(k0=0.01)", 1000, 100)
    assert observe(plan, test_loss=[value, value]) == [(200, "test_loss", 0.01)]


def test_other_test_nets_decide_nothing():
    plan = monitor("FIX(k0=0.1); plateau(n=1): FIX(k0=0.01)", 1000, 100)
    for iteration in (100, 200, 300):
        assert plan.observe(dataclasses.replace(ROW, iteration=iteration, net=1)) is None
    assert plan.lr(900) == 0.1


def test_a_policy_without_plateaus_decides_nothing():
    plan = monitor("SIN(k0=0.1, k1=0.2, l=50)", 1000, 100)
    assert observe(plan, top1=[50, 40, 30, 20]) == []


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(0, 30))
def test_a_resumed_run_decides_the_same(values, stopped):
    series = [float(v) for v in values]
    whole = monitor(NSTEP, max_iter=10_000, test=100)
    decisions = observe(whole, top1=series)

    resumed = monitor(NSTEP, max_iter=10_000, test=100)
    again = observe(resumed, top1=series[:stopped])  # replayed from the record
    for number, value in enumerate(series[stopped:], stopped + 1):
        decision = resumed.observe(dataclasses.replace(ROW, iteration=100 * number, top1=value))
        if decision:
            again.append((decision.iteration, decision.metric, resumed.lr(decision.iteration)))
    assert again == decisions
    assert resumed.policy == whole.policy
