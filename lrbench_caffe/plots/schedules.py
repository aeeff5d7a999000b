"""Learning rates over iterations, without a training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lrbench_caffe.lr import Composition, FunctionPolicy, Policy
from lrbench_caffe.plots.files import plain, policy_lines
from lrbench_caffe.plots.style import LR, MAX_POINTS, series

if TYPE_CHECKING:
    from matplotlib.figure import Figure

USUAL_LENGTH = 10_000  # iterations; where a policy itself says nothing of a length
LONGEST = 10_000_000  # iterations that may be asked for
CYCLES = 3
FIRST, OTHERS = 500, 500  # iterations of a stretch whose LRs decide which of them are drawn
GOLDEN = (5**0.5 - 1) / 2


def natural_length(policies: Sequence[Policy]) -> int:
    """Iterations that show what policies do: three cycles, six steps, a fifth more than the last boundary.

    >>> from lrbench_caffe.lr import parse
    >>> natural_length([parse("SIN2(k0=0.01, k1=0.06, l=2000)")])
    12000
    """
    return max(_length(policy) for policy in policies)


def _length(policy: Policy) -> int:
    if isinstance(policy, Composition):
        starts = [segment.start for segment in policy.segments if isinstance(segment.start, int)]
        return starts[-1] + _length(policy.segments[-1].policy)
    steps = policy.params.get("l")
    if isinstance(steps, tuple):
        return max(1, round(1.2 * steps[-1]))
    if not isinstance(steps, int):
        return USUAL_LENGTH
    only_once = isinstance(policy, FunctionPolicy) and policy.name in ("POLY", "SIG")
    return 2 * steps if only_once else 2 * CYCLES * steps


def schedule_figure(policies: Sequence[Policy], max_iter: int, *, log: bool = False) -> Figure:
    """Draw the learning rate of one or more policies over iterations.

    Args:
        max_iter: draw iterations 0 to max_iter - 1.
        log: a log axis for the learning rate.

    Raises:
        PolicyError: a policy needs max_iter (see ``Policy.bind``).
    """
    from matplotlib.figure import Figure

    labels = [policy_lines(_described(policy)) for policy in policies]
    lines = sum(label.count("\n") + 1 for label in labels)
    figure = Figure(figsize=(8, 3.5 + 0.18 * lines), layout="constrained")
    axes = figure.subplots()
    for number, (policy, label) in enumerate(zip(policies, labels)):
        t = shown_iterations(policy, max_iter, MAX_POINTS, log=log)
        axes.plot(t, policy(t), linewidth=1, label=label, **series(number))
    axes.set_xlabel("iteration")
    axes.set_ylabel("learning rate")
    if log:
        axes.set_yscale("log", nonpositive="mask")
    else:
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", fontsize=8)
    return plain(figure)


def _described(policy: Policy) -> str:
    """A policy in a legend; what a plateau decides is not known before the training."""
    return f"{policy:.6g}{' (before its plateau)' if policy.pending else ''}"


def shown_iterations(
    policy: Policy, max_iter: int, points: int, *, log: bool = False
) -> np.ndarray:
    """The iterations by which a line of about so many points, at most, shows what a policy does.

    These are all of them or, of each stretch, that with the lowest and that with the highest LR. Those
    at equal distances could all be at the same place of a cycle. Of a long stretch the first
    iterations are looked at, where a cycle that becomes lower is highest, and some of the others.

    Args:
        max_iter: of iterations 0 to max_iter - 1.
        log: whether the LR has a log axis, which has no place for 0.
    """
    if max_iter <= points:
        return np.arange(max_iter)
    step = -(-max_iter // (points // 2))
    looked_at = np.union1d(np.arange(min(step, FIRST)), spread_out(step, OTHERS))
    t = np.minimum(np.arange(0, max_iter, step)[:, None] + looked_at, max_iter - 1)
    lrs = policy(t)
    lows = np.where(lrs > 0, lrs, np.inf) if log else lrs
    rows = np.arange(len(t))
    return np.unique([0, *t[rows, lows.argmin(1)], *t[rows, lrs.argmax(1)], max_iter - 1])


def spread_out(length: int, most: int) -> np.ndarray:
    """At most so many of the iterations 0 to length - 1: all, or some that are in step with no cycle."""
    if length <= most:
        return np.arange(length)
    return np.unique((np.arange(most) * GOLDEN % 1 * length).astype(np.int64))


def function_sheet(policies: Sequence[Policy], max_iter: int, columns: int = 4) -> Figure:
    """Draw a sheet of small pictures, one for each policy: the shapes of the LR functions side by side.

    Args:
        max_iter: draw iterations 0 to max_iter - 1.
    """
    from matplotlib.figure import Figure

    rows = -(-len(policies) // columns)
    figure = Figure(figsize=(2.5 * columns, 1.7 * rows + 0.2), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False).flatten()
    t = np.arange(max_iter)
    top = max(float(policy(t).max()) for policy in policies)
    for axes, policy in zip(panels, policies):
        axes.plot(t, policy(t), color=LR, linewidth=1.2)
        name, _, parameters = f"{policy:.6g}".rstrip(")").partition("(")
        axes.set_title(name, fontsize=9, fontweight="bold", pad=11)
        axes.text(
            0.5,
            1.03,
            parameters,
            transform=axes.transAxes,
            fontsize=5.5,
            ha="center",
            color="#555555",
        )
        axes.set_ylim(0, 1.05 * top)
        axes.tick_params(labelsize=6)
        axes.grid(alpha=0.3)
    for axes in panels[len(policies) :]:
        axes.set_axis_off()
    for axes in panels[max(0, len(policies) - columns) : len(policies)]:
        axes.tick_params(labelbottom=True)
    return plain(figure)
