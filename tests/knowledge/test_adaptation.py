"""Policies for another training, worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrbench_caffe.knowledge.adaptation import (
    CannotAdapt,
    TrainingContext,
    adapt,
    change_between,
    explain,
)
from lrbench_caffe.lr import parse
from lrbench_caffe.paper.tables import paper_records
from tests.knowledge.tasks import LENET, LENET_DIGITS

MNIST = TrainingContext("lenet", LENET, 10_000, 600.0)


def adapted(text: str, **other) -> str:
    """The policy of MNIST's LeNet for a training that differs in what is given."""
    return str(adapt(parse(text), change_between(MNIST, replace(MNIST, **other))))


@pytest.mark.parametrize("record", list(paper_records()), ids=lambda r: r.policy.text)
def test_the_same_training_changes_nothing(record):
    policy = parse(record.policy.text)
    same = change_between(MNIST, MNIST)
    assert adapt(policy, same) == policy
    assert explain(policy, same) == []


def test_cycles_are_kept_in_epochs():
    # 2000 iterations are 2000/600 epochs, which are 86.47 of 25.94 iterations.
    assert adapted("SIN2(k0=0.01, k1=0.06, l=2000)", epoch=25.94) == "SIN2(k0=0.01, k1=0.06, l=86)"
    assert (
        adapted("STEP(k0=0.01, gamma=0.85, l=1000)", epoch=300.0)
        == "STEP(k0=0.01, gamma=0.85, l=500)"
    )


def test_decay_is_kept_per_epoch():
    # 0.99994^(600/300) = 0.9998800036; 1 - that has five digits: 0.00012
    assert adapted("SINEXP(k0=0.01, k1=0.06, gamma=0.99994, l=2000)", epoch=300.0) == (
        "SINEXP(k0=0.01, k1=0.06, gamma=0.99988, l=1000)"
    )
    assert (
        adapted("EXP(k0=0.01, gamma=0.99)", epoch=1200.0) == "EXP(k0=0.01, gamma=0.9949874)"
    )  # sqrt(0.99)
    assert (
        adapted("INV(k0=0.01, gamma=0.0001, p=0.75)", epoch=300.0)
        == "INV(k0=0.01, gamma=0.0002, p=0.75)"
    )


def test_boundaries_are_kept_as_shares_of_the_length():
    assert adapted("NSTEP(k0=0.01, gamma=0.1, l=[5000, 7000])", max_iter=1000) == (
        "NSTEP(k0=0.01, gamma=0.1, l=[500, 700])"
    )
    assert adapted("NSTEP(k0=0.01, gamma=0.1, l=[5000, 7000])", epoch=60.0) == (
        "NSTEP(k0=0.01, gamma=0.1, l=[5000, 7000])"
    )
    assert adapted("POLY(k0=0.01, p=1.2)", max_iter=1000) == "POLY(k0=0.01, p=1.2)"
    assert adapted("POLY(k0=0.01, p=1.2, l=8000)", max_iter=1000) == "POLY(k0=0.01, p=1.2, l=800)"
    assert (
        adapted("SIG(k0=0.01, gamma=-0.001, l=5000)", max_iter=1000)
        == "SIG(k0=0.01, gamma=-0.01, l=500)"
    )
    # Two boundaries that fall on one iteration become one.
    assert adapted("NSTEP(k0=0.01, gamma=0.1, l=[5000, 5001])", max_iter=10).endswith("l=[5])")


def test_compositions():
    text = "FIX(k0=0.1) ; 5000: SIN(k0=0.01, k1=0.06, l=2000)"
    assert (
        adapted(text, max_iter=5000, epoch=300.0)
        == "FIX(k0=0.1) ; 2500: SIN(k0=0.01, k1=0.06, l=1000)"
    )
    assert adapted("FIX(k0=0.1) ; plateau(n=3): FIX(k0=0.01)", max_iter=5000) == (
        "FIX(k0=0.1) ; plateau(n=3): FIX(k0=0.01)"
    )
    assert adapted("FIX(k0=0.1) ; 5000: FIX(k0=0.2) ; 5001: FIX(k0=0.3)", max_iter=4) == (
        "FIX(k0=0.1) ; 2: FIX(k0=0.2) ; 3: FIX(k0=0.3)"
    )


def test_a_plateaus_decisions_are_left_out():
    decided = parse("PLATEAU(k0=0.1, gamma=0.1, n=3)").decide(500)
    assert str(adapt(decided, change_between(MNIST, MNIST))) == "PLATEAU(k0=0.1, gamma=0.1, n=3)"


def test_a_cycle_that_does_not_fit_is_shortened():
    assert (
        adapted("SIN2(k0=0.01, k1=0.06, l=2000)", max_iter=1000) == "SIN2(k0=0.01, k1=0.06, l=500)"
    )
    assert adapted("SIN2(k0=0.01, k1=0.06, l=2000)", max_iter=1000, epoch=60.0).endswith("l=200)")


def test_without_epochs_the_lengths_stand_in():
    unknown = replace(MNIST, epoch=None, max_iter=1000)
    assert str(
        adapt(parse("TRI(k0=0.01, k1=0.06, l=2000)"), change_between(MNIST, unknown))
    ).endswith("l=200)")


def test_lrs_of_the_same_net_go_with_the_samples_per_iteration():
    bigger = replace(LENET, batch=50, iter_size=4, base_lr=5.0)  # its base_lr does not matter
    assert (
        adapted("SIN2(k0=0.01, k1=0.06, l=2000)", solver=bigger) == "SIN2(k0=0.02, k1=0.12, l=2000)"
    )


def test_lrs_of_another_net_or_optimizer_go_with_base_lr():
    tenfold = replace(LENET_DIGITS, base_lr=0.1)
    for other in ({"network": "other"}, {"solver": replace(tenfold, momentum=0.5)}):
        assert adapted("SIN2(k0=0.01, k1=0.06, l=2000)", **{"solver": tenfold, **other}) == (
            "SIN2(k0=0.1, k1=0.6, l=2000)"
        )
    adam = replace(tenfold, type="Adam", base_lr=0.001)
    assert adapted("FIX(k0=0.01)", solver=adam) == "FIX(k0=0.001)"


def test_what_is_not_known_changes_nothing():
    assert adapted("FIX(k0=0.01)", solver=replace(LENET, batch=None)) == "FIX(k0=0.01)"
    assert (
        adapted("FIX(k0=0.01)", network="other", solver=replace(LENET, base_lr=None))
        == "FIX(k0=0.01)"
    )


def test_policies_that_caffe_allows_and_we_do_not():
    policy = parse("EXP(k0=0, gamma=1.1)", strict=False)
    change = change_between(MNIST, replace(MNIST, epoch=300.0))
    assert str(adapt(policy, change)) == "EXP(k0=0, gamma=1.21)"


def test_a_decay_that_underflows_stays_above_zero():
    # 0.9^1200 = 10^(1200 * -0.0457575) = 10^-54.909, and 0.9^12000 is below what a float can hold
    assert adapted("EXP(k0=0.01, gamma=0.9)", epoch=0.5) == "EXP(k0=0.01, gamma=1.2331e-55)"
    tiny = adapt(
        parse("EXP(k0=0.01, gamma=0.9)"), change_between(MNIST, replace(MNIST, epoch=0.05))
    )
    assert 0 < tiny.params["gamma"] < 1e-300
    assert parse(str(tiny)) == tiny


@pytest.mark.parametrize(
    "other",
    [
        {"max_iter": 0},
        {"epoch": 5e-324},
        {"epoch": 1e300},
        {"network": "other", "solver": replace(LENET, base_lr=1e-300)},
    ],
)
def test_trainings_that_are_beyond_comparison(other):
    for pair in ((MNIST, replace(MNIST, **other)), (replace(MNIST, **other), MNIST)):
        with pytest.raises(CannotAdapt):
            change_between(*pair)


def test_numbers_that_overflow():
    change = change_between(MNIST, replace(MNIST, epoch=0.01))
    with pytest.raises(CannotAdapt, match="gamma=1.1"):
        adapt(parse("EXP(k0=0.01, gamma=1.1)", strict=False), change)


def test_words():
    other = replace(
        MNIST, network="other", solver=replace(LENET, base_lr=0.1), epoch=25.94, max_iter=2000
    )
    assert explain(parse("SIN2(k0=0.01, k1=0.06, l=2000)"), change_between(MNIST, other)) == [
        "k0, k1 x 10: base_lr 0.1 instead of 0.01 (another net)",
        "l kept in epochs: 25.94 iterations in each instead of 600",
    ]
    assert explain(
        parse("TRI(k0=0.01, k1=0.06, l=2000)"), change_between(MNIST, replace(MNIST, max_iter=1000))
    ) == ["l shortened to 500, so that a cycle fits into 1000 iterations"]
    assert explain(
        parse("POLY(k0=0.01, p=1.2)"), change_between(MNIST, replace(MNIST, max_iter=2000))
    ) == ["kept as shares of 2000 instead of 10000 iterations"]


@given(st.integers(30, 3000), st.integers(200, 5000))
def test_the_curve_is_the_same_over_epochs(epoch, step):
    """The LR at the same epoch is the same, but for l, which is rounded to iterations."""
    new = replace(MNIST, epoch=float(epoch), max_iter=10_000 * epoch // 600)
    for text in (
        f"TRI(k0=0.01, k1=0.06, l={step})",
        f"SINEXP(k0=0.01, k1=0.06, gamma=0.99994, l={step})",
    ):
        old = parse(text)
        policy = adapt(old, change_between(MNIST, new))
        t = np.arange(0, step)
        error = np.abs(policy(t * epoch / 600) - old(t)).max()
        assert error <= 0.05 * np.pi / 2 * (0.5 / (step * epoch / 600 - 0.5)) + 1e-5
