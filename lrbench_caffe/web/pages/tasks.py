"""The tasks, and a task's ranking."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from lrbench_caffe import plots
from lrbench_caffe.errors import InputError
from lrbench_caffe.knowledge.criteria import CRITERIA, Criterion
from lrbench_caffe.knowledge.exporting import ranking_rows
from lrbench_caffe.knowledge.selection import Selection, best_of_task
from lrbench_caffe.knowledge.utility import classifies
from lrbench_caffe.lr import functions
from lrbench_caffe.records import SOURCES, STARTS
from lrbench_caffe.tabular import csv_text, json_text
from lrbench_caffe.web.api import (
    LONGEST,
    READ,
    RankingQuery,
    Text,
    all_tasks,
    database,
    known_task,
    matches,
    platform,
    ranked,
)
from lrbench_caffe.web.charts import pareto_chart, schedules_chart, schedules_of
from lrbench_caffe.web.errors import Refused
from lrbench_caffe.web.pages.runs import MOST_RUNS
from lrbench_caffe.web.pictures import picture
from lrbench_caffe.web.rendering import page, run_address

router = APIRouter(dependencies=[READ])
WEIGHT = "w."  # begins the name of a weight's field
MOST_NAMES = 200  # to choose from: other tasks are found by their words
MOST_DRAWN = 100  # rows of a ranking's picture
SCHEDULES = 8  # policies whose LR is drawn: more lines cannot be told apart


@router.get("/")
def tasks(
    request: Request,
    q: Text = None,
    dataset: Text = None,
    network: Text = None,
    framework: Text = None,
) -> Response:
    chosen = {"dataset": dataset or "", "network": network or "", "framework": framework or ""}
    known = all_tasks(request)
    counts = database(request).runs_of_tasks()
    rows = [
        {
            "task": task,
            "runs": counts.get(task.id or 0, 0),
            "best": best_of_task(database(request), task),
        }
        for task in known
        if matches(task, q)
        and all(getattr(task, part).name == name for part, name in chosen.items() if name)
    ]
    names = {
        part: sorted({getattr(task, part).name for task in known} - {""})[:MOST_NAMES]
        for part in chosen
    }
    values = {"title": "Tasks", "rows": rows, "q": q or "", "chosen": chosen, "names": names}
    return page(request, "tasks.html", values)


def task_query(request: Request, query: Annotated[RankingQuery, Query()]) -> RankingQuery:
    """The query of a task's pages, whose form has a number for each weight: ``w.top1=2``.

    An empty field counts as if it were not there.
    """
    given = {
        name.removeprefix(WEIGHT): value
        for name, value in request.query_params.items()
        if name.startswith(WEIGHT) and value.strip().strip("0.")
    }
    weights = ",".join(f"{name}={value}" for name, value in given.items()) or query.weights
    if weights is not None and len(weights) > LONGEST:
        raise Refused(400, f"weights: more than {LONGEST} characters")
    return query.model_copy(update={"weights": weights or None})


TaskQuery = Annotated[RankingQuery, Depends(task_query)]


@router.get("/tasks/{task_id}")
def task(request: Request, task_id: int, query: TaskQuery) -> Response:
    found = known_task(request, task_id)
    values: dict[str, Any] = {
        "title": found.title,
        "task": found,
        "query": query,
        "criteria": CRITERIA.values(),
        "classifies": classifies(found),
        "weights": _weights(query.weights),
        "functions": sorted(functions.FUNCTIONS),
        "sources": SOURCES,
        "starts": STARTS,
        "not_shown": platform(request).not_shown(task_id),
        "asked": request.url.query,
        "compared": MOST_RUNS,
    }
    try:
        selected = ranked(request, query.of(task_id))
    except InputError as error:  # the form stays, so that it can be put right
        return page(request, "task.html", {**values, "problem": str(error)}, 400)
    first = [row.candidate.summary for row in selected.ranked[:SCHEDULES]]
    values.update(
        selected=selected,
        shown=_shown(selected),
        front=pareto_chart(selected),
        schedules=schedules_chart(first),
    )
    return page(request, "task.html", values)


@router.get("/tasks/{task_id}/ranking.{form}")
def download(
    request: Request,
    task_id: int,
    form: str,
    query: TaskQuery,
) -> Response:
    """A ranking as a table for programs, or as the picture of ``plot table``."""
    selected = _selected(request, task_id, query)
    kinds = {"csv": (csv_text, "text/csv"), "json": (json_text, "application/json")}
    if form not in kinds:
        return picture(form, "ranking", lambda: _table_figure(selected))
    rows = ranking_rows(selected.ranked, _shown(selected))
    write, kind = kinds[form]
    headers = {"Content-Disposition": f'attachment; filename="ranking.{form}"'}
    return Response(write(rows), headers=headers, media_type=kind)


def _table_figure(selected: Selection) -> Any:
    order, rows = selected.order, selected.ranked[:MOST_DRAWN]
    return plots.table_figure(selected.title, rows, order.cost, order.utility)


@router.get("/tasks/{task_id}/front.{form}")
def front(request: Request, task_id: int, form: str, query: TaskQuery) -> Response:
    """The first start's policies with their Pareto front, as ``rank`` plots them."""
    selected = _selected(request, task_id, query)
    try:
        return picture(form, "front", lambda: plots.front_figure(selected))
    except InputError as error:
        raise Refused(404, str(error)) from None


@router.get("/tasks/{task_id}/schedules.{form}")
def schedules(request: Request, task_id: int, form: str, query: TaskQuery) -> Response:
    selected = _selected(request, task_id, query)
    summaries = [row.candidate.summary for row in selected.ranked[:SCHEDULES]]
    policies, longest = schedules_of(summaries)
    return picture(form, "schedules", lambda: plots.schedule_figure(policies, longest))


def _selected(request: Request, task_id: int, query: RankingQuery) -> Selection:
    """A ranking with at least one policy.

    Raises:
        Refused: there is no such task, or none of its policies fits.
    """
    known_task(request, task_id)
    selected = ranked(request, query.of(task_id))
    if not selected.ranked:
        raise Refused(404, "no finished training fits")
    return selected


@router.get("/tasks/{task_id}/curves")
def curves(
    request: Request,
    task_id: int,
    summary: Annotated[list[Annotated[int, Query(ge=1, le=2**53)]], Query()] = [],  # noqa: B006
) -> Response:
    """The curves of the best run of each of some policies: the address names the runs."""
    known_task(request, task_id)
    uids = platform(request).best_runs(task_id, summary[:MOST_RUNS])
    if not uids:
        raise Refused(404, "none of these policies has a run that is shown; choose some first")
    if len(summary) == 1:
        return RedirectResponse(run_address(request, uids[0]), 303)
    address = request.url_for("compare")
    return RedirectResponse(f"{address}?{urlencode([('uid', uid) for uid in uids])}", 303)


def _shown(selected: Selection) -> list[Criterion]:
    """The criteria that any of the policies has, and those that are asked for."""
    asked = selected.order.asked
    known = [
        c
        for c in CRITERIA.values()
        if c in asked
        or (c.name != "target" and any(entry.spread(c.name) for entry in selected.candidates))
    ]
    return known + [c for c in asked if c not in known]


def _weights(text: str | None) -> dict[str, str]:
    pairs = (part.partition("=") for part in (text or "").split(",") if "=" in part)
    return {name.strip(): value.strip() for name, _, value in pairs}
