"""Reads the body of a request piece by piece, and never more of it than is allowed."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Mapping

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lrbench_caffe.web.errors import Refused
from lrbench_caffe.web.paths import own_path

PIECE = 2**16  # bytes that are uncompressed at once
_GZIP = 31  # zlib's word for its largest window, in gzip's format


class BodyLimit:
    """Ends a request whose body is larger than its path allows, before more of it is kept anywhere.

    Args:
        most: bytes by path; a path that is not in it has no limit here.
        other: bytes for all other paths.
    """

    def __init__(self, app: ASGIApp, most: Mapping[str, int | None], other: int) -> None:
        self.app = app
        self.most = most
        self.other = other

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        most = self._most(scope) if scope["type"] == "http" else None
        if most is None:
            return await self.app(scope, receive, send)
        told = Headers(scope=scope).get("content-length", "0")
        left = most - int(told) if told.isdecimal() else most
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if left < 0 or taken > most:
                raise HTTPException(413, f"the body has more than {most} bytes")
            return message

        await self.app(scope, counted, send)

    def _most(self, scope: Scope) -> int | None:
        return self.most.get(own_path(scope), self.other)


async def read_lines(
    request: Request, most: int, longest: int, most_lines: int
) -> AsyncIterator[bytes]:
    """The lines of a body.

    Args:
        most: bytes of the body, uncompressed; longest: of a line.
        most_lines: lines, empty ones among them.

    Raises:
        Refused: it is larger, or not what its Content-Encoding says.
    """
    rest = bytearray()
    ended = 0
    async for piece in _pieces(request, most):
        whole, newline, last = piece.rpartition(b"\n")
        ended += piece.count(b"\n")
        if ended > most_lines:  # before they are split
            raise too_many_lines(most_lines)
        if newline:  # only what came now is looked through: a long line takes no longer than many
            rest += whole
            for line in rest.split(b"\n"):
                yield bytes(line)
            rest.clear()
        rest += last
        if len(rest) > longest:
            raise Refused(413, f"a line has more than {longest} bytes")
    if rest:
        if ended == most_lines:
            raise too_many_lines(most_lines)
        yield bytes(rest)


def too_many_lines(most: int) -> Refused:
    return Refused(413, f"more than {most} lines; allowed: several uploads")


async def _pieces(request: Request, most: int) -> AsyncIterator[bytes]:
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding not in ("identity", "gzip"):
        raise Refused(415, f"Content-Encoding: {encoding!r}; allowed: gzip, identity")
    taken = 0
    async for piece in _uncompressed(request) if encoding == "gzip" else request.stream():
        taken += len(piece)
        if taken > most:
            raise Refused(413, f"the body has more than {most} bytes")
        yield piece
        # A few bytes may have a thousand such pieces in them: others get their turn in between.
        await asyncio.sleep(0)


async def _uncompressed(request: Request) -> AsyncIterator[bytes]:
    """A gzip body's content. A file of several members, as gzip joins them, is one content."""
    member = zlib.decompressobj(_GZIP)
    began = False
    async for received in request.stream():
        while received:
            if member.eof:
                member = zlib.decompressobj(_GZIP)
            began = True
            try:
                piece = member.decompress(received, PIECE)
            except zlib.error:
                raise Refused(400, "the body is not in gzip's format") from None
            received = member.unused_data if member.eof else member.unconsumed_tail
            yield piece
    if not began or not member.eof:
        raise Refused(400, "the body ends before its gzip stream")
