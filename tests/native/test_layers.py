"""The fast layers compute what Caffe's own do: random nets of one layer, in Caffe's own Python."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from lrbench_caffe.native.library import (
    WIDTHS,
    can_run,
    compiler_command,
    headers_dir,
)
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


def in_caffe(library: Path, *arguments: object, script: str = "compare.py") -> list[float]:
    """What compare.py or another of these scripts prints."""
    command = [
        *find_caffe_python(None).command,
        str(HERE / script),
        worker.__file__,
        str(library),
    ]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        env={**os.environ, "GLOG_minloglevel": "2", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [float(word) for word in done.stdout.split()]


@pytest.mark.parametrize(
    "kind",
    [
        "Convolution",
        "Depthwise",
        "InnerProduct",
        "Pooling",
        "LRN",
        "ReLU",
        "BatchNorm",
        "Scale",
        "Eltwise",
    ],
)
def test_a_layer_is_caffes_own(each_library, kind):
    nets, worst = in_caffe(each_library, "layers", kind, NETS, 1)
    assert nets == NETS
    assert worst <= 2e-5  # of the largest value; pooling, ReLU and Eltwise are compared bit by bit


@pytest.mark.ci
def test_on_two_threads_a_layer_is_caffes_own(each_library):
    for kind in ("Convolution", "Depthwise", "BatchNorm"):
        assert in_caffe(each_library, "threads", kind, 40, 7)[1] <= 2e-5


def test_with_the_kernels_that_are_chosen_a_layer_is_caffes_own(each_library):
    """Above, a convolution has all of its passes by the same kernels."""
    assert in_caffe(each_library, "chosen", "Convolution", 120, 9)[1] <= 2e-5


def test_a_batch_without_images_passes(each_library):
    assert in_caffe(each_library, "empty") == [0]


def check_trainings(library: Path, nets: int, seed: int) -> None:
    """Five updates by random SGD and Nesterov solvers: the parameters, and the momentum of the snapshot."""
    number, median, largest = in_caffe(library, "solvers", nets, seed)
    # The largest: rounding can move a value across a ReLU's zero, which one of these small nets
    # notices.
    assert number == nets and median <= 1e-5 and largest <= 2e-2
    assert in_caffe(library, "updates", nets, seed)[2] <= 1e-6


def test_fused_layers_and_updates_are_caffes_own(each_library):
    check_trainings(each_library, 40, 1)


def check_test_passes(library: Path, nets: int, seed: int, threads: int) -> None:
    """Test nets, whose layers are folded and fused, with weights that change between the passes."""
    script = "compare_tests.py"
    number, blobs, worst = in_caffe(library, nets, seed, threads, script=script)
    assert number == nets and blobs > 40 * nets  # all blobs after each of four changes
    assert worst <= 1e-4  # of a blob's largest value


@pytest.mark.ci
@pytest.mark.parametrize("threads", [1, 2])
def test_test_passes_are_caffes_own(each_library, threads):
    check_test_passes(each_library, 40, threads, threads)


@pytest.mark.slow
def test_many_test_passes_are_caffes_own(each_library):
    check_test_passes(each_library, 500, 3, 1)


@pytest.mark.slow
def test_many_trainings_are_caffes_own(each_library):
    check_trainings(each_library, 150, 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3, 4])
@pytest.mark.parametrize(
    "kind", ["Convolution", "Depthwise", "Pooling", "LRN", "BatchNorm", "Scale", "Eltwise"]
)
def test_many_layers_are_caffes_own(each_library, kind, seed):
    assert in_caffe(each_library, "layers", kind, 500, seed)[1] <= 2e-5


def test_gradients_are_the_derivatives(each_library):
    nets, worst = in_caffe(each_library, "gradients", 75, 1)
    assert nets == 75
    assert worst < 2e-2  # float32 differences


def test_memory_does_not_grow(each_library, tmp_path):
    solver = tmp_path / "solver.prototxt"
    solver.write_text(SMALL_SOLVER)
    (grown,) = in_caffe(each_library, "memory", solver, 2000)
    assert grown < 1024  # KB


def test_the_library_needs_nothing_newer_than_debian_11(each_library):
    for name, newest in ((rb"GLIBCXX_3\.4\.(\d+)", 28), (rb"GLIBC_2\.(\d+)", 31)):
        versions = [int(number) for number in re.findall(name, each_library.read_bytes())]
        assert versions and max(versions) <= newest


@pytest.mark.ci
@pytest.mark.parametrize("width", WIDTHS)
def test_the_compiler_has_nothing_to_say(compiler, tmp_path, width):
    if can_run(width):
        pytest.skip("the tests with sanitizers compile the same sources, with -Werror")
    if not headers_dir().is_dir():
        pytest.skip("there are no headers of Caffe")
    command = compiler_command(compiler, headers_dir(), tmp_path / "nothing.so", width)
    done = subprocess.run([*command, "-fsyntax-only", "-Werror"], capture_output=True, text=True)
    assert (done.stderr, done.returncode) == ("", 0)
