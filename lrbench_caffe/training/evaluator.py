"""The LR policy evaluator: makes a measurement from a test pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lrbench_caffe.errors import named
from lrbench_caffe.metrics import OF_SCORES, Counts, Measurement, TestMetrics
from lrbench_caffe.prototxt.heads import Head
from lrbench_caffe.prototxt.solver import Solver, TestNet
from lrbench_caffe.runtime.client import Worker, never
from lrbench_caffe.runtime.counting import SIGMOID
from lrbench_caffe.runtime.replies import HeadRequest, Opened, TestPass

RECORDED = 100  # values of one output, at most, that a measurement keeps
DETECTION = "DetectionEvaluate"  # a layer of SSD's fork
AP_VERSION = "Integral"  # how that takes the area under a curve unless the solver says otherwise


@dataclass
class TestResults:
    """The results of the test nets.

    Attributes:
        measurements: one for each test net.
        notes: what could not be measured, and why.
    """

    __test__ = False  # not a test class, whatever pytest thinks of the name

    measurements: list[Measurement] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def head_request(head: Head) -> HeadRequest:
    """The request to the worker to count a head."""
    how = {
        "form": head.form,
        "axis": head.axis,
        "ignore_label": head.ignore_label,
        "ignore_outside": head.ignore_outside,
    }
    return HeadRequest(head.scores, head.labels, how)


def run_test(
    worker: Worker, solver: Solver, index: int, wants_stop: Callable[[], bool] = never
) -> TestPass | None:
    """One pass of test net ``index``, counting all its heads; None where ``wants_stop`` ended it."""
    test = solver.tests[index]
    return worker.test(
        index,
        test.passes,
        [head_request(head) for head in test.heads],
        detections=_detections(solver, test),
        log_loss=bool(solver.message.test_compute_loss),
        wants_stop=wants_stop,
    )


def measure(
    worker: Worker,
    solver: Solver,
    *,
    iteration: int,
    lr: float,
    train_loss: float | None,
    elapsed: Callable[[], float],
    wants_stop: Callable[[], bool] = never,
) -> TestResults | None:
    """Test all test nets; None where ``wants_stop`` ended a pass.

    Args:
        iteration: updates done so far.
        lr: the learning rate of the next update.
        train_loss: mean training loss since the previous test, None where there was no update.
        elapsed: seconds since the run began.
        wants_stop: asked several times a second.
    """
    result = TestResults()
    for index, test in enumerate(solver.tests):
        if test.passes <= 0:  # Caffe tests it with no batch
            worker.write_log(f"Iteration {iteration}, Testing net (#{index})")
            continue
        outcome = run_test(worker, solver, index, wants_stop)
        if outcome is None:
            return None
        metrics = [_metrics(counts) for counts in outcome.heads]
        result.notes += _notes(test, outcome)
        main = metrics[0] if metrics else None
        test_loss = outcome.loss
        if test_loss is None and main:
            test_loss = main.cross_entropy  # the worker sums it where the net has no loss
        result.measurements.append(
            Measurement(
                iteration=iteration,
                lr=lr,
                **{name: getattr(main, name, None) for name in OF_SCORES},
                test_loss=test_loss,
                train_loss=train_loss,
                ld=None if test_loss is None or train_loss is None else test_loss - train_loss,
                seconds=round(elapsed(), 3),
                samples=main.samples if main else 0,
                silent_classes=main.silent_classes if main else 0,
                net=index,
                outputs={**_outputs(outcome), **_further_heads(test, metrics)},
            )
        )
    return result


def measuring_notes(solver: Solver, opened: Opened) -> list[str]:
    """Remarks on how the test nets are measured: which blob, and over what."""
    notes = []
    for test, shapes in zip(solver.tests, opened.test_shapes):
        if test.head is None:
            continue
        of = f"{test.head.scores} (true classes: {test.head.labels})"
        text = f"Top-1 of the {test.net.title} is that of {of}"
        shape = shapes[test.head.scores]
        vectors, classes = _size(shape), test.head.classes(shape)
        if test.head.form != SIGMOID and classes:
            vectors //= classes
        if shape and vectors > shape[0]:
            text += (
                f", over all {vectors // shape[0]} positions of a record and all batches together "
                "(Caffe's Accuracy layer takes the mean over batches)"
            )
        others = ", ".join(head.name for head in test.heads[1:])
        if others:
            text += (
                f"; also measured, as outputs: {others} ({named('head')} NAME chooses another one)"
            )
        notes.append(text)
    return notes


def _size(shape: list[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def _metrics(counts: Counts | str) -> TestMetrics | None:
    return None if isinstance(counts, str) else counts.metrics()


def _notes(test: TestNet, outcome: TestPass) -> list[str]:
    """Why a head has no metrics, in words that stay the same from test to test."""
    notes = []
    for head, counts in zip(test.heads, outcome.heads):
        if isinstance(counts, str):
            why = counts
        elif not counts.samples:
            why = "no sample that counts" if head.ignore_label is None else "all labels are ignored"
        else:
            continue
        notes.append(
            f"WARNING: {test.net.title}: no metrics of {head.scores!r} with the labels {head.labels!r}: "
            f"{why}; only Caffe's own outputs are recorded"
        )
    varying = [name for name, values in outcome.outputs.items() if not values]
    notes += [
        f"{test.net.title}: the output {name!r} has no mean over the batches" for name in varying
    ]
    return notes


def _outputs(outcome: TestPass) -> dict[str, float]:
    """The net's own outputs by name; of a vector NAME the further values are NAME[1], NAME[2], ..."""
    scalars = {}
    for name, values in outcome.outputs.items():
        if len(values) <= RECORDED:
            scalars.update({f"{name}[{i}]" if i else name: value for i, value in enumerate(values)})
    return scalars


def _further_heads(test: TestNet, metrics: list[TestMetrics | None]) -> dict[str, float]:
    return {
        f"{head.name}.{name}": getattr(measured, name)
        for head, measured in zip(test.heads[1:], metrics[1:])
        if measured
        for name in OF_SCORES
    }


def _detections(solver: Solver, test: TestNet) -> dict[str, str]:
    """The outputs of DetectionEvaluate layers, with the solver's ap_version."""
    layers = test.net.of_type(DETECTION)
    version = getattr(solver.message, "ap_version", AP_VERSION) if layers else AP_VERSION
    return {layer.top[0]: str(version) for layer in layers if layer.top}
