"""Trainings on a Caffe whose base_lr cannot be set: real ones, on Debian's Caffe without what came after 1.0.

What Caffe 1.0 lacks is taken away in the worker's own process (``caffe_1_0.py``), so that a worker
that sets base_lr there sets an attribute on nothing, without an error, and trains at another LR
than it reports.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from lrbench_caffe.runtime.locate import find_caffe_python
from tests.caffe import nets
from tests.caffe.harness import Workspace, assert_same_weights, difference
from tests.caffe.test_same_weights import ALL, GRADIENTS, WITH_SHARED_PARAMETERS

HERE = Path(__file__).parent
MULTISTEP = {"gamma": 0.5, "stepvalue": [20, 50, 51, 90]}
NSTEP = "NSTEP(k0=0.05, gamma=0.5, l=[20, 50, 51, 90])"


@pytest.fixture
def caffe_1_0(tmp_path: Path) -> str:
    """The launcher of a Caffe as Python saw Caffe 1.0."""
    command = [*find_caffe_python(None).command, str(HERE / "caffe_1_0.py")]
    return launcher(tmp_path / "caffe_1_0", f'exec {shlex.join(command)} "$@"')


def launcher(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def theirs(workspace: Workspace, solver: str, iteration: int = 100) -> Path:
    """The model of ``caffe train``."""
    workspace.write("theirs.prototxt", solver.replace('"tiny"', '"theirs"'))
    workspace.caffe("train", "--solver=theirs.prototxt").succeeded()
    return workspace.path / f"theirs_iter_{iteration}.caffemodel"


def lr_lines(log: str) -> list[str]:
    """(iteration, LR) in a log of Caffe, as its tools/extra/parse_log.py reads them."""
    return re.findall(r"\] Iteration (\d+), lr = (\S+)", log)


@pytest.mark.parametrize(
    ("kind", "policy"),
    [("SGD", "inv"), ("Adam", "multistep")],
    ids=["SGD and inv", "Adam and multistep"],
)
def test_the_solvers_own_policy_gives_the_bits_of_caffe_train(
    workspace: Workspace, caffe_1_0: str, kind: str, policy: str
) -> None:
    fields = MULTISTEP if policy == "multistep" else {"gamma": 0.01, "power": 0.75}
    solver = nets.policy(policy, type=f'"{kind}"', base_lr=0.01, **fields)
    workspace.write("solver.prototxt", solver)
    # In two parts: what Caffe counts of the steps is in the snapshot.
    workspace.train(
        "solver.prototxt", "--caffe-python", caffe_1_0, "--until", "50", "--out", "out"
    ).succeeded()
    workspace.train("--resume", "--out", "out", "--caffe-python", caffe_1_0).succeeded()
    assert_same_weights(workspace.run("out").model(100), theirs(workspace, solver))


CASES = {
    "SGD": ("SGD", {}, nets.net()),
    "Nesterov, L1, clipping, iter_size, shared parameters": (
        "Nesterov",
        ALL,
        WITH_SHARED_PARAMETERS,
    ),
}


@pytest.mark.ci
@pytest.mark.parametrize("case", CASES)
def test_a_policy_of_the_lr_module(workspace: Workspace, caffe_1_0: str, case: str) -> None:
    kind, fields, net = CASES[case]
    workspace.write("net.prototxt", net)
    solver = nets.policy("multistep", type=f'"{kind}"', **{**MULTISTEP, **fields, "base_lr": 0.01})
    workspace.write("solver.prototxt", solver)
    done = workspace.train(
        "solver.prototxt",
        "--lr",
        NSTEP.replace("0.05", "0.01"),
        "--caffe-python",
        caffe_1_0,
        "--out",
        "out",
    ).succeeded()
    run = workspace.run("out")
    model = theirs(workspace, solver)
    print(f"largest relative difference: {difference(model, run.model(100)):.3g}")
    assert difference(model, run.model(100)) <= GRADIENTS
    # The log names the LRs that were trained with, as caffe train's does, and no other.
    again = workspace.caffe("train", "--solver=theirs.prototxt").succeeded()
    assert lr_lines(run.log.read_text()) == lr_lines(again.err)
    assert len(lr_lines(again.err)) == 10
    assert ("sub-batch" in done.out) == ("iter_size" in fields)


def test_an_adaptive_solver_takes_no_policy(workspace: Workspace, caffe_1_0: str) -> None:
    workspace.write("solver.prototxt", nets.solver(type='"Adam"'))
    workspace.train("solver.prototxt", "--lr", "FIX(k0=0.01)", "--caffe-python", caffe_1_0).failed(
        2, "'Adam'", "cannot set base_lr", "the solver's own lr_policy"
    )
    tune = [
        sys.executable,
        "-m",
        "lrbench_caffe.tune",
        "solver.prototxt",
        "--caffe-python",
        caffe_1_0,
    ]
    workspace.command([*tune, "--out", "tuned"]).failed(2, "'Adam'", "cannot set base_lr")


@pytest.mark.ci
@pytest.mark.parametrize("begins_on", ["1.0", "the present one"])
def test_a_run_that_changes_its_caffe(workspace: Workspace, caffe_1_0: str, begins_on: str) -> None:
    """Both directions; the LR is nowhere the solver's base_lr, so that a wrong one would be seen."""
    solver = nets.policy("multistep", **MULTISTEP)
    workspace.write("solver.prototxt", solver.replace("base_lr: 0.05", "base_lr: 0.4"))
    there = ("--caffe-python", caffe_1_0)
    parts = ((), there) if begins_on != "1.0" else (there, ())
    workspace.train(
        "solver.prototxt", "--lr", NSTEP, *parts[0], "--until", "50", "--out", "out"
    ).succeeded()
    done = workspace.train("--resume", "--out", "out", *parts[1]).succeeded()
    assert ("cannot set base_lr, with which the run began" in done.out) == (begins_on != "1.0")
    largest = difference(theirs(workspace, solver), workspace.run("out").model(100))
    print(f"largest relative difference: {largest:.3g}")
    assert largest <= GRADIENTS
    assert workspace.run("out").record["lr_by"] == "gradients"


def test_a_run_of_an_adaptive_solver_cannot_change_to_1_0(
    workspace: Workspace, caffe_1_0: str
) -> None:
    workspace.write("solver.prototxt", nets.solver(type='"Adam"'))
    workspace.train(
        "solver.prototxt", "--lr", "FIX(k0=0.01)", "--until", "50", "--out", "out"
    ).succeeded()
    workspace.train("--resume", "--out", "out", "--caffe-python", caffe_1_0).failed(
        2, "--resume", "cannot set it from Python"
    )
    workspace.train("--resume", "--out", "out").succeeded()


@pytest.mark.ci
def test_a_launcher_that_starts_another_caffe_than_it_did(
    workspace: Workspace, caffe_1_0: str, tmp_path: Path
) -> None:
    """Its Caffe was described as one whose base_lr can be set. Then it is another, the launcher the same."""
    present = shlex.join(find_caffe_python(None).command)
    changing = launcher(
        tmp_path / "changing",
        f'[ -e {tmp_path}/old ] && exec {caffe_1_0} "$@"\nexec {present} "$@"',
    )
    flags = ("solver.prototxt", "--lr", NSTEP, "--caffe-python", changing)
    workspace.train(*flags, "--out", "before", "--max-iter", "20").succeeded()
    (tmp_path / "old").touch()
    failed = workspace.train(*flags, "--out", "out").failed(
        2, "another Caffe", "writable_base_lr False, was True"
    )
    assert "nothing was trained" in failed.err
    workspace.train(*flags, "--out", "out2").succeeded()  # it is known now
    assert workspace.run("out2").record["lr_by"] == "gradients"
    (tmp_path / "old").unlink()
    workspace.train(*flags, "--out", "out3").failed(2, "writable_base_lr True, was False")
