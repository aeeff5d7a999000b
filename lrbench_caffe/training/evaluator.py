"""The policy evaluator's measuring side: a test pass becomes a measurement."""

from __future__ import annotations

from collections.abc import Callable

from lrbench_caffe.errors import TrainingError
from lrbench_caffe.metrics import Measurement, MetricsAccumulator, TestMetrics
from lrbench_caffe.prototxt.solver import Solver, TestNet
from lrbench_caffe.runtime.client import TestPass, Tick, Worker, no_tick


def evaluate(
    worker: Worker, index: int, test: TestNet, tick: Tick = no_tick
) -> tuple[TestMetrics | None, TestPass]:
    """One test pass of test net ``index``: our metrics, and what the net itself puts out.

    The metrics are None for a net that does not classify.
    """
    scores = test.scores
    blobs, accumulator = None, None
    if scores:
        blobs = (scores.scores, scores.labels)
        accumulator = MetricsAccumulator(scores.probabilities, scores.axis, scores.ignore_label)
    for item in worker.test(index, test.passes, blobs, tick):
        if isinstance(item, TestPass):
            return (accumulator.compute() if accumulator else None), item
        if accumulator:
            accumulator.add(item["scores"], item["labels"])
    raise TrainingError("the test pass ended without a result")


def measure(
    worker: Worker,
    solver: Solver,
    *,
    iteration: int,
    lr: float,
    train_loss: float | None,
    elapsed: Callable[[], float],
    tick: Tick = no_tick,
) -> list[Measurement]:
    """Test all test nets; one measurement for each.

    Args:
        iteration: updates done so far.
        lr: the learning rate of the next update.
        train_loss: mean training loss since the previous test, None where there was no update.
        elapsed: seconds since the run began.
    """
    measurements = []
    for index, test in enumerate(solver.tests):
        metrics, outcome = evaluate(worker, index, test, tick)
        test_loss = outcome.loss
        if test_loss is None and metrics:
            test_loss = metrics.cross_entropy
        measurements.append(
            Measurement(
                iteration=iteration,
                lr=lr,
                top1=metrics.top1 if metrics else None,
                top5=metrics.top5 if metrics else None,
                ac=metrics.ac if metrics else None,
                cd=metrics.cd if metrics else None,
                cdac=metrics.cdac if metrics else None,
                test_loss=test_loss,
                train_loss=train_loss,
                ld=None if test_loss is None or train_loss is None else test_loss - train_loss,
                seconds=round(elapsed(), 3),
                samples=metrics.samples if metrics else 0,
                silent_classes=metrics.silent_classes if metrics else 0,
                net=index,
            )
        )
    return measurements
