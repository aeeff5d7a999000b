"""The range test's decisions, on accuracies by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, Callable

import pytest

from lrbench_caffe.errors import TrainingError
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.tuning.levels import HIGHEST, LOWEST, Ladder, Rung
from lrbench_caffe.tuning.measure import Measure

CHANCE = 10.0
MEASURE = Measure.of_top1(CHANCE)


def rung(lr: float, *top1: float, diverged: bool = False) -> Rung:
    tests: list[Any] = [
        SimpleNamespace(iteration=100 * n, top1=value, samples=0)
        for n, value in enumerate((CHANCE, *top1))
    ]
    return Rung(lr, tests, diverged)


def climb(
    top1: Callable[[float], float], limit: float, ahead: int = 1
) -> tuple[Ladder, list[float]]:
    """A whole test where an LR ends with ``top1(lr)``, and diverges from ``limit`` on.

    So many LRs are asked ``ahead`` of results.
    """
    ladder, asked, begun = Ladder(MEASURE), list[float](), list[float]()
    while True:
        while len(begun) < ahead and (lr := ladder.ask()):
            asked.append(lr)
            begun.append(lr)
        if not begun:
            return ladder, asked
        lr = begun.pop(0)
        ladder.add(rung(lr, top1(lr), diverged=lr >= limit))


def hill(best: float, slope: float = 20.0) -> Callable[[float], float]:
    """90 % at the best LR, less by ``slope`` for every decade away from it."""
    return lambda lr: max(CHANCE, 90.0 - slope * abs(math.log10(lr / best)))


def test_tens_first_then_finer_steps_around_the_good_ones() -> None:
    ladder, asked = climb(hill(0.01), limit=0.1)
    # Good is within 5 % of 80, so 86 % or more: within a fifth of a decade of 0.01.
    assert asked == [0.1, 0.01, 0.001, 0.02, 0.05, 0.002, 0.005]
    good = ladder.result()
    assert (good.low, good.high, good.best, good.limit) == (0.01, 0.01, 0.01, 0.1)


def test_a_flat_top_is_the_range() -> None:
    ladder, _ = climb(hill(0.01, slope=5.0), limit=0.1)
    # 86 % or more is within 0.8 decades: 0.002 is 0.7 away, 0.001 is 1; 0.05 is 0.7 away.
    good = ladder.result()
    assert (good.low, good.high, good.best) == (0.002, 0.05, 0.01)


def test_goes_up_where_the_highest_is_good_and_down_where_the_lowest_is() -> None:
    ladder, asked = climb(hill(1.0), limit=5.0)
    assert asked[3] == 1.0
    assert ladder.result().best == 1.0
    ladder, asked = climb(hill(1e-5), limit=0.005)
    assert asked[3:6] == [1e-4, 1e-5, 1e-6]
    assert ladder.result().best == 1e-5


def test_ends_at_both_ends_of_what_any_net_needs() -> None:
    _, tried = climb(lambda lr: 90.0, limit=math.inf)
    assert len(set(tried)) == len(tried)
    assert (min(tried), max(tried)) == (LOWEST, HIGHEST)


@pytest.mark.parametrize("best", [1e-5, 0.003, 0.01, 0.1, 1.0])
@pytest.mark.parametrize("slope", [5.0, 20.0])
def test_asking_ahead_tries_the_same_lrs(best: float, slope: float) -> None:
    ladders = [climb(hill(best, slope), limit=5 * best, ahead=ahead)[0] for ahead in (1, 3, 6)]
    assert len({frozenset(ladder.rungs) for ladder in ladders}) == 1
    assert len({ladder.result() for ladder in ladders}) == 1


def test_ahead_of_results_nothing_is_tried_that_they_may_make_needless() -> None:
    ladder = Ladder(MEASURE)
    assert [ladder.ask() for _ in range(4)] == [0.1, 0.01, 0.001, None]
    ladder.add(rung(0.1, 80.0))
    assert ladder.ask() is None  # 0.01 may be so much better that 0.1 is no good
    ladder.add(rung(0.01, 70.0))
    assert ladder.ask() == 1.0
    assert ladder.ask() is None


def test_a_dip_ends_the_range() -> None:
    ladder = Ladder(MEASURE)
    for lr, top1 in ((0.001, 90.0), (0.01, 70.0), (0.02, 91.0), (0.05, 90.0), (0.1, 50.0)):
        ladder.add(rung(lr, 20.0, top1))
    assert (ladder.result().low, ladder.result().high) == (0.02, 0.05)


def test_what_500_images_have_by_chance_is_not_learned() -> None:
    """Guessing one of ten is 10 +- 1.34 % of 500 images; the best of some LRs is two of these above."""
    for best, learned in ((13.0, False), (14.5, True)):
        ladder = Ladder(MEASURE)
        while (lr := ladder.ask()) is not None:
            ladder.add(Rung(lr, [Measurement(100, lr, best if lr == 0.01 else 10.2, samples=500)]))
        if learned:
            assert ladder.result().best == 0.01
        else:
            with pytest.raises(TrainingError, match="no constant LR learned anything"):
                ladder.result()
    few = Ladder(
        MEASURE
    )  # a single one of 10 images more than by guessing may be all there is to see
    while (lr := few.ask()) is not None:
        few.add(Rung(lr, [Measurement(100, lr, 20.0 if lr == 0.01 else 10.0, samples=10)]))
    assert few.result().best == 0.01


def test_nothing_learned() -> None:
    ladder, _ = climb(lambda lr: CHANCE, limit=0.01)
    with pytest.raises(
        TrainingError, match="no constant LR learned anything: .*0.001.* no better than guessing"
    ):
        ladder.result()


def test_a_failure_is_no_limit() -> None:
    """A crash or a full memory at one LR says nothing about it."""
    ladder = Ladder(MEASURE)
    for lr, top1 in ((0.001, 90.0), (0.01, 91.0), (0.05, 90.0)):
        ladder.add(rung(lr, top1))
    ladder.add(Rung(0.02, [], failed=True))
    ladder.add(Rung(0.1, [], failed=True))
    good = ladder.result()
    assert (good.low, good.high, good.limit) == (0.001, 0.05, None)


def test_a_lost_lr_is_no_end_of_the_range() -> None:
    """0.1 is good, and so is 1: that nobody knows it of 0.1 must not keep the ladder from trying 1."""
    ladder = Ladder(MEASURE)
    while (lr := ladder.ask()) is not None:
        lost = lr in (0.1, 0.0001)
        ladder.add(
            Rung(lr, [], failed=True) if lost else rung(lr, 90.0 if 1e-5 <= lr <= 2 else 20.0)
        )
    assert (ladder.result().low, ladder.result().high) == (1e-5, 2.0)


# -- fine-tuning -----------------------------------------------------------------------------------

BEGIN = 94.0  # of the weights


def fine_tune(top1: Callable[[float], float], pretrained: bool = True) -> Ladder:
    """A whole test of trainings that are at ``BEGIN`` before the first update, and end with ``top1(lr)``."""
    ladder = Ladder(MEASURE, pretrained=pretrained)
    while (lr := ladder.ask()) is not None:
        tests: list[Any] = [
            Measurement(0, lr, BEGIN), Measurement(100, lr, top1(lr)),
        ]  # fmt: skip
        ladder.add(Rung(lr, tests))
    return ladder


def gains(lr: float) -> float:
    """Useless below 0.001, 1.2 points of gain at 0.01, destructive from 0.1 on."""
    ends = {0.001: 94.3, 0.002: 94.7, 0.005: 95.1, 0.01: 95.2, 0.02: 94.9, 0.05: 93.0}
    return 50.0 if lr >= 0.1 else ends.get(lr, BEGIN)


def test_lrs_that_leave_given_weights_as_they_were_are_not_good() -> None:
    ladder = fine_tune(gains)
    # Half of the best gain is 0.6 points: 94.6 or more.
    assert (ladder.result().low, ladder.result().high, ladder.result().best) == (0.002, 0.02, 0.01)
    assert sorted(ladder.rungs)[:2] == [0.0001, 0.001]  # the first of all, and of what it needs
    assert (
        min(fine_tune(gains, pretrained=False).rungs) == LOWEST
    )  # what they are to the rule for scratch


def test_where_nothing_gains_the_first_lr_that_changes_nothing_is_the_lowest() -> None:
    ladder = fine_tune(lambda lr: max(CHANCE, BEGIN - (200.0 * lr if lr > 5e-5 else 0.0)))
    # 0.0001 loses 0.02 points of the 84 that the weights have over guessing: less than a
    # thousandth.
    assert min(ladder.rungs) == 0.0001
    assert ladder.result().best == 0.0001


def test_weights_no_better_than_guessing_are_from_scratch() -> None:
    """A new last layer: what counts is what was learned over guessing."""
    ladder, from_scratch = Ladder(MEASURE, pretrained=True), Ladder(MEASURE)
    for one in (ladder, from_scratch):
        while (lr := one.ask()) is not None:
            one.add(rung(lr, hill(0.01)(lr), diverged=lr >= 0.1))
    assert ladder.result() == from_scratch.result()
    assert set(ladder.rungs) == {*from_scratch.rungs, 0.0001}


# -- other measures --------------------------------------------------------------------------------


def loss_rung(lr: float, *losses: float, diverged: bool = False) -> Rung:
    tests: list[Any] = [
        SimpleNamespace(iteration=100 * n, outputs={"loss": value}, samples=0)
        for n, value in enumerate((2.0, *losses))
    ]
    return Rung(lr, tests, diverged)


def descend(loss: Callable[[float], float], noise: float = 1.0, unit: float = 1.0) -> Ladder:
    """A whole test whose last two losses are ``noise`` above and below ``loss(lr)``, as factors."""
    ladder = Ladder(Measure.of("loss", False, 2.0 * unit))
    while (lr := ladder.ask()) is not None:
        value = unit * loss(lr)
        ladder.add(loss_rung(lr, value / noise, value * noise, diverged=lr >= 0.5))
    return ladder


def valley(lr: float) -> float:
    """0.02 at the best LR, and half as much more for every decade away from it."""
    return 0.02 * 1.5 ** abs(math.log10(lr / 0.01))


def test_a_good_lr_has_a_loss_within_5_percent_of_the_best_gain_by_its_logarithm() -> None:
    """The best has 0.02, a hundredth of the beginning, so 5 % are a factor of 100^0.05 = 1.259, or 0.568
    decades: 0.0027 to 0.037."""
    good = descend(valley).result()
    assert (good.low, good.high, good.best, good.limit) == (0.005, 0.02, 0.01, None)


def test_a_single_noisy_test_moves_nothing_nor_does_the_unit() -> None:
    good = descend(valley).result()
    assert descend(valley, noise=1.4).result() == good
    assert descend(valley, unit=1000.0).result() == good


def test_the_rule_names_the_measure() -> None:
    assert descend(valley).rule == (
        "LRs whose loss is within 5% of the best gain (by the logarithm) over guessing, around the "
        "best constant LR"
    )


def test_fine_tuning_by_a_loss() -> None:
    """The weights have 0.2, guessing 2.0; the best LR makes 0.05 of it. Half of the gain over the weights
    is a factor of 2, to 0.1; within 5 % of ln(40) is a factor of 1.2, to 0.06."""
    ladder = Ladder(Measure.of("loss", False, 2.0), pretrained=True)
    ends = {0.01: 0.3, 0.005: 0.12, 0.002: 0.055, 0.001: 0.05, 0.0005: 0.058, 0.0002: 0.09}
    while (lr := ladder.ask()) is not None:
        tests: list[Any] = [
            SimpleNamespace(iteration=100 * n, outputs={"loss": value}, samples=0)
            for n, value in enumerate((0.2, ends.get(lr, 0.2), ends.get(lr, 0.2)))
        ]
        ladder.add(Rung(lr, tests))
    assert ladder.begin == 0.2
    good = ladder.result()
    assert (good.low, good.high, good.best) == (0.0005, 0.002, 0.001)


def test_an_lr_whose_last_test_has_no_value_is_not_judged_by_an_earlier_one() -> None:
    measure = Measure.of("precision", True, 0.1)
    tests: list[Any] = [
        Measurement(100, 0.1, outputs={"precision": 0.9}), Measurement(200, 0.1, outputs={})
    ]  # fmt: skip
    ladder = Ladder(measure)
    ladder.add(Rung(0.1, tests, False))
    assert ladder.score(0.1) == 0.0
