"""Charts as the chart library takes them: JSON of traces and a layout, drawn by the browser."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from lrbench_caffe.knowledge.ranking import pareto_front
from lrbench_caffe.knowledge.selection import Selection
from lrbench_caffe.lr import Policy, parse
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.plots.style import SERIES
from lrbench_caffe.records import PolicySummary, RunRecord

POINTS = 500  # of a schedule
DIGITS = 5  # of an LR: more cannot be seen
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


def policies_chart(policies: Sequence[Policy], max_iter: int) -> Chart:
    """The LR of policies over the iterations of a training."""
    return _schedules(tuple(map(str, policies)), max_iter)


@lru_cache(maxsize=256)
def _schedules(texts: tuple[str, ...], max_iter: int) -> Chart:
    policies = [parse(text, strict=False).bind(max_iter) for text in texts]
    t = np.unique(np.linspace(0, max_iter - 1, min(max_iter, POINTS)).astype(np.int64))
    traces = [
        {
            "x": t.tolist(),
            "y": [float(f"{lr:.{DIGITS}g}") for lr in np.asarray(policy(t)).tolist()],
            "name": f"{policy:.6g}",
            "mode": "lines",
            "line": _line(number),
        }
        for number, policy in enumerate(policies)
    ]
    return chart("schedules", traces, xaxis={"title": "iteration"}, yaxis={"title": "LR"})


def schedules_chart(summaries: Sequence[PolicySummary]) -> Chart:
    """The policies of results, each over the length of its trainings."""
    bound = [
        parse(text, strict=False).bind(length)
        for text, length in dict.fromkeys((s.policy.text, s.max_iter) for s in summaries)
    ]
    return policies_chart(bound, max((s.max_iter for s in summaries), default=1))


def pareto_chart(selected: Selection) -> Chart:
    """Utility over cost of all policies, with the front of those that none beats in both."""
    utility, cost = selected.order.utility, selected.order.cost
    traces = []
    entries = [e for e in selected.candidates if e.spread(utility.name) and e.spread(cost.name)]
    for number, source in enumerate(dict.fromkeys(e.summary.source for e in entries)):
        own = [e for e in entries if e.summary.source == source]
        traces.append(_points(own, cost.name, utility.name, source, number))
    front = pareto_front(entries, cost, utility)
    spreads = sorted(
        (e.spread(cost.name).mean, e.spread(utility.name).mean)  # type: ignore[union-attr]
        for e in front
    )
    if spreads:
        x, y = zip(*spreads)
        line = {"color": "#666666", "dash": "dot", "shape": "hv"}
        traces.append(
            {
                "x": x,
                "y": y,
                "mode": "lines",
                "name": "Pareto front",
                "line": line,
                "hoverinfo": "skip",
            }
        )
    return chart("pareto", traces, xaxis={"title": cost.heading}, yaxis={"title": utility.heading})


def _points(entries: Sequence[Any], x: str, y: str, name: str, number: int) -> dict[str, Any]:
    return {
        "x": [e.spread(x).mean for e in entries],
        "y": [e.spread(y).mean for e in entries],
        "error_y": {
            "type": "data",
            "array": [e.spread(y).sd or 0 for e in entries],
            "thickness": 1,
        },
        "text": [plain(e.summary.policy.text) for e in entries],
        "hovertemplate": "%{text}<br>%{y:.5g} at %{x:.6g}<extra></extra>",
        "mode": "markers",
        "name": name,
        "marker": {"color": SERIES[number % len(SERIES)], "size": 9},
    }


def runs_chart(records: Sequence[RunRecord]) -> Chart:
    """Top-1, losses and LR of runs over iterations; the page can change the axes."""
    traces: list[dict[str, Any]] = []
    for number, record in enumerate(records):
        tests = [m for m in record.measurements if m.net == 0]
        name = plain(record.policy.text)
        for kind, key in (("top1", "y"), ("test_loss", "y2"), ("train_loss", "y2"), ("lr", "y3")):
            values = [getattr(m, kind) for m in tests]
            if all(value is None for value in values):
                continue
            traces.append(
                {
                    "x": [m.iteration for m in tests],
                    "y": values,
                    "yaxis": key,
                    "name": f"{name}, {kind}" if len(records) > 1 else kind,
                    "meta": {"kind": kind, "epoch": record.epoch, "seconds": _seconds(tests)},
                    "mode": "lines+markers",
                    "line": {
                        "color": SERIES[
                            (number if len(records) > 1 else len(traces)) % len(SERIES)
                        ],
                        "dash": "dash" if kind == "train_loss" else "solid",
                    },
                }
            )
    return chart("curves", traces)


def _seconds(tests: Sequence[Measurement]) -> list[float]:
    return [m.seconds for m in tests]


def plain(text: str) -> str:
    """Text for the chart library, which reads some HTML in its labels."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
