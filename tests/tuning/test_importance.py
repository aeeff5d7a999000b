"""Rank correlation of parameters with Top-1."""

from __future__ import annotations

import pytest

from lrbench_caffe.tuning.importance import (
    ComparedTraining,
    common_iteration,
    compared,
    importances,
    rank_correlation,
)


def training(end: int, top1: float, diverged: bool = False, **values: float) -> ComparedTraining:
    tests = [(at, top1 - (end - at) / 100) for at in range(0, end + 1, 10)]
    return ComparedTraining(values, tests, diverged)


def test_spearman_by_hand():
    # Ranks 1..5 and 2, 1, 4, 3, 5: 1 - 6 (1+1+1+1) / (5 * 24) = 0.8
    correlation, _ = rank_correlation([1, 2, 3, 4, 5], [20, 10, 40, 30, 50])
    assert correlation == pytest.approx(0.8)
    # Ties have their mean rank: x 1.5, 1.5, 3.5, 3.5; y 1, 2, 3, 4: cov 4, sqrt(4 * 5)
    correlation, _ = rank_correlation([0, 0, 1, 1], [1, 2, 3, 4])
    assert correlation == pytest.approx(4 / 20**0.5)


def test_p_is_the_share_of_orders_with_as_much():
    # Of the 120 orders of five values two are monotone.
    _, p = rank_correlation([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])
    assert p == pytest.approx(2 / 120, abs=0.01)
    _, p = rank_correlation([1, 2, 3, 4, 5], [3, 1, 5, 2, 4])
    assert p > 0.3


def test_candidates_are_compared_where_enough_of_them_got_to():
    trainings = [training(end, 90) for end in (20, 40, 40, 40, 40, 100)]
    assert common_iteration(trainings) == 40
    assert common_iteration(trainings[:4]) is None
    lost = training(10, 50, diverged=True)
    assert common_iteration([*trainings[1:5], lost]) == 40
    rated = compared([*trainings, lost], 40, 10.0)
    # The first has no test at 40; of the last only what it had by then counts.
    assert [top1 for _, top1 in rated] == [90, 90, 90, 90, pytest.approx(89.4), 10.0]


def test_importance_names_what_was_varied_most_important_first():
    trainings = [training(40, 90 - n, a=n, b=n % 2, same=1.0) for n in range(6)]
    found = importances(trainings, 40, 10.0)
    assert [one.name for one in found] == ["a", "b"]
    assert found[0].correlation == pytest.approx(-1)
    assert found[0].n == 6
    assert importances([training(40, 90, a=n) for n in range(6)], 40, 10.0) == []


def test_a_candidate_that_was_tested_later_only_is_not_compared():
    late = ComparedTraining({"a": 1.0}, [(100, 95.0)])
    trainings = [training(40, 90 - n, a=n) for n in range(6)]
    assert common_iteration([*trainings, late]) == 40
    assert len(compared([*trainings, late], 40, 10.0)) == 6
