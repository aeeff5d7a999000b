"""The file in which the properties of a Caffe are remembered. Standard library only."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lrbench_caffe.files import remove_leftovers, replace_own
from lrbench_caffe.runtime import blas
from lrbench_caffe.runtime.cpu import this_cpu
from lrbench_caffe.runtime.locate import CaffePython, cache_dir
from lrbench_caffe.runtime.worker import PROTOCOL


def description_path(python: CaffePython, environment: Mapping[str, str] = os.environ) -> Path:
    """Where the properties of an interpreter's Caffe are."""
    # PYTHONPATH decides which caffe an interpreter imports, the CPU which kernels OpenBLAS has.
    cpu = this_cpu()
    kernels_by = [cpu.vendor, *cpu.model, environment.get(blas.VARIABLE)]
    key = json.dumps([python.command, environment.get("PYTHONPATH"), PROTOCOL, kernels_by])
    return cache_dir() / "caffe-info" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def read_description(path: Path, python: CaffePython) -> dict[str, Any] | None:
    """The fields of a ``CaffeInfo``; None where they are unknown, or of other files than there are now."""
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        stamps, files = record.pop("stamps"), record["files"]
        return record if files and stamps == _stamps(python, files) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_description(path: Path, python: CaffePython, record: dict[str, Any]) -> None:
    """Remember the fields of a ``CaffeInfo``."""
    record = {**record, "stamps": _stamps(python, record["files"])}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, r"\w+\.json")
        replace_own(path, json.dumps(record).encode())
    except OSError:
        pass  # without a cache the next command asks again


def _stamps(python: CaffePython, files: Sequence[str]) -> dict[str, int]:
    """Modification times of the launcher and of Caffe's own libraries; -1 for one that is gone."""
    named = [python.command[0], *files]
    return {file: os.stat(file).st_mtime_ns if os.path.exists(file) else -1 for file in named}
