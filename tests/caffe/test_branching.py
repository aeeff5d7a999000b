"""A training that branches from another one ends as one that was trained alone: the same, to the byte."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import pytest

from lrbench_caffe.database import Database
from tests.caffe import nets
from tests.caffe.harness import (
    ENVIRONMENT,
    Run,
    Workspace,
    invert_training_images,
    messages,
    own_data,
)
from tests.caffe.test_resume import AUGMENTED, BIG_BATCHES, wide

ITERATIONS, INTERVAL, BRANCH = 400, 50, 180
FIX, STEP = "FIX(k0=0.05)", f"STEP(k0=0.05, gamma=0.5, l={BRANCH})"

BATCH_NORM = (
    nets.inner_product("ip1", "data", 32)
    + '\nlayer { name: "norm" type: "BatchNorm" bottom: "ip1" top: "ip1" }'
    + nets.relu("ip1")
    + nets.inner_product("ip2", "ip1", 10)
)


@dataclass(frozen=True)
class Case:
    """A net, its solver's fields, flags of all trainings, and the iteration to branch at."""

    net: str = nets.net(train=BIG_BATCHES)
    fields: dict[str, object] = field(default_factory=dict)
    flags: tuple[str, ...] = ("--layers", "stock")
    at: int = BRANCH


CASES = {
    "between two tests": Case(),
    "at a test": Case(at=200),
    "fast layers": Case(flags=("--layers", "fast")),
    "dropout": Case(nets.net(train=BIG_BATCHES, middle=wide(nets.dropout("ip1")))),
    "batch normalisation": Case(nets.net(train=BIG_BATCHES, middle=BATCH_NORM), at=200),
    "augmented": Case(
        nets.net(
            train=nets.data_layer("TRAIN", batch=90, transform=AUGMENTED),
            test=nets.data_layer("TEST", batch=100, transform=AUGMENTED),
        )
    ),
    "iter_size": Case(fields={"iter_size": 2}),
    "adam": Case(fields={"type": '"Adam"', "momentum2": 0.999}),
    "hdf5": Case(fields={"snapshot_format": "HDF5"}),
    "gradients": Case(flags=("--layers", "stock", "--set-lr-by", "gradients")),
}
QUICK = ("between two tests", "dropout")


def state_without_name(path: Path) -> bytes:
    """A solver state without the path of its caffemodel, which has the run directory in it."""
    state = messages().read_binary("SolverState", path)
    state.ClearField("learned_net")
    return bytes(state.SerializeToString())


def content(path: Path) -> Any:
    """What a snapshot's file holds: its bytes, but for names and, in HDF5, the time of day."""
    if path.suffix == ".h5":
        arrays: dict[str, bytes] = {}
        with h5py.File(path, "r") as file:
            file.visititems(
                lambda name, item: (
                    arrays.update({name: item[()].tobytes()})
                    if isinstance(item, h5py.Dataset) and name != "learned_net"
                    else None
                )
            )
        return arrays
    return state_without_name(path) if path.suffix == ".solverstate" else path.read_bytes()


def assert_same(one: Run, other: Run) -> None:
    assert one.record["status"] == other.record["status"] == "finished"
    csv = "iterations.csv"
    assert (one.path / csv).read_bytes() == (other.path / csv).read_bytes()
    assert len(one.measurements()) == len(other.measurements())
    assert list(one.last_measurements().items()) == list(other.last_measurements().items())
    last = sorted((one.path / "snapshots").glob(f"*_iter_{one.record['iteration']}.*"))
    assert len(last) == 2
    for path in last:
        assert content(path) == content(other.path / "snapshots" / path.name)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in CASES]
)
def test_it_ends_as_one_that_was_trained_alone(workspace: Workspace, name: str) -> None:
    case = CASES[name]
    workspace.write("net.prototxt", case.net)
    fields: dict[str, Any] = {"max_iter": ITERATIONS, "test_interval": INTERVAL, **case.fields}
    workspace.write("solver.prototxt", nets.solver(**fields))
    step = f"STEP(k0=0.05, gamma=0.5, l={case.at})"
    train = ("solver.prototxt", *case.flags)
    # The first one has gone no further than its own part when the other one branches.
    workspace.train(
        *train, "--lr", FIX, "--out", "fix", "--until", "300", "--branch-points", str(case.at)
    ).succeeded()
    workspace.train(*train, "--lr", step, "--out", "alone").succeeded()
    done = workspace.train(*train, "--lr", step, "--out", "branched", "--branch", "fix")
    assert f"branched at iteration {case.at} from fix" in done.succeeded().out
    alone, branched = workspace.run("alone"), workspace.run("branched")
    assert_same(alone, branched)
    (branch,) = branched.record["branches"]
    assert (branch["after"], branch["at"]) == (0, case.at)
    assert branch["run"] == str(workspace.path / "fix")
    assert "repeated" not in branched.record
    # In two parts, of which the second one takes over more than the first one had.
    workspace.train(*train, "--lr", step, "--out", "parts", "--until", "100").succeeded()
    words = ("--resume", "--out", "parts", "--branch", "fix")
    done = workspace.train(*words).succeeded()
    assert f"branched at iteration {case.at} from fix" in done.out
    assert_same(alone, workspace.run("parts"))
    # The first one goes on as if nothing had been.
    workspace.train(*train, "--lr", FIX, "--out", "undisturbed").succeeded()
    workspace.train("--resume", "--out", "fix").succeeded()
    assert_same(workspace.run("undisturbed"), workspace.run("fix"))


@pytest.fixture
def pair(workspace: Workspace) -> Workspace:
    workspace.write("net.prototxt", nets.net(train=BIG_BATCHES))
    fields = {"max_iter": ITERATIONS, "test_interval": INTERVAL}
    workspace.write("solver.prototxt", nets.solver(**fields))
    points = ("--branch-points", f"60,{BRANCH}")
    workspace.train("solver.prototxt", "--lr", FIX, "--out", "fix", *points).succeeded()
    return workspace


def test_the_database_has_the_run_whole(pair: Workspace) -> None:
    """And from which run it was branched: by its uid, or where it has none by its place."""
    train = ("solver.prototxt", "--lr", STEP, "--db", "lr.sqlite")
    first, second = pair.path / "branched", pair.path / "again"
    points = ("--branch-points", str(BRANCH))
    pair.train(*train, "--out", first.name, "--branch", "fix", *points).succeeded()
    pair.train(*train, "--out", second.name, "--branch", first.name, "--seed", "7").succeeded()
    with Database.open(str(pair.path / "lr.sqlite")) as database:
        origins = {run.origin: run.uid for run in database.runs(source="measured")}
        fix = pair.path / "fix"
        uid = origins[f"{first} (branched at iteration {BRANCH} from {fix})"]
        other = origins[f"{second} (branched at iteration {BRANCH} from run {uid})"]
        assert len(origins) == 2
        stored = database.get(other)
    assert [m.iteration for m in stored.measurements] == list(range(0, ITERATIONS + 1, INTERVAL))
    assert (stored.policy.text, stored.status) == (STEP, "finished")


def test_what_cannot_be_taken_over_is_trained(pair: Workspace) -> None:
    train = ("solver.prototxt", "--lr", STEP, "--branch", "fix")
    done = pair.train(*train, "--seed", "8", "--out", "other seed").succeeded()
    assert "note: nothing is taken over from fix: its seed is 7, not 8\n" in done.out
    assert "branches" not in pair.run("other seed").record
    done = pair.train("solver.prototxt", "--lr", "FIX(k0=0.04)", "--branch", "fix", "--out", "x")
    assert "nothing is taken over from fix: the LRs are the same for 0 ite" in done.succeeded().out


def test_other_data(pair: Workspace) -> None:
    own_data(pair)
    train = ("solver.prototxt", "--lr", STEP, "--branch", "fix")
    done = pair.train(*train, "--out", "same data").succeeded()
    assert f"branched at iteration {BRANCH} from fix" in done.out
    invert_training_images(pair)
    done = pair.train(*train, "--out", "other data").succeeded()
    note = (
        "note: nothing is taken over from fix: it has other data, or the data has changed since\n"
    )
    assert note in done.out
    assert "branches" not in pair.run("other data").record


def test_bad_branches(pair: Workspace) -> None:
    train = ("solver.prototxt", "--lr", STEP, "--out", "new")
    pair.train(*train, "--branch", "none").failed(2, "--branch: none holds no run; allowed: a run")
    assert not (pair.path / "new").exists()
    for numbers in ("0", "5,-1", "2,x", "1.5", ""):
        done = pair.train(*train, "--branch-points", numbers)
        done.failed(2, "--branch-points", "allowed: ")


def test_only_its_branch_points_stay(pair: Workspace) -> None:
    names = {path.name for path in (pair.path / "fix" / "snapshots").glob("*.caffemodel")}
    assert names == {f"tiny_iter_{i}.caffemodel" for i in (60, BRANCH, ITERATIONS)}
    pair.train("solver.prototxt", "--lr", STEP, "--branch", "fix", "--out", "step").succeeded()
    names = {path.name for path in (pair.path / "step" / "snapshots").glob("*.caffemodel")}
    assert names == {f"tiny_iter_{ITERATIONS}.caffemodel"}


@pytest.mark.slow
def test_killed_at_any_time(pair: Workspace) -> None:
    """Until it ends, the command that a study would give: a new run, or what a kill left of it."""
    pair.train("solver.prototxt", "--lr", STEP, "--out", "alone").succeeded()
    seconds = 0.0
    for number in range(10):
        out = f"killed {number}"
        first = ("solver.prototxt", "--lr", STEP, "--branch", "fix")
        with pair.training(*first, out=out) as training:
            path = pair.path / out / "run.json"
            training.wait_for(lambda path=path: path.exists(), "the run")  # type: ignore[misc]
            try:
                training.process.wait(seconds)
            except Exception:
                os.kill(training.process.pid, signal.SIGKILL)
            training.process.wait()
        seconds += 0.1
        pair.train("--resume", "--out", out, "--branch", "fix").succeeded()
        run = pair.run(out)
        assert_same(pair.run("alone"), run)
        assert sum(b["at"] - b["after"] for b in run.record["branches"]) == BRANCH


TUNE = (
    "tune", "solver.prototxt", "--fresh", "--no-db", "--functions", "FIX,STEP,NSTEP", "--max-iter",
    "200", "--test-interval", "10", "--top", "2", "--seeds", "2", "--budget", "4000", "--layers",
    "stock", "--jobs", "2", "--holdout", "0", "--out", "study",
)  # fmt: skip


def study_runs(study: Path) -> dict[str, Run]:
    return {path.parent.name: Run(path.parent) for path in study.glob("trainings/*/run.json")}


@pytest.mark.slow
def test_a_study_trains_common_beginnings_once(workspace: Workspace) -> None:
    """Killed at any time, too: then nothing is taken over twice, either."""
    workspace.write("net.prototxt", nets.net(train=BIG_BATCHES))
    workspace.write("solver.prototxt", nets.solver(max_iter=200, test_interval=10))
    tune = [sys.executable, "-m", "lrbench_caffe.tune", *TUNE[1:]]
    workspace.command(tune)
    found = json.loads((workspace.path / "study" / "result.json").read_text())
    runs = study_runs(workspace.path / "study")
    branches = {name: run.record.get("branches", []) for name, run in runs.items()}
    taken = sum(b["at"] - b["after"] for parts in branches.values() for b in parts)
    assert found["iterations_taken_over"] == taken > 100
    assert sum(found["iterations"].values()) == sum(r.record["iteration"] for r in runs.values())
    assert "of these not trained twice" in (workspace.path / "study" / "report.md").read_text()
    # No snapshot is left that was there to branch from.
    for run in runs.values():
        assert len(list((run.path / "snapshots").glob("*.caffemodel"))) == 1
    finished = [name for name, run in runs.items() if run.record["status"] == "finished"]
    for number, name in enumerate([name for name in finished if branches[name]][:3]):
        record, out = runs[name].record, f"alone {number}"
        words = ("--lr", record["policy"], "--seed", str(record["seed"]), "--out", out)
        lengths = ("--max-iter", "200", "--test-interval", "10")
        workspace.train("solver.prototxt", *words, *lengths).succeeded()
        assert_same(workspace.run(out), runs[name])

    tune[-1] = "killed"
    for seconds in (4.0, 7.0, 10.0):
        process = subprocess.Popen(tune, cwd=workspace.path, env=ENVIRONMENT)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    workspace.command(tune)
    again = study_runs(workspace.path / "killed")
    assert again.keys() == runs.keys()
    for name, run in again.items():
        assert run.last_measurements() == runs[name].last_measurements()
        assert run.iterations() == runs[name].iterations()
        mine, theirs = (
            sum(b["at"] - b["after"] for b in one.record.get("branches", []))
            for one in (run, runs[name])
        )
        assert mine == theirs
