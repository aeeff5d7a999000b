"""Signing in with a token, and the uploads: sent by a form, taken back, shown and hidden."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from lrbench_caffe.database.platform import AccessToken
from lrbench_caffe.database.uploads import LONGEST_LINE, MOST_LINES, receive
from lrbench_caffe.web.api import (
    ADMIN,
    READ,
    WRITE,
    Text,
    begun,
    counted,
    database,
    platform,
    taken_back,
)
from lrbench_caffe.web.bodies import too_many_lines
from lrbench_caffe.web.errors import Refused
from lrbench_caffe.web.rendering import page, run_address
from lrbench_caffe.web.security import (
    SESSION,
    SESSION_SECONDS,
    check_form,
    set_cookie,
    valid_token,
)

router = APIRouter()
MOST = 200  # uploads that are listed
SHOWN = 100  # answers that are shown


@router.get("/sign-in")
def sign_in(request: Request) -> Response:
    return page(request, "sign_in.html", {"title": "Sign in"})


@router.post("/sign-in")
async def signed_in(request: Request, secret: Annotated[str, Form(max_length=1000)]) -> Response:
    await check_form(request)
    token = await run_in_threadpool(valid_token, platform(request), secret.strip())
    if token is None:
        values = {"title": "Sign in", "problem": "The token is unknown, expired or revoked."}
        return page(request, "sign_in.html", values, 401)
    response = RedirectResponse(request.url_for("uploads"), 303)
    set_cookie(request, response, SESSION, secret.strip(), SESSION_SECONDS)
    return response


@router.post("/sign-out")
async def sign_out(request: Request) -> Response:
    await check_form(request)
    response = RedirectResponse(request.url_for("tasks"), 303)
    set_cookie(request, response, SESSION, "", 0)
    return response


@router.get("/uploads", dependencies=[READ])
def uploads(request: Request, contributor: Text = None) -> Response:
    found = platform(request).batches(contributor or None, MOST)
    return page(request, "uploads.html", {"title": "Uploads", "batches": found})


@router.post("/uploads")
async def send(request: Request, token: Annotated[AccessToken, WRITE]) -> Response:
    """An upload from a page: a file that ``db export`` wrote.

    The form is read here, after the token was checked: nobody else can fill the disk with a file.
    """
    form = await request.form(max_files=1, max_fields=10)
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise Refused(400, "file: none; allowed: a file that db export wrote")
    note, link = (str(form.get(name) or "").strip() or None for name in ("note", "link"))
    contribution = await run_in_threadpool(begun, platform(request), token.name, None, note, link)
    answers = await run_in_threadpool(
        lambda: list(receive(database(request), _lines(file), contribution))
    )
    told = [a for a in answers if a.reason]
    values: dict[str, Any] = {
        "title": "Uploaded", "counts": counted(answers), "answers": told[:SHOWN], "more": len(told) - SHOWN,
    }  # fmt: skip
    return page(request, "uploaded.html", values)


def _lines(file: UploadFile) -> Iterator[bytes]:
    number = 0
    while line := file.file.readline(LONGEST_LINE + 1):
        number += 1
        if number > MOST_LINES:
            raise too_many_lines(MOST_LINES)
        if len(line) > LONGEST_LINE:
            raise Refused(413, f"a line has more than {LONGEST_LINE} bytes")
        yield line


@router.post("/uploads/take-back")
def take_back(request: Request, token: Annotated[AccessToken, WRITE], uid: Text = None) -> Response:
    taken_back(platform(request), uid or "", token)
    return RedirectResponse(request.url_for("uploads"), 303)


@router.post("/standing")
def set_standing(
    request: Request,
    token: Annotated[AccessToken, Depends(ADMIN.dependency)],
    standing: Annotated[str, Form(max_length=20)],
    doubt: Annotated[str, Form(max_length=1000)] = "",
    uid: Text = None,
) -> Response:
    """Show or hide a run."""
    record = database(request).get(uid or "")
    platform(request).set_standing([record.uid], standing, doubt.strip() or None)
    return RedirectResponse(run_address(request, record.uid), 303)
