"""The tests that a log prints, as measurements.

- A test's train_loss is the mean of the *displayed* losses since the previous test (Caffe shows one
  every ``display`` iterations, averaged over ``average_loss``), so LD is less exact than a measured
  one.
- Top-1 and Top-5 are those of the main head's Accuracy layers with top_k 1 and 5. Where the loss is
  not a number, Caffe counts every sample as correct; such a test has neither.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace

from lrbench_caffe.importing.rates import LoggedPolicy
from lrbench_caffe.importing.sessions import LogSession, PrintedTest
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.prototxt.heads import accuracies_of
from lrbench_caffe.prototxt.solver import Solver, TestNet


def lost_at(run: list[LogSession]) -> int | None:
    """The iteration from which on every loss is NaN or infinite; None if the last loss is finite.

    A loss averaged over average_loss iterations never recovers from one that was infinite, so it
    counts less than the losses of one iteration and those of tests.
    """
    averaged, test, own = range(3)  # their order within an iteration
    told: list[tuple[int, int, bool]] = []
    for session in run:
        if session.resumed is not None:
            told = [item for item in told if item[0] < session.start]
        told += [
            (loss.iteration, own if loss.parts else averaged, loss.finite)
            for loss in session.losses
        ]
        for passed in session.tests:
            losses = [loss for _, loss in passed.outputs.values() if loss is not None]
            if losses:
                told.append((passed.iteration, test, all(map(math.isfinite, losses))))
    lost = None
    for iteration, _, finite in sorted(told):
        lost = None if finite else iteration if lost is None else lost
    return lost


def name_scores(run: list[LogSession], nets: list[TestNet]) -> None:
    """Give the outputs of Caffe before June 2014 their names, which it did not print.

    They are the blobs that no layer reads, in alphabetical order. The Accuracy layer of 2013 had
    two values, the accuracy and the loss.
    """
    for test in (test for session in run for test in session.tests if test.net < len(nets)):
        scores = [value for name, (value, _) in test.outputs.items() if name.startswith("score #")]
        net = nets[test.net].net
        read = {blob for layer in net.layers for blob in layer.bottom}
        makers = {top: layer for layer in net.layers for top in layer.top if top not in read}
        if scores and len(scores) == len(makers):
            test.outputs = {
                name: (score, score if "Loss" in makers[name].type else None)
                for name, score in zip(sorted(makers), scores)
            }
        elif len(scores) == 2 and [layer.type for layer in makers.values()] == ["Accuracy"]:
            (name,) = makers
            test.outputs = {name: (scores[0], None), f"{name}[1]": (scores[1], scores[1])}


def measurements_of(
    run: list[LogSession], solver: Solver, policy: LoggedPolicy
) -> list[Measurement]:
    """The tests of a run, each once: a resumed session repeats what came after its snapshot."""
    measured_at: dict[tuple[int, int], Measurement] = {}
    losses: dict[int, float] = {}
    before = 0.0  # seconds in earlier sessions
    lost = lost_at(run)
    expected = _expected(run)
    lrs = {t: lr for session in run for t, lr in session.lrs.items() if t not in policy.wrong}
    for session in run:
        if session.resumed is not None:
            losses = {t: loss for t, loss in losses.items() if t < session.start}
            measured_at = {key: m for key, m in measured_at.items() if key[0] <= session.start}
        losses.update((loss.iteration, loss.value) for loss in session.losses)
        for test in session.tests:
            last = test is session.tests[-1] and not session.done
            if not test.outputs or (
                last and test.outputs.keys() != expected[test.net].keys()
            ):  # cut short
                continue
            seconds = before + max(0.0, test.at - session.began)
            lr = lrs.get(test.iteration, float(policy.policy(test.iteration)))
            measured = _measurement(test, expected[test.net], solver, lr, seconds, lost)
            measured_at[test.iteration, test.net] = measured
        before += session.ended - session.began
    return _with_train_losses([measured_at[key] for key in sorted(measured_at)], losses)


def _expected(run: list[LogSession]) -> dict[int, dict[str, bool]]:
    """For each test net the names of its outputs, and whether they are losses."""
    names: dict[int, dict[str, bool]] = {}
    for test in (test for session in run for test in session.tests):
        of_net = names.setdefault(test.net, {})
        for name, (_, loss) in test.outputs.items():
            of_net[name] = of_net.get(name, False) or loss is not None
    return names


def _measurement(
    test: PrintedTest,
    expected: dict[str, bool],
    solver: Solver,
    lr: float,
    seconds: float,
    lost_at: int | None,
) -> Measurement:
    """Without the training loss. The test loss is the sum of all losses, or None where one is missing."""
    losses = [
        test.outputs.get(name, (0.0, None))[1] for name, is_loss in expected.items() if is_loss
    ]
    known = [loss for loss in losses if loss is not None]
    test_loss = math.fsum(known) if known and len(known) == len(losses) else None
    lost = not all(map(math.isfinite, known)) or (lost_at is not None and test.iteration > lost_at)
    top1, top5 = (None if lost else _accuracy(test, solver, k) for k in (1, 5))
    net = solver.tests[test.net] if test.net < len(solver.tests) else None
    return Measurement(
        iteration=test.iteration,
        lr=lr,
        top1=top1,
        top5=top5,
        test_loss=None if lost else test_loss,
        seconds=round(seconds, 3),
        samples=net.passes * net.source.batch if net and net.source else 0,
        net=test.net,
        outputs={name: value for name, (value, _) in test.outputs.items() if math.isfinite(value)},
    )


def _accuracy(test: PrintedTest, solver: Solver, top_k: int) -> float | None:
    """In percent, of the last Accuracy layer of the head that has this top_k."""
    if test.net >= len(solver.tests):
        return None
    tested = solver.tests[test.net]
    layers = accuracies_of(tested.net, tested.head) if tested.head else []
    tops = [layer.top[0] for layer in layers if layer.top and layer.accuracy_param.top_k == top_k]
    shown = [top for top in tops if top in test.outputs]
    if not shown:
        return None
    value, _ = test.outputs[shown[-1]]
    return round(100 * value, 6) if 0 <= value <= 1 else None


def _with_train_losses(
    measurements: list[Measurement], losses: dict[int, float]
) -> list[Measurement]:
    """train_loss: the mean of the losses displayed from the previous test's iteration on."""
    done = []
    displayed = deque(sorted(losses.items()))
    current = 0
    mean = None
    for measurement in measurements:
        if measurement.iteration != current:
            current = measurement.iteration
            shown = []
            while displayed and displayed[0][0] < current:
                shown.append(displayed.popleft()[1])
            finite = [loss for loss in shown if math.isfinite(loss)]
            mean = math.fsum(finite) / len(finite) if finite else None
        test = measurement.test_loss
        ld = test - mean if test is not None and mean is not None else None
        done.append(replace(measurement, train_loss=mean, ld=ld))
    return done
