"""The properties of a Caffe, asked once and remembered as long as its files stay the same."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lrbench_caffe.errors import InputError
from lrbench_caffe.files import remove_leftovers, replace_own
from lrbench_caffe.runtime import blas
from lrbench_caffe.runtime.client import Worker
from lrbench_caffe.runtime.cpu import this_cpu
from lrbench_caffe.runtime.locate import CaffePython, cache_dir
from lrbench_caffe.runtime.replies import CaffeInfo
from lrbench_caffe.runtime.worker import PROTOCOL

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
    path = _cache_path(python)
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
    _store(_cache_path(python), python, live)
    shown = [
        _LONG.get(name) or f"{name} {getattr(live, name)}, was {getattr(planned, name)}"
        for name in differing
    ]
    raise InputError(
        f"{python.command[0]} ({python.origin}) starts another Caffe than it did when it was last described: "
        f"{'; '.join(shown)}; nothing was trained; it has been examined again, so repeat the command"
    )


def _cache_path(python: CaffePython) -> Path:
    # PYTHONPATH decides which caffe an interpreter imports, the CPU which kernels OpenBLAS has.
    cpu = this_cpu()
    kernels_by = [cpu.vendor, *cpu.model, os.environ.get(blas.VARIABLE)]
    key = json.dumps([python.command, os.environ.get("PYTHONPATH"), PROTOCOL, kernels_by])
    return cache_dir() / "caffe-info" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def _stamps(python: CaffePython, info: CaffeInfo) -> dict[str, int]:
    """Modification times of the launcher and of Caffe's own libraries; -1 for one that is gone."""
    files = [python.command[0], *info.files]
    return {file: os.stat(file).st_mtime_ns if os.path.exists(file) else -1 for file in files}


def _load(path: Path, python: CaffePython) -> CaffeInfo | None:
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        stamps = record.pop("stamps")
        info = CaffeInfo(**{**record, "descriptor": base64.b64decode(record["descriptor"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return info if info.files and stamps == _stamps(python, info) else None


def _store(path: Path, python: CaffePython, info: CaffeInfo) -> None:
    record = {
        **asdict(info),
        "descriptor": base64.b64encode(info.descriptor).decode(),
        "stamps": _stamps(python, info),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, r"\w+\.json")
        replace_own(path, json.dumps(record).encode())
    except OSError:
        pass  # without a cache the next command asks again
