"""What is measured, beside what ``caffe train`` prints in the same training: every kind of head.

One training with many test nets, so that all of them cost two starts of Caffe. Data and labels are
drawn by the net itself, from the generator that all nets share: the same numbers come only where
both do the same in the same order, up to the last test.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import pytest

from tests.caffe import nets
from tests.caffe.harness import ROOT, Done, Run, Workspace, assert_same_weights, train_command

SIX_DIGITS = (
    2e-5  # relative: what a number keeps in Caffe's log, with a last digit that may be rounded
)
CLASSES = 4

Printed = dict[tuple[int, int], list[tuple[str, float]]]


def dummy(*tops: tuple[str, str, str]) -> str:
    """A data layer with a blob for each (name, dimensions, filler)."""
    names = " ".join(f'top: "{name}"' for name, _, _ in tops)
    shapes = " ".join(
        "shape { " + " ".join(f"dim: {length}" for length in dimensions.split()) + " }"
        for _, dimensions, _ in tops
    )
    fillers = " ".join(f"data_filler {{ {filler} }}" for _, _, filler in tops)
    return f'layer {{ name: "d" type: "DummyData" {names} dummy_data_param {{ {shapes} {fillers} }} }}\n'


def layer(kind: str, bottoms: str, tops: str, more: str = "") -> str:
    blobs = "".join(f' bottom: "{name}"' for name in bottoms.split())
    blobs += "".join(f' top: "{name}"' for name in tops.split())
    return f'layer {{ name: "{kind} {bottoms} {tops} {sum(map(ord, more))}" type: "{kind}"{blobs} {more} }}\n'


def product(bottom: str, top: str, outputs: int = CLASSES) -> str:
    filler = 'weight_filler { type: "gaussian" std: 1 }'
    return layer(
        "InnerProduct", bottom, top, f"inner_product_param {{ num_output: {outputs} {filler} }}"
    )


NOISE = 'type: "gaussian" std: 1'
LABELS = f'type: "uniform" min: 0 max: {CLASSES - 0.01}'  # Caffe cuts them to 0, 1, 2, 3
BITS = 'type: "uniform" min: 0 max: 1.99'
DATA = dummy(("x", "40 3", NOISE), ("y", "40", LABELS))
LOSS = layer("SoftmaxWithLoss", "s y", "loss")
ACCURACY = layer("Accuracy", "s y", "acc")


@dataclass(frozen=True)
class Case:
    """A test net.

    Attributes:
        net: its layers.
        head: the blob that Top-1 is of, None where there is none.
        accuracy: the output of Caffe's Accuracy layer that Top-1 is equal to.
        top5: the same for Top-5, where there is one.
        further: outputs of further heads, and Caffe's own that they are equal to.
    """

    net: str
    head: str | None = "s"
    accuracy: str | None = "acc"
    top5: str | None = None
    further: dict[str, str] = field(default_factory=dict)


CASES = {
    "softmax loss": Case(
        DATA + product("x", "s") + LOSS + ACCURACY
        + layer("Accuracy", "s y", "acc2", "accuracy_param { top_k: 2 }"),
    ),
    "more classes than five": Case(
        dummy(("x", "40 3", NOISE), ("y", "40", 'type: "uniform" min: 0 max: 8.99'))
        + product("x", "s", 9)
        + LOSS
        + ACCURACY
        + layer("Accuracy", "s y", "acc5", "accuracy_param { top_k: 5 }"),
        top5="acc5",
    ),
    "accuracy by class": Case(DATA + product("x", "s") + LOSS + layer("Accuracy", "s y", "acc each")),
    "labels of four axes": Case(
        dummy(("x", "40 3", NOISE), ("y", "40 1 1 1", LABELS)) + product("x", "s") + LOSS + ACCURACY
    ),
    "accuracy of probabilities": Case(
        DATA
        + product("x", "s")
        + layer("Softmax", "s", "p")
        + layer("MultinomialLogisticLoss", "p y", "loss")
        + layer("Accuracy", "p y", "acc"),
        head="p",
    ),
    "loss of logits, accuracy of probabilities": Case(
        DATA + product("x", "s") + LOSS + layer("Softmax", "s", "p") + layer("Accuracy", "p y", "acc"),
        head="p",
    ),
    "infogain loss": Case(
        dummy(
            ("x", "40 3", NOISE), ("y", "40", LABELS),
            ("h", f"1 1 {CLASSES} {CLASSES}", 'type: "constant" value: 1'),
        )
        + product("x", "s") + layer("InfogainLoss", "s y h", "loss") + ACCURACY,
    ),
    "hinge loss": Case(DATA + product("x", "s") + layer("HingeLoss", "s y", "loss") + ACCURACY),
    "euclidean loss": Case(
        dummy(("x", "40 3", NOISE), ("y", "40", LABELS), ("t", f"40 {CLASSES}", NOISE))
        + product("x", "s") + layer("EuclideanLoss", "s t", "loss") + ACCURACY,
    ),
    "arg max": Case(DATA + product("x", "s") + layer("ArgMax", "s", "best") + ACCURACY),
    "classes on the last axis": Case(
        dummy(("x", "4 5 3", NOISE), ("y", "4 5", LABELS))
        + layer(
            "InnerProduct", "x", "s",
            f'inner_product_param {{ num_output: {CLASSES} axis: 2 weight_filler {{ {NOISE} }} }}',
        )
        + layer("SoftmaxWithLoss", "s y", "loss", "softmax_param { axis: -1 }")
        + layer("Accuracy", "s y", "acc", "accuracy_param { axis: 2 }"),
    ),
    "maps, with a label that is ignored": Case(
        dummy(("x", "2 3 6 5", NOISE), ("y", "2 1 6 5", LABELS))
        + layer(
            "Convolution", "x", "s",
            f"convolution_param {{ num_output: {CLASSES} kernel_size: 1 weight_filler {{ {NOISE} }} }}",
        )
        + layer("SoftmaxWithLoss", "s y", "loss", "loss_param { ignore_label: 2 }")
        + layer("Accuracy", "s y", "acc", "accuracy_param { ignore_label: 2 }"),
    ),
    "the accuracy layer alone ignores a label": Case(
        DATA + product("x", "s") + LOSS
        + layer("Accuracy", "s y", "acc", "accuracy_param { ignore_label: 0 }")
    ),
    "the loss alone ignores a label": Case(
        DATA + product("x", "s") + layer("SoftmaxWithLoss", "s y", "loss", "loss_param { ignore_label: 0 }")
        + ACCURACY
    ),
    "an auxiliary loss": Case(
        DATA + product("x", "s") + product("x", "aux") + ACCURACY + layer("SoftmaxWithLoss", "aux y", "loss")
    ),
    "an auxiliary loss of a larger weight": Case(
        DATA + product("x", "s") + product("x", "aux") + ACCURACY
        + layer("SoftmaxWithLoss", "s y", "loss", "loss_weight: 0.1")
        + layer("SoftmaxWithLoss", "aux y", "loss_aux", "loss_weight: 3"),
    ),
    "two heads": Case(
        dummy(("x", "40 3", NOISE), ("y", "40", BITS), ("z", "40", LABELS))
        + product("x", "s2", 2) + product("x", "s")
        + layer("SoftmaxWithLoss", "s2 y", "loss2") + layer("SoftmaxWithLoss", "s z", "loss")
        + layer("Accuracy", "s2 y", "acc2") + layer("Accuracy", "s z", "acc"),
        further={"s2.top1": "acc2"},
    ),
    "a regression, with several losses and weights": Case(
        dummy(("x", "40 3", NOISE), ("t", "40 2", NOISE))
        + product("x", "s", 2) + layer("EuclideanLoss", "s t", "loss", "loss_weight: 0.5")
        + layer("Reduction", "s", "size", "loss_weight: 0.25 reduction_param { operation: SUMSQ }"),
        head=None, accuracy=None,
    ),
    "no loss": Case(DATA + product("x", "s") + ACCURACY),
}  # fmt: skip

# Half the mean square of (1 where p > 0.5) - (true class), which Caffe prints, tells a sigmoid's
# Top-1.
SIGMOID = (
    dummy(("x", "40 3", NOISE), ("bits", "40 1", BITS))
    + layer("Threshold", "bits", "y", "threshold_param { threshold: 1 }")
    + product("x", "s", 1)
    + layer("SigmoidCrossEntropyLoss", "s y", "loss")
    + layer("Threshold", "s", "guess")
    + layer("EuclideanLoss", "guess y", "wrong", "loss_weight: 0")
    + layer("Accuracy", "s y", "misuse")
)


def printed(log: str) -> Printed:
    """The outputs of all tests in a log of Caffe's, by iteration and test net, in their order."""
    found: Printed = {}
    current: list[tuple[str, float]] = []
    for line in log.splitlines():
        if test := re.search(r"Iteration (\d+), Testing net \(#(\d+)\)", line):
            current = found[int(test[1]), int(test[2])] = []
        elif output := re.search(r"Test net output #(\d+): (\S+) = (\S+)", line):
            assert int(output[1]) == len(current)
            current.append((output[2], float(output[3])))
    return found


@dataclass(frozen=True)
class Pair:
    """A training here, and the same one by ``caffe train``."""

    done: Done
    run: Run
    caffe: Printed

    def check_outputs(self) -> None:
        """All that ``caffe train`` printed of its tests is what is printed and recorded here."""
        ours = printed(self.run.log.read_text())
        assert list(ours) == list(self.caffe)
        for key, values in self.caffe.items():
            assert [name for name, _ in ours[key]] == [name for name, _ in values], key
            assert [v for _, v in ours[key]] == pytest.approx(
                [v for _, v in values], rel=SIX_DIGITS
            ), key


def train_both(workspace: Workspace, solver: str, out: str = "out") -> Pair:
    workspace.write("solver.prototxt", solver)
    caffe = workspace.caffe("train", "--solver=solver.prototxt").succeeded()
    done = workspace.train("solver.prototxt", "--out", out).succeeded()
    return Pair(done, workspace.run(out), printed(caffe.err))


@pytest.fixture(scope="module")
def pair(caffe_program: str, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    workspace = Workspace(tmp_path_factory.mktemp("heads"), caffe_program)
    workspace.write("train.prototxt", f'name: "t" {DATA}{product("x", "s")}{LOSS}')
    texts = [case.net for case in CASES.values()] + [SIGMOID]
    names = [
        workspace.write(f"net{i}.prototxt", f'name: "n{i}"\n{text}') for i, text in enumerate(texts)
    ]
    solver = nets.policy(
        "fixed", net=None, train_net='"train.prototxt"', test_net=[f'"{name}"' for name in names],
        test_iter=[1] * len(names), test_interval=2, max_iter=4, display=2,
    )  # fmt: skip
    return train_both(workspace, solver)


def outputs(pair: Pair, number: int, iteration: int) -> dict[str, float]:
    """Caffe's outputs by the names under which they are recorded."""
    found: dict[str, float] = {}
    for name, value in pair.caffe[iteration, number]:
        count = sum(known == name or known.startswith(f"{name}[") for known in found)
        found[f"{name}[{count}]" if count else name] = value
    return found


def test_caffe_prints_the_same(pair: Pair) -> None:
    pair.check_outputs()
    assert list(pair.caffe) == [(i, n) for i in (0, 2, 4) for n in range(len(CASES) + 1)]


@pytest.mark.parametrize("name", CASES)
def test_measured_is_what_caffe_prints(pair: Pair, name: str) -> None:
    case, number = CASES[name], list(CASES).index(name)
    rows = pair.run.last_measurements()
    for iteration in (0, 2, 4):
        row, caffe = rows[iteration, number], outputs(pair, number, iteration)
        assert {key: row["outputs"][key] for key in caffe} == pytest.approx(caffe, rel=SIX_DIGITS)
        if case.accuracy is None:
            assert row["top1"] is None
            assert set(row["outputs"]) == set(caffe)
            continue
        assert row["top1"] == pytest.approx(100 * caffe[case.accuracy], rel=SIX_DIGITS)
        if case.top5:
            assert row["top5"] == pytest.approx(100 * caffe[case.top5], rel=SIX_DIGITS)
        for own, of_caffe in case.further.items():
            assert row["outputs"][own] == pytest.approx(100 * caffe[of_caffe], rel=SIX_DIGITS)
    tops = {rows[iteration, number]["top1"] for iteration in (0, 2, 4)}
    assert case.accuracy is None or tops - {0.0, 100.0}  # there is something to tell apart


def test_the_screen_names_the_blob(pair: Pair) -> None:
    for number, case in enumerate(CASES.values()):
        assert (
            f"Top-1 of the test net #{number} is that of {case.head} " in pair.done.out
        ) == bool(case.head)


def test_losses_are_weighted_as_caffe_does(pair: Pair) -> None:
    number = list(CASES).index("a regression, with several losses and weights")
    caffe = outputs(pair, number, 4)
    row = pair.run.last_measurements()[4, number]
    assert row["test_loss"] == pytest.approx(
        0.5 * caffe["loss"] + 0.25 * caffe["size"], rel=SIX_DIGITS
    )


def test_a_sigmoids_two_classes(pair: Pair) -> None:
    number = len(CASES)
    rows = pair.run.last_measurements()
    for iteration in (0, 2, 4):
        caffe = outputs(pair, number, iteration)
        row = rows[iteration, number]
        assert row["top1"] == pytest.approx(100 * (1 - 2 * caffe["wrong"]), rel=SIX_DIGITS)
        assert row["outputs"]["misuse"] == pytest.approx(caffe["misuse"], rel=SIX_DIGITS)
        assert 0 < row["ac"] < 1
    assert "reads 's', which has one score" in pair.done.out


# -- what cannot be measured -----------------------------------------------------------------------


def test_labels_that_cannot_be_counted_do_not_end_a_training(
    caffe_program: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    workspace = Workspace(tmp_path_factory.mktemp("labels"), caffe_program)
    ignored = dummy(("x", "4 3", NOISE), ("y", "4", 'type: "constant" value: -1'))
    outside = dummy(("x", "4 3", NOISE), ("y", "4", f'type: "constant" value: {CLASSES}'))
    soft = dummy(("x", "4 3", NOISE), ("y", "4 1", 'type: "constant" value: 0.5'))
    param = "{ ignore_label: -1 }"
    texts = [
        ignored
        + product("x", "s")
        + layer("SoftmaxWithLoss", "s y", "loss", f"loss_param {param}")
        + layer("Accuracy", "s y", "acc", f"accuracy_param {param}"),
        outside + product("x", "s") + layer("EuclideanLoss", "s s", "loss") + ACCURACY,
        soft + product("x", "s", 1) + layer("SigmoidCrossEntropyLoss", "s y", "loss"),
    ]
    names = [workspace.write(f"net{i}.prototxt", text) for i, text in enumerate(texts)]
    workspace.write("train.prototxt", DATA + product("x", "s") + LOSS)
    solver = nets.policy(
        "fixed", net=None, train_net='"train.prototxt"', test_net=[f'"{name}"' for name in names],
        test_iter=[2] * len(names), test_interval=2, max_iter=4, display=2,
    )  # fmt: skip
    pair = train_both(workspace, solver)
    rows = pair.run.last_measurements()
    assert len(rows) == 3 * len(names)
    assert all(row["top1"] is None for row in rows.values())
    assert all(row["outputs"]["loss"] == pytest.approx(dict(pair.caffe[key])["loss"], rel=SIX_DIGITS)
               for key, row in rows.items())  # fmt: skip
    assert [rows[i, 0]["outputs"]["acc"] for i in (0, 2, 4)] == [0, 0, 0]  # Caffe's word for none
    for why in (
        "all labels are ignored",
        f"labels from {CLASSES} to {CLASSES}, but {CLASSES} classes (labels 0 to {CLASSES - 1})",
        "targets between 0 and 1, which are not class labels",
    ):
        assert pair.done.out.count(why) == 1, pair.done.out


BOXES = """
import caffe


class Boxes(caffe.Layer):
    def setup(self, bottom, top):
        self.calls = 0

    def reshape(self, bottom, top):
        top[0].reshape(1, 1, 2 + self.calls % 3, 5)

    def forward(self, bottom, top):
        top[0].data[...] = self.calls
        self.calls += 1

    def backward(self, *_):
        pass
"""


@pytest.mark.ci
def test_an_output_whose_length_varies(workspace: Workspace) -> None:
    # Caffe's own sum of such an output writes past its end: caffe train prints other sums, and may
    # abort.
    workspace.write("boxes.py", BOXES)
    python = 'include { phase: TEST } python_param { module: "boxes" layer: "Boxes" }'
    net = nets.net() + layer("Python", "data", "boxes", python)
    workspace.write("net.prototxt", net)
    workspace.write("solver.prototxt", nets.solver(max_iter=10, test_interval=10))
    path = f"PYTHONPATH={ROOT}:{workspace.path}"
    done = workspace.command(
        ["env", path, *train_command("solver.prototxt", "--out", "out")]
    ).succeeded()
    assert done.out.count("the output 'boxes' has no mean over the batches") == 1
    run = workspace.run("out")
    for row in run.measurements():
        assert set(row["outputs"]) == {"accuracy", "top5", "loss"}
        assert row["outputs"]["accuracy"] == pytest.approx(row["top1"] / 100)
    assert "boxes: no mean (its length varies)" in run.log.read_text()


def test_a_policy_that_waits_for_what_no_test_measures(workspace: Workspace) -> None:
    """Its LR would fall at every n-th test."""
    training, test = "include { phase: TRAIN }", "include { phase: TEST }"
    ends = layer("SoftmaxWithLoss", "ip2 label", "loss", training)
    ends += layer("Reduction", "ip2", "sum", test) + layer("Silence", "label", "", test)
    workspace.write("net.prototxt", nets.net(last=ends))
    workspace.write("solver.prototxt", nets.solver(max_iter=4, test_interval=2))
    for number, policy in enumerate(
        (
            "PLATEAU(k0=0.01, gamma=0.1, n=1, metric=test_loss)",
            "FIX(k0=0.01) ; plateau(n=1, metric=test_loss): FIX(k0=0.001)",
        )
    ):
        done = workspace.train("solver.prototxt", "--lr", policy, "--out", f"out{number}")
        done.failed(1, f"--lr: {policy} decides by test_loss", "the test net #0")
        assert workspace.run(f"out{number}").record["iteration"] == 0
    mixed = "FIX(k0=0.01) ; plateau(n=1, metric=test_loss): PLATEAU(k0=0.01, gamma=0.1, n=1)"
    done = workspace.train("solver.prototxt", "--lr", mixed, "--out", "out")
    done.failed(2, "decides by top1, but the test net #0 of solver.prototxt does not classify")


# -- the head that counts --------------------------------------------------------------------------


def test_a_head_that_is_chosen(workspace: Workspace) -> None:
    solver = nets.solver(max_iter=4, test_interval=2, net='"two.prototxt"')
    workspace.write("two.prototxt", CASES["two heads"].net)
    workspace.write("solver.prototxt", solver)
    workspace.train("solver.prototxt", "--out", "default").succeeded()
    done = workspace.train(
        "solver.prototxt", "--head", "s2", "--out", "chosen", "--db", "sqlite:///lr.sqlite"
    ).succeeded()
    assert "Top-1 of the test net #0 is that of s2 (true classes: y)" in done.out
    default, chosen = (
        workspace.run("default").measurements(),
        workspace.run("chosen").measurements(),
    )
    for one, other in zip(default, chosen):
        assert other["top1"] == one["outputs"]["s2.top1"]
        assert other["outputs"]["s.top1"] == one["top1"]
    record = workspace.run("chosen").record["record"]
    assert (record["task_type"], record["head"], record["dataset"]["classes"]) == (
        "classification of s2", "s2", 2,
    )  # fmt: skip
    workspace.train("solver.prototxt", "--head", "s3", "--out", "x").failed(
        2, "--head: 's3'", "s, s2"
    )
    workspace.train("--resume", "--out", "chosen", "--head", "s").failed(2, "--resume: --head: s")
    resumed = workspace.train("--resume", "--out", "chosen", "--max-iter", "6").succeeded()
    assert "Top-1 of the test net #0 is that of s2" in resumed.out


# -- the last test ---------------------------------------------------------------------------------

BATCH_NORM = (
    product("data", "h", 8)
    + layer("BatchNorm", "h", "b", "batch_norm_param { moving_average_fraction: 0.5 }")
    + product("b", "ip2", 10)
)


@pytest.mark.parametrize("display", [10, 7, 0])
def test_the_last_test_of_a_net_with_batch_norm(workspace: Workspace, display: int) -> None:
    # caffe train makes a training pass more before its last test where max_iter is a multiple of
    # display.
    workspace.write("net.prototxt", nets.net(middle=BATCH_NORM))
    pair = train_both(
        workspace, nets.solver(max_iter=20, test_interval=10, display=display, average_loss=3)
    )
    pair.check_outputs()
    row = pair.run.measurements()[-1]
    assert row["outputs"]["loss"] == pytest.approx(dict(pair.caffe[20, 0])["loss"], rel=SIX_DIGITS)
    assert_same_weights(workspace.path / "tiny_iter_20.caffemodel", pair.run.model(20))
    further = re.findall(r"Iteration 20, loss = (\S+)", pair.run.log.read_text())
    assert len(further) == (display == 10)


def test_a_resumed_last_test(workspace: Workspace) -> None:
    workspace.write("net.prototxt", nets.net(middle=BATCH_NORM))
    workspace.write("solver.prototxt", nets.solver(max_iter=20, test_interval=10))
    workspace.train("solver.prototxt", "--out", "whole").succeeded()
    workspace.train("solver.prototxt", "--out", "parts", "--until", "15").succeeded()
    workspace.train("--resume", "--out", "parts").succeeded()
    whole, parts = (
        workspace.run("whole").last_measurements(),
        workspace.run("parts").last_measurements(),
    )
    assert whole == parts
