"""Runs: a list, one with all that is known of it, and the curves of several."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Optional
from urllib.parse import urlencode

import numpy as np
from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from lrbench_caffe import plots
from lrbench_caffe.database.platform import AccessToken
from lrbench_caffe.errors import InputError
from lrbench_caffe.metrics import Measurement, of_first_net
from lrbench_caffe.plots.curves import compared
from lrbench_caffe.plots.training import Compared
from lrbench_caffe.records import SOURCES, STANDINGS, STATUSES, RunRecord, Task
from lrbench_caffe.tabular import detail_rows, measurement_rows, metrics_of_nets
from lrbench_caffe.web.api import (
    ADMIN,
    READ,
    AskedFor,
    RunQuery,
    Text,
    database,
    found_by,
    is_admin,
    platform,
    visible_run,
)
from lrbench_caffe.web.charts import Axes, run_name, runs_chart
from lrbench_caffe.web.errors import Refused
from lrbench_caffe.web.pictures import picture
from lrbench_caffe.web.rendering import moment, page

router = APIRouter(dependencies=[READ])
MOST_RUNS = 8  # whose curves are drawn together
MOST_LISTED = 200  # runs of a page
MOST_TESTS = 500  # of a run in its table; the download has all

Administers = Annotated[AccessToken, Depends(ADMIN.dependency)]


class ListQuery(RunQuery):
    """Which runs a list has."""

    policy: Text = None
    standing: Literal["shown", "unverified", "hidden"] = "shown"


@router.get("/runs")
def runs(request: Request, query: Annotated[ListQuery, Query()]) -> Response:
    if query.standing == "hidden" and not is_admin(request):
        raise Refused(403, "standing: hidden: only admins see these; allowed: shown, unverified")
    limit = min(query.limit, MOST_LISTED)
    records = database(request).page(
        **found_by(query),
        policy=query.policy or None,
        standing=query.standing,
        after=query.after,
        limit=limit,
    )
    values = {
        "title": "Runs",
        "records": records,
        "outcomes": platform(request).outcomes([record.uid for record in records]),
        "not_shown": platform(request).not_shown(query.task),
        "query": query,
        "statuses": STATUSES,
        "sources": SOURCES,
        "standings": STANDINGS if is_admin(request) else STANDINGS[:2],
        "next": _address(request, records[-1].uid) if len(records) == limit else None,
        "first": _address(request, None) if query.after else None,
    }
    return page(request, "runs.html", values)


def _address(request: Request, after: str | None) -> str:
    """The same list behind a run, or from its beginning."""
    asked = [(name, v) for name, v in request.query_params.multi_items() if name != "after"]
    return f"?{urlencode([*asked, *([('after', after)] if after else [])])}"


# -- curves ----------------------------------------------------------------------------------------


class CurvesQuery(AskedFor):
    """Which runs are drawn, and over what."""

    uid: Annotated[list[str], Query(max_length=MOST_RUNS)] = []
    x: Literal["iteration", "epoch", "seconds"] = "iteration"
    smooth: Annotated[int, Query(ge=1, le=100)] = 1
    log: Annotated[list[Literal["x", "error", "loss", "lr"]], Query(max_length=4)] = []
    by: Text = None
    higher: Optional[bool] = None

    @property
    def axes(self) -> Axes:
        return Axes(self.x, self.smooth, tuple(self.log))


@router.get("/compare")
def compare(request: Request, query: Annotated[CurvesQuery, Query()]) -> Response:
    records = _chosen(request, query)
    values: dict[str, Any] = {
        "title": "1 run" if len(records) == 1 else f"{len(records)} runs side by side",
        "query": query,
    }
    try:
        by = compared(records, query.by, query.higher)
    except InputError as error:  # the form stays, so that it can be put right
        values.update(by=compared(records), problem=str(error))
        return page(request, "compare.html", values, 400)
    values.update(
        by=by,
        rows=[(r, _best(r, by), _last(r)) for r in records],
        policies=list(dict.fromkeys(r.policy.text for r in records)),
        longest=max(r.max_iter for r in records),
        curves=runs_chart(records, query.axes, by),
    )
    return page(request, "compare.html", values)


@router.get("/compare.{form}", name="curves_picture")
def curves_picture(request: Request, form: str, query: Annotated[CurvesQuery, Query()]) -> Response:
    """The picture of ``plot runs``; the losses and LRs are those of the tests."""
    records = _chosen(request, query)
    drawn = [_curves(record) for record in records]
    if all(curves.empty for curves in drawn):
        raise Refused(404, "nothing was measured yet")
    titles = dict.fromkeys(_task_of(record).title for record in records)
    by = compared(drawn, query.by, query.higher)
    return picture(form, "curves", lambda: plots.runs_figure("; ".join(titles), drawn, by))


def _chosen(request: Request, query: CurvesQuery) -> list[RunRecord]:
    if not query.uid:
        raise Refused(400, "uid: none; allowed: the uids of runs")
    return [visible_run(request, uid)[0] for uid in dict.fromkeys(query.uid)]


def _best(record: RunRecord, by: Compared) -> tuple[int, float] | None:
    """Iteration and value of a run's first best test."""
    return by.best(by.tests(of_first_net(record.measurements)))


def _last(record: RunRecord) -> Measurement | None:
    return next(reversed(of_first_net(record.measurements)), None)


def _curves(record: RunRecord) -> Any:
    tests = of_first_net(record.measurements)
    rows = [(m.iteration, m.lr, m.train_loss) for m in tests if m.train_loss is not None]
    return plots.RunCurves(
        run_name(record),
        np.array(rows, dtype=float).reshape(-1, 3),
        tests,
        diverged=record.status == "diverged",
    )


def _task_of(record: RunRecord) -> Task:
    return Task(record.framework, record.task_type, record.dataset, record.network)


# -- deleting --------------------------------------------------------------------------------------


@router.get("/delete", name="ask_to_delete")
def ask_to_delete(request: Request, admin: Administers, uid: Text = None) -> Response:
    record = database(request).get(uid or "")
    return page(request, "delete.html", {"title": "Delete a run", "record": record})


@router.post("/delete", name="delete_run")
def delete_run(request: Request, admin: Administers, uid: Text = None) -> Response:
    record = database(request).get(uid or "")
    database(request).delete([record.uid])
    return RedirectResponse(request.url_for("runs"), 303)


# -- one -------------------------------------------------------------------------------------------


@router.get("/run")
def run_asked_for(request: Request, uid: Text = None) -> Response:
    """A run whose uid no path can have: ".." for instance."""
    return run(request, uid or "")


@router.get("/runs/{uid:path}")
def run(request: Request, uid: str) -> Response:
    record, outcome = visible_run(request, uid)
    tests = record.measurements
    own = database(request).find_task(_task_of(record))
    by = compared([record])
    values = {
        "title": f"{record.policy.text} on {record.dataset.name} / {record.network.name}",
        "record": record,
        "outcome": outcome,
        "task_id": own and own.id,
        "details": detail_rows(record, _time),
        "metrics": metrics_of_nets(tests, record.policy.num_params),
        "tests": measurement_rows(record)[: MOST_TESTS + 1] if tests else [],
        "more": max(0, len(tests) - MOST_TESTS),
        "query": CurvesQuery(uid=[uid]),
        "by": by,
        "curves": runs_chart([record], by=by),
        "standings": STANDINGS,
    }
    return page(request, "run.html", values)


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else moment(seconds)
