"""The benchmark's plot: what was found over what was spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .curves import CurveSet
from .results import Run, goal

SHARES = np.geomspace(0.3, 100, 400)


def draw(path: Path, results: Mapping[str, tuple[CurveSet, Mapping[str, Sequence[Run]]]]) -> None:
    """Write a plot with a panel for each set: median and quartiles of each optimiser."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5 * len(results), 5), layout="constrained")
    panels = figure.subplots(1, len(results), squeeze=False)[0]
    for axes, (name, (task, found)) in zip(panels, results.items()):
        for label, runs in found.items():
            _draw_optimiser(axes, label, runs)
        _draw_pool(axes, task)
        axes.set(xscale="log", xlim=(SHARES[0], 100), title=f"{name}: {len(task.policies)} policies")
        axes.set(xlabel="cost (% of training all in full)", ylabel="best Top-1 found (%)")
        axes.grid(alpha=0.3)
    panels[0].legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=120)


def _draw_optimiser(axes: Any, label: str, runs: Sequence[Run]) -> None:
    found = np.array([[run.best_at(share) for share in SHARES] for run in runs])
    low, median, high = np.quantile(found, [0.25, 0.5, 0.75], axis=0)
    (line,) = axes.step(SHARES, median, where="post", label=label)
    axes.fill_between(SHARES, low, high, step="post", alpha=0.12, color=line.get_color(), linewidth=0)


def _draw_pool(axes: Any, task: CurveSet) -> None:
    """The goal, and the range that shows the upper half of the pool; means over the curves' seeds."""
    pools = list(task.curves.values())
    reached = float(np.mean([goal(curves) for curves in pools]))
    bests = np.array([[curve.best for curve in curves] for curves in pools])
    median, top = float(np.median(bests, axis=1).mean()), float(bests.max())
    axes.axhline(reached, color="black", linestyle=":", linewidth=1, label="goal")
    axes.set_ylim(median - (top - median), top + 0.1 * (top - median))
