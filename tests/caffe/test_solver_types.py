"""Every solver type of Caffe, and the verdicts on a training."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lrbench_caffe.lr import parse
from tests.caffe import nets
from tests.caffe.harness import Workspace, difference

TYPES = {
    "SGD": {},
    "Nesterov": {},
    "AdaGrad": {"momentum": None},
    "RMSProp": {"momentum": None, "rms_decay": 0.98},
    "AdaDelta": {"delta": 1e-6},
    "Adam": {"momentum2": 0.999},
}


@pytest.mark.parametrize("kind", TYPES)
def test_base_lr_follows_the_policy(workspace: Workspace, kind: str) -> None:
    fields = {"type": f'"{kind}"', "max_iter": 20, "display": 1, "test_interval": 20, **TYPES[kind]}
    workspace.write("solver.prototxt", nets.solver(**fields))
    flags = ("--lr", "sin2", "--k0", "0.001", "--k1", "0.006", "--l", "6")
    workspace.train("solver.prototxt", *flags, "--out", "out").succeeded()
    run = workspace.run("out")
    lrs = re.findall(r"Iteration (\d+), lr = (\S+)", run.log.read_text())
    assert [int(iteration) for iteration, _ in lrs] == list(range(20))
    expected = parse("SIN2(k0=0.001, k1=0.006, l=6)")(np.arange(20))
    assert [float(lr) for _, lr in lrs] == pytest.approx(expected.tolist(), rel=1e-5)
    assert f'type: "{kind}"' in run.log.read_text()  # Caffe writes the solver that it made
    losses = [loss for _, loss in run.iterations().values()]
    assert np.isfinite(losses).all()


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind == "Adam" else pytest.mark.slow) for kind in TYPES]
)
def test_it_trains_as_caffe_train(workspace: Workspace, kind: str) -> None:
    """Not SGD alone: the LR that Caffe reads is the same in all of them."""
    fields = {"type": f'"{kind}"', "max_iter": 20, "base_lr": 0.002, **TYPES[kind]}
    workspace.write("solver.prototxt", nets.solver(**fields))
    workspace.train("solver.prototxt", "--out", "out").succeeded()
    workspace.caffe("train", "--solver=solver.prototxt").succeeded()
    assert (
        difference(workspace.path / "tiny_iter_20.caffemodel", workspace.run("out").model(20))
        <= 1e-6
    )


def test_a_training_that_diverges_ends_with_a_verdict(workspace: Workspace) -> None:
    workspace.write("solver.prototxt", nets.solver(max_iter=1_000_000, test_interval=1000))
    done = workspace.train("solver.prototxt", "--lr", "FIX(k0=1000)", "--out", "out")
    done.failed(1, "error: the training diverged: ", "loss")
    run = workspace.run("out")
    assert run.record["status"] == "diverged"
    assert run.record["reason"] in done.err
    assert run.record["iteration"] < 10_000
    assert run.measurements()[0]["iteration"] == 0
    assert len(run.iterations()) == run.record["iteration"]


@pytest.mark.slow
def test_a_loss_that_is_nan_is_a_divergence(workspace: Workspace) -> None:
    loss = (
        '\nlayer { name: "loss" type: "EuclideanLoss" bottom: "ip2" bottom: "targets" top: "loss" }'
    )
    targets = """
layer { name: "targets" type: "DummyData" top: "targets"
        dummy_data_param { shape { dim: 20 dim: 10 } data_filler { type: "constant" value: 1 } } }"""
    workspace.write("net.prototxt", nets.net(last=targets + loss))
    workspace.write(
        "solver.prototxt", nets.solver(test_iter=None, test_interval=None, max_iter=100_000)
    )
    done = workspace.train("solver.prototxt", "--lr", "FIX(k0=1000)", "--out", "out")
    assert re.search(r"the loss of iteration \d+ is (nan|inf)", done.failed(1).err)


def test_preview_prints_and_plots_and_does_not_train(workspace: Workspace) -> None:
    done = workspace.train("solver.prototxt", "--lr", "sin2", "--preview").succeeded()
    policy = parse(re.search(r"LR policy: (.*) \(from --lr\)", done.out).group(1))
    rows = re.findall(r"^\s+(\d+)\s+(\S+)\s*$", done.out, re.MULTILINE)
    assert (rows[0][0], rows[-1][0]) == ("0", "99")
    for iteration, lr in rows:
        assert float(lr) == pytest.approx(policy(int(iteration)), rel=1e-5)
    plot = workspace.path / re.search(r"plot: (\S+)", done.out).group(1)
    assert plot.read_bytes().startswith(b"\x89PNG")
    names = {path.name for path in workspace.path.iterdir()}
    assert names == {"data", "prototxt", "net.prototxt", "solver.prototxt", plot.name}


def test_what_was_left_out_of_a_policy_is_said(workspace: Workspace) -> None:
    done = workspace.train(
        "solver.prototxt", "--lr", "sin2", "--k1", "0.2", "--preview"
    ).succeeded()
    assert "SIN2(k0=0.05, k1=0.2, l=50)" in done.out
    assert re.search(r"k0 = 0\.05: base_lr", done.out)
    assert re.search(r"l = 50: half of max_iter", done.out)
