"""Nets that `caffe train` takes and that are unlike most: same losses here, and resumed as whole."""

from __future__ import annotations

import re
from pathlib import Path

import lmdb
import numpy as np
import pytest

from lrbench_caffe.datasets.datum import datum_bytes
from lrbench_caffe.datasets.lmdb_writer import write_lmdb
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
    workspace.caffe_log("log", "train", "--solver=solver.prototxt")
    done = workspace.train("solver.prototxt", "--out", "out", *flags).succeeded()
    ours = said(workspace.run("out").log.read_text(encoding="latin-1"))
    assert ours == said((workspace.path / "log").read_text(encoding="latin-1"))
    assert ours != ([], []), "the logs say something"
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


def test_two_weighted_layers_of_one_name_are_both_restored(workspace: Workspace) -> None:
    """From a snapshot Caffe gives the first of them the weights of both, one after the other."""
    first = nets.inner_product("ip", "data", 64)
    net = nets.net(
        middle=first + first.replace("data", "ip").replace('top: "ip"', 'top: "b"') + LAST
    )
    train_on_both(workspace, nets.policy("fixed", snapshot=3, **SHORT), net)
    workspace.train("solver.prototxt", "--out", "parts", "--until", "3").succeeded()
    workspace.train("--resume", "--out", "parts").succeeded()
    assert workspace.run("parts").iterations() == workspace.run("out").iterations()


LAST = nets.inner_product("ip2", "b", 10)
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


# -- what Caffe upgrades, reshapes and takes as bytes ----------------------------------------------

TESTED = {**SHORT, "test_iter": 2, "test_interval": 3}

OF_2014 = """
layers { name: "d" type: DUMMY_DATA top: "data" top: "label" dummy_data_param {
  num: 4 num: 4 channels: 3 channels: 1 height: 1 height: 1 width: 1 width: 1
  data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 1 } } }
layers { name: "ip" type: INNER_PRODUCT bottom: "data" top: "ip" blobs_lr: 1 blobs_lr: 2 weight_decay: 1
  weight_decay: 0 inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layers { name: "loss" type: SOFTMAX_LOSS bottom: "ip" bottom: "label" top: "loss" }
layers { name: "acc" type: ACCURACY bottom: "ip" bottom: "label" top: "acc" include { phase: TEST } }
"""

WITH_INPUT_FIELDS = """
input: "data" input_shape { dim: 4 dim: 3 } input: "label" input_shape { dim: 4 }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "acc" type: "Accuracy" bottom: "ip" bottom: "label" top: "acc" include { phase: TEST } }
"""


@pytest.mark.parametrize(
    ("net", "note"),
    [(OF_2014, "has the layers of 2014"), (WITH_INPUT_FIELDS, "has inputs as fields of the net")],
    ids=["layers", "input"],
)
def test_older_formats_train_as_with_caffe(workspace: Workspace, net: str, note: str) -> None:
    out = train_on_both(workspace, nets.policy("fixed", **TESTED), net)
    assert f"note: net.prototxt {note}" in out


def test_names_are_bytes(workspace: Workspace) -> None:
    """GBK in a comment and Latin-1 in the names of a layer and of the blobs that are measured and printed."""
    net = (
        nets.net()
        .replace('"ip2"', '"\xe9t\xe9"')
        .replace('top: "loss"', 'top: "co\xfbt"')
        .encode("latin-1")
    )
    net = "# \u5b66\u4e60\n".encode("gbk") + net
    solver = nets.policy("fixed", snapshot=3, **TESTED)
    train_on_both(workspace, solver, net)
    run = workspace.run("out")
    assert run.log.read_bytes().count(b"co\xfbt = ") == workspace.path.joinpath(
        "log"
    ).read_bytes().count(b"co\xfbt = ")
    assert all(
        b"\xe9t\xe9" in path.read_bytes()
        for path in (run.model(6), workspace.path / "tiny_iter_6.caffemodel")
    )
    workspace.train("solver.prototxt", "--out", "parts", "--until", "3").succeeded()
    workspace.train("--resume", "--out", "parts").succeeded()
    assert workspace.run("parts").iterations() == run.iterations()


def pooled(train: str, test: str) -> str:
    """A net that takes images of any size."""
    return f"""{train}{test}
layer {{ name: "c" type: "Convolution" bottom: "data" top: "c"
  convolution_param {{ num_output: 4 kernel_size: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "gap" type: "Pooling" bottom: "c" top: "gap"
  pooling_param {{ pool: AVE global_pooling: true }} }}
{nets.inner_product("ip2", "gap", 10)}{nets.ends()}"""


def test_the_test_net_may_read_other_sizes(workspace: Workspace) -> None:
    """Crops of 5 in training, whole images of 8 x 8 in tests."""
    net = pooled(
        nets.data_layer("TRAIN", transform="crop_size: 5"), nets.data_layer("TEST", batch=100)
    )
    train_on_both(workspace, nets.policy("fixed", **TESTED), net)


SEGMENTATION = """
layer { name: "data" type: "Data" top: "data" include { phase: TRAIN } transform_param { scale: 0.01 }
  data_param { source: "img" backend: LMDB batch_size: 1 } }
layer { name: "label" type: "Data" top: "label" include { phase: TRAIN }
  data_param { source: "lab" backend: LMDB batch_size: 1 } }
layer { name: "label" type: "Data" top: "label" include { phase: TEST }
  data_param { source: "lab" backend: LMDB batch_size: 1 } }
layer { name: "data" type: "Data" top: "data" include { phase: TEST } transform_param { scale: 0.01 }
  data_param { source: "img" backend: LMDB batch_size: 1 } }
layer { name: "c" type: "Convolution" bottom: "data" top: "c"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "drop" type: "Dropout" bottom: "c" top: "c" }
layer { name: "score" type: "Convolution" bottom: "c" top: "score"
  convolution_param { num_output: 3 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
layer { name: "acc" type: "Accuracy" bottom: "score" bottom: "label" top: "acc" include { phase: TEST } }
"""


def write_sizes(path: Path, channels: int, highest: int) -> None:
    """Three records of different sizes, the same ones for images and labels."""
    generator = np.random.default_rng(channels)
    path.mkdir()
    with (
        lmdb.open(str(path), map_size=1 << 20) as environment,
        environment.begin(write=True) as transaction,
    ):
        for number, (height, width) in enumerate([(6, 9), (8, 7), (5, 5)]):
            pixels = generator.integers(0, highest, (channels, height, width)).astype(np.uint8)
            transaction.put(b"%04d" % number, datum_bytes(pixels, 0))


def test_images_of_different_sizes(workspace: Workspace) -> None:
    """As FCN trains; Dropout draws as many numbers as the image is large, also when a run is resumed."""
    write_sizes(workspace.path / "img", 3, 256)
    write_sizes(workspace.path / "lab", 1, 3)
    solver = nets.policy("fixed", snapshot=4, **{**TESTED, "max_iter": 9})
    train_on_both(workspace, solver, SEGMENTATION)
    workspace.train("solver.prototxt", "--out", "parts", "--until", "4").succeeded()
    workspace.train("--resume", "--out", "parts").succeeded()
    whole, parts = workspace.run("out"), workspace.run("parts")
    assert parts.iterations() == whole.iterations()
    assert_same_weights(parts.model(9), whole.model(9))


ODD = {
    "test_iter": {"test_iter": 0},
    "momentum": {"momentum": 1},
    "base_lr": {"base_lr": -0.01},
    "max_iter": {"max_iter": None},
    "snapshot": {"snapshot": -2},
}


@pytest.mark.parametrize("field", ODD)
def test_odd_solvers_train_as_with_caffe(workspace: Workspace, field: str) -> None:
    train_on_both(workspace, nets.policy("fixed", **{**TESTED, **ODD[field]}), nets.net())


def test_a_net_without_parameters_is_resumed(workspace: Workspace) -> None:
    """Its solver states have no history."""
    net = nets.net(
        middle=" ", last='layer { name: "s" type: "Silence" bottom: "data" bottom: "label" }'
    )
    train_on_both(workspace, nets.policy("fixed", **SHORT), net)
    workspace.train("solver.prototxt", "--out", "parts", "--until", "3").succeeded()
    workspace.train("--resume", "--out", "parts").succeeded()
    assert len(workspace.run("parts").iterations()) == 6
