"""Trainings with fast layers: which ones a run uses, what it says, and that it stays the same run."""

from __future__ import annotations

import json
import os
import re
import signal
import sys

import pytest

from lrbench_caffe.errors import InputError
from lrbench_caffe.native import library as native
from lrbench_caffe.native.library import find_library
from lrbench_caffe.runs.runjson import checksum
from lrbench_caffe.runtime import blas, locate
from lrbench_caffe.runtime.cpu import this_cpu
from lrbench_caffe.runtime.info import caffe_info
from lrbench_caffe.runtime.locate import find_caffe_python
from lrbench_caffe.setup.findings import kernels_finding, layers_finding
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


@pytest.mark.ci
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


@pytest.mark.ci
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


def run_json(run) -> dict:
    return json.loads((run.path / "run.json").read_text())


def own_and_best_kernels() -> tuple[str, str]:
    """What OpenBLAS chooses by itself on this CPU, and what is best here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(blas.VARIABLE, raising=False)
        own = caffe_info(find_caffe_python(None)).blas_kernels
    assert own is not None
    return own, (blas.better_kernels(own, this_cpu()) or [own])[0]


@pytest.fixture
def without_kernels(folder, monkeypatch):
    """The folder, where nobody has named OpenBLAS's kernels."""
    monkeypatch.delenv(blas.VARIABLE, raising=False)
    # Empty would be another thing: OpenBLAS would take the CPU for one that it does not know.
    monkeypatch.delitem(folder.environment, blas.VARIABLE, raising=False)
    return folder


def test_fast_layers_come_with_the_best_kernels_of_the_blas(without_kernels):
    folder, (own, best) = without_kernels, own_and_best_kernels()
    flags = ("solver.prototxt", "--max-iter", "20")
    folder.train(*flags, "--layers", "fast", "--out", "fast").succeeded()
    folder.train(*flags, "--layers", "stock", "--out", "stock").succeeded()
    fast, stock = run_json(folder.run("fast")), run_json(folder.run("stock"))
    assert (fast["blas_kernels"], stock["blas_kernels"]) == (best, own)
    assert fast["sessions"][0]["blas_kernels"] == best


@pytest.mark.ci
def test_kernels_that_the_user_names_stay(folder, monkeypatch):
    monkeypatch.setitem(folder.environment, blas.VARIABLE, "Nehalem")
    flags = ("solver.prototxt", "--layers", "fast", "--max-iter", "20", "--out", "run")
    folder.train(*flags).succeeded()
    assert run_json(folder.run("run"))["blas_kernels"] == "Nehalem"


@pytest.mark.ci
def test_a_resumed_run_keeps_its_kernels_and_bits(without_kernels, monkeypatch):
    folder = without_kernels
    flags = ("solver.prototxt", "--layers", "fast")
    monkeypatch.setitem(folder.environment, blas.VARIABLE, "Nehalem")
    folder.train(*flags, "--out", "whole").succeeded()
    folder.train(*flags, "--max-iter", "100", "--out", "half").succeeded()
    monkeypatch.delitem(folder.environment, blas.VARIABLE)
    said = folder.train(
        "solver.prototxt", "--resume", "--max-iter", "200", "--out", "half"
    ).succeeded()
    assert "kernels" not in said.out
    assert [s["blas_kernels"] for s in run_json(folder.run("half"))["sessions"]] == ["Nehalem"] * 2
    assert_same_weights(folder.run("whole").model(200), folder.run("half").model(200))


def forget(run, *names: str) -> None:
    """Write run.json as a version wrote it that did not have these fields yet."""
    record = run_json(run)
    for part in (record, *record["sessions"]):
        for name in names:
            part.pop(name, None)
    record.pop("check")
    (run.path / "run.json").write_text(json.dumps({**record, "check": checksum(record)}))


@pytest.mark.ci
def test_a_run_from_before_kernels_were_chosen_keeps_openblass_own(without_kernels, monkeypatch):
    folder, (own, _) = without_kernels, own_and_best_kernels()
    flags = ("solver.prototxt", "--layers", "fast")
    monkeypatch.setitem(folder.environment, blas.VARIABLE, own)
    folder.train(*flags, "--out", "whole").succeeded()
    folder.train(*flags, "--max-iter", "100", "--out", "half").succeeded()
    forget(folder.run("half"), "blas_kernels")
    monkeypatch.delitem(folder.environment, blas.VARIABLE)
    folder.train("solver.prototxt", "--resume", "--max-iter", "200", "--out", "half").succeeded()
    assert run_json(folder.run("half"))["blas_kernels"] == own
    assert_same_weights(folder.run("whole").model(200), folder.run("half").model(200))


def test_a_resumed_run_with_other_kernels_says_so(without_kernels, monkeypatch):
    folder, (_, best) = without_kernels, own_and_best_kernels()
    flags = ("solver.prototxt", "--max-iter", "20", "--out", "run")
    folder.train(*flags, "--layers", "fast").succeeded()
    monkeypatch.setitem(folder.environment, blas.VARIABLE, "Nehalem")
    said = folder.train("solver.prototxt", "--resume", "--max-iter", "30", "--out", "run")
    assert (
        f"note: the run was trained with OpenBLAS's {best} kernels and continues with Nehalem: "
        "weights differ in rounding"
    ) in said.succeeded().out


def test_kernels_that_compute_something_else_give_way_to_the_next_ones(
    without_kernels, faulty, monkeypatch
):
    folder, (own, best) = without_kernels, own_and_best_kernels()
    if own == best:
        pytest.skip("OpenBLAS knows this CPU")
    monkeypatch.setitem(folder.environment, "XDG_CACHE_HOME", str(faulty))
    monkeypatch.setitem(folder.environment, "LRBENCH_FAULT", f"{best} products")
    flags = ("solver.prototxt", "--layers", "fast", "--max-iter", "20")
    said = folder.train(*flags, "--out", "run").succeeded().out
    assert f"WARNING: OpenBLAS's {best} kernels are not used: {best} products\n" in said
    assert "Caffe's own layers" not in said
    lower = [*blas.better_kernels(own, this_cpu()), own][1]
    record = run_json(folder.run("run"))
    assert (record["layers"], record["blas_kernels"]) == ("fast", lower)


def test_wrong_products_of_openblass_own_choice_leave_caffes_own_layers(
    without_kernels, faulty, monkeypatch
):
    folder = without_kernels
    monkeypatch.setitem(folder.environment, "XDG_CACHE_HOME", str(faulty))
    monkeypatch.setitem(folder.environment, "LRBENCH_FAULT", "Nehalem products")
    monkeypatch.setitem(folder.environment, blas.VARIABLE, "Nehalem")
    flags = ("solver.prototxt", "--layers", "fast", "--max-iter", "20")
    said = folder.train(*flags, "--out", "run").succeeded().out
    assert "WARNING: Caffe's own layers instead of the fast ones: Nehalem products (" in said
    assert layers_of(folder.run("run")) == "stock"


def test_the_widest_vectors_are_the_default_and_a_resumed_run_keeps_its_own(folder):
    """The widest ones that pay: which ones these are is found by measuring."""
    flags = ("solver.prototxt", "--layers")
    folder.train(*flags, "fast-avx2", "--out", "whole").succeeded()
    folder.train(*flags, "fast-avx2", "--max-iter", "100", "--out", "half").succeeded()
    resume = ("solver.prototxt", "--resume", "--max-iter", "200", "--out", "half")
    folder.train(*resume, "--layers", "fast").succeeded()
    record = run_json(folder.run("half"))
    assert (record["layers"], record["width"]) == ("fast", 256)
    assert [session["width"] for session in record["sessions"]] == [256, 256]
    assert_same_weights(folder.run("whole").model(200), folder.run("half").model(200))
    folder.train(*flags, "fast", "--out", "fast").succeeded()
    assert run_json(folder.run("fast"))["width"] in [
        width for width in native.WIDTHS if native.can_run(width)
    ]
    folder.train(*flags, "stock", "--max-iter", "20", "--out", "stock").succeeded()
    assert run_json(folder.run("stock"))["width"] is None


def test_a_run_from_before_there_were_widths_has_256_bits(folder):
    flags = ("solver.prototxt", "--layers", "fast-avx2")
    folder.train(*flags, "--out", "whole").succeeded()
    folder.train(*flags, "--max-iter", "100", "--out", "half").succeeded()
    forget(folder.run("half"), "width")
    folder.train("solver.prototxt", "--resume", "--max-iter", "200", "--out", "half").succeeded()
    assert run_json(folder.run("half"))["width"] == 256
    assert_same_weights(folder.run("whole").model(200), folder.run("half").model(200))


@pytest.mark.ci
def test_a_run_with_wide_vectors_that_are_not_here_says_so(folder):
    flags = ("solver.prototxt", "--max-iter", "20", "--out", "run")
    folder.train(*flags, "--layers", "fast-avx2").succeeded()
    run = folder.run("run")
    record = run_json(run)
    record.pop("check")
    record["width"] = 512
    (run.path / "run.json").write_text(json.dumps({**record, "check": checksum(record)}))
    cache = folder.path / "cache" / "lrbench_caffe"  # with the library for 256 bits alone
    for path in (locate.runtime_dir(), native.library_path()):
        link = cache / path.relative_to(locate.cache_dir())
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(folder.environment, "XDG_CACHE_HOME", str(cache.parent))
        said = folder.train("solver.prototxt", "--resume", "--max-iter", "30", "--out", "run")
    assert (
        "note: the run was trained with vectors of 512 bits and continues with 256: "
        "weights differ in rounding"
    ) in said.succeeded().out
    assert run_json(run)["width"] == 256


def test_width_in_run_json_is_checked(folder):
    flags = ("solver.prototxt", "--max-iter", "20", "--layers", "fast-avx2", "--out", "run")
    folder.train(*flags).succeeded()
    run = folder.run("run")
    record = run_json(run)
    record.pop("check")
    record["width"] = 128
    (run.path / "run.json").write_text(json.dumps({**record, "check": checksum(record)}))
    said = folder.train("solver.prototxt", "--resume", "--max-iter", "30", "--out", "run")
    assert said.code == 2
    assert "run.json: width is 128; allowed: null, 512, 256" in said.err


@pytest.mark.ci
def test_doctor_tells_what_openblass_own_choice_costs(library, monkeypatch):
    python = find_caffe_python(None)
    monkeypatch.setenv(blas.VARIABLE, "Nehalem")
    assert caffe_info(python).blas_kernels == "Nehalem"
    finding = kernels_finding(python, "Nehalem")
    assert finding.value == "Nehalem"
    best = blas.better_kernels("Nehalem", this_cpu())[0]
    assert finding.remedy is not None
    told = re.fullmatch(
        rf"OPENBLAS_CORETYPE names them; {best} kernels are faster: (\d+) billion multiply-adds a "
        rf"second instead of (\d+)\. Set OPENBLAS_CORETYPE={best} for .* and --layers stock",
        finding.remedy,
    )
    assert told and int(told[1]) >= 1 and int(told[2]) >= 1
    monkeypatch.setenv(blas.VARIABLE, best)
    assert kernels_finding(python, best).remedy is None
    # A name that OpenBLAS does not have is none, for a training with fast layers, too.
    for name, told_as in (("nonsense", "nonsense"), ("", "empty")):
        monkeypatch.setenv(blas.VARIABLE, name)
        remedy = kernels_finding(python, "Nehalem").remedy
        assert remedy and remedy.startswith(
            f"OPENBLAS_CORETYPE is {told_as}, which OpenBLAS does not have"
        )
        assert blas.kernels_to_try("Nehalem", None, this_cpu())[0] == best


@pytest.mark.ci
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
    assert "-mavx2" in command and "-mavx512f" not in command
    wide = native.compiler_command("g++", tmp_path, tmp_path / "library.so", native.WIDE)
    assert "-mavx512f" in wide


def test_where_there_are_no_fast_layers(library, tmp_path, monkeypatch):
    info = caffe_info(find_caffe_python(None))
    assert choose_layers("auto", None, info) == choose_layers("fast", None, info) == "fast"
    assert choose_layers("stock", None, info) == choose_layers("auto", 0, info) == "stock"
    assert choose_layers("fast-avx2", None, info) == "fast"
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
