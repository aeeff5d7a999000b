"""Where snapshots and a run's other files are put, and what is left alone there."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.caffe import nets
from tests.caffe.harness import Workspace

SOLVER = nets.solver(max_iter=30, snapshot=10, test_interval=30)


def published(workspace: Workspace, folder: str = "kept") -> list[str]:
    return sorted(path.name for path in (workspace.path / folder).glob("*.caffemodel"))


@pytest.fixture
def solver(workspace: Workspace) -> Workspace:
    (workspace.path / "kept").mkdir()
    workspace.write("solver.prototxt", SOLVER.replace('"tiny"', '"kept/tiny"'))
    return workspace


# -- --out is a folder of the run's own ------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["prototxt/net.prototxt", "snapshots/old_iter_10.solverstate", "caffe.log"]
)
def test_what_is_in_out_is_not_written_over(solver: Workspace, name: str) -> None:
    path = solver.path / "mine" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    top = Path("mine", name).parts[1]
    solver.train("solver.prototxt", "--out", "mine").failed(
        2, f"--out: mine/{top} is there already"
    )
    # Nor where Caffe would refuse the net, so that the run's files go again.
    solver.write("net.prototxt", nets.net().replace("xavier", "xaverius"))
    solver.train("solver.prototxt", "--out", "mine").failed(
        2, f"--out: mine/{top} is there already"
    )
    assert path.read_text() == "mine"


def test_a_solver_in_its_folder_prototxt(workspace: Workspace) -> None:
    (workspace.path / "mine" / "prototxt").mkdir(parents=True)
    text = nets.solver()
    workspace.write("mine/prototxt/solver.prototxt", text)
    done = workspace.train("mine/prototxt/solver.prototxt", "--out", "mine")
    done.failed(2, "--out: mine/prototxt is there already", "allowed: a new directory")
    assert (workspace.path / "mine/prototxt/solver.prototxt").read_text() == text


def test_other_files_in_out_do_not_matter(solver: Workspace) -> None:
    (solver.path / "mine").mkdir()
    solver.write("mine/notes.txt", "mine")
    solver.train("solver.prototxt", "--out", "mine").succeeded()
    assert (solver.path / "mine/notes.txt").read_text() == "mine"


def test_a_refused_training_is_not_the_latest(solver: Workspace) -> None:
    solver.train("solver.prototxt").succeeded()
    latest = (solver.path / "runs" / "latest").readlink()
    solver.write("net.prototxt", nets.net().replace("xavier", "xaverius"))
    solver.train("solver.prototxt").failed(2, "xaverius")
    assert (solver.path / "runs" / "latest").readlink() == latest
    assert sorted(path.name for path in (solver.path / "runs").iterdir()) == sorted(
        ["latest", str(latest)]
    )


# -- snapshot_prefix -------------------------------------------------------------------------------


def test_a_resumed_run_goes_on_publishing_where_its_folder_is_named(solver: Workspace) -> None:
    solver.train("solver.prototxt", "--until", "15").succeeded()
    run = (solver.path / "runs" / "latest").resolve()
    assert published(solver) == ["tiny_iter_10.caffemodel"]
    solver.train("--resume", "--out", str(run.relative_to(solver.path))).succeeded()
    assert published(solver) == [f"tiny_iter_{n}.caffemodel" for n in (10, 20, 30)]


def test_a_resumed_run_stays_private_where_its_folder_is_not_named(solver: Workspace) -> None:
    solver.train("solver.prototxt", "--out", "runs/private", "--until", "15").succeeded()
    done = solver.train("solver.prototxt", "--resume").succeeded()
    assert "resumed at iteration 15, from runs/private" in done.out
    assert published(solver) == []
    # Unless it is told otherwise: then its last snapshot is there.
    solver.train("--resume", "--out", "runs/private", "--publish").succeeded()
    assert published(solver) == ["tiny_iter_30.caffemodel"]


def test_a_snapshot_that_could_not_be_published_is_when_the_run_is_resumed(
    solver: Workspace,
) -> None:
    obstacle = solver.path / "kept" / "tiny_iter_30.caffemodel"
    obstacle.mkdir()
    done = solver.train("solver.prototxt", "--out", "out", "--publish")
    done.failed(1, "cannot write the snapshot to kept: Is a directory", "--resume --out out")
    obstacle.rmdir()
    solver.train("--resume", "--out", "out").succeeded()
    assert obstacle.read_bytes() == solver.run("out").model(30).read_bytes()
    assert obstacle.with_suffix(".solverstate").is_file()


def test_a_prefix_with_a_slash_at_its_end_is_a_folder(workspace: Workspace) -> None:
    workspace.write("solver.prototxt", SOLVER.replace('"tiny"', '"new/"'))
    done = workspace.train("solver.prototxt").succeeded()
    assert "the folder new was missing and has been created" in done.out
    assert published(workspace, "new") == [f"solver_iter_{n}.caffemodel" for n in (10, 20, 30)]


@pytest.mark.parametrize(("max_iter", "expected"), [(40, [20, 30, 40]), (25, [20, 25])])
def test_what_a_run_begins_with_is_no_snapshot_of_it(
    solver: Workspace, max_iter: int, expected: list[int]
) -> None:
    """As with Caffe: the snapshot of iteration 10 is due, but it was another training that made it."""
    solver.train("solver.prototxt", "--max-iter", "10", "--out", "first").succeeded()
    text = SOLVER.replace("max_iter: 30", f"max_iter: {max_iter}")
    for name, program in (("ours", solver.train), ("theirs", solver.caffe)):
        (solver.path / name).mkdir()
        solver.write(f"{name}.prototxt", text.replace('"tiny"', f'"{name}/tiny"'))
        flags = [f"--solver={name}.prototxt", f"--snapshot={solver.run('first').state(10)}"]
        program(*(["train"] if name == "theirs" else []), *flags).succeeded()
        assert published(solver, name) == [f"tiny_iter_{n}.caffemodel" for n in expected]


# -- a stop during the last test -------------------------------------------------------------------

ENDING = {
    "max_iter": 20, "display": 10, "test_interval": 20, "test_initialization": "false", "test_iter": 1000,
    "snapshot_after_train": "false",
}  # fmt: skip


@pytest.mark.ci
def test_stopped_in_the_last_test_it_ends_as_without_the_stop(workspace: Workspace) -> None:
    """Before its last test Caffe makes a further pass, which moves the statistics of BatchNorm."""
    normed = (
        nets.inner_product("ip1", "data", 10)
        + '\nlayer { name: "norm" type: "BatchNorm" bottom: "ip1" top: "norm" }'
        + nets.inner_product("ip2", "norm", 10)
    )
    # The test waits while there is a file "hang", so that the signal comes in the middle of it.
    gate = nets.HANG_LAYER.replace('type: "Python"', 'type: "Python" include { phase: TEST }')
    ends = nets.ends() + gate.replace('bottom: "ip1"', 'bottom: "ip2"')
    workspace.write("hanging.py", nets.HANG_MODULE)
    workspace.environment["PYTHONPATH"] += f":{workspace.path}"
    workspace.write("net.prototxt", nets.net(middle=normed, last=ends))
    workspace.write("solver.prototxt", nets.solver(**ENDING))
    workspace.train("solver.prototxt", "--out", "whole").succeeded()
    run = workspace.run("stopped")
    gate_file = workspace.path / workspace.write("hang", "")
    with workspace.training("solver.prototxt", out="stopped") as training:
        training.wait_for(
            lambda: run.log.exists() and "Iteration 20, Testing" in run.log.read_text(), "the test"
        )
        training.send(signal.SIGINT)
        time.sleep(1)  # until the worker has been told; it has a thousand passes left to hear of it
        gate_file.unlink()
        training.finish().succeeded()
    assert run.record["status"] == "stopped"
    assert not run.measurements()
    workspace.train("--resume", "--out", "stopped").succeeded()
    assert run.last_measurements() == workspace.run("whole").last_measurements()
