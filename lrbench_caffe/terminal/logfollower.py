"""Copies Caffe's log to stderr as it is written, as ``caffe train`` prints it."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import TextIO, cast

from lrbench_caffe.terminal.streams import Unbreakable

INTERVAL = 0.1  # seconds between two looks at the log


class LogFollower:
    """While entered, copies what is appended to a log to stderr, in whole lines.

    The worker writes its log into the file itself, so that it is complete whatever becomes of this
    process.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._offset = log.stat().st_size if log.exists() else 0
        self._sink = cast(TextIO, Unbreakable(sys.stderr))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> LogFollower:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._ended.wait(INTERVAL):
            self._copy()
        self._copy()

    def _copy(self) -> None:
        try:
            with self._log.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
        except OSError:  # Caffe has not begun
            return
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        if whole:
            self._sink.write(whole.decode("utf-8", "replace"))
            self._sink.flush()
