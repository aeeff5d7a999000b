"""What is filled in for a person who gave only a part of a policy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrbench_caffe.lr import FUNCTIONS, PolicyError, complete, complete_text, parse

MNIST = {"base_lr": 0.01, "max_iter": 10000, "epoch": 600}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("FIX", "FIX(k0=0.01)"),
        ("STEP", "STEP(k0=0.01, gamma=0.77426, l=1000)"),  # 0.1^(1/9) = 0.774264
        (
            "NSTEP",
            "NSTEP(k0=0.01, gamma=0.63096, l=[5000, 7000, 8000, 9000, 9500])",
        ),  # 0.1^(1/5) = 0.630957
        ("EXP", "EXP(k0=0.01, gamma=0.99976977)"),  # 1 - 0.1^(1/10000) = 0.000230232
        ("INV", "INV(k0=0.01, gamma=0.0001, p=0.75)"),
        ("POLY", "POLY(k0=0.01, p=1.2)"),
        ("SIN2", "SIN2(k0=0.01, k1=0.06, l=1200)"),
        ("COS", "COS(k0=0.01, k1=0.06, l=1200)"),
        ("TRIEXP", "TRIEXP(k0=0.01, k1=0.06, gamma=0.99976977, l=1200)"),
        ("SIG", "SIG(k0=0.01, gamma=-0.00043944, l=5000)"),  # ln 9 = 2.197225
        ("PLATEAU", "PLATEAU(k0=0.01, gamma=0.1, n=3)"),
    ],
)
def test_from_a_bare_name(name, text):
    done = complete(name.lower(), {}, **MNIST)
    assert str(done.policy) == text
    assert complete_text(name, {}, **MNIST) == done
    shown = {filled.parameter: filled.value for filled in done.filled}
    assert shown == dict(done.policy.params) or name == "POLY"


@given(
    st.sampled_from(sorted(FUNCTIONS)),
    st.floats(1e-6, 5),
    st.integers(1, 10**6),
    st.one_of(st.none(), st.floats(0.1, 10**6)),
)
def test_every_function_can_be_completed_from_nothing(name, base_lr, max_iter, epoch):
    done = complete(name, {}, base_lr=base_lr, max_iter=max_iter, epoch=epoch)
    rates = done.policy(np.unique(np.linspace(0, max_iter - 1, 50).astype(int)))
    assert np.all(np.isfinite(rates)) and np.all(rates >= 0) and np.any(rates > 0)
    assert done.policy.function == name
    assert all(filled.rule for filled in done.filled)
    assert parse(str(done.policy)).bind(max_iter) == done.policy


@given(
    st.sampled_from(["EXP", *sorted(n for n in FUNCTIONS if n.endswith("EXP"))]),
    st.integers(1, 10**6),
)
def test_gamma_to_the_t_ends_at_a_tenth(name, max_iter):
    policy = complete(name, {}, base_lr=1.0, max_iter=max_iter, epoch=5).policy
    assert policy.params["gamma"] ** max_iter == pytest.approx(0.1, rel=2e-4)


@given(st.sampled_from(["STEP", "NSTEP"]), st.integers(2, 10**6))
def test_steps_end_at_a_tenth(name, max_iter):
    policy = complete(name, {}, base_lr=1.0, max_iter=max_iter, epoch=5).policy
    assert policy(max_iter - 1) == pytest.approx(0.1, rel=2e-4)


@pytest.mark.parametrize(
    ("max_iter", "epoch", "half_cycle", "rule"),
    [
        (10000, 600, 1200, "2 epochs, rounded to 100 iterations"),
        (70000, 500, 1000, "2 epochs, rounded to 100 iterations"),
        (64000, 390.625, 800, "2 epochs, rounded to 100 iterations"),
        (10000, 22.5, 100, "100 iterations (2 epochs would be fewer)"),
        (10000, 30, 100, "2 epochs, rounded to 100 iterations"),
        (1000, 600, 500, "half of max_iter (2 epochs, rounded, would be more)"),
        (60, 22.5, 30, "half of max_iter (2 epochs, rounded, would be more)"),
        (10000, None, 1000, "a tenth of max_iter (epoch not known)"),
    ],
)
def test_half_a_cycle(max_iter, epoch, half_cycle, rule):
    done = complete("TRI", {}, base_lr=0.01, max_iter=max_iter, epoch=epoch)
    assert done.filled[2] == ("l", half_cycle, rule, True)


@pytest.mark.parametrize(
    ("text", "flags", "expected", "filled"),
    [
        ("SIN2(l=500)", {}, "SIN2(k0=0.01, k1=0.06, l=500)", "k0 k1"),
        ("sin2", {"k0": 0.001, "l": 500}, "SIN2(k0=0.001, k1=0.06, l=500)", "k1"),
        ("SIN2()", {"k0": 0.1, "k1": None}, "SIN2(k0=0.1, k1=0.6, l=1200)", "k1 l"),  # 6 x k0
        (
            "NSTEP",
            {"l": [10, 20]},
            "NSTEP(k0=0.01, gamma=0.31623, l=[10, 20])",
            "k0 gamma",
        ),  # 0.1^(1/2)
        ("NSTEP", {"l": "10,20", "gamma": "0.5"}, "NSTEP(k0=0.01, gamma=0.5, l=[10, 20])", "k0"),
        ("STEP(l=20000)", {}, "STEP(k0=0.01, gamma=0.1, l=20000)", "k0 gamma"),
        ("STEP", {"gamma": 0.9}, "STEP(k0=0.01, gamma=0.9, l=1000)", "k0 l"),
        ("POLY", {"l": 5000}, "POLY(k0=0.01, p=1.2, l=5000)", "k0 p"),
        ("STEP", {"k1": 0.001}, "STEP(k0=0.01, k1=0.001, gamma=0.77426, l=1000)", "k0 l gamma"),
        (
            "PLATEAU(n=5, metric=test_loss)",
            {},
            "PLATEAU(k0=0.01, gamma=0.1, n=5, metric=test_loss)",
            "k0 gamma",
        ),
        ("SIN2(k0=0.01, k1=0.06, l=2000)", {}, "SIN2(k0=0.01, k1=0.06, l=2000)", ""),
        ("FIX(k0=1) ; 50: POLY(k0=1, p=1)", {}, "FIX(k0=1) ; 50: POLY(k0=1, p=1)", ""),
    ],
)
def test_completes_what_was_typed(text, flags, expected, filled):
    done = complete_text(text, flags, **MNIST)
    assert (str(done.policy), [f.parameter for f in done.filled]) == (expected, filled.split())
    assert not done.policy.needs_max_iter


def test_poly_is_bound_to_max_iter_and_counts_three():
    done = complete("POLY", {}, **MNIST)
    assert (done.policy.max_iter, done.policy.num_params) == (10000, 3)
    assert ("l", 10000, "max_iter", False) in done.filled


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        ("SIN2(l=500)", {"l": 600}, "SIN2: l is given in the policy and again as l"),
        ("SIN2", {"gamma": 0.9}, "gamma does not go with SIN2; its parameters: k0, k1, l"),
        ("SINE2", {}, "unknown LR function 'SINE2'; did you mean SIN2?"),
        ("SIN2(p=1)", {}, "SIN2 has no parameter 'p'"),
        ("SIN2", {"l": 0}, "SIN2: l=0 must be a whole number of iterations above 0"),
        ("SIN2", {"k1": 0.001}, "SIN2: k0=0.01, k1=0.001: it starts at k0 and rises: k0 < k1"),
        ("EXP", {"gamma": 1.5}, "EXP: gamma=1.5 must be above 0 and at most 1"),
        ("EXP", {"gamma": "1..5"}, "gamma '1..5': expected a number at character 1, found '1'"),
        ("NSTEP", {"l": "10 20"}, "l '10 20': expected the end at character 4, found '20'"),
        ("FIX(k0=1) ; 50: FIX", {}, "FIX: k0 is missing"),
        (
            "FIX(k0=1) ; 50: FIX(k0=2)",
            {"k0": 1, "l": 2},
            "k0, l cannot be combined with a composition",
        ),
        ("50: FIX", {}, "FIX: k0 is missing"),
    ],
)
def test_mistakes(text, flags, message):
    with pytest.raises(PolicyError) as caught:
        complete_text(text, flags, **MNIST)
    assert message in str(caught.value)


def test_a_base_lr_that_cannot_be_k0():
    with pytest.raises(PolicyError, match="SIN: k0 is missing, and base_lr=0 cannot replace it"):
        complete("SIN", {}, base_lr=0, max_iter=100, epoch=10)
    assert complete("FIX", {"k0": 0.5}, base_lr=0, max_iter=100).policy(0) == 0.5
    with pytest.raises(
        PolicyError, match="max_iter=0 must be a whole number of iterations, 1 or more"
    ):
        complete("FIX", {}, base_lr=0.1, max_iter=0)
