"""Drawing. What is drawn was measured or calculated elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lrbench_caffe.errors import InputError
from lrbench_caffe.lr import Policy
from lrbench_caffe.metrics import Measurement, best

if TYPE_CHECKING:
    from lrbench_caffe.ranking import Candidate, Criterion

ACCURACY, TEST, TRAIN, LR = "#2a6f97", "#c1121f", "#8d99ae", "#386641"
SUFFIXES = (".png", ".pdf", ".svg")
MAX_POINTS = 4000  # more cannot be told apart on a page


def warm_up() -> threading.Thread:
    """Load the drawing library in the background, while Caffe has the work: it takes about a second."""

    def load() -> None:
        from matplotlib.backends import backend_agg  # noqa: F401
        from matplotlib.figure import Figure  # noqa: F401

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    return thread


def plot_file(flag: str, name: str) -> Path:
    """The file of a plot that a user names; without a suffix it is a PNG.

    Raises:
        InputError: ``flag`` names a folder, a file in no folder, or a suffix that is not known.
    """
    path = Path(name)
    if path.is_dir() or name.endswith("/"):
        raise InputError(f"{flag}: {name} is a folder; allowed: the plot's file")
    if not path.suffix:
        path = path.with_name(f"{path.name}.png")
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{flag}: {name}: unknown suffix {path.suffix}; allowed: {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise InputError(f"{flag}: {name}: no such folder: {path.parent}")
    return path


def training_plot(
    path: Path, title: str, iterations: np.ndarray, measurements: list[Measurement], decisions: list[int]
) -> None:
    """Write a PNG of accuracy, loss and learning rate over iterations.

    Args:
        iterations: shape (n, 3): iteration, lr, training loss.
        measurements: the tests of the first test net.
        decisions: iterations at which a plateau policy went on, marked by lines.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 8), layout="constrained")
    accuracy, loss, lr = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 2])
    figure.suptitle(title, fontsize=10)
    _draw_accuracy(accuracy, [m for m in measurements if m.top1 is not None])
    _draw_loss(loss, iterations, measurements)
    _draw_lr(lr, iterations[:, 0], iterations[:, 1])
    lr.set_xlabel("iteration")
    for axes in (accuracy, loss, lr):
        axes.grid(alpha=0.3)
        for decision in decisions:
            axes.axvline(decision, color="black", linestyle="--", linewidth=0.8)
    figure.savefig(path, dpi=120)


def schedule_plot(path: Path, policies: list[Policy], max_iter: int) -> None:
    """Write a PNG of the learning rate of one or more policies over iterations."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.subplots()
    t = np.arange(max_iter) if max_iter <= 100_000 else np.linspace(0, max_iter - 1, 100_000).astype(int)
    for policy in policies:
        axes.plot(t, policy(t), linewidth=1, label=f"{policy:.6g}")
    axes.set_xlabel("iteration")
    axes.set_ylabel("learning rate")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def _draw_accuracy(axes: Any, tests: list[Measurement]) -> None:
    axes.set_ylabel("Top-1 (%)")
    if not tests:
        return
    values = [m.top1 for m in tests]
    axes.plot([m.iteration for m in tests], values, color=ACCURACY, marker=".", label="Top-1")
    top = best(tests)
    if top is not None and top.top1 is not None:
        axes.axvline(top.iteration, color=ACCURACY, linewidth=0.8, linestyle=":")
        axes.plot([top.iteration], [top.top1], "o", color=ACCURACY)
        label = f"best {top.top1:.2f} % at iteration {top.iteration}"
        axes.plot([], [], "o", color=ACCURACY, label=label)
    # The interesting differences are at the top; the untrained net's accuracy is not one of them.
    low = min((v for v in values[1:] or values if v is not None), default=0.0)
    high = max(v for v in values if v is not None)
    margin = max(0.08 * (high - low), 0.05)
    axes.set_ylim(low - margin, high + margin)
    axes.legend(fontsize=8, loc="lower right")


def _draw_loss(axes: Any, iterations: np.ndarray, measurements: list[Measurement]) -> None:
    axes.set_ylabel("loss")
    t, losses = iterations[:, 0], iterations[:, 2]
    window = max(1, len(t) // 200)
    if len(t):
        axes.plot(*_thin(t, losses), color=TRAIN, alpha=0.35, linewidth=0.5)
        usable = len(t) // window * window
        means = losses[:usable].reshape(-1, window).mean(axis=1)
        axes.plot(t[:usable:window] + window / 2, means, color=TRAIN, label=f"training, mean of {window}")
    tests = [m for m in measurements if m.test_loss is not None]
    if tests:
        axes.plot(
            [m.iteration for m in tests], [m.test_loss for m in tests], color=TEST, marker=".", label="test"
        )
    positive = losses[np.isfinite(losses) & (losses > 0)]
    if len(positive) and positive.max() > 20 * np.median(positive):
        axes.set_yscale("log")
    if len(t) or tests:
        axes.legend(fontsize=8, loc="upper right")


def _draw_lr(axes: Any, t: np.ndarray, lrs: np.ndarray) -> None:
    axes.set_ylabel("learning rate")
    axes.plot(*_thin(t, lrs), color=LR, linewidth=1)
    axes.set_ylim(bottom=0)


def _thin(t: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    step = max(1, len(t) // MAX_POINTS)
    return t[::step], values[::step]


def pareto_plot(
    path: Path, title: str, candidates: Sequence[Candidate], front: Sequence[Candidate], cost: Criterion
) -> None:
    """Write a PNG of Top-1 over cost: every policy a dot, the Pareto front a line with names.

    Args:
        front: some of the candidates, in order of cost.
        cost: the horizontal axis.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    for source, marker in (("measured", "o"), ("paper", "s"), ("imported", "^")):
        _draw_policies(axes, [c for c in candidates if c.summary.source == source], cost, marker, source)
    points = [(x.mean, y.mean) for c in front if (x := c.spread(cost.name)) and (y := c.spread("top1"))]
    axes.step(*zip(*points), where="post", color=TEST, linewidth=1, label="Pareto front")
    for number, (candidate, point) in enumerate(zip(front, points)):
        axes.annotate(
            candidate.summary.policy.text, point, xytext=(6, -11 if number % 2 else 6),
            textcoords="offset points", fontsize=7,
        )  # fmt: skip
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(cost.heading)
    axes.set_ylabel("Top-1 (%)")
    axes.margins(x=0.12, y=0.08)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=120, format="png")


def _draw_policies(
    axes: Any, candidates: Sequence[Candidate], cost: Criterion, marker: str, source: str
) -> None:
    known = [(x, y) for c in candidates if (x := c.spread(cost.name)) and (y := c.spread("top1"))]
    if known:
        axes.errorbar(
            [x.mean for x, _ in known], [y.mean for _, y in known],
            xerr=[x.sd or 0.0 for x, _ in known], yerr=[y.sd or 0.0 for _, y in known],
            fmt=marker, color=ACCURACY, ecolor=TRAIN, elinewidth=0.8, markersize=5, label=source,
        )  # fmt: skip
