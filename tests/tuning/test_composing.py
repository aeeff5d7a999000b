"""Compositions that begin with a cyclic policy: where the decay takes over, and from which LR."""

from __future__ import annotations

from lrbench_caffe.lr import parse
from lrbench_caffe.tuning.composing import compositions


def texts(policy: str) -> list[str]:
    return [str(found.policy) for found in compositions([parse(policy)], 2000)]


def test_a_decay_follows_whole_cycles() -> None:
    """Half-cycles of 100: 10 until half of the training, 14 until 0.7 of it; sqrt(0.01 * 0.04) = 0.02."""
    start = "SIN2(k0=0.01, k1=0.04, l=100)"
    assert texts(start) == [
        f"{start} ; {at}: POLY(k0={lr}, p=1, l={2000 - at})"
        for at in (1000, 1400)
        for lr in (0.02, 0.01)
    ]


def test_a_cosine_that_falls_to_0_is_followed_too() -> None:
    """A hundredth of its top counts as its bottom, and a tenth is the middle. It is at its bottom after 11
    or 15 of its halves."""
    start = "COS(k0=0.05, k1=0, l=100)"
    assert texts(start) == [
        f"{start} ; {at}: POLY(k0={lr}, p=1, l={2000 - at})"
        for at in (1100, 1500)
        for lr in (0.005, 0.0005)
    ]


def test_no_two_have_the_same_lrs() -> None:
    """After one cycle, of 2 x 500, TRI2 has not been halved yet; SIN, too, is then continued."""
    best = [f"{name}(k0=0.005, k1=0.1, l=500)" for name in ("TRI", "TRI2", "SIN", "SIN2")]
    found = [str(one.policy) for one in compositions([parse(text) for text in best], 2000)]
    starts = [text.partition(" ;")[0] for text in found]
    assert starts == [best[0], best[0], best[2], best[2]]
