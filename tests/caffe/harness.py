"""What the tests with real Caffe share: a folder to work in, the commands a user types, and what they leave.

Every process is started here, and only these are ended.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from lrbench_caffe.datasets.datum import Datum
from lrbench_caffe.prototxt.messages import Messages
from lrbench_caffe.runtime.info import caffe_info
from lrbench_caffe.runtime.locate import find_caffe_python
from tests.caffe import forked

ROOT = Path(__file__).parents[2]
PATIENCE = 240.0  # seconds until something that must happen is taken for missing

SLOW_DATABASE = ("creating the database ", "waiting up to ")  # remarks on a machine that is busy
# One BLAS thread, for the same bits every time and on both sides of a comparison.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "COLUMNS": "200"}


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    def succeeded(self) -> Done:
        assert self.code == 0, f"exit code {self.code}\n{self.out}\n{self.err}"
        return self

    def failed(self, code: int, *words: str) -> Done:
        """Check that it ended with ``code`` and one line on stderr, with all ``words`` in it."""
        assert self.code == code, f"exit code {self.code}, not {code}\n{self.out}\n{self.err}"
        lines = [line for line in self.err.splitlines() if not line.startswith(SLOW_DATABASE)]
        assert len(lines) == 1, f"one line on stderr is wanted:\n{self.err}"
        assert "Traceback" not in self.out
        for word in words:
            assert word in lines[0], f"{word!r} is missing in: {lines[0]}"
        return self


class Running:
    """A training that goes on in the background."""

    def __init__(self, process: subprocess.Popen[str], out: Path) -> None:
        self.process = process
        self.run = Run(out)

    @property
    def worker(self) -> int:
        """The process that Caffe runs in."""
        children = self.children()
        assert len(children) == 1, f"one worker is wanted: {children}"
        return children[0]

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        with contextlib.suppress(OSError):
            return [int(pid) for pid in path.read_text().split()]
        return []

    def wait_for(self, condition: Callable[[], Any], what: str) -> None:
        """Wait until ``condition`` is true while the training goes on."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if self.process.poll() is not None:
                out, err = self.process.communicate()
                raise AssertionError(f"the training ended before {what}\n{out}\n{err}")
            assert time.monotonic() < deadline, f"waited {PATIENCE:g} s for {what}"
            time.sleep(0.005)

    def wait_for_test(self, iteration: int) -> None:
        def tested() -> bool:
            return any(row["iteration"] >= iteration for row in self.run.measurements())

        self.wait_for(tested, f"the test at iteration {iteration}")

    def wait_for_snapshot(self, iteration: int) -> None:
        def saved() -> bool:
            return any(row["iteration"] >= iteration for row in self.run.rows("snapshots.jsonl"))

        self.wait_for(saved, f"the snapshot of iteration {iteration}")

    def wait_until_busy(self) -> None:
        """Wait until Caffe works on what comes after the last thing that was heard of it."""
        began = cpu_seconds(self.worker)
        self.wait_for(lambda: cpu_seconds(self.worker) > began + 0.3, "Caffe's next work")

    def send(self, number: signal.Signals) -> None:
        assert self.process.poll() is None, "the training ended before the signal"
        self.process.send_signal(number)

    def finish(self) -> Done:
        out, err = self.process.communicate(timeout=PATIENCE)
        return Done(self.process.returncode, out, err)


class Run:
    """The files of a run directory, read without the code that is tested."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path / "caffe.log"

    @property
    def record(self) -> dict[str, Any]:
        return json.loads((self.path / "run.json").read_text())

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The objects of a .jsonl file, without a last line that is still being written."""
        path = self.path / name
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    def measurements(self) -> list[dict[str, Any]]:
        return self.rows("measurements.jsonl")

    def last_measurements(self) -> dict[tuple[int, int], dict[str, Any]]:
        """The last row of each iteration and net, without the time, which is no repeatable number."""
        rows = {(row["iteration"], row["net"]): row for row in self.measurements()}
        return {key: {k: v for k, v in row.items() if k != "seconds"} for key, row in rows.items()}

    def iterations(self) -> dict[int, tuple[float, float]]:
        """(lr, loss) of each iteration; of one that was repeated the last."""
        with (self.path / "iterations.csv").open() as file:
            return {
                int(row["iteration"]): (float(row["lr"]), float(row["loss"]))
                for row in csv.DictReader(file)
            }

    def model(self, iteration: int) -> Path:
        return self._snapshot(iteration, "caffemodel")

    def state(self, iteration: int) -> Path:
        return self._snapshot(iteration, "solverstate")

    def _snapshot(self, iteration: int, suffix: str) -> Path:
        found = list((self.path / "snapshots").glob(f"*_iter_{iteration}.{suffix}"))
        assert len(found) == 1, f"{suffix} of iteration {iteration}: {found}"
        return found[0]


def train_command(*args: str) -> list[str]:
    """The training command, with Caffe's own layers unless it names others: what ``caffe train`` computes.

    It goes without an LR database unless it names one, which would know other tests' runs.
    """
    database = [] if "--db" in args else ["--no-db"]
    layers = [] if "--layers" in args or "--resume" in args else ["--layers", "stock"]
    return [sys.executable, "-m", "lrbench_caffe.train", *args, *database, *layers]


class Workspace:
    """A folder with data, nets and solvers in it, where commands are typed.

    Attributes:
        environment: of the commands.
        pictures: whether trainings draw theirs (see ``forked.run``).
    """

    def __init__(self, path: Path, caffe: str) -> None:
        self.path = path
        self.program = caffe
        self.environment = dict(ENVIRONMENT)
        self.pictures = False

    def copy(self, path: Path) -> Workspace:
        """All of it at ``path``: what a test changes there, the other tests do not see."""
        shutil.copytree(self.path, path, symlinks=True)
        return Workspace(path, self.program)

    def write(self, name: str, text: str) -> str:
        (self.path / name).write_text(text)
        return name

    def run(self, out: str) -> Run:
        return Run(self.path / out)

    def train(self, *args: str) -> Done:
        """``python -m lrbench_caffe.train ARGS``."""
        return self.command(train_command(*args))

    def caffe(self, *args: str) -> Done:
        """The real ``caffe ARGS``."""
        return self.command([self.program, *args])

    def caffe_log(self, name: str, *args: str) -> None:
        """The real ``caffe ARGS``, with its log as bytes in a file of this name."""
        with (self.path / name).open("wb") as log:
            subprocess.run(
                [self.program, *args],
                cwd=self.path,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stderr=log,
                timeout=PATIENCE,
                check=True,
            )

    def command(self, command: Sequence[str]) -> Done:
        """A command, to its end; one of ours in a process that is forked (see ``forked``)."""
        ours = list(command[:2]) == [sys.executable, "-m"]
        name = command[2].partition("lrbench_caffe.")[2] if ours else ""
        if name in forked.COMMANDS and self.environment == ENVIRONMENT:
            seconds = 4 * PATIENCE
            args = (command[2], command[3:], self.path, ENVIRONMENT, seconds, self.pictures)
            return Done(*forked.run(*args))
        done = subprocess.run(
            command,
            cwd=self.path,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",  # Caffe prints what bytes it read
            timeout=4 * PATIENCE,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    @contextlib.contextmanager
    def training(
        self, *args: str, out: str, limits: Callable[[], None] | None = None
    ) -> Iterator[Running]:
        """A training in the background. What still runs at the end is ended."""
        process = subprocess.Popen(
            train_command(*args, "--out", out),
            cwd=self.path,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=limits,
        )
        running = Running(process, self.path / out)
        workers: list[int] = []
        try:
            yield running
            workers = running.children()
        finally:
            workers = workers or running.children()
            for pid in [process.pid, *workers] if process.poll() is None else workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.communicate()


# -- Caffe's files ---------------------------------------------------------------------------------


def messages() -> Messages:
    return Messages(caffe_info(find_caffe_python(None)).descriptor)


def weights(model: Path) -> dict[str, np.ndarray]:
    """The parameters in a .caffemodel, by layer and number."""
    net = messages().read_binary("NetParameter", model)
    found = {
        f"{layer.name}[{number}]": np.array(blob.data, dtype=np.float32)
        for layer in net.layer
        for number, blob in enumerate(layer.blobs)
    }
    assert found, f"{model} holds no parameters"
    return found


def difference(one: Path, other: Path) -> float:
    """The largest, over the parameters of two models, of |difference| / |parameter| (2-norms)."""
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    norms = {name: float(np.linalg.norm(a[name])) for name in a}
    return max(float(np.linalg.norm(a[name] - b[name])) / norms[name] for name in a if norms[name])


def assert_same_weights(one: Path, other: Path) -> None:
    """To the last bit."""
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    for name in a:
        assert np.array_equal(a[name], b[name]), f"{name} differs"


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no mere entry that waits to be collected."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """The processes that any thread of a process has started."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, task.read_text().split())
    return found


def descendants(pid: int) -> list[int]:
    return [one for child in children(pid) for one in (child, *descendants(child))]


def drivers(folder: Path, pid: int | None = None) -> list[int]:
    """The processes of trainings in a run directory, below a process: it may be forked, not started.

    What they print goes to output.log.
    """
    return _writers(folder.resolve() / "output.log", pid)


def workers(folder: Path) -> list[int]:
    """The processes of Caffe that train in a run directory: their drivers may not be their parents."""
    return _writers(folder.resolve() / "caffe.log", None)


def _writers(path: Path, pid: int | None) -> list[int]:
    """The processes below one whose stdout is a file."""
    found = []
    for one in descendants(pid or os.getpid()):
        with contextlib.suppress(OSError):
            found += [one] if os.readlink(f"/proc/{one}/fd/1") == str(path) else []
    return found


def wait_until_gone(pid: int, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_alive(pid)


def own_data(workspace: Workspace) -> None:
    """Copy the data into a workspace, where it is a link to that of all tests."""
    data = workspace.path / "data"
    there = data.resolve()
    data.unlink()
    shutil.copytree(there, data)


def invert_training_images(workspace: Workspace) -> None:
    """Give a workspace's own training data other images with the same labels, or the former again."""
    folder = str(workspace.path / "data" / "digits_train_lmdb")
    with lmdb.open(folder) as environment, environment.begin(write=True) as transaction:
        for key, value in list(transaction.cursor()):
            record = Datum.FromString(bytes(value))
            record.data = bytes(255 - pixel for pixel in record.data)
            transaction.put(bytes(key), record.SerializeToString())
