"""Output that may lose its reader."""

from __future__ import annotations

import contextlib
import io
import os
from typing import TextIO


class Unbreakable(io.TextIOBase):
    """A text stream over another that goes quiet for good when writing fails.

    A training must not end because its terminal was closed or the ``head`` behind its pipe had enough.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if self._stream is not None:
            try:
                self._stream.write(text)
            except (OSError, ValueError):
                self._give_up()
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._give_up()

    def _give_up(self) -> None:
        """Send what is buffered, and all that follows, nowhere: else Python fails on it when it ends."""
        stream, self._stream = self._stream, None
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if stream is not None:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)

    def isatty(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return self._stream is not None and self._stream.isatty()
        return False

    def fileno(self) -> int:
        if self._stream is None:
            raise OSError("the stream is gone")
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._stream, "encoding", None) or "utf-8"


class WithoutBlankLines(Unbreakable):
    """The same without lines that are empty or blank. What is written at once is whole lines."""

    def write(self, text: str) -> int:
        super().write("".join(line for line in text.splitlines(keepends=True) if line.strip()))
        return len(text)
