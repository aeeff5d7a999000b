"""What is read off a rising LR, on losses by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lrbench_caffe.errors import InputError, TrainingError
from lrbench_caffe.tuning.ramp import HIGHEST, LOWEST, Pass, gamma, read
from lrbench_caffe.tuning.request import RangeRequest, TuningRequest

N = 601
LRS = LOWEST * gamma(N) ** np.arange(N)  # a hundred iterations for each decade


def losses(*points: tuple[float, float]) -> np.ndarray:
    """Straight lines over log10 of the LR through (LR, loss)."""
    x, y = zip(*points)
    return np.interp(np.log10(LRS), np.log10(x), y)


def test_the_pass_ends_at_the_highest_lr() -> None:
    assert LRS[-1] == pytest.approx(HIGHEST)


def test_from_where_it_falls_to_where_it_is_lowest() -> None:
    curve = losses((LOWEST, 2.3), (1e-3, 2.3), (1e-1, 0.3), (HIGHEST, 2.0))
    good = read([Pass(LRS, curve)], N)
    # A tenth of the fall of 2.0 is a tenth of two decades above 0.001; the window smooths by 30
    # iterations.
    assert good.low == pytest.approx(1e-3 * 10**0.2, rel=0.15)
    assert good.high == pytest.approx(1e-1, rel=0.25)
    assert good.low <= good.best <= good.high


def test_where_it_diverged_a_third_of_that_lr_is_the_top() -> None:
    curve = losses((LOWEST, 2.3), (1e-3, 2.3), (1e-1, 0.3), (HIGHEST, 0.3))
    curve[LRS > 0.1] = np.nan
    good = read([Pass(LRS, curve), Pass(LRS[:450], curve[:450])], N)
    assert good.high == pytest.approx(0.03, rel=0.1)


def test_where_the_loss_is_above_its_beginning_too() -> None:
    curve = losses((LOWEST, 2.3), (1e-3, 2.3), (1e-1, 0.3), (0.2, 3.0), (HIGHEST, 80.0))
    assert read([Pass(LRS, curve)], N).high == pytest.approx(0.3 * 0.17, rel=0.15)


def test_passes_are_averaged() -> None:
    curve = losses((LOWEST, 2.3), (1e-3, 2.3), (1e-1, 0.3), (HIGHEST, 2.0))
    noise = np.random.default_rng(1).normal(0, 0.2, N)
    assert read([Pass(LRS, curve + noise), Pass(LRS, curve - noise)], N) == read(
        [Pass(LRS, curve)], N
    )


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_no_fall(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 0.02, N)
    with pytest.raises(TrainingError, match="did not fall at any LR"):
        read([Pass(LRS, 2.3 + noise)], N)
    falls = losses(
        (LOWEST, 2.3), (1e-3, 2.3), (1e-1, 2.2), (HIGHEST, 2.3)
    )  # by five times the noise
    assert 1e-4 < read([Pass(LRS, falls + noise)], N).high < 1


def test_unreadable() -> None:
    with pytest.raises(TrainingError, match="did not fall at any LR"):
        read([Pass(LRS, np.linspace(1.0, 2.0, N))], N)
    with pytest.raises(TrainingError, match="after 20 of 601 iterations"):
        read([Pass(LRS, np.where(np.arange(N) < 20, 2.3, np.nan))], N)


@pytest.mark.parametrize("iterations", [0, 1])
def test_a_pass_that_no_loss_can_be_read_from(iterations: int) -> None:
    with pytest.raises(InputError, match=f"^(iterations|--iterations): {iterations}; allowed"):
        RangeRequest(Path("solver.prototxt"), form="ramp", iterations=iterations)


def test_seeds_beyond_all_numbers() -> None:
    with pytest.raises(InputError, match="^seeds: 3000000000; allowed: 1 to 1000"):
        TuningRequest(Path("solver.prototxt"), seeds=3_000_000_000)
