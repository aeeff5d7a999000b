"""Nets that `caffe train` takes and that are unlike most: same losses here, and resumed as whole."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from lrbench_caffe.data.lmdb_writer import write_lmdb
from tests.caffe import nets
from tests.caffe.harness import Workspace, assert_same_weights

_LOSS = re.compile(r"Iteration (\d+) .*loss = (\S+)")
_OUTPUT = re.compile(r"Test net output #(\d+): (\S+) = (\S+)")

SHORT = {"max_iter": 6, "display": 1, "test_iter": None, "test_interval": None}


def said(log: str) -> tuple[list[tuple[str, str]], list[tuple[str, ...]]]:
    """The losses and test outputs of a Caffe log, as they are printed."""
    return _LOSS.findall(log), _OUTPUT.findall(log)


def train_on_both(workspace: Workspace, solver: str, net: str | bytes, *flags: str) -> str:
    """Train here and with ``caffe train``; check that both logs have the same losses and test outputs.

    Returns:
        What the training here printed.
    """
    path = workspace.path / "net.prototxt"
    path.write_bytes(net if isinstance(net, bytes) else net.encode())
    workspace.write("solver.prototxt", solver)
    theirs = workspace.caffe("train", "--solver=solver.prototxt").succeeded()
    done = workspace.train("solver.prototxt", "--out", "out", *flags).succeeded()
    ours = workspace.run("out").log.read_text(errors="replace")
    assert said(ours) == said(theirs.err)
    assert said(ours)[0], "the logs have losses"
    return done.out


def write_maps(path: Path, seed: int, highest: int) -> None:
    """11 records of 1 x 8 x 8, so that batches of 2 go round with another record first."""
    pixels = np.random.default_rng(seed).integers(0, highest, (11, 1, 8, 8)).astype(np.uint8)
    write_lmdb(path, list(pixels), [0] * 11, (1, 8, 8))


TWO_READERS_OF_ONE_NAME = """
layer { name: "data" type: "Data" top: "data" data_param { source: "img" backend: LMDB batch_size: 2 }
  transform_param { scale: 0.01 } }
layer { name: "data" type: "Data" top: "label" data_param { source: "lab" backend: LMDB batch_size: 2 } }
layer { name: "score" type: "Convolution" bottom: "data" top: "score"
  convolution_param { num_output: 3 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
"""


def test_two_data_layers_of_one_name_are_both_replayed(workspace: Workspace) -> None:
    """LRCN's public net has such; a pass over one of them alone pairs images with other labels."""
    write_maps(workspace.path / "img", 1, 256)
    write_maps(workspace.path / "lab", 2, 3)
    solver = nets.policy("fixed", snapshot=3, **SHORT)
    train_on_both(workspace, solver, TWO_READERS_OF_ONE_NAME)
    workspace.train("solver.prototxt", "--out", "parts", "--until", "3").succeeded()
    workspace.train("--resume", "--out", "parts").succeeded()
    whole, parts = workspace.run("out"), workspace.run("parts")
    assert parts.iterations() == whole.iterations()
    assert_same_weights(parts.model(6), whole.model(6))


TWO_PRODUCTS_OF_ONE_NAME = nets.net(
    middle=nets.inner_product("ip", "data", 10, "param { decay_mult: 3 } param { decay_mult: 0 }")
    + nets.inner_product("ip", "ip", 10, "param { lr_mult: 2 } param { decay_mult: 5 }").replace(
        'top: "ip"', 'top: "ip2"'
    )
)


@pytest.mark.parametrize("way", ["base_lr", "gradients"])
def test_two_weighted_layers_of_one_name_both_learn(workspace: Workspace, way: str) -> None:
    solver = nets.policy("fixed", weight_decay=0.1, **SHORT)
    train_on_both(workspace, solver, TWO_PRODUCTS_OF_ONE_NAME, "--set-lr-by", way)


LOSSES_WITHOUT_TOPS = nets.net(
    middle=nets.inner_product("ip2", "data", 10)
    + 'layer { name: "more" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" loss_weight: 0.5 }'
    'layer { name: "more" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" loss_weight: 0.25 }'
)


def test_losses_without_tops_are_all_counted(workspace: Workspace) -> None:
    """Caffe calls each of their tops "(automatic)". In one log line is the sum: 1.75 times the loss."""
    solver = nets.policy("fixed", **{**SHORT, "test_iter": 2, "test_interval": 3})
    train_on_both(workspace, solver, LOSSES_WITHOUT_TOPS)
    run = workspace.run("out")
    printed = [float(loss) for _, loss in said(run.log.read_text())[0]]
    recorded = [loss for _, loss in run.iterations().values()]
    assert recorded == pytest.approx(printed[:6], rel=1e-4)
