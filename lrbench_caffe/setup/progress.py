"""The output of setup while it works: lines, and on a terminal a count of megabytes below them."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

ERASE = "\r\x1b[K"
TERMINAL_SECONDS = 0.5  # between two counts in a terminal
FILE_SECONDS = 20.0  # between two counts in a file or a pipe, where each is on its own line

_started = time.monotonic()
_lock = threading.Lock()
_shown = False  # whether the terminal's last line shows a count


def elapsed() -> str:
    """Return the time since the start as text."""
    return f"{time.monotonic() - _started:.0f} s"


def say(subject: str, message: str) -> None:
    """Print one line."""
    _write(f"{subject}: {message}\n")


def _write(text: str, *, is_count: bool = False) -> None:
    global _shown
    with _lock:
        sys.stdout.write((ERASE if _shown else "") + text)
        sys.stdout.flush()
        _shown = is_count


@contextlib.contextmanager
def counting(subject: str, folder: Path, total: int) -> Iterator[None]:
    """Tell how much of a download has arrived, until the block ends.

    Args:
        subject: what the lines begin with.
        folder: where the files arrive.
        total: bytes.
    """
    ended = threading.Event()
    in_place = sys.stdout.isatty()

    def count() -> None:
        while not ended.wait(TERMINAL_SECONDS if in_place else FILE_SECONDS):
            text = f"{subject}: {size_of(folder) / 1e6:.0f} of {total / 1e6:.0f} MB"
            _write(text if in_place else f"{text}\n", is_count=in_place)

    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if in_place:
            _write("")


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder, while others write there."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_size if not path.is_dir() else 0
    return total
