"""Welch's test and Student's distribution against printed tables and worked numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrbench_caffe.knowledge.ranking import student_p, welch
from lrbench_caffe.records import Spread


@pytest.mark.parametrize(
    ("t", "dof", "p"),
    [
        # Any book's table of Student's t, two-sided.
        (12.706, 1, 0.05),
        (4.303, 2, 0.05),
        (2.776, 4, 0.05),
        (2.228, 10, 0.05),
        (63.657, 1, 0.01),
        (4.604, 4, 0.01),
        (3.169, 10, 0.01),
        (1.96, 1e6, 0.05),  # the normal distribution
    ],
)
def test_students_distribution_as_in_the_table(t, dof, p):
    assert student_p(t, dof) == pytest.approx(p, rel=1e-3)


def test_students_distribution_in_closed_form():
    # One degree of freedom is Cauchy's distribution, two have an elementary integral.
    for t in (0.0, 0.3, 1.0, 5.0, 1000.0):
        assert student_p(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t), abs=1e-12)
        assert student_p(t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t), abs=1e-12)


@pytest.mark.parametrize(
    ("a", "n_a", "b", "n_b", "p"),
    [
        # scipy.stats.ttest_ind_from_stats(..., equal_var=False) 1.17, with sample deviations
        (Spread(99.33, 0.02), 5, Spread(99.28, 0.02), 5, 0.007669728020956512),
        (Spread(99.33, 0.02), 5, Spread(99.31, 0.04), 5, 0.40619964670493874),
        (Spread(82.16, 0.08), 5, Spread(81.92, 0.13), 5, 0.01740665267809038),
        (
            Spread(10.0, 3 * math.sqrt(2 / 3)),
            3,
            Spread(12.0, math.sqrt(6 / 7)),
            7,
            0.36748243485185084,
        ),
    ],
)
def test_welch_as_scipy(a, n_a, b, n_b, p):
    assert welch(a, n_a, b, n_b) == pytest.approx(p, rel=1e-9)
    assert welch(b, n_b, a, n_a) == pytest.approx(p, rel=1e-9)


def test_no_test_without_repeats_or_deviation():
    assert welch(Spread(1.0, None), 5, Spread(2.0, 0.1), 5) is None
    assert welch(Spread(1.0, 0.0), 1, Spread(2.0, 0.1), 5) is None


@pytest.mark.parametrize("sd", [0.0, 1e-14])
def test_trainings_that_all_came_to_the_same_say_nothing_about_noise(sd):
    assert welch(Spread(94.0, sd), 2, Spread(95.8, sd), 2) is None
    assert welch(Spread(94.0, sd), 3, Spread(94.0, 0.0), 3) is None
    # with one known deviation there is a test: t = 1.8 / sqrt(0.1^2), 1 degree of freedom: 1 - 2/pi
    # atan(18)
    p = 1 - 2 / math.pi * math.atan(18)
    assert welch(Spread(94.0, 0.0), 2, Spread(95.8, 0.1), 2) == pytest.approx(p, rel=1e-9)


@given(st.floats(0, 1e4), st.floats(1, 1e5))
def test_a_probability_that_falls_with_t(t, dof):
    assert 0 <= student_p(1.1 * t + 0.1, dof) <= student_p(t, dof) <= 1
