"""The driver's client for one worker process (see worker.py for the protocol).

A failed CHECK, a segfault, an out-of-memory kill or a hang of Caffe is a ``TrainingError`` here,
with Caffe's own last words, and never the end of the driver.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from lrbench_caffe.errors import InputError, PassingError, TrainingError, named
from lrbench_caffe.runtime import worker as protocol
from lrbench_caffe.runtime.failures import (
    Death,
    Hang,
    OpenFailure,
    Refusal,
    last_made,
    last_words,
    memory_kills,
    who_kills,
)
from lrbench_caffe.runtime.faults import is_of_machine, passes, signal_of
from lrbench_caffe.runtime.liveness import Silence, ends_within, paused
from lrbench_caffe.runtime.locate import CaffePython
from lrbench_caffe.runtime.processes import (
    ProcessSource,
    WantedProcess,
    WorkerProcess,
    start_process,
)
from lrbench_caffe.runtime.replies import (
    Arrays,
    CaffeInfo,
    Check,
    HeadRequest,
    Opened,
    OpenRequest,
    TestPass,
    invalid_message,
)

HANG_SECONDS = 600.0
TICK_SECONDS = 0.2
CLOSE_SECONDS = 10.0  # that a worker may take to end on request
FIRST_LINE = 200  # bytes that are shown of an invalid first line
# Bytes that one part of a message may have; what asks for more is not a worker's message.
LARGEST_HELLO = 1 << 24
LARGEST = 1 << 40

Tick = Callable[[], None]


def no_tick() -> None:
    """Do nothing between two looks at a silent worker."""


def no_note(text: str) -> None:
    """Ignore a remark."""


def never() -> bool:
    """Never ask for a pause."""
    return False


class _Report(TrainingError):
    """The worker's own word that it failed."""


class Worker:
    """One worker process.

    The process ends when this object is closed and when the driver dies, however it dies. Linux
    ties it to the *thread* that started it, so that thread must live as long as the worker is
    needed.

    Args:
        python: the interpreter that pycaffe lives in.
        log: the file that Caffe's log goes to (appended).
        hang_seconds: how long the worker may be silent before it is considered hung and killed;
            0 means forever. A working one sends something after every iteration and test batch. Time
            in which the worker or this process is suspended does not count (see ``liveness``).
        known: whether the interpreter has started this Caffe before. A wrong one was not named
            then, even if it ends at once now, such as a launcher in which a program was killed.
        blas_kernels: the name of OpenBLAS's kernels; None for those that it chooses, or the user.
        hang_parameter: the parameter that the user can set ``hang_seconds`` with, if there is one.
        note: told once when the worker turns out to be suspended, and is waited for.
        source: where a process is taken from, if it has one; else one is started.

    Raises:
        InputError: the interpreter cannot be started, is not a Python, or has no caffe.
        TrainingError: a signal ended it while it imported caffe, or it was silent for too long, or
            memory was short, or a known one ended.
    """

    def __init__(
        self,
        python: CaffePython,
        log: Path,
        *,
        hang_seconds: float = HANG_SECONDS,
        known: bool = False,
        blas_kernels: str | None = None,
        hang_parameter: str | None = "hang_seconds",
        note: Callable[[str], None] = no_note,
        source: ProcessSource | None = None,
    ) -> None:
        self.log = log
        self.hang_seconds = hang_seconds
        self._note = note
        self._paused: str | None = None  # why the worker could not run at the last look
        hint = f" (a longer limit: {named(hang_parameter)} SECONDS)" if hang_parameter else ""
        self._hang_hint = hint
        self._log_start = log.stat().st_size if log.exists() else 0
        self._memory_kills = memory_kills()
        try:
            self.info = self._begin(WantedProcess.here(python.command, blas_kernels), source)
        except OSError as error:
            kind = TrainingError if passes(error) else InputError
            raise kind(f"cannot start {python.command[0]}: {error.strerror}") from error
        except TrainingError as error:
            self.kill()
            text = f"{python.command[0]} ({python.origin}): {error}"
            died = isinstance(error, Death) and (known or error.signal is not None)
            if died or isinstance(error, Hang) or is_of_machine(str(error)):
                raise TrainingError(text) from error
            # No caffe, or not a Python: a wrong interpreter was named. One that just ended may be
            # a launcher that failed this time.
            raise (PassingError if isinstance(error, Death) else InputError)(text) from error
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close() if kind is None else self.kill()

    # -- requests -------------------------------------------------------------------------------

    def read(self, message: str, path: Path) -> tuple[bool | None, bytes]:
        """A prototxt as Caffe reads and upgrades it; before ``open``.

        Args:
            message: "NetParameter" or "SolverParameter".
            path: the file.

        Returns:
            Whether Caffe's parser takes it (None where this Caffe cannot be asked), and the message
            in protobuf's binary format.
        """
        self._send("read", message=message, file=str(path))
        fields, arrays = self._expect("read")
        return fields["parsed"], arrays["message"].tobytes()

    def check(self, library: str, threads: int, *, measure: bool) -> Check:
        """What is wrong with the BLAS's products, and with a library of fast layers; before ``open``.

        Args:
            library: the library's path.
            threads: that it is to work on.
            measure: also find out whether the width of its vectors pays.
        """
        self._send("check", library=library, threads=threads, measure=measure)
        fields, _ = self._expect("checked")
        return Check(fields["products"], fields["layers"], fields["slow"])

    def open(self, request: OpenRequest) -> Opened:
        """Open the solver: its nets are there, with random weights.

        Raises:
            Refusal: the solver, a net or a Python layer is wrong.
            OpenFailure: Caffe crashed, hung or got no memory or GPU.
        """
        self._send("open", **vars(request))
        try:
            fields, _ = self._expect("opened")
        except TrainingError as error:
            raise self._open_failure(error) from error
        return Opened.of(fields)

    def load(
        self, snapshot: str | None = None, weights: Sequence[str] = (), own: bool = False
    ) -> int:
        """Restore a solver state, or copy the weights of caffemodels; returns the iteration.

        Args:
            own: whether the state is one of this very net, so that layers of one name are told
                apart.
        """
        self._send("load", snapshot=snapshot, weights=list(weights), own=own)
        return int(self._expect("loaded")[0]["iteration"])

    def replay(
        self,
        nets: list[dict[str, Any]],
        progress: Callable[[int, int], None],
        wants_stop: Callable[[], bool] = never,
    ) -> None:
        """Advance data cursors and random generators; ``nets`` as the worker's replay wants them.

        Args:
            progress: called with the passes that are done and all of them.
            wants_stop: asked several times a second; True ends it before its next pass.
        """
        self._send("replay", nets=nets)
        tick = self._pause_when(wants_stop)
        while True:
            fields, _ = self._receive(tick)
            if fields["kind"] == "replayed":
                return
            progress(fields["done"], fields["total"])

    def run(
        self,
        lrs: np.ndarray,
        on_losses: Callable[[int, np.ndarray], None],
        wants_pause: Callable[[], bool] = never,
    ) -> int:
        """Train one iteration for each learning rate; returns the iteration reached.

        Args:
            lrs: learning rates, shape (n,).
            on_losses: called with the first iteration and the losses, shape (m,), as they come.
            wants_pause: asked several times a second; True ends the run before its next update.
        """
        self._send("run", [("lrs", np.ascontiguousarray(lrs, dtype="<f8"))])
        tick = self._pause_when(wants_pause)
        while True:
            fields, arrays = self._receive(tick)
            if fields["kind"] == "ran":
                return int(fields["iteration"])
            on_losses(int(fields["start"]), arrays["losses"])
            tick()

    def test(
        self,
        net: int,
        passes: int,
        heads: Sequence[HeadRequest] = (),
        *,
        detections: Mapping[str, str] = MappingProxyType({}),
        log_loss: bool = False,
        wants_stop: Callable[[], bool] = never,
    ) -> TestPass | None:
        """One test pass; None where ``wants_stop`` ended it.

        Args:
            net: number of the test net.
            passes: batches.
            heads: what is counted.
            detections: outputs of SSD's DetectionEvaluate layers, and the solver's ap_version for
                each.
            log_loss: whether Caffe's log gets the loss, too (``test_compute_loss``).
            wants_stop: asked several times a second; True ends the pass before its next batch.
        """
        self._send(
            "test",
            net=net,
            passes=passes,
            heads=[vars(h) for h in heads],
            detections=dict(detections),
            log_loss=log_loss,
        )
        tick = self._pause_when(wants_stop)
        while True:
            fields, arrays = self._receive(tick)
            if fields["kind"] == "tested":
                return TestPass.of(fields, arrays)
            if fields["kind"] == "cancelled":
                return None
            tick()

    def forward(self) -> float:
        """The training net's loss on its next batch, without an update."""
        self._send("forward")
        return float(self._expect("forwarded")[0]["loss"])

    def _pause_when(self, wanted: Callable[[], bool]) -> Tick:
        """A tick that asks the worker to pause, once, when ``wanted``."""
        asked = False

        def tick() -> None:
            nonlocal asked
            if not asked and wanted():
                self._send("pause")
                asked = True

        return tick

    def snapshot(self) -> int:
        """Let Caffe write its .caffemodel and .solverstate; returns their iteration."""
        self._send("snapshot")
        return int(self._expect("snapshotted")[0]["iteration"])

    def write_log(self, text: str) -> None:
        """Write a line into Caffe's log, in Caffe's format."""
        self._send("log", text=text)

    def close(self) -> None:
        """End the process in good order, or by force if it does not end."""
        if self._process.poll() is None:
            try:
                self._send("close")
                ends_within(self._process, CLOSE_SECONDS)
            except TrainingError:
                pass
        self.kill()

    def kill(self) -> None:
        """End the process at once. SIGKILL also ends a stopped process."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in self._pipes:
            os.close(pipe)
        self._pipes.clear()

    # -- messages -------------------------------------------------------------------------------

    def _begin(self, wanted: WantedProcess, source: ProcessSource | None) -> CaffeInfo:
        """Have a process, and hear its hello."""
        with self.log.open("ab") as stderr:
            taken = source.take(wanted, self.log) if source is not None else None
            self._use(taken or start_process(wanted, stderr))
            try:
                return self._hello()
            except TrainingError as error:
                if taken is None or isinstance(error, Hang):
                    raise
            self.kill()
            self._use(start_process(wanted, stderr))
            return self._hello()

    def _use(self, process: WorkerProcess) -> None:
        self._process = process.process
        self._pipes = [process.stdin, process.stdout]
        self._stdin, self._stdout = self._pipes
        os.set_blocking(self._stdin, False)  # a worker is never waited for without being watched

    def _hello(self) -> CaffeInfo:
        self._check_first_line()
        fields, arrays = self._expect("hello", LARGEST_HELLO)
        del fields["kind"]
        try:
            info = CaffeInfo(descriptor=arrays["descriptor"].tobytes(), **fields)
        except (KeyError, TypeError) as error:
            raise invalid_message(error) from error
        if not info.callbacks:
            raise InputError(
                f"the Caffe in {info.path} (version {info.caffe}) has no solver callbacks in Python; "
                "Caffe 1.0 or newer is needed"
            )
        return info

    def _check_first_line(self) -> None:
        """Find out at once whether something else than the worker prints on stdout.

        On clusters a wrapper around the interpreter often does, and its words would be mistaken for
        messages.
        """
        line = b""
        while len(line) < FIRST_LINE and not (line.strip() and line.endswith(b"\n")):
            line += self._read(1, no_tick)
        if line != protocol.MAGIC:
            text = line.replace(protocol.MAGIC, b"").decode("utf-8", "replace").strip()
            raise TrainingError(
                f"printed {text!r} on stdout where the worker's hello was expected (a wrapper script must "
                "print on stderr)"
            )

    def _expect(self, kind: str, largest: int = LARGEST) -> tuple[dict[str, Any], Arrays]:
        fields, arrays = self._receive(no_tick, largest)
        if fields["kind"] != kind:
            raise TrainingError(f"the worker answered {fields['kind']!r} instead of {kind!r}")
        return fields, arrays

    def _send(
        self, kind: str, arrays: Sequence[tuple[str, np.ndarray]] = (), **fields: Any
    ) -> None:
        data = memoryview(protocol.pack(kind, arrays, **fields))
        silence = Silence(self.hang_seconds, self.pid)
        while data:
            try:
                data = data[os.write(self._stdin, data) :]
                silence.heard()
            except BlockingIOError:  # it has not read the earlier requests
                if not select.select([], [self._stdin], [], TICK_SECONDS)[1]:
                    self._look(silence)
            except OSError:
                raise self._death() from None

    def _receive(self, tick: Tick, largest: int = LARGEST) -> tuple[dict[str, Any], Arrays]:
        """The next message, none of whose parts is larger than ``largest`` bytes."""

        def read(size: int) -> bytes:
            if not 0 <= size <= largest:
                raise ValueError(f"a part of {size} bytes")
            return self._read(size, tick)

        try:
            fields, arrays = protocol.unpack(read)
            failed = fields["kind"] == "error"
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise invalid_message(error) from error
        if failed:
            raise _Report(fields["text"])
        return fields, arrays

    def _read(self, size: int, tick: Tick) -> bytes:
        parts, silence = [], Silence(self.hang_seconds, self.pid)
        while size:
            if select.select([self._stdout], [], [], TICK_SECONDS)[0]:
                part = os.read(self._stdout, size)
                if not part:
                    raise self._death()
                parts.append(part)
                size -= len(part)
                silence.heard()
                self._paused = None
            else:
                self._look(silence)
            tick()
        return b"".join(parts)

    def _look(self, silence: Silence) -> None:
        """End a silent worker that hangs; one that is suspended is waited for."""
        before, self._paused = self._paused, paused(self.pid)
        if self._paused:
            silence.heard()
            if before is None:
                self._note(f"Caffe is {self._paused}: waiting until it continues")
        elif silence.too_long():
            self.kill()
            raise Hang(
                f"Caffe gave no sign of life for {self.hang_seconds:g} s and was killed{self._hang_hint}"
            )

    def _open_failure(self, error: TrainingError) -> OpenFailure:
        """What an error while the solver was opened means: a Refusal where the files are to blame."""
        net, layers = last_made(self.log, self._log_start)
        if isinstance(error, _Report):
            words, refused = str(error), bool(layers)
        else:
            words = last_words(self.log, self._log_start, failed_check=True)
            refused = isinstance(error, Death) and error.signal == signal.SIGABRT and words != ""
        if refused and not is_of_machine(words):
            return Refusal(words, net, layers)
        return OpenFailure(str(error), net, layers)

    def _death(self) -> Death:
        """The error for a process that ended by itself."""
        code = self._process.wait()
        number = signal_of(code)
        words = last_words(self.log, self._log_start)
        how = f"was killed by {number.name}" if number else f"ended with exit code {code}"
        if number == signal.SIGKILL:
            how += who_kills(memory_kills() - self._memory_kills)
            words = ""  # a killed process says nothing of its end
        elif "std::bad_alloc" in words:
            how += ": it ran out of memory"
        return Death(f"Caffe {how}" + (f": {words}" if words else ""), number, words)
