"""A solver with another batch size, momentum or weight decay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lrbench_caffe.errors import InputError
from lrbench_caffe.prototxt.messages import Messages, shortest
from lrbench_caffe.prototxt.solver import Solver, load_solver
from lrbench_caffe.prototxt.variant import Variant, lr_factor, training_batch, write_variant
from lrbench_caffe.runtime.replies import CaffeInfo
from tests.prototxt.conftest import Write

SOLVER = """
net: "net.prototxt" test_iter: 2 test_interval: 100 snapshot: 500 snapshot_prefix: "tiny"
base_lr: 0.01 lr_policy: "step" gamma: 0.5 stepsize: 200 max_iter: 1000 momentum: 0.9 weight_decay: 0.0005
"""
DATA = """
layer {{ name: "{name}" type: "Data" top: "x" top: "y" {rule}
         data_param {{ source: "train_lmdb" batch_size: {batch} backend: LMDB }} }}
"""
TRAIN = DATA.format(name="train", rule="include { phase: TRAIN }", batch=4)
TEST = DATA.format(name="test", rule="include { phase: TEST }", batch=5)
REST = """
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "s" inner_product_param { num_output: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "s" bottom: "y" top: "loss" }
"""
Load = Callable[..., Solver]


@pytest.fixture
def load(
    messages: Messages, caffe_info: CaffeInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    write_images: Write,
) -> Load:  # fmt: skip
    """``load(net, solver)``: a solver from its text, or from a file that is there."""
    monkeypatch.chdir(tmp_path)
    write_images("train_lmdb", 20, (1, 4, 4))

    def load(net: str = TRAIN + TEST + REST, solver: str | Path = SOLVER) -> Solver:
        Path("net.prototxt").write_text(net)
        path = solver if isinstance(solver, Path) else Path("solver.prototxt")
        if isinstance(solver, str):
            path.write_text(solver)
        return load_solver(path, messages, caffe_info)

    return load


def batches(solver: Solver) -> tuple[list[int], list[int]]:
    """The batch sizes of the training net, and of the first test net."""
    train, test = (
        [layer.data_param.batch_size for layer in net.data_layers]
        for net in (solver.train, solver.tests[0].net)
    )
    return train, test


def test_another_batch_is_as_many_epochs_in_as_many_tests(load: Load) -> None:
    solver = load()
    before = Path("net.prototxt").read_text(), Path("solver.prototxt").read_text()
    path = write_variant(
        solver, Variant(8, 0.8, 0.001), Path("made"), max_iter=500, test_interval=50
    )
    found = load(solver=path)
    assert batches(solver) == ([4], [5]) and batches(found) == ([8], [5])
    message = found.message
    numbers = (message.max_iter, message.test_interval, message.snapshot, list(message.test_iter))
    assert numbers == (500, 50, 250, [2])
    # Twice the batch, and (1 - 0.8) / (1 - 0.9): 0.01 x 2 x 2.
    assert shortest(message.base_lr) == 0.04
    assert (shortest(message.momentum), shortest(message.weight_decay)) == (0.8, 0.001)
    assert (Path("net.prototxt").read_text(), Path("solver.prototxt").read_text()) == before


def test_a_data_layer_of_both_phases_keeps_its_batch_in_tests(load: Load) -> None:
    solver = load(DATA.format(name="both", rule="", batch=4) + REST)
    assert batches(solver) == ([4], [4])
    found = load(
        solver=write_variant(solver, Variant(2), Path("made"), max_iter=1, test_interval=1)
    )
    assert batches(found) == ([2], [4])


def test_the_test_nets_stay_those_of_the_solver(load: Load) -> None:
    """One of its own and the generic one, each with its batches."""
    Path("test.prototxt").write_text(DATA.format(name="other", rule="", batch=10) + REST)
    solver = load(solver=SOLVER + 'test_net: "test.prototxt" test_iter: 4')
    assert [test.passes for test in solver.tests] == [2, 4]
    found = load(
        solver=write_variant(solver, Variant(2), Path("made"), max_iter=1, test_interval=1)
    )
    sizes = [test.net.data_layers[0].data_param.batch_size for test in found.tests]
    assert sizes == [10, 5] and [test.passes for test in found.tests] == [2, 4]


def test_what_a_training_begins_with_can_be_in_it(load: Load) -> None:
    solver = load(solver=SOLVER + 'weights: "old.caffemodel" train_state { stage: "own" }')
    made = load(
        solver=write_variant(
            solver, Variant(), Path("made"), max_iter=1, test_interval=1,
            weights=["a.caffemodel", "b.caffemodel"], stages=["drop", "own"],
        )
    )  # fmt: skip
    assert made.weights == ["a.caffemodel", "b.caffemodel"]
    assert list(made.message.train_state.stage) == ["own", "drop"]
    same = load(solver=write_variant(solver, Variant(), Path("same"), max_iter=1, test_interval=1))
    assert same.weights == ["old.caffemodel"]


def test_the_lr_policy_can_be_another(load: Load) -> None:
    fields = {"lr_policy": "multistep", "base_lr": 0.2, "gamma": 0.1, "stepvalue": [10, 20]}
    path = write_variant(load(), Variant(), Path("made"), max_iter=50, test_interval=5, lr=fields)
    found = load(solver=path)
    assert str(found.lr_policy(50)) == "NSTEP(k0=0.2, gamma=0.1, l=[10, 20])"
    assert not found.message.HasField("stepsize")


@pytest.mark.parametrize(
    ("kind", "variant", "factor"),
    [
        ("SGD", Variant(batch=16), 4.0),
        ("SGD", Variant(momentum=0.8), 2.0),
        ("SGD", Variant(momentum=0.95), 0.5),
        ("Nesterov", Variant(batch=2, momentum=0.0), 5.0),
        ("SGD", Variant(weight_decay=0.1), 1.0),
        ("Adam", Variant(batch=8, momentum=0.5), 2.0),
    ],
)  # fmt: skip
def test_the_rule_for_the_lrs(load: Load, kind: str, variant: Variant, factor: float) -> None:
    assert lr_factor(load(solver=SOLVER + f'type: "{kind}"'), variant) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ('layer { name: "noise" type: "DummyData" top: "x" top: "y" '
         "dummy_data_param { shape { dim: 4 dim: 16 } shape { dim: 4 } } }\n",
         "no layer of the training net has a batch_size"),
        (TRAIN.replace('"x"', '"z"') + TRAIN.replace("batch_size: 4", "batch_size: 8") + TEST,
         "differ in batch_size: 4 in layer 'train', 8 in layer 'train'"),
    ],
)  # fmt: skip
def test_a_net_without_one_batch_size(load: Load, data: str, words: str) -> None:
    text = data.replace('top: "y"', 'top: "w"', 1) if "z" in data else data
    with pytest.raises(InputError, match=words):
        training_batch(load(text + REST))
