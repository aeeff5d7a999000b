"""Chooses what a study compares by, and looks at its value for a net that has learned nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from lrbench_caffe.errors import InputError, ParameterError, did_you_mean
from lrbench_caffe.knowledge.criteria import (
    CRITERIA,
    Criterion,
    direction_note,
    output,
    own_criterion,
)
from lrbench_caffe.metrics import METRICS, UTILITY, Measurement, scalars
from lrbench_caffe.prototxt.solver import Solver
from lrbench_caffe.prototxt.task import open_worker
from lrbench_caffe.records import Task
from lrbench_caffe.runtime.info import caffe_info
from lrbench_caffe.runtime.locate import find_caffe_python
from lrbench_caffe.training.evaluator import measure
from lrbench_caffe.tuning.measure import Measure

# Metrics that nobody trains for: an untrained net has the best ones.
_NO_AIM = ("cd", "cdac")
OWN = tuple(m.name for m in METRICS.values() if m.kind == UTILITY and m.name not in _NO_AIM)
BATCHES = 10  # of the test net that are looked at


def choose_measure(
    solver: Solver,
    task: Task,
    by: str | None,
    higher: bool | None,
    *,
    caffe_python: str | None = None,
    level: int = 0,
    stages: Sequence[str] = (),
) -> tuple[Measure, str]:
    """What a study of a solver compares by, and what a person should know of it.

    For another measure than Top-1, Caffe opens the solver with random weights and tests a few
    batches: so its name is known to be right, and what its value is before anything was learned.

    Args:
        by: "top1", "top5", "ac", "test_loss", or an output of the first test net; None for Top-1,
            or the test loss where the net does not classify.
        higher: whether more of it is better; None to find out.

    Raises:
        InputError: the net has no such output, or which direction is better cannot be told.
        TrainingError: Caffe crashes or hangs.
    """
    if not solver.tests or solver.tests[0].passes <= 0:
        raise InputError(f"{solver.path}: no test net with a test_iter: tests are compared")
    classifies = solver.tests[0].head is not None
    top1 = Measure.of_top1(100.0 / task.dataset.classes if task.dataset.classes else 0.0)
    if (by or "top1") == "top1" and classifies:
        own_criterion("top1", higher)  # has its own direction
        return top1, ""
    test = _first_test(solver, caffe_python, level, stages)
    if by is None and test.test_loss is None:
        raise ParameterError(
            "{by}: missing; allowed, as the test net of {0} has no loss: {1}",
            solver.path,
            ", ".join(scalars(test)) or "nothing, it has no output either",
        )
    criterion = _criterion(solver, test, by or "test_loss", higher)
    if criterion is CRITERIA["top1"]:  # in capitals, and no output is called so
        return top1, ""
    value = Measure.of(criterion.name, criterion.higher, 0.0).value(test)
    if value is None or not math.isfinite(value):
        raise ParameterError(
            "{by}: {0}: {1} in a test of the untrained net; allowed: what is a finite number there",
            criterion.name,
            value,
        )
    return Measure.of(criterion.name, criterion.higher, value), direction_note([criterion])


def _first_test(
    solver: Solver, caffe_python: str | None, level: int, stages: Sequence[str]
) -> Measurement:
    """A test of the first test net with random weights, of a few batches."""
    first = replace(solver.tests[0], passes=min(BATCHES, solver.tests[0].passes))
    python = find_caffe_python(caffe_python)
    info = caffe_info(python)
    with open_worker(solver, info, python, level=level, stages=stages) as (worker, _):
        short = replace(solver, tests=[first])
        tested = measure(worker, short, iteration=0, lr=0.0, train_loss=None, elapsed=lambda: 0.0)
    assert tested is not None  # nothing wants it to stop
    return tested.measurements[0]


def _criterion(solver: Solver, test: Measurement, name: str, higher: bool | None) -> Criterion:
    """The criterion called ``name`` in a test."""
    own = [one for one in OWN if getattr(test, one) is not None]
    outputs = scalars(test)
    is_output = name in outputs and name not in METRICS
    if not is_output and name.lower() in own:
        return own_criterion(name.lower(), higher)
    if name in METRICS and name in outputs:
        raise ParameterError(
            "{by}: {0}: an output of the test net of {1} has the name of one of our metrics; allowed: "
            "another name for its top",
            name,
            solver.path,
        )
    if not is_output:
        known = (*own, *outputs)
        hint = did_you_mean(name, known) or ";"
        raise ParameterError(
            "{by}: unknown output {0!r}{1} outputs of the test net of {2}: {3}",
            name,
            hint,
            solver.path,
            ", ".join(known) or "none",
        )
    by_layer = _direction_of_layer(solver, name) if higher is None else None
    if by_layer is not None:
        return replace(output(name, by_layer), guessed=True)
    loss = test.test_loss
    return output(name, higher, () if loss is None else [(outputs[name], loss)])


def _direction_of_layer(solver: Solver, name: str) -> bool | None:
    """Whether more of an output is better by the layer that makes it, None where that does not tell."""
    layers = [layer.type for layer in solver.tests[0].net.layers if name in layer.top]
    if "Accuracy" in layers:
        return True
    return False if any(kind.endswith("Loss") for kind in layers) else None
