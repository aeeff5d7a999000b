"""Runs from Caffe's own logs: the stderr of `caffe train`, and the caffe_output.log of a DIGITS job.

A log tells the solver's parameters, the nets with the shapes of their blobs, the tests, the displayed losses
and LRs, and how it ended. What it does not tell is None: the metrics AC, CD and CDAC, and what only the data
set's files would say, unless they are still where the log says.

- A test's train_loss is the mean of the *displayed* losses since the previous test (Caffe shows one every
  ``display`` iterations, averaged over ``average_loss``), so LD is less exact than a measured one.
- Top-1 and Top-5 are those of Accuracy layers with top_k 1 and 5. Where the loss is not a number, Caffe
  counts every sample as correct; such a test has neither.
- A log with several runs gives as many records; one that was resumed in it is one run.
- Old logs give no year; it is taken from the file's date. Times are taken as this machine's local time.
"""

from __future__ import annotations

import math
import os
import re
import time
import uuid
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from lrbench_caffe.database.logsessions import (
    Block,
    NetText,
    PrintedTest,
    Session,
    read_lines,
    runs_of,
    sessions_of,
)
from lrbench_caffe.errors import InputError
from lrbench_caffe.lr import Policy, PolicyError, from_caffe
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.prototxt.heads import find_heads
from lrbench_caffe.prototxt.messages import Messages
from lrbench_caffe.prototxt.nets import PHASES, PhaseNet, phase_layers
from lrbench_caffe.prototxt.solver import Solver, TestNet
from lrbench_caffe.prototxt.sources import Source, find_source
from lrbench_caffe.records import Dataset, Framework, PolicyRecord, RunRecord, caffe_seed
from lrbench_caffe.runtime.client import Opened
from lrbench_caffe.runtime.info import caffe_info
from lrbench_caffe.runtime.locate import find_caffe_python
from lrbench_caffe.runtime.reader import CaffeReader
from lrbench_caffe.task import WEIGHTED, dataset, dataset_name, network, solver_settings, task_type
from lrbench_caffe.training.settings import shortest

UNKNOWN = "unknown"  # version of Caffe: a log does not tell it
_OUR_POLICY = re.compile(r"\] Learning Rate Policy: (\w+\(.*)")  # Caffe's own have a name only
_NAMESPACE = uuid.UUID("0f3b9a1e-53e5-5d0a-9c1d-0f6d2f0a6a57")  # of runs that are known by their log


def records_from_log(
    path: Path, messages: Messages | None = None, *, solver: Path | None = None
) -> list[RunRecord]:
    """The runs in a log. The same log gives the same uids, wherever it lies.

    Args:
        path: the log.
        messages: Caffe's messages; by default those of this machine's Caffe.
        solver: for a log whose beginning is lost: its solver.prototxt. By default a solver.prototxt beside
            the log, as DIGITS has it, is used.

    Raises:
        InputError: the file cannot be read, holds no training, or holds one that cannot be understood (the
            message names file and line); or there is no Caffe.
    """
    log = read_lines(path)
    _refuse_our_own(path, log)
    sessions = [s for s in sessions_of(path, log) if s.trained]
    if not sessions:
        raise InputError(f"{path}: no training in it (no line with 'Iteration N')")
    year = time.localtime(path.stat().st_mtime).tm_year
    messages = messages or _messages()
    reader = _Reader(path, messages, solver, year)
    return [reader.record(run) for run in runs_of(sessions)]


def _messages() -> Messages:
    python = find_caffe_python(None)
    return Messages(caffe_info(python).descriptor, CaffeReader(python))


# -- as a record ------------------------------------------------------------------------------------


def _refuse_our_own(path: Path, log: list[str]) -> None:
    """A run directory's caffe.log does not tell its policy: to Caffe, the LR was fixed."""
    for number, line in enumerate(log, 1):
        found = _OUR_POLICY.search(line)
        if found:
            raise InputError(
                f"{path}:{number}: the log of a training by lrbench_caffe with {found[1]}; "
                f"its run directory is what can be brought in: db sync {path.parent}"
            )


@dataclass(frozen=True)
class _Reader:
    """Makes records of runs.

    Args:
        solver: the solver file for sessions that print none.
        year: of stamps without one.
    """

    path: Path
    messages: Messages
    solver: Path | None
    year: int

    def record(self, run: list[Session]) -> RunRecord:
        session = run[-1]
        solver, opened = self._solver(session)
        policy = self._policy(session, solver)
        message = solver.message
        status, reason = _status(run, message.max_iter)
        began = self._seconds(run[0].first)
        first = run[0].solver.text if run[0].solver else ""
        origin = str(self.path) + (f" (finetuned from {run[0].weights})" if run[0].weights else "")
        return RunRecord(
            uid=str(uuid.uuid5(_NAMESPACE, f"{run[0].first}\n{first}")),
            source="imported",
            origin=origin,
            framework=Framework("Caffe", UNKNOWN, "GPU" if session.gpu else "CPU"),
            task_type=task_type(solver),
            dataset=self._dataset(solver, opened),
            network=replace(network(solver, opened), parameters=_parameters(solver.train, session)),
            policy=PolicyRecord.of(policy),
            solver=solver_settings(solver),
            seed=caffe_seed(int(message.random_seed)) if message.random_seed >= 0 else None,
            max_iter=message.max_iter,
            test_interval=message.test_interval or None,
            epoch=solver.epoch,
            machine=None,
            started=began,
            ended=self._seconds(session.last),
            status=status,
            reason=reason,
            measurements=self._measurements(run, solver, policy),
        )

    def _policy(self, session: Session, solver: Solver) -> Policy:
        message = solver.message
        try:
            policy = from_caffe(
                message.lr_policy,
                base_lr=shortest(message.base_lr),
                gamma=shortest(message.gamma),
                power=shortest(message.power),
                stepsize=message.stepsize or None,
                stepvalue=list(message.stepvalue),
                max_iter=message.max_iter,
            )
            policy.bind(message.max_iter)
            return policy
        except PolicyError as error:
            raise InputError(f"{self.path}:{session.line}: {error}") from error

    # -- solver and nets ------------------------------------------------------------------------

    def _solver(self, session: Session) -> tuple[Solver, Opened]:
        """The solver as far as the log tells it, and the shapes."""
        message = self._solver_message(session)
        nets = self._nets(session, message)
        if not nets:
            raise InputError(f"{self.path}:{session.line}: the training that begins here prints no net")
        train, *tests = nets
        test_nets = [
            TestNet(net, self._source(net, session), passes, find_heads(net))
            for net, passes in zip(tests, message.test_iter)
        ]
        shapes = [_blobs(net, session) for net in tests]
        solver = Solver(self.path, message, {}, train, self._source(train, session), test_nets)
        known = all(t.head is None or t.head.scores in s for t, s in zip(test_nets, shapes))
        return solver, Opened(0, [], shapes if known else [])

    def _solver_message(self, session: Session) -> Any:
        if session.solver is not None:
            return self._parse("SolverParameter", session.solver)
        beside = self.path.with_name("solver.prototxt")
        file = self.solver or (beside if beside.is_file() else None)
        if file is None:
            raise InputError(
                f"{self.path}:{session.line}: the beginning of the log, with the solver's parameters, is "
                f"missing, and there is no {beside}; name the solver"
            )
        return self.messages.read_text("SolverParameter", file)

    def _nets(self, session: Session, message: Any) -> list[PhaseNet]:
        """The training net, then the test nets, from the log, else from the solver's net file."""
        if session.nets:
            found = [self._printed_net(net) for net in session.nets]
            return sorted(found, key=lambda net: net.phase != PHASES[0])
        if not message.net:
            return []
        # DIGITS starts Caffe in the job's folder.
        near = self.path.with_name(Path(message.net).name)
        file = near if near.is_file() else Path(message.net)
        net = self.messages.read_text("NetParameter", file)
        return [
            PhaseNet(f"{phase} net", str(file), phase, net.name, phase_layers(net, phase, 0, frozenset()))
            for phase in PHASES
        ]

    def _printed_net(self, text: NetText) -> PhaseNet:
        net = self._parse("NetParameter", text)
        if net.layers:
            raise InputError(f"{self.path}:{text.line}: this net is in the format of 2014, which is not read")
        return PhaseNet("net", f"{self.path}:{text.line}", text.phase, net.name, tuple(net.layer))

    def _parse(self, name: str, block: Block) -> Any:
        message = self.messages.new(name)
        try:
            # A fork's own fields are left out: they are not known here.
            text_format.Parse(block.text, message, allow_unknown_field=True)
        except text_format.ParseError as error:
            place = re.match(r"(\d+):\d+ : ", str(error))
            line = block.line + (int(place[1]) - 1 if place else 0)
            what = str(error)[place.end() :] if place else str(error)
            raise InputError(f"{self.path}:{line}: {name} cannot be read: {what}") from error
        return message

    def _source(self, net: PhaseNet, session: Session) -> Source | None:
        """The data layer as the log tells it; with the number of samples where the data is still there."""
        layer = next((layer for layer in net.layers if not layer.bottom and layer.top), None)
        if layer is None:
            return None
        shape = _blobs(net, session).get(layer.top[0], [])
        path = _data_path(layer)
        samples = None
        if path and Path(path).exists():
            try:
                source = find_source(net, self.messages)
            except InputError:
                source = None
            if source and list(source.shape or ()) == shape[1:]:
                samples = source.samples
        batch = shape[0] if shape else layer.data_param.batch_size
        place = path if path and samples is not None else os.devnull  # where nothing is looked up
        known = (shape[1], shape[2], shape[3]) if len(shape) == 4 else None
        return Source(layer.name, place, batch, samples, known, False)

    def _dataset(self, solver: Solver, opened: Opened) -> Dataset:
        """With a digest only where all of the data is there."""
        found = dataset(solver, opened)
        sources = [solver.source, *(test.source for test in solver.tests)]
        whole = all(source is not None and source.samples is not None for source in sources)
        layer = next((layer for layer in solver.train.layers if not layer.bottom and layer.top), None)
        path = Path((layer is not None and _data_path(layer)) or UNKNOWN)
        name = dataset_name(str(path))
        if name == "train_db" and path.parent.name:  # DIGITS calls them all so; the folder is the data set's
            name = path.parent.name
        return replace(found, name=name, digest=found.digest if whole else None)

    # -- tests ----------------------------------------------------------------------------------

    def _measurements(self, run: list[Session], solver: Solver, policy: Policy) -> list[Measurement]:
        found: dict[tuple[int, int], Measurement] = {}
        losses: dict[int, float] = {}
        lrs: dict[int, float] = {}
        before = 0.0  # seconds in earlier sessions
        whole = {net: max(len(t.outputs) for s in run for t in s.tests if t.net == net) for net in _nets(run)}
        lost = _lost(run)
        bound = policy.bind(solver.message.max_iter)
        for session in run:
            for kept in (losses, lrs):
                for iteration in [t for t in kept if t >= session.start and session.resumed]:
                    del kept[iteration]
            for key in [key for key in found if key[0] > session.start and session.resumed]:
                del found[key]
            losses.update(session.losses)
            lrs.update(session.lrs)
            began = self._seconds(session.first)
            for test in session.tests:
                if not 0 < len(test.outputs) == whole[test.net]:  # cut short
                    continue
                seconds = before + self._seconds(test.stamp) - began
                lr = lrs.get(test.iteration, float(bound(test.iteration)))
                found[test.iteration, test.net] = _measurement(test, solver, lr, seconds, lost)
            before += self._seconds(session.last) - began
        ordered = [found[key] for key in sorted(found)]
        return _with_train_losses(ordered, losses)

    def _seconds(self, stamp: str) -> float:
        """Seconds since 1970 of "1124 21:04:52.367612", or with a year, and what may follow."""
        date, clock = stamp.split()[:2]
        if len(date) == 4:
            date = f"{self.year}{date}"
        try:
            return datetime.strptime(f"{date} {clock[:15]}", "%Y%m%d %H:%M:%S.%f").timestamp()
        except ValueError as error:
            raise InputError(f"{self.path}: {stamp!r} is not a time") from error


def _nets(run: list[Session]) -> set[int]:
    """Numbers of the test nets."""
    return {test.net for session in run for test in session.tests}


def _lost(run: list[Session]) -> int | None:
    """The first iteration whose displayed loss is not a number."""
    return next((t for session in run for t, loss in session.losses if not math.isfinite(loss)), None)


def _status(run: list[Session], max_iter: int) -> tuple[str, str | None]:
    last = run[-1]
    lost = _lost(run)
    if lost is not None:
        return "diverged", f"the loss is not a number at iteration {lost}"
    if last.stopped:
        return "stopped", f"stopped early, at iteration {last.reached} or later"
    if last.done:
        return "finished", None
    if last.fatal is not None:
        return "failed", last.fatal
    return "failed", f"the log ends at iteration {last.reached} of {max_iter}"


def _measurement(
    test: PrintedTest, solver: Solver, lr: float, seconds: float, lost_at: int | None
) -> Measurement:
    """Without the training loss."""
    losses = [loss for _, loss in test.outputs.values() if loss is not None]
    test_loss = math.fsum(losses) if losses else None
    lost = test_loss is not None and not math.isfinite(test_loss)
    lost = lost or (lost_at is not None and test.iteration > lost_at)
    top1, top5 = (None if lost else _accuracy(test, solver, k) for k in (1, 5))
    net = solver.tests[test.net] if test.net < len(solver.tests) else None
    return Measurement(
        iteration=test.iteration,
        lr=lr,
        top1=top1,
        top5=top5,
        ac=None,
        cd=None,
        cdac=None,
        test_loss=None if lost else test_loss,
        train_loss=None,
        ld=None,
        seconds=round(seconds, 3),
        samples=net.passes * net.source.batch if net and net.source else 0,
        net=test.net,
    )


def _accuracy(test: PrintedTest, solver: Solver, top_k: int) -> float | None:
    """In percent, of the last Accuracy layer with this top_k: the main one, where there are more."""
    if test.net >= len(solver.tests):
        return None
    layers = solver.tests[test.net].net.of_type("Accuracy")
    names = [layer.top[0] for layer in layers if layer.top and layer.accuracy_param.top_k == top_k]
    values = [test.outputs[name][0] for name in names if name in test.outputs]
    return round(100 * values[-1], 6) if values and 0 <= values[-1] <= 1 else None


def _with_train_losses(measurements: list[Measurement], losses: dict[int, float]) -> list[Measurement]:
    """train_loss: the mean of the losses displayed from the previous test's iteration on."""
    done = []
    previous, current = 0, 0
    for measurement in measurements:
        if measurement.iteration != current:
            previous, current = current, measurement.iteration
        shown = [loss for t, loss in losses.items() if previous <= t < current and math.isfinite(loss)]
        mean = math.fsum(shown) / len(shown) if shown else None
        test = measurement.test_loss
        ld = test - mean if test is not None and mean is not None else None
        done.append(replace(measurement, train_loss=mean, ld=ld))
    return done


# -- nets -------------------------------------------------------------------------------------------


def _data_path(layer: Any) -> str | None:
    for name in ("data_param", "image_data_param", "hdf5_data_param", "window_data_param"):
        if layer.HasField(name):
            return str(getattr(layer, name).source)
    return None


def _blobs(net: PhaseNet, session: Session) -> dict[str, list[int]]:
    """The shape of every blob of a printed net."""
    text = next((t for t in session.nets if net.origin.endswith(f":{t.line}")), None)
    shapes: dict[str, list[int]] = {}
    for layer in net.layers if text else ():
        assert text is not None
        shapes.update(zip(layer.top, text.shapes.get(layer.name, [])))
    return shapes


# Layers without anything to learn that nets commonly have; another type makes the number unknown.
_NOTHING_TO_LEARN = (
    "Accuracy", "ArgMax", "AbsVal", "BatchNorm", "BNLL", "Concat", "ContrastiveLoss", "Crop", "Data",
    "Dropout", "ELU", "Eltwise", "EuclideanLoss", "Exp", "Flatten", "HDF5Data", "HingeLoss", "ImageData",
    "InfogainLoss", "Input", "LRN", "Log", "MVN", "MultinomialLogisticLoss", "Pooling", "Power", "ReLU",
    "Reduction", "Reshape", "Sigmoid", "SigmoidCrossEntropyLoss", "Silence", "Slice", "Softmax",
    "SoftmaxWithLoss", "Split", "TanH", "Threshold", "Tile",
)  # fmt: skip


def _parameters(net: PhaseNet, session: Session) -> int | None:
    """The number of learnable parameters, worked out from the printed shapes; None where that cannot be."""
    shapes = _blobs(net, session)
    total = 0
    for layer in net.layers:
        if layer.type in _NOTHING_TO_LEARN:
            continue
        bottom = shapes.get(layer.bottom[0]) if layer.bottom else None
        shared = any(spec.name for spec in layer.param)
        if bottom is None or shared or layer.type not in (*WEIGHTED, "Scale"):
            return None
        total += _layer_parameters(layer, bottom)
    return total


def _layer_parameters(layer: Any, bottom: list[int]) -> int:
    if layer.type == "InnerProduct":
        p = layer.inner_product_param
        return int(p.num_output * (math.prod(bottom[p.axis :]) + p.bias_term))
    if layer.type == "Scale":
        p = layer.scale_param
        if len(layer.bottom) > 1:
            return 0
        end = len(bottom) if p.num_axes == -1 else p.axis + p.num_axes
        return math.prod(bottom[p.axis : end]) * (1 + int(p.bias_term))
    p = layer.convolution_param
    sizes = list(p.kernel_size) or [p.kernel_h, p.kernel_w]
    kernel = math.prod(sizes if len(sizes) > 1 else sizes * (len(bottom) - 2))
    return int(p.num_output * bottom[1] // p.group * kernel + p.num_output * p.bias_term)
