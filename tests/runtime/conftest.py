"""A worker process with a fake caffe, in this Python and in a Python 2.7 where there is one."""

from __future__ import annotations

import functools
import glob
import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2

from lrbench_caffe.runtime import worker as protocol
from lrbench_caffe.runtime.locate import CaffePython, cache_dir

HERE = Path(__file__).parent
VARIABLE = "LRBENCH_TEST_PYTHON27"
PATIENCE = 10.0  # seconds that a reply may take


@functools.cache
def python27() -> str | None:
    """A Python 2.7 that runs: the variable's, else tools/install_python27's, the PATH's or pyenv's."""
    named = os.environ.get(VARIABLE)
    if named:
        candidates = [named]
    else:
        found = [shutil.which(name) for name in ("python2.7", "python2")]
        candidates = [
            str(cache_dir() / "python2.7" / "python2.7"),
            *(path for path in found if path),
        ]
        candidates += glob.glob(os.path.expanduser("~/.pyenv/versions/2.7*/bin/python"))
    for candidate in candidates:
        done = run([candidate, "-c", "import sys; print(sys.version_info[:2])"])
        if done and done.stdout.strip() == "(2, 7)":
            return candidate
    if named:
        raise RuntimeError(f"{VARIABLE}: {named} is no Python 2.7 that runs")
    return None


@functools.cache
def has_numpy(python: str) -> bool:
    done = run([python, "-c", "import numpy"])
    return done is not None and done.returncode == 0


def run(command: list[str]) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return None


@pytest.fixture(params=["this Python", "Python 2.7"])
def interpreter(request: pytest.FixtureRequest) -> str:
    if request.param == "this Python":
        return sys.executable
    python = python27()
    if python is None:
        pytest.skip(f"no Python 2.7 on this machine ({VARIABLE} can name one)")
    return python


def descriptor() -> bytes:
    """A serialized caffe.proto, as small as can be."""
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    file.message_type.add(name="SolverParameter").field.add(
        name="base_lr", number=5, type=2, label=1
    )
    return file.SerializeToString()


def fake_command(folder: Path, python: str, version: str = "") -> list[str]:
    """The command that starts ``python`` with the fake caffe."""
    paths = [HERE / "fake"] + ([] if has_numpy(python) else [HERE / "fake_numpy"])
    (folder / "descriptor").write_bytes(descriptor())
    variables = {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "FAKE_CAFFE_DESCRIPTOR": str(folder / "descriptor"),
    }
    if version:
        variables["FAKE_CAFFE_VERSION"] = version
    return ["env", *(f"{name}={value}" for name, value in variables.items()), python]


@dataclass
class Talk:
    """A worker process, and the driver's side of the protocol at its plainest."""

    process: subprocess.Popen[bytes]
    log: Path
    greeted: bool = False

    def send(self, *messages: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(b"".join(messages))
        self.process.stdin.flush()

    def ask(self, kind: str, arrays: Any = (), **fields: Any) -> None:
        self.send(protocol.pack(kind, arrays, **fields))

    def receive(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        if not self.greeted:
            assert self._read(len(protocol.MAGIC)) == protocol.MAGIC
            self.greeted = True
        return protocol.unpack(self._read)

    def expect(self, kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        fields, arrays = self.receive()
        assert fields.pop("kind") == kind, (fields, self.log.read_text())
        return fields, arrays

    def run(self, *lrs: float) -> tuple[list[float], int]:
        """Train; returns the losses and the iteration reached."""
        self.ask("run", [("lrs", np.array(lrs))])
        return self.ran()

    def ran(self) -> tuple[list[float], int]:
        losses: list[float] = []
        first = None
        while True:
            fields, arrays = self.receive()
            if fields["kind"] == "ran":
                assert first is None or first + len(losses) == fields["iteration"]
                return losses, fields["iteration"]
            assert fields["kind"] == "losses", fields
            first = fields["start"] if first is None else first
            assert fields["start"] == first + len(losses)
            losses += arrays["losses"].tolist()

    def silent(self, seconds: float) -> bool:
        return not select.select([self.process.stdout], [], [], seconds)[0]

    def events(self) -> list[str]:
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [line[len("event: ") :] for line in lines if line.startswith("event: ")]

    def weights(self) -> list[list[float]]:
        """The weights of all layers, from a snapshot."""
        self.ask("snapshot")
        self.expect("snapshotted")
        line = next(line for line in reversed(self.events()) if line.startswith("snapshot"))
        return json.loads(line.split(" ", 2)[2])

    def _read(self, size: int) -> bytes:
        parts = []
        assert self.process.stdout
        while size:
            if self.silent(PATIENCE):
                raise AssertionError(f"no answer; the log: {self.log.read_text()}")
            part = os.read(self.process.stdout.fileno(), size)
            if not part:
                raise EOFError(self.log.read_text())
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


Start = Callable[..., Talk]


@pytest.fixture
def start(tmp_path: Path, interpreter: str) -> Iterator[Start]:
    """``start(version)``: a worker that has said nothing yet."""
    running: list[Talk] = []

    def start(version: str = "") -> Talk:
        log = tmp_path / f"caffe-{len(running)}.log"
        command = [*fake_command(tmp_path, interpreter, version), protocol.__file__]
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr
            )
        running.append(Talk(process, log))
        return running[-1]

    yield start
    for talk in running:
        talk.process.kill()
        talk.process.wait()
        for pipe in (talk.process.stdin, talk.process.stdout):
            if pipe:
                pipe.close()


@pytest.fixture
def opened(start: Start, tmp_path: Path) -> Callable[..., Talk]:
    """``opened(options, version, **request)``: a worker with a solver."""

    def opened(options: dict[str, Any] | None = None, version: str = "", **request: Any) -> Talk:
        solver = tmp_path / "solver.json"
        solver.write_text(json.dumps(options or {}))
        talk = start(version)
        talk.expect("hello")
        talk.ask(
            "open", **{"solver": str(solver), "stop": 1000, "iter_size": 1, "gpu": None, **request}
        )
        talk.expect("opened")
        return talk

    return opened


@pytest.fixture
def fake_python(tmp_path: Path) -> Callable[..., CaffePython]:
    """``fake_python(version)``: this Python with the fake caffe, as the client wants it."""
    return lambda version="": CaffePython(fake_command(tmp_path, sys.executable, version), "a fake")
