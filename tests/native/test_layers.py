"""The fast layers compute what Caffe's own do: random nets of one layer, in Caffe's own Python."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from lrbench_caffe.native.library import SOURCES
from lrbench_caffe.runtime import worker
from lrbench_caffe.runtime.locate import find_caffe_python

HERE = Path(__file__).parent
NETS = 120

SMALL_SOLVER = """
net_param {
    layer {
        name: "data" type: "DummyData" top: "data" top: "label"
        dummy_data_param {
            shape { dim: 2 dim: 3 dim: 9 dim: 9 } data_filler { type: "gaussian" }
            shape { dim: 2 } data_filler { type: "constant" value: 1 }
        }
    }
    layer {
        name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 6 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } }
    }
    layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
    layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
    layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
    layer {
        name: "pool" type: "Pooling" bottom: "conv" top: "pool"
        pooling_param { kernel_size: 3 stride: 2 }
    }
    layer {
        name: "conv2" type: "Convolution" bottom: "pool" top: "conv2"
        convolution_param { num_output: 6 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } }
    }
    layer { name: "sum" type: "Eltwise" bottom: "pool" bottom: "conv2" top: "sum" }
    layer { name: "norm" type: "LRN" bottom: "sum" top: "norm" }
    layer {
        name: "pool2" type: "Pooling" bottom: "norm" top: "pool2"
        pooling_param { kernel_size: 3 stride: 2 pool: AVE }
    }
    layer {
        name: "ip" type: "InnerProduct" bottom: "pool2" top: "ip"
        inner_product_param { num_output: 2 weight_filler { type: "xavier" } }
    }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
}
base_lr: 0.001 lr_policy: "fixed" max_iter: 100000 solver_mode: CPU random_seed: 1
"""


def in_caffe(library: Path, *arguments: object) -> list[float]:
    """What compare.py prints."""
    command = [*find_caffe_python(None).command, str(HERE / "compare.py"), worker.__file__, str(library)]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        env={**os.environ, "GLOG_minloglevel": "2", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [float(word) for word in done.stdout.split()]


@pytest.mark.parametrize("kind", ["Convolution", "Pooling", "LRN", "ReLU", "BatchNorm", "Scale", "Eltwise"])
def test_a_layer_is_caffes_own(library, kind):
    nets, worst = in_caffe(library, "layers", kind, NETS, 1)
    assert nets == NETS
    assert worst <= 2e-5  # of the largest value; pooling, ReLU and Eltwise are compared bit by bit


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3, 4])
@pytest.mark.parametrize("kind", ["Convolution", "Pooling", "LRN", "BatchNorm", "Scale", "Eltwise"])
def test_many_layers_are_caffes_own(library, kind, seed):
    assert in_caffe(library, "layers", kind, 500, seed)[1] <= 2e-5


def test_gradients_are_the_derivatives(library):
    nets, worst = in_caffe(library, "gradients", 60, 1)
    assert nets == 60
    assert worst < 2e-2  # float32 differences


def test_memory_does_not_grow(library, tmp_path):
    solver = tmp_path / "solver.prototxt"
    solver.write_text(SMALL_SOLVER)
    (grown,) = in_caffe(library, "memory", solver, 2000)
    assert grown < 1024  # KB


def test_the_library_needs_nothing_newer_than_debian_11(library):
    for name, newest in ((rb"GLIBCXX_3\.4\.(\d+)", 28), (rb"GLIBC_2\.(\d+)", 31)):
        versions = [int(number) for number in re.findall(name, library.read_bytes())]
        assert versions and max(versions) <= newest


def test_the_kernel_by_itself_with_sanitizers(compiler, tmp_path):
    """Without Caffe, against plain loops: buffers of exact size show every step too far."""
    program = tmp_path / "convolution_test"
    flags = ["-std=c++17", "-O1", "-mavx2", "-mfma", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
    flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-I", str(SOURCES)]
    subprocess.run([compiler, *flags, str(HERE / "convolution_test.cpp"), "-o", str(program)], check=True)
    done = subprocess.run([str(program), "60", "5"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
