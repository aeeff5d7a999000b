"""In the place of `caffe train`: its flags, its signals, and files that go from one to the other."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.caffe import nets
from tests.caffe.harness import Run, Workspace, assert_same_weights, difference, weights

LONG = 100_000_000  # iterations that no test waits for


@pytest.fixture(scope="module")
def trained(shared_workspace: Workspace) -> tuple[Workspace, Run]:
    """100 iterations with a snapshot at 50, without --out."""
    shared_workspace.write("solver.prototxt", nets.solver(snapshot=50, snapshot_prefix='"kept/tiny"'))
    shared_workspace.train("solver.prototxt").succeeded()
    (run,) = (shared_workspace.path / "runs").iterdir()
    return shared_workspace, Run(run)


def test_snapshots_lie_at_the_solvers_snapshot_prefix(trained: tuple[Workspace, Run]) -> None:
    workspace, run = trained
    kept = sorted(path.name for path in (workspace.path / "kept").iterdir())
    assert kept == [
        "tiny_iter_100.caffemodel", "tiny_iter_100.solverstate",
        "tiny_iter_50.caffemodel", "tiny_iter_50.solverstate",
    ]  # fmt: skip
    assert_same_weights(workspace.path / "kept" / "tiny_iter_100.caffemodel", run.model(100))


def test_snapshot_starts_a_new_run_that_ends_as_the_old_one(trained: tuple[Workspace, Run]) -> None:
    workspace, run = trained
    state = "kept/tiny_iter_50.solverstate"
    done = workspace.train("solver.prototxt", "-snapshot", state, "--out", "again").succeeded()
    again = workspace.run("again")
    assert list(again.iterations()) == list(range(50, 100)), done.out
    assert_same_weights(again.model(100), run.model(100))
    assert again.measurements()[-1]["top1"] == run.measurements()[-1]["top1"]


def test_caffe_train_goes_on_from_our_snapshot_as_from_its_own(trained: tuple[Workspace, Run]) -> None:
    workspace, _ = trained
    solver = nets.solver(snapshot=50, snapshot_prefix='"theirs"')
    workspace.write("theirs.prototxt", solver)
    workspace.caffe("train", "--solver=theirs.prototxt").succeeded()
    models = []
    for state in ("kept/tiny_iter_50.solverstate", "theirs_iter_50.solverstate"):
        done = workspace.caffe("train", "--solver=theirs.prototxt", f"--snapshot={state}").succeeded()
        assert "Iteration 50, lr = " in done.err
        model = workspace.path / "theirs_iter_100.caffemodel"
        models.append(model.rename(workspace.path / f"went_on_{len(models)}"))
    assert difference(*models) <= 1e-6


def test_we_go_on_from_caffes_snapshot(trained: tuple[Workspace, Run]) -> None:
    workspace, run = trained
    solver = nets.solver(max_iter=50, snapshot_prefix='"began"')
    # inv does not depend on max_iter, so this is the first half of the same training.
    workspace.caffe("train", "--solver=" + workspace.write("began.prototxt", solver)).succeeded()
    flags = ("--snapshot=began_iter_50.solverstate", "--out", "went_on")
    workspace.train("solver.prototxt", *flags).succeeded()
    assert difference(workspace.run("went_on").model(100), run.model(100)) <= 1e-6


@pytest.mark.slow
def test_hdf5_snapshots_as_well(workspace: Workspace) -> None:
    workspace.write("solver.prototxt", nets.solver(snapshot=50, snapshot_format="HDF5"))
    workspace.train("solver.prototxt").succeeded()
    (run,) = (workspace.path / "runs").iterdir()
    last = Run(run).last_measurements()[100, 0]
    state = "tiny_iter_50.solverstate.h5"
    workspace.train("solver.prototxt", "--snapshot", state, "--out", "again").succeeded()
    assert workspace.run("again").last_measurements()[100, 0] == last
    (workspace.path / run / "snapshots" / "tiny_iter_100.solverstate.h5").unlink()
    assert "resumed at iteration 50" in workspace.train("solver.prototxt", "--resume").succeeded().out
    assert Run(run).last_measurements()[100, 0] == last
    workspace.caffe("train", "--solver=solver.prototxt", f"--snapshot={state}").succeeded()
    (workspace.path / state).write_bytes(b"no HDF5 file")
    workspace.train("solver.prototxt", "--snapshot", state, "--out", "no").failed(
        1, "Caffe was ended by", state
    )


def test_weights_start_a_new_run(trained: tuple[Workspace, Run]) -> None:
    workspace, run = trained
    flags = ("--weights", "kept/tiny_iter_100.caffemodel", "--max-iter", "1", "--out", "tuned")
    workspace.train("solver.prototxt", *flags).succeeded()
    tuned = workspace.run("tuned").measurements()[0]
    assert tuned["iteration"] == 0
    assert tuned["top1"] == run.measurements()[-1]["top1"]


def test_a_resumed_run_may_be_made_longer(trained: tuple[Workspace, Run]) -> None:
    workspace, run = trained
    workspace.train("solver.prototxt", "--out", "longer", "--max-iter", "60").succeeded()
    workspace.train("--resume", "--out", "longer", "--max-iter", "100").succeeded()
    assert_same_weights(workspace.run("longer").model(100), run.model(100))


LEVELS = nets.net(
    middle=nets.inner_product("ip1", "data", 16)
    + nets.relu("ip1")
    + nets.inner_product("deep", "ip1", 12, 'include { stage: "deep" min_level: 2 }')
    + nets.inner_product("ip2", "ip1", 10)
)


@pytest.mark.parametrize(
    "flags",
    [
        "-solver solver.prototxt -gpu none -level 2 -stage deep,more -sigint_effect none -sighup_effect stop",
        "--solver=solver.prototxt --level=2 --stage=deep,other --sigint_effect=none --sighup_effect=stop",
        pytest.param("-solver=solver.prototxt -gpu=none -level=2 -stage=deep,other", marks=pytest.mark.slow),
        pytest.param("solver.prototxt --level 2 --stage deep --sigint-effect none", marks=pytest.mark.slow),
    ],
)
def test_caffes_flags_in_all_spellings(workspace: Workspace, flags: str) -> None:
    workspace.write("net.prototxt", LEVELS)
    workspace.write("solver.prototxt", nets.solver(max_iter=5))
    workspace.train(*flags.split(), "--out", "out").succeeded()
    assert "deep[0]" in weights(workspace.run("out").model(5))


def test_without_the_level_its_layers_are_left_out(workspace: Workspace) -> None:
    workspace.write("net.prototxt", LEVELS)
    workspace.write("solver.prototxt", nets.solver(max_iter=5))
    workspace.train("solver.prototxt", "--level", "1", "--stage", "deep", "--out", "out").succeeded()
    assert "deep[0]" not in weights(workspace.run("out").model(5))


def endless(workspace: Workspace, **fields: object) -> str:
    """A solver whose training goes on until it is stopped."""
    return workspace.write("solver.prototxt", nets.solver(max_iter=LONG, display=0, **fields))


def test_sigint_stops_with_a_snapshot_and_exit_code_0(workspace: Workspace) -> None:
    with workspace.training(endless(workspace), out="out") as training:
        training.wait_for_test(100)
        training.send(signal.SIGINT)
        done = training.finish().succeeded()
    run = workspace.run("out")
    reached = run.record["iteration"]
    assert run.state(reached).is_file()
    assert run.record["status"] == "stopped"
    assert f"--resume --out {Path('out')}" in done.out
    assert (run.path / "training.png").stat().st_size > 10_000
    assert list(run.iterations()) == list(range(reached))
    assert done.err == ""


@pytest.mark.slow
def test_sigint_without_snapshot_after_train(workspace: Workspace) -> None:
    with workspace.training(endless(workspace, snapshot_after_train="false"), out="out") as training:
        training.wait_for_test(100)
        training.send(signal.SIGINT)
        training.finish().succeeded()
    assert list((workspace.path / "out" / "snapshots").iterdir()) == []


def test_sighup_snapshots_and_goes_on_and_sigterm_stops(workspace: Workspace) -> None:
    with workspace.training(endless(workspace), out="out") as training:
        training.wait_for_test(100)
        training.send(signal.SIGHUP)
        training.wait_for_snapshot(100)
        (saved,) = training.run.rows("snapshots.jsonl")
        training.wait_for_test(saved["iteration"] + 100)
        training.send(signal.SIGTERM)
        training.finish().succeeded()
    assert len(workspace.run("out").rows("snapshots.jsonl")) == 2


def test_effects_of_signals_can_be_exchanged(workspace: Workspace) -> None:
    flags = ("-sigint_effect", "snapshot", "-sighup_effect", "none")
    with workspace.training(endless(workspace), *flags, out="out") as training:
        training.wait_for_test(100)
        training.send(signal.SIGHUP)
        training.send(signal.SIGINT)
        training.wait_for_snapshot(100)
        (saved,) = training.run.rows("snapshots.jsonl")
        training.wait_for_test(saved["iteration"] + 100)
        assert len(training.run.rows("snapshots.jsonl")) == 1
        training.send(signal.SIGTERM)
        training.finish().succeeded()


@pytest.mark.slow
def test_sigint_effect_none_and_sighup_effect_stop(workspace: Workspace) -> None:
    flags = ("--sigint_effect=none", "--sighup_effect=stop")
    with workspace.training(endless(workspace), *flags, out="out") as training:
        training.wait_for_test(50)
        training.send(signal.SIGINT)
        training.wait_for_test(training.run.measurements()[-1]["iteration"] + 200)
        training.send(signal.SIGHUP)
        training.finish().succeeded()
    assert workspace.run("out").record["status"] == "stopped"


def test_caffes_own_test_and_log_end_as_in_caffe_train(workspace: Workspace) -> None:
    """max_iter is no multiple of test_interval: there is a test at the end all the same."""
    workspace.write("solver.prototxt", nets.solver(max_iter=70))
    workspace.train("solver.prototxt", "--out", "out").succeeded()
    run = workspace.run("out")
    assert [row["iteration"] for row in run.measurements()] == [0, 50, 70]
    assert re.search(r"\] Optimization Done\.$", run.log.read_text().rstrip())
    # With --out all of it is there, and nothing elsewhere.
    assert run.state(70).is_file()
    assert list(workspace.path.glob("*iter*")) == []
    assert not (workspace.path / "runs").exists()


@pytest.mark.slow
def test_test_initialization_false_leaves_out_the_first_test(workspace: Workspace) -> None:
    workspace.write("solver.prototxt", nets.solver(max_iter=60, test_initialization="false"))
    workspace.train("solver.prototxt", "--out", "out", "--test-interval", "30").succeeded()
    assert [row["iteration"] for row in workspace.run("out").measurements()] == [30, 60]


def test_the_seed_is_the_flags_else_the_solvers_else_a_new_one(trained: tuple[Workspace, Run]) -> None:
    workspace, run = trained
    assert run.record["seed"] == 7
    workspace.write("unseeded.prototxt", nets.solver(random_seed=None))
    workspace.train("unseeded.prototxt", "--out", "seed7", "--seed", "7").succeeded()
    assert_same_weights(workspace.run("seed7").model(100), run.model(100))
    workspace.train("unseeded.prototxt", "--out", "unseeded").succeeded()
    assert workspace.run("unseeded").record["seed"] != 7
    assert difference(workspace.run("unseeded").model(100), run.model(100)) > 0.1
