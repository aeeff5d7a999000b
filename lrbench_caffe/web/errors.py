"""How requests fail: a status and one line, as JSON for programs and as a page for browsers."""

from __future__ import annotations

from lrbench_caffe.errors import LRBenchError


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
