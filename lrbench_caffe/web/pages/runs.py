"""Runs: a list, and one with all that is known of it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from lrbench_caffe.tabular import metrics_rows
from lrbench_caffe.web.api import READ, RunQuery, database, found_by
from lrbench_caffe.web.charts import runs_chart
from lrbench_caffe.web.errors import Refused
from lrbench_caffe.web.rendering import page

router = APIRouter(dependencies=[READ])
MOST = 8  # runs whose curves are drawn together


@router.get("/runs")
def runs(request: Request, query: Annotated[RunQuery, Query()]) -> Response:
    records = database(request).page(**found_by(query), after=query.after, limit=query.limit)
    more = records[-1].uid if len(records) == query.limit else None
    values = {"title": "Runs", "records": records, "query": query, "next": more}
    return page(request, "runs.html", values)


@router.get("/runs/{uid:path}")
def run(request: Request, uid: str) -> Response:
    record = database(request).get(uid)
    rows = (
        metrics_rows(record.measurements, record.policy.num_params) if record.measurements else []
    )
    values = {
        "title": f"{record.policy.text} on {record.dataset.name} / {record.network.name}",
        "record": record,
        "metrics": rows,
        "curves": runs_chart([record]),
    }
    return page(request, "run.html", values)


@router.get("/compare")
def compare(request: Request, uid: Annotated[list[str], Query(max_length=MOST)]) -> Response:
    if not uid:
        raise Refused(400, "uid: none; allowed: the uids of runs")
    records = [database(request).get(one) for one in dict.fromkeys(uid)]
    values = {"title": f"{len(records)} runs", "records": records, "curves": runs_chart(records)}
    return page(request, "compare.html", values)
