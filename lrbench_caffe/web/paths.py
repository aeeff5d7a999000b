"""Requests as the application reads them, whatever a proxy or a program has made of them."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send


def own_path(scope: Scope) -> str:
    """The path of a request as the routes have it: without the root path."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")) or "/"


class UnderRootPath:
    """Tells the application its root path, and completes the path of a request that has lost it.

    ASGI wants the whole path, which many proxies shorten. A proxy that leaves it as it is works as well.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self.app = app
        self.root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        root = self.root_path
        if root and scope["type"] == "http":
            scope = {**scope, "root_path": root}
            if scope["path"] == root:  # as people type it
                scope.update(path=f"{root}/", raw_path=f"{root}/".encode())
            elif not scope["path"].startswith(f"{root}/"):
                raw = root.encode() + (scope.get("raw_path") or scope["path"].encode())
                scope.update(path=root + scope["path"], raw_path=raw)
        await self.app(scope, receive, send)


class HeadAsGet:
    """Answers HEAD with the headers that GET would have.

    Not where an answer has no end: a stream of events.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] != "http"
            or scope["method"] != "HEAD"
            or scope["path"].endswith("/events")
        ):
            return await self.app(scope, receive, send)

        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        return await self.app({**scope, "method": "GET"}, receive, without_body)
