"""Who may do what: tokens, sign-in, forms that come from our own pages, limits, and headers.

A token comes in the header ``Authorization: Bearer SECRET``, or in the cookie that signing in sets.
Each request asks the database for it, so a token that is revoked ends at once in all processes.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lrbench_caffe.database.checks import storable
from lrbench_caffe.database.platform import AccessToken, Platform
from lrbench_caffe.web.errors import Refused
from lrbench_caffe.web.paths import own_path
from lrbench_caffe.web.settings import WebSettings

SESSION, FORM = "lrbench_token", "lrbench_form"  # cookies: the token, and what forms must repeat
SESSION_SECONDS = 30 * 24 * 3600
WINDOW = 60.0  # seconds that requests are counted in
MOST_ADDRESSES = 10_000  # that are counted at once
SAFE = ("GET", "HEAD", "OPTIONS")

# No script and no frame but our own; the chart library styles its drawings by itself.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; font-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class SecurityHeaders:
    """Gives every answer the headers that tell a browser what our pages never do."""

    def __init__(self, app: ASGIApp, secure: bool) -> None:
        self.app = app
        self.headers = dict(HEADERS)
        if secure:
            self.headers["Strict-Transport-Security"] = "max-age=31536000"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)


class RateLimit:
    """Refuses an address that asks too often: counted by process, over the last minute."""

    def __init__(self, app: ASGIApp, settings: WebSettings) -> None:
        self.app = app
        self.settings = settings
        self.seen: dict[tuple[str, bool], deque[float]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wait = self._wait(scope) if scope["type"] == "http" else None
        if wait is None:
            return await self.app(scope, receive, send)
        words = "too many requests from this address; try again later"
        headers = {"Retry-After": str(int(wait) + 1)}
        answer: Response = PlainTextResponse(f"{words}\n", 429, headers)
        if own_path(scope).startswith("/api/"):
            answer = JSONResponse({"error": words}, 429, headers)
        return await answer(scope, receive, send)

    def _wait(self, scope: Scope) -> float | None:
        """Seconds until the address may ask again; None where it may now."""
        writes = scope["method"] not in SAFE
        most = self.settings.writes if writes else self.settings.requests
        address = (scope.get("client") or ("", 0))[0]
        now = time.monotonic()
        times = self.seen.setdefault((address, writes), deque())
        while times and times[0] <= now - WINDOW:
            times.popleft()
        if len(times) >= most:
            return times[0] + WINDOW - now
        times.append(now)
        if len(self.seen) > MOST_ADDRESSES:
            self.seen = {k: v for k, v in self.seen.items() if v and v[-1] > now - WINDOW}
        return None


# -- tokens ----------------------------------------------------------------------------------------


async def token_of(request: Request) -> AccessToken | None:
    """The request's token; None where it has none.

    Raises:
        Refused: it has one that is not valid.
    """
    secret, by_header = _secret(request.headers, request.cookies)
    if secret is None:
        return None
    token = await run_in_threadpool(valid_token, request.app.state.platform, secret)
    if token is not None:
        return token
    if not by_header:  # a cookie of a token that ended: as if it were not there
        return None
    raise Refused(401, "the token is unknown, expired or revoked")


def valid_token(platform: Platform, secret: str) -> AccessToken | None:
    """The token of a secret, if it is valid now."""
    token = platform.token(secret)
    return token if token is not None and token.valid(time.time()) else None


def _secret(headers: Headers, cookies: dict[str, str]) -> tuple[str | None, bool]:
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return secret.strip(), True
    return cookies.get(SESSION), False


def needs(scope: str, changes: bool = True) -> Callable[[Request], Awaitable[object]]:
    """What an endpoint depends on: a token that may do what needs ``scope``.

    Reading needs none, unless the server is private. Where the token came with the cookie, a
    request that changes something must come from a form of ours.

    Args:
        changes: False for a request that is sent by POST and changes nothing.
    """

    async def check(request: Request) -> AccessToken | None:
        settings: WebSettings = request.app.state.settings
        _check_text(request)
        token = await token_of(request)
        request.state.token = token
        if request.method not in SAFE and settings.read_only and scope != "read":
            raise Refused(403, "this server is read-only")
        if token is None and (scope != "read" or settings.private):
            raise Refused(401, f"this needs a token with the scope {scope!r}")
        if token is not None and not token.may(scope):
            raise Refused(403, f"this needs the scope {scope!r}; the token has {token.scope!r}")
        if changes and request.method not in SAFE and not _by_header(request):
            await check_form(request)
        return token

    return check


def _check_text(request: Request) -> None:
    """Check that all text of the address could be in the database, so that it can be asked for."""
    given = [*request.path_params.items(), *request.query_params.multi_items()]
    for name, value in given:
        if isinstance(value, str) and storable(value) != value:
            raise Refused(400, f"{name}: {value!r:.80}; allowed: text without control characters")


def _by_header(request: Request) -> bool:
    return request.headers.get("authorization", "").lower().startswith("bearer ")


# -- forms -----------------------------------------------------------------------------------------


def form_key(request: Request) -> str:
    """What a form of a page repeats; ``set_form_key`` gives the browser the other half."""
    key = request.cookies.get(FORM) or getattr(request.state, "form_key", None)
    if key is None:
        key = request.state.form_key = secrets.token_urlsafe(24)
    return str(key)


def set_form_key(request: Request, response: Response) -> None:
    """Set the cookie of a page with a form, unless the browser has it."""
    key = getattr(request.state, "form_key", None)
    if key is not None:
        set_cookie(request, response, FORM, key, SESSION_SECONDS)


def set_cookie(request: Request, response: Response, name: str, value: str, seconds: int) -> None:
    settings: WebSettings = request.app.state.settings
    response.set_cookie(
        name,
        value,
        max_age=seconds,
        path=settings.root_path or "/",
        secure=settings.secure,
        httponly=True,
        samesite="strict",
    )


async def check_form(request: Request) -> None:
    """Check that a form is one of our pages'.

    Raises:
        Refused: it is not.
    """
    origin = request.headers.get("origin")
    if origin is not None and _place_of(origin) != request.headers.get("host", ""):
        raise Refused(403, "the form comes from another site")
    key = request.cookies.get(FORM)
    form = await request.form()
    given = form.get("form_key")
    if not key or not isinstance(given, str) or not hmac.compare_digest(_coded(key), _coded(given)):
        raise Refused(403, "the form is not from this page; open the page again and repeat")


def _place_of(origin: str) -> str | None:
    """Host and port of an origin; None where it is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _coded(key: str) -> bytes:
    """A key, which may be any text where it was not we who made it."""
    return key.encode("utf-8", "surrogatepass")
