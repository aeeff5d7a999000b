"""Segments, plateau triggers and their decisions."""

from __future__ import annotations

import numpy as np
import pytest

from lrbench_caffe.lr import (
    Composition,
    FunctionPolicy,
    PlateauWatch,
    PolicyError,
    Segment,
    Trigger,
    parse,
)

NAN = float("nan")


def test_each_segment_counts_from_its_start():
    policy = parse("FIX(k0=0.1) ; 100: TRI(k0=1, k1=3, l=10) ; 200: STEP(k0=8, gamma=0.5, l=50)")
    expected = {0: 0.1, 99: 0.1, 100: 1, 105: 2, 110: 3, 199: 1.2, 200: 8, 249: 8, 250: 4, 300: 2}
    assert {t: policy(t) for t in expected} == pytest.approx(expected)
    assert policy(np.array(list(expected))).tolist() == [policy(t) for t in expected]


def test_it_has_the_interface_of_a_policy():
    policy = parse("FIX(k0=0.1) ; 20000: SINEXP(k0=0.0001, k1=0.9, gamma=0.99994, l=2000)")
    assert (policy.kind, policy.function, policy.functions) == (
        "composition",
        "FIX ; SINEXP",
        ("FIX", "SINEXP"),
    )
    assert dict(policy.params) == {}
    assert (
        policy.segments[1].start == 20000 and policy.segments[1].policy.params["gamma"] == 0.99994
    )
    assert policy.num_params == 1 + 4 + 1  # the segments' own, and one boundary
    assert policy.pending is None
    assert str(policy) == "FIX(k0=0.1) ; 20000: SINEXP(k0=0.0001, k1=0.9, gamma=0.99994, l=2000)"


def test_built_from_parts():
    parts = [
        (0, FunctionPolicy("FIX", k0=0.1)),
        Segment(np.int64(50), FunctionPolicy("FIX", k0=0.2)),
    ]
    assert Composition(parts) == parse("FIX(k0=0.1) ; 50: FIX(k0=0.2)")
    with pytest.raises(PolicyError, match="a composition needs two or more segments, not 1"):
        Composition(parts[:1])
    with pytest.raises(PolicyError, match="a composition needs two or more segments, not 0"):
        Composition([])
    with pytest.raises(
        PolicyError, match=r"a segment must be a single LR function, not FIX\(k0=0.1\) ; 50"
    ):
        Composition([(0, Composition(parts)), (90, parts[0][1])])
    with pytest.raises(
        PolicyError, match=r"start=1\.5 must be a whole number of iterations, 0 or more"
    ):
        Composition([parts[0], (1.5, parts[1][1])])
    with pytest.raises(PolicyError, match="bind the composition to max_iter, not its segment POLY"):
        Composition([parts[0], (50, parse("POLY(k0=1, p=1)").bind(100))])


def test_poly_without_l_ends_at_max_iter_wherever_it_starts():
    policy = parse("FIX(k0=1) ; 60: POLY(k0=1, p=1)")
    assert policy.needs_max_iter
    with pytest.raises(PolicyError, match="l is missing and means max_iter"):
        policy(0)
    bound = policy.bind(100)
    assert [bound(t) for t in (0, 60, 70, 80, 100)] == [1, 1, 0.75, 0.5, 0]
    assert bound == parse(str(bound)).bind(100) != policy
    assert bound.num_params == 1 + 3 + 1
    assert policy.bind(50)(55) == 1  # the segment lies behind the end: no error


def test_undecided_boundaries_never_come_and_decided_ones_do():
    policy = parse(
        "FIX(k0=0.1) ; plateau(n=3): FIX(k0=0.01) ; plateau(n=5, metric=test_loss): FIX(k0=0.001)"
    )
    assert (policy.pending, policy.pending_since) == (Trigger(3), 0)
    assert set(policy(np.array([0, 5000, 10**7]))) == {0.1}
    assert policy.num_params == 3 + 2

    once = policy.decide(5000)
    assert (
        str(once)
        == "FIX(k0=0.1) ; 5000: FIX(k0=0.01) ; plateau(n=5, metric=test_loss): FIX(k0=0.001)"
    )
    assert (once.pending, once.pending_since) == (Trigger(5, "test_loss"), 5000)
    assert once([4999, 5000, 10**7]).tolist() == [0.1, 0.01, 0.01]

    twice = once.decide(7000)
    assert (twice.pending, twice.pending_since) == (None, 7000)
    assert twice([4999, 5000, 6999, 7000]).tolist() == [0.1, 0.01, 0.01, 0.001]
    assert twice.num_params == policy.num_params
    assert policy.pending == Trigger(3)  # unchanged
    assert parse(str(once)) == once and parse(str(twice)) == twice


def test_a_trigger_after_a_fixed_boundary_is_watched_from_there():
    policy = parse("FIX(k0=0.01) ; 500: FIX(k0=0.1) ; plateau(n=3): FIX(k0=0.01)")
    assert policy.pending_since == 500
    with pytest.raises(PolicyError, match="a decision at 500 must come after iteration 500"):
        policy.decide(500)
    assert policy.decide(501)(501) == 0.01


def test_a_bound_composition_stays_bound_when_decided():
    policy = parse("FIX(k0=1) ; plateau(n=3): POLY(k0=1, p=1)").bind(100)
    assert policy.decide(60)(80) == 0.5


def test_plateau_function_decays_with_each_decision():
    policy = parse("PLATEAU(k0=0.5, gamma=0.5, n=3, k1=0.25)")
    assert (policy.kind, policy.pending, policy.pending_since) == ("plateau", Trigger(3), 0)
    assert policy(10**6) == 0.5
    decided = policy.decide(5000).decide(7000)
    assert str(decided) == "PLATEAU(k0=0.5, k1=0.25, gamma=0.5, n=3, decided=[5000, 7000])"
    # 0.25 * gamma^i + 0.25
    assert decided([4999, 5000, 6999, 7000]).tolist() == [0.5, 0.375, 0.375, 0.3125]
    assert (decided.pending, decided.pending_since) == (Trigger(3), 7000)
    assert parse(str(decided)) == decided
    with pytest.raises(PolicyError, match="a decision at 7000 must come after iteration 7000"):
        decided.decide(7000)
    with pytest.raises(
        PolicyError, match=r"a decision=7000\.5 must be a whole number of iterations"
    ):
        decided.decide(7000.5)


def test_plateau_function_as_the_last_segment():
    policy = parse("FIX(k0=0.01) ; 500: PLATEAU(k0=1, gamma=0.5, n=2, metric=test_loss)")
    assert (policy.pending, policy.pending_since) == (Trigger(2, "test_loss"), 500)
    decided = policy.decide(800).decide(900)
    assert str(decided) == (
        "FIX(k0=0.01) ; 500: PLATEAU(k0=1, gamma=0.5, n=2, metric=test_loss, decided=[300, 400])"
    )
    assert decided([499, 500, 799, 800, 899, 900]).tolist() == [0.01, 1, 1, 0.5, 0.5, 0.25]
    assert decided.pending_since == 900


def test_nothing_to_decide():
    for text in ("FIX(k0=0.1)", "FIX(k0=0.1) ; 10: FIX(k0=0.2)"):
        assert parse(text).pending is None
        with pytest.raises(PolicyError, match=r"nothing to decide at iteration 20"):
            parse(text).decide(20)


@pytest.mark.parametrize(
    ("trigger", "values", "fires_at"),
    [
        (Trigger(1), [90, 91, 91, 91, 91], [2, 4]),  # after it fires, the next test sets a new best
        (Trigger(2), [90, 90, 91, 91, 91, 80, 79, 81, 80, 80], [4, 9]),
        (Trigger(3), [50, 60, 70, 80, 90], []),
        (Trigger(3), [90, 1, 2, 3], [3]),  # better than the last one is not better than the best
        (Trigger(2, "test_loss"), [2.0, 1.9, 1.9, 2.5, 3.0], [3]),
        (
            Trigger(2, min_delta=0.5),
            [90, 90.25, 90.5, 91],
            [2],
        ),  # 90.5 is not more than 0.5 above 90
        (Trigger(2, min_delta=0.5), [90, 90.25, 90.75, 91, 91.25], [4]),
        (Trigger(2, "test_loss", 0.5), [2.0, 1.75, 1.5, 1.0], [2]),
        (Trigger(2), [NAN, NAN, NAN, 5, NAN, NAN], [1, 5]),
        (Trigger(2, "test_loss"), [NAN, 5, NAN, 4, NAN, float("inf")], [5]),
    ],
)
def test_watch(trigger, values, fires_at):
    watch = PlateauWatch(trigger)
    assert [i for i, value in enumerate(values) if watch.update(value)] == fires_at
