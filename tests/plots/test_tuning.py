"""Pictures of tunings."""

from __future__ import annotations

import numpy as np
import pytest

from lrbench_caffe.plots.style import ValueAxis
from lrbench_caffe.plots.tuning import tuning_figure

T = np.array([50, 100, 150, 200])


@pytest.mark.parametrize(
    ("values", "named", "good", "bad"),
    [
        (ValueAxis(), [90.0, 95.0, 96.0, 95.5], [50.0, 90.0, 98.0, 99.0], [10.0, 10.0, 10.0, 11.0]),
        (
            ValueAxis("loss", False, True, higher=False),
            [1.0, 0.6, 0.5, 0.5],
            [2.0, 1.0, 0.3, 0.2],
            [9.0] * 4,
        ),
        (  # a loss that may be below 0
            ValueAxis("loss", False, False, higher=False),
            [1.0, 0.6, -0.5, -0.5],
            [2.0, 1.0, -0.7, -0.8],
            [9.0] * 4,
        ),
    ],
)
def test_the_best_of_the_others_is_on_the_axis_and_the_bad_ones_do_not_stretch_it(
    values: ValueAxis, named: list[float], good: list[float], bad: list[float]
) -> None:
    lines = [(T, np.array(line)) for line in (good, bad)]
    low, high = (
        tuning_figure("a", {"FIX": [(T, np.array(named))]}, lines, values).axes[0].get_ylim()
    )
    assert low < min(good[-1], named[-1]) and high > max(good[-1], named[-1])
    assert not low < bad[-1] < high
    alone = (
        tuning_figure("a", {"FIX": [(T, np.array(named))]}, lines[1:], values).axes[0].get_ylim()
    )
    assert not alone[0] < good[-1] < alone[1]
