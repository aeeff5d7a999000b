"""Remembers which fast layers were found right, on which CPU and with what; a failed check never is."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

from lrbench_caffe.files import remove_leftovers, replace_own
from lrbench_caffe.runtime.cpu import this_cpu
from lrbench_caffe.runtime.locate import cache_dir
from lrbench_caffe.runtime.replies import CaffeInfo

# Of variables that decide how a BLAS or OpenMP computes.
_PREFIXES = ("OPENBLAS_", "GOTO_", "OMP_", "GOMP_", "MKL_", "LD_")


def is_known_good(library: Path, info: CaffeInfo, threads: int, *, measure: bool) -> bool:
    """Whether a check has found the products and the library's layers right, and nothing is new since.

    Args:
        library, threads, measure: as for ``Worker.check``.
        info: the worker's, which tells its Caffe and its BLAS kernels.
    """
    try:
        record = json.loads(_path(library, info, threads).read_text(encoding="utf-8"))
        return bool(record["measured"] or not measure)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def remember_good(library: Path, info: CaffeInfo, threads: int, *, measured: bool) -> None:
    """Remember that a check found nothing wrong, nor, where that was measured, the vectors slow."""
    with contextlib.suppress(OSError):  # without a cache the next training checks again
        path = _path(library, info, threads)
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, r"\w+\.json")
        replace_own(path, json.dumps({"measured": measured}).encode())


def _path(library: Path, info: CaffeInfo, threads: int) -> Path:
    """A file named by all that the outcome depends on."""
    cpu = this_cpu()
    files = [(path, *_stamp(path)) for path in (str(library), *info.files, *info.blas)]
    variables = sorted((k, v) for k, v in os.environ.items() if k.startswith(_PREFIXES))
    parts = [
        [cpu.vendor, cpu.model, sorted(cpu.features or ())],
        [info.protocol, info.python, info.executable, info.path, info.blas_kernels],
        files,
        variables,
        threads,
    ]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return cache_dir() / "layer-checks" / f"{key[:32]}.json"


def _stamp(path: str) -> tuple[int, int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ino
