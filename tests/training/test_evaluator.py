"""A test pass becomes a measurement."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from lrbench_caffe.prototxt.nets import PhaseNet, Scores
from lrbench_caffe.prototxt.solver import Solver, TestNet
from lrbench_caffe.runtime.client import TestPass
from lrbench_caffe.training.evaluator import measure

NET = PhaseNet("test net #0", "net.prototxt", "TEST", "", ())
LOGITS = Scores("s", "y", probabilities=False, axis=1, ignore_label=None)

# Probabilities 3/4 (right) and 1/4 (wrong), then 1/2 + (right): two batches of one sample and one of two.
BATCHES = [
    {"scores": np.log([[0.75, 0.25]]), "labels": np.array([0.0])},
    {"scores": np.log([[0.75, 0.25], [0.375, 0.625]]), "labels": np.array([1.0, 1.0])},
]


class FakeWorker:
    """Answers a test with given batches and outcome; remembers what it was asked."""

    def __init__(self, *passes: list) -> None:
        self.passes = passes
        self.asked: list[tuple] = []

    def test(self, net, passes, blobs, tick):
        self.asked.append((net, passes, blobs))
        yield from self.passes[net]


def measured(worker: FakeWorker, *tests: TestNet, train_loss: float | None = 0.25):
    solver = Solver(Path("s"), None, {}, NET, None, list(tests))
    return measure(worker, solver, iteration=100, lr=0.01, train_loss=train_loss, elapsed=lambda: 1.23456)


def test_by_hand():
    worker = FakeWorker([*BATCHES, TestPass({"loss": [0.5]}, 0.5)])
    (row,) = measured(worker, TestNet(NET, None, 2, LOGITS))
    assert worker.asked == [(0, 2, ("s", "y"))]
    assert (row.iteration, row.lr, row.seconds, row.net, row.samples) == (100, 0.01, 1.235, 0, 3)
    assert row.top1 == pytest.approx(200 / 3)
    assert row.top5 == 100
    assert row.ac == pytest.approx((0.75 + 0.625) / 2)
    assert row.cd == row.cdac == pytest.approx((0.75 - 0.625) / 2)
    assert (row.test_loss, row.train_loss, row.ld) == (0.5, 0.25, 0.25)  # Caffe's own loss is the test loss


def test_before_the_first_update_there_is_no_training_loss():
    worker = FakeWorker([*BATCHES, TestPass({}, 0.5)])
    (row,) = measured(worker, TestNet(NET, None, 2, LOGITS), train_loss=None)
    assert (row.test_loss, row.train_loss, row.ld) == (0.5, None, None)


def test_without_a_loss_of_its_own_the_cross_entropy_is_the_test_loss():
    worker = FakeWorker([*BATCHES, TestPass({}, None)])
    (row,) = measured(worker, TestNet(NET, None, 2, LOGITS))
    assert row.test_loss == pytest.approx(-math.log(0.75 * 0.25 * 0.625) / 3)
    assert row.ld == pytest.approx(row.test_loss - 0.25)


def test_a_net_that_does_not_classify():
    worker = FakeWorker([{}, {}, TestPass({"loss": [4.0]}, 4.0)])
    (row,) = measured(worker, TestNet(NET, None, 2, None))
    assert worker.asked == [(0, 2, None)]
    assert (row.top1, row.top5, row.ac, row.cd, row.cdac, row.samples) == (None, None, None, None, None, 0)
    assert (row.test_loss, row.ld) == (4.0, 3.75)


def test_several_test_nets():
    worker = FakeWorker([*BATCHES, TestPass({}, 0.5)], [BATCHES[0], TestPass({}, 2.0)])
    rows = measured(worker, TestNet(NET, None, 2, LOGITS), TestNet(NET, None, 1, LOGITS))
    assert [(row.net, row.samples, row.test_loss) for row in rows] == [(0, 3, 0.5), (1, 1, 2.0)]
    assert [asked[:2] for asked in worker.asked] == [(0, 2), (1, 1)]


def test_how_scores_are_read():
    probabilities = {"scores": np.exp(BATCHES[0]["scores"]), "labels": np.array([0.0])}
    worker = FakeWorker([probabilities, {**probabilities, "labels": np.array([9.0])}, TestPass({}, 0.5)])
    scores = Scores("p", "y", probabilities=True, axis=1, ignore_label=9)
    (row,) = measured(worker, TestNet(NET, None, 2, scores))
    assert (row.samples, row.ac) == (1, pytest.approx(0.75))


def test_a_pass_that_was_ended_is_no_measurement():
    assert measured(FakeWorker(BATCHES), TestNet(NET, None, 2, LOGITS)) is None
