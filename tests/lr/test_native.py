"""Caffe's own policies against a literal transcription of SGDSolver::GetLearningRate."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrbench_caffe.lr import PolicyError, caffe_fields, from_caffe, parse


class CaffeSolver:
    """iter_, current_step_ and GetLearningRate of Caffe's sgd_solver.cpp, in double precision."""

    def __init__(self, lr_policy, base_lr, gamma=0, power=0, stepsize=0, stepvalue=(), max_iter=0):
        self.lr_policy, self.base_lr, self.gamma, self.power = lr_policy, base_lr, gamma, power
        self.stepsize, self.stepvalue, self.max_iter = stepsize, stepvalue, max_iter
        self.iter = self.current_step = 0

    def get_learning_rate(self):
        if self.lr_policy == "fixed":
            return self.base_lr
        if self.lr_policy == "step":
            self.current_step = self.iter // self.stepsize
            return self.base_lr * math.pow(self.gamma, self.current_step)
        if self.lr_policy == "exp":
            return self.base_lr * math.pow(self.gamma, self.iter)
        if self.lr_policy == "inv":
            return self.base_lr * math.pow(1 + self.gamma * self.iter, -self.power)
        if self.lr_policy == "multistep":
            if (
                self.current_step < len(self.stepvalue)
                and self.iter >= self.stepvalue[self.current_step]
            ):
                self.current_step += 1
            return self.base_lr * math.pow(self.gamma, self.current_step)
        if self.lr_policy == "poly":
            return self.base_lr * math.pow(1 - self.iter / self.max_iter, self.power)
        assert self.lr_policy == "sigmoid"
        return self.base_lr * (1 / (1 + math.exp(-self.gamma * (self.iter - self.stepsize))))

    def rates(self, iterations):
        for self.iter in range(iterations):
            yield self.get_learning_rate()


SOLVERS = [
    {"lr_policy": "fixed", "base_lr": 0.01},
    {"lr_policy": "fixed", "base_lr": 0.0},
    {"lr_policy": "step", "base_lr": 0.1, "gamma": 0.85, "stepsize": 7},
    {"lr_policy": "step", "base_lr": 0.1, "gamma": 1.5, "stepsize": 70},
    {"lr_policy": "step", "base_lr": 0.1, "stepsize": 70},
    {"lr_policy": "exp", "base_lr": 0.1, "gamma": 0.99},
    {"lr_policy": "exp", "base_lr": 0.1, "gamma": 1.01},
    {"lr_policy": "inv", "base_lr": 0.01, "gamma": 0.0001, "power": 0.75},
    {"lr_policy": "inv", "base_lr": 0.01, "gamma": 0.5, "power": -0.5},
    {"lr_policy": "multistep", "base_lr": 0.1, "gamma": 0.1, "stepvalue": [30, 31, 200]},
    {"lr_policy": "multistep", "base_lr": 0.1, "gamma": 2.0, "stepvalue": [0, 100]},
    {"lr_policy": "multistep", "base_lr": 0.1, "gamma": 0.5, "stepvalue": [50, 50, 20, 52, 100]},
    {"lr_policy": "multistep", "base_lr": 0.1, "gamma": 0.5},
    {"lr_policy": "poly", "base_lr": 0.1, "power": 1.2},
    {"lr_policy": "poly", "base_lr": 0.1, "power": 0.5},
    {"lr_policy": "poly", "base_lr": 0.1},
    {"lr_policy": "poly", "base_lr": 0.1, "power": -1.0},
    {"lr_policy": "sigmoid", "base_lr": 0.1, "gamma": -0.05, "stepsize": 150},
    {"lr_policy": "sigmoid", "base_lr": 0.1, "gamma": 0.05, "stepsize": 150},
    {"lr_policy": "sigmoid", "base_lr": 0.1},
]


@pytest.mark.parametrize("fields", SOLVERS, ids=lambda fields: " ".join(map(str, fields.values())))
def test_the_lr_of_every_iteration(fields):
    policy = from_caffe(**fields, max_iter=300)
    expected = list(CaffeSolver(**fields, max_iter=300).rates(300))
    np.testing.assert_allclose(policy(np.arange(300)), expected, rtol=1e-13)


@pytest.mark.parametrize("fields", SOLVERS, ids=lambda fields: " ".join(map(str, fields.values())))
def test_it_is_read_back_from_its_text(fields):
    policy = from_caffe(**fields, max_iter=300)
    assert parse(str(policy), strict=False).bind(300) == policy


@pytest.mark.parametrize("power", [1.2, 0.0, -1.0])
def test_poly_is_0_from_max_iter_on(power):
    assert from_caffe("poly", base_lr=0.1, power=power, max_iter=300)(
        [300, 301, 10**6]
    ).tolist() == [0, 0, 0]


@given(st.lists(st.integers(0, 40), max_size=8))
def test_any_stepvalues(stepvalue):
    policy = from_caffe("multistep", base_lr=1.0, gamma=0.5, stepvalue=stepvalue, max_iter=60)
    assert policy(np.arange(60)).tolist() == list(
        CaffeSolver("multistep", 1.0, 0.5, 0, 0, stepvalue).rates(60)
    )


@pytest.mark.parametrize(
    ("fields", "text", "count"),
    [
        ({"lr_policy": "fixed"}, "FIX(k0=0.01)", 1),
        (
            {"lr_policy": "step", "gamma": 0.5, "stepsize": 100},
            "STEP(k0=0.01, gamma=0.5, l=100)",
            3,
        ),
        (
            {"lr_policy": "multistep", "gamma": 0.5, "stepvalue": (5, 7)},
            "NSTEP(k0=0.01, gamma=0.5, l=[5, 7])",
            4,
        ),
        ({"lr_policy": "poly", "power": 2}, "POLY(k0=0.01, p=2)", 3),
        (
            {"lr_policy": "sigmoid", "gamma": 0.5, "stepsize": 100},
            "SIG(k0=0.01, gamma=0.5, l=100)",
            3,
        ),
    ],
)
def test_text_and_num_params(fields, text, count):
    policy = from_caffe(base_lr=0.01, max_iter=1000, **fields)
    assert (str(policy), policy.num_params) == (text, count)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"lr_policy": "sigmod"},
            "unknown lr_policy 'sigmod'; did you mean sigmoid? known: fixed, step, exp",
        ),
        ({"lr_policy": "step", "gamma": 0.1}, 'lr_policy "step" needs a stepsize above 0'),
        (
            {"lr_policy": "step", "gamma": 0.1, "stepsize": -5},
            "STEP: l=-5 must be a whole number of iterations",
        ),
        (
            {"lr_policy": "step", "gamma": -0.1, "stepsize": 5},
            "STEP: gamma=-0.1 must be a finite number, 0 or",
        ),
        ({"lr_policy": "exp", "gamma": math.inf}, "EXP: gamma=inf must be a finite number"),
        ({"lr_policy": "inv", "power": math.nan}, "INV: p=nan must be a finite number"),
        (
            {"lr_policy": "poly", "power": 1, "max_iter": 0},
            "max_iter=0 must be a whole number of iterations",
        ),
    ],
)
def test_what_is_refused(fields, message):
    with pytest.raises(PolicyError) as caught:
        from_caffe(**{"base_lr": 0.1, "max_iter": 100, **fields})
    assert message in str(caught.value)


def test_a_negative_base_lr_is_taken_as_caffe_takes_it():
    """base_lr * gamma^t, not the distance to a lower bound of 0."""
    policy = from_caffe("exp", base_lr=-0.5, gamma=0.5, max_iter=10)
    assert policy([0, 1, 2]).tolist() == [-0.5, -0.25, -0.125]
    assert from_caffe("fixed", base_lr=-0.5, max_iter=10)(3) == -0.5
    assert parse(str(policy), strict=False)(1) == -0.25


@pytest.mark.parametrize(
    "text",
    [
        "FIX(k0=0.1)", "STEP(k0=0.1, gamma=0.5, l=20)", "NSTEP(k0=0.1, gamma=0.5, l=[20, 40])",
        "EXP(k0=0.1, gamma=0.99)", "INV(k0=0.1, gamma=0.01, p=0.75)", "POLY(k0=0.1, p=2)",
        "SIG(k0=0.1, gamma=-0.1, l=50)",
    ],
)  # fmt: skip
def test_caffe_has_fields_for_its_own_policies(text):
    policy = parse(text).bind(100)
    fields = caffe_fields(policy, 100)
    again = from_caffe(**fields, max_iter=100)
    assert list(again(np.arange(100))) == list(policy(np.arange(100)))


@pytest.mark.parametrize(
    "text",
    [
        "SIN2(k0=0.1, k1=0.2, l=20)", "POLY(k0=0.1, p=2, l=50)", "STEP(k0=0.1, gamma=0.5, k1=0.01, l=20)",
        "FIX(k0=0.1) ; 50: FIX(k0=0.01)",
    ],
)  # fmt: skip
def test_caffe_has_no_fields_for_others(text):
    assert caffe_fields(parse(text).bind(100), 100) is None
