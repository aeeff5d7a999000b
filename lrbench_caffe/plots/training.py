"""Accuracy, loss and learning rate over iterations: of one training, or of several side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lrbench_caffe.metrics import (
    METRICS,
    TOP1,
    Measurement,
    best,
    heading_of,
    in_percent,
    of_first_net,
    scalar_names,
    value_of,
)
from lrbench_caffe.plots.files import LONGEST_LINE, plain, plain_label, policy_label, title_lines
from lrbench_caffe.plots.style import (
    ACCURACY,
    LR,
    SERIES,
    TEST,
    TRAIN,
    ValueAxis,
    accuracy_limits,
    needs_log,
    series,
    smooth,
    stretch,
    thin,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OUTPUTS = 10  # in one panel
RANGE = 1000  # of the outputs' sizes, from which on one scale cannot show them all
PERCENT = tuple(name for name, metric in METRICS.items() if metric.percent)
TOP1_OF_HEAD = ".top1"  # how a further head's Top-1 ends among the outputs
FEW = len(SERIES) - 1  # runs that are distinguished by colour; the last one is grey
OTHERS: dict[str, Any] = {
    "color": TRAIN,
    "linewidth": 0.7,
    "alpha": 0.6,
    "zorder": 1,
}  # where there are many


@dataclass(frozen=True)
class Compared:
    """What trainings are compared by in a picture.

    Attributes:
        name: a metric's, or that of an output of the test net.
        higher: whether more of it is better.
    """

    name: str = "top1"
    higher: bool = True

    @property
    def title(self) -> str:
        """Its name: "Top-1"."""
        return METRICS[self.name].title if self.name in METRICS else self.name

    @property
    def heading(self) -> str:
        """Its name with its unit: "Top-1 (%)"."""
        return heading_of(self.name)

    def value(self, measurement: Measurement) -> float | None:
        """Its value in a test, None where it was not measured or is no finite number."""
        value = value_of(measurement, self.name)
        return None if value is None or not math.isfinite(value) else value

    def tests(self, measurements: Sequence[Measurement]) -> list[tuple[int, float]]:
        """Iterations and finite values."""
        found = ((m.iteration, self.value(m)) for m in measurements)
        return [(at, value) for at, value in found if value is not None]

    def best(self, tests: Sequence[tuple[int, float]]) -> tuple[int, float] | None:
        """The first best one."""
        sign = 1 if self.higher else -1
        return max(tests, key=lambda test: sign * test[1], default=None)

    def text(self, value: float) -> str:
        return TOP1.text(value) if in_percent(self.name) else f"{value:.4g}"

    def number(self, value: float | None) -> str:
        """The same without its unit, "-" for none."""
        return "-" if value is None else self.text(value).removesuffix(" %")

    def axis(self, values: Sequence[float]) -> ValueAxis:
        """Its axis, logarithmic for what falls by orders of magnitude, as a loss."""
        log = not self.higher and min(values, default=0.0) > 0
        return ValueAxis(plain_label(self.heading), in_percent(self.name), log)


TOP1_HIGH = Compared()


@dataclass(frozen=True)
class RunCurves:
    """The measurements of one training so far.

    Attributes:
        label: for the legend.
        iterations: shape (n, 3): iteration, lr, training loss.
        measurements: the tests of one test net, by iteration.
        diverged: whether it did; its losses and LRs do not decide what the axes show, then.
    """

    label: str
    iterations: np.ndarray
    measurements: list[Measurement]
    diverged: bool = False

    def best(self, by: Compared) -> tuple[int, float] | None:
        """Iteration and value of the first best test; None without one."""
        return by.best(by.tests(self.measurements))

    def text(self, by: Compared) -> str:
        """ "SIN2(...), seed 1: 98.20 % at 600", for the legend."""
        top = self.best(by)
        value = "" if top is None else f": {by.text(top[1])} at {top[0]}"
        return policy_label(self.label, value, LONGEST_LINE - len(value))

    @property
    def empty(self) -> bool:
        return not len(self.iterations) and not self.measurements


def training_figure(
    title: str, iterations: np.ndarray, measurements: list[Measurement], decisions: list[int]
) -> Figure:
    """Draw accuracy, loss, the nets' own outputs and learning rate over iterations.

    A net that does not classify has no accuracy, and no outputs that the other panels show
    already. Before the first test it is not known whether it does.

    Args:
        iterations: shape (n, 3): iteration, lr, training loss.
        measurements: the tests of all test nets; accuracy and loss are those of the first.
        decisions: iterations at which a plateau policy moved to its next segment, marked by lines.
    """
    from matplotlib.figure import Figure

    first = of_first_net(measurements)
    rated = [m for m in first if m.top1 is not None]
    outputs = _output_series(measurements)
    accuracy = bool(rated) or not measurements
    heights = [3] * accuracy + [3] + [3] * bool(outputs) + [2]
    figure = Figure(figsize=(8, 8 if len(heights) < 4 else 10), layout="constrained")
    panels = list(figure.subplots(len(heights), 1, sharex=True, height_ratios=heights))
    panels[0].set_title(title_lines(title), fontsize=10)
    if accuracy:
        _draw_accuracy(panels[0], rated)
        _draw_further_heads(panels[0], first)
    _draw_loss(panels[accuracy], iterations, first)
    if outputs:
        _draw_outputs(panels[-2], outputs)
    lr = panels[-1]
    lr.set_ylabel("learning rate")
    lr.plot(*thin(iterations[:, 0], iterations[:, 1]), color=LR, linewidth=1)
    lr.set_ylim(bottom=0)
    lr.set_xlabel("iteration")
    for axes in panels:
        axes.grid(alpha=0.3)
        for decision in decisions:
            axes.axvline(decision, color="black", linestyle="--", linewidth=0.8)
    return plain(figure)


def _output_series(measurements: list[Measurement]) -> dict[str, list[tuple[int, float]]]:
    """(iteration, value) of the scalar outputs of all test nets, by name, but for those shown already."""
    scalars = {
        net: set(scalar_names(m.outputs for m in measurements if m.net == net))
        for net in {m.net for m in measurements}
    }
    series: dict[str, list[tuple[int, float]]] = {}
    shown: dict[str, bool] = {}
    for m in measurements:
        shares = [value / 100 for name in PERCENT if (value := getattr(m, name)) is not None]
        known = [m.test_loss, *shares] if m.of_first_net else []
        for name, value in m.outputs.items():
            if name not in scalars[m.net]:
                continue
            if f"{name.rpartition('.')[0]}{TOP1_OF_HEAD}" in m.outputs:
                continue  # a further head's, whose Top-1 is beside the main one's
            label = f"{name} (test net #{m.net})" if len(scalars) > 1 else name
            series.setdefault(label, []).append((m.iteration, value))
            same = m.of_first_net and any(
                v is not None and math.isclose(value, v, rel_tol=1e-5) for v in known
            )
            shown[label] = shown.get(label, True) and same
    return {label: points for label, points in series.items() if not shown[label]}


def _draw_outputs(axes: Any, outputs: dict[str, list[tuple[int, float]]]) -> None:
    axes.set_ylabel("test net outputs")
    for number, (label, points) in enumerate(list(outputs.items())[:OUTPUTS]):
        axes.plot(*zip(*points), marker=".", label=plain_label(label), **series(number))
    sizes = [abs(value) for points in outputs.values() for _, value in points if value]
    if sizes and max(sizes) > RANGE * min(sizes):
        axes.set_yscale("symlog", linthresh=min(sizes))
    if len(outputs) > OUTPUTS:
        axes.plot([], [], " ", label=f"and {len(outputs) - OUTPUTS} more (measurements.jsonl)")
    axes.legend(fontsize=8, loc="best")


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
        label = f"best {TOP1.text(top.top1)} at iteration {top.iteration}"
        axes.plot([], [], "o", color=ACCURACY, label=label)
    axes.set_ylim(accuracy_limits([values]))
    axes.legend(fontsize=8, loc="lower right")


def _draw_further_heads(axes: Any, tests: list[Measurement]) -> None:
    names = dict.fromkeys(name for m in tests for name in m.outputs if name.endswith(TOP1_OF_HEAD))
    for number, name in enumerate(names):
        points = [(m.iteration, m.outputs[name]) for m in tests if name in m.outputs]
        look = {**series(number), "linestyle": "--"}
        axes.plot(
            *zip(*points),
            marker=".",
            linewidth=1,
            label=plain_label(name.removesuffix(TOP1_OF_HEAD)),
            **look,
        )
    if names:
        axes.set_ylim(-2, 102)
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
            [m.iteration for m in tests],
            [m.test_loss for m in tests],
            color=TEST,
            marker=".",
            label="test",
        )
    if needs_log(losses):
        axes.set_yscale("log")
    if len(t) or tests:
        axes.legend(fontsize=8, loc="upper right")


def runs_figure(title: str, runs: Sequence[RunCurves], by: Compared = TOP1_HIGH) -> Figure:
    """Draw what several trainings are compared by, loss and learning rate, one colour for each.

    The test losses are lines with dots, the training losses pale ones (means over stretches). The
    dots at the top are the tests, the larger one the first best one. Where there are more than
    ``FEW`` runs the best are coloured and the others grey; the legend has all, the best first.

    Args:
        title: data, net and seeds.
        by: what they are compared by.
    """
    from matplotlib.figure import Figure

    many = len(runs) > FEW
    figure = Figure(figsize=(14 if many else 9, 8.5), layout="constrained")
    result, loss, lr = figure.subplots(3, 1, sharex=True, height_ratios=[4, 3, 2])
    # Over the axes, whose middle is not the figure's.
    result.set_title(title_lines(title), fontsize=10)
    length = stretch(max(len(run.iterations) for run in runs))
    shown = sorted(runs, key=lambda run: _badness(run, by)) if many else list(runs)
    for number, run in enumerate(shown):
        look = series(number) if number < FEW else OTHERS
        _draw_run((result, loss, lr), run, by, length, look)
    whole = [run for run in shown if not run.diverged] or shown
    curves = [later for run in whole[:FEW] if (later := _later(run, by))]
    top = by.best([best for run in shown if (best := run.best(by))])
    curves += [[top[1]]] if top else []  # one that diverged may have the best test of all
    axis = by.axis([value for curve in curves for value in curve])
    axis.label(result)
    limits = axis.limits(curves)
    if limits:
        result.set_ylim(limits)
    _limit_loss(loss, whole, length)
    loss.set_ylabel("loss (dots: test, pale: training)")
    lr.set_ylabel("learning rate")
    lr.set_xlabel("iteration")
    highest = max(
        (float(run.iterations[:, 1].max()) for run in whole if len(run.iterations)), default=None
    )
    lr.set_ylim(bottom=0, top=None if highest is None else 1.05 * highest)
    for axes in (result, loss, lr):
        axes.grid(alpha=0.3)
    handles, labels = result.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside right upper" if many else "outside lower center", fontsize=8
    )
    return plain(figure)


def _badness(run: RunCurves, by: Compared) -> float:
    """A run's best test as a number of which less is better; infinity without one."""
    best = run.best(by)
    return math.inf if best is None else best[1] * (-1 if by.higher else 1)


def _later(run: RunCurves, by: Compared) -> list[float]:
    """Its values without the first quarter of the tests, in which they come from those of chance.

    Where the best test is among these, they begin with it.
    """
    tests, best = by.tests(run.measurements), run.best(by)
    first = len(tests) // 4 if best is None else min(len(tests) // 4, tests.index(best))
    return [value for _, value in tests[first:]]


def _limit_loss(axes: Any, runs: Sequence[RunCurves], length: int) -> None:
    """Show the losses of these runs; what others have beyond them is cut off."""
    losses = [smooth(run.iterations[:, 0], run.iterations[:, 2], length)[1] for run in runs]
    losses += [
        np.array([m.test_loss for m in run.measurements if m.test_loss is not None]) for run in runs
    ]
    values = np.concatenate(losses)
    values = values[np.isfinite(values)]
    if any(needs_log(run.iterations[:, 2]) for run in runs) and (values > 0).any():
        axes.set_yscale("log")
        positive = values[values > 0]
        axes.set_ylim(0.8 * positive.min(), 1.25 * positive.max())
    elif len(values):
        margin = max(0.05 * float(np.ptp(values)), 1e-9)
        axes.set_ylim(values.min() - margin, values.max() + margin)


def _draw_run(
    panels: tuple[Any, Any, Any], run: RunCurves, by: Compared, length: int, look: dict[str, Any]
) -> None:
    result, loss, lr = panels
    tests, top = by.tests(run.measurements), run.best(by)
    dots = "" if look is OTHERS else "."
    result.plot(
        [at for at, _ in tests], [value for _, value in tests],
        marker=dots, label=plain_label(run.text(by)), **look,
    )  # fmt: skip
    if top is not None and dots:
        result.plot([top[0]], [top[1]], marker="o", color=look["color"])
    t, lrs, losses = run.iterations.T
    if len(t):
        loss.plot(*smooth(t, losses, length), **{"linewidth": 1, **look, "alpha": 0.35})
        lr.plot(*thin(t, lrs), **{"linewidth": 1, **look})
    measured = [m for m in run.measurements if m.test_loss is not None]
    loss.plot([m.iteration for m in measured], [m.test_loss for m in measured], marker=dots, **look)
