"""Caffe's log as it is: what each start of Caffe wrote, without what it means."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lrbench_caffe.errors import InputError
from lrbench_caffe.prototxt.nets import PHASES

# I1124 21:04:52.367612 32011 caffe.cpp:197] Use CPU.   (DIGITS and other programs may put something before)
_LINE = re.compile(
    r"(?:^|\s)(?P<level>[IWEF])(?P<date>\d{8}|\d{4}) (?P<time>\d\d:\d\d:\d\d\.\d+)\s+(?P<process>\d+) "
    r"[\w./\\-]+:\d+\] ?(?P<text>.*)$"
)
_SOLVER = re.compile(r"Initializing solver from parameters")
_NET = re.compile(r"Initializing net from parameters")
_TRAIN_NET = re.compile(r"Creating training net")
_TEST_NET = re.compile(r"Creating test net")
_SETTING_UP = re.compile(r"Setting up (\S+)")
_SHAPE = re.compile(r"Top shape: ([\d ]*)\(\d+\)")
_RESUME = re.compile(r"(?:Resuming|Restoring previous solver status) from (\S+)")
_STATE = re.compile(r"_iter_(\d+)\.solverstate")
_FINETUNE = re.compile(r"Finetuning from (\S+)")
_TEST = re.compile(r"Iteration (\d+), Testing net \(#(\d+)\)")
_OUTPUT = re.compile(r"Test net output #\d+: (\S+) = (\S+)(?: \(\* \S+ = (\S+) loss\))?")
_LOSS = re.compile(r"Iteration (\d+)\b.*\bloss = (\S+)")
_LR = re.compile(r"Iteration (\d+), lr = ([^\s,]+)")
_DONE, _STOPPED = re.compile(r"Optimization Done\."), re.compile(r"Optimization stopped early\.")
_GPU = re.compile(r"Us(?:e|ing) GPU")
_FOUND_IN_TRAINING = (_TEST, _LOSS, _LR)


def read_lines(path: Path) -> list[str]:
    """Its lines; without a last one that was cut short, whose number could be another one."""
    try:
        text = path.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    lines = text.splitlines()
    if lines and not text.endswith("\n") and not _DONE.search(lines[-1]):
        del lines[-1]
    return lines


@dataclass
class Block:
    """A message that Caffe printed as text. ``line``: number of its first line in the log."""

    line: int
    text: str = ""


@dataclass
class NetText(Block):
    """A net, and the shapes of each layer's tops in their order."""

    phase: str = PHASES[0]
    shapes: dict[str, list[list[int]]] = field(default_factory=dict)


@dataclass
class PrintedTest:
    iteration: int
    net: int
    line: int
    stamp: str
    outputs: dict[str, tuple[float, float | None]] = field(default_factory=dict)  # value, weighted loss


@dataclass
class Session:
    """What one start of Caffe wrote."""

    line: int
    first: str  # stamp and process of its first line
    last: str
    solver: Block | None = None
    nets: list[NetText] = field(default_factory=list)
    tests: list[PrintedTest] = field(default_factory=list)
    losses: list[tuple[int, float]] = field(default_factory=list)
    lrs: dict[int, float] = field(default_factory=dict)
    resumed: str | None = None
    weights: str | None = None
    gpu: bool = False
    trained: bool = False
    done: bool = False
    stopped: bool = False
    fatal: str | None = None

    @property
    def start(self) -> int:
        """The iteration it was resumed at, 0 for a new training."""
        found = _STATE.search(self.resumed) if self.resumed else None
        return int(found.group(1)) if found else 0

    @property
    def reached(self) -> int:
        return max([self.start, *(t.iteration for t in self.tests), *(t for t, _ in self.losses)])


def sessions_of(path: Path, lines: list[str]) -> Iterator[Session]:
    """The log cut at every start of a solver."""
    session: Session | None = None
    block: Block | None = None
    net_phase, layer, gpu = PHASES[0], "", False
    for number, line in enumerate(lines, 1):
        match = _LINE.search(line)
        if match is None:
            if block is not None:
                block.text += line + "\n"
            continue
        block = None
        text, stamp = match["text"], f"{match['date']} {match['time']}"
        gpu = gpu or bool(_GPU.search(text))
        if session is None or _SOLVER.search(text):
            if session is not None:
                yield session
            session = Session(number, f"{stamp} {match['process']}", stamp, gpu=gpu)
            gpu = False
        session.last, session.gpu = stamp, session.gpu or gpu
        if _SOLVER.search(text):
            block = session.solver = Block(number + 1)
        elif _TRAIN_NET.search(text) or _TEST_NET.search(text):
            net_phase = PHASES[1] if _TEST_NET.search(text) else PHASES[0]
        elif _NET.search(text):
            session.nets.append(NetText(number + 1, phase=net_phase))
            block = session.nets[-1]
        elif found := _SETTING_UP.match(text):
            layer = found.group(1)
        elif (found := _SHAPE.match(text)) and session.nets:
            shape = [int(n) for n in found.group(1).split()]
            session.nets[-1].shapes.setdefault(layer, []).append(shape)
        elif match["level"] == "F":
            session.fatal = text
        else:
            _training_line(path, session, number, stamp, text)
    if session is not None:
        yield session


def _training_line(path: Path, session: Session, number: int, stamp: str, text: str) -> None:
    if found := _OUTPUT.search(text):
        if session.tests:
            name, value, loss = found.groups()
            weighted = _number(path, number, loss) if loss else None
            session.tests[-1].outputs[name] = (_number(path, number, value), weighted)
    elif found := _TEST.search(text):
        session.tests.append(PrintedTest(int(found[1]), int(found[2]), number, stamp))
    elif found := _LOSS.search(text):
        session.losses.append((int(found[1]), _number(path, number, found[2])))
    elif found := _LR.search(text):
        session.lrs[int(found[1])] = _number(path, number, found[2])
    elif found := _RESUME.search(text):
        session.resumed = found[1]
    elif found := _FINETUNE.search(text):
        session.weights = found[1]
    elif _STOPPED.search(text):
        session.stopped = True
    elif _DONE.search(text):
        session.done = True
    session.trained = session.trained or any(kind.search(text) for kind in _FOUND_IN_TRAINING)


def _number(path: Path, line: int, text: str) -> float:
    """A number as C++ prints it; of a line that was cut short, as far as it goes."""
    if "#" in text:  # 1.#QNAN, as Windows has it
        return math.nan
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{path}:{line}: {text!r} is not a number") from None


def runs_of(sessions: list[Session]) -> Iterator[list[Session]]:
    """The sessions of each run: a resumed one goes with the one before, if that trained the same."""
    run: list[Session] = []
    for session in sessions:
        if run and not (session.resumed and _same(run[-1], session)):
            yield run
            run = []
        run.append(session)
    yield run


def _same(one: Session, other: Session) -> bool:
    """Whether two sessions have the same solver, its length aside, and nets."""

    def parts(session: Session) -> list[str]:
        solver = session.solver.text if session.solver else ""
        return [re.sub(r"(?m)^max_iter: \d+$", "", solver), *(net.text for net in session.nets)]

    return parts(one) == parts(other)
