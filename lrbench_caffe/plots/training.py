"""Accuracy, loss and learning rate over iterations: of one training, or of several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lrbench_caffe.metrics import Measurement, best
from lrbench_caffe.plots.files import save
from lrbench_caffe.plots.style import (
    ACCURACY,
    LR,
    TEST,
    TRAIN,
    accuracy_limits,
    needs_log,
    series,
    smooth,
    stretch,
    thin,
)


@dataclass(frozen=True)
class RunCurves:
    """What one training has measured so far.

    Attributes:
        label: for the legend.
        iterations: shape (n, 3): iteration, lr, training loss.
        measurements: the tests of one test net, by iteration.
    """

    label: str
    iterations: np.ndarray
    measurements: list[Measurement]

    @property
    def empty(self) -> bool:
        return not len(self.iterations) and not self.measurements


def training_plot(
    path: Path, title: str, iterations: np.ndarray, measurements: list[Measurement], decisions: list[int]
) -> None:
    """Draw accuracy, loss and learning rate over iterations.

    Args:
        iterations: shape (n, 3): iteration, lr, training loss.
        measurements: the tests of the first test net.
        decisions: iterations at which a plateau policy went on, marked by lines.

    Raises:
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 8), layout="constrained")
    accuracy, loss, lr = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 2])
    figure.suptitle(title, fontsize=10)
    _draw_accuracy(accuracy, [m for m in measurements if m.top1 is not None])
    _draw_loss(loss, iterations, measurements)
    lr.set_ylabel("learning rate")
    lr.plot(*thin(iterations[:, 0], iterations[:, 1]), color=LR, linewidth=1)
    lr.set_ylim(bottom=0)
    lr.set_xlabel("iteration")
    for axes in (accuracy, loss, lr):
        axes.grid(alpha=0.3)
        for decision in decisions:
            axes.axvline(decision, color="black", linestyle="--", linewidth=0.8)
    save(figure, path)


def _draw_accuracy(axes: Any, tests: list[Measurement]) -> None:
    axes.set_ylabel("Top-1 (%)")
    if not tests:
        return
    values = [m.top1 for m in tests if m.top1 is not None]
    axes.plot([m.iteration for m in tests], values, color=ACCURACY, marker=".", label="Top-1")
    top = best(tests)
    if top is not None and top.top1 is not None:
        axes.axvline(top.iteration, color=ACCURACY, linewidth=0.8, linestyle=":")
        axes.plot([top.iteration], [top.top1], "o", color=ACCURACY)
        label = f"best {top.top1:.2f} % at iteration {top.iteration}"
        axes.plot([], [], "o", color=ACCURACY, label=label)
    axes.set_ylim(accuracy_limits([values]))
    axes.legend(fontsize=8, loc="lower right")


def _draw_loss(axes: Any, iterations: np.ndarray, measurements: list[Measurement]) -> None:
    axes.set_ylabel("loss")
    t, losses = iterations[:, 0], iterations[:, 2]
    if len(t):
        axes.plot(*thin(t, losses), color=TRAIN, alpha=0.35, linewidth=0.5)
        length = stretch(len(t))
        axes.plot(*smooth(t, losses, length), color=TRAIN, label=f"training, mean of {length}")
    tests = [m for m in measurements if m.test_loss is not None]
    if tests:
        axes.plot(
            [m.iteration for m in tests], [m.test_loss for m in tests], color=TEST, marker=".", label="test"
        )
    if needs_log(losses):
        axes.set_yscale("log")
    if len(t) or tests:
        axes.legend(fontsize=8, loc="upper right")


def runs_plot(path: Path, runs: Sequence[RunCurves]) -> None:
    """Draw accuracy, loss and learning rate of several trainings over iterations, one colour for each.

    The test losses are lines with dots, the training losses pale ones (means over stretches). The dots of
    the accuracies are the tests, the larger one the first highest Top-1.

    Raises:
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 8.5), layout="constrained")
    accuracy, loss, lr = figure.subplots(3, 1, sharex=True, height_ratios=[4, 3, 2])
    length = stretch(max(len(run.iterations) for run in runs))
    for number, run in enumerate(runs):
        _draw_run(accuracy, loss, lr, run, length, series(number))
    tops = [[m.top1 for m in run.measurements if m.top1 is not None] for run in runs]
    limits = accuracy_limits([top for top in tops if top])
    if limits:
        accuracy.set_ylim(limits)
    if any(needs_log(run.iterations[:, 2]) for run in runs):
        loss.set_yscale("log")
    accuracy.set_ylabel("Top-1 (%)")
    loss.set_ylabel("loss (dots: test, pale: training)")
    lr.set_ylabel("learning rate")
    lr.set_xlabel("iteration")
    lr.set_ylim(bottom=0)
    for axes in (accuracy, loss, lr):
        axes.grid(alpha=0.3)
    figure.legend(*accuracy.get_legend_handles_labels(), loc="outside lower center", fontsize=8)
    save(figure, path)


def _draw_run(accuracy: Any, loss: Any, lr: Any, run: RunCurves, length: int, look: dict[str, Any]) -> None:
    tests = [m for m in run.measurements if m.top1 is not None]
    top = best(tests)
    label = run.label if top is None else f"{run.label}: {top.top1:.2f} % at {top.iteration}"
    accuracy.plot([m.iteration for m in tests], [m.top1 for m in tests], marker=".", label=label, **look)
    if top is not None:
        accuracy.plot([top.iteration], [top.top1], marker="o", color=look["color"])
    t, lrs, losses = run.iterations.T
    if len(t):
        loss.plot(*smooth(t, losses, length), linewidth=1, alpha=0.35, **look)
        lr.plot(*thin(t, lrs), linewidth=1, **look)
    measured = [m for m in run.measurements if m.test_loss is not None]
    loss.plot([m.iteration for m in measured], [m.test_loss for m in measured], marker=".", **look)
