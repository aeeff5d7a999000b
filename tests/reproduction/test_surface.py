"""Figure 1's surface: what the paper says can be seen on it."""

from __future__ import annotations

import numpy as np
import pytest

from lrbench_caffe.reproduction import surface
from lrbench_caffe.reproduction.surface import GLOBAL, LOCAL, START, descend, gradient, loss, paths

FIX, NSTEP, TRIEXP = paths()


def distance(point: np.ndarray, well: surface.Well) -> float:
    return float(np.hypot(point[0] - well.x, point[1] - well.y))


def test_the_policies_and_iterations_are_the_papers():
    assert [str(path.policy) for path in paths()] == [
        "FIX(k0=0.025)",
        "NSTEP(k0=0.05, gamma=0.1, l=[150, 180])",
        "TRIEXP(k0=0.05, k1=0.3, gamma=0.94, l=100)",
    ]
    assert [path.colour for path in paths()] == ["black", "red", "yellow"]
    assert surface.SHOWN == (70, 115, 199)
    for path in paths():
        assert path.points.shape == (200, 2)
        assert tuple(path.points[0]) == START


def test_the_loss_by_hand():
    # At the local minimum's centre: the bowl, the whole of its well, and what the other well adds
    # there.
    bowl = 0.5 * (0.07 * 0.49**2 + 0.41 * 0.49**2)
    other = 2.76 / (1 + (0.06 / 0.24) ** 2 + (0.58 / 0.32) ** 2)
    assert loss(0.0, 0.0) == pytest.approx(bowl - 2.0 - other, abs=1e-12)


@pytest.mark.parametrize("point", [(-1.77, -0.99), (0.1, 0.05), (-0.3, -0.6), (0.0, 0.0)])
def test_the_gradient_is_the_slope_of_the_loss(point):
    x, y = point
    step = 1e-6
    slope = (
        (loss(x + step, y) - loss(x - step, y)) / (2 * step),
        (loss(x, y + step) - loss(x, y - step)) / (2 * step),
    )
    assert gradient(x, y) == pytest.approx(slope, abs=1e-5)


def test_one_step_is_formula_1():
    dx, dy = gradient(*START)
    assert descend([0.5, 0.5])[1] == pytest.approx((START[0] - 0.5 * dx, START[1] - 0.5 * dy))


def test_the_global_minimum_is_the_lower_one():
    x, y = np.meshgrid(np.linspace(-2.5, 2, 500), np.linspace(-2, 2, 500))
    lowest = np.unravel_index(loss(x, y).argmin(), x.shape)
    assert distance(np.array([x[lowest], y[lowest]]), GLOBAL) < 0.03


def test_at_70_triexp_is_ahead_on_much_the_same_way():
    assert TRIEXP.losses[70] < NSTEP.losses[70] < FIX.losses[70]
    for path in (FIX, NSTEP):
        gaps = [np.hypot(*(TRIEXP.points[:71] - point).T).min() for point in path.points[:71]]
        assert max(gaps) < 0.05


def test_at_115_fix_is_still_on_its_way():
    assert TRIEXP.losses[115] < FIX.losses[115] and NSTEP.losses[115] < FIX.losses[115]
    assert distance(FIX.points[115], LOCAL) > 1


def test_at_199_fix_is_in_the_local_and_nstep_in_the_global_minimum():
    assert distance(FIX.points[199], LOCAL) < 0.1
    assert distance(NSTEP.points[199], GLOBAL) < 0.05
    assert np.hypot(*gradient(*NSTEP.points[199])) < 1e-3
    assert NSTEP.losses[199] < FIX.losses[199]


def test_triexp_bounces_around_the_global_minimum_without_coming_to_rest():
    late = TRIEXP.points[115:]
    steps = np.hypot(*np.diff(late, axis=0).T)
    assert steps.mean() > 0.2
    assert len(np.unique(late.round(3), axis=0)) > 70  # no cycle
    assert max(distance(point, GLOBAL) for point in late) < 0.5  # it does not get away, either
    assert TRIEXP.losses[199] > NSTEP.losses[199] + 0.5


def test_the_curvatures_that_decide_it():
    def curvatures(point: np.ndarray) -> list[float]:
        step, (x, y) = 1e-5, point
        rows = [
            (np.array(gradient(x + a, y + b)) - np.array(gradient(x - a, y - b))) / (2 * step)
            for a, b in ((step, 0), (0, step))
        ]
        return sorted(np.linalg.eigvalsh(np.array(rows)))

    assert curvatures(FIX.points[199]) == pytest.approx([29, 49], abs=1)
    assert curvatures(NSTEP.points[199]) == pytest.approx([51, 96], abs=1)
