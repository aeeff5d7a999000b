"""Recorded learning curves: the data files of the benchmark, and how they are read and made.

A data file is JSON with one training a line: how it was obtained, then for each policy and seed the
tests (iteration, Top-1, test loss, mean training loss since the previous test). A test's value that
could not be measured is null. A training that diverged has the tests up to then, and the iteration
at which it ended.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lrbench_caffe.errors import InputError
from lrbench_caffe.lr import Policy, parse
from lrbench_caffe.runs.directory import RunDirectory

FINISHED, DIVERGED, RUNNING = "finished", "diverged", "running"
FOLDER = Path(__file__).resolve().parent.parent / "curves"
LOSS_DIGITS = 5  # significant ones


@dataclass(frozen=True)
class Curve:
    """What the tests of one training have said so far, the test before the first iteration included.

    Attributes:
        iterations, top1, test_loss, train_loss: arrays of one length; NaN where nothing was
            measured.
        status: "running", "finished" or "diverged".
        end: iterations trained.
    """

    iterations: np.ndarray
    top1: np.ndarray
    test_loss: np.ndarray
    train_loss: np.ndarray
    status: str
    end: int

    @cached_property
    def best(self) -> float:
        """The highest Top-1; 0 where none was measured."""
        return float(np.nanmax(self.top1)) if np.isfinite(self.top1).any() else 0.0

    @property
    def first_best(self) -> int:
        """The iteration of the first test with the highest Top-1; 0 where none was measured."""
        found = np.flatnonzero(self.top1 == self.best)
        return int(self.iterations[found[0]]) if found.size else 0

    def up_to(self, iteration: int) -> Curve:
        """The curve as it was when this iteration was reached."""
        if iteration >= self.end:
            return self
        seen = self.iterations <= iteration
        iterations, top1 = self.iterations[seen], self.top1[seen]
        losses = self.test_loss[seen], self.train_loss[seen]
        return Curve(iterations, top1, *losses, RUNNING, iteration)


@dataclass(frozen=True)
class CurveSet:
    """All curves of one task.

    Attributes:
        about: how they were obtained.
        policies: the pool, in its order.
        curves: for each seed the policies' curves.
    """

    name: str
    about: Mapping[str, Any]
    policies: Sequence[Policy]
    curves: Mapping[int, Sequence[Curve]]

    @property
    def max_iter(self) -> int:
        return int(self.about["max_iter"])

    @property
    def test_interval(self) -> int:
        return int(self.about["test_interval"])

    @property
    def tests(self) -> int:
        """Tests of a full training, without the one before the first iteration."""
        return self.max_iter // self.test_interval

    def curves_of(self, seed: int) -> Sequence[Curve]:
        """What an optimiser with this seed is given: the trainings' seeds take turns."""
        recorded = sorted(self.curves)
        return self.curves[recorded[seed % len(recorded)]]

    def digest_of(self, seed: int) -> str:
        """What tells the curves apart that an optimiser with this seed is given."""
        hashed = hashlib.sha256()
        for policy, curve in zip(self.policies, self.curves_of(seed)):
            hashed.update(f"{policy} {curve.status} {curve.end} ".encode() + curve.top1.tobytes())
        return hashed.hexdigest()[:16]

    @property
    def epoch(self) -> float:
        return float(self.about["epoch"])


def file_of(name: str) -> Path:
    """The repository's data file of a set."""
    return FOLDER / f"{name}.json"


def load(name: str) -> CurveSet:
    """Read the repository's data file of a set.

    Raises:
        InputError: it is not there, or there is no seed with a curve of every policy.
    """
    if not file_of(name).exists():
        raise InputError(
            f"{file_of(name)} is missing; tools/bench_tuner record --set {name} makes it"
        )
    found = read(file_of(name))
    if not found.curves:
        raise InputError(f"{file_of(name)}: no seed has a curve of every policy")
    return found


def read(path: Path) -> CurveSet:
    """Read a data file; seeds for which some policy of the pool has no curve yet are left out."""
    content = json.loads(path.read_text(encoding="utf-8"))
    about, runs = content["about"], content["runs"]
    texts = list(dict.fromkeys(run["policy"] for run in runs))
    found: dict[int, dict[str, Curve]] = {}
    for run in runs:
        found.setdefault(run["seed"], {})[run["policy"]] = _curve(run)
    size = about.get("policies", len(texts))
    complete = {
        seed: [curves[text] for text in texts]
        for seed, curves in found.items()
        if len(curves) == size
    }
    policies = [parse(text).bind(about["max_iter"]) for text in texts]
    return CurveSet(path.stem, about, policies, complete)


def _curve(run: Mapping[str, Any]) -> Curve:
    top1, test_loss, train_loss = (
        np.array(run[name], dtype=float) for name in ("top1", "test_loss", "train_loss")
    )
    iterations = np.array(run["iterations"], dtype=int)
    return Curve(iterations, top1, test_loss, train_loss, run["status"], run["end"])


# -- making a data file ----------------------------------------------------------------------------


def convert(directories: Iterable[Path], about: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a data file from run directories; what has not ended yet is left out.

    Args:
        about: what the run directories do not know, such as the command.
    """
    runs, known = [], dict(about)
    for path in directories:
        directory = RunDirectory(path)
        record = directory.read()
        if record["status"] in (FINISHED, DIVERGED):
            runs.append(_run(directory, record))
            known = {**_about(record), **known}
    return {"about": known, "runs": runs}


def _about(record: Mapping[str, Any]) -> dict[str, Any]:
    facts = record["record"]
    framework = facts["framework"]
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime(record["ended"])),
        "solver": record["solver"],
        "network": facts["network"]["name"],
        "dataset": facts["dataset"]["name"],
        "caffe": f"{framework['version']}, {framework['device']}",
        "layers": record["layers"],
        "max_iter": record["max_iter"],
        "test_interval": record["test_interval"],
        "epoch": facts["epoch"],
        **_begun(record),
        "batch": facts["solver"]["batch"],
    }


def _begun(record: Mapping[str, Any]) -> dict[str, Any]:
    """What they began with, but random weights."""
    start = record.get("start") or {}
    return {} if start.get("kind", "scratch") == "scratch" else {"start": start}


def _run(directory: RunDirectory, record: Mapping[str, Any]) -> dict[str, Any]:
    tests = [m for m in directory.measurements() if m.net == 0]
    return {
        "policy": record["policy"],
        "seed": record["seed"],
        "status": record["status"],
        "end": _end(directory.iterations()),
        "iterations": [m.iteration for m in tests],
        "top1": [_number(m.top1, 6) for m in tests],
        "test_loss": [_number(m.test_loss, LOSS_DIGITS) for m in tests],
        "train_loss": [_number(m.train_loss, LOSS_DIGITS) for m in tests],
    }


def _end(iterations: np.ndarray) -> int:
    """Iterations trained, the first with an infinite loss included: how many more were on their way when it
    was noticed depends on the machine's speed."""
    infinite = np.flatnonzero(~np.isfinite(iterations[:, 2]))
    last = infinite[0] if infinite.size else -1
    return int(iterations[last, 0]) + 1


def _number(value: float | None, digits: int) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.{digits}g}")


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write a data file, one training a line."""
    runs = ",\n".join(json.dumps(run) for run in content["runs"])
    about = json.dumps(content["about"], indent=1)
    path.write_text(f'{{"about": {about},\n"runs": [\n{runs}\n]}}\n', encoding="utf-8")
