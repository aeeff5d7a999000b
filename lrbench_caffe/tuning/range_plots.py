"""Pictures of the range tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lrbench_caffe.plots import save
from lrbench_caffe.plots.style import ACCURACY, TEST, TRAIN
from lrbench_caffe.plots.sweeps import Point, range_plot
from lrbench_caffe.tuning import ramp
from lrbench_caffe.tuning.ladder import Ladder
from lrbench_caffe.tuning.space import GoodRange


def ladder_plot(path: Path, found: Ladder, good: GoodRange, epoch: float | None) -> None:
    """Top-1 over the LR after each test, as in the paper's Figure 3."""
    curves: dict[str, list[Point]] = {}
    tests = sorted({m.iteration for rung in found.rungs.values() for m in rung.measurements if m.iteration})
    for iteration in tests:
        name = f"{iteration / epoch:.3g} epochs" if epoch else f"{iteration} iterations"
        points = curves.setdefault(name, [])
        for lr in sorted(found.rungs):
            rung = found.rungs[lr]
            values = [m.top1 for m in rung.measurements if m.iteration == iteration and m.top1 is not None]
            if values or rung.diverged:
                points.append(Point(lr, values[0] if values else found.chance))
    range_plot(
        path, curves, good=(good.low, good.high), marks=[good.best],
        close_up=(good.low / 3, good.high * 1.5), note="LR range test: constant LRs (diverged: at chance)",
    )  # fmt: skip


def ramp_plot(path: Path, passes: Sequence[ramp.Pass], iterations: int, good: GoodRange) -> None:
    """The loss over the rising LR, with the range that is read off it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes: Any = figure.subplots()
    for number, found in enumerate(passes):
        axes.plot(
            found.lrs,
            found.losses,
            color=TRAIN,
            linewidth=0.5,
            alpha=0.6,
            label=None if number else "each pass",
        )
    lrs, losses = ramp.smoothed(passes, iterations)
    axes.plot(lrs, losses, color=ACCURACY, label="mean of passes, smoothed")
    axes.axvspan(good.low, good.high, color=TEST, alpha=0.12, label=f"good: {good.low:g} to {good.high:g}")
    axes.set_xscale("log")
    spread = float(losses.max() - losses.min())
    axes.set_ylim(float(losses.min()) - 0.1 * spread, float(np.max(losses)) + 0.5 * spread)
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save(figure, path)
