"""The benchmark's plot: what was found over what was spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .results import GOAL, Run

SHARES = np.geomspace(0.3, 100, 400)
LOWEST = -50  # % of the way: what lies below is of no interest


def draw(path: Path, results: Mapping[str, Mapping[str, Sequence[Run]]]) -> None:
    """Write a plot with a panel for each set: median and quartiles of each optimiser.

    Curves of different seeds have different bests, so that what was found is shown as how much of
    the way from the pool's median to its best it is.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5 * len(results), 5), layout="constrained")
    panels = figure.subplots(1, len(results), squeeze=False, sharey=True)[0]
    for axes, (name, found) in zip(panels, results.items()):
        for label, runs in found.items():
            _draw_optimiser(axes, label, runs)
        axes.axhline(100 * GOAL, color="black", linestyle=":", linewidth=1, label="goal")
        axes.set(xscale="log", xlim=(SHARES[0], 100), ylim=(LOWEST, 105), title=name)
        axes.set_xlabel("cost (% of training all in full)")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("best Top-1 found (% of the way from the pool's median to its best)")
    panels[0].legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=120)


def _draw_optimiser(axes: Any, label: str, runs: Sequence[Run]) -> None:
    found = np.array([[run.way.gone(run.best_at(share)) for share in SHARES] for run in runs])
    low, median, high = np.quantile(found, [0.25, 0.5, 0.75], axis=0)
    (line,) = axes.step(SHARES, median, where="post", label=label)
    axes.fill_between(
        SHARES, low, high, step="post", alpha=0.12, color=line.get_color(), linewidth=0
    )
