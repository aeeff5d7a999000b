"""The web application: its routes, what surrounds them, and how their errors look."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.staticfiles import StaticFiles

from lrbench_caffe import __version__
from lrbench_caffe.database.errors import DatabaseError, DatabaseUnavailable, UnknownRun
from lrbench_caffe.database.platform import Platform
from lrbench_caffe.database.store import Database
from lrbench_caffe.database.urls import scrub_text
from lrbench_caffe.errors import LRBenchError, spelling
from lrbench_caffe.lr import PolicyError
from lrbench_caffe.plaintext import one_line
from lrbench_caffe.web import api, health, recommending
from lrbench_caffe.web.access import AccessLog
from lrbench_caffe.web.bodies import BodyLimit
from lrbench_caffe.web.errors import Refused
from lrbench_caffe.web.live import LiveFolders
from lrbench_caffe.web.pages import PAGES
from lrbench_caffe.web.paths import HeadAsGet, UnderRootPath, own_path
from lrbench_caffe.web.remembering import KnownResults, RememberedAnswers
from lrbench_caffe.web.rendering import page, templates
from lrbench_caffe.web.security import RateLimit, SecurityHeaders
from lrbench_caffe.web.settings import MIB, WebSettings
from lrbench_caffe.web.tunings import StudyFolders

SMALL = MIB // 4  # bytes of the body of a form
M_ARENA_MAX, HEAPS = -8, 2  # of malloc.h: mallopt(3)
PATIENCE = 5.0  # seconds that a request waits for the database
STATIC = Path(__file__).parent / "static"
LOG = logging.getLogger("lrbench_caffe.web")


def app_of_environment() -> FastAPI:
    """The application of a worker process, whose settings the command left in the environment."""
    _share_memory_between_threads()
    return create_app(WebSettings.from_environment())


def _share_memory_between_threads() -> None:
    """Keep glibc from giving each thread a heap of its own, where what one frees no other can use.

    A server with many threads would grow with the largest answer that each of them has made.
    """
    with suppress(AttributeError, OSError, TypeError):  # another C library, another system
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, HEAPS)


def create_app(settings: WebSettings) -> FastAPI:
    """The application.

    The database is opened when it starts, and closed when it ends.
    """

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        # A message names parameters as the API does, also where the command line started the server.
        with spelling(str), Database.open(settings.db, patience=PATIENCE) as database:
            app.state.database = database
            app.state.platform = Platform(database)
            app.state.results = KnownResults(database)
            yield

    app = FastAPI(
        title="LR database",
        version=__version__,
        description="Learning-rate policies, and what they achieved.",
        lifespan=life,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # its pages load their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.templates = templates()
    app.state.live = LiveFolders(settings.folders)
    app.state.studies = StudyFolders(settings.folders)
    for router in PAGES:  # first: where a page and the API have a name in common, it is the page's
        app.include_router(router, include_in_schema=False)
    app.include_router(api.router)
    app.include_router(recommending.router)
    app.include_router(health.router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_middleware(BodyLimit, most=_bodies(settings), other=SMALL)
    app.add_middleware(GZipMiddleware, minimum_size=1000, compresslevel=4)
    app.add_middleware(RememberedAnswers, settings=settings)
    app.add_middleware(RateLimit, settings=settings)
    app.add_middleware(SecurityHeaders, secure=settings.secure)
    app.add_middleware(HeadAsGet)
    app.add_middleware(AccessLog)
    app.add_middleware(UnderRootPath, root_path=settings.root_path)
    # ClientDisconnect: whoever ends in the middle of an upload is not a fault of this server.
    for kind in (
        LRBenchError,
        PolicyError,
        HTTPException,
        RequestValidationError,
        ClientDisconnect,
    ):
        app.add_exception_handler(kind, _failure)
    app.add_exception_handler(Exception, _fault)
    return app


def _bodies(settings: WebSettings) -> dict[str, int | None]:
    """The largest body of each path that takes a large one, in bytes."""
    return {
        "/api/v1/runs": None,  # which counts what it has uncompressed
        "/uploads": settings.upload_mib * MIB + SMALL,
        "/recommend": settings.texts,
        "/api/v1/recommendations": settings.texts,
    }


async def _failure(request: Request, error: Exception) -> Response:
    """The answer to a request that fails for a reason that its sender can understand."""
    status, message, headers = _told(error)
    return answer(request, status, one_line(scrub_text(message)), headers)


def _told(error: Exception) -> tuple[int, str, dict[str, str]]:
    if isinstance(error, Refused):
        headers = {} if error.wait is None else {"Retry-After": str(int(error.wait) + 1)}
        if error.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        return error.status, str(error), headers
    if isinstance(error, UnknownRun):
        return 404, str(error), {}
    if isinstance(error, DatabaseUnavailable):
        LOG.warning("%s", scrub_text(str(error)))
        return 503, "the LR database is out of reach; try again later", {"Retry-After": "5"}
    if isinstance(error, DatabaseError):
        LOG.error("%s", scrub_text(str(error)))
        return 500, "the LR database refuses; its log says why", {}
    if isinstance(error, HTTPException):
        return error.status_code, str(error.detail), dict(error.headers or {})
    if isinstance(error, RequestValidationError):
        first: dict[str, Any] = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:]) or "the request"
        return 422, f"{place}: {first['msg']}", {}
    if isinstance(error, ClientDisconnect):
        return 400, "the connection ended before the body", {}
    return 400, str(error), {}


async def _fault(request: Request, error: Exception) -> Response:
    """The answer where this program is at fault; the log has the traceback."""
    return answer(request, 500, "an error of this server; its log has the details", {})


def answer(request: Request, status: int, message: str, headers: dict[str, str]) -> Response:
    """An error, as JSON under /api and as a page elsewhere."""
    if own_path(request.scope).startswith("/api/"):
        return JSONResponse({"error": message}, status, headers)
    title = f"{status} {HTTPStatus(status).phrase}"
    made = page(request, "error.html", {"title": title, "message": message}, status)
    made.headers.update(headers)
    return made
