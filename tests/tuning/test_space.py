"""Candidates by the paper's heuristics: values by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lrbench_caffe.errors import InputError
from lrbench_caffe.lr import parse
from lrbench_caffe.tuning.space import (
    BELOW_LIMIT,
    FAMILIES,
    GoodRange,
    candidates,
    functions,
    half_cycle,
)

LENET = GoodRange(low=0.01, high=0.06, best=0.03)


def texts(
    *names: str, good: GoodRange = LENET, max_iter: int = 10_000, epoch: float | None = 600
) -> list[str]:
    return [str(c.policy) for c in candidates(good, names, max_iter=max_iter, epoch=epoch)]


def test_a_decay_begins_at_the_top_the_best_and_a_step_above() -> None:
    assert texts("POLY") == [
        f"POLY(k0={k0}, p={p})" for k0 in ("0.06", "0.03", "0.15") for p in ("1.0", "2.0")
    ] or texts("POLY") == [
        f"POLY(k0={k0}, p={p})" for k0 in ("0.06", "0.03", "0.15") for p in ("1", "2")
    ]


def test_a_cycle_spans_the_range_or_more_and_ends_low() -> None:
    found = [parse(text) for text in texts("TRI")]
    assert {(p.params["k0"], p.params["k1"]) for p in found} == {(0.01, 0.06), (0.001, 0.15)}
    # 10,000 iterations are 1, 2 or 5 cycles: halves of 5,000, 2,500 and 1,000, in epochs of 600
    # where what is left behind them is at most a tenth of one (400 of 4,800; 400 of 2,400 is more).
    assert {p.params["l"] for p in found} == {4800, 2500, 1000}
    assert half_cycle("COS", 2, 9000, 600) == 3000  # three halves: from the top down, up, and down


@pytest.mark.parametrize(
    ("max_iter", "epoch"),
    [(2000, 25.94), (1000, 25.94), (64000, 390.6), (450_000, 5004.6), (500, 10.3)],
)
def test_every_cycle_ends_low(max_iter: int, epoch: float) -> None:
    """With a tenth for each half of a cycle, ten of them ended at the top of a new one."""
    for candidate in candidates(LENET, FAMILIES["cyclic"], max_iter=max_iter, epoch=epoch):
        rates = candidate.policy(np.arange(max_iter))
        half = candidate.policy.params["l"]  # type: ignore[attr-defined]
        low, top = rates[-2 * half :].min(), rates[-2 * half :].max()
        assert rates[-1] - low <= 0.25 * (top - low), str(candidate.policy)


@pytest.mark.parametrize(
    ("cycles", "max_iter", "half"),
    [
        (
            5,
            199,
            20,
        ),  # 10 halves of 19 end 9 iterations early, at which the LR is at half its height
        (5, 109, 11),
        (5, 104, 10),  # 104 is 4 of 10 behind 100, but 6 of 11 before 110
        (2, 119, 30),
        (5, 26, 3),  # 25 is a third of a half behind 24, with halves of 2 in the middle of one
        (1, 199, 99),  # of the next rise there is one hundredth
        (5, 1007, 100),
    ],
)
def test_a_cycle_of_a_short_training_ends_low(cycles: int, max_iter: int, half: int) -> None:
    assert half_cycle("TRI", cycles, max_iter, None) == half


def test_a_given_range_is_the_top_to_the_last_bit() -> None:
    for thousandths in range(101, 999):
        high = thousandths / 10_000
        good = GoodRange(high / 10, high, high / 3, high / BELOW_LIMIT)
        for candidate in candidates(good, ("STEP", "SIN"), max_iter=2000, epoch=None):
            assert candidate.policy(np.arange(2000)).max() <= high, str(candidate.policy)


def test_nothing_is_proposed_that_is_known_to_diverge() -> None:
    diverging = GoodRange(low=0.01, high=0.06, best=0.03, limit=0.2)
    assert {parse(text).params["k1"] for text in texts("SIN2", good=diverging)} == {0.06, 0.12}
    close = GoodRange(low=0.01, high=0.06, best=0.03, limit=0.07)
    assert {parse(text).params["k1"] for text in texts("SIN2", good=close)} == {0.06}


def test_the_last_lr_of_a_decay_is_a_tenth_or_a_hundredth() -> None:
    for text in texts("EXP", "STEP", "NSTEP"):
        policy = parse(text)
        share = policy(9_999) / policy(0)
        assert any(end / 1.6 < share < end * 1.6 for end in (0.1, 0.01)), text


@pytest.mark.parametrize("epoch", [None, 3.0, 26.0, 50_000.0])
def test_all_candidates_are_different_policies_of_every_function(epoch: float | None) -> None:
    found = candidates(LENET, FAMILIES["all"], max_iter=2000, epoch=epoch)
    assert len({str(c.policy) for c in found}) == len(found)
    assert {c.policy.function for c in found} == set(FAMILIES["all"])
    for candidate in found:
        assert candidate.policy(0) > 0 or candidate.policy(500) > 0


def test_functions() -> None:
    assert functions("cyclic") == ("TRI", "TRI2", "TRIEXP", "SIN", "SIN2", "SINEXP", "COS")
    assert functions("sin2, Poly") == ("SIN2", "POLY")
    for text, words in (("sinn", "did you mean"), ("sin,SIN", "given twice"), ("SIG", "not tuned")):
        with pytest.raises(InputError, match=words):
            functions(text)


def test_a_range_that_was_given_is_not_left_by_rounding() -> None:
    """With two digits 0.0149 would be 0.015, and 0.0123 would be 0.012."""
    given = GoodRange(low=0.0123, high=0.0149, best=0.0136)
    assert {parse(text).params["k0"] for text in texts("FIX", good=given)} == {0.014, 0.0149}
    cycles = {(p.params["k0"], p.params["k1"]) for p in map(parse, texts("TRI", good=given))}
    assert (0.0123, 0.0149) in cycles


def test_a_range_of_one_lr_to_two_digits() -> None:
    given = GoodRange(low=0.0101, high=0.0102, best=0.01015)
    found = {(p.params["k0"], p.params["k1"]) for p in map(parse, texts("TRI", good=given))}
    assert (0.0101, 0.0102) in found
    narrow = GoodRange(low=0.010000001, high=0.010000002, best=0.0100000015)
    for policy in map(parse, texts("SIN2", "COS", good=narrow)):
        assert policy.params["k0"] < policy.params["k1"]
