"""Trainings with fast layers: which ones a run uses, what it says, and that it stays the same run."""

from __future__ import annotations

import json

import pytest

from lrbench_caffe.errors import InputError
from lrbench_caffe.native import library as native
from lrbench_caffe.native.library import find_library
from lrbench_caffe.runtime import locate
from lrbench_caffe.runtime.info import caffe_info
from lrbench_caffe.runtime.locate import find_caffe_python
from lrbench_caffe.training.settings import choose_layers
from tests.caffe import harness
from tests.caffe.harness import assert_same_weights, difference

NET = """
layer {
    name: "data" type: "Data" top: "data" top: "label"
    transform_param { scale: 0.00390625 }
    data_param { source: "data/digits_train_lmdb" batch_size: 50 backend: LMDB }
}
layer {
    name: "conv" type: "Convolution" bottom: "data" top: "conv"
    convolution_param { num_output: 12 kernel_size: 3 weight_filler { type: "xavier" } }
}
layer {
    name: "pool" type: "Pooling" bottom: "conv" top: "pool"
    pooling_param { kernel_size: 2 stride: 2 }
}
layer { name: "relu" type: "ReLU" bottom: "pool" top: "pool" }
layer { name: "norm" type: "LRN" bottom: "pool" top: "norm" }
layer {
    name: "conv2" type: "Convolution" bottom: "norm" top: "conv2"
    convolution_param { num_output: 16 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } }
}
layer {
    name: "ip" type: "InnerProduct" bottom: "conv2" top: "ip"
    inner_product_param { num_output: 10 weight_filler { type: "xavier" } }
}
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = """
net: "net.prototxt" base_lr: 0.02 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.0005
max_iter: 200 snapshot: 100 snapshot_prefix: "s" random_seed: 3
"""


@pytest.fixture
def folder(workspace, library):
    workspace.write("net.prototxt", NET)
    workspace.write("solver.prototxt", SOLVER)
    return workspace


def layers_of(run) -> str:
    return json.loads((run.path / "run.json").read_text())["layers"]


def test_fast_is_the_default_and_close_to_stock(folder):
    # harness adds --layers stock, unless told otherwise
    folder.train("solver.prototxt", "--layers", "auto", "--out", "fast").succeeded()
    folder.train("solver.prototxt", "--layers", "stock", "--out", "stock").succeeded()
    assert (layers_of(folder.run("fast")), layers_of(folder.run("stock"))) == ("fast", "stock")
    assert 0 < difference(folder.run("fast").model(100), folder.run("stock").model(100)) < 1e-3


def test_equal_runs_and_resumed_ones_have_equal_bits(folder):
    folder.train("solver.prototxt", "--layers", "fast", "--out", "whole").succeeded()
    folder.train("solver.prototxt", "--layers", "fast", "--max-iter", "100", "--out", "half").succeeded()
    assert_same_weights(folder.run("whole").model(100), folder.run("half").model(100))
    folder.train("solver.prototxt", "--resume", "--max-iter", "200", "--out", "half").succeeded()
    assert layers_of(folder.run("half")) == "fast"
    assert_same_weights(folder.run("whole").model(200), folder.run("half").model(200))


def test_a_failed_check_leaves_caffes_own_layers_loudly(folder, monkeypatch):
    environment = {**harness.ENVIRONMENT, "LRBENCH_TEST_LAYER_FAULT": "LRN"}
    monkeypatch.setattr(harness, "ENVIRONMENT", environment)
    flags = ("solver.prototxt", "--max-iter", "20")
    said = folder.train(*flags, "--layers", "fast", "--out", "faulty").succeeded().out
    assert "WARNING: Caffe's own layers instead of the fast ones: the fast LRN layer's output differs" in said
    assert layers_of(folder.run("faulty")) == "stock"
    folder.train(*flags, "--layers", "stock", "--out", "stock").succeeded()
    assert_same_weights(folder.run("faulty").model(20), folder.run("stock").model(20))


def test_where_there_are_no_fast_layers(library, tmp_path, monkeypatch):
    info = caffe_info(find_caffe_python(None))
    assert choose_layers("auto", None, info) == choose_layers("fast", None, info) == "fast"
    assert choose_layers("stock", None, info) == choose_layers("auto", 0, info) == "stock"
    with pytest.raises(InputError, match="^--layers fast: they are for the CPU; the training is on GPU 0$"):
        choose_layers("fast", 0, info)

    assert "not the one that tools/setup makes" in find_library(str(tmp_path)).why
    monkeypatch.setattr(native, "libraries_dir", lambda: tmp_path)
    assert choose_layers("auto", None, info) == "stock"
    with pytest.raises(
        InputError, match=r"^--layers fast: they are not built .* \(run tools/setup; it takes g"
    ):
        choose_layers("fast", None, info)
    monkeypatch.setattr(native, "CPU_FEATURES", ("avx2", "avx9"))
    assert find_library(info.path).why == "this CPU has no AVX9"


def test_the_library_is_of_these_sources_and_this_caffe(library, monkeypatch, tmp_path):
    assert native.library_path() == library
    monkeypatch.setattr(native, "FLAGS", [*native.FLAGS, "-O0"])
    assert native.library_path() != library
    monkeypatch.undo()
    monkeypatch.setattr(locate, "runtime_dir", lambda: tmp_path)
    assert native.library_path() != library
