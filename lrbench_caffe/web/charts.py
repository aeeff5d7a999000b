"""Charts as the chart library takes them: JSON of traces and a layout, drawn by the browser."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

from lrbench_caffe.knowledge.criteria import Criterion
from lrbench_caffe.knowledge.ranking import RankingEntry, pareto_front
from lrbench_caffe.knowledge.selection import Selection
from lrbench_caffe.lr import Policy, parse
from lrbench_caffe.metrics import Measurement, of_first_net, value_of
from lrbench_caffe.plaintext import shortened
from lrbench_caffe.plots.schedules import shown_iterations
from lrbench_caffe.plots.style import SERIES
from lrbench_caffe.plots.training import TOP1_HIGH, Compared
from lrbench_caffe.records import PolicySummary, RunRecord

POINTS = 1000  # of a schedule, about
SCHEDULE_POINTS = 500  # where eight of them are on a page with much else
DIGITS = 5  # of a number in a picture: more cannot be seen
MOST_DOTS = 300  # policies in a Pareto picture: the front, and those that are ranked first
Chart = str  # JSON that is safe within an element of HTML
DASHES = ("solid", "dash", "dot", "dashdot")


def chart(name: str, traces: Sequence[dict[str, Any]], **layout: Any) -> Chart:
    """A chart's JSON. What would end the element that holds it is written as JSON's escapes."""
    text = json.dumps({"name": name, "traces": traces, "layout": layout}, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _line(number: int) -> dict[str, Any]:
    return {
        "color": SERIES[number % len(SERIES)],
        "dash": DASHES[number // len(SERIES) % len(DASHES)],
    }


def policies_chart(
    policies: Sequence[Policy], max_iter: int, points: int = POINTS, *, log: bool = False
) -> Chart:
    """The LR of policies over the iterations of a training (see ``shown_iterations``)."""
    return _schedules(tuple(map(str, policies)), max_iter, points, log)


@lru_cache(maxsize=256)
def _schedules(texts: tuple[str, ...], max_iter: int, points: int, log: bool) -> Chart:
    policies = [parse(text, strict=False).bind(max_iter) for text in texts]
    shown = [shown_iterations(policy, max_iter, points, log=log) for policy in policies]
    traces = [
        {
            "x": t.tolist(),
            "y": short(policy(t).tolist()),
            "name": plain(f"{policy:.6g}"),
            "mode": "lines",
            "line": _line(number),
        }
        for number, (policy, t) in enumerate(zip(policies, shown))
    ]
    scale = {"type": "log"} if log else {}
    return chart("schedules", traces, xaxis={"title": "iteration"}, yaxis={"title": "LR", **scale})


def short(values: Iterable[float], digits: int = DIGITS) -> list[float | None]:
    """Numbers with the digits that a picture can show, so that the page is small."""
    return [float(f"{v:.{digits}g}") if math.isfinite(v) else None for v in values]


def schedules_chart(summaries: Sequence[PolicySummary]) -> Chart:
    """The policies of results, each over the length of its trainings."""
    return policies_chart(*schedules_of(summaries), SCHEDULE_POINTS)


def schedules_of(summaries: Sequence[PolicySummary]) -> tuple[list[Policy], int]:
    """The policies of results, bound to the length of their trainings, and the longest one."""
    bound = [
        parse(text, strict=False).bind(length)
        for text, length in dict.fromkeys((s.policy.text, s.max_iter) for s in summaries)
    ]
    return bound, max((s.max_iter for s in summaries), default=1)


def pareto_chart(selected: Selection) -> Chart | None:
    """Utility over cost of the first start's policies, with the front of those that none beats in both.

    None where no policy has both values.
    """
    utility, cost = selected.order.utility, selected.order.cost
    traces = []
    every = [e for group in selected.groups[:1] for e in group.candidates]
    front = pareto_front(every, cost, utility)
    if not front:
        return None
    ranked = [row.candidate for group in selected.groups[:1] for row in group.ranked]
    entries: dict[int, RankingEntry] = {}
    for entry in chain(front, ranked, every):
        if len(entries) == MOST_DOTS:
            break
        if entry.spread(utility.name) and entry.spread(cost.name):
            entries[id(entry)] = entry
    for number, source in enumerate(dict.fromkeys(e.summary.source for e in entries.values())):
        own = [e for e in entries.values() if e.summary.source == source]
        traces.append(_points(own, cost, utility, source, number))
    spreads = sorted(
        (e.spread(cost.name).mean, e.spread(utility.name).mean)  # type: ignore[union-attr]
        for e in front
    )
    x, y = zip(*spreads)
    line = {"color": "#666666", "dash": "dot", "shape": "hv"}
    ring = {"color": "#666666", "symbol": "circle-open", "size": 16, "line": {"width": 2}}
    traces.append(
        {
            "x": x,
            "y": y,
            "mode": "lines+markers",
            "name": "Pareto front",
            "line": line,
            "marker": ring,
            "hoverinfo": "skip",
        }
    )
    titles = plain(cost.heading), plain(utility.heading)
    return chart("pareto", traces, xaxis={"title": titles[0]}, yaxis={"title": titles[1]})


def _points(
    entries: Sequence[Any], cost: Criterion, utility: Criterion, name: str, number: int
) -> dict[str, Any]:
    over, of = plain(cost.heading), plain(utility.heading)
    return {
        "x": [e.spread(cost.name).mean for e in entries],
        "y": [e.spread(utility.name).mean for e in entries],
        "error_y": {
            "type": "data",
            "array": [e.spread(utility.name).sd or 0 for e in entries],
            "thickness": 1,
        },
        "text": [plain(e.summary.policy.text) for e in entries],
        "hovertemplate": f"%{{text}}<br>{of} %{{y:.5g}}, {over} %{{x:.6g}}<extra></extra>",
        "mode": "markers",
        "name": name,
        "marker": {"color": SERIES[number % len(SERIES)], "size": 9},
    }


@dataclass(frozen=True)
class Axes:
    """How the curves of runs are drawn.

    Attributes:
        x: "iteration", "epoch" or "seconds".
        smooth: tests in a moving mean of Top-1 and losses; 1 for the values as they are.
        log: axes that are logarithmic, of "x", "error", "loss" and "lr". With "error" the error,
            100 - Top-1, is drawn in place of Top-1.
    """

    x: str = "iteration"
    smooth: int = 1
    log: tuple[str, ...] = ()


_TITLES = {"test_loss": "test loss", "train_loss": "training loss", "lr": "LR"}
_PANELS = {"compared": "y", "test_loss": "y2", "train_loss": "y2", "lr": "y3"}
LOG_AXES = ("x", "error", "loss", "lr")
_MOST_TESTS = 2000  # of all runs in a picture


def runs_chart(
    records: Sequence[RunRecord], axes: Axes = Axes(), by: Compared = TOP1_HIGH
) -> Chart:
    """What runs are compared by, losses and LR of runs side by side.

    A run without epochs is left out over epochs.
    """
    error = by.name == "top1" and "error" in axes.log
    titles = {**_TITLES, "compared": "error" if error else by.title}
    traces: list[dict[str, Any]] = []
    for number, record in enumerate(records):
        tests = of_first_net(record.measurements)
        tests = tests[:: -(-len(tests) * len(records) // _MOST_TESTS) or 1]
        kinds = [
            (kind, place, points)
            for place, kind in enumerate(_PANELS)
            if (points := _points_of(record, tests, kind, axes, by))
        ]
        for shown, (kind, place, points) in enumerate(kinds):
            colour = number if len(records) > 1 else place
            title = plain(shortened(titles[kind], 100))
            name = run_name(record) if len(records) > 1 else title
            traces.append(
                {
                    "x": short((x for x, _ in points), 8),
                    "y": short(value for _, value in points),
                    "yaxis": _PANELS[kind],
                    "name": plain(shortened(name, 100)),
                    "legendgroup": str(number if len(records) > 1 else place),
                    "showlegend": len(records) == 1 or shown == 0,  # a run is there once
                    "hovertemplate": f"{title} %{{y:.5g}} at {axes.x} %{{x:.6g}}",
                    "mode": "lines+markers" if len(points) < 200 else "lines",
                    "line": {
                        "color": SERIES[colour % len(SERIES)],
                        "dash": "dash" if kind == "train_loss" else "solid",
                    },
                }
            )
    log = {name: {"type": "log"} if name in axes.log else {} for name in LOG_AXES}
    heading = plain(shortened(by.heading, 100))
    top = {"title": "error, 100 - Top-1 (%)", **log["error"]} if error else {"title": heading}
    return chart(
        "curves",
        traces,
        xaxis={"title": axes.x, **log["x"]},
        yaxis=top,
        yaxis2={"title": "loss", **log["loss"]},
        yaxis3={"title": "LR", **log["lr"]},
    )


def _points_of(
    record: RunRecord, tests: Sequence[Measurement], kind: str, axes: Axes, by: Compared
) -> list[tuple[float, float]]:
    """Places and values of one of ``_PANELS``, smoothed."""
    name = by.name if kind == "compared" else kind
    points = [
        (x, value)
        for m in tests
        if (x := _over(record, m, axes.x)) is not None
        and (value := m.lr if kind == "lr" else value_of(m, name)) is not None
    ]
    values = [value for _, value in points]
    if name == "top1" and "error" in axes.log:
        values = [100 - value for value in values]
    smooth = values if kind == "lr" else moving_mean(values, axes.smooth)
    return [(x, value) for (x, _), value in zip(points, smooth)]


def run_name(record: RunRecord) -> str:
    """What tells a run from others of its task: its policy and its seed."""
    return record.policy.text + ("" if record.seed is None else f", seed {record.seed}")


def _over(record: RunRecord, test: Measurement, x: str) -> float | None:
    """A test's place on the horizontal axis, None where it is not known."""
    if x == "seconds":
        return test.seconds
    if x == "epoch":
        return test.iteration / record.epoch if record.epoch else None
    return test.iteration


def moving_mean(values: Sequence[float], length: int) -> list[float]:
    """The mean of each value and those before it, at most ``length`` of them.

    What is not a finite number stays so, and is not counted.

    >>> moving_mean([1.0, 3.0, math.inf, 5.0], 3)
    [1.0, 2.0, inf, 4.0]
    """
    windows = (values[max(0, end - length) : end] for end in range(1, len(values) + 1))
    return [_finite_mean(window) for window in windows]


def _finite_mean(window: Sequence[float]) -> float:
    """The mean of the finite values, or the last value where that is none of them."""
    if not math.isfinite(window[-1]):
        return window[-1]
    finite = [value for value in window if math.isfinite(value)]
    return math.fsum(finite) / len(finite)


def plain(text: str) -> str:
    """Text for the chart library, which reads some HTML in its labels."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
