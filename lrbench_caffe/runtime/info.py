"""The properties of a Caffe, asked once and remembered as long as its files stay the same."""

from __future__ import annotations

import base64
import tempfile
from dataclasses import asdict
from pathlib import Path

from lrbench_caffe.errors import InputError
from lrbench_caffe.runtime.client import Worker
from lrbench_caffe.runtime.described import (
    description_path,
    read_description,
    write_description,
)
from lrbench_caffe.runtime.locate import CaffePython
from lrbench_caffe.runtime.replies import CaffeInfo

HELLO_SECONDS = 120.0  # importing caffe from a cold network disk takes its time


def caffe_info(python: CaffePython, *, fresh: bool = False) -> CaffeInfo:
    """Describe the Caffe of an interpreter.

    Args:
        python: the interpreter.
        fresh: ask, even where the answer is remembered.

    Raises:
        InputError: it has no caffe, or a Caffe that is too old.
        TrainingError: it crashed, hung or was killed while it imported caffe.
    """
    path = description_path(python)
    if not fresh:
        known = _load(path, python)
        if known:
            return known
    with tempfile.TemporaryDirectory(prefix="lrbench-") as directory:
        log = Path(directory) / "caffe.log"
        worker = Worker(python, log, hang_seconds=HELLO_SECONDS, hang_parameter=None)
        worker.close()
    info = worker.info
    _store(path, python, info)
    return info


# What a training is planned by. The GPUs that a worker sees, its BLAS and its files may well be
# others.
_PLANNED_BY = (
    "caffe", "path", "python", "writable_base_lr", "callbacks", "layer_callbacks", "cuda",
    "layers", "descriptor",
)  # fmt: skip
_LONG = {"layers": "its layer types", "descriptor": "its caffe.proto"}


def check_described(python: CaffePython, planned: CaffeInfo, live: CaffeInfo) -> None:
    """Check that a worker's Caffe is the one that the training was planned for.

    A launcher may start another Caffe than the one that is remembered. The live one is remembered
    instead.

    Raises:
        InputError: it is another one.
    """
    differing = [name for name in _PLANNED_BY if getattr(planned, name) != getattr(live, name)]
    if not differing:
        return
    _store(description_path(python), python, live)
    shown = [
        _LONG.get(name) or f"{name} {getattr(live, name)}, was {getattr(planned, name)}"
        for name in differing
    ]
    raise InputError(
        f"{python.command[0]} ({python.origin}) starts another Caffe than it did when it was last described: "
        f"{'; '.join(shown)}; nothing was trained; it has been examined again, so repeat the command"
    )


def _load(path: Path, python: CaffePython) -> CaffeInfo | None:
    record = read_description(path, python)
    try:
        if record is None:
            return None
        return CaffeInfo(**{**record, "descriptor": base64.b64decode(record["descriptor"])})
    except (ValueError, KeyError, TypeError):
        return None


def _store(path: Path, python: CaffePython, info: CaffeInfo) -> None:
    descriptor = base64.b64encode(info.descriptor).decode()
    write_description(path, python, {**asdict(info), "descriptor": descriptor})
