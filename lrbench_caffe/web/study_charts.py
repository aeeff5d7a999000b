"""Charts of a tuning or range test."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lrbench_caffe.lr import Policy
from lrbench_caffe.plaintext import shortened
from lrbench_caffe.plots.style import SERIES
from lrbench_caffe.tuning.importance import ComparedTraining
from lrbench_caffe.tuning.measure import Measure
from lrbench_caffe.tuning.trainings import FINAL, OWN
from lrbench_caffe.web.charts import Chart, chart, plain, short
from lrbench_caffe.web.tunings import FoundStudy, StudyTraining, losses_of

POINTS = 300  # of the losses of a pass
MOST_LINES = 100  # candidates in parallel coordinates
MOST_CURVES, MOST_POINTS = 60, 2000  # learning curves in a picture, and their tests
WIDE = 20.0
GREY = "#8d99ae"


def cost_chart(study: FoundStudy, trainings: Sequence[StudyTraining]) -> Chart:
    """The best test of each training, and the best so far, over all iterations up to its end.

    Those that were to measure a policy on the test set, not to choose it, count as cost only.

    Args:
        trainings: in the order in which they were written to last.
    """
    costs = itertools.accumulate(study.scale(t) * t.iteration for t in trainings)
    measure = study.measure
    judged = ((cost, t) for cost, t in zip(costs, trainings) if study.judges(t))
    ended = [(round(cost), t, t.best[1]) for cost, t in judged if t.best is not None]
    values = [value for _, _, value in ended]
    best = list(itertools.accumulate(values, max if measure.higher else min))
    x = [cost for cost, _, _ in ended]
    texts = [plain(shortened(t.title, 100)) for _, t, _ in ended]
    dots = {
        "x": x, "y": short(values), "text": texts, "mode": "markers",
        "name": "a training", "marker": {"color": SERIES[0], "size": 7},
        "hovertemplate": f"%{{text}}<br>{_shown(measure)} after %{{x:,}} iterations<extra></extra>",
    }  # fmt: skip
    line = {
        "x": x, "y": short(best), "mode": "lines", "name": "best so far",
        "line": {"color": SERIES[1], "shape": "hv"},
    }  # fmt: skip
    return chart(
        "study", [line, dots], xaxis={"title": "iterations of all trainings", "rangemode": "tozero"},
        yaxis={**_axis(measure, values, study.judged_on), **_limits(measure, values)},
    )  # fmt: skip


def _shown(measure: Measure) -> str:
    """A value in a chart's template."""
    return "%{y:.2f} %" if measure.percent else "%{y:.4g}"


def _axis(measure: Measure, values: Sequence[float], on: str = "") -> dict[str, Any]:
    """An axis of what is compared by; of a loss it is logarithmic.

    Args:
        on: the records that it was measured on, behind its name.
    """
    log = _is_log(measure, values)
    return {"title": plain(measure.heading + on), **({"type": "log"} if log else {})}


def _is_log(measure: Measure, values: Sequence[float]) -> bool:
    return measure.is_log and all(value > 0 for value in values)


def _limits(measure: Measure, values: Sequence[float]) -> dict[str, Any]:
    """Limits of an axis that tell the better ones apart: what is far worse than most is beyond them.

    A logarithmic axis shows all.
    """
    if not values or _is_log(measure, values):
        return {}
    goods = [measure.goodness(value) for value in values]
    low, high = lowest_shown(goods)[0], max(goods)
    margin = max(0.05 * (high - low), 0.05 if measure.percent else 1e-3 * abs(high))
    return {"range": sorted(measure.goodness(end) for end in (low - margin, high + margin))}


def beyond(measure: Measure, values: Sequence[float]) -> int:
    """How many of the values are beyond the limits of the axis."""
    if not values or _is_log(measure, values):
        return 0
    return lowest_shown([measure.goodness(value) for value in values])[1]


def lowest_shown(goods: Sequence[float]) -> tuple[float, int]:
    """Where an axis on which more is better begins, and how many of the values are below it.

    It is the lowest value or, if that is higher, as far below the lowest quarter as the best is above.
    """
    best, quarter = max(goods), float(np.percentile(goods, 25, method="lower"))
    low = max(min(goods), 2 * quarter - best)
    return low, sum(good < low for good in goods)


def curves_chart(study: FoundStudy, rows: Sequence[tuple[StudyTraining, str]]) -> Chart:
    """The tests of the trainings over their iterations: the finalists and the solver's own in colour.

    With held-out records these are their trainings on all records, tested on the test set. What was
    tested on held-out records is grey: the two are not to be compared. Those with another batch are
    drawn over the iterations of the solver's own that read as many records.

    Args:
        rows: trainings and what each was for, the best first.
    """
    traces: list[dict[str, Any]] = []
    measure = study.measure
    others = "on held-out records" if study.holdout else "other trainings"
    measuring = [(t, stage) for t, stage in rows if study.measures(t)]
    told_apart = list(dict.fromkeys(t.title for t, stage in measuring if stage in (FINAL, OWN)))

    def is_told_apart(training: StudyTraining) -> bool:
        return study.measures(training) and training.title in told_apart

    ordered = sorted(rows, key=lambda row: not is_told_apart(row[0]))
    tested = [(t, stage) for t, stage in ordered if len(t.tests) > 1][:MOST_CURVES]
    step = -(-sum(len(t.tests) for t, _ in tested) // MOST_POINTS) or 1
    named: set[str] = set()
    for training, stage in reversed(tested):  # these, the best last, are drawn over the others
        known, scale = is_told_apart(training), study.scale(training)
        name = shortened(training.title, 100) if known else others
        colour = SERIES[told_apart.index(training.title) % len(SERIES)] if known else GREY
        trained = training.tests[1:] if training.tests[0][0] == 0 else training.tests
        points = trained[::step]
        what = plain(shortened(f"{training.title}, {stage}", 120))
        traces.append(
            {
                "x": [round(scale * iteration) for iteration, _ in points],
                "y": short(value for _, value in points),
                "name": plain(name),
                "legendgroup": name,
                "showlegend": name not in named,
                "hovertemplate": f"{what}<br>{_shown(measure)} after %{{x:,}} iterations<extra></extra>",
                "mode": "lines+markers",
                "marker": {"size": 4, "color": colour},
                "line": {"color": colour, "width": 2 if known else 1},
            }
        )
        named.add(name)
    values = [value for trace in traces for value in trace["y"] if value is not None]
    axis = {**_axis(measure, values), **_limits(measure, values)}
    scaled = any(study.scale(t) != 1 for t, _ in tested)
    title = "iteration" + ", as of the own batch" * scaled
    return chart("study", traces, xaxis={"title": title}, yaxis=axis)


def range_chart(study: FoundStudy, trainings: Sequence[StudyTraining], until: int) -> Chart | None:
    """What a range test saw over the LR; None without one.

    Args:
        until: the iteration at which the ladder's trainings ended; some were continued later.
    """
    seed = (study.result or {}).get("seed", study.plan.get("seed"))  # of the last range test
    ladder = _ladder_traces([t for t in trainings if t.seed == seed], until)
    traces = ladder or _ramp_traces(trainings)
    if not traces:
        return None
    shapes = []
    if study.good is not None:
        low, high = study.good
        band = {
            "type": "rect",
            "xref": "x",
            "yref": "paper",
            "x0": low,
            "x1": high,
            "y0": 0,
            "y1": 1,
        }
        edge = {"color": SERIES[1], "width": 1, "dash": "dash"}
        shapes.append({**band, "fillcolor": "rgba(213,94,0,0.12)", "line": edge})
    values = [value for trace in ladder for value in trace["y"] if value is not None]
    return chart(
        "study",
        traces,
        xaxis={"title": "learning rate", "type": "log"},
        yaxis=_axis(study.measure, values, study.judged_on)
        if ladder
        else {"title": "training loss", **_loss_limits(traces)},
        shapes=shapes,
    )


def _ladder_traces(trainings: Sequence[StudyTraining], until: int) -> list[dict[str, Any]]:
    """Top-1 over a constant LR, a line for each test."""
    points: dict[int, list[tuple[float, float]]] = {}
    for training in trainings:
        lr = constant_lr(training.parsed)
        if lr:
            for iteration, top1 in (test for test in training.tests if test[0] <= until):
                points.setdefault(iteration, []).append((lr, top1))
    lines = [(at, sorted(found)) for at, found in sorted(points.items()) if at and len(found) > 1]
    return [
        {
            "x": short(lr for lr, _ in found),
            "y": short(top1 for _, top1 in found),
            "name": f"after {iteration} iterations",
            "mode": "lines+markers",
            "line": {"color": SERIES[number % len(SERIES)]},
        }
        for number, (iteration, found) in enumerate(lines[: len(SERIES)])
    ]


def constant_lr(policy: Policy | None) -> float | None:
    """The LR of a FIX policy; None for another."""
    if policy is None or policy.function != "FIX":
        return None
    value = policy.params["k0"]
    return float(value) if isinstance(value, (int, float)) else None


def _ramp_traces(trainings: Sequence[StudyTraining]) -> list[dict[str, Any]]:
    """The training loss over an LR that rises, a line for each pass."""
    passes = [(t, losses_of(t, POINTS)) for t in trainings if t.name.startswith("ramp-")]
    return [
        {
            "x": short(rows[:, 1]),
            "y": short(rows[:, 2]),
            "name": "pass" if training.seed is None else f"pass with seed {training.seed}",
            "mode": "lines",
            "line": {"color": SERIES[number % len(SERIES)], "width": 1},
        }
        for number, (training, rows) in enumerate(passes)
        if len(rows)
    ]


def _loss_limits(traces: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An axis that shows the fall of the loss; where it explodes it is cut off."""
    firsts = [next((v for v in t["y"] if v is not None), 0.0) for t in traces]
    lowest = min((v for t in traces for v in t["y"] if v is not None), default=0.0)
    highest = max(firsts, default=1.0)
    fall = max(highest - lowest, 1e-9)
    return {"range": [lowest - 0.1 * fall, highest + 0.5 * fall]}


def parallel_chart(rated: Sequence[tuple[ComparedTraining, float]], measure: Measure) -> Chart:
    """Each candidate a line over its values and its result, each axis from its lowest to its highest value.

    An axis whose highest value is more than ``WIDE`` times the lowest is logarithmic.

    Args:
        rated: candidates with a number of which more is better (``measure.goodness``).
    """
    best = sorted(rated, key=lambda pair: -pair[1])[:MOST_LINES]
    goods = [good for _, good in best]
    lowest, below = lowest_shown(goods)
    names = list(dict.fromkeys(name for training, _ in best for name in training.values))
    result = measure.heading
    rows = [{**training.values, result: measure.goodness(good)} for training, good in best]
    ends = {
        name: (min(values), max(values))
        for name in names
        if (values := [row[name] for row in rows if name in row])
    }
    names.append(result)
    worst, highest = measure.goodness(lowest), measure.goodness(max(goods))
    ends[result] = (min(worst, highest), max(worst, highest))
    traces = [_parallel_line(names, row, ends, good, goods) for row, good in zip(rows, goods)]
    notes: list[dict[str, Any]] = [
        {"x": place, "y": y, "text": f"{ends[name][at]:.4g}", "showarrow": False}
        for place, name in enumerate(names)
        for at, y in ((0, -0.07), (1, 1.07))
    ]
    if below:
        notes[-2 if measure.higher else -1]["text"] += f" or {'less' if measure.higher else 'more'}"
    ticks = {"tickvals": list(range(len(names))), "ticktext": list(map(plain, names))}
    return chart(
        "study", traces, xaxis={"zeroline": False, **ticks}, annotations=notes,
        yaxis={"showticklabels": False, "range": [-0.15, 1.15], "zeroline": False},
        showlegend=False,
    )  # fmt: skip


def _parallel_line(
    names: Sequence[str],
    row: Mapping[str, float],
    ends: Mapping[str, tuple[float, float]],
    good: float,
    goods: Sequence[float],
) -> dict[str, Any]:
    places, texts = [], []
    for name in names:
        value = row.get(name)
        low, high = ends[name]
        places.append(None if value is None else _place(value, low, high))
        texts.append("" if value is None else f"{name} = {value:.5g}")
    share = np.searchsorted(sorted(goods), good) / max(1, len(goods) - 1)
    return {
        "x": list(range(len(names))),
        "y": [None if place is None else round(place, 4) for place in places],
        "text": list(map(plain, texts)),
        "hovertemplate": "%{text}<extra></extra>",
        "mode": "lines+markers",
        "line": {
            "color": SERIES[1] if share > 0.8 else SERIES[0] if share > 0.4 else GREY,
            "width": 1.5,
        },
    }


def _place(value: float, low: float, high: float) -> float:
    """Where a value is on an axis, from 0 to 1; one beyond its ends is at the end."""
    if not high > low:
        return 0.5
    value = min(max(value, low), high)
    if 0 < low * WIDE < high:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)
