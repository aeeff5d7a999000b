"""The benchmark's plot: what was found over what was spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .results import GOAL, Run

SHARES = np.geomspace(0.3, 100, 400)
OURS = "this tuner"
LOWEST = -50  # % of the way: what lies below is of no interest


def draw(path: Path, results: Mapping[str, Mapping[str, Sequence[Run]]]) -> None:
    """Write a plot with a panel for each set: the median of each optimiser, and our quartiles.

    Curves of different seeds have different bests, so that what was found is shown as how much of
    the way from the pool's median to its best it is. An optimiser has one colour in all panels;
    lines of settings that were tuned to the curves are dashed, the bound is black.
    """
    from matplotlib.figure import Figure

    across = min(2, len(results))
    down = -(-len(results) // across)
    figure = Figure(figsize=(6.5 * across, 4.2 * down + 1), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).flat
    names = dict.fromkeys(_name(label) for found in results.values() for label in found)
    colours = {name: f"C{number % 10}" for number, name in enumerate(names)}
    for axes, (name, found) in zip(panels, results.items()):
        for label, runs in found.items():
            _draw_optimiser(axes, label, runs, colours[_name(label)])
        axes.axhline(100 * GOAL, color="black", linestyle=":", linewidth=1)
        axes.set(xscale="log", xlim=(SHARES[0], 100), ylim=(LOWEST, 105), title=name)
        axes.grid(alpha=0.3)
    for axes in figure.axes[-across:]:
        axes.set_xlabel("cost (% of training all in full)")
    figure.supylabel(
        "best Top-1 found (% of the way from the pool's median to its best)", fontsize=10
    )
    lines = {line.get_label(): line for axes in figure.axes for line in axes.lines}
    shown = [(line, label) for label, line in lines.items() if not str(label).startswith("_")]
    figure.legend(*zip(*shown), loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path, dpi=100)


def _name(label: str) -> str:
    """An optimiser without its setting."""
    return label.partition(":")[0]


def _draw_optimiser(axes: Any, label: str, runs: Sequence[Run], colour: str) -> None:
    found = np.array([[run.way.gone(run.best_at(share)) for share in SHARES] for run in runs])
    low, median, high = np.quantile(found, [0.25, 0.5, 0.75], axis=0)
    ours, bound = label == OURS, label.startswith("(")
    tuned = ":" in label and not label.endswith(": defaults")
    axes.step(
        SHARES, median, where="post", label=label, color="black" if bound else colour,
        linestyle="--" if tuned else "-", linewidth=2.5 if ours else 1.2, zorder=3 if ours else 2,
    )  # fmt: skip
    if ours:
        axes.fill_between(SHARES, low, high, step="post", alpha=0.15, color=colour, linewidth=0)
