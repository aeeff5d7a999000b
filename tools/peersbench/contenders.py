"""The contenders' processes: started with a limit of memory, asked in turn, ended with the block."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

FOLDER = Path(__file__).parent
STOCK, FAST, NARROW = "stock", "fast", "fast-avx2"
TORCH = {"torch": "contiguous", "torch-last": "channels_last"}
NAMES = (STOCK, FAST, NARROW, *TORCH)
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
LAST_WORDS = 300  # characters


class ContenderError(Exception):
    """A contender cannot do what it was asked: the memory is too small, it takes too long, it failed."""


@dataclass(frozen=True)
class Command:
    """How a contender is started.

    Attributes:
        name: one of NAMES.
        command: the program and its arguments.
        environment: variables beside those of this process.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]


class Contender:
    """A process that trains what it is told to, on one thread.

    Args:
        command: how it is started.
        memory: bytes that it may have for its data.
        timeout: seconds that an answer may take.

    Raises:
        ContenderError: it does not start.
    """

    def __init__(self, command: Command, memory: int, timeout: float) -> None:
        self.name = command.name
        self.timeout = timeout
        self.peak = 0
        self._log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        environment = {**os.environ, **ONE_THREAD, "GLOG_minloglevel": "2", **command.environment}
        self._process = subprocess.Popen(
            command.command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (memory, memory)),
        )
        self._received = b""
        try:
            self.about = self._answer()
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> Contender:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def open(self, work: Mapping[str, Any]) -> dict[str, Any]:
        """Open a net or a layer; returns what it tells about that."""
        return self._ask({"do": "open", **work})

    def turn(self, passes: int) -> dict[str, Any]:
        """Run so many passes.

        Returns:
            ``cpu`` and ``wall``: seconds of a pass, by what is measured.
        """
        return self._ask({"do": "turn", "passes": passes})

    def end(self) -> None:
        """End the process, whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
        self._log.close()

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ContenderError(self._last_words()) from None
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        """The next line of its output."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + self.timeout
        while b"\n" not in self._received:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise ContenderError(f"no answer within {self.timeout:g} s")
            part = os.read(self._process.stdout.fileno(), 65536)
            if not part:
                raise ContenderError(self._last_words())
            self._received += part
        line, _, self._received = self._received.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        self.peak = max(self.peak, reply.pop("peak"))
        if "error" in reply:
            raise ContenderError(reply["error"])
        return reply

    def _last_words(self) -> str:
        """Why it ended, as far as it says."""
        code = self._process.wait()
        end = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._log.seek(0)
        lines = [line.strip() for line in self._log if line.strip()]
        telling = [line for line in lines if "Check failed" in line or "Error" in line]
        words = (telling or lines[-1:] or [""])[-1].split("] ", 1)[-1][:LAST_WORDS]
        return f"{end}: {words}" if words else end
