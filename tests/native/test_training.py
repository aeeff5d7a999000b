"""Trainings with fast layers: which ones a run uses, what it says, and that it stays the same run."""

from __future__ import annotations

import json
import os
import signal
import sys

import pytest

from lrbench_caffe.errors import InputError
from lrbench_caffe.native import library as native
from lrbench_caffe.native.library import find_library
from lrbench_caffe.runtime import locate
from lrbench_caffe.runtime.info import caffe_info
from lrbench_caffe.runtime.locate import find_caffe_python
from lrbench_caffe.setup.findings import layers_finding
from lrbench_caffe.training.settings import choose_layers, choose_threads
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
    # Not folder.train, which adds --layers stock.
    command = [
        sys.executable,
        "-m",
        "lrbench_caffe.train",
        "solver.prototxt",
        "--no-db",
        "--out",
        "fast",
    ]
    folder.command(command).succeeded()
    folder.train("solver.prototxt", "--layers", "stock", "--out", "stock").succeeded()
    assert (layers_of(folder.run("fast")), layers_of(folder.run("stock"))) == ("fast", "stock")
    assert 0 < difference(folder.run("fast").model(100), folder.run("stock").model(100)) < 1e-3


def test_equal_runs_and_resumed_ones_have_equal_bits(folder):
    folder.train("solver.prototxt", "--layers", "fast", "--out", "whole").succeeded()
    folder.train(
        "solver.prototxt", "--layers", "fast", "--max-iter", "100", "--out", "half"
    ).succeeded()
    assert_same_weights(folder.run("whole").model(100), folder.run("half").model(100))
    folder.train("solver.prototxt", "--resume", "--max-iter", "200", "--out", "half").succeeded()
    assert layers_of(folder.run("half")) == "fast"
    assert_same_weights(folder.run("whole").model(200), folder.run("half").model(200))


def test_a_run_resumed_with_other_layers_says_so(folder):
    def layers():
        return json.loads((folder.run("run").path / "run.json").read_text())["record"]["layers"]

    database = ("--db", "runs.sqlite", "--out", "run")
    folder.train("solver.prototxt", "--layers", "fast", "--max-iter", "20", *database).succeeded()
    folder.train(
        "solver.prototxt", "--resume", "--layers", "stock", *database
    ).succeeded()  # trains nothing
    assert layers_of(folder.run("run")) == "stock"
    assert layers() == "fast"
    folder.train(
        "solver.prototxt", "--resume", "--layers", "stock", "--max-iter", "40", *database
    ).succeeded()
    assert layers() == "fast, then stock"
    sessions = json.loads((folder.run("run").path / "run.json").read_text())["sessions"]
    assert [session["layers"] for session in sessions] == ["fast", "stock", "stock"]


def test_threads_give_the_same_bits_again_and_a_resumed_run_keeps_them(folder):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core")
    flags = ("solver.prototxt", "--layers", "fast", "--threads", "2")
    said = folder.train(*flags, "--out", "whole").succeeded().out
    assert "the CPU, fast layers on 2 threads" in said
    folder.train(*flags, "--max-iter", "100", "--out", "half").succeeded()
    assert_same_weights(folder.run("whole").model(100), folder.run("half").model(100))
    folder.train("solver.prototxt", "--resume", "--max-iter", "200", "--out", "half").succeeded()
    assert json.loads((folder.run("half").path / "run.json").read_text())["threads"] == 2
    assert_same_weights(folder.run("whole").model(200), folder.run("half").model(200))


def test_threads_that_cannot_be_had(folder, monkeypatch):
    cores = len(os.sched_getaffinity(0))
    assert choose_threads(cores, "fast") == cores
    assert choose_threads(1, "stock") == 1
    for wrong in (0, -1, cores + 1):
        with pytest.raises(
            InputError, match=rf"^threads: {wrong}; allowed: 1 to {cores}, the cores"
        ):
            choose_threads(wrong, "fast")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    with pytest.raises(InputError, match="^threads 2: only the fast layers use several cores; "):
        choose_threads(2, "stock")


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("LRN", "the fast LRN layer's output differs from Caffe's by"),
        ("SGD", "weights trained with the fast layers differ from Caffe's by"),
        (str(int(signal.SIGSEGV)), "their check ended by signal 11"),
        (str(int(signal.SIGILL)), "their check ended by signal 4"),
        (str(int(signal.SIGABRT)), "their check ended by signal 6"),
    ],
)
def test_a_failed_check_leaves_caffes_own_layers_loudly(
    folder, faulty, monkeypatch, fault, problem
):
    monkeypatch.setitem(folder.environment, "XDG_CACHE_HOME", str(faulty))
    monkeypatch.setitem(folder.environment, "LRBENCH_FAULT", fault)
    flags = ("solver.prototxt", "--max-iter", "20")
    said = folder.train(*flags, "--layers", "fast", "--out", "faulty").succeeded().out
    assert f"WARNING: Caffe's own layers instead of the fast ones: {problem}" in said
    assert (
        "(run tools/setup; when resumed, this run keeps Caffe's own unless --layers fast is given)"
        in said
    )
    assert layers_of(folder.run("faulty")) == "stock"
    folder.train(*flags, "--layers", "stock", "--out", "stock").succeeded()
    assert_same_weights(folder.run("faulty").model(20), folder.run("stock").model(20))


def test_the_check_runs_on_as_many_threads_as_the_training(folder, faulty, monkeypatch):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core")
    monkeypatch.setitem(folder.environment, "XDG_CACHE_HOME", str(faulty))
    monkeypatch.setitem(folder.environment, "LRBENCH_FAULT", "2 threads")
    flags = ("solver.prototxt", "--max-iter", "20", "--layers", "fast")
    said = folder.train(*flags, "--threads", "2", "--out", "two").succeeded().out
    assert (
        "WARNING: Caffe's own layers instead of the fast ones: the fast layers work on 2 threads"
        in said
    )
    assert "WARNING" not in folder.train(*flags, "--out", "one").succeeded().out


def test_doctor_tells_a_library_that_fails(library, faulty, monkeypatch):
    python = find_caffe_python(None)
    info = caffe_info(python)
    finding = layers_finding(python, info)
    assert finding.value.startswith("fast (") and finding.remedy is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(faulty))
    monkeypatch.setenv("LRBENCH_FAULT", "LRN")
    finding = layers_finding(python, info)
    assert "fail: the fast LRN layer's output differs from Caffe's by" in finding.value
    assert finding.remedy == "run tools/setup"


def test_doctor_tells_a_damaged_library(library, monkeypatch, tmp_path):
    monkeypatch.setattr(native, "libraries_dir", lambda: tmp_path)
    native.library_path().write_bytes(library.read_bytes()[:1000])
    python = find_caffe_python(None)
    finding = layers_finding(python, caffe_info(python))
    assert ") fail: " in finding.value and finding.remedy == "run tools/setup"


def test_a_compiler_may_have_options(tmp_path):
    command = native.compiler_command("g++ -m64 '-Da b'", tmp_path, tmp_path / "library.so")
    assert command[:4] == ["g++", "-m64", "-Da b", native.FLAGS[0]]


def test_where_there_are_no_fast_layers(library, tmp_path, monkeypatch):
    info = caffe_info(find_caffe_python(None))
    assert choose_layers("auto", None, info) == choose_layers("fast", None, info) == "fast"
    assert choose_layers("stock", None, info) == choose_layers("auto", 0, info) == "stock"
    with pytest.raises(
        InputError, match="^layers fast: only for the CPU; the training is on GPU 0$"
    ):
        choose_layers("fast", 0, info)

    assert "not the one that tools/setup makes" in find_library(str(tmp_path)).why
    monkeypatch.setattr(native, "libraries_dir", lambda: tmp_path)
    assert choose_layers("auto", None, info) == "stock"
    with pytest.raises(
        InputError, match=r"^layers fast: they are not built .* \(run tools/setup; it needs g"
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
