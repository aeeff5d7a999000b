"""The server that forks trainings, without Caffe; tests/caffe/test_jobs.py has real trainings."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lrbench_caffe import __version__
from lrbench_caffe.jobs.forkserver import ForkServer
from lrbench_caffe.runtime import forked
from lrbench_caffe.runtime.forked import ForkedProcess

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ForkServer]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # as of a job
    server = ForkServer()
    yield server
    server.close()


def start(
    server: ForkServer,
    output: Path,
    *arguments: str,
    stop: threading.Event | None = None,
    **more: str,
) -> ForkedProcess | None:
    with output.open("ab") as file:
        return server.start(arguments, {**os.environ, **more}, file, stop or threading.Event())


def started(server: ForkServer, output: Path, *arguments: str, **more: str) -> ForkedProcess:
    process = start(server, output, *arguments, **more)
    assert process is not None
    return process


def server_of(pid: int) -> int:
    """The server that a process has started."""
    found = [
        int(child)
        for task in Path(f"/proc/{pid}/task").glob("*/children")
        for child in task.read_text().split()
        if b"lrbench_caffe.jobs\0serve\0" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    assert len(found) == 1
    return found[0]


def test_each_has_its_arguments_output_folder_environment_and_exit_code(
    server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = started(server, tmp_path / "version", "--version")
    wrong = started(server, tmp_path / "wrong", "--no-such-flag")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.prototxt").mkdir()
    folder = started(server, tmp_path / "folder", "--solver", "here.prototxt")
    caffe = started(
        server, tmp_path / "caffe", "--solver", __file__, LRBENCH_CAFFE_PYTHON="/no/such/python"
    )
    assert [one.wait(60) for one in (version, wrong, folder, caffe)] == [0, 2, 2, 2]
    assert (tmp_path / "version").read_text() == f"{__version__}\n"
    assert "--no-such-flag" in (tmp_path / "wrong").read_text()
    assert "here.prototxt" in (tmp_path / "folder").read_text()
    assert "directory" in (tmp_path / "folder").read_text()
    assert "LRBENCH_CAFFE_PYTHON: /no/such/python" in (tmp_path / "caffe").read_text()


def test_arguments_may_be_long_and_of_any_bytes(server: ForkServer, tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff" + 1000 * b"n")
    many = {f"LRBENCH_TEST_{number}": 50_000 * "x" for number in range(10)}
    process = started(server, tmp_path / "output", f"--no-such-flag={name}", **many)
    assert process.wait(60) == 2
    assert 1000 * b"n" in (tmp_path / "output").read_bytes()


def test_what_was_not_begun_in_time_never_begins(
    server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two processes would train in one run directory."""
    assert started(server, tmp_path / "first", "--version").wait(60) == 0
    pid = server_of(os.getpid())
    monkeypatch.setattr(forked, "START_SECONDS", 0.2)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert start(server, tmp_path / "late", "--version") is None
        began = time.monotonic()
        assert start(server, tmp_path / "later", "--version") is None
        assert time.monotonic() - began < 0.2  # it is asked no more
    finally:
        os.kill(pid, signal.SIGCONT)
    time.sleep(0.5)
    assert not Path(f"/proc/{pid}/task/{pid}/children").read_text().strip()
    assert (tmp_path / "late").read_bytes() == (tmp_path / "later").read_bytes() == b""


def test_what_is_not_wanted_any_more_never_begins(server: ForkServer, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    assert start(server, tmp_path / "output", "--version", stop=stop) is None
    assert started(server, tmp_path / "next", "--version").wait(60) == 0
    assert (tmp_path / "output").read_bytes() == b""


def test_a_server_that_is_gone_starts_nothing(server: ForkServer, tmp_path: Path) -> None:
    assert started(server, tmp_path / "first", "--version").wait(60) == 0
    os.kill(server_of(os.getpid()), signal.SIGKILL)
    assert start(server, tmp_path / "second", "--version") is None


@pytest.mark.parametrize(
    "line",
    [
        "raise SystemExit(1)",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
    ],
    ids=["it fails", "it has threads, which a fork has not"],
)
def test_a_server_that_cannot_serve_starts_nothing(
    server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(line)
    path = f"{tmp_path}:{ROOT}"
    assert start(server, tmp_path / "output", "--version", PYTHONPATH=path) is None
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    assert start(ForkServer(), tmp_path / "output", "--version") is None
    assert (tmp_path / "output").read_bytes() == b""


@pytest.mark.ci
def test_it_ends_with_its_command(tmp_path: Path) -> None:
    code = (
        "import os, sys, threading, time\n"
        "from lrbench_caffe.jobs.forkserver import ForkServer\n"
        "server = ForkServer()\n"
        f"file = open({str(tmp_path / 'output')!r}, 'ab')\n"
        "print(server.start(['--version'], os.environ, file, threading.Event()).wait(60), flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    command = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert command.stdout is not None
    with command.stdout:
        assert command.stdout.readline() == "0\n"
    server = server_of(command.pid)
    command.kill()
    command.wait()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{server}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
