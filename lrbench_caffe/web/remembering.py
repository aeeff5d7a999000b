"""What is shown again and again: remembered until it changes.

Each task has a stamp in the database (``Database.stamps``), which is asked for in each request: what
is remembered is never older than the answer of a server that remembers nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cachetools import LRUCache
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lrbench_caffe.database.store import Database
from lrbench_caffe.database.summaries import Reached
from lrbench_caffe.errors import LRBenchError
from lrbench_caffe.records import PolicySummary, Start
from lrbench_caffe.web.paths import own_path
from lrbench_caffe.web.security import SESSION
from lrbench_caffe.web.settings import MIB, WebSettings

MOST_SUMMARIES = 30_000  # of all tasks together, some 2 kB each
MOST_BYTES = 32 * MIB  # of answers
LARGEST = 2 * MIB  # of one answer

Stamps = dict[int, int]


class KnownResults:
    """What a ranking reads of the database; the summaries of a whole task are remembered.

    Threads may share it. Of several that ask for the same at once, one reads it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: LRUCache[Any, tuple[Stamps, list[PolicySummary]]] = LRUCache(
            MOST_SUMMARIES, getsizeof=lambda entry: 1 + len(entry[1])
        )
        self._lock = threading.Lock()
        self._reading: dict[Any, threading.Lock] = {}

    def summaries(self, task_id: int, **query: Any) -> list[PolicySummary]:
        """See ``Database.summaries``."""

        def read() -> list[PolicySummary]:
            return self._database.summaries(task_id, **query)

        if query.get("limit") is not None:  # the database has them sorted: it is as fast
            return read()
        values = ((n, tuple(v) if isinstance(v, list) else v) for n, v in sorted(query.items()))
        return self._remembered((task_id, *values), task_id, read)

    def starts(self, task_id: int) -> list[Start]:
        """See ``Database.starts``."""
        return self._database.starts(task_id)

    def iterations_to_top1(
        self, task_id: int, top1: float, among: Sequence[PolicySummary] | None = None
    ) -> dict[int, Reached]:
        """See ``Database.iterations_to_top1``."""
        return self._database.iterations_to_top1(task_id, top1, among)

    def _remembered(
        self, key: Any, task_id: int, read: Callable[[], list[PolicySummary]]
    ) -> list[PolicySummary]:
        with self._lock:
            reading = self._reading.setdefault(key, threading.Lock())
        with reading:
            stamps = self._database.stamps(task_id)
            with self._lock:
                known = self._known.get(key)
            if known is None or known[0] != stamps:
                known = stamps, read()
                with self._lock:
                    if len(known[1]) < MOST_SUMMARIES:
                        self._known[key] = known
                    self._reading = {k: v for k, v in self._reading.items() if v.locked()}
        return list(known[1])


# -- whole answers ---------------------------------------------------------------------------------

_OF_A_TASK = re.compile(r"/(?:api/v1/)?tasks/(\d{1,18})(?:/ranking|/front|/schedules)?(?:\.\w+)?")
_OF_ALL = ("/", "/api/v1/tasks")


@dataclass(frozen=True)
class _Kept:
    stamps: Stamps
    headers: list[tuple[bytes, bytes]]
    etag: bytes
    body: bytes


class RememberedAnswers:
    """Gives visitors without a token the same answer again, for as long as its tasks have their stamps.

    Of several who ask for the same at once, one is answered by the application, the others with it.
    A browser that has the answer already is told so.
    """

    def __init__(self, app: ASGIApp, settings: WebSettings) -> None:
        self.app = app
        self.settings = settings
        self.answers: LRUCache[Any, _Kept] = LRUCache(
            MOST_BYTES, getsizeof=lambda answer: 1000 + len(answer.body)
        )
        self.pending: dict[Any, asyncio.Future[_Kept | None]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = self._key(scope)
        stamps = {} if key is None else await self._stamps(scope)
        if not stamps:
            return await self.app(scope, receive, send)
        answer = self.answers.get(key)
        if answer is None or answer.stamps != stamps:
            waited_for = (key, *stamps.items())
            if waited_for in self.pending:
                answer = await asyncio.shield(self.pending[waited_for])
                if answer is None:
                    return await self.app(scope, receive, send)
            else:
                answer = await self._ask(scope, receive, send, key, stamps, waited_for)
        if answer is not None:
            await self._send(answer, scope, send)
        return None

    def _key(self, scope: Scope) -> Any:
        """What makes an answer what it is; None where it is not remembered."""
        if scope["type"] != "http" or scope["method"] != "GET" or self.settings.private:
            return None
        headers = Headers(scope=scope)
        path = own_path(scope)
        if "authorization" in headers or SESSION in cookie_parser(headers.get("cookie", "")):
            return None
        if path not in _OF_ALL and not _OF_A_TASK.fullmatch(path):
            return None
        compressed = "gzip" in headers.get("accept-encoding", "")
        place = scope["scheme"], headers.get("host"), scope.get("root_path")
        return (*place, scope["path"], scope["query_string"], compressed)

    async def _stamps(self, scope: Scope) -> Stamps:
        """Of the tasks that the answer shows; none where that cannot be told."""
        found = _OF_A_TASK.fullmatch(own_path(scope))
        database: Database = scope["app"].state.database
        try:
            return await run_in_threadpool(database.stamps, int(found[1]) if found else None)
        except LRBenchError:
            return {}  # what is wrong is for the application to say

    async def _ask(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        key: Any,
        stamps: Stamps,
        waited_for: Any,
    ) -> _Kept | None:
        """The application's answer; None where it is not one to remember: then it is sent as it comes."""
        pending = self.pending[waited_for] = asyncio.get_running_loop().create_future()
        answer = None
        try:
            start, body = await self._collected(scope, receive, send)
            if start is not None:
                etag = b'"' + hashlib.sha256(body).hexdigest()[:32].encode() + b'"'
                own = [(b"cache-control", b"no-cache"), (b"etag", etag), (b"vary", b"Cookie")]
                answer = _Kept(stamps, [*start["headers"], *own], etag, body)
                if len(body) <= LARGEST:
                    self.answers[key] = answer
            return answer
        finally:
            del self.pending[waited_for]
            pending.set_result(answer)

    async def _collected(
        self, scope: Scope, receive: Receive, send: Send
    ) -> tuple[Message | None, bytes]:
        """A good answer's beginning and its whole body; another one is sent on."""
        start: Message | None = None
        body = bytearray()

        async def collect(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _good(message):
                start = message
            elif start is None:
                await send(message)
            else:
                body.extend(message.get("body", b""))

        await self.app(scope, receive, collect)
        return start, bytes(body)

    async def _send(self, answer: _Kept, scope: Scope, send: Send) -> None:
        known = Headers(scope=scope).get("if-none-match", "").encode()
        if answer.etag in known:
            kept = [h for h in answer.headers if h[0] in (b"cache-control", b"etag", b"vary")]
            await send({"type": "http.response.start", "status": 304, "headers": kept})
            await send({"type": "http.response.body", "body": b""})
            return
        await send({"type": "http.response.start", "status": 200, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body})


def _good(start: Message) -> bool:
    return start["status"] == 200 and all(name != b"set-cookie" for name, _ in start["headers"])
