"""Recording the curves: every policy of the pool trained with real Caffe, once for each seed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrbench_caffe.errors import InputError
from lrbench_caffe.lr import Policy
from lrbench_caffe.runs.directory import RunDirectory

from .curves import DIVERGED, FINISHED, FOLDER, convert, write
from .pool import CNN3, FINE_TUNED, LENET, Ranges, pool

ROOT = FOLDER.parent.parent


@dataclass(frozen=True)
class Pretraining:
    """The training whose weights those of a set begin with; its seed is 1."""

    solver: str
    max_iter: int

    def weights(self, folder: Path, layers: str) -> Path:
        """Its caffemodel; trained where it is not there yet.

        Raises:
            InputError: it did not end.
        """
        out = (folder / "pretraining").absolute()
        if not self._made(out):
            how = ["--max-iter", str(self.max_iter), "--seed", "1", "--layers", layers]
            how = ["--resume"] if RunDirectory(out).exists else how
            _train([self.solver, *how, "--out", str(out)], out)
        if not self._made(out):
            raise InputError(f"{out}: did not end; see {out.with_suffix('.log')}")
        return self._made(out)[0]

    def _made(self, out: Path) -> list[Path]:
        return sorted(out.glob(f"snapshots/*_iter_{self.max_iter}.caffemodel"))


@dataclass(frozen=True)
class Setup:
    """What is trained for a set of curves."""

    solver: str
    max_iter: int
    test_interval: int
    seeds: int
    ranges: Ranges = LENET
    pretraining: Pretraining | None = None

    @property
    def pool(self) -> list[Policy]:
        """The policies that are trained."""
        return pool(self.max_iter, self.ranges)


SETUPS = {
    "digits": Setup("solvers/lenet_digits_solver.prototxt", 1000, 50, seeds=3),
    "mnist": Setup("solvers/lenet_mnist_solver.prototxt", 2000, 100, seeds=3),
    # No constant of the tuner was chosen on these.
    "cifar10": Setup("solvers/cnn3_cifar10_solver.prototxt", 3000, 150, seeds=2, ranges=CNN3),
    "fine_tuning": Setup(
        "solvers/lenet_fine_tuning_solver.prototxt",
        500,
        25,
        seeds=3,
        ranges=FINE_TUNED,
        pretraining=Pretraining("solvers/lenet_mnist_solver.prototxt", 2000),
    ),
}


@dataclass(frozen=True)
class RecordedTraining:
    """One child process: a policy with a seed."""

    setup: Setup
    policy: str
    seed: int
    directory: Path
    layers: str
    weights: Path | None = None

    @property
    def ended(self) -> bool:
        run = RunDirectory(self.directory)
        return run.exists and run.read().get("status") in (FINISHED, DIVERGED)

    @property
    def command(self) -> list[str]:
        how = ["--resume"]
        if not RunDirectory(self.directory).exists:
            how = ["--lr", self.policy, "--max-iter", str(self.setup.max_iter)]
            how += ["--seed", str(self.seed), "--layers", self.layers]
            how += ["--test-interval", str(self.setup.test_interval)]
            how += ["--weights", str(self.weights)] if self.weights else []
        return [self.setup.solver, *how, "--out", str(self.directory)]

    def run(self) -> str:
        """Train; returns how it ended in a line.

        Raises:
            InputError: neither finished nor diverged.
        """
        _train(self.command, self.directory)
        if not self.ended:
            log = self.directory.with_suffix(".log")
            raise InputError(f"{self.policy}, seed {self.seed}: did not end; see {log}")
        return f"{self.policy}, seed {self.seed}: {RunDirectory(self.directory).read()['status']}"


def _train(arguments: list[str], out: Path) -> None:
    """Train in a child process, with its output in a file beside the run directory."""
    # A database of their own: what others learn from must not hold a benchmark's trainings.
    database = out.parent / "lr.sqlite"
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "LRBENCH_DB": str(database)}
    with out.with_suffix(".log").open("a", encoding="utf-8") as log:
        subprocess.run(
            [sys.executable, "-m", "lrbench_caffe.train", *arguments],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )


def recorded(path: Path, setup: Setup) -> list[dict[str, Any]]:
    """The trainings that a data file has already; none where there is no such file.

    Raises:
        InputError: it is of other trainings.
    """
    if not path.exists():
        return []
    content = json.loads(path.read_text(encoding="utf-8"))
    for name in ("solver", "max_iter", "test_interval"):
        value, wanted = content["about"][name], getattr(setup, name)
        if value != wanted:
            raise InputError(f"{path}: its {name} is {value}, that of the set {wanted}; use --out")
    return list(content["runs"])


def trainings(
    setup: Setup, seeds: int, folder: Path, layers: str, known: Sequence[Mapping[str, Any]] = ()
) -> list[RecordedTraining]:
    """The trainings of a set in the order of the data file: by seed, then as in the pool.

    Args:
        known: those that the data file has already, which are left out.

    Raises:
        InputError: the weights that they begin with could not be trained.
    """
    there = {_key(run) for run in known}
    wanted = [
        (number, str(policy), seed)
        for seed in range(1, seeds + 1)
        for number, policy in enumerate(setup.pool, 1)
        if (seed, str(policy)) not in there
    ]
    pretrained = wanted and setup.pretraining
    weights = pretrained.weights(folder, layers) if pretrained else None
    return [
        RecordedTraining(
            setup, policy, seed, (folder / f"{number:03}-s{seed}").absolute(), layers, weights
        )
        for number, policy, seed in wanted
    ]


def _key(run: Mapping[str, Any]) -> tuple[int, str]:
    return run["seed"], run["policy"]


def record(todo: list[RecordedTraining], jobs: int) -> Iterator[str]:
    """Train what has not ended yet, `jobs` at once; yields a line for each that ends."""
    with ThreadPoolExecutor(jobs) as threads:
        yield from threads.map(
            RecordedTraining.run, [training for training in todo if not training.ended]
        )


def make_data_file(
    folder: Path, out: Path, name: str, known: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Write a data file from those of the run directories in a folder that have ended.

    Args:
        known: trainings that it has, too.

    Raises:
        InputError: none has, or one is not of this set.
    """
    directories = sorted(
        (path.parent for path in folder.glob("*-s*/run.json")),
        key=lambda path: (path.name.rpartition("-s")[2], path.name),
    )
    content = convert(directories, {"command": f"tools/bench_tuner record --set {name}"})
    if not content["runs"]:
        raise InputError(f"{folder}: no training there has ended")
    if content["about"]["solver"] != SETUPS[name].solver:
        raise InputError(
            f"{folder}: its trainings are of {content['about']['solver']}; --set {name} is not"
        )
    order = {str(policy): number for number, policy in enumerate(SETUPS[name].pool)}
    runs = {_key(run): run for run in [*known, *content["runs"]]}
    about = {**content["about"], "policies": len(order)}
    ordered = sorted(runs.values(), key=lambda run: (run["seed"], order[run["policy"]]))
    write(out, {"about": about, "runs": ordered})
