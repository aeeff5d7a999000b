"""When a training is given up, and when not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lrbench_caffe.training.divergence import DivergenceWatch

CEILING = -math.log(
    np.finfo(np.float32).tiny
)  # 87.3365..., what Caffe's softmax loss cannot exceed


def verdict(losses: list[float], *, has_ceiling: bool = True, start: int = 0) -> str | None:
    return DivergenceWatch(has_ceiling).look(start, np.array(losses))


@pytest.mark.parametrize(
    ("bad", "name"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")]
)
@pytest.mark.parametrize("has_ceiling", [True, False])
def test_not_a_finite_loss(bad, name, has_ceiling):
    found = verdict([2.3, 2.2, bad, 1.0], has_ceiling=has_ceiling, start=50)
    assert found == f"the training diverged: the loss of iteration 52 is {name}"


def test_stuck_at_caffes_ceiling():
    assert verdict([CEILING] * 99) is None
    found = verdict([CEILING] * 100, start=1000)
    assert found == (
        "the training diverged: at iteration 1099 the loss was 87.34 and had been at least 43.7 for 100 "
        "iterations (Caffe's ceiling is 87.34)"
    )


def test_stuck_across_stretches():
    watch = DivergenceWatch(True)
    assert watch.look(0, np.array([2.3] * 10 + [CEILING] * 60)) is None
    found = watch.look(70, np.array([CEILING] * 60))
    assert found is not None
    assert "at iteration 109 " in found  # 10 + 100 - 1


def test_batches_that_are_not_all_wrong_are_stuck_too():
    # 10 classes, everything put into one: every tenth sample is right, the mean loss is 0.9 x 87.3.
    assert verdict([0.9 * CEILING] * 100) is not None


def test_a_high_start_that_recovers():
    assert verdict([CEILING] * 99 + [2.3] + [CEILING] * 99 + [0.5]) is None


def test_guessing_among_very_many_classes_is_no_divergence():
    assert verdict([math.log(1e6)] * 1000) is None


def test_a_high_loss_is_normal_where_there_is_no_ceiling():
    assert verdict([60.0] * 1000, has_ceiling=False) is None
    assert verdict([60.0] * 1000, has_ceiling=True) is not None


def test_a_loss_above_the_ceiling_is_not_stuck_at_it():
    assert verdict([110.0] * 1000, has_ceiling=True) is None


def test_an_empty_stretch():
    assert verdict([]) is None
