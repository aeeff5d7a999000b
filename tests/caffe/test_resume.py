"""A training that was interrupted and goes on ends as one that was not: same weights, same measurements."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.caffe import nets
from tests.caffe.conftest import make_workspace
from tests.caffe.harness import Run, Workspace, assert_same_weights

ITERATIONS = 1200
TEST_INTERVAL = 100
SNAPSHOT = (
    350  # between two tests: the training loss since the test before it must come back as well
)
INTERRUPTED_AFTER = 400  # a test beyond the snapshot: it is done twice


def wide(more: str = "") -> str:
    """Large enough that a training takes a second or two."""
    hidden = nets.inner_product("ip1", "data", 200) + nets.relu("ip1")
    return hidden + more + nets.inner_product("ip2", "ip1", 10)


BIG_BATCHES = nets.data_layer("TRAIN", batch=90)  # does not divide the 1,297 images
AUGMENTED = "mirror: true crop_size: 6"

# No test improves by 100: the first of each segment sets the best, and the decisions fall at 200
# and 600, one before the snapshot and one after it, in the middle of whose patience the run is
# interrupted.
DECISIONS = [200, 600]
PLATEAUS = (
    "FIX(k0=0.05) ; plateau(n=1, min_delta=100): FIX(k0=0.02) ; "
    "plateau(n=3, metric=test_loss, min_delta=100): FIX(k0=0.005)"
)


@dataclass(frozen=True)
class Case:
    """A training: its net, its solver's fields, its flags."""

    net: str = nets.net(train=BIG_BATCHES, middle=wide())
    fields: dict[str, object] = field(default_factory=dict)
    flags: tuple[str, ...] = ("--lr", "SIN2(k0=0.01, k1=0.06, l=170)")


CASES = {
    "plain": Case(),
    "dropout": Case(nets.net(train=BIG_BATCHES, middle=wide(nets.dropout("ip1")))),
    "augmented": Case(
        nets.net(
            train=nets.data_layer("TRAIN", batch=90, transform=AUGMENTED),
            test=nets.data_layer("TEST", batch=100, transform=AUGMENTED),
            middle=wide(),
        )
    ),
    "iter_size and dropout": Case(
        nets.net(train=nets.data_layer("TRAIN", batch=45), middle=wide(nets.dropout("ip1"))),
        {"iter_size": 2},
    ),
    "adam": Case(fields={"type": '"Adam"', "base_lr": 0.002}, flags=()),
    "gradients": Case(flags=("--set-lr-by", "gradients", "--lr", "COS(k0=0.05, l=300)")),
    "plateau": Case(flags=("--lr", PLATEAUS)),
}


class Task:
    """A case in a folder, with the run that was not interrupted."""

    def __init__(self, workspace: Workspace, case: Case) -> None:
        self.workspace = workspace
        self.flags = ("solver.prototxt", *case.flags)
        workspace.write("net.prototxt", case.net)
        fields = {
            "max_iter": ITERATIONS,
            "test_interval": TEST_INTERVAL,
            "snapshot": SNAPSHOT,
            "display": 0,
        }
        workspace.write("solver.prototxt", nets.solver(**{**fields, **case.fields}))
        workspace.train(*self.flags, "--out", "whole").succeeded()
        self.whole = workspace.run("whole")

    def resume(self, out: str, iteration: int | str = "") -> Run:
        done = self.workspace.train("--resume", "--out", out).succeeded()
        assert f"resumed at iteration {iteration}" in done.out
        return self.workspace.run(out)

    def assert_same(self, run: Run) -> None:
        assert run.record["status"] == "finished"
        assert_same_weights(run.model(ITERATIONS), self.whole.model(ITERATIONS))
        assert run.last_measurements() == self.whole.last_measurements()
        assert run.iterations() == self.whole.iterations()
        # Each iteration and each test once, in whatever parts it was trained.
        lines = (run.path / "iterations.csv").read_text().splitlines()
        assert [line.split(",")[0] for line in lines] == ["iteration", *map(str, range(ITERATIONS))]
        assert len(run.measurements()) == len(run.last_measurements())


@pytest.fixture(scope="module")
def task(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    digits: Path,
    caffe_program: str,
) -> Task:
    workspace = make_workspace(tmp_path_factory.mktemp("resume"), digits, caffe_program)
    return Task(workspace, CASES[request.param])


def cases(*quick: str) -> list[object]:
    """All cases; those that are not ``quick`` are slow."""
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in CASES]


@pytest.mark.ci
@pytest.mark.parametrize("task", cases("plain", "augmented"), indirect=True)
def test_after_sigint(task: Task) -> None:
    with task.workspace.training(*task.flags, out="stopped") as training:
        training.wait_for_test(INTERRUPTED_AFTER)
        training.send(signal.SIGINT)
        done = training.finish().succeeded()
    run = task.workspace.run("stopped")
    reached = run.record["iteration"]
    assert INTERRUPTED_AFTER <= reached < ITERATIONS
    assert run.record["status"] == "stopped"
    assert f"stopped at iteration {reached}" in done.out
    assert run.state(reached).is_file()
    assert (
        f"resumed at iteration {reached}"
        in task.workspace.train("--resume", "--out", "stopped").succeeded().out
    )
    task.assert_same(run)


@pytest.mark.parametrize("task", cases("iter_size and dropout", "plateau"), indirect=True)
def test_after_kill_9_of_the_driver(task: Task) -> None:
    with task.workspace.training(*task.flags, out="killed") as training:
        training.wait_for_snapshot(SNAPSHOT)
        training.wait_for_test(INTERRUPTED_AFTER)
        training.send(signal.SIGKILL)
        assert training.finish().code == -signal.SIGKILL
        assert training.run.record["status"] == "running"
    before = task.workspace.run("killed").measurements()
    run = task.resume("killed")
    task.assert_same(run)
    assert run.measurements()[: len(before)] == before  # nothing that was measured is touched


@pytest.mark.parametrize("task", cases("plain"), indirect=True)
def test_in_parts(task: Task) -> None:
    """What a tuner does: train up to an iteration, look, go on. The policy ends where it would anyway."""
    for first, until in (((*task.flags, "--out"), 400), (("--resume", "--out"), 500)):
        done = task.workspace.train(*first, "parts", "--until", str(until)).succeeded()
        assert f"stopped at iteration {until}" in done.out
        run = task.workspace.run("parts")
        assert (run.record["status"], run.record["iteration"]) == ("stopped", until)
        assert run.record["reason"] == f"paused at iteration {until} as asked"
        assert run.record["max_iter"] == ITERATIONS
        assert max(run.iterations()) == until - 1
    again = task.workspace.train("--resume", "--out", "parts", "--until", "300").succeeded()
    assert "stopped at iteration 500" in again.out  # it is beyond that: nothing is done
    task.assert_same(task.resume("parts", 500))
    kept = {row.name for row in (task.workspace.path / "parts" / "snapshots").glob("*.solverstate")}
    assert not any(name.endswith(("_400.solverstate", "_500.solverstate")) for name in kept)


def test_the_cases_differ(tmp_path: Path) -> None:
    """A check of the check: nets and solvers of the cases are not accidentally the same."""
    texts = {(case.net, str(case.fields), case.flags) for case in CASES.values()}
    assert len(texts) == len(CASES)


@pytest.mark.slow
def test_decisions_are_repeated(workspace: Workspace) -> None:
    """Interrupted after a decision that no snapshot knows of: the resumed run decides again, the same."""
    task = Task(workspace, CASES["plateau"])
    assert [row["iteration"] for row in task.whole.rows("decisions.jsonl")] == DECISIONS
    with workspace.training(*task.flags, out="killed") as training:
        training.wait_for(
            lambda: len(training.run.rows("decisions.jsonl")) == 2, "the second decision"
        )
        training.send(signal.SIGKILL)
        training.finish()
    run = workspace.run("killed")
    for name in (
        "snapshots.jsonl",
        "records.log",
        "losses.log",
    ):  # as if killed before the first, long ago
        (workspace.path / "killed" / name).unlink()
    shutil.rmtree(workspace.path / "killed" / "snapshots")
    workspace.train("--resume", "--out", "killed").succeeded()
    task.assert_same(run)
    assert [row["iteration"] for row in run.rows("decisions.jsonl")] == DECISIONS


@pytest.mark.slow
def test_interrupted_many_times_and_before_the_first_snapshot(workspace: Workspace) -> None:
    task = Task(workspace, CASES["dropout"])
    with workspace.training(*task.flags, out="killed") as training:
        training.wait_for_test(0)
        training.send(signal.SIGKILL)
        training.finish()
    assert not workspace.run("killed").rows("snapshots.jsonl")
    for iteration in (200, 600, 900):
        with workspace.training("--resume", out="killed") as training:
            training.wait_for_test(iteration)
            training.send(signal.SIGTERM if iteration == 600 else signal.SIGKILL)
            training.finish()
    task.assert_same(task.resume("killed"))


def test_a_run_that_is_made_shorter_ends_there(workspace: Workspace) -> None:
    workspace.write("solver.prototxt", nets.solver(max_iter=100_000, test_interval=100))
    with workspace.training("solver.prototxt", out="killed") as training:
        training.wait_for_test(300)
        training.send(signal.SIGKILL)
        training.finish()
    done = workspace.train("--resume", "--out", "killed", "--max-iter", "150").succeeded()
    assert "last, at 150" in done.out
    assert [row["iteration"] for row in workspace.run("killed").measurements()] == [0, 100, 150]


def test_without_out_the_newest_run_of_the_solver_goes_on(workspace: Workspace) -> None:
    workspace.write("solver.prototxt", nets.solver(snapshot=50))
    workspace.train("solver.prototxt", "--lr", "fix").succeeded()
    run = (workspace.path / "runs" / "latest").resolve()
    done = workspace.train("solver.prototxt", "--resume", "--max-iter", "150").succeeded()
    assert f"resumed at iteration 100, from {Path('runs') / run.name}" in done.out
    assert Run(run).record["iteration"] == 150
    assert sorted(os.listdir(workspace.path / "runs")) == sorted(["latest", run.name])
