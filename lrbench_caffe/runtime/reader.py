"""Asks Caffe's own reader about a prototxt where the driver's parser is not enough."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from lrbench_caffe.errors import InputError, PassingError, TrainingError
from lrbench_caffe.runtime.client import Worker
from lrbench_caffe.runtime.failures import Death, Hang
from lrbench_caffe.runtime.info import HELLO_SECONDS
from lrbench_caffe.runtime.locate import CaffePython

_PARSE_ERROR = re.compile(r"Error parsing text-format \S+: (\d+):(\d+): (.*)")


class CaffeReader:
    """Reads prototxts with the functions that ``caffe train`` reads them with.

    They take what Caffe's parser takes, and upgrade nets of older formats. Each call starts a
    process with Caffe in it, which takes about as long as ``import caffe``.

    Args:
        python: the interpreter that pycaffe lives in.
    """

    def __init__(self, python: CaffePython) -> None:
        self._python = python

    def __call__(self, message: str, path: Path) -> bytes | None:
        """The serialized message, or None where this Caffe's library does not export its functions.

        Caffe may crash by accident, or because of the file: then it crashes a second time, too.

        Raises:
            InputError: Caffe refuses the file, or crashes twice while it reads it.
            TrainingError: Caffe was killed meanwhile, or hung.
        """
        try:
            return self._read(message, path)
        except Death as error:
            if error.by_machine:
                raise
        try:
            return self._read(message, path)
        except Death as error:
            if error.by_machine:
                raise
            raise PassingError(f"{path}: {error}") from error

    def _read(self, message: str, path: Path) -> bytes | None:
        with tempfile.TemporaryDirectory(prefix="lrbench-") as folder:
            log = Path(folder) / "caffe.log"
            with self._worker(log) as worker:
                try:
                    parsed, data = worker.read(message, path)
                except (Death, Hang):
                    raise
                except TrainingError as error:
                    raise InputError(f"{path}: {error}") from error
            if parsed is False:
                raise InputError(_explain(path, log.read_text(encoding="utf-8", errors="replace")))
        return data if parsed else None

    def _worker(self, log: Path) -> Worker:
        return Worker(
            self._python, log, hang_seconds=HELLO_SECONDS, hang_parameter=None, known=True
        )


def _explain(path: Path, log: str) -> str:
    match = _PARSE_ERROR.search(log)
    if match is None:
        return f"{path}: Caffe cannot parse it"
    return f"{path}:{match[1]}: {match[3].rstrip('.')} (column {match[2]}, in the words of Caffe's parser)"
