"""A test pass becomes a measurement."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lrbench_caffe.metrics import Counts
from lrbench_caffe.prototxt.heads import Head
from lrbench_caffe.prototxt.nets import PhaseNet
from lrbench_caffe.prototxt.solver import Solver, TestNet
from lrbench_caffe.runtime.counting import BY_CLASS, NUMBERS, Counter
from lrbench_caffe.runtime.replies import HeadRequest, Opened, TestPass
from lrbench_caffe.training.evaluator import measure, measuring_notes

NET = PhaseNet("test net #0", "net.prototxt", "TEST", "", ())
HEAD = Head("s", "s", "y")
OTHER = Head("t", "t", "z", axis=2, ignore_label=9)


def counted(scores, labels, **options) -> Counts:
    counter = Counter("logits", **options)
    counter.add(np.asarray(scores), np.asarray(labels))
    return Counts(**{name: getattr(counter, name) for name in (*NUMBERS, *BY_CLASS)})


# Probabilities 3/4 (right), 1/4 (wrong), and 5/8 (right).
COUNTS = counted(np.log([[0.75, 0.25], [0.75, 0.25], [0.375, 0.625]]), [0.0, 1.0, 1.0])
ONE = counted(np.log([[0.75, 0.25]]), [0.0])
NONE = counted([[0.5, 0.5]], [7.0], ignore_label=7)


class FakeWorker:
    """Answers a test of each net with a given outcome; remembers what it was asked."""

    def __init__(self, *passes: TestPass | None) -> None:
        self.passes = passes
        self.asked: list[tuple] = []

    def test(self, net, passes, heads, *, detections, log_loss, wants_stop):
        self.asked.append((net, passes, heads, detections, log_loss))
        return self.passes[net]


def run_pass(worker: FakeWorker, *tests: TestNet, train_loss: float | None = 0.25):
    message = SimpleNamespace(test_compute_loss=True)
    solver = Solver(Path("s"), message, {}, NET, None, list(tests))
    return measure(
        worker, solver, iteration=100, lr=0.01, train_loss=train_loss, elapsed=lambda: 1.23456
    )


def measured(*args, **options):
    found = run_pass(*args, **options)
    assert found.notes == []
    return found.measurements


def test_by_hand():
    worker = FakeWorker(TestPass({"loss": [0.5]}, 0.5, [COUNTS]))
    (row,) = measured(worker, TestNet(NET, None, 2, (HEAD,)))
    how = {"form": "logits", "axis": 1, "ignore_label": None, "ignore_outside": None}
    assert worker.asked == [(0, 2, [HeadRequest("s", "y", how)], {}, True)]
    assert (row.iteration, row.lr, row.seconds, row.net, row.samples) == (100, 0.01, 1.235, 0, 3)
    assert row.top1 == pytest.approx(200 / 3)
    assert row.top5 == 100
    assert row.ac == pytest.approx((0.75 + 0.625) / 2)
    assert row.cd == row.cdac == pytest.approx((0.75 - 0.625) / 2)
    assert (row.test_loss, row.train_loss, row.ld) == (
        0.5,
        0.25,
        0.25,
    )  # Caffe's own loss is the test loss
    assert row.outputs == {"loss": 0.5}


def test_before_the_first_update_there_is_no_training_loss():
    worker = FakeWorker(TestPass({}, 0.5, [COUNTS]))
    (row,) = measured(worker, TestNet(NET, None, 2, (HEAD,)), train_loss=None)
    assert (row.test_loss, row.train_loss, row.ld) == (0.5, None, None)


def test_without_a_loss_of_its_own_the_cross_entropy_is_the_test_loss():
    worker = FakeWorker(TestPass({}, None, [COUNTS]))
    (row,) = measured(worker, TestNet(NET, None, 2, (HEAD,)))
    assert row.test_loss == pytest.approx(-math.log(0.75 * 0.25 * 0.625) / 3)
    assert row.ld == pytest.approx(row.test_loss - 0.25)


def test_a_net_that_does_not_classify():
    worker = FakeWorker(TestPass({"loss": [4.0]}, 4.0))
    (row,) = measured(worker, TestNet(NET, None, 2))
    assert worker.asked == [(0, 2, [], {}, True)]
    assert (row.top1, row.top5, row.ac, row.cd, row.cdac, row.samples) == (
        None,
        None,
        None,
        None,
        None,
        0,
    )
    assert (row.test_loss, row.ld) == (4.0, 3.75)
    assert row.outputs == {"loss": 4.0}


def test_several_test_nets():
    worker = FakeWorker(TestPass({}, 0.5, [COUNTS]), TestPass({}, 2.0, [ONE]))
    rows = measured(worker, TestNet(NET, None, 2, (HEAD,)), TestNet(NET, None, 1, (HEAD,)))
    assert [(row.net, row.samples, row.test_loss) for row in rows] == [(0, 3, 0.5), (1, 1, 2.0)]
    assert [asked[:2] for asked in worker.asked] == [(0, 2), (1, 1)]


def test_outputs_of_several_values_and_further_heads():
    worker = FakeWorker(
        TestPass({"acc": [0.5], "each": [0.25, 0.75], "map": [0.0] * 101}, 0.5, [COUNTS, ONE])
    )
    (row,) = measured(worker, TestNet(NET, None, 2, (HEAD, OTHER)))
    assert worker.asked[0][2][1].how == {
        "form": "logits", "axis": 2, "ignore_label": 9, "ignore_outside": None,
    }  # fmt: skip
    own = {"acc": 0.5, "each": 0.25, "each[1]": 0.75}
    further = {
        "t.top1": 100.0,
        "t.top5": 100.0,
        "t.ac": pytest.approx(0.75),
        "t.cd": 0.0,
        "t.cdac": 0.0,
    }
    assert row.outputs == {**own, **further}


@pytest.mark.parametrize(
    ("counts", "head", "why"),
    [
        (
            "labels from 0 to 2, but 2 classes (labels 0 to 1)",
            HEAD,
            "labels from 0 to 2, but 2 classes",
        ),
        (NONE, Head("s", "s", "y", ignore_label=7), "all labels are ignored"),
        (NONE, HEAD, "no sample that counts"),
    ],
)
def test_what_cannot_be_measured_is_said_and_the_rest_is_kept(counts, head, why):
    worker = FakeWorker(TestPass({"acc": [0.5]}, 0.5, [counts, ONE]))
    found = run_pass(worker, TestNet(NET, None, 2, (head, OTHER)))
    (row,) = found.measurements
    assert (row.top1, row.ac, row.samples, row.test_loss) == (None, None, 0, 0.5)
    assert (row.outputs["acc"], row.outputs["t.top1"]) == (0.5, 100)
    (note,) = found.notes
    assert note.startswith("WARNING: test net #0: no metrics of 's' with the labels 'y': " + why)


def test_an_output_without_a_mean():
    worker = FakeWorker(TestPass({"boxes": [], "acc": [0.5]}, None))
    found = run_pass(worker, TestNet(NET, None, 2))
    assert found.measurements[0].outputs == {"acc": 0.5}
    assert found.notes == ["test net #0: the output 'boxes' has no mean over the batches"]


def test_a_pass_that_was_ended_is_no_measurement():
    assert run_pass(FakeWorker(None), TestNet(NET, None, 2, (HEAD,))) is None


def test_what_is_said_of_the_blobs():
    solver = Solver(
        Path("s"),
        None,
        {},
        NET,
        None,
        [TestNet(NET, None, 2, (HEAD, OTHER)), TestNet(NET, None, 1)],
    )
    shapes = {"s": [2, 5], "t": [2, 3, 4]}
    assert measuring_notes(solver, Opened(0, 0, [shapes, shapes])) == [
        "Top-1 of the test net #0 is that of s (true classes: y); also measured, as outputs: t "
        "(head NAME chooses another one)"
    ]
    solver.tests[:] = [TestNet(NET, None, 2, (HEAD,))]
    (note,) = measuring_notes(solver, Opened(0, 0, [{"s": [2, 5, 8, 4]}]))
    assert "over all 32 positions of a record and all batches together" in note
