"""What a training left, read without the code that wrote it, and how it differs from an untouched one."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lrbench_caffe.database import Database
from lrbench_caffe.metrics import METRICS
from lrbench_caffe.prototxt.messages import Messages
from lrbench_caffe.runtime.info import caffe_info
from lrbench_caffe.runtime.locate import find_caffe_python

# What a test measures; other fields of a row tell when it was made and that it is whole.
MEASURED = ("lr", *METRICS, "samples", "silent_classes", "outputs")
Key = tuple[int, int]


@dataclass(frozen=True)
class RunFiles:
    """The files of a run directory.

    Attributes:
        status, reason: how it ended, by run.json.
        measurements: the fields of MEASURED, by iteration and test net.
        losses: LR and loss as they are written, by iteration.
        snapshots: paths of model and state of those that the solver asks for, by iteration.
        automatic: of those that a run takes against a kill, of which the later one replaces the
            earlier one.
        repeated: iterations and tests that stand in a file twice.
    """

    status: str
    reason: str | None
    measurements: dict[Key, dict[str, Any]]
    losses: dict[int, tuple[str, str]]
    snapshots: dict[int, tuple[Path, Path]]
    automatic: dict[int, tuple[Path, Path]]
    repeated: tuple[str, ...]


def read_run(folder: Path) -> RunFiles:
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    repeated = []
    measurements: dict[Key, dict[str, Any]] = {}
    for row in _rows(folder / "measurements.jsonl"):
        key = row["iteration"], row["net"]
        if key in measurements:
            repeated.append(f"the test at iteration {key[0]} stands twice in measurements.jsonl")
        measurements[key] = {name: row.get(name) for name in MEASURED}
    losses: dict[int, tuple[str, str]] = {}
    with (folder / "iterations.csv").open(encoding="utf-8") as file:
        for entry in csv.DictReader(file):
            iteration = int(entry["iteration"])
            if iteration in losses:
                repeated.append(f"iteration {iteration} stands twice in iterations.csv")
            losses[iteration] = entry["lr"], entry["loss"]
    snapshots: dict[int, tuple[Path, Path]] = {}
    automatic: dict[int, tuple[Path, Path]] = {}
    for row in _rows(folder / "snapshots.jsonl"):
        files = folder / "snapshots" / row["model"], folder / "snapshots" / row["state"]
        (automatic if row["automatic"] else snapshots)[row["iteration"]] = files
    return RunFiles(
        record["status"],
        record.get("reason"),
        measurements,
        losses,
        snapshots,
        automatic,
        tuple(repeated),
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def differences(untouched: Path, other: Path) -> list[str]:
    """How a run differs from the untouched one: status, tests, losses, and the weights and states of all the
    snapshots that the untouched one has."""
    try:
        found = read_run(other)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{other.name} cannot be read: {type(error).__name__}: {error}"]
    wanted = read_run(untouched)
    said = list(found.repeated)
    if found.status != wanted.status:
        said.append(f"status {found.status} ({found.reason}) instead of {wanted.status}")
    said += _different("test", wanted.measurements, found.measurements)
    said += _different("iteration", wanted.losses, found.losses)
    for iteration, files in wanted.snapshots.items():
        if iteration not in found.snapshots:
            said.append(f"there is no snapshot of iteration {iteration}")
            continue
        for one, two in zip(files, found.snapshots[iteration]):
            said += snapshot_differences(one, two)
    return said


def _different(what: str, wanted: Mapping[Any, Any], found: Mapping[Any, Any]) -> list[str]:
    said = []
    for name, keys in (
        ("missing", wanted.keys() - found.keys()),
        ("too many", found.keys() - wanted.keys()),
    ):
        if keys:
            said.append(f"{what}s {name}: {sorted(keys)[:5]} ({len(keys)})")
    changed = [key for key in sorted(wanted.keys() & found.keys()) if wanted[key] != found[key]]
    if changed:
        key = changed[0]
        said.append(
            f"{what} {key} is {found[key]} instead of {wanted[key]} ({len(changed)} differ)"
        )
    return said


def snapshot_differences(untouched: Path, other: Path) -> list[str]:
    """How a caffemodel or solverstate differs: a word for the first blob that does, none for equal ones."""
    try:
        same = untouched.read_bytes() == other.read_bytes()
        if same:
            return []
        wanted, found = _numbers(untouched), _numbers(other)
    except Exception as error:  # whatever the libraries say of a damaged file
        return [f"{other.name} cannot be read: {type(error).__name__}: {error}"]
    if wanted.keys() != found.keys():
        return [f"{other.name} holds other blobs"]
    for name, values in wanted.items():
        if not np.array_equal(values, found[name], equal_nan=True):
            return [f"{other.name}: {name} differs"]
    return []


def _numbers(path: Path) -> dict[str, np.ndarray]:
    """The blobs of a snapshot by name. A state's path of its model differs from folder to folder and is left
    out."""
    if path.suffix == ".h5":
        return _hdf5_numbers(path)
    if path.name.endswith(".solverstate"):
        state = messages().read_binary("SolverState", path)
        counters = {"iter": np.array(state.iter), "step": np.array(state.current_step)}
        return {
            **counters,
            **{f"history {n}": np.array(b.data) for n, b in enumerate(state.history)},
        }
    net = messages().read_binary("NetParameter", path)
    return {
        f"{layer.name} {number}": np.array(blob.data)
        for layer in net.layer
        for number, blob in enumerate(layer.blobs)
    }


def _hdf5_numbers(path: Path) -> dict[str, np.ndarray]:
    import h5py

    found: dict[str, np.ndarray] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and name != "learned_net":
            found[name] = np.array(item)

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return found


@cache
def messages() -> Messages:
    """This Caffe's messages."""
    return Messages(caffe_info(find_caffe_python(None)).descriptor)


# -- databases -------------------------------------------------------------------------------------


def stored(url: str) -> dict[tuple[Any, ...], dict[Key, dict[str, Any]]]:
    """What a database has of measured runs: (policy, seed, max_iter, status, place among alike ones) to the
    tests, as in ``RunFiles``."""
    found: dict[tuple[Any, ...], dict[Key, dict[str, Any]]] = {}
    with Database.open(url) as database:
        for run in database.runs(source="measured", measurements=True):
            tests = {
                (m.iteration, m.net): {name: getattr(m, name) for name in MEASURED}
                for m in run.measurements
            }
            for value in tests.values():
                value["outputs"] = dict(value["outputs"])
            facts = (run.policy.text, run.seed, run.max_iter, run.status)
            place = sum(other[:-1] == facts for other in found)
            key = (*facts, place)
            found[key] = tests
    return found


def stored_differences(untouched: str, other: str) -> list[str]:
    """How the measured runs in a database differ from those of the untouched one."""
    wanted, found = stored(untouched), stored(other)
    said = []
    for key in wanted.keys() | found.keys():
        if key not in found or key not in wanted:
            said.append(f"database: {key} is {'not there' if key in wanted else 'too many'}")
        else:
            said += [
                f"database: {key[0]}: {word}"
                for word in _different("test", wanted[key], found[key])
            ]
    return said


def first(words: Iterable[str], number: int = 4) -> str:
    """The first of several differences, as one line."""
    words = list(words)
    more = f"; and {len(words) - number} more" if len(words) > number else ""
    return "; ".join(words[:number]) + more
