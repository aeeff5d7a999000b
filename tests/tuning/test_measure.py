"""What a study compares by: points by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lrbench_caffe.metrics import Measurement
from lrbench_caffe.tuning.curves import Curve
from lrbench_caffe.tuning.measure import ITERATIONS, Measure

LOSS = Measure.of("loss", False, 2.0)


def test(iteration: int, **outputs: float) -> Measurement:
    return Measurement(iteration, 0.1, outputs=outputs)


test.__test__ = False  # type: ignore[attr-defined]


def test_top1_is_its_own_score() -> None:
    top1 = Measure.of_top1(10.0)
    assert list(top1.scores([10.0, 97.25])) == [10.0, 97.25]
    assert (top1.guess, top1.headroom(97.25)) == (10.0, 2.75)
    assert not top1.has_learned(15.0, record=20.0) and top1.has_learned(15.1, record=99.0)


def test_of_two_classes_a_tenth_of_the_best_gain_is_learned() -> None:
    two = Measure.of_top1(50.0)
    assert not two.has_learned(52.0, record=70.0) and two.has_learned(52.1, record=70.0)
    assert not two.has_learned(50.0, record=50.0)


def test_a_share_is_in_percent_so_that_an_accuracy_decides_as_top1_does() -> None:
    iou = Measure.of("iou", True, 0.25)
    assert list(iou.scores([0.25, 0.5])) == [25.0, 50.0]
    assert (iou.guess, iou.headroom(50.0)) == (25.0, 50.0)
    # A tenth of the best gain, 50 points, is 5.
    assert not iou.has_learned(30.0, record=75.0) and iou.has_learned(30.1, record=75.0)
    other_head = Measure.of("scores2.top1", True, 50.0)
    assert other_head.percent and other_head.score(75.0) == 75.0


@pytest.mark.parametrize(
    "measure",
    [
        Measure.of("iou", True, 0.25),
        Measure.of("r2", True, 0.0),  # which may be negative
        Measure.of("psnr", True, 10.0).knowing([11.0]),
        Measure.of("reward", False, -10.0).knowing([-11.0]),
        Measure.of("loss", False, 2.0),
    ],
)
def test_no_value_has_fewer_points_than_none(measure: Measure) -> None:
    bad = [value * (-1 if measure.higher else 1) for value in (5.0, 1e9)]
    points = list(measure.scores([*bad, math.inf if not measure.higher else -math.inf, math.nan]))
    assert min(points) == points[-1]


@pytest.mark.parametrize(
    ("value", "points"),
    [
        (2.0, 0.0),
        (2.0 / math.e, 10.0),
        (0.02, 10 * math.log(100)),
        (2.0 * math.e, -10.0),
        (1e9, -10.0),  # a spike says no more
        (math.inf, -10.0),
        (math.nan, -10.0),
        (2e-6, 10 * math.log(1e6)),
        (0.0, 10 * math.log(1e6) + 10),  # linear below: 10 points for each millionth of the start
        (-2e-6, 10 * math.log(1e6) + 20),
    ],
)
def test_a_loss_is_on_a_log_scale(value: float, points: float) -> None:
    assert LOSS.score(value) == pytest.approx(points)


def test_points_of_a_loss_do_not_depend_on_its_unit() -> None:
    thousand = Measure.of("loss", False, 2000.0)
    values = np.array([3.0, 1.5, 0.1, 1e-7])
    assert thousand.scores(1000 * values) == pytest.approx(LOSS.scores(values))


@pytest.mark.parametrize(
    ("measure", "values", "points"),
    [
        # 30 dB were known, 20 more than at the beginning: a point is 0.2 dB.
        (Measure.of("psnr", True, 10.0).knowing([12.0, 30.0]), [10.0, 20.0, 35.0], [0, 50, 125]),
        # A likelihood that begins below 0: the best that was known is 4 lower.
        (Measure.of("nll", False, -1.0).knowing([-5.0, 3.0]), [-1.0, -3.0, 1.0], [0, 50, -50]),
        # Nothing is known: in shares of the beginning.
        (Measure.of("psnr", True, 10.0), [15.0], [50]),
        # It looked like a share, until more than 1 was reached.
        (Measure.of("reward", True, 0.5).knowing([10.5]), [0.5, 5.5], [0, 50]),
    ],
)
def test_anything_else_is_in_shares_of_the_best_gain(
    measure: Measure, values: list[float], points: list[float]
) -> None:
    assert measure.scores(values) == pytest.approx(points)
    assert measure.guess == 0.0


def test_the_best_test_is_the_first_best_after_an_update() -> None:
    tests = [test(0, loss=0.1), test(50, loss=0.4), test(100, loss=math.nan), test(150, loss=0.3)]
    best = LOSS.best_test([*tests, test(200, loss=0.3)])
    assert best is not None and best.iteration == 150
    iou = Measure.of("iou", True, 0.0)
    assert iou.best_test(tests) is None  # it was not measured


def test_a_curve_has_the_points_of_all_tests_after_the_first_update() -> None:
    tests = [test(0, loss=2.0), test(50, loss=2.0 / math.e), test(100, loss=math.inf), test(150)]
    curve = Curve.of(tests, 150, "stopped", LOSS)
    assert list(curve.iterations) == [50, 100, 150]
    assert curve.scores == pytest.approx([10.0, -10.0, -10.0])
    assert curve.best == pytest.approx(10.0)
    assert curve.reaches(LOSS.score(1.0)) == 50  # 0.736 is below 1
    assert curve.reaches(LOSS.score(0.7)) is None


def test_words() -> None:
    top1 = Measure.of_top1(10.0)
    assert (top1.text(99.333), top1.figures([99.0, 99.5])) == ("99.33 %", "99.25 ± 0.25")
    assert top1.difference(-0.5) == "0.50 points of Top-1 less"
    assert (LOSS.text(0.012345), LOSS.figures([0.1, 0.3])) == ("0.01235", "0.2 ± 0.1")
    assert LOSS.difference(-0.5) == "0.5 less loss"
    assert ITERATIONS.difference(12.0) == "12 iterations more"
    assert Measure.of("test_loss", False, 1.0).best == "lowest test loss"
    assert Measure.of("iou", True, 0.0).best == "highest iou"


@pytest.mark.parametrize(
    ("measure", "least"),
    [
        (Measure.of_top1(10.0), 0.0),
        (Measure.of("iou", True, 0.25), 0.0),
        (LOSS, -10.0),
        (Measure.of("psnr", True, 20.0), -100.0),
    ],
)
def test_a_test_without_a_value_has_the_fewest_points_and_counts_as_a_test(
    measure: Measure, least: float
) -> None:
    known = {"top1": 60.0} if measure.name == "top1" else {}
    outputs = {} if known else {measure.name: 0.5}
    tests = [
        Measurement(0, 0.1, **known, outputs=outputs),
        Measurement(50, 0.1, **known, outputs=outputs),
        Measurement(100, 0.1, outputs={measure.name: math.nan} if outputs else {}),
        Measurement(150, 0.1),
    ]
    curve = Curve.of(tests, 150, "stopped", measure)
    assert list(curve.iterations) == [50, 100, 150]
    assert list(curve.scores[1:]) == [least, least]
    assert curve.scores[0] > least


def test_an_output_of_32_bits_reaches_the_target_that_it_is() -> None:
    accuracy = Measure.of("accuracy", True, 0.1)
    shown = float(np.float32(0.95))  # what Caffe gives for 19 of 20: 0.949999988
    curve = Curve.of([test(50, accuracy=shown)], 50, "stopped", accuracy)
    assert shown < 0.95 and curve.reaches(accuracy.score(0.95)) == 50
    assert curve.reaches(accuracy.score(0.9501)) is None


@pytest.mark.parametrize(
    ("measure", "value", "rounded"),
    [
        (Measure.of_top1(10.0), 95.0769, 95.07),  # 95.08 would be better than it is
        (Measure.of_top1(10.0), 95.0731, 95.07),
        (Measure.of_top1(10.0), 95.0, 95.0),
        (LOSS, 0.012344, 0.01235),
        (LOSS, 0.012346, 0.01235),
        (LOSS, -1.23456, -1.234),
        (LOSS, 0.5, 0.5),
    ],
)
def test_rounded_it_is_not_better(measure: Measure, value: float, rounded: float) -> None:
    assert measure.rounded(value) == rounded
