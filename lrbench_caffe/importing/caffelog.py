"""Runs from Caffe's own logs: the stderr of `caffe train`, and the caffe_output.log of a DIGITS job.

A log tells the solver's parameters, the nets with the shapes of their blobs, the tests, the displayed losses
and LRs, and how it ended. What it does not tell is None: the metrics AC, CD and CDAC, and what only the data
set's files would say, unless they are still where the log says.

- A test's train_loss is the mean of the *displayed* losses since the previous test (Caffe shows one every
  ``display`` iterations, averaged over ``average_loss``), so LD is less exact than a measured one.
- Top-1 and Top-5 are those of Accuracy layers with top_k 1 and 5. Where the loss is not a number, Caffe
  counts every sample as correct; such a test has neither.
- A log with several runs gives as many records; one that was resumed in it, or in another log, is one run.
- What cannot be read is left out and said: a damaged line, a fork's field, the end of a net that glog cut.
"""

from __future__ import annotations

import math
import os
import re
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lrbench_caffe.errors import InputError
from lrbench_caffe.importing.nets import (
    LogNet,
    NetReader,
    fields_of,
    parameters,
    parse,
    parse_file,
)
from lrbench_caffe.importing.rates import Found, find_policy
from lrbench_caffe.importing.sessions import LogSession, PrintedTest, runs_of, sessions_of
from lrbench_caffe.importing.start import start_of
from lrbench_caffe.importing.text import Log, read_log
from lrbench_caffe.lr import PolicyError
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.plaintext import shortened
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
from lrbench_caffe.runtime.info import caffe_info
from lrbench_caffe.runtime.locate import find_caffe_python
from lrbench_caffe.runtime.reader import CaffeReader
from lrbench_caffe.runtime.replies import Opened

Note = Callable[[str], None]

LONGEST_REASON = 200  # characters of another library's words
UNKNOWN = "unknown"  # version of Caffe: a log does not tell it
_OUR_POLICY = re.compile(r"Learning Rate Policy: (\w+\(.*)")  # Caffe's own have a name only
_OUR_NET = re.compile(r"net file: (\S+)[/\\]prototxt[/\\]net\.prototxt")
_NAMESPACE = uuid.UUID("0f3b9a1e-53e5-5d0a-9c1d-0f6d2f0a6a57")  # of runs that are known by their log


def records_from_log(
    path: Path, messages: Messages | None = None, *, solver: Path | None = None, note: Note | None = None
) -> list[RunRecord]:
    """The runs in a log. The same log gives the same uids, wherever it lies.

    Args are those of ``records_from_logs``.

    Raises:
        InputError: as ``records_from_logs`` refuses a log.
    """
    refused: list[InputError] = []
    say = note or (lambda text: None)
    records = records_from_logs([path], messages, solver=solver, note=say, refuse=refused.append)
    if not records:
        raise refused[0]
    return [record for _, record in records]


def records_from_logs(
    paths: Sequence[Path],
    messages: Messages | None = None,
    *,
    solver: Path | None = None,
    note: Note,
    refuse: Callable[[InputError], None],
) -> list[tuple[str, RunRecord]]:
    """The runs in logs. glog begins a file for each process, so one training may be in several of them.

    Args:
        paths: the logs, in any order; they may be packed by gzip, bzip2 or xz.
        messages: Caffe's messages; by default those of this machine's Caffe.
        solver: for a log whose beginning is lost: its solver.prototxt. By default a solver.prototxt beside
            the log, as DIGITS has it, is used.
        note: called with each line that a person should know: what was left out, or taken from elsewhere.
        refuse: called where a file cannot be read, holds no training, or holds one that cannot be understood
            (the message names file and line); or there is no Caffe.

    Returns:
        Each run with the logs that it is in, for messages.
    """
    files: list[list[LogSession]] = []
    seen: set[tuple[tuple[str, ...], ...]] = set()
    for path in paths:
        try:
            sessions = _sessions(path, seen, note)
            if sessions:
                messages = messages or _messages()
                files.append(sessions)
        except InputError as error:
            refuse(error)
        except OSError as error:
            refuse(InputError(f"{path}: {error}"))
        except Exception as error:
            refuse(_not_understood(f"{path}", error))
    files.sort(key=lambda sessions: sessions[0].began)
    found: list[tuple[str, RunRecord]] = []
    read: set[Path] = set()
    left_out: list[tuple[Path, InputError]] = []
    for run in runs_of([session for sessions in files for session in sessions]):
        try:
            assert messages is not None
            found.append((_files(run), _Reader(run[-1].path, messages, solver, note).record(run)))
            read.update(session.path for session in run)
        except InputError as error:
            left_out.append((run[-1].path, error))
        except (OSError, PolicyError) as error:
            left_out.append((run[-1].path, InputError(f"{run[-1].path}: {error}")))
        except Exception as error:
            left_out.append((run[-1].path, _not_understood(f"{run[-1].path}:{run[-1].line}", error)))
    for path, reason in left_out:
        if path in read:
            note(f"{path}: one training of several is left out: {reason}")
        else:
            refuse(reason)
    return found


def _not_understood(place: str, error: Exception) -> InputError:
    """For damage that no check has foreseen: one log must not end the others."""
    return InputError(
        f"{place}: what is printed here cannot be understood ({type(error).__name__}: "
        f"{shortened(str(error), LONGEST_REASON)}); if the log is "
        "not damaged, please report it"
    )


def _files(run: list[LogSession]) -> str:
    return ", ".join(dict.fromkeys(str(session.path) for session in run))


def _sessions(path: Path, seen: set[tuple[tuple[str, ...], ...]], note: Note) -> list[LogSession]:
    """The sessions of a log that trained; none where it was read before, maybe under another name.

    Raises:
        InputError: it cannot be read, or holds no training.
    """

    def say(text: str) -> None:
        note(f"{path}: {text}")

    log = read_log(path, say)
    keys = tuple(message.key for message in log.messages)
    if keys and keys in seen:
        say("the same log as one before; it is read once")
        return []
    seen.add(keys)
    _refuse_our_own(path, log)
    found = sessions_of(log)
    sessions = [session for session in found if session.trained]
    if not sessions:
        raise InputError(f"{path}: {_why_none(log, found)}")
    _say_damaged(sessions, say)
    return sessions


# -- logs without a training ------------------------------------------------------------------------


def _refuse_our_own(path: Path, log: Log) -> None:
    """A run directory's caffe.log does not tell its policy: to Caffe, the LR was fixed."""
    for message in log.messages:
        found = _OUR_POLICY.search(message.text)
        if found:
            nets = (_OUR_NET.search(earlier.text) for earlier in log.messages)
            folder = next((net[1] for net in nets if net), path.parent)
            raise InputError(
                f"{path}:{message.line}: the log of a training by lrbench_caffe with {found[1]}; "
                f"its run directory is what can be brought in: db sync {folder}"
            )


def _why_none(log: Log, sessions: list[LogSession]) -> str:
    if any(re.match(r"(?:Batch \d+, |Running for \d+ iterations)", message.text) for message in log.messages):
        return "no training in it: it is the log of `caffe test`"
    if any("Average Forward pass" in message.text for message in log.messages):
        return "no training in it: it is the log of `caffe time`"
    fatal = next((session.fatal for session in sessions if session.fatal), None)
    if fatal is not None:
        return f"no training in it: Caffe ended before the first iteration: {fatal}"
    if sessions and any(session.solver for session in sessions):
        return "no training in it: it ends before the first iteration (no line with 'Iteration N')"
    if not log.messages:
        return (
            "no training in it: no line is of Caffe's form, I1124 21:04:52.367612 32011 solver.cpp:197] TEXT"
        )
    return "no training in it (no line with 'Iteration N')"


def _say_damaged(sessions: list[LogSession], say: Note) -> None:
    damaged = sorted(line for session in sessions for line in session.damaged)
    if damaged:
        number, text = damaged[0]
        first = f"the first is line {number}: {text[:80]!r}"
        say(f"{len(damaged)} damaged line{'s' * (len(damaged) > 1)} left out; {first}")


def _messages() -> Messages:
    python = find_caffe_python(None)
    return Messages(caffe_info(python).descriptor, CaffeReader(python))


# -- as a record ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Trained:
    """What a run's last session says of solver and nets.

    Attributes:
        remarks: what a person should know of the record.
    """

    solver: Solver
    nets: list[LogNet]
    policy: Found
    remarks: list[str]


@dataclass(frozen=True)
class _Reader:
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
        files = _files(run)
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
            measurements=_measurements(run, trained),
            start=start_of(run[0], message, trained.nets[0], run[0].path.parent, self.messages, self.say),
            layers="stock",
            head=solver.tests[0].head.name if solver.tests and solver.tests[0].head else None,
        )

    def _trained(self, run: list[LogSession]) -> _Trained:
        """What was trained, and by which policy.

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
            raise InputError(f"{self.path}:{session.line}: the training that begins here prints no net")
        remarks = [*([policy.remark] if policy.remark else []), *self._remarks(nets, message)]
        for remark in remarks:
            self.say(remark)
        train, *tests = nets
        test_nets = [
            TestNet(test.net, self._source(test, session, passing=True), passes, _heads(test))
            for test, passes in zip(tests, message.test_iter)
        ]
        _name_scores(run, test_nets)
        source = self._source(train, session)
        return _Trained(Solver(self.path, message, {}, train.net, source, test_nets), nets, policy, remarks)

    def _correct_length(self, session: LogSession, message: Any) -> None:
        """A solver file may have been edited since: a training that ended had the length that it reached."""
        seldom = max(message.display, message.test_interval)  # iterations between two lines of the log
        if session.done and not session.stopped and not 0 <= message.max_iter - session.reached <= seldom:
            self.say(
                f"the training ended at iteration {session.reached}, and the solver's file has max_iter "
                f"{message.max_iter}; stored as one of {session.reached}"
            )
            message.max_iter = session.reached

    def _policy(self, run: list[LogSession], message: Any) -> Found:
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
                    f"missing, and there is no {beside}; name the solver with --solver FILE"
                )
            parsed = parse_file(self.messages, "SolverParameter", file)
        if parsed.damaged and not parsed.message.max_iter:
            number, text = parsed.damaged[0]
            raise InputError(f"{self.path}:{number}: SolverParameter cannot be read: {text[:80]!r}")
        for number, text in parsed.damaged:
            self.say(f"line {number} of the solver cannot be read and is left out: {text[:80]!r}")
        if parsed.forks:
            names = ", ".join(dict.fromkeys(what for _, what in parsed.forks))
            self.say(f"the solver has what this Caffe does not know: {names}")
        return parsed.message

    def _remarks(self, nets: list[LogNet], message: Any) -> list[str]:
        """What is not as it should be with the nets."""
        train = nets[0]
        file = message.net or message.train_net or "the net's file"
        remarks = []
        if train.partial:
            what = "is not in the log" if train.parsed is None else "is only in part in the log"
            if train.parsed is not None and train.parsed.damaged:
                number, text = train.parsed.damaged[0]
                what = f"cannot be read at line {number} ({text[:40]!r})"
            remarks.append(
                f"the net's text {what}, and {file} is not at hand or another net; stored as partial"
            )
        elif train.file is not None and train.parsed is not None and not train.parsed.whole:
            remarks.append(f"the net's text is only in part in the log; the net is that of {train.file}")
        forks = [what for net in nets if net.parsed for _, what in net.parsed.forks]
        if forks:
            names = ", ".join(list(dict.fromkeys(forks))[:5])
            remarks.append(f"left out of the net, as this Caffe does not know it: {names}")
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
        place = path if path and samples is not None else os.devnull  # where nothing is looked up
        # What is printed is the batch of one GPU; NVCaffe divides that of the file.
        batch = shape[0] if shape else layer.data_param.batch_size
        divided = session.nvcaffe and not shape and net.parsed is None
        if session.gpus > 1 and not divided and (session.nvcaffe or not passing):
            batch *= session.gpus
        if not passing:  # Intel's Caffe: each process has batches of its own
            batch *= session.processes
        return Source(layer.name, place, batch, samples, known, False)

    def _dataset(self, trained: _Trained) -> Dataset:
        """With a digest only where all of the data is there."""
        solver = trained.solver
        shapes = [net.shapes or _scores_shape(test) for net, test in zip(trained.nets[1:], solver.tests)]
        told = all(test.head is None or test.head.scores in s for test, s in zip(solver.tests, shapes))
        opened = Opened(0, [], shapes if told else [], train_shapes=trained.nets[0].shapes)
        try:
            found = dataset(solver, opened)
        except InputError:
            found = dataset(replace(solver, train=PhaseNet("", "", "", "", ()), tests=[]), opened)
        sources = [solver.source, *(test.source for test in solver.tests)]
        whole = all(source is not None and source.samples is not None for source in sources)
        layer = next((layer for layer in solver.train.layers if not layer.bottom and layer.top), None)
        path = Path((layer is not None and _data_path(layer)) or UNKNOWN)
        name = dataset_name(str(path))
        if name == "train_db" and path.parent.name:  # DIGITS calls them all so; the folder is the data set's
            name = path.parent.name
        return replace(found, name=name, digest=found.digest if whole else None)


def _framework(run: list[LogSession], message: Any) -> Framework:
    gpu = any(session.gpus for session in run) or "solver_mode: GPU" in (
        run[-1].solver.text if run[-1].solver else ""
    )
    return Framework("Caffe", run[-1].version or UNKNOWN, "GPU" if gpu else "CPU")


def _network(trained: _Trained) -> Network:
    train = trained.nets[0]
    found = replace(network(trained.solver, Opened(0, [], [])), parameters=parameters(train))
    if not train.partial:
        return found
    told = digest(["partial", canonical_net(train.net), train.wiring])
    return replace(found, name=f"{train.net.name or UNKNOWN}{PARTIAL}", digest=told)


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
    lost = _lost(run)
    if lost is not None:
        return "diverged", f"the loss is not a number at iteration {lost}"
    if last.stopped and last.reached < max_iter:
        return "stopped", f"stopped early, at iteration {last.reached} or later"
    if last.done or last.stopped:
        return "finished", None
    if last.fatal is not None:
        return "failed", last.fatal
    return "failed", f"the log ends at iteration {last.reached} of {max_iter}"


def _lost(run: list[LogSession]) -> int | None:
    """The iteration from which on no loss is a number; None where one is at the end.

    A loss averaged over average_loss iterations never recovers from one that was infinite, so it counts less
    than the losses of one iteration and those of tests.
    """
    averaged, test, own = range(3)  # their order within an iteration
    told: list[tuple[int, int, bool]] = []
    for session in run:
        if session.resumed is not None:
            told = [item for item in told if item[0] < session.start]
        told += [(loss.iteration, own if loss.parts else averaged, loss.finite) for loss in session.losses]
        for passed in session.tests:
            losses = [loss for _, loss in passed.outputs.values() if loss is not None]
            if losses:
                told.append((passed.iteration, test, all(map(math.isfinite, losses))))
    lost = None
    for iteration, _, finite in sorted(told):
        lost = None if finite else iteration if lost is None else lost
    return lost


# -- tests ------------------------------------------------------------------------------------------


def _name_scores(run: list[LogSession], nets: list[TestNet]) -> None:
    """Give the outputs of Caffe before June 2014 their names, which it did not print.

    They are the blobs that no layer reads, in alphabetical order. The Accuracy layer of 2013 had two values,
    the accuracy and the loss.
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


def _measurements(run: list[LogSession], trained: _Trained) -> list[Measurement]:
    """The tests of a run, each once: a resumed session repeats what came after its snapshot."""
    found: dict[tuple[int, int], Measurement] = {}
    losses: dict[int, float] = {}
    before = 0.0  # seconds in earlier sessions
    lost = _lost(run)
    expected = _expected(run)
    lrs = {t: lr for session in run for t, lr in session.lrs.items() if t not in trained.policy.wrong}
    for session in run:
        if session.resumed is not None:
            losses = {t: loss for t, loss in losses.items() if t < session.start}
            found = {key: m for key, m in found.items() if key[0] <= session.start}
        losses.update((loss.iteration, loss.value) for loss in session.losses)
        for test in session.tests:
            last = test is session.tests[-1] and not session.done
            if not test.outputs or (last and test.outputs.keys() != expected[test.net].keys()):  # cut short
                continue
            seconds = before + max(0.0, test.at - session.began)
            lr = lrs.get(test.iteration, float(trained.policy.policy(test.iteration)))
            measured = _measurement(test, expected[test.net], trained.solver, lr, seconds, lost)
            found[test.iteration, test.net] = measured
        before += session.ended - session.began
    return _with_train_losses([found[key] for key in sorted(found)], losses)


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
    losses = [test.outputs.get(name, (0.0, None))[1] for name, is_loss in expected.items() if is_loss]
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
        ac=None,
        cd=None,
        cdac=None,
        test_loss=None if lost else test_loss,
        train_loss=None,
        ld=None,
        seconds=round(seconds, 3),
        samples=net.passes * net.source.batch if net and net.source else 0,
        net=test.net,
        outputs={name: value for name, (value, _) in test.outputs.items() if math.isfinite(value)},
    )


def _accuracy(test: PrintedTest, solver: Solver, top_k: int) -> float | None:
    """In percent, of the Accuracy layer with this top_k that reads the head's scores.

    Where none does, because they go through a Softmax first, it is the last one: the main one, where there
    are more.
    """
    if test.net >= len(solver.tests):
        return None
    tested = solver.tests[test.net]
    layers = [layer for layer in tested.net.of_type("Accuracy") if layer.accuracy_param.top_k == top_k]
    shown = [layer for layer in layers if layer.top and layer.top[0] in test.outputs]
    heads = [layer for layer in shown if tested.head and layer.bottom[0] == tested.head.scores]
    if not shown:
        return None
    value, _ = test.outputs[(heads or shown)[-1].top[0]]
    return round(100 * value, 6) if 0 <= value <= 1 else None


def _with_train_losses(measurements: list[Measurement], losses: dict[int, float]) -> list[Measurement]:
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


def _data_path(layer: Any) -> str | None:
    for name in ("data_param", "image_data_param", "hdf5_data_param", "window_data_param"):
        if layer.HasField(name):
            return str(getattr(layer, name).source)
    return None
