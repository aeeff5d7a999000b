"""The ways in which a worker fails, and what Caffe's log says about them.

A failed CHECK, a segfault, an out-of-memory kill or a hang of Caffe is a ``TrainingError`` with
Caffe's own last words.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path

from lrbench_caffe.errors import TrainingError
from lrbench_caffe.runtime import worker as protocol
from lrbench_caffe.runtime.faults import is_of_machine


class OpenFailure(TrainingError):
    """Caffe crashed, hung or got no memory while it opened a solver.

    Attributes:
        net: the net that it was making: 0 for the training net, 1 for the first test net and so on;
            None for the solver itself.
        layers: names of the layers of that net that it had begun to make, the last one last. Among
            them are Caffe's own splits and layers within layers.
    """

    def __init__(self, message: str, net: int | None, layers: Sequence[str]) -> None:
        super().__init__(message)
        self.net = net
        self.layers = tuple(layers)


class Refusal(OpenFailure):
    """Caffe does not accept the files: a check, or a Python layer, failed while it opened them.

    Attributes:
        words: Caffe's own.
    """

    def __init__(self, words: str, net: int | None, layers: Sequence[str]) -> None:
        super().__init__(f"Caffe does not accept the solver: {words}", net, layers)
        self.words = words


class Death(TrainingError):
    """The worker's process ended, or was killed.

    Attributes:
        signal: the signal that ended it, None where it ended with an exit code.
        words: Caffe's last ones; empty where a kill left it no time for any.
    """

    def __init__(self, text: str, number: signal.Signals | None, words: str) -> None:
        super().__init__(text)
        self.signal = number
        self.words = words

    @property
    def by_machine(self) -> bool:
        """Whether another process, a limit or a lack of memory ended it, not its files."""
        sent = self.signal is not None and self.signal not in _FAULTS
        return sent or is_of_machine(self.words)


class Hang(TrainingError):
    """The worker was silent for too long, and was killed."""


# Signals that a process brings upon itself.
_FAULTS = frozenset(
    [
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGSEGV,
        signal.SIGSYS,
        signal.SIGTRAP,
    ]
)


def memory_kills() -> int:
    """How many processes Linux has killed so far because memory ran out, that of a container included."""
    try:
        counters = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return int(counters.get("oom_kill", 0))


def who_kills(by_memory: int) -> str:
    """Who sent a SIGKILL, given how many processes Linux has killed for memory since the start."""
    if by_memory > 0:
        return (
            ": Linux kills processes when memory runs out, and did so just now "
            "(a smaller batch_size needs less)"
        )
    return ", by another process: a user's, or a batch system's that enforces a limit of memory or time"


_FATAL = re.compile(r"^F\d{4,8} \S+\s+\d+ (\S+\] .*)$")
# Routine lines, stack traces, and the prototxt that Caffe writes into its log.
_NOISE = re.compile(
    r"^(\s*@ |\*\*\*|[IWE]\d{4,8} |\s*$|WARNING: Logging before|\s*(\}|\w+ \{|\w+: (\"[^\"]*\"|\S+))$)"
)
_MAKING = re.compile(
    rb"\] (?:Creating (?P<train>training net)|Creating test net \(#(?P<test>\d+)\)"
    rb"|Creating [Ll]ayer (?P<layer>.*)|(?P<done>Solver scaffolding done))"
)


def last_made(log: Path, start: int = 0) -> tuple[int | None, list[str]]:
    """The net that Caffe was making at the end of its log, and the layers of it so far (see ``Refusal``)."""
    net: int | None = None
    layers: list[str] = []
    try:
        with log.open("rb") as file:
            file.seek(start)
            lines = file.read().split(b"\n")
    except OSError:
        return None, []
    for match in filter(None, map(_MAKING.search, lines)):
        if match["layer"] is not None:
            layers.append(protocol.decode(match["layer"]))
            continue
        layers = []
        net = (
            None if match["done"] else int(match["test"] or -1) + 1
        )  # the training net has no number
    return net, layers


def last_words(log: Path, start: int = 0, limit: int = 65536, *, failed_check: bool = False) -> str:
    """Caffe's last words: its failed check, else its last line that is not routine.

    Args:
        failed_check: only the failed check is wanted.
    """
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start, size - limit))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    for number in range(len(lines) - 1, -1, -1):
        match = _FATAL.match(lines[number])
        if match:
            # A check's message may continue after a line break.
            more = [
                line.strip() for line in lines[number + 1 : number + 3] if not _NOISE.match(line)
            ]
            return " ".join([match.group(1).strip(), *more])
    if failed_check:
        return ""
    plain = [line.strip() for line in lines if not _NOISE.match(line)]
    return plain[-1] if plain else ""
