"""How requests fail: a status and one line, as JSON for programs and as a page for browsers."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from lrbench_caffe.errors import LRBenchError


class Failure(BaseModel):
    """The answer to a request that fails: why, in one line."""

    error: str


# Of the API's description. Without it FastAPI describes an answer of its own that is never given.
FAILURES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Failure, "description": "The request is refused."},
    "5XX": {"model": Failure, "description": "The server, or its database, cannot answer now."},
}


class Refused(LRBenchError):
    """A request that is refused.

    Attributes:
        status: of HTTP.
        wait: seconds after which it may be tried again; None where that would not help.
    """

    def __init__(self, status: int, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.wait = wait
