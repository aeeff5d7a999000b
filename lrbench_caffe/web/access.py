"""The access log: one line of JSON for each request, without secrets."""

from __future__ import annotations

import json
import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOG = logging.getLogger("lrbench_caffe.web.access")


class AccessLog:
    """Logs method, path, status, bytes and milliseconds of each request. Queries may hold anything: they are
    left out."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        began = time.monotonic()
        status, sent = 500, 0

        async def counted(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                sent += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, counted)
        finally:
            token = scope.get("state", {}).get("token")
            line = {
                "time": round(time.time(), 3),
                "client": (scope.get("client") or ("", 0))[0],
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "bytes": sent,
                "ms": round(1000 * (time.monotonic() - began), 1),
                "token": token.name if token else None,
            }
            LOG.info(json.dumps(line))
