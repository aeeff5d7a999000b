"""Trainings of this machine while they run: a list, and one whose curves grow."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from lrbench_caffe.errors import LRBenchError
from lrbench_caffe.runs.rows import finite
from lrbench_caffe.web.api import READ, platform
from lrbench_caffe.web.errors import Refused
from lrbench_caffe.web.live import (
    LiveFolders,
    LiveRun,
    News,
    Place,
    news,
    result_text,
    shown_of,
)
from lrbench_caffe.web.rendering import page
from lrbench_caffe.web.security import needs

_check = needs("read")
router = APIRouter(dependencies=[READ])
LOOK = 1.0  # seconds between two looks at a run's files
QUIET = 15.0  # seconds without news after which a line keeps the connection open
ASK = 5.0  # seconds after which the token is asked for again
LONGEST = 600.0  # seconds of an answer; the browser asks again, from where it was


@router.get("/live")
def live(request: Request) -> Response:
    runs = folders(request).runs()
    values = {
        "title": "Live",
        "runs": shown_of(runs),
        "running": sum(run.status == "running" for run in runs),
        "all": len(runs),
    }
    return page(request, "live.html", values)


@router.get("/live.json")
def live_json(request: Request) -> list[dict[str, Any]]:
    """The list for the page, which asks for it while somebody looks."""
    return [_row(run) for run in shown_of(folders(request).runs())]


@router.get("/live/{key}")
def live_run(request: Request, key: str) -> Response:
    run = known(request, key)
    values = {
        "title": run.name,
        "run": run,
        "stored": run.uid is not None and _is_shown(request, run.uid),
        "study": request.app.state.studies.of_training(run.path),
    }
    return page(request, "live_run.html", values)


@router.get("/live/{key}/events", name="live_events")
async def events(request: Request, key: str) -> Response:
    """A run's tests and losses as they come, as server-sent events."""
    run = await run_in_threadpool(known, request, key)
    begin = Place.parse(request.headers.get("last-event-id"))
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(
        _followed(request, run, begin), headers=headers, media_type="text/event-stream"
    )


async def _followed(request: Request, run: LiveRun, place: Place) -> AsyncIterator[str]:
    quiet = lasted = 0.0
    status, asked = "", time.monotonic()
    while lasted < LONGEST and not await request.is_disconnected():
        if time.monotonic() - asked >= ASK:
            if not await _may_read(request):
                return  # the browser asks once more, and is told why
            asked = time.monotonic()
        found = await run_in_threadpool(news, run.path, place)
        now = await run_in_threadpool(folders(request).find, run.key)
        ended = now is None or now.status != "running"
        if found or (now is not None and now.status != status):
            status = now.status if now else "gone"
            yield _event(found, status)
            quiet = 0.0
        place = found.place
        if found.more:
            continue
        if ended and not found:
            yield f"event: end\ndata: {json.dumps(status)}\n\n"
            return
        if quiet >= QUIET:
            yield ": nothing new\n\n"
            quiet = 0.0
        await asyncio.sleep(0 if ended else LOOK)
        quiet, lasted = quiet + LOOK, lasted + LOOK


async def _may_read(request: Request) -> bool:
    """Whether the request would be answered if it came now: its token may have ended."""
    try:
        await _check(request)
    except (Refused, LRBenchError):
        return False
    return True


def _event(found: News, status: str) -> str:
    last = found.last_test
    data = {
        "again": found.again,
        "status": status,
        "iteration": found.iteration,
        "result": None if last is None else result_text(last.top1, last.test_loss),
        "losses": found.losses,
        "tests": [asdict(m) for m in found.tests if m.of_first_net],
    }
    return f"id: {found.place}\ndata: {json.dumps(_finite(data))}\n\n"


def _finite(value: Any) -> Any:
    """The value with null for what is no number of JSON, as the loss of a training that diverged."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return finite(value)


def _row(run: LiveRun) -> dict[str, Any]:
    shown = {name: value for name, value in asdict(run).items() if name != "path"}
    return _finite(shown)  # type: ignore[no-any-return]


def _is_shown(request: Request, uid: str) -> bool:
    outcome = platform(request).outcomes([uid]).get(uid)
    return outcome is not None and outcome.standing != "hidden"


def folders(request: Request) -> LiveFolders:
    found: LiveFolders = request.app.state.live
    return found


def known(request: Request, key: str) -> LiveRun:
    """A run by its key.

    Raises:
        Refused: there is none.
    """
    run = folders(request).find(key)
    if run is None:
        raise Refused(404, "there is no such run on this machine")
    return run
