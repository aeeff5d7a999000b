"""Results that wait in run directories because the database was out of reach when they were measured."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lrbench_caffe.database.checks import run_from_json, with_storable_text
from lrbench_caffe.errors import InputError
from lrbench_caffe.records import SCHEMA, RunRecord
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.runs.layout import MARKS, MEASUREMENTS
from lrbench_caffe.runs.runjson import first_base_lr

KILLED = "the process vanished without a final status: it was killed, or the machine went down"


class StillRunning(Exception):
    """A training is writing in this run directory; it stores its results itself."""


class NotForDatabase(Exception):
    """A training that was not to be recorded, or ended before there was anything to record."""


def run_directories(roots: Iterable[Path]) -> Iterator[Path]:
    """The run directories among and below these directories, each once.

    Raises:
        InputError: one of them does not exist, or holds no run.
    """
    seen = set()
    for root in roots:
        if not root.is_dir():
            raise InputError(f"{root}: no such directory")
        folders = sorted(
            Path(folder)
            for folder, names, files in os.walk(root)
            if not set(MARKS).isdisjoint((*names, *files))
        )
        if not folders:
            raise InputError(f"{root} contains no run directory (one with a run.json)")
        for path in folders:
            if path.resolve() not in seen:
                seen.add(path.resolve())
                yield path


def read_run(path: Path) -> RunRecord:
    """The run of a run directory, with all that was measured.

    A killed training could not record how it ended: it is considered failed, as of its
    last measurement. Should it be resumed and end, that end is the later one and counts.

    Raises:
        StillRunning: the training has not ended.
        NotForDatabase: there is no record in it.
        InputError: it holds no run that can be stored; the message says why.
    """
    directory = RunDirectory(path)
    if directory.running:
        raise StillRunning
    settings = directory.read()
    if settings.get("record") is None:
        raise NotForDatabase
    if not isinstance(settings["record"], dict):
        raise InputError(f"{path}: run.json: record: allowed: an object")
    tests = directory.recovered(MEASUREMENTS)
    if tests.lost:
        raise InputError(
            f"{path}: {'; '.join(tests.damage)}; train --resume --out {path} repairs what it can"
        )
    measurements = directory.measurements()
    status, reason = settings.get("status", "running"), settings.get("reason")
    ended = settings.get("ended")
    if status == "running" or not ended:
        ended = directory.last_seen()
    if status == "running":
        status, reason = "failed", KILLED
    content = {
        "schema": SCHEMA,
        **{name: value for name, value in settings["record"].items() if name != "digest"},
        "status": status,
        "reason": reason,
        "ended": ended,
        "measurements": [asdict(m) for m in measurements],
    }
    try:
        return _with_first_base_lr(run_from_json(with_storable_text(content)), settings)
    except InputError as error:
        raise InputError(f"{path}: run.json: record: {error}") from None
    except RecursionError:
        raise InputError(f"{path}: run.json: record: nested too deeply") from None


def _with_first_base_lr(record: RunRecord, settings: dict[str, Any]) -> RunRecord:
    """A resumed run of the first version has the base_lr to which its solver was edited meanwhile."""
    fingerprint = settings.get("fingerprint")
    base_lr = first_base_lr(fingerprint) if isinstance(fingerprint, dict) else None
    if base_lr is None or not math.isfinite(base_lr):
        return record
    return replace(record, solver=replace(record.solver, base_lr=base_lr))
