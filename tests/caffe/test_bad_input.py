"""What a user can get wrong: one line that says what, exit code 2, no traceback, nothing left behind."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from lrbench_caffe.datasets.lmdb_writer import write_lmdb
from tests.caffe import nets
from tests.caffe.harness import ROOT, Workspace, train_command

Prepare = Callable[[Workspace], object]


def solver(**fields: object) -> Prepare:
    return lambda w: w.write("solver.prototxt", nets.solver(**fields))


def solver_with(old: str, new: str) -> Prepare:
    return lambda w: w.write("solver.prototxt", nets.solver().replace(old, new))


def net_with(old: str, new: str) -> Prepare:
    assert old in nets.net()
    return lambda w: w.write("net.prototxt", nets.net().replace(old, new))


def nothing(_: Workspace) -> None:
    """The folder is fine; it is the command that is wrong."""


def images(name: str, shape: tuple[int, int, int], prepare: Prepare = nothing) -> Prepare:
    """An LMDB of random images, and what goes with it."""

    def make(workspace: Workspace) -> None:
        draw = np.random.default_rng(1)
        pixels = draw.integers(0, 256, (50, *shape), dtype=np.uint8)
        write_lmdb(workspace.path / name, pixels, draw.integers(0, 10, 50, dtype=np.uint8), shape)
        prepare(workspace)

    return make


def both(*prepares: Prepare) -> Prepare:
    def make(workspace: Workspace) -> None:
        for prepare in prepares:
            prepare(workspace)

    return make


def garbage(name: str) -> Prepare:
    return lambda w: (w.path / name).write_bytes(b"\xff\x13 this is no solver state \x00" * 9)


def script(name: str, text: str) -> Prepare:
    def make(workspace: Workspace) -> None:
        workspace.write(name, text)
        (workspace.path / name).chmod(0o755)

    return make


CONV = """
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 4 kernel_size: 9 weight_filler { type: "xavier" } } }
"""
TRAIN_DATA = '"data/digits_train_lmdb"'
TEST_DATA = '"data/digits_test_lmdb"'


@dataclass(frozen=True)
class Case:
    """What is wrong, and words that the message must have."""

    words: tuple[str, ...]
    prepare: Prepare = nothing
    args: tuple[str, ...] = ()
    lr: tuple[str, ...] = field(default=("--lr", "sin2"))
    solver: tuple[str, ...] = ("solver.prototxt",)


NO_TESTS = {"test_iter": None, "test_interval": None}
REGRESSION = nets.net(
    last="""
layer { name: "targets" type: "DummyData" top: "targets"
        dummy_data_param { shape { dim: 20 dim: 10 } data_filler { type: "constant" value: 1 } }
        include { phase: TRAIN } }
layer { name: "test_targets" type: "DummyData" top: "targets"
        dummy_data_param { shape { dim: 100 dim: 10 } data_filler { type: "constant" value: 1 } }
        include { phase: TEST } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip2" bottom: "targets" top: "loss" }
"""
)
TOO_MUCH = str(2**31)


def lr(*args: str) -> tuple[str, ...]:
    return ("--lr", *args)


CASES = {
    # the solver
    "no solver": Case(("no solver given",), solver=()),
    "missing solver": Case(("nowhere.prototxt", "No such file"), solver=("nowhere.prototxt",)),
    "a folder as solver": Case(("data", "directory"), solver=("data",)),
    "two solvers": Case(("two solvers",), args=("--solver", "other.prototxt")),
    "misspelt field": Case(
        ("solver.prototxt:5", "'base_ir'", "did you mean 'base_lr'?"),
        solver_with("base_lr", "base_ir"),
    ),
    "a word for a number": Case(
        ("solver.prototxt:4",), solver_with("max_iter: 100", "max_iter: lots")
    ),
    "broken syntax": Case(("solver.prototxt:",), solver_with('"net.prototxt"', '"net.prototxt')),
    "solver type in other letters": Case(("'adam'", "did you mean 'Adam'?"), solver(type='"adam"')),
    "an empty name for the net": Case(("solver.prototxt: net is empty",), solver(net='""')),
    "base_lr of 0 in the place of k0": Case(
        ("solver.prototxt: FIX", "base_lr=0"), solver(base_lr=0), lr=lr("fix")
    ),
    "no net": Case(("exactly one of net", "given: none"), solver(net=None)),
    "test_iter without test_interval": Case(
        ("test_interval is missing",), solver(test_interval=None)
    ),
    "unknown lr_policy": Case(
        ("solver.prototxt", "unknown lr_policy 'invv'", "did you mean inv?"),
        solver(lr_policy='"invv"'),
        lr=(),
    ),
    "no lr_policy": Case(("lr_policy is missing", "--lr"), solver(lr_policy=None), lr=()),
    "step without stepsize": Case(
        ("solver.prototxt", "stepsize"), solver(lr_policy='"step"'), lr=()
    ),
    # the net and its data
    "missing net": Case(
        ("solver.prototxt: net", "absent.prototxt"), solver(net='"absent.prototxt"')
    ),
    "misspelt field in the net": Case(
        ("net.prototxt:", "'num_outputs'", "did you mean 'num_output'?"),
        net_with("num_output", "num_outputs"),
    ),
    "unknown layer type": Case(
        ("net.prototxt: layer 'ip1'", "'InnerProdukt'", "did you mean 'InnerProduct'?"),
        net_with("InnerProduct", "InnerProdukt"),
    ),
    "unknown bottom": Case(
        ("net.prototxt: layer 'ip1'", "'dat'", "did you mean 'data'?"),
        net_with('bottom: "data"', 'bottom: "dat"'),
    ),
    "missing LMDB": Case(
        ("layer 'digits' of the training net", "no such LMDB folder"),
        net_with(TRAIN_DATA, '"data/absent_lmdb"'),
    ),
    "missing LMDB of the test net": Case(
        ("layer 'digits' of the test net #0", "no such LMDB folder"),
        net_with(TEST_DATA, '"data/absent_lmdb"'),
    ),
    "no LMDB but a folder": Case(("not an LMDB",), net_with(TRAIN_DATA, '"data"')),
    "damaged LMDB": Case(
        ("damaged_lmdb", "LMDB"),
        both(
            images("damaged_lmdb", (1, 8, 8), net_with(TRAIN_DATA, '"damaged_lmdb"')),
            lambda w: (w.path / "damaged_lmdb" / "data.mdb").write_bytes(b"no LMDB at all" * 1000),
        ),
    ),
    "LMDB of another shape": Case(
        ("net.prototxt", "layer 'conv'", "does not fit", "small_lmdb"),
        images(
            "small_lmdb",
            (1, 8, 8),
            lambda w: w.write(
                "net.prototxt",
                nets.net(middle=CONV + nets.inner_product("ip2", "conv", 10)).replace(
                    TRAIN_DATA, '"small_lmdb"'
                ),
            ),
        ),
    ),
    "crop larger than the records": Case(
        ("crop_size", "is 9"), net_with("scale:", "crop_size: 9 scale:")
    ),
    "missing mean file": Case(
        ("mean_file", "absent.binaryproto"),
        net_with("scale:", 'mean_file: "absent.binaryproto" scale:'),
    ),
    # the policy
    "unknown policy": Case(
        ("unknown LR function 'SINE2'", "did you mean SIN2?"), lr=lr("SINE2(k0=0.1)")
    ),
    "k0 of 0": Case(("FIX: k0=0",), lr=lr("FIX(k0=0)")),
    "k0 below 0": Case(("k0=-0.1",), lr=lr("sin2", "--k0", "-0.1")),
    "l of 0": Case(("l=0",), lr=lr("sin2", "--l", "0")),
    "gamma above 1": Case(("gamma=1.01",), lr=lr("sinexp", "--gamma", "1.01")),
    "gamma above 1 in EXP": Case(("gamma=2",), lr=lr("EXP(k0=0.1, gamma=2)")),
    "bad order in a composition": Case(
        ("50", "100"), lr=lr("FIX(k0=0.1) ; 100: FIX(k0=0.01) ; 50: FIX(k0=0.001)")
    ),
    "a parameter that the function lacks": Case(
        ("--gamma", "SIN2"), lr=lr("sin2", "--gamma", "0.9")
    ),
    "no number": Case(("k0",), lr=lr("fix", "--k0", "much")),
    "broken policy": Case(("FIX",), lr=lr("FIX(k0=0.1")),
    "k0 without --lr": Case(("--k0 requires --lr",), lr=("--k0", "0.1")),
    "plateau without tests": Case(
        ("PLATEAU(", "solver.prototxt has no test nets"), solver(**NO_TESTS), lr=lr("plateau")
    ),
    "plateau(...) without tests": Case(
        ("plateau(n=3)", "has no test nets"),
        solver(**NO_TESTS),
        lr=lr("FIX(k0=0.1) ; plateau(n=3): FIX(k0=0.01)"),
    ),
    "plateau of top1 in a regression": Case(
        ("PLATEAU(", "top1", "test net #0", "does not classify", "metric=test_loss"),
        lambda w: w.write("net.prototxt", REGRESSION),
        lr=lr("PLATEAU(k0=0.1, gamma=0.1, n=3)"),
    ),
    # the flags
    "snapshot with weights": Case(
        ("--snapshot and --weights",),
        args=("--snapshot", "x.solverstate", "--weights", "y.caffemodel"),
    ),
    "resume with snapshot": Case(
        ("--resume", "--snapshot"), args=("--resume", "--snapshot", "x.solverstate")
    ),
    "missing snapshot": Case(("--snapshot", "x.solverstate"), args=("--snapshot", "x.solverstate")),
    "garbage as snapshot": Case(
        ("x.solverstate",), garbage("x.solverstate"), ("--snapshot", "x.solverstate")
    ),
    "an empty snapshot": Case(
        ("x.solverstate",), lambda w: w.write("x.solverstate", ""), ("--snapshot", "x.solverstate")
    ),
    "missing weights": Case(("--weights", "y.caffemodel"), args=("--weights", "y.caffemodel")),
    "garbage as weights": Case(
        ("y.caffemodel",), garbage("y.caffemodel"), ("--weights", "y.caffemodel")
    ),
    "one of two weights missing": Case(
        ("--weights", "absent.caffemodel"), args=("--weights", "absent.caffemodel,y.caffemodel")
    ),
    "empty weights": Case(
        ("--weights", "y.caffemodel"),
        lambda w: w.write("y.caffemodel", ""),
        ("--weights", "y.caffemodel"),
    ),
    "a GPU where there is none": Case(("--gpu 0", "CPU-only"), args=("--gpu", "0")),
    "all GPUs where there is none": Case(("--gpu all", "CPU-only"), args=("--gpu", "all")),
    "solver_mode GPU": Case(
        ("solver.prototxt", "solver_mode: GPU", "CPU-only"), solver(solver_mode="GPU")
    ),
    "no GPU's number": Case(("--gpu", "'fast'"), args=("--gpu", "fast")),
    "max_iter of 0": Case(("--max-iter", "0"), args=("--max-iter", "0")),
    "no number for max_iter": Case(("--max-iter", "many"), args=("--max-iter", "many")),
    "test interval of 0": Case(("--test-interval", "0"), args=("--test-interval", "0")),
    "a max_iter that no int holds": Case(
        ("--max-iter: 2147483648", "allowed: 1 to"), args=("--max-iter", TOO_MUCH)
    ),
    "a test interval that no int holds": Case(
        ("--test-interval: 2147483648", "allowed: 1 to"), args=("--test-interval", TOO_MUCH)
    ),
    "a level that no int holds": Case(
        ("--level: 2147483648", "allowed"), args=("--level", TOO_MUCH)
    ),
    "negative hang timeout": Case(
        ("--hang-timeout: -1", "allowed: 0"), args=("--hang-timeout", "-1")
    ),
    "a hang timeout that is no number": Case(
        ("--hang-timeout: nan",), args=("--hang-timeout", "nan")
    ),
    "negative minutes": Case(
        ("--checkpoint-minutes: -0.5", "allowed"), args=("--checkpoint-minutes=-0.5",)
    ),
    "minutes that are no number": Case(
        ("--checkpoint-minutes: nan",), args=("--checkpoint-minutes", "nan")
    ),
    "a plot in no folder": Case(
        ("--out: absent/plot.png", "no such folder: absent"),
        args=("--preview", "--out", "absent/plot.png"),
    ),
    "a plot of an unknown kind": Case(
        ("--out: plot.doc", "unknown suffix .doc", ".png"), args=("--preview", "--out", "plot.doc")
    ),
    "a folder as plot": Case(("--out: data is a folder",), args=("--preview", "--out", "data")),
    "a database of an unknown kind": Case(
        ("'mysql' is not supported",), args=("--db", "mysql://host/lr")
    ),
    "a solver state as weights": Case(
        ("--weights: x.solverstate",), garbage("x.solverstate"), ("--weights", "x.solverstate")
    ),
    "negative seed": Case(("--seed", "-1"), args=("--seed", "-1")),
    "unknown option": Case(("--learning-rate",), args=("--learning-rate", "0.1")),
    "solver_type beside type": Case(
        ("solver.prototxt: has type and solver_type", "allowed: one of them"),
        solver(type='"SGD"', solver_type="ADAM"),
    ),
    "data that a command makes": Case(
        ("data/mnist_train_lmdb: no such LMDB folder", "python -m lrbench_caffe.data mnist"),
        net_with("data/digits_train_lmdb", "data/mnist_train_lmdb"),
    ),
    "unknown effect": Case(("sigint_effect", "'ignore'"), args=("--sigint_effect", "ignore")),
    "nothing to resume": Case(("--resume", "no run of solver.prototxt"), args=("--resume",)),
    "an adaptive solver the way of Caffe 1.0": Case(
        ("solver.prototxt", "'Adam'", "SGD and Nesterov"),
        solver(type='"Adam"'),
        ("--set-lr-by", "gradients"),
    ),
    # the interpreter
    "an interpreter that does not exist": Case(
        ("--caffe-python", "does not exist"), args=("--caffe-python", "./absent")
    ),
    "an interpreter that is a folder": Case(
        ("--caffe-python", "is a directory"), args=("--caffe-python", "./data")
    ),
    "an interpreter that is no program": Case(
        ("--caffe-python", "not executable"), args=("--caffe-python", "./net.prototxt")
    ),
    "an interpreter without caffe": Case(
        ("./bare", "caffe"),
        script("bare", f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n'),
        ("--caffe-python", "./bare"),
    ),
    "no interpreter at all": Case(
        ("false",),
        script("false", "#!/bin/sh\necho no such thing >&2\nexit 3\n"),
        ("--caffe-python", "./false"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_clear_line(workspace: Workspace, name: str) -> None:
    case = CASES[name]
    case.prepare(workspace)
    before = set(os.listdir(workspace.path))
    done = workspace.train(*case.solver, *case.lr, *case.args)
    words = [word.removeprefix("./") if word.startswith("./") else word for word in case.words]
    done.failed(2, *words)
    assert "error: " in done.err
    assert set(os.listdir(workspace.path)) == before


def test_an_lmdb_of_somebody_else(workspace: Workspace) -> None:
    """Root without its powers, and nobody's files; as anybody else: files without the right to write."""
    folder = workspace.path / "theirs"
    shutil.copytree(workspace.path / "data" / "digits_train_lmdb", folder)
    workspace.path.chmod(0o755)
    lock = folder / "lock.mdb"
    lock.touch()
    powerless = []
    if os.geteuid() == 0:
        powerless = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"]
        if shutil.which("setpriv") is None:
            pytest.skip("root may write everywhere, and there is no setpriv")
        for path in (lock, folder):
            os.chown(path, 65534, 65534)
    lock.chmod(0o444)
    workspace.write("net.prototxt", nets.net(train=nets.data_layer("TRAIN", source="theirs")))
    done = workspace.command([*powerless, *train_command("solver.prototxt", "--out", "out")])
    words = "theirs/lock.mdb: cannot be written (Permission denied)", "chmod a+rw theirs/lock.mdb"
    done.failed(2, "data_param.source", *words)
    lock.unlink()
    folder.chmod(0o555)
    done = workspace.command([*powerless, *train_command("solver.prototxt", "--out", "out")])
    folder.chmod(0o755)
    done.failed(2, "theirs: lock.mdb is missing and cannot be created there", "chmod a+w theirs")


def test_a_run_is_not_overwritten(workspace: Workspace) -> None:
    workspace.train("solver.prototxt", "--max-iter", "1", "--out", "out").succeeded()
    before = {
        path: path.read_bytes() for path in Path(workspace.path, "out").rglob("*") if path.is_file()
    }
    done = workspace.train("solver.prototxt", "--max-iter", "1", "--out", "out")
    done.failed(2, "--out: out already contains a run", "--resume")
    assert before == {
        path: path.read_bytes() for path in Path(workspace.path, "out").rglob("*") if path.is_file()
    }
    for flags, words in (
        (("--lr", "fix", "--k0", "0.5"), ("--resume", "the run's policy is INV(")),
        (("--seed", "1234"), ("--resume", "seed", "1234")),
        (("--weights", "x"), ("--resume", "--weights")),
        (("--k0", "0.5"), ("the run's policy is INV(k0=0.05,", "not --k0 0.5")),
        (("--lr", "inv", "--p", "2"), ("snapshots/tiny_iter_1.solverstate --lr inv --p 2",)),
        (("--k0", "="), ("--k0 '=': expected a number",)),
        (("--test-interval", "20"), ("--test-interval: 20; the run's own is 50",)),
        (("--stage", "deep"), ("--stage: deep; the run's own is none",)),
        (("--level", "2"), ("--level: 2; the run's own is 0",)),
        (("--gpu", "0"), ("--gpu: 0; the run's own is none",)),
    ):
        workspace.train("--resume", "--out", "out", *flags).failed(2, *words)


def test_a_run_is_trained_by_one_process_at_a_time(workspace: Workspace) -> None:
    workspace.write("solver.prototxt", nets.solver(max_iter=10_000_000))
    with workspace.training("solver.prototxt", out="out") as training:
        training.wait_for_test(50)
        workspace.train("--resume", "--out", "out").failed(
            2, "out is in use by a training that is still running"
        )
        assert training.process.poll() is None


@pytest.mark.parametrize("out", ["a_file", "a_file/below"])
def test_an_out_that_cannot_be_made(workspace: Workspace, out: str) -> None:
    workspace.write("a_file", "")
    workspace.train("solver.prototxt", "--max-iter", "1", "--out", out).failed(2, out)


def test_debug_shows_the_traceback(workspace: Workspace) -> None:
    done = workspace.train("nowhere.prototxt", "--debug")
    assert done.code == 2
    assert "Traceback" in done.err
    assert done.err.splitlines()[-1].startswith("error: ")


def test_labels_that_the_net_does_not_have(workspace: Workspace) -> None:
    """With --trust-data Caffe trains on; the test pass says why nothing but Caffe's outputs is measured."""
    workspace.write("net.prototxt", nets.net().replace("num_output: 10", "num_output: 8"))
    wanted = ("solver.prototxt", "--lr", "fix", "--out", "out")
    workspace.train(*wanted).failed(
        2, "net.prototxt: layer 'loss' (SoftmaxWithLoss) of the training net: record 0000",
        " of data/digits_train_lmdb has the label ", "; allowed: 0 to 7 (--trust-data ",
    )  # fmt: skip
    assert not (workspace.path / "out").exists()
    done = workspace.train(*wanted, "--trust-data").succeeded()
    assert "labels from 0 to 9, but 8 classes" in done.out
    assert workspace.run("out").measurements()[-1]["top1"] is None


def test_test_images_of_another_size_than_the_weights_fit(workspace: Workspace) -> None:
    """Whether weights depend on the size Caffe knows; it would abort at the first test."""
    images("large_lmdb", (1, 9, 9), net_with(TEST_DATA, '"large_lmdb"'))(workspace)
    done = workspace.train("solver.prototxt", "--lr", "sin2", "--out", "out")
    done.failed(
        2,
        "net.prototxt: layer 'ip1' has parameters of 16 x 64 and 16 in the training net",
        "16 x 81 and 16",
    )
    assert (
        "the test net #0 reads 'data' of 1 x 9 x 9 from large_lmdb, the training net of 1 x 8 x 8"
        in done.out
    )


def test_whether_there_is_a_solver_type_caffe_says(workspace: Workspace) -> None:
    """A fork may have more of them, and no pycaffe lists them."""
    workspace.write("solver.prototxt", nets.solver(type='"Adamm"'))
    done = workspace.train("solver.prototxt", "--lr", "sin2", "--out", "out")
    done.failed(
        2, "solver.prototxt: type is 'Adamm'; allowed by this Caffe: AdaDelta, AdaGrad, Adam,"
    )
    assert not (workspace.path / "out").exists()


IP2 = '"ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"'
PYTHON = """
layer { name: "mine" type: "Python" bottom: "data" top: "mine" python_param { module: "%s" layer: "Mine" } }
"""


def python_layer(body: str) -> Prepare:
    def make(workspace: Workspace) -> None:
        workspace.write("own_layer.py", f"import caffe\n\n\nclass Mine(caffe.Layer):\n    {body}\n")
        workspace.write("net.prototxt", nets.net() + PYTHON % "own_layer")

    return make


# The words begin with the file, and the layer that caffe train aborts at.
REFUSED = {
    "num_output of 0": (
        net_with("num_output: 16", "num_output: 0"),
        "net.prototxt: layer 'ip1' (InnerProduct) of the training net: Caffe refuses it: ",
        "num_output missing or 0?",
    ),
    "no num_output": (
        net_with("num_output: 10", ""),
        "net.prototxt: layer 'ip2' (InnerProduct) of the training net: Caffe refuses it: ",
        "num_output missing or 0?",
    ),
    "an unknown filler": (
        net_with('16 weight_filler { type: "xavier" }', '16 weight_filler { type: "he" }'),
        "net.prototxt: layer 'ip1' (InnerProduct) of the training net: ",
        "unknown filler 'he'",
    ),
    "two loss weights": (
        net_with('"SoftmaxWithLoss"', '"SoftmaxWithLoss" loss_weight: [1, 1]'),
        "net.prototxt: layer 'loss' (SoftmaxWithLoss) of the training net: ",
        "loss_weight must be",
    ),
    "more classes than there are, in tests": (
        net_with("top_k: 5", "top_k: 50"),
        "net.prototxt: layer 'top5' (Accuracy) of the test net #0: ",
        "top_k must be",
    ),
    "include and exclude": (
        net_with(IP2, IP2 + " include { phase: TRAIN } exclude { phase: TEST }"),
        "net.prototxt: layer 'ip2': has include and exclude",
    ),
    "no layers": (
        lambda w: w.write("net.prototxt", 'name: "nothing"'),
        "net.prototxt: the training net has no layers",
    ),
    "no type": (
        net_with('"ip2" type: "InnerProduct"', '"ip2"'),
        "net.prototxt: layer 'ip2': type is missing",
    ),
    "a Python module that is missing": (
        lambda w: w.write("net.prototxt", nets.net() + PYTHON % "no_such_module"),
        "net.prototxt: layer 'mine' (Python) of the training net: ",
        "No module named 'no_such_module'",
    ),
    "a Python layer that fails": (
        python_layer("def setup(self, bottom, top): raise ValueError('my own reason')"),
        "net.prototxt: layer 'mine' (Python) of the training net: ",
        "my own reason",
    ),
    "momentum with RMSProp": (
        solver(type='"RMSProp"', momentum=0.9),
        "solver.prototxt: ",
        "omentum",
    ),
}


@pytest.mark.ci
@pytest.mark.parametrize("name", REFUSED)
def test_what_caffe_refuses_while_it_opens_the_solver(workspace: Workspace, name: str) -> None:
    prepare, *words = REFUSED[name]
    prepare(workspace)
    path = f"PYTHONPATH={ROOT}:{workspace.path}"
    caffe_train = [workspace.program, "train", "--solver=solver.prototxt"]
    assert workspace.command(["env", path, *caffe_train]).code != 0
    done = workspace.command(["env", path, *train_command("solver.prototxt", "--out", "out")])
    done.failed(2, *words)
    assert "--resume" not in done.err
    assert not (workspace.path / "out").exists()


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM])
def test_a_crash_or_a_kill_in_a_python_layer_is_no_bad_input(
    workspace: Workspace, number: signal.Signals
) -> None:
    crash = f"def setup(self, bottom, top): import os; os.kill(os.getpid(), {number:d})"
    python_layer(crash)(workspace)
    path = f"PYTHONPATH={ROOT}:{workspace.path}"
    done = workspace.command(["env", path, *train_command("solver.prototxt", "--out", "out")])
    done.failed(1, f"Caffe was killed by {number.name}")
    assert (workspace.path / "out" / "caffe.log").exists()
