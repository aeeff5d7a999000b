"""The policy evaluator's measuring side: a test pass becomes a measurement."""

from __future__ import annotations

from collections.abc import Callable

from lrbench_caffe.metrics import Measurement, MetricsAccumulator, TestMetrics
from lrbench_caffe.prototxt.solver import Solver, TestNet
from lrbench_caffe.runtime.client import TestPass, Worker, never


def evaluate(
    worker: Worker, index: int, test: TestNet, wants_stop: Callable[[], bool] = never
) -> tuple[TestMetrics | None, TestPass] | None:
    """One test pass of test net ``index``: our metrics, and what the net itself puts out.

    The metrics are None for a net that does not classify; all is None where ``wants_stop`` ended the pass.
    """
    scores = test.scores
    blobs, accumulator = None, None
    if scores:
        blobs = (scores.scores, scores.labels)
        accumulator = MetricsAccumulator(scores.probabilities, scores.axis, scores.ignore_label)
    for item in worker.test(index, test.passes, blobs, wants_stop):
        if isinstance(item, TestPass):
            return (accumulator.compute() if accumulator else None), item
        if accumulator:
            accumulator.add(item["scores"], item["labels"])
    return None


def measure(
    worker: Worker,
    solver: Solver,
    *,
    iteration: int,
    lr: float,
    train_loss: float | None,
    elapsed: Callable[[], float],
    wants_stop: Callable[[], bool] = never,
) -> list[Measurement] | None:
    """Test all test nets; one measurement for each, or None where ``wants_stop`` ended a pass.

    Args:
        iteration: updates done so far.
        lr: the learning rate of the next update.
        train_loss: mean training loss since the previous test, None where there was no update.
        elapsed: seconds since the run began.
        wants_stop: asked several times a second.
    """
    measurements = []
    for index, test in enumerate(solver.tests):
        result = evaluate(worker, index, test, wants_stop)
        if result is None:
            return None
        metrics, outcome = result
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
