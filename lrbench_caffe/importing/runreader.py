"""A run of a log as a record: what its sessions say of the solver, the nets, the data and how it ended.

What the log does not tell is None: the metrics AC, CD and CDAC, and what only the data set's files
would say, unless they are still where the log says.
"""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lrbench_caffe.errors import InputError, named
from lrbench_caffe.importing.measurements import lost_at, measurements_of, name_scores
from lrbench_caffe.importing.nets import LogNet, NetReader, fields_of, parameters, parse, parse_file
from lrbench_caffe.importing.rates import LoggedPolicy, find_policy
from lrbench_caffe.importing.sessions import LogSession
from lrbench_caffe.importing.start import start_of
from lrbench_caffe.lr import PolicyError
from lrbench_caffe.prototxt.heads import Head, find_heads
from lrbench_caffe.prototxt.messages import Messages
from lrbench_caffe.prototxt.nets import PhaseNet
from lrbench_caffe.prototxt.solver import Solver, TestNet
from lrbench_caffe.prototxt.sources import Source, find_source
from lrbench_caffe.prototxt.task import (
    canonical_net,
    dataset,
    dataset_name,
    network,
    solver_settings,
    task_type,
)
from lrbench_caffe.records import (
    PARTIAL,
    Dataset,
    Framework,
    Network,
    PolicyRecord,
    RunRecord,
    caffe_seed,
    digest,
)
from lrbench_caffe.runtime.replies import Opened

Note = Callable[[str], None]
UNKNOWN = "unknown"  # version of Caffe: a log does not tell it
_NAMESPACE = uuid.UUID(
    "0f3b9a1e-53e5-5d0a-9c1d-0f6d2f0a6a57"
)  # of runs that are known by their log


def files_of(run: list[LogSession]) -> str:
    """The names of the logs that a run is in."""
    return ", ".join(dict.fromkeys(str(session.path) for session in run))


@dataclass(frozen=True)
class Trained:
    """The solver and nets of a run's last session.

    Attributes:
        remarks: what a person should know of the record.
    """

    solver: Solver
    nets: list[LogNet]
    policy: LoggedPolicy
    remarks: list[str]


@dataclass(frozen=True)
class RunReader:
    """Makes records of runs.

    Args:
        path: the log that has the run's end.
        given: the solver file for sessions that print none.
        note: called with each line that a person should know.
    """

    path: Path
    messages: Messages
    given: Path | None
    note: Note

    def say(self, text: str) -> None:
        self.note(f"{self.path}: {text}")

    def record(self, run: list[LogSession]) -> RunRecord:
        trained = self._trained(run)
        solver, message = trained.solver, trained.solver.message
        status, reason = _status(run, message.max_iter)
        first = run[0].solver.text if run[0].solver else ""
        files = files_of(run)
        return RunRecord(
            uid=str(uuid.uuid5(_NAMESPACE, f"{run[0].first}\n{first}")),
            source="imported",
            origin=f"{files} ({'; '.join(trained.remarks)})" if trained.remarks else files,
            framework=_framework(run, message),
            task_type=task_type(solver),
            dataset=self._dataset(trained),
            network=_network(trained),
            policy=PolicyRecord.of(trained.policy.policy),
            solver=solver_settings(solver),
            seed=caffe_seed(int(message.random_seed)) if message.random_seed >= 0 else None,
            max_iter=message.max_iter,
            test_interval=message.test_interval or None,
            epoch=solver.epoch,
            machine=None,
            started=run[0].began,
            ended=max(session.ended for session in run),
            status=status,
            reason=reason,
            measurements=measurements_of(run, solver, trained.policy),
            start=start_of(
                run[0], message, trained.nets[0], run[0].path.parent, self.messages, self.say
            ),
            layers="stock",
            head=solver.tests[0].head.name if solver.tests and solver.tests[0].head else None,
        )

    def _trained(self, run: list[LogSession]) -> Trained:
        """The trained task, and its policy.

        Raises:
            InputError: the log does not tell it.
        """
        session = run[-1]
        message = self._solver_message(session)
        if message.max_iter < 1:
            what = "max_iter is missing in the solver"
            if message.HasField("max_iter"):
                what = f"no training in it: max_iter is {message.max_iter}, with which Caffe only tests"
            raise InputError(f"{self.path}:{session.line}: {what}")
        if session.solver is None:
            self._correct_length(session, message)
        policy = self._policy(run, message)
        folders = [self.path.parent, *([self.given.parent] if self.given else [])]
        nets = NetReader(self.messages, folders).nets(session, message)
        if not nets:
            raise InputError(
                f"{self.path}:{session.line}: the training that begins here prints no net"
            )
        remarks = [*([policy.remark] if policy.remark else []), *self._remarks(nets, message)]
        for remark in remarks:
            self.say(remark)
        train, *tests = nets
        test_nets = [
            TestNet(test.net, self._source(test, session, passing=True), passes, _heads(test))
            for test, passes in zip(tests, message.test_iter)
        ]
        name_scores(run, test_nets)
        source = self._source(train, session)
        return Trained(
            Solver(self.path, message, {}, train.net, source, test_nets), nets, policy, remarks
        )

    def _correct_length(self, session: LogSession, message: Any) -> None:
        """A solver file may have been edited since: a training that ended had the length that it reached."""
        seldom = max(
            message.display, message.test_interval
        )  # iterations between two lines of the log
        if (
            session.done
            and not session.stopped
            and not 0 <= message.max_iter - session.reached <= seldom
        ):
            self.say(
                f"the training ended at iteration {session.reached}, and the solver's file has max_iter "
                f"{message.max_iter}; stored as one of {session.reached}"
            )
            message.max_iter = session.reached

    def _policy(self, run: list[LogSession], message: Any) -> LoggedPolicy:
        lrs = {t: lr for session in run for t, lr in session.lrs.items() if math.isfinite(lr)}
        told = [(session.start, session.max_iter or message.max_iter) for session in run]
        try:
            return find_policy(message, fields_of(run[-1].solver, message), lrs, told)
        except PolicyError as error:
            raise InputError(f"{self.path}:{run[-1].line}: {error}") from error

    # -- solver and nets ------------------------------------------------------------------------

    def _solver_message(self, session: LogSession) -> Any:
        if session.solver is not None:
            parsed = parse(self.messages, "SolverParameter", session.solver)
        else:
            beside = self.path.with_name("solver.prototxt")
            file = self.given or (beside if beside.is_file() else None)
            if file is None:
                raise InputError(
                    f"{self.path}:{session.line}: the beginning of the log, with the solver's parameters, is "
                    f"missing, and there is no {beside}; name the solver with {named('solver_file')} FILE"
                )
            parsed = parse_file(self.messages, "SolverParameter", file)
        if parsed.damaged and not parsed.message.max_iter:
            number, text = parsed.damaged[0]
            raise InputError(f"{self.path}:{number}: SolverParameter cannot be read: {text[:80]!r}")
        for number, text in parsed.damaged:
            self.say(f"line {number} of the solver cannot be read and is left out: {text[:80]!r}")
        if parsed.forks:
            names = ", ".join(dict.fromkeys(what for _, what in parsed.forks))
            self.say(f"the solver has fields that this Caffe does not know: {names}")
        return parsed.message

    def _remarks(self, nets: list[LogNet], message: Any) -> list[str]:
        """The remarks on the nets."""
        train = nets[0]
        file = message.net or message.train_net or "the net's file"
        remarks = []
        if train.partial:
            what = "is not in the log" if train.parsed is None else "is incomplete in the log"
            if train.parsed is not None and train.parsed.damaged:
                number, text = train.parsed.damaged[0]
                what = f"cannot be read at line {number} ({text[:40]!r})"
            remarks.append(
                f"the net's text {what}, and {file} is not available or is another net; stored as partial"
            )
        elif train.file is not None and train.parsed is not None and not train.parsed.whole:
            remarks.append(
                f"the net's text is incomplete in the log; the net is that of {train.file}"
            )
        forks = [what for net in nets if net.parsed for _, what in net.parsed.forks]
        if forks:
            names = ", ".join(list(dict.fromkeys(forks))[:5])
            remarks.append(f"left out of the net, because this Caffe does not know it: {names}")
        return remarks

    def _source(self, net: LogNet, session: LogSession, passing: bool = False) -> Source | None:
        """The data layer as the log tells it; with the number of samples where the data is still there.

        Args:
            passing: for a test net, whose batch is that of one GPU, except in NVCaffe.
        """
        layer = next((layer for layer in net.net.layers if not layer.bottom and layer.top), None)
        if layer is None:
            return None
        shape = net.shapes.get(layer.top[0], [])
        path = _data_path(layer)
        samples, known = None, None
        if path and Path(path).exists():
            try:
                source = find_source(net.net, self.messages)
            except InputError:
                source = None
            if source and (not shape or list(source.shape or ()) == shape[1:]):
                samples, known = source.samples, source.shape
        if len(shape) == 4:
            known = (shape[1], shape[2], shape[3])
        place = path if path and samples is not None else os.devnull  # if nothing is looked up
        # What is printed is the batch of one GPU; NVCaffe divides that of the file.
        batch = shape[0] if shape else layer.data_param.batch_size
        divided = session.nvcaffe and not shape and net.parsed is None
        if session.gpus > 1 and not divided and (session.nvcaffe or not passing):
            batch *= session.gpus
        if not passing:  # Intel's Caffe: each process has its own batches
            batch *= session.processes
        return Source(layer.name, place, batch, samples, known, False)

    def _dataset(self, trained: Trained) -> Dataset:
        """With a digest only where all of the data is there."""
        solver = trained.solver
        shapes = [
            net.shapes or _scores_shape(test) for net, test in zip(trained.nets[1:], solver.tests)
        ]
        told = all(
            test.head is None or test.head.scores in s for test, s in zip(solver.tests, shapes)
        )
        opened = Opened(0, [], shapes if told else [], train_shapes=trained.nets[0].shapes)
        try:
            described = dataset(solver, opened)
        except InputError:
            described = dataset(
                replace(solver, train=PhaseNet("", "", "", "", ()), tests=[]), opened
            )
        sources = [solver.source, *(test.source for test in solver.tests)]
        whole = all(source is not None and source.samples is not None for source in sources)
        layer = next(
            (layer for layer in solver.train.layers if not layer.bottom and layer.top), None
        )
        path = Path((layer is not None and _data_path(layer)) or UNKNOWN)
        name = dataset_name(str(path))
        if (
            name == "train_db" and path.parent.name
        ):  # DIGITS calls them all so; the folder is the data set's
            name = path.parent.name
        return replace(described, name=name, digest=described.digest if whole else None)


def _framework(run: list[LogSession], message: Any) -> Framework:
    gpu = any(session.gpus for session in run) or "solver_mode: GPU" in (
        run[-1].solver.text if run[-1].solver else ""
    )
    return Framework("Caffe", run[-1].version or UNKNOWN, "GPU" if gpu else "CPU")


def _network(trained: Trained) -> Network:
    train = trained.nets[0]
    described = network(trained.solver, parameters(train))
    if not train.partial:
        return described
    told = digest(["partial", canonical_net(train.net), train.wiring])
    return replace(described, name=f"{train.net.name or UNKNOWN}{PARTIAL}", digest=told)


def _heads(net: LogNet) -> tuple[Head, ...]:
    if not net.partial:
        return find_heads(net.net)
    # The losses are not all known, and one that is may be an auxiliary head's.
    return find_heads(replace(net.net, layers=tuple(net.net.of_type("Accuracy"))))


def _scores_shape(test: TestNet) -> dict[str, list[int]]:
    """The shape of the scores, worked out from the layer that makes them, where nothing was printed."""
    layer = test.net.producer(test.head.scores) if test.head else None
    if layer is None or layer.type != "InnerProduct" or layer.inner_product_param.axis != 1:
        return {}
    return {layer.top[0]: [0, layer.inner_product_param.num_output]}


def _status(run: list[LogSession], max_iter: int) -> tuple[str, str | None]:
    last = run[-1]
    lost = lost_at(run)
    if lost is not None:
        return "diverged", f"the loss is not a number at iteration {lost}"
    if last.stopped and last.reached < max_iter:
        return "stopped", f"stopped early, at iteration {last.reached} or later"
    if last.done or last.stopped:
        return "finished", None
    if last.fatal is not None:
        return "failed", last.fatal
    return "failed", f"the log ends at iteration {last.reached} of {max_iter}"


def _data_path(layer: Any) -> str | None:
    for name in ("data_param", "image_data_param", "hdf5_data_param", "window_data_param"):
        if layer.HasField(name):
            return str(getattr(layer, name).source)
    return None
