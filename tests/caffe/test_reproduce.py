"""The command on real Caffe, with rows of Table VII on the digits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from lrbench_caffe.database import Database
from tests.caffe.harness import ENVIRONMENT, ROOT, Done, Run, Workspace, drivers, wait_until_gone

URL = "sqlite:///{}/lr.sqlite"
SCALED = "SCALED DOWN: 200 of 2000 iterations"
COMMAND = [sys.executable, "-m", "tests.reproduction.digits", "table7", "--iterations-scale", "0.1"]
COMMAND += [
    "--seeds",
    "1",
    "--jobs",
    "1",
    "--layers",
    "stock",
    "--out",
    "out",
    "--db",
    "sqlite:///lr.sqlite",
]


@pytest.fixture
def here(workspace: Workspace) -> Workspace:
    (workspace.path / "solvers").symlink_to(ROOT / "solvers")
    return workspace


def runs(here: Workspace) -> dict[str, Run]:
    """The run directories, by function."""
    return {
        path.parent.name.split("-")[0]: Run(path.parent)
        for path in here.path.glob("out/*/*/run.json")
    }


def reproduce(here: Workspace, *more: str) -> Done:
    return here.command([*COMMAND, *more])


def kill_during(here: Workspace, function: str) -> None:
    """Start the command and kill it as soon as that function trains."""
    command = subprocess.Popen(COMMAND, cwd=here.path, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (function in runs(here) and runs(here)[function].measurements()):
        assert command.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    (child,) = drivers(runs(here)[function].path, command.pid)
    os.kill(command.pid, signal.SIGKILL)
    command.wait()
    assert wait_until_gone(child, 60)


def train_by_hand(here: Workspace, policy: str) -> None:
    """A training of the plan with the command ``train``, into the same database."""
    here.train(
        "solvers/lenet_digits_solver.prototxt", "--lr", policy, "--max-iter", "200", "--test-interval", "10",
        "--seed", "1", "--out", "by-hand", "--db", "sqlite:///lr.sqlite",
    ).succeeded()  # fmt: skip


@pytest.mark.ci
def test_killed_and_started_again_repeats_nothing(here: Workspace) -> None:
    done = reproduce(here, "--until", "5", "--rows", "inv").succeeded()
    assert "started" in done.out and "an iteration" in done.out
    with Database.open(URL.format(here.path)) as database:
        (run,) = database.runs(source="measured")
    assert (run.status, run.max_iter) == ("stopped", 200)  # and so no result

    kill_during(here, "poly")
    first = runs(here)
    assert first["inv"].record["status"] == "finished"
    assert [session["iteration"] for session in first["inv"].record["sessions"]] == [0, 5]
    assert first["poly"].record["status"] != "finished"
    before = (first["inv"].path / "run.json").stat().st_mtime_ns

    train_by_hand(here, "SIN2(k0=0.01, k1=0.06, l=200)")
    done = reproduce(here).succeeded()
    assert "Table VII on digits: 1 of 3 trainings missing, " in done.out
    assert "1/1 trainings: POLY(k0=0.01, p=1.2)  seed 1  iteration 200" in done.out
    assert done.out.count("ours, 1 seed") == 3
    assert (first["inv"].path / "run.json").stat().st_mtime_ns == before
    assert set(runs(here)) == {"inv", "poly"}
    assert len(runs(here)["poly"].record["sessions"]) == 2

    assert "0 of 3 trainings missing" in reproduce(here).succeeded().out
    lines = (here.path / "out" / "table7-scaled-200.md").read_text().splitlines()
    assert sum(line.endswith(f"{SCALED} |") for line in lines) > 9
    with Database.open(URL.format(here.path)) as database:
        finished = list(database.runs(source="measured", status="finished"))
    assert sorted(run.policy.function for run in finished) == ["INV", "POLY", "SIN2"]
