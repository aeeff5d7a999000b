"""The API, version 1: what the pages show, as JSON, and the exchange of runs."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal, Optional

import numpy as np
from fastapi import APIRouter, Depends, Query, Security
from fastapi.security import HTTPBearer
from pydantic import BaseModel, Field, model_validator
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from lrbench_caffe.database.checks import checked_contribution
from lrbench_caffe.database.exchange import BATCH, to_line
from lrbench_caffe.database.platform import AccessToken, Batch, Platform, RunOutcome
from lrbench_caffe.database.ranges import INT32, LAST_ID
from lrbench_caffe.database.store import Database
from lrbench_caffe.database.uploads import (
    LONGEST_LINE,
    MOST_LINES,
    NEW,
    PRESENT,
    REFUSED,
    Answer,
    receive,
)
from lrbench_caffe.errors import did_you_mean
from lrbench_caffe.knowledge import selection
from lrbench_caffe.knowledge.criteria import CRITERIA
from lrbench_caffe.knowledge.exporting import ranking_rows
from lrbench_caffe.lr import parse
from lrbench_caffe.records import Contribution, RunRecord, Task
from lrbench_caffe.tabular import records_of
from lrbench_caffe.web.bodies import read_lines
from lrbench_caffe.web.errors import FAILURES, Refused
from lrbench_caffe.web.security import needs
from lrbench_caffe.web.settings import MIB, WebSettings


def only_known(request: Request) -> None:
    """Refuse a parameter that the address does not have: without the filter that it was meant for, an
    answer would have all."""
    paths = request.app.openapi()["paths"]  # made once
    address = paths[request.scope["route"].path_format][request.method.lower()]
    known = [p["name"] for p in address.get("parameters", ()) if p["in"] == "query"]
    for name in request.query_params:
        if name not in known:
            allowed = ", ".join(sorted(known)) or "none"
            near = did_you_mean(name, known)
            raise Refused(422, f"{name}: no parameter; allowed: {allowed}{near}")


router = APIRouter(prefix="/api/v1", responses=FAILURES, dependencies=[Depends(only_known)])
# For the API's description; ``needs`` reads the token.
BEARER = Security(HTTPBearer(auto_error=False, description="A token of this server."))
READ, WRITE, ADMIN = Depends(needs("read")), Depends(needs("write")), Depends(needs("admin"))

LONGEST = 1000  # characters of a parameter
MOST_POINTS = 2000  # of a schedule
# Of a new upload. Those that came with other databases may have others.
_BATCH = re.compile(r"(?!\.*$)[0-9A-Za-z._-]{1,100}", re.ASCII)
Text = Annotated[Optional[str], Query(max_length=LONGEST)]
Limit = Annotated[int, Query(ge=1, le=500)]
Number = Annotated[int, Query(ge=1, le=LAST_ID)]
Source = Literal["measured", "paper", "imported"]
StartKind = Literal["scratch", "weights", "snapshot", "unknown"]
Status = Literal["running", "finished", "failed", "diverged", "stopped"]


def database(request: Request) -> Database:
    opened: Database = request.app.state.database
    return opened


def platform(request: Request) -> Platform:
    opened: Platform = request.app.state.platform
    return opened


def all_tasks(request: Request) -> list[Task]:
    """The database's tasks, read once for a request."""
    if not hasattr(request.state, "tasks"):
        request.state.tasks = database(request).tasks()
    found: list[Task] = request.state.tasks
    return found


# -- what is known ---------------------------------------------------------------------------------


@router.get("/tasks", tags=["tasks"], dependencies=[READ], summary="The tasks, by number.")
def tasks(request: Request, q: Text = None) -> list[dict[str, Any]]:
    """Tasks whose data set, network or framework has the text ``q``, all without it."""
    counts = database(request).runs_of_tasks()
    return [task_json(t, counts) for t in all_tasks(request) if matches(t, q)]


@router.get("/tasks/{task_id}", tags=["tasks"], dependencies=[READ], summary="A task.")
def task(request: Request, task_id: int) -> dict[str, Any]:
    return task_json(known_task(request, task_id), database(request).runs_of_tasks())


class AskedFor(BaseModel):
    """Parameters of an address. A form's field that was left empty counts as if it were not there."""

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if value not in ("", [""])}


class RankingQuery(AskedFor):
    """The criteria of a ranking, and which policies are in it: the parameters of ``rank``."""

    by: Text = None
    weights: Text = None
    higher: Optional[bool] = None
    functions: Annotated[list[str], Query(max_length=50)] = []
    sources: Annotated[list[Source], Query(max_length=3)] = []
    starts: Annotated[list[StartKind], Query(max_length=4)] = []
    max_iter: Annotated[Optional[int], Query(ge=1, le=INT32)] = None
    target_top1: Annotated[Optional[float], Query(ge=0, le=100)] = None
    top: Annotated[int, Query(ge=0, le=1000)] = 50
    pareto: bool = False

    def of(self, task_id: int) -> selection.Query:
        """The query of a task.

        Raises:
            ParameterError: the values do not go together.
        """
        return selection.Query(
            task=str(task_id),
            by=self.by or None,
            weights=self.weights or None,
            higher=self.higher,
            functions=tuple(self.functions),
            sources=tuple(self.sources),
            starts=tuple(self.starts),
            max_iter=self.max_iter,
            target_top1=self.target_top1,
            top=self.top,
            pareto=self.pareto,
        )


@router.get("/tasks/{task_id}/ranking", tags=["tasks"], dependencies=[READ], summary="A ranking.")
def ranking(
    request: Request, task_id: int, query: Annotated[RankingQuery, Query()]
) -> dict[str, Any]:
    """The policies of a task, the best first, as the command rank gives them in JSON."""
    known_task(request, task_id)
    selected = ranked(request, query.of(task_id))
    names = set(CRITERIA) - (set() if query.target_top1 is not None else {"target"})
    shown = [c for c in CRITERIA.values() if c.name in names]
    shown += [c for c in selected.order.asked if c not in shown]
    rows = ranking_rows(selected.ranked, shown)
    return {"title": selected.title, "policies": records_of(rows)}


def ranked(request: Request, query: selection.Query) -> selection.Selection:
    found = selection.find_tasks(query, all_tasks(request))
    assert found is not None  # the query names a task
    return selection.select(query, request.app.state.results, found)


class RunQuery(AskedFor):
    """Which runs, and how many."""

    task: Optional[Number] = None
    function: Text = None
    status: Optional[Status] = None
    source: Optional[Source] = None
    contributor: Text = None
    limit: Limit = 100
    after: Text = None


@router.get("/runs", tags=["runs"], dependencies=[READ], summary="Runs, the last stored first.")
def runs(request: Request, query: Annotated[RunQuery, Query()]) -> dict[str, Any]:
    """Runs without their measurements. ``next``, if there is one, is the ``after`` of the next page."""
    page = database(request).page(**found_by(query), after=query.after, limit=query.limit)
    more = page[-1].uid if len(page) == query.limit else None
    return {"runs": [run_json(record) for record in page], "next": more}


def found_by(query: RunQuery) -> dict[str, Any]:
    return {
        "task_id": query.task,
        "function": query.function,
        "status": query.status,
        "source": query.source,
        "contributor": query.contributor,
    }


@router.get(
    "/runs/{uid:path}",
    name="run_as_json",
    tags=["runs"],
    dependencies=[READ],
    summary="A run with its tests.",
)
def run(request: Request, uid: str) -> dict[str, Any]:
    return visible_run(request, uid)[0].to_json()


@router.get(
    "/run",
    name="run_as_json_asked_for",
    tags=["runs"],
    dependencies=[READ],
    summary="A run whose uid no path can have.",
)
def run_asked_for(
    request: Request, uid: Annotated[str, Query(max_length=LONGEST)]
) -> dict[str, Any]:
    """The same for a uid like "..", which browsers and other clients take out of a path."""
    return run(request, uid)


@router.get("/export", tags=["exchange"], dependencies=[READ], summary="Runs to import elsewhere.")
def export(request: Request, query: Annotated[RunQuery, Query()]) -> Response:
    """Runs as JSON Lines, by uid, each whole: what ``db import`` reads.

    At most ``limit`` of them come, those after the uid ``after``; none means that there are no more.
    """
    page = database(request).page(
        **found_by(query), after=query.after, limit=query.limit, by_uid=True, measurements=True
    )
    return StreamingResponse(map(to_line, page), media_type="application/x-ndjson")


@router.get("/schedule", tags=["policies"], dependencies=[READ], summary="A policy's LR.")
def schedule(
    policy: Annotated[str, Query(max_length=LONGEST, examples=["SIN2(k0=0.01, k1=0.06, l=2000)"])],
    max_iter: Annotated[int, Query(ge=1, le=INT32)] = 10_000,
) -> dict[str, Any]:
    """The LR at up to 2,000 iterations of a training of ``max_iter``, and the policy's parameters."""
    bound = parse(policy, strict=False).bind(max_iter)
    t = np.unique(np.linspace(0, max_iter - 1, min(max_iter, MOST_POINTS)).astype(np.int64))
    return {
        "policy": str(bound),
        "function": bound.function,
        "params": dict(bound.params),
        "reacts": bound.pending is not None,
        "iterations": t.tolist(),
        "lr": np.asarray(bound(t)).tolist(),
    }


# -- uploads ---------------------------------------------------------------------------------------


class UploadAnswer(BaseModel):
    """What became of an upload.

    Attributes:
        batch: by which it can be sent on, or taken back.
        new, present, refused: numbers of lines.
        answers: one for each line that is not empty.
    """

    batch: str
    new: int
    present: int
    refused: int
    answers: list[Answer]


@router.post(
    "/runs",
    tags=["exchange"],
    dependencies=[BEARER],
    summary="Add runs.",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
        }
    },
)
async def upload(
    request: Request,
    token: Annotated[AccessToken, WRITE],
    batch: Annotated[Optional[str], Query(max_length=200)] = None,
    note: Annotated[Optional[str], Query(max_length=2000)] = None,
    link: Annotated[Optional[str], Query(max_length=1000)] = None,
) -> UploadAnswer:
    """Store runs, JSON Lines as ``db export`` writes them, with gzip if you like.

    Each line is answered by itself. Sent again, after a break for instance, a run is ``present``.
    With the ``batch`` of an earlier upload the runs belong to that one.
    """
    contribution = await run_in_threadpool(
        begun, platform(request), token.name, batch, note or None, link or None
    )
    settings: WebSettings = request.app.state.settings
    answers: list[Answer] = []
    lines: list[bytes] = []
    done = filled = 0  # lines that are stored, and those of ``lines`` that are not empty

    async def store() -> None:
        nonlocal done, filled
        page = await run_in_threadpool(list, receive(database(request), lines, contribution))
        answers.extend(Answer(done + a.line, a.uid, a.result, a.reason) for a in page)
        done, filled = done + len(lines), 0
        lines.clear()

    most = settings.upload_mib * MIB
    async for line in read_lines(request, most, LONGEST_LINE, MOST_LINES):
        lines.append(line)
        filled += bool(line.strip())
        if filled == BATCH:
            await store()
    await store()
    return UploadAnswer(batch=contribution.batch, answers=answers, **counted(answers))


def counted(answers: Sequence[Answer]) -> dict[str, int]:
    """How many lines were new, there already and refused."""
    return {kind: sum(a.result == kind for a in answers) for kind in (NEW, PRESENT, REFUSED)}


def begun(
    platform: Platform, name: str, batch: str | None, note: str | None, link: str | None
) -> Contribution:
    """The contribution of an upload: of the batch that it continues, or a new one.

    Raises:
        Refused: the batch is another contributor's.
        RecordError: a value cannot be stored.
    """
    known = None if batch is None else platform.batch(batch)
    if known is None:
        if batch and not _BATCH.fullmatch(batch):
            raise Refused(
                400, f"batch: {batch!r:.80}; allowed: 1 to 100 of 0-9 A-Z a-z . _ -, not only dots"
            )
        known = Contribution(batch or uuid.uuid4().hex, name, note, link, round(time.time(), 3))
        checked_contribution(known)
    if known.contributor != name:
        raise Refused(403, "batch: it is another contributor's")
    return known


@router.get("/batches", tags=["exchange"], dependencies=[READ], summary="Uploads, newest first.")
def batches(request: Request, contributor: Text = None, limit: Limit = 100) -> list[dict[str, Any]]:
    return [batch_json(b) for b in platform(request).batches(contributor, limit)]


@router.delete(
    "/batches/{uid:path}", tags=["exchange"], dependencies=[BEARER], summary="Take an upload back."
)
def take_back(request: Request, uid: str, token: Annotated[AccessToken, WRITE]) -> dict[str, int]:
    """Delete an upload with all of its runs: one's own, or as an admin any."""
    return {"deleted": taken_back(platform(request), uid, token)}


def taken_back(platform: Platform, uid: str, token: AccessToken) -> int:
    """Delete an upload, and return how many runs it had.

    Raises:
        Refused: there is none, or it is not the token's.
    """
    known = platform.batch(uid)
    if known is None:
        raise Refused(404, "there is no such upload")
    if known.contributor != token.name and not token.may("admin"):
        raise Refused(403, "it is another contributor's")
    return platform.take_back(uid)


class Standing(BaseModel):
    """Whether runs are shown, and why not."""

    standing: Literal["shown", "unverified", "hidden"]
    doubt: Annotated[Optional[str], Field(max_length=LONGEST)] = None


@router.put("/runs/{uid:path}/standing", tags=["exchange"], dependencies=[ADMIN, BEARER])
def set_standing(request: Request, uid: str, wanted: Standing) -> dict[str, str]:
    """Show a run, hide it, or mark it as unverified: only what is shown counts."""
    database(request).get(uid)
    platform(request).set_standing([uid], wanted.standing, wanted.doubt)
    return {"uid": uid, "standing": wanted.standing}


@router.delete(
    "/runs/{uid:path}", tags=["exchange"], dependencies=[ADMIN, BEARER], summary="Delete a run."
)
def delete(request: Request, uid: str) -> dict[str, int]:
    return {"deleted": database(request).delete([uid])}


# -- as JSON ---------------------------------------------------------------------------------------


def known_task(request: Request, task_id: int) -> Task:
    """A task by its number.

    Raises:
        Refused: there is none.
    """
    found = next((t for t in all_tasks(request) if t.id == task_id), None)
    if found is None:
        raise Refused(404, f"there is no task {task_id}")
    return found


def is_admin(request: Request) -> bool:
    token: Optional[AccessToken] = getattr(request.state, "token", None)
    return token is not None and token.may("admin")


def visible_run(request: Request, uid: str) -> tuple[RunRecord, RunOutcome]:
    """A run, unless it is hidden from who asks.

    Raises:
        UnknownRun: there is none.
        Refused: it is hidden.
    """
    record = database(request).get(uid)
    outcome = platform(request).outcomes([uid]).get(uid, RunOutcome(None, None, "shown", None))
    if outcome.standing == "hidden" and not is_admin(request):
        raise Refused(404, "this run is hidden")
    return record, outcome


def matches(task: Task, text: str | None) -> bool:
    words = (text or "").lower().split()
    told = f"{task.title} {task.framework.name} {task.framework.version} {task.task_type}".lower()
    return all(word in told for word in words)


def task_json(task: Task, counts: dict[int, int]) -> dict[str, Any]:
    return {**asdict(task), "title": task.title, "runs": counts.get(task.id or 0, 0)}


def run_json(record: RunRecord) -> dict[str, Any]:
    return {k: v for k, v in asdict(record).items() if k != "measurements"}


def batch_json(batch: Batch) -> dict[str, Any]:
    return {
        **asdict(batch.contribution),
        "runs": batch.runs,
        "hidden": batch.hidden,
        "unverified": batch.unverified,
    }
