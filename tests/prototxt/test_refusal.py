"""What Caffe refuses, in the terms of the user's files. Its words are those of BVLC's Caffe."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from lrbench_caffe.errors import InputError
from lrbench_caffe.prototxt.refusal import (
    check_shared,
    explain,
    open_solver,
    with_data,
    with_layers,
)
from lrbench_caffe.prototxt.solver import Solver, TestNet
from lrbench_caffe.runtime.failures import Death, OpenFailure, Refusal
from lrbench_caffe.runtime.replies import LayerParameters

NET = """
layer { name: "d" type: "Data" top: "x" top: "y" }
layer { name: "c" type: "Convolution" bottom: "x" top: "c" param { lr_mult: 1 }
        convolution_param { weight_filler { type: "xaviert" } bias_filler { type: "he" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "c" bottom: "y" top: "loss" }
"""
COUNT = "layer.hpp:349] Check failed: "


@pytest.mark.parametrize(
    ("layers", "words", "expected"),
    [
        (
            ["d", "c"],
            COUNT
            + "MinBottomBlobs() <= bottom.size() (1 vs. 0) Convolution Layer takes at least 1 bottom "
            "blob(s) as input.",
            "bottom is given 0 times; allowed: 1 or more",
        ),
        (
            ["d", "c"],
            COUNT
            + "MaxTopBlobs() >= top.size() (2 vs. 3) Convolution Layer produces at most 2 top blob(s) "
            "as output.",
            "top is given 3 times; allowed: 2 at most",
        ),
        (
            ["d", "c"],
            COUNT
            + "ExactNumTopBlobs() == top.size() (1 vs. 2) Convolution Layer produces 1 top blob(s) as "
            "output.",
            "top is given 2 times; allowed: 1",
        ),
        (
            ["d", "c"],
            COUNT
            + "bottom.size() == top.size() (1 vs. 2) Convolution Layer produces one top blob as output "
            "for each bottom blob input.",
            "has 1 bottoms and 2 tops; allowed: as many tops as bottoms",
        ),
        (
            ["d", "c"],
            "filler.hpp:294] Check failed: false Unknown filler name: xaviert",
            "convolution_param.weight_filler.type: unknown filler 'xaviert'; did you mean 'xavier'?; BVLC "
            "Caffe has bilinear, constant, gaussian, msra, positive_unitball, uniform, xavier",
        ),
        (
            ["d", "c"],
            "filler.hpp:294] Check failed: false Unknown filler name: he",
            "convolution_param.bias_filler.type: unknown filler 'he'; BVLC Caffe has bilinear, constant, "
            "gaussian, msra, positive_unitball, uniform, xavier",
        ),
        # The softmax within the loss has its own numbers, which say nothing of the loss.
        (
            ["d", "c", "loss"],
            COUNT
            + "ExactNumTopBlobs() == top.size() (1 vs. 2) Softmax Layer produces 1 top blob(s)",
            "Caffe refuses it: layer.hpp:349] Check failed: ExactNumTopBlobs() == top.size() (1 vs. 2) "
            "Softmax Layer produces 1 top blob(s)",
        ),
    ],
)
def test_the_field_and_what_is_allowed(net_of, layers, words, expected):
    solver = Solver(Path("solver.prototxt"), None, {}, net_of(NET, "TRAIN"), None, [])
    types = {"d": "Data", "c": "Convolution", "loss": "SoftmaxWithLoss"}
    where = f"net.prototxt: layer {layers[-1]!r} ({types[layers[-1]]}) of the training net"
    assert str(explain(solver, Refusal(words, 0, layers))) == f"{where}: {expected}"


def test_where_no_layer_is_to_blame(net_of):
    solver = Solver(Path("solver.prototxt"), None, {}, net_of(NET, "TRAIN"), None, [])
    assert str(explain(solver, Refusal("x", None, []))) == "solver.prototxt: Caffe refuses it: x"
    assert (
        str(explain(solver, Refusal("x", 0, [])))
        == "net.prototxt: the training net: Caffe refuses it: x"
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "ended: base_conv_layer.hpp:9] x",
            "net.prototxt: layer 'c' (Convolution): ended: base_conv_layer.hpp:9] x",
        ),
        (
            "ended: cudnn_conv_layer.cu:9] x",
            "net.prototxt: layer 'c' (Convolution): ended: cudnn_conv_layer.cu:9] x",
        ),
        (
            "ended: base_data_layer.cpp:9] x",
            "net.prototxt: layer 'd' (Data): ended: base_data_layer.cpp:9] x",
        ),
        (
            "ended: softmax_loss_layer.cpp:9] Check failed: x",
            "net.prototxt: layer 'loss' (SoftmaxWithLoss): ended: softmax_loss_layer.cpp:9] Check failed: x",
        ),
        (
            "ended: pooling_layer.cpp:9] Not Implemented Yet",
            "net.prototxt: layer 'p' or 'q' (Pooling): ended: pooling_layer.cpp:9] Not "
            "Implemented Yet (this Caffe cannot compute this, or has no gradient for it)",
        ),
        ("the loss is nan", "the loss is nan"),
    ],
)
def test_the_layers_that_a_death_in_training_is_about(net_of, words, expected):
    pooling = """
        layer { name: "p" type: "Pooling" bottom: "x" top: "p" }
        layer { name: "q" type: "Pooling" bottom: "p" top: "q" }
    """
    solver = Solver(Path("solver.prototxt"), None, {}, net_of(NET + pooling, "TRAIN"), None, [])
    assert with_layers(solver, words) == expected


@pytest.mark.parametrize(
    ("source", "layer"),
    [
        ("conv_layer.cpp", "'c' (Convolution)"),
        ("base_conv_layer.hpp", "'c' (Convolution)"),
        ("cudnn_conv_layer.cu", "'c' (Convolution)"),
        ("base_data_layer.cpp", "'d' (Data)"),
        ("deconv_layer.cpp", None),  # the net has none
        ("blob.cpp", None),
    ],
)
def test_the_layer_that_a_source_is_of(net_of, source, layer):
    solver = Solver(Path("solver.prototxt"), None, {}, net_of(NET, "TRAIN"), None, [])
    words = f"ended: {source}:9] x"
    expected = f"net.prototxt: layer {layer}: {words}" if layer else words
    assert with_layers(solver, words) == expected


def test_the_layer_that_is_named_reads_the_damaged_lmdb(net_of, write_images):
    """The training net's layer reads in its own thread while Caffe makes the test net."""

    class DyingWorker:
        def open(self, request: object) -> None:
            death = Death("Caffe was killed by SIGSEGV", signal.SIGSEGV, "")
            raise OpenFailure(str(death), 1, ["digits"]) from death

    def reading(name: str, place: Path) -> str:
        source = f'data_param {{ source: "{place}" backend: LMDB }}'
        return NET.replace('name: "d" type: "Data"', f'name: "{name}" type: "Data" {source}')

    train, test = write_images("tr", 200, (1, 8, 8)), write_images("te", 20, (1, 8, 8))
    nets = [net_of(reading("images", train), "TRAIN"), net_of(reading("digits", test))]
    solver = Solver(Path("solver.prototxt"), None, {}, nets[0], None, [TestNet(nets[1], None, 1)])
    os.truncate(train / "data.mdb", 3 * 4096)
    with pytest.raises(InputError) as caught:
        open_solver(DyingWorker(), solver, None)
    assert str(caught.value).startswith(
        "net.prototxt: layer 'images' (Data) of the training net: Caffe crashed (SIGSEGV): "
        f"it read {train}: truncated, "
    )


@pytest.mark.parametrize(
    ("number", "words", "of_data"),
    [
        (signal.SIGABRT, "data_transformer.cpp:168] Check failed: datum_height == height (9 vs. 8)", True),
        (signal.SIGABRT, "image_data_layer.cpp:58] Check failed: cv_img.data Could not load x.png", True),
        (signal.SIGABRT, "blob.cpp:32] Check failed: shape[i] >= 0", False),
        (signal.SIGABRT, "io.cpp:66] Check failed: proto.SerializeToOstream(&output)", False),
        (signal.SIGABRT, "db_lmdb.hpp:15] Check failed: mdb_status == 0 Cannot allocate memory", False),
        (signal.SIGABRT, "db_lmdb.hpp:15] Check failed: mdb_status == 0 Input/output error", False),
        (signal.SIGKILL, "", False),
        (signal.SIGSEGV, "", False),  # as far as is known
    ],
)  # fmt: skip
def test_whether_a_death_is_the_datas_fault(net_of, write_images, number, words, of_data):
    """And where the LMDB is damaged, a crash is."""
    place = write_images("digits", 200, (1, 8, 8))
    text = NET.replace(
        'type: "Data"', f'type: "Data" data_param {{ source: "{place}" backend: LMDB }}', 1
    )
    solver = Solver(Path("solver.prototxt"), None, {}, net_of(text, "TRAIN"), None, [])
    death = Death(f"Caffe was killed by {number.name}: {words}", number, words)
    said, found = with_data(solver, death)
    assert found == of_data
    if of_data:
        assert said == f"Caffe refuses the data: {words}; no damage was found in {place}"
    os.truncate(place / "data.mdb", 3 * 4096)
    said, found = with_data(solver, death)
    assert found == (of_data or number == signal.SIGSEGV)
    if number == signal.SIGSEGV:
        assert said.startswith(
            f"Caffe crashed (SIGSEGV): it read {place}: truncated, data.mdb has 12,288 bytes"
        )


@pytest.mark.parametrize(
    ("train", "test", "words"),
    [
        ([("c", [(4, 1, 3, 3), (4,)])], [("c", [(4, 1, 3, 3), (4,)])], None),
        ([("c", [(4, 64)])], [("other", [(4, 81)])], None),
        (
            [("c", [(4, 64), (4,)])],
            [("x", []), ("c", [(4, 81), (4,)])],
            "layer 'c' has parameters of 4 x 64 and 4 in the training net and of 4 x 81 and 4 in "
            "the test net #0, which has the same weights",
        ),
        (
            [("c", [(4, 64)])],
            [("c", [])],
            "of 4 x 64 in the training net and of no size in the test net #0",
        ),
        # Of layers of one name in the test net, Caffe gives the weights of all to the first.
        (
            [("c", [(4,)]), ("c", [(5,)])],
            [("c", [(4,)]), ("c", [(5,)])],
            "of 5 in the training net and of 4",
        ),
    ],
)
def test_a_test_net_that_cannot_have_the_weights(net_of, train, test, words):
    """Net::ShareTrainedLayersWith: the first layer of the name, as many parameters, the same shapes."""
    tests = [TestNet(net_of(NET), None, 1)]
    solver = Solver(Path("solver.prototxt"), None, {}, net_of(NET, "TRAIN"), None, tests)
    nets = [
        [LayerParameters(name, tuple(range(len(shapes))), tuple(shapes)) for name, shapes in net]
        for net in (train, test)
    ]
    if words is None:
        check_shared(solver, nets)
        return
    with pytest.raises(InputError) as caught:
        check_shared(solver, nets)
    assert words in str(caught.value)
