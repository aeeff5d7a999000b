"""Tunings and range tests of this machine: a list, and one, also while it goes on."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Optional

import numpy as np
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from lrbench_caffe.lr import PolicyError
from lrbench_caffe.plots import traces_figure
from lrbench_caffe.plots.schedules import spread_out
from lrbench_caffe.tuning.importance import (
    LEAST,
    ComparedTraining,
    common_iteration,
    compared,
    importances,
)
from lrbench_caffe.tuning.measure import Measure
from lrbench_caffe.tuning.trainings import RANGE_TEST
from lrbench_caffe.web.api import READ
from lrbench_caffe.web.charts import Chart
from lrbench_caffe.web.errors import Refused
from lrbench_caffe.web.pictures import picture
from lrbench_caffe.web.rendering import page
from lrbench_caffe.web.study_charts import (
    beyond,
    cost_chart,
    curves_chart,
    parallel_chart,
    range_chart,
)
from lrbench_caffe.web.tunings import FoundStudy, StudyFolders, StudyTraining

router = APIRouter(dependencies=[READ])
ALL = "all"  # functions: compared by what their LRs have in common
SAMPLES = 1000  # iterations of a schedule by which it is described, beside the last
TITLES = {
    "cost": "best so far over cost",
    "curves": "learning curves",
    "range": "range test",
    "parallel": "candidates",
}
Function = Annotated[Optional[str], Query(max_length=100)]


@router.get("/tunings")
def tunings(request: Request) -> Response:
    return page(
        request, "tunings.html", {"title": "Tunings", "studies": _studies(request).studies()}
    )


@router.get("/tunings/{key}")
def tuning(request: Request, key: str, function: Function = None) -> Response:
    study = _known(request, key)
    trainings, problems = _studies(request).trainings(study)
    rows = _by_result(study, trainings)
    importance = _importance(study, trainings, function or ALL)
    bests = [t.best[1] for t in trainings if t.best and study.judges(t)]
    values = {
        "title": study.name,
        "study": study,
        "measure": study.measure,
        "rows": rows,
        "settings": any(t.settings for t in trainings),
        "stages": Counter(stage for _, stage in rows),
        "problems": problems,
        "done": round(sum(study.scale(t) * t.iteration for t in trainings)),
        "running": sum(t.running for t in trainings),
        "best": max(bests, key=study.measure.goodness, default=None),
        "below": beyond(study.measure, bests),
        "charts": _charts(study, trainings, rows, importance),
        **importance,
    }
    return page(request, "tuning.html", values)


@router.get("/tunings/{key}/{name}.{form}", name="tuning_picture")
def tuning_picture(
    request: Request, key: str, name: str, form: str, function: Function = None
) -> Response:
    """The picture of one of the charts of a study."""
    study = _known(request, key)
    trainings, _ = _studies(request).trainings(study)
    importance = _importance(study, trainings, function or ALL)
    charts = _charts(study, trainings, _by_result(study, trainings), importance)
    made = charts.get(name)
    if made is None:
        raise Refused(404, f"there is no chart {name!r} of it; known: {', '.join(charts)}")
    drawn = json.loads(made)
    title = f"{study.name}: {TITLES[name]}"
    return picture(form, name, lambda: traces_figure(title, drawn["traces"], drawn["layout"]))


def _charts(
    study: FoundStudy,
    trainings: Sequence[StudyTraining],
    rows: Sequence[tuple[StudyTraining, str]],
    importance: dict[str, Any],
) -> dict[str, Chart]:
    """The charts of a study, those for which it has something."""
    judged = [t for t in trainings if study.judges(t)]
    until = max((t.iteration for t, stage in rows if stage == RANGE_TEST), default=0)
    tested = any(t.best for t in judged)
    measure, compared_ones = study.measure, importance["compared"]
    candidates = compared_ones and not study.is_range
    found = {
        "cost": cost_chart(study, trainings) if tested else None,
        "curves": curves_chart(study, rows) if tested and not study.is_range else None,
        "range": range_chart(study, [t for t in judged if not t.settings], until),
        "parallel": parallel_chart(compared_ones, measure) if candidates else None,
    }
    return {name: made for name, made in found.items() if made is not None}


def _by_result(
    study: FoundStudy, trainings: Sequence[StudyTraining]
) -> list[tuple[StudyTraining, str]]:
    """The trainings and what each was for, the best first."""

    def badness(row: tuple[StudyTraining, str]) -> float:
        best = row[0].best
        return math.inf if best is None else -study.measure.goodness(best[1])

    return sorted(((t, study.stage(t)) for t in trainings), key=badness)


def _known(request: Request, key: str) -> FoundStudy:
    study = _studies(request).find(key)
    if study is None:
        raise Refused(404, "there is no such tuning on this machine")
    return study


def _studies(request: Request) -> StudyFolders:
    found: StudyFolders = request.app.state.studies
    return found


def _importance(
    study: FoundStudy, trainings: Sequence[StudyTraining], function: str
) -> dict[str, Any]:
    """What of a policy mattered with the own settings: over the candidates of one function, or of all."""
    seed = study.plan.get("seed")
    judged = [t for t in trainings if study.judges(t) and not t.settings]
    own = [t for t in judged if t.parsed is not None and t.seed == seed]
    functions = list(dict.fromkeys(t.parsed.function for t in own if t.parsed))
    chosen = [t for t in own if function == ALL or (t.parsed and t.parsed.function == function)]
    measure = study.measure
    candidates = [_candidate(t, function, measure) for t in chosen]
    at = common_iteration(candidates)
    chance = measure.goodness(measure.worthless)
    return {
        "function": function,
        "functions": functions,
        "candidates": len(candidates),
        "least": LEAST,
        "at": at,
        "importances": importances(candidates, at, chance) if at else [],
        "compared": compared(candidates, at, chance) if at else [],
    }


def _candidate(training: StudyTraining, function: str, measure: Measure) -> ComparedTraining:
    policy = training.parsed
    assert policy is not None
    if function == ALL:
        values = _described(training)
    else:
        values = {
            name: float(value)
            for name, value in policy.params.items()
            if isinstance(value, (int, float))
        }
    tests = [(iteration, measure.goodness(value)) for iteration, value in training.tests]
    return ComparedTraining(values, tests, training.status == "diverged")


def _described(training: StudyTraining) -> dict[str, float]:
    """What the LRs of all functions have in common."""
    assert training.parsed is not None
    length = max(1, training.max_iter)
    t = np.union1d(spread_out(length, SAMPLES), [length - 1])
    try:
        lr = training.parsed.bind(length)(t)
    except (PolicyError, OverflowError, ValueError):
        return {}
    values = np.atleast_1d(np.asarray(lr, dtype=float))
    if not np.isfinite(values).all():
        return {}
    return {
        "first LR": float(values[0]),
        "highest LR": float(values.max()),
        "mean LR": float(values.mean()),
        "last LR": float(values[-1]),
    }
