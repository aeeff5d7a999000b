"""Output that may lose its reader, and what it can take."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterable, Iterator
from typing import IO, Any, TextIO, cast

from lrbench_caffe.plaintext import visible


class Unbreakable(io.TextIOBase):
    """A text stream over another that becomes silent once writing fails.

    A training must not end because its terminal was closed or the ``head`` behind its pipe had
    enough.
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


class Escaping:
    """A text stream over another that writes what a terminal would obey as escapes (``plaintext.visible``).

    All else is the other stream's.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(visible(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def unescaped(stream: TextIO) -> TextIO:
    """The stream below, for code that writes escapes itself and makes outside text visible."""
    return stream.stream if isinstance(stream, Escaping) else stream


@contextlib.contextmanager
def escaping() -> Iterator[None]:
    """While entered, all that is printed is escaped, on both standard streams."""
    before = sys.stdout, sys.stderr
    wrapped = [cast(TextIO, Escaping(unescaped(stream))) for stream in before]
    sys.stdout, sys.stderr = wrapped
    try:
        yield
    finally:
        if [sys.stdout, sys.stderr] == wrapped:
            sys.stdout, sys.stderr = before


def has_unicode(file: IO[str]) -> bool:
    """Whether a stream takes every character; another one would print ? for some, and change
    names so."""
    return codecs.lookup(getattr(file, "encoding", None) or "ascii").name in (
        "utf-8",
        "utf-16",
        "utf-32",
    )
