"""Files of folders that anybody may write to: read without harm, as what can be shown.

Links and pipes in the place of a file are not followed, and of a text or number no page can fail.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lrbench_caffe.files import open_own
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.plaintext import visible
from lrbench_caffe.runs.rows import is_count, iteration_row, measurement_of

LARGEST = 2**22  # bytes of a file that is read whole
DEEPEST = 20  # objects and lists within each other
LARGEST_COUNT = 2**53  # iterations: what every reader of JSON can hold


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file.

    Raises:
        OSError: it is a link, a pipe or a folder, or cannot be read.
        ValueError: it is too large or too deep, or no JSON object.
    """
    with open_own(path, "rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"more than {LARGEST} bytes")
    return object_of(_loaded(content))


def object_of(value: Any) -> dict[str, Any]:
    """The value, checked to be an object.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _loaded(content: bytes | str) -> Any:
    try:
        return shown(json.loads(content))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def shown(value: Any, depth: int = 0) -> Any:
    """A value of JSON that can be shown: odd text with escapes, null for numbers beyond a float.

    Raises:
        ValueError: it is nested too deeply.
    """
    if depth > DEEPEST:
        raise ValueError("nested too deeply")
    if isinstance(value, dict):
        return {visible(name): shown(part, depth + 1) for name, part in value.items()}
    if isinstance(value, list):
        return [shown(part, depth + 1) for part in value]
    if isinstance(value, str):
        return visible(value)
    return value if not isinstance(value, int) or is_finite(value) else None


def is_finite(value: float) -> bool:
    """Whether a number is one that a float can hold, and neither NaN nor infinite."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def measurement_in(line: str) -> Measurement | None:
    """The measurement of a line of measurements.jsonl; None for a damaged line."""
    try:
        row = object_of(_loaded(line))
    except ValueError:
        return None
    measured = measurement_of(row)
    return measured if measured is not None and is_iteration(measured.iteration) else None


def losses_in(line: str) -> tuple[float, ...] | None:
    """Iteration, lr and loss of a line of iterations.csv; None for a damaged line."""
    row = iteration_row(line)
    return row if row is not None and row[0] <= LARGEST_COUNT else None


def is_iteration(value: Any) -> bool:
    return is_count(value) and value <= LARGEST_COUNT


def status_of(record: Mapping[str, Any], running: bool) -> str:
    """How a run ended; "running" only while a process trains it, "interrupted" after it was killed."""
    status = str(record.get("status", ""))
    if running:
        return "running"
    if status == "stopped" and record.get("paused") is True:
        return "paused"
    return {"running": "interrupted"}.get(status, status)


def reason(error: Exception) -> str:
    """Why something cannot be read."""
    told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return visible(told)


def name_of(path: Path, root: Path) -> str:
    """A folder for people: its path in the folder of runs, or its own name where it is that one.

    Args:
        path: without links.
        root: the folder of runs in which it was found.
    """
    place = path.relative_to(root.resolve())
    return visible(str(place) if place.parts else path.name)


def state(path: Path) -> tuple[int, int, float]:
    """Number on its disk, bytes and last change of a file; zeros where there is none of the run's own."""
    try:
        found = os.lstat(path)
    except OSError:
        return 0, 0, 0.0
    own = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
    return (found.st_ino, found.st_size, found.st_mtime) if own else (0, 0, 0.0)
