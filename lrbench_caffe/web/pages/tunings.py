"""Tunings and range tests of this machine: a list, and one, also while it goes on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Optional

import numpy as np
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from lrbench_caffe.lr import PolicyError
from lrbench_caffe.tuning.importance import (
    LEAST,
    ComparedTraining,
    common_iteration,
    compared,
    importances,
)
from lrbench_caffe.tuning.measure import Measure
from lrbench_caffe.tuning.study import RANGE_TEST
from lrbench_caffe.web.api import READ
from lrbench_caffe.web.errors import Refused
from lrbench_caffe.web.rendering import page
from lrbench_caffe.web.study_charts import cost_chart, parallel_chart, range_chart
from lrbench_caffe.web.tunings import FoundStudy, StudyFolders, StudyTraining

router = APIRouter(dependencies=[READ])
ALL = "all"  # functions: compared by what their LRs have in common
SAMPLES = 1000  # iterations of a schedule by which it is described


@router.get("/tunings")
def tunings(request: Request) -> Response:
    return page(
        request, "tunings.html", {"title": "Tunings", "studies": _studies(request).studies()}
    )


@router.get("/tunings/{key}")
def tuning(
    request: Request, key: str, function: Annotated[Optional[str], Query(max_length=100)] = None
) -> Response:
    study = _studies(request).find(key)
    if study is None:
        raise Refused(404, "there is no such tuning on this machine")
    trainings, problems = _studies(request).trainings(study)
    judged = [t for t in trainings if study.judges(t)]
    done = sum(t.iteration for t in trainings)
    rows = [(t, study.stage(t)) for t in trainings]
    measure = study.measure
    best = max((t.best[1] for t in judged if t.best), key=measure.goodness, default=None)
    until = max((t.iteration for t, stage in rows if stage == RANGE_TEST), default=0)
    values = {
        "title": study.name,
        "study": study,
        "measure": measure,
        "rows": sorted(rows, key=lambda row: _badness(row[0], measure)),
        "problems": problems,
        "done": done,
        "running": sum(t.running for t in trainings),
        "best": best,
        "cost": cost_chart(study, trainings) if any(t.best for t in judged) else None,
        "range": range_chart(study, judged, until),
        **_importance(study, judged, function or ALL),
    }
    return page(request, "tuning.html", values)


def _badness(training: StudyTraining, measure: Measure) -> float:
    """A training's result as a number of which less is better; infinity without one."""
    return math.inf if training.best is None else -measure.goodness(training.best[1])


def _studies(request: Request) -> StudyFolders:
    found: StudyFolders = request.app.state.studies
    return found


def _importance(
    study: FoundStudy, trainings: Sequence[StudyTraining], function: str
) -> dict[str, Any]:
    """What of a policy mattered: over the candidates of one function, or of all."""
    seed = study.plan.get("seed")
    own = [t for t in trainings if t.parsed is not None and t.seed == seed]
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
        "parallel": parallel_chart(compared(candidates, at, chance), measure) if at else None,
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
    try:
        lr = training.parsed.bind(length)(np.arange(0, length, max(1, length // SAMPLES)))
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
