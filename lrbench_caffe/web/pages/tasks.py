"""The tasks, and a task's ranking."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from lrbench_caffe.knowledge.exporting import ranking_rows
from lrbench_caffe.knowledge.ranking import CRITERIA, Criterion
from lrbench_caffe.knowledge.selection import Selection
from lrbench_caffe.lr import functions
from lrbench_caffe.records import SOURCES, Task
from lrbench_caffe.tabular import csv_text, json_text
from lrbench_caffe.web.api import (
    READ,
    RankingQuery,
    Text,
    database,
    known_task,
    matches,
    ranked,
)
from lrbench_caffe.web.charts import pareto_chart, schedules_chart
from lrbench_caffe.web.rendering import page

router = APIRouter(dependencies=[READ])
SCHEDULES = 8  # policies whose LR is drawn: more lines cannot be told apart


@router.get("/")
def tasks(request: Request, q: Text = None) -> Response:
    opened = database(request)
    counts = opened.runs_of_tasks()
    rows = [
        {
            "task": task,
            "runs": counts.get(task.id or 0, 0),
            "best": next(iter(_best(request, task)), None),
        }
        for task in opened.tasks()
        if matches(task, q)
    ]
    return page(request, "tasks.html", {"title": "Tasks", "rows": rows, "q": q or ""})


def _best(request: Request, task: Task) -> Any:
    order = "top1" if task.task_type.startswith("classification") else "test_loss"
    return database(request).summaries(task.id or 0, order_by=order, limit=1)


@router.get("/tasks/{task_id}")
def task(request: Request, task_id: int, query: Annotated[RankingQuery, Query()]) -> Response:
    found = known_task(request, task_id)
    selected = ranked(request, query.of(task_id))
    shown = _shown(selected)
    values = {
        "title": found.title,
        "task": found,
        "selected": selected,
        "shown": shown,
        "query": query,
        "criteria": CRITERIA,
        "weights": _weights(query.weights),
        "functions": sorted(functions.FUNCTIONS),
        "sources": SOURCES,
        "front": pareto_chart(selected),
        "schedules": schedules_chart(
            [row.candidate.summary for row in selected.ranked[:SCHEDULES]]
        ),
    }
    return page(request, "task.html", values)


@router.get("/tasks/{task_id}/ranking.{form}")
def download(
    request: Request, task_id: int, form: str, query: Annotated[RankingQuery, Query()]
) -> Response:
    selected = ranked(request, query.of(task_id))
    rows = ranking_rows(selected.ranked, _shown(selected))
    kinds = {"csv": (csv_text, "text/csv"), "json": (json_text, "application/json")}
    if form not in kinds:
        return Response(status_code=404)
    write, kind = kinds[form]
    headers = {"Content-Disposition": f'attachment; filename="ranking.{form}"'}
    return Response(write(rows), headers=headers, media_type=kind)


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
