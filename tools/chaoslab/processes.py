"""The processes of a trial: started with a mark in their environment, by which all of them are found.

Whatever a command starts inherits the mark, also in a session of its own. Only marked processes are
ever signalled.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chaoslab.verdicts import Hang, Wrong

MARK = "LRBENCH_CHAOS_TRIAL"
REMARKS = ("note: ", "warning: ", "waiting up to ", "creating the database ")
POLL = 0.005  # seconds


@dataclass(frozen=True)
class Done:
    """A command that has ended.

    Attributes:
        args: what was started.
        code: the exit code; negative for a signal, as in subprocess.
        out, err: what it printed.
        seconds: how long it took.
    """

    args: tuple[str, ...]
    code: int
    out: str
    err: str
    seconds: float

    @property
    def succeeded(self) -> bool:
        return self.code == 0

    @property
    def refused(self) -> bool:
        """Whether it ended as documented for what cannot be done: exit code 1 or 2 and one line."""
        return self.code in (1, 2) and len(self.error_lines) == 1

    @property
    def error_lines(self) -> list[str]:
        """The lines on stderr, without remarks of a command that continued."""
        return [line for line in self.err.splitlines() if not line.startswith(REMARKS)]

    def success(self) -> Done:
        """Itself.

        Raises:
            Wrong: the exit code is not 0.
        """
        if not self.succeeded:
            raise Wrong(f"{self.summary} instead of success")
        return self

    def refusal(self) -> Done:
        """Itself.

        Raises:
            Wrong: it is not a refusal.
        """
        if not self.refused:
            raise Wrong(f"{self.summary} instead of one line and exit code 1 or 2")
        return self

    @property
    def summary(self) -> str:
        """One line that says how it ended."""
        how = (
            f"exit code {self.code}"
            if self.code >= 0
            else f"ended by {signal.Signals(-self.code).name}"
        )
        said = " / ".join(self.error_lines) or self.out.strip().rpartition("\n")[2]
        return f"{shown(self.args)}: {how}: {said[:600]}"


class Running:
    """A command in the background, leader of a session of its own.

    Args:
        args, cwd, environment: of the command.
        said: a path; stdout is kept in ``said``.out and stderr in ``said``.err.
    """

    def __init__(
        self, args: Sequence[str], cwd: Path, environment: Mapping[str, str], said: Path
    ) -> None:
        self.args = tuple(args)
        self._out, self._err = said.with_suffix(".out"), said.with_suffix(".err")
        self._began = time.monotonic()
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                self.args, cwd=cwd, env=dict(environment), stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def out(self) -> str:
        """What it has printed so far."""
        return self._out.read_text(encoding="utf-8", errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Signal the command alone, if it still runs."""
        if self.alive:
            self.process.send_signal(number)

    def wait(self, seconds: float) -> Done:
        """Wait for its end.

        Raises:
            Hang: it did not come within ``seconds``; the command is killed.
        """
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.end()
            raise Hang(f"{shown(self.args)}: not ended after {seconds:.0f} s") from None
        err = self._err.read_text(encoding="utf-8", errors="replace")
        return Done(self.args, code, self.out, err, time.monotonic() - self._began)

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait for ``condition`` or the command's end, at most ``seconds``; returns what the condition is."""
        deadline = time.monotonic() + seconds
        while not condition():
            if not self.alive or time.monotonic() > deadline:
                return condition()
            time.sleep(POLL)
        return True

    def end(self) -> None:
        if self.alive:
            self.process.kill()
        self.process.wait()


def shown(args: Sequence[str]) -> str:
    """The beginning of a command, without the interpreter."""
    return " ".join(args[2:9] if args[1:2] == ("-m",) else args[:7])


def marked(mark: str) -> dict[int, str]:
    """The command lines of the living processes with a mark, or one below it, by process id.

    Zombies have no environment.
    """
    wanted = f"{MARK}={mark}/".encode()
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            variables = (folder / "environ").read_bytes().split(b"\0")
            if any((variable + b"/").startswith(wanted) for variable in variables):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                if command.strip():
                    found[int(folder.name)] = command.decode("utf-8", "replace").strip()
    return found


def send(pid: int, number: signal.Signals) -> None:
    """Signal a process that may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def remaining(mark: str, seconds: float) -> dict[int, str]:
    """Marked processes that still live after at most ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        found = marked(mark)
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def end_all(mark: str) -> None:
    """Kill all marked processes, also those that appear meanwhile."""
    for _ in range(100):
        found = marked(mark)
        if not found:
            return
        for pid in found:
            send(pid, signal.SIGKILL)
        time.sleep(0.05)
