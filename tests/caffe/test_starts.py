"""What a training starts from: known before it trains, as Caffe itself would have it."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import h5py
import pytest

from lrbench_caffe import api
from lrbench_caffe.prototxt.patch import write_prototxts
from lrbench_caffe.runs.caffefiles import state_digest
from lrbench_caffe.runtime.client import Worker
from lrbench_caffe.training import session
from tests.caffe import nets
from tests.caffe.harness import Workspace, assert_same_weights, messages

ITERATIONS = 20


def solver(**fields: object) -> str:
    return nets.solver(**{"max_iter": ITERATIONS, "test_interval": 20, **fields})


@pytest.fixture(scope="module")
def trained(shared_workspace: Workspace) -> Workspace:
    """A run of 20 iterations in first/, its snapshots at kept/tiny, and one of Adam in adam/."""
    shared_workspace.write("solver.prototxt", solver(snapshot=10))
    shared_workspace.train("solver.prototxt", "--out", "first").succeeded()
    adam = solver(type='"Adam"', base_lr=0.001, momentum2=0.999)
    shared_workspace.write("adam.prototxt", adam)
    shared_workspace.train("adam.prototxt", "--out", "adam").succeeded()
    return shared_workspace


MODEL, STATE = "first/snapshots/tiny_iter_20.caffemodel", "first/snapshots/tiny_iter_10.solverstate"
RENAMED = nets.net().replace('name: "ip1"', 'name: "new1"').replace('name: "ip2"', 'name: "new2"')


def test_out_and_publish(workspace: Workspace) -> None:
    workspace.write("solver.prototxt", solver(snapshot=10, snapshot_prefix='"kept/tiny"'))
    workspace.train("solver.prototxt", "--out", "out", "--publish").succeeded()
    kept = workspace.path / "kept"
    assert (kept / "tiny_iter_20.caffemodel").read_bytes() == workspace.run("out").model(
        20
    ).read_bytes()
    state = "kept/tiny_iter_20.solverstate"
    # Where the disk cannot share blocks, the two models are one file, and caffe train writes over
    # both.
    solver_of_theirs = workspace.write(
        "theirs.prototxt", solver(max_iter=30, snapshot_prefix='"kept/tiny"')
    )
    workspace.caffe("train", f"--solver={solver_of_theirs}", f"--snapshot={state}").succeeded()
    (kept / "tiny_iter_20.caffemodel").write_bytes(b"written over")
    done = workspace.train("--resume", "--out", "out", "--max-iter", "25").succeeded()
    assert "resumed at iteration 10" in done.out or "resumed at iteration 20" in done.out


@pytest.mark.parametrize(
    ("net", "filled"),
    [
        (nets.net(), 2),
        (nets.net().replace('name: "ip2"', 'name: "new2"'), 1),
        (RENAMED, 0),
    ],
    ids=["all", "one", "none"],
)
def test_how_many_layers_weights_fill(trained: Workspace, net: str, filled: int) -> None:
    trained.write("other_net.prototxt", net)
    trained.write("other.prototxt", solver(net='"other_net.prototxt"'))
    out = f"filled{filled}"
    flags = ("--weights", MODEL, "--out", out, "--log-to-stderr")
    done = trained.train("other.prototxt", *flags).succeeded()
    assert f"weights: {filled} of 2 layers filled" in done.out
    assert ("WARNING: weights: 0 of 2 layers filled" in done.out) == (filled == 0)
    # Caffe's own words on what it leaves out.
    assert done.err.count("Ignoring source layer ip") == 2 * (2 - filled)  # once for each net
    start = trained.run(out).record["start"]
    assert (start["kind"], start["filled"], start["layers"]) == ("weights", filled, 2)


def test_the_solvers_own_weights_count_as_well(trained: Workspace) -> None:
    trained.write("other.prototxt", solver(weights=f'"{MODEL}"'))
    done = trained.train("other.prototxt", "--out", "field").succeeded()
    assert "weights: 2 of 2 layers filled" in done.out
    assert trained.run("field").record["start"]["filled"] == 2
    # As caffe train does it: the same weights after the same iterations.
    trained.write("theirs.prototxt", solver(weights=f'"{MODEL}"', snapshot_prefix='"theirs"'))
    trained.caffe("train", "--solver=theirs.prototxt").succeeded()
    assert_same_weights(trained.run("field").model(20), trained.path / "theirs_iter_20.caffemodel")


def test_weights_of_another_shape(trained: Workspace) -> None:
    trained.write("wide_net.prototxt", nets.net().replace("num_output: 16", "num_output: 17"))
    trained.write("wide.prototxt", solver(net='"wide_net.prototxt"'))
    done = trained.train("wide.prototxt", "--weights", MODEL, "--out", "wide")
    done.failed(
        2, f"{MODEL}: layer 'ip1': blob 0 is 16 x 64 there and 17 x 64 in the net", "another name"
    )
    assert trained.caffe("train", "--solver=wide.prototxt", f"--weights={MODEL}").code != 0
    # Its place is free again.
    trained.train("wide.prototxt", "--out", "wide").succeeded()


@pytest.mark.parametrize(
    ("file", "state"),
    [("solver.prototxt", "adam/snapshots/tiny_iter_20.solverstate"), ("adam.prototxt", STATE)],
)
def test_a_snapshot_of_another_solver_type(trained: Workspace, file: str, state: str) -> None:
    done = trained.train(file, "--snapshot", state, "--max-iter", "40", "--out", "typed")
    done.failed(2, f"--snapshot: {state} has", "history blobs for 4 parameters")
    assert "--resume" not in done.err
    assert not (trained.path / "typed").exists()
    theirs = trained.caffe("train", f"--solver={file}", f"--snapshot={state}")
    assert "Incorrect length of history blobs" in theirs.err


def test_a_backup_of_a_snapshot_has_its_own_weights(trained: Workspace) -> None:
    """The training that it was made of went on: its old place has other weights by now."""
    backup, old = trained.path / "backup", trained.path / "first" / "snapshots"
    shutil.copytree(old, backup)
    moved = trained.path / "moved_away"
    old.rename(moved)
    shutil.copytree(backup, old)
    shutil.copyfile(old / "tiny_iter_20.caffemodel", old / "tiny_iter_10.caffemodel")
    flags = ("--out", "from_backup", "--snapshot", "backup/tiny_iter_10.solverstate")
    done = trained.train("solver.prototxt", *flags).succeeded()
    shutil.rmtree(old)
    moved.rename(old)
    model = STATE.replace("solverstate", "caffemodel")
    assert f"names the weights {model}; those beside it are used, backup/" in done.out
    assert_same_weights(trained.run("from_backup").model(20), trained.path / MODEL)
    start = trained.run("from_backup").record["start"]
    assert (start["kind"], start["iteration"], start["name"]) == (
        "snapshot",
        10,
        "tiny_iter_10.solverstate",
    )
    # It is the start that it would be from the old place.
    assert start["digest"] == state_digest(trained.path / STATE, trained.path / model, messages())


def test_an_hdf5_snapshot_whose_old_place_is_gone(trained: Workspace) -> None:
    trained.write("hdf5.prototxt", solver(snapshot=10, snapshot_format="HDF5"))
    trained.train("hdf5.prototxt", "--out", "hdf5").succeeded()
    (trained.path / "hdf5").rename(trained.path / "elsewhere")
    state = "elsewhere/snapshots/tiny_iter_10.solverstate.h5"
    done = trained.train("hdf5.prototxt", "--snapshot", state, "--out", "hdf5_again").succeeded()
    assert "those beside it are used, elsewhere/snapshots/tiny_iter_10.caffemodel.h5" in done.out
    runs = ("elsewhere", "hdf5_again")
    ends = [trained.path / run / "snapshots" / "tiny_iter_20.caffemodel.h5" for run in runs]
    assert parameters(ends[0]) == parameters(ends[1])
    # A run that was moved is resumed as well.
    (trained.path / "elsewhere" / "snapshots" / "tiny_iter_20.solverstate.h5").unlink()
    done = trained.train("--out", "elsewhere", "--resume").succeeded()
    assert "resumed at iteration 10" in done.out
    assert parameters(ends[0]) == parameters(ends[1])


def parameters(model: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with h5py.File(model) as file:
        file["data"].visititems(
            lambda name, item: found.update(
                {name: item[()].tobytes()} if hasattr(item, "shape") else {}
            )
        )
    assert len(found) == 4
    return found


@pytest.mark.parametrize("name", ["in/ip1", ""])
def test_names_that_hdf5_cannot_hold(workspace: Workspace, name: str) -> None:
    """caffe train aborts at its first snapshot, and what it trained is lost."""
    workspace.write("net.prototxt", nets.net().replace('name: "ip1"', f'name: "{name}"'))
    workspace.write("solver.prototxt", solver(snapshot_format="HDF5"))
    assert workspace.caffe("train", "--solver=solver.prototxt").code != 0
    done = workspace.train("solver.prototxt", "--out", "out").succeeded()
    assert f"snapshot_format: HDF5 cannot hold the name {name!r}" in done.out
    assert workspace.run("out").model(20).is_file()
    assert workspace.run("out").record["status"] == "finished"


def test_another_policy_for_a_resumed_run(trained: Workspace) -> None:
    flags = ("--resume", "--out", "adam", "--lr", "FIX(k0=0.5)")
    way = "adam.prototxt --snapshot adam/snapshots/tiny_iter_20.solverstate --lr FIX(k0=0.5)"
    trained.train(*flags).failed(2, "--resume: the run's policy is", f"begin a new run: {way}")


def test_an_lr_alone_is_a_fixed_one(trained: Workspace) -> None:
    trained.train(
        "solver.prototxt", "--lr", "0.01", "--max-iter", "2", "--out", "number"
    ).succeeded()
    assert trained.run("number").record["policy"] == "FIX(k0=0.01)"
    trained.train("--resume", "--out", "number", "--lr", "1e-2").succeeded()


def test_the_run_directory_is_a_line_of_its_own(workspace: Workspace) -> None:
    workspace.write("solver.prototxt", solver(max_iter=2))
    done = workspace.train("solver.prototxt").succeeded()
    (line,) = [line for line in done.out.splitlines() if line.startswith("run directory: ")]
    named = workspace.path / line.partition(": ")[2]
    assert (named / "run.json").is_file()
    assert (workspace.path / "runs" / "latest").resolve() == named
    # Under that name it is continued as itself.
    workspace.train("--resume", "--out", "runs/latest", "--max-iter", "3").succeeded()
    assert (workspace.path / "runs" / "latest").resolve() == named


def test_interrupted_while_caffe_starts(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> Worker:
        raise KeyboardInterrupt  # as a second Ctrl-C does

    monkeypatch.chdir(workspace.path)
    monkeypatch.setattr(session, "Worker", interrupted)
    with pytest.raises(KeyboardInterrupt):
        api.train("solver.prototxt", out="out", no_database=True)
    record = workspace.run("out").record
    assert record["status"] == "stopped"
    assert record["reason"] == "interrupted before the training began"
    workspace.train("--resume", "--out", "out", "--max-iter", "10").succeeded()


def test_interrupted_while_the_run_directory_is_written(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is not left as one that is running: it stops with a snapshot as soon as it can."""

    def interrupted(*args: Any, **options: Any) -> Path:
        os.kill(os.getpid(), signal.SIGINT)
        return write_prototxts(*args, **options)

    monkeypatch.chdir(workspace.path)
    monkeypatch.setattr(session, "write_prototxts", interrupted)
    run = api.train("solver.prototxt", out="out", no_database=True)
    assert (run.status, workspace.run("out").record["reason"]) == ("stopped", "stopped by a signal")
    assert workspace.run("out").state(0).is_file()


def test_publish_needs_out(workspace: Workspace) -> None:
    workspace.train("solver.prototxt", "--publish").failed(2, "--publish", "--out")


def test_tests_before_a_foreign_snapshot_count_when_a_run_is_resumed(trained: Workspace) -> None:
    """The test net goes on where it stood: its 5 batches of 100 do not go round its 500 records evenly."""
    flags = ("part.prototxt", "--snapshot", STATE, "--lr", "FIX(k0=0.05)", "--max-iter", "40")
    trained.write("part.prototxt", nets.solver(test_iter=3, test_interval=5, snapshot=0))
    trained.train(*flags, "--out", "whole").succeeded()
    trained.train(*flags, "--out", "parts", "--until", "27").succeeded()
    trained.train("--resume", "--out", "parts").succeeded()
    whole, parts = trained.run("whole"), trained.run("parts")
    assert parts.last_measurements() == whole.last_measurements()
    assert_same_weights(parts.model(40), whole.model(40))
