"""What does not end a training, and what ends it soon: lost readers, long tests, moved and damaged runs."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.caffe import nets
from tests.caffe.harness import ENVIRONMENT, Workspace, assert_same_weights

LONG = nets.solver(max_iter=20_000, test_interval=1000, snapshot=2000, display=0)
TRAIN = [sys.executable, "-m", "lrbench_caffe.train", "long.prototxt", "--no-db", "--out", "out"]


@pytest.mark.ci
def test_a_terminal_that_is_closed_does_not_end_a_training(workspace: Workspace) -> None:
    """Its end sends SIGHUP, which takes a snapshot as in caffe train; then nothing can be written to it."""
    workspace.write("long.prototxt", LONG)
    main, other = pty.openpty()
    process = subprocess.Popen(
        TRAIN, cwd=workspace.path, env=ENVIRONMENT, stdin=other, stdout=other, stderr=other
    )
    os.close(other)
    run = workspace.run("out")
    deadline = time.monotonic() + 60
    while not run.measurements() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.close(main)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=120) == 0
    assert run.record["status"] == "finished"
    assert run.measurements()[-1]["iteration"] == 20_000
    assert len(run.rows("snapshots.jsonl")) == 11  # ten of the solver's, and the signal's


@pytest.mark.ci
@pytest.mark.parametrize("silent", ["a pipe whose reader is gone", "no stdout"])
def test_output_that_nobody_reads_does_not_end_a_training(
    workspace: Workspace, silent: str
) -> None:
    workspace.write("long.prototxt", LONG)
    command = " ".join(TRAIN) + (" | head -n 1 >/dev/null" if "pipe" in silent else " >&-")
    done = workspace.command(["bash", "-c", f"set -o pipefail; {command}"])
    assert (done.code, done.err) == (0, "")
    assert workspace.run("out").record["status"] == "finished"


@pytest.mark.ci
def test_ctrl_c_ends_a_long_test_pass(workspace: Workspace) -> None:
    workspace.write("long.prototxt", nets.solver(test_iter=100_000_000))
    with workspace.training("long.prototxt", out="out") as training:
        training.wait_for(
            lambda: training.run.log.exists() and "Testing" in training.run.log.read_text(), ""
        )
        training.send(signal.SIGINT)
        assert training.finish().code == 0
    run = workspace.run("out")
    assert run.measurements() == []  # half a test is no measurement
    assert run.record["status"] == "stopped"
    assert run.rows("snapshots.jsonl")[0]["iteration"] == 0


def test_checkpoints_need_no_tests(workspace: Workspace) -> None:
    workspace.write(
        "long.prototxt",
        nets.solver(test_iter=None, test_interval=None, max_iter=10_000_000, display=0),
    )
    with workspace.training("long.prototxt", "--checkpoint-minutes", "0.01", out="out") as training:
        training.wait_for_snapshot(1)
        training.send(signal.SIGKILL)
        training.finish()
    assert workspace.run("out").rows("snapshots.jsonl")[0]["automatic"]


@pytest.fixture(scope="module")
def begun(shared_workspace: Workspace) -> Workspace:
    """A run of 60 iterations with snapshots at 20, 40 and 60, and one that went on to 100."""
    solver = nets.solver(max_iter=60, snapshot=20, test_interval=20)
    shared_workspace.write("short.prototxt", solver)
    shared_workspace.train("short.prototxt", "--out", "begun").succeeded()
    shared_workspace.train("short.prototxt", "--out", "whole", "--max-iter", "100").succeeded()
    return shared_workspace


def test_a_run_that_was_moved_goes_on(begun: Workspace) -> None:
    shutil.copytree(begun.path / "begun", begun.path / "moved")
    first = begun.path / "begun" / "snapshots"
    first.rename(first.with_name("elsewhere"))  # nothing is read from where it was
    try:
        begun.train("--resume", "--out", "moved", "--max-iter", "100").succeeded()
    finally:
        first.with_name("elsewhere").rename(first)
    assert_same_weights(begun.run("moved").model(100), begun.run("whole").model(100))


def test_a_damaged_snapshot_is_passed_over(begun: Workspace) -> None:
    shutil.copytree(begun.path / "begun", begun.path / "damaged")
    state = begun.run("damaged").state(60)
    state.write_bytes(bytes(state.stat().st_size))
    done = begun.train("--resume", "--out", "damaged", "--max-iter", "100").succeeded()
    assert f"{state.name} is damaged" in done.out
    assert "resumed at iteration 40" in done.out
    assert_same_weights(begun.run("damaged").model(100), begun.run("whole").model(100))


def test_a_run_without_an_intact_snapshot_is_not_started_again(begun: Workspace) -> None:
    shutil.copytree(begun.path / "begun", begun.path / "lost")
    for path in (begun.path / "lost" / "snapshots").iterdir():
        path.unlink()
    begun.train("--resume", "--out", "lost").failed(2, "none of the snapshots", "intact")


def test_a_high_loss_is_no_divergence(workspace: Workspace) -> None:
    loss = nets.ends().replace(
        'type: "SoftmaxWithLoss"', 'type: "SoftmaxWithLoss" loss_weight: 100'
    )
    workspace.write("net.prototxt", nets.net(last=loss))
    workspace.write("solver.prototxt", nets.solver(base_lr="1e-4", max_iter=300))
    workspace.train("solver.prototxt", "--out", "out").succeeded()
    assert all(loss > 43.67 for _, loss in list(workspace.run("out").iterations().values())[:100])
