"""A platform's API, as push and pull use it.

All requests can be repeated: what arrived is there already. So a lost connection, or a server that
restarts, is waited for.
"""

from __future__ import annotations

import gzip
import http.client
import json
import random
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

from lrbench_caffe import __version__
from lrbench_caffe.errors import InputError, LRBenchError
from lrbench_caffe.plaintext import one_line

TOKEN = "LRBENCH_TOKEN"  # the environment variable with the token's secret
TIMEOUT = 60.0  # seconds without a byte
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0  # seconds
PASSING = (408, 429, 500, 502, 503, 504)  # answers after which it may be tried again
LONGEST_REASON = 500  # characters of what a server says that are shown
_API = "/api/v1/"


class PlatformError(LRBenchError):
    """The platform cannot be reached, or refuses."""

    exit_code = 1


@dataclass(frozen=True)
class Sent:
    """What became of runs that were sent: numbers, and the reasons of those that were refused or doubted."""

    new: int
    present: int
    refused: int
    reasons: list[str]


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect unless it would lose something: the body of an upload, or the token."""

    def redirect_request(
        self, req: urllib.request.Request, *others: Any
    ) -> urllib.request.Request | None:
        if req.data is not None or req.has_header("Authorization"):
            return None
        return super().redirect_request(req, *others)


_open = urllib.request.build_opener(_Redirects).open


class Client:
    """A platform.

    Args:
        url: its address, with the path under which it is served.
        token: the secret of a token; None where reading needs none.
        patience: seconds, from its first failure on, for which a request is tried again.
    """

    def __init__(self, url: str, token: str | None = None, patience: float = 60.0) -> None:
        parts = _parsed(url)
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._token = token
        self._patience = patience

    def send(self, lines: list[bytes], batch: str, note: str | None, link: str | None) -> Sent:
        """Send runs as a part of an upload.

        Args:
            lines: as ``exchange.to_line`` writes them.
            batch: the upload's unique identifier.
            note, link: what is said of it.

        Raises:
            PlatformError: it cannot be reached, or refuses all of them.
        """
        given = {"batch": batch, "note": note, "link": link}
        query = urlencode({k: v for k, v in given.items() if v is not None})
        headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}
        body = gzip.compress(b"".join(lines), 6, mtime=0)
        answer = self._ask(f"{_API}runs?{query}", body, headers)
        try:
            return _sent(json.loads(answer))
        except (ValueError, KeyError, TypeError):
            raise PlatformError(
                f"{self.url}: its answer is not that of an upload: no LR platform?"
            ) from None

    def pages(self, **filters: Any) -> Iterator[list[bytes]]:
        """All runs that fit, as lines, page by page.

        Args:
            filters: task, function, source, contributor; None for any.

        Raises:
            PlatformError: it cannot be reached, or refuses.
        """
        given = {k: v for k, v in filters.items() if v is not None}
        after: str | None = None
        while True:
            place = {} if after is None else {"after": after}
            body = self._ask(f"{_API}export?{urlencode({**given, **place})}", None, {})
            lines = body.splitlines(keepends=True)
            if not lines:
                return
            try:
                last = str(json.loads(lines[-1])["uid"])
            except (ValueError, KeyError, TypeError):
                raise PlatformError(
                    f"{self.url}: its answer is not runs: no LR platform?"
                ) from None
            if last == after:
                raise PlatformError(f"{self.url}: it gives the same runs again and again")
            after = last
            yield lines

    def _ask(self, path: str, body: bytes | None, headers: Mapping[str, str]) -> bytes:
        """The answer to a request, which is repeated while it fails for a reason that passes."""
        request = urllib.request.Request(self.url + path, body, dict(headers))
        request.add_header("User-Agent", f"lrbench_caffe/{__version__}")
        request.add_header("Accept-Encoding", "gzip")
        if self._token:
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        deadline: float | None = None
        pause = FIRST_PAUSE
        while True:
            try:
                with _open(request, timeout=TIMEOUT) as response:
                    return _content(response)
            except urllib.error.HTTPError as error:
                failure = PlatformError(f"{self.url} answers {error.code}: {_reason(error)}")
                if error.code not in PASSING:
                    raise failure from None
                wait = _wait(error)
            except (OSError, http.client.HTTPException, EOFError, zlib.error) as error:
                reason = getattr(error, "reason", None) or str(error) or type(error).__name__
                failure = PlatformError(f"{self.url} is out of reach: {one_line(str(reason))}")
                wait = 0.0
            now = time.monotonic()
            deadline = deadline or now + self._patience
            # Who comes before the time that the server names is refused again.
            least = max(wait, pause / 2)
            if now + least > deadline:
                raise failure
            time.sleep(random.uniform(least, max(wait, pause)))
            pause = min(2 * pause, LONGEST_PAUSE)


def _parsed(url: str) -> Any:
    try:
        parts = urlsplit(url)
        allowed = parts.scheme in ("http", "https") and parts.hostname and not parts.username
        _ = parts.port
    except ValueError:
        allowed = False
    if not allowed:
        raise InputError(f"platform {url!r}; allowed: http://HOST or https://HOST, with a path")
    return parts


def _content(response: Any) -> bytes:
    body: bytes = response.read()
    return gzip.decompress(body) if response.headers.get("Content-Encoding") == "gzip" else body


def _sent(answer: Any) -> Sent:
    """The answer to an upload.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    reasons = [
        f"run {a['uid'] or a['line']}: {a['reason']}" for a in answer["answers"] if a["reason"]
    ]
    new, present, refused = (int(answer[name]) for name in ("new", "present", "refused"))
    return Sent(new, present, refused, reasons)


def _wait(error: urllib.error.HTTPError) -> float:
    """Seconds that the server wants to be left alone."""
    text = error.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else 0.0


def _reason(error: urllib.error.HTTPError) -> str:
    """What the server says, in one line of plain text."""
    if 300 <= error.code < 400:
        place = urljoin(error.url or "", error.headers.get("Location", ""))
        return f"moved to {one_line(place.partition(_API)[0])[:LONGEST_REASON]}; name that address"
    try:
        text = json.loads(_content(error))["error"]
    except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error):
        text = error.reason
    return one_line(str(text))[:LONGEST_REASON]
