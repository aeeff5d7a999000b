"""Plots of rankings: Top-1 over cost, and the ranking as a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lrbench_caffe.errors import InputError
from lrbench_caffe.plaintext import shortened
from lrbench_caffe.plots.files import (
    LONGEST_LINE,
    OVER_ALL,
    plain,
    policy_label,
    tick_label,
    title_lines,
)
from lrbench_caffe.plots.style import ACCURACY, TEST, TRAIN

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lrbench_caffe.knowledge.criteria import Criterion
    from lrbench_caffe.knowledge.ranking import Ranked, RankingEntry
    from lrbench_caffe.knowledge.selection import Selection
    from lrbench_caffe.records import Spread

OTHER = "#555555"  # numbers of policies that are not on the front
LISTED = 100  # of them; a longer list makes a picture that cannot be looked at
LONGEST_NUMBERS = 24  # characters of those of equal policies
Point = tuple[float, float]  # cost and utility
MARKERS = {"measured": "o", "paper": "s", "imported": "^"}  # by where the numbers come from


def front_figure(selection: Selection) -> Figure:
    """Draw a ranking's first start with its front; policies of others are not to be compared with these.

    Raises:
        InputError: none of its policies has both values.
    """
    from lrbench_caffe.knowledge.ranking import pareto_front

    group, order = selection.groups[0], selection.order
    title = selection.title if len(selection.groups) == 1 else f"{selection.title}; {group.start}"
    front = pareto_front(group.candidates, order.cost, order.utility)
    if not front:
        both = f"{order.utility.heading} and {order.cost.heading}"
        raise InputError(f"no Pareto front to draw: no policy has both {both}")
    return pareto_figure(title, group.candidates, front, order.cost, order.utility)


def pareto_figure(
    title: str,
    candidates: Sequence[RankingEntry],
    front: Sequence[RankingEntry],
    cost: Criterion,
    utility: Criterion,
) -> Figure:
    """Draw utility over cost: every policy a dot with a number, the Pareto front a line.

    The numbers are listed beside the picture, those of the front first.

    Args:
        front: some of the candidates, at least one, in order of cost.
        cost: the horizontal axis; ``utility``: the vertical one.
    """
    from matplotlib.figure import Figure

    ours = {id(candidate) for candidate in front}
    others = [
        (c, point) for c in candidates if id(c) not in ours and (point := _point(c, cost, utility))
    ]
    numbered = others[:LISTED]
    lines = len(front) + len(numbered)  # each 0.17 inches high
    height = max(6.0, 1.5 + 0.18 * lines)
    figure = Figure(figsize=(12, height), layout="constrained")
    axes = figure.subplots()
    for source, marker in MARKERS.items():
        of_source = [c for c in candidates if c.summary.source == source]
        _draw_policies(axes, of_source, (cost, utility), marker, source)
    points = [point for candidate in front if (point := _point(candidate, cost, utility))]
    axes.step(*zip(*points), where="post", color=TEST, linewidth=1, label="Pareto front:")
    for point, numbers in _by_point(points, 1):
        _number_in_front(axes, numbers, point)
    for number, candidate in enumerate(front, 1):
        axes.plot([], [], " ", label=_listed(number, candidate, (cost, utility)))
    if others:
        axes.plot([], [], " ", label="not on it:")
    for point, numbers in _by_point([point for _, point in numbered], len(front) + 1):
        _number_beside(axes, numbers, point)
    for number, (candidate, _) in enumerate(numbered, len(front) + 1):
        axes.plot([], [], " ", label=_listed(number, candidate, (cost, utility)))
    if len(others) > LISTED:
        axes.plot([], [], " ", label=f"and {len(others) - LISTED} more, without a number")
    axes.set_title(title_lines(title), fontsize=10)
    axes.set_xlabel(cost.heading)
    axes.set_ylabel(utility.heading)
    axes.margins(x=0.08, y=0.08)
    axes.grid(alpha=0.3)
    figure.legend(fontsize=8, loc="outside right upper")
    return plain(figure)


def _by_point(points: Sequence[Point], first: int) -> Iterator[tuple[Point, str]]:
    """Each point once, with the numbers of all that are there: "4, 5, 6"."""
    numbers: dict[Point, list[int]] = {}
    for number, point in enumerate(points, first):
        numbers.setdefault(point, []).append(number)
    for point, there in numbers.items():
        yield point, shortened(", ".join(map(str, there)), LONGEST_NUMBERS)


def _number_in_front(axes: Any, numbers: str, point: Point) -> None:
    axes.annotate(
        numbers, point, xytext=(-4, 5), textcoords="offset points", ha="right",
        fontsize=9, fontweight="bold", color=TEST,
    )  # fmt: skip


def _number_beside(axes: Any, numbers: str, point: Point) -> None:
    axes.annotate(
        numbers, point, xytext=(4, 3), textcoords="offset points", fontsize=7, color=OTHER
    )


def _listed(number: int, candidate: RankingEntry, by: tuple[Criterion, Criterion]) -> str:
    """ "3  FIX(k0=0.01): 92.20 at 500", for the list beside a picture."""
    cost, utility = by
    point = _point(candidate, cost, utility)
    values = f": {point[1]:.{utility.digits}f} at {point[0]:.{cost.digits}f}" if point else ""
    return f"{number}  {policy_label(candidate.summary.policy.text, values)}"


def _point(candidate: RankingEntry, cost: Criterion, utility: Criterion) -> Point | None:
    """Cost and utility, None where one is not known."""
    x, y = candidate.spread(cost.name), candidate.spread(utility.name)
    return (x.mean, y.mean) if x and y else None


def _draw_policies(
    axes: Any,
    candidates: Sequence[RankingEntry],
    by: tuple[Criterion, Criterion],
    marker: str,
    source: str,
) -> None:
    cost, utility = by
    known = [
        (x, y) for c in candidates if (x := c.spread(cost.name)) and (y := c.spread(utility.name))
    ]
    if known:
        costs, utilities = zip(*known)
        axes.errorbar(
            _means(costs), _means(utilities), xerr=_deviations(costs), yerr=_deviations(utilities),
            fmt=marker, color=ACCURACY, ecolor=TRAIN, elinewidth=0.8, markersize=5, label=source,
        )  # fmt: skip


def _means(spreads: Sequence[Spread]) -> list[float]:
    return [spread.mean for spread in spreads]


def _deviations(spreads: Sequence[Spread]) -> list[float]:
    return [spread.sd or 0.0 for spread in spreads]


def table_figure(
    title: str, ranked: Sequence[Ranked], cost: Criterion, utility: Criterion
) -> Figure:
    """Draw a ranking: for each policy, the first at the top, its utility with its deviation, and its cost.

    Args:
        ranked: the policies to show, in order.
        cost: what the bars are.
        utility: what the points are.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(11, 1.6 + 0.3 * len(ranked)), layout="constrained")
    accuracy, bars = figure.subplots(1, 2, sharey=True, width_ratios=[2, 1])
    figure.suptitle(title_lines(title, OVER_ALL), fontsize=10)
    for y, row in enumerate(ranked):
        _draw_row(accuracy, bars, y, row.candidate, (cost, utility))
    accuracy.set_yticks(range(len(ranked)), list(map(tick_label, _labels(ranked))))
    accuracy.tick_params(axis="y", labelsize=7, length=0)
    accuracy.set_ylim(len(ranked) - 0.5, -0.5)
    accuracy.set_xlabel(f"{utility.heading}, mean ± deviation")
    accuracy.margins(x=0.1)
    bars.tick_params(axis="y", length=0)
    bars.set_xlabel(cost.heading)
    bars.margins(x=0.2)
    used = {row.candidate.summary.source for row in ranked}
    marks = [
        Line2D([], [], marker=mark, linestyle="", color=ACCURACY, label=source)
        for source, mark in MARKERS.items()
        if source in used
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), fontsize=8)
    for axes in (accuracy, bars):
        axes.grid(axis="x", alpha=0.3)
    return plain(figure)


def _labels(ranked: Sequence[Ranked]) -> list[str]:
    """Policy and place; and the trainings' length and start, where not all are of one."""
    summaries = [row.candidate.summary for row in ranked]
    lengths = len({summary.max_iter for summary in summaries}) > 1
    starts = len({summary.start for summary in summaries}) > 1
    labels = []
    for summary, row in zip(summaries, ranked):
        text = policy_label(
            summary.policy.text,
            f"  of {summary.max_iter}" * lengths + f", {summary.start}" * starts,
        )
        place = "" if row.place is None else f"  {row.place}"
        labels.append(policy_label(text, place, LONGEST_LINE - len(place)))
    return labels


def _draw_row(
    accuracy: Any, bars: Any, y: int, candidate: RankingEntry, by: tuple[Criterion, Criterion]
) -> None:
    cost, utility = by
    reached, spent = candidate.spread(utility.name), candidate.spread(cost.name)
    if reached is not None:
        accuracy.errorbar(
            [reached.mean], [y], xerr=[reached.sd or 0.0], fmt=MARKERS[candidate.summary.source],
            color=ACCURACY, ecolor=TRAIN, elinewidth=1.2, capsize=2 if reached.sd else 0, markersize=5,
        )  # fmt: skip
        text = f"{reached.mean:.{utility.digits}f}"
        accuracy.annotate(text, (reached.mean, y), xytext=(0, 5), textcoords="offset points",
                          ha="center", fontsize=6)  # fmt: skip
    if spent is not None:
        bars.barh([y], [spent.mean], height=0.6, color=TRAIN)
        bars.annotate(f"{spent.mean:.0f}", (spent.mean, y), xytext=(3, 0), textcoords="offset points",
                      va="center", fontsize=7)  # fmt: skip
