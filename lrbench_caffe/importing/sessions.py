"""Parses Caffe's log: what each start of Caffe wrote, without interpreting it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from lrbench_caffe.database.ranges import INT32
from lrbench_caffe.importing.text import Log, Message
from lrbench_caffe.prototxt.nets import PHASES

_SOLVER = re.compile(r"Initializing solver from parameters")
_NET = re.compile(r"Initializing net from parameters")
# A file's name, which may have blanks, ends its line.
_NET_FILE = re.compile(
    r"Creating (?:training|test) net(?: \(#\d+\))? (?:from|specified by) [\w ]*file: (\S.*?)\s*$"
)
_TRAIN_NET = re.compile(r"Creating training net")
_TEST_NET = re.compile(r"Creating test net")
_SETTING_UP = re.compile(r"Setting up (\S.*)")
# BVLC: Top shape: 64 10 (640)      NVCaffe: TRAIN Top shape for layer 0 'ip2' 64 10 (640)
_SHAPE = re.compile(
    r"(?:(?:TRAIN|TEST) )?Top shape(?:: | for layer \d+ '(?P<layer>.*)' )(?P<shape>[\d ]*)\(\d+\)"
)
_BOTTOM = re.compile(r"(\S.*?) <- (\S.*)$")
_TOP = re.compile(r"(\S.*?) -> (\S.*?)(?: \(in-place\))?$")
_WEIGHT = re.compile(r"\s*with loss weight (\S+)")
_RESUME = re.compile(r"(?:Resuming|Restoring previous solver status) from (\S.*?)\s*$")
_RESTORED = re.compile(r"Solver: restoring history")
_SNAPSHOT = re.compile(r"Snapshotting .*_iter_(\d{1,9})\.\w+")
_STATE = re.compile(r"_iter_(\d{1,9})\.solverstate")
_MAX_ITER = re.compile(r"(?m)^max_iter: (\d{1,10})$")
_PREFIX = re.compile(r'(?m)^snapshot_prefix: "(.*)"')
_FINETUNE = re.compile(r"Finetuning from (\S.*?)\s*$")
_COPIED = re.compile(r"(?:Ignoring|Copying) source layer ")
_TEST = re.compile(r"Iteration (\d+), Testing net(?: \(#(\d+)\))?")
_OUTPUT = re.compile(
    r"Test net output #(?P<number>\d+): (?P<name>\S(?:(?! = ).)*) = (?P<value>\S+)"
    r"(?: \(\* \S+ = (?P<loss>\S+) loss\))?\s*$"
)
_SCORE = re.compile(r"Test score #(?P<number>\d+): (?P<value>\S+)\s*$")  # Caffe's before June 2014
_OWN_LOSS = re.compile(r"Train net output #\d+: \S(?:(?! = ).)* = \S+ \(\* \S+ = (\S+) loss\)")
_PLAIN_OUTPUT = re.compile(r"Train net output #\d+: \S(?:(?! = ).)* = \S+\s*$")
# A comma with a digit behind it is not the end of a number: 0,35 of other locales is damaged, not
# 0.
_LOSS = re.compile(r"Iteration (\d+)(?!,\d)\b.*\bloss = ([^\s,]+(?:,\d\S*)?)")
_LR = re.compile(r"Iteration (\d+), lr = ([^\s,]+(?:,\d\S*)?)")
_DONE = re.compile(r"Optimization Done(?:\.| in )")
_STOPPED = re.compile(r"Optimization stopped early\.")
_GPUS = re.compile(r"Us(?:e|ing) GPUs? (?:with device ID )?(\d+(?:, ?\d+)*)")
_GPU = re.compile(r"Us(?:e|ing) GPU")
_NVCAFFE = re.compile(
    r"Optimization Done in |Top shape for layer |, lr = \S+, m = |NVCaffe |Solver performance on device"
    r"|Overall multi-GPU performance"
)
_PROCESSES = re.compile(r"Process rank \d+ from number of (\d{1,9}) processes")  # Intel's Caffe
_NVCAFFE_VERSION = re.compile(r"This is (NVCaffe [\d.]+)")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?", re.IGNORECASE)
_NOT_A_NUMBER = re.compile(
    r"[-+]?(?:\d\.#\w+|inf(?:inity)?|nan(?:\(\w*\))?)", re.IGNORECASE
)  # 1.#QNAN
# What is one of the lines above, whole or cut short.
_FRAGMENT = re.compile(
    r"\bIteration \d+(?:,\d+)*(?: \([^)]*\)?)?(?:, [\d./]+ep)?,?(?: (?:l|lo|los|loss|lr|T\w*)\b.*)?$"
    r"|(?:Test|Train) net out|Test score #"
)
_OF_TEST = re.compile(r"Test net out|Test score #")
_CUT_HEADER = re.compile(r"^[IWEF]\d{4} |^[IWEF]\d{0,4}$")
_LATE = re.compile(
    r"\bIteration \d|net output #|Optimization |Snapshotting "
)  # no session begins so

GLOG_CUTS_AT = 29_900  # bytes of a message; glog ends it at 30,000, its own header included


@dataclass
class Block:
    """A protobuf message that Caffe printed as text.

    Attributes:
        line: number of the message's first line.
        lines: number and text of each line.
    """

    line: int
    lines: list[tuple[int, str]] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(f"{text}\n" for _, text in self.lines)

    @property
    def cut(self) -> bool:
        """Whether glog has cut off its end because of its length."""
        return len(self.text.encode()) >= GLOG_CUTS_AT


@dataclass
class NetText(Block):
    """A net, and how Caffe set it up.

    Attributes:
        phase: "TRAIN" or "TEST".
        bottoms, tops: blobs of each layer, in order. Caffe names the Split layers that it adds,
            too.
        shapes: shapes of each layer's tops, in order.
        weights: loss weights of the layers that have any.
    """

    phase: str = PHASES[0]
    bottoms: dict[str, list[str]] = field(default_factory=dict)
    tops: dict[str, list[str]] = field(default_factory=dict)
    shapes: dict[str, list[list[int]]] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)


@dataclass
class PrintedTest:
    """A test pass.

    Attributes:
        printed: by number, the name, the value and, of a loss, the weighted loss.
        outputs: by name, the value and the weighted loss (see ``_name_outputs``).
        last: the number of the last output, which may be damaged.
    """

    iteration: int
    net: int
    line: int
    at: float
    printed: dict[int, tuple[str, float, float | None]] = field(default_factory=dict)
    outputs: dict[str, tuple[float, float | None]] = field(default_factory=dict)
    last: int = -1


@dataclass
class PrintedLoss:
    """A displayed loss: smoothed over average_loss iterations, and the losses of this iteration alone."""

    iteration: int
    smoothed: float
    parts: list[float] = field(default_factory=list)

    @property
    def finite(self) -> bool:
        """Whether the net's loss is a number. A smoothed loss never recovers from one that was infinite."""
        return all(map(math.isfinite, self.parts or [self.smoothed]))

    @property
    def value(self) -> float:
        """The smoothed loss, or that of the iteration where the former is lost."""
        return (
            math.fsum(self.parts)
            if self.parts and self.finite and not math.isfinite(self.smoothed)
            else self.smoothed
        )


@dataclass
class LogSession:
    """The output of one start of Caffe.

    Attributes:
        path: the log; line: number of its first line there.
        first: stamp and thread of its first line; began, ended: seconds since 1970.
        resumed: the solver state that it continued, "" for one without a name.
        weights: the caffemodels that it began with; copied: whether layers were copied at all.
        gpus: how many GPUs trained, 0 for the CPU.
        processes: how many processes of MPI trained, each on batches of its own.
        nvcaffe: whether NVIDIA's fork wrote it; version: what the fork says it is.
        snapshots: iterations of the snapshots that it wrote.
        damaged: (line, text) of the lines that could not be read.
    """

    path: Path
    line: int
    first: str
    began: float
    ended: float
    solver: Block | None = None
    nets: list[NetText] = field(default_factory=list)
    net_file: str | None = None
    tests: list[PrintedTest] = field(default_factory=list)
    losses: list[PrintedLoss] = field(default_factory=list)
    lrs: dict[int, float] = field(default_factory=dict)
    snapshots: list[int] = field(default_factory=list)
    resumed: str | None = None
    weights: list[str] = field(default_factory=list)
    copied: bool = False
    gpus: int = 0
    processes: int = 1
    nvcaffe: bool = False
    version: str | None = None
    done: bool = False
    stopped: bool = False
    fatal: str | None = None
    damaged: list[tuple[int, str]] = field(default_factory=list)

    @property
    def start(self) -> int:
        """The iteration it was resumed at, 0 for a new training."""
        if self.resumed is None:
            return 0
        match = _STATE.search(self.resumed)
        return int(match.group(1)) if match else min(self.iterations, default=0)

    @property
    def max_iter(self) -> int | None:
        """The printed solver's max_iter, None if no solver is printed."""
        match = _MAX_ITER.search(self.solver.text) if self.solver else None
        return int(match[1]) if match else None

    @property
    def iterations(self) -> list[int]:
        """Every iteration for which it printed something."""
        return [
            *(test.iteration for test in self.tests),
            *(loss.iteration for loss in self.losses),
            *self.lrs,
        ]

    @property
    def trained(self) -> bool:
        return bool(self.tests or self.losses or self.lrs)

    @property
    def reached(self) -> int:
        return max([self.start, *self.iterations, *self.snapshots])


# -- reading ---------------------------------------------------------------------------------------


def sessions_of(log: Log) -> list[LogSession]:
    """The log's sessions, divided at every start of a solver.

    Two trainings that write to the same log at the same time are told apart by the threads of their
    solvers.
    """
    messages = log.messages
    starts = {_first_line(messages, i): i for i, m in enumerate(messages) if _SOLVER.search(m.text)}
    readers: list[_SessionReader] = []
    owners: dict[str, _SessionReader] = {}
    for i, message in enumerate(messages):
        if i in starts or not readers:
            readers.append(_SessionReader(log.path, message))
            readers[-1].session.processes = log.processes
        if i in starts:
            owners[message.thread] = readers[-1]
        owners.get(message.thread, readers[-1]).read(message)
    sessions = [reader.session for reader in readers]
    for session in sessions:
        for net in {test.net for test in session.tests}:
            _name_outputs([test for test in session.tests if test.net == net])
    return sessions


def _name_outputs(tests: list[PrintedTest]) -> None:
    """Name the outputs of a net's tests: of a vector, Caffe prints each element as NAME.

    An element's index is told by its number, as lines before it may be damaged. Where no test shows
    at which number a vector begins, it is left out.
    """
    numbers: dict[str, set[int]] = {}
    for test in tests:
        for number, (name, _, _) in test.printed.items():
            numbers.setdefault(name, set()).add(number)
    shown = {-1}.union(*numbers.values())
    first = {
        name: min(own) for name, own in numbers.items() if len(own) == 1 or min(own) - 1 in shown
    }
    for test in tests:
        for number, (name, value, loss) in test.printed.items():
            if name in first:
                index = number - first[name]
                test.outputs[f"{name}[{index}]" if index else name] = value, loss


def _first_line(messages: list[Message], solver: int) -> int:
    """Where the session of a printed solver begins: the GPUs, for example, are named before it."""
    first = solver
    while first > 0 and messages[first - 1].thread == messages[solver].thread:
        if _LATE.search(messages[first - 1].text):
            break
        first -= 1
    return first


class _Damaged(Exception):
    """A line that cannot be read."""


class _SessionReader:
    """Puts messages into a session, one after the other.

    Args:
        path: the log.
        first: the session's first message.
    """

    def __init__(self, path: Path, first: Message) -> None:
        self.session = LogSession(
            path, first.line, f"{first.stamp.text} {first.thread}", first.at, first.at
        )
        self._phase = PHASES[0]
        self._layer = ""
        self._open: Block | None = None  # Intel's Caffe prints the net after a message without text
        self._test: PrintedTest | None = None  # whose outputs may follow

    def read(self, message: Message) -> None:
        session, text = self.session, message.text
        session.ended = max(session.ended, message.at)
        session.nvcaffe = session.nvcaffe or bool(_NVCAFFE.search(text))
        if not text.strip() and self._open is not None and not self._open.text.strip():
            self._open.lines = message.rest
            return
        self._open = None
        try:
            if not (self._training(message) or self._beginning(message) or self._ending(message)):
                self._net(message)
        except _Damaged:
            session.damaged.append((message.line, text.strip()))
        if session.trained:
            session.damaged += [
                (number, rest.strip())
                for number, rest in message.rest
                if _FRAGMENT.search(rest) or _CUT_HEADER.search(rest)
            ]

    def _beginning(self, message: Message) -> bool:
        session, text = self.session, message.text
        if _SOLVER.search(text):
            session.solver = Block(message.line + 1, message.rest)
        elif match := _GPUS.search(text):
            session.gpus = max(session.gpus, len(match[1].split(",")))
        elif _GPU.search(text):
            session.gpus = max(session.gpus, 1)
        elif match := _RESUME.search(text):
            session.resumed = match[1]
        elif _RESTORED.search(text):
            session.resumed = session.resumed or ""
        elif match := _FINETUNE.search(text):
            session.weights.append(match[1])
        elif _COPIED.search(text):
            session.copied = True
        elif match := _NVCAFFE_VERSION.search(text):
            session.version = match[1]
        elif match := _PROCESSES.search(text):
            session.processes = max(session.processes, int(match[1]))
        else:
            return False
        return True

    def _ending(self, message: Message) -> bool:
        session, text = self.session, message.text
        if message.level == "F":
            session.fatal = text
        elif match := _SNAPSHOT.search(text):
            session.snapshots.append(int(match[1]))
        elif _STOPPED.search(text):
            session.stopped = True
        elif _DONE.search(text):
            session.done = True
        else:
            return False
        return True

    def _training(self, message: Message) -> bool:
        """Tests, losses and LRs.

        Raises:
            _Damaged: it is one of these, and cannot be read.
        """
        session, text = self.session, message.text
        if not _FRAGMENT.search(text):
            return False
        if not _OF_TEST.search(text):
            self._test = None  # it is over, whatever it lacks
        if not message.whole:  # another message begins where this one's number could continue
            raise _Damaged
        if match := _TEST.search(text):
            net = _whole(match[2] or "0")
            self._test = PrintedTest(_whole(match[1]), net, message.line, message.at)
            session.tests.append(self._test)
        elif match := _OUTPUT.search(text) or _SCORE.search(text):
            self._output(match.groupdict())
        elif match := _OWN_LOSS.search(text):
            loss = _number(match[1])
            if session.losses:
                session.losses[-1].parts.append(loss)
        elif match := _LOSS.search(text):
            session.losses.append(PrintedLoss(_whole(match[1]), _number(match[2])))
        elif match := _LR.search(text):
            session.lrs[_whole(match[1])] = _number(match[2])
        elif not _PLAIN_OUTPUT.search(text):
            raise _Damaged
        return True

    def _output(self, printed: dict[str, str | None]) -> None:
        if not self.session.tests:  # the log begins in the middle of a test
            return
        test = self._test
        if test is None:
            raise _Damaged
        number, value, loss = (
            _whole(printed["number"] or "0"),
            printed["value"] or "",
            printed.get("loss"),
        )
        if number <= test.last:  # of another test, whose first line is lost, and so is what follows
            self._test = None
            raise _Damaged
        test.last = number
        name = printed.get("name") or f"score #{number}"
        test.printed[number] = name, _number(value), _number(loss) if loss else None

    def _net(self, message: Message) -> None:
        session, text = self.session, message.text
        if _TRAIN_NET.search(text) or _TEST_NET.search(text):
            self._phase = PHASES[1] if _TEST_NET.search(text) else PHASES[0]
            if match := _NET_FILE.search(text):
                session.net_file = session.net_file or match[1]
        elif _NET.search(text):
            session.nets.append(NetText(message.line + 1, message.rest, phase=self._phase))
            self._open = session.nets[-1]
        elif session.nets:
            self._set_up(session.nets[-1], text)

    def _set_up(self, net: NetText, text: str) -> None:
        if match := _SETTING_UP.match(text):
            self._layer = match[1]
        elif match := _SHAPE.match(text):
            shape = [_whole(n) for n in match["shape"].split()]
            net.shapes.setdefault(match["layer"] or self._layer, []).append(shape)
        elif match := _BOTTOM.match(text):
            net.bottoms.setdefault(match[1], []).append(match[2])
        elif match := _TOP.match(text):
            net.tops.setdefault(match[1], []).append(match[2])
        elif match := _WEIGHT.match(text):
            net.weights[self._layer] = _number(match[1])


def _whole(text: str) -> int:
    """A number of Caffe's: an iteration, a size.

    Raises:
        _Damaged: it is more than any of them can be.
    """
    if len(text) > len(str(INT32)) or int(text) > INT32:
        raise _Damaged
    return int(text)


def _number(text: str) -> float:
    """A number as C++ prints it.

    Raises:
        _Damaged: it is not one.
    """
    if _NUMBER.fullmatch(text):
        return float(text)
    if _NOT_A_NUMBER.fullmatch(text):
        return math.nan
    raise _Damaged


# -- runs ------------------------------------------------------------------------------------------

# What may be changed when a training is resumed, and leaves it the same training.
_CHANGEABLE = re.compile(
    r"(?m)^(?:max_iter|test_iter|test_interval|test_initialization|display|average_loss|snapshot\w*|debug_info"
    r"|solver_mode|device_id|net|train_net|test_net|test_compute_loss|random_seed|weights): .*\n"
)


def runs_of(sessions: list[LogSession]) -> list[list[LogSession]]:
    """The sessions of each run: a resumed one belongs to the one before that trained the same net.

    Of several, the last one: its snapshot took the place of those before.
    """
    runs: list[list[LogSession]] = []
    for session in sessions:
        if session.resumed is not None:
            before = [run for run in runs if _continues(run[-1], session)]
            if before:
                before[-1].append(session)
                continue
        runs.append([session])
    return runs


def _continues(one: LogSession, other: LogSession) -> bool:
    """Whether a resumed session continues another one: its solver and net are the same, and it got so far.

    Where it is in another file, the solver state must be one that the session before would have
    written.
    """

    def parts(session: LogSession) -> list[str]:
        solver = _CHANGEABLE.sub("", session.solver.text if session.solver else "")
        return [solver, *(net.text for net in session.nets if net.phase == PHASES[0])]

    if parts(one) != parts(other) or other.start > one.reached:
        return False
    return one.path == other.path or (
        one.began <= other.began and _writes(one, other.resumed or "")
    )


def _writes(session: LogSession, state: str) -> bool:
    """Whether the session's snapshots have the name of this solver state, in whatever folder."""
    prefix = _PREFIX.search(session.solver.text) if session.solver else None
    if prefix is None:  # it is the solver's file name then, which is not printed
        return bool(_STATE.search(state))
    return _STATE.sub("", _base(state)) in (_base(prefix[1]), f"{_base(prefix[1])}.h5")


def _base(path: str) -> str:
    return re.split(r"[/\\]+", path)[-1]
