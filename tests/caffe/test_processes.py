"""Workers whose processes have loaded Caffe before they are wanted: forks of a server, and one ahead."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from lrbench_caffe.errors import TrainingError
from lrbench_caffe.jobs import Job, LocalPool
from lrbench_caffe.runtime.client import Worker
from lrbench_caffe.runtime.info import caffe_info
from lrbench_caffe.runtime.liveness import parent_of
from lrbench_caffe.runtime.locate import CaffePython, find_caffe_python
from lrbench_caffe.runtime.processes import (
    CaffeServer,
    ProcessSource,
    StartedAhead,
    WantedProcess,
)
from lrbench_caffe.runtime.replies import OpenRequest
from lrbench_caffe.training.expecting import expected_process
from tests.caffe.forked import CaffeServers
from tests.caffe.harness import ROOT, Workspace

STEPS = 20


@pytest.fixture
def here(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(workspace.path)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    return workspace


@pytest.fixture
def python(here: Workspace) -> CaffePython:
    return find_caffe_python(None)


Serve = Callable[[], tuple[CaffeServer, "subprocess.Popen[bytes]"]]


@pytest.fixture
def serve(python: CaffePython) -> Iterator[Serve]:
    """``serve()``: a server of the environment as it is now, and its process."""
    askers, servers = [], []

    def begin() -> tuple[CaffeServer, subprocess.Popen[bytes]]:
        asker, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            server = CaffeServer.start(WantedProcess.here(python.command, None), its.fileno())
        askers.append(asker)
        servers.append(server)
        return CaffeServer(asker), server

    yield begin
    for asker in askers:
        asker.close()
    for server in servers:
        assert server.wait(60) is not None  # it ends when nobody can ask any more


def trained(python: CaffePython, log: Path, source: ProcessSource | None) -> tuple[Worker, bytes]:
    """A worker that has trained, and the losses' bits."""
    worker = Worker(python, log, source=source)
    worker.open(OpenRequest("solver.prototxt", stop=STEPS))
    losses: list[np.ndarray] = []
    worker.run(np.full(STEPS, 0.01), lambda start, values: losses.append(values))
    return worker, np.concatenate(losses).tobytes()


def gone(pid: int, seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while Path(f"/proc/{pid}").exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_a_forked_worker_trains_as_one_that_was_started(
    python: CaffePython, serve: Serve, tmp_path: Path
) -> None:
    source, server = serve()
    outcomes, infos = [], []
    for name, one in (("started", None), ("forked", source), ("forked again", source)):
        worker, bits = trained(python, tmp_path / f"{name}.log", one)
        with worker:
            assert (parent_of(worker.pid) == server.pid) == (one is not None)
            outcomes.append(bits)
            infos.append(worker.info)
            assert os.getsid(worker.pid) == worker.pid
            # Not the log of another one, nor its descriptors.
            targets = {os.readlink(fd) for fd in Path(f"/proc/{worker.pid}/fd").iterdir()}
            assert {target for target in targets if target.endswith(".log")} == {
                str(tmp_path / f"{name}.log")
            }
        assert gone(worker.pid)
        lines = (tmp_path / f"{name}.log").read_text().splitlines()
        assert any(f" {worker.pid} solver.cpp:" in line for line in lines)  # its own in each line
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert infos[0] == infos[1] == infos[2] == caffe_info(python)


def test_a_worker_that_is_not_as_the_server_is_started(
    python: CaffePython, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, server = serve()
    monkeypatch.setenv("LRBENCH_TEST", "another")
    with Worker(python, tmp_path / "log", source=source) as worker:
        assert parent_of(worker.pid) == os.getpid()
    monkeypatch.delenv("LRBENCH_TEST")
    monkeypatch.chdir("/")
    with Worker(python, tmp_path / "log", source=source) as worker:
        assert parent_of(worker.pid) == os.getpid()
    assert server.poll() is None


def test_a_server_with_threads_forks_nothing(
    python: CaffePython, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenBLAS starts them when it is loaded."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    source, server = serve()
    with Worker(python, tmp_path / "log", source=source) as worker:
        assert parent_of(worker.pid) == os.getpid()
    assert server.wait(60) == 0


def test_an_abort_is_the_end_of_one_worker(
    python: CaffePython, serve: Serve, tmp_path: Path
) -> None:
    source, _ = serve()
    other, _ = trained(python, tmp_path / "other", source)
    worker = Worker(python, tmp_path / "log", source=source)
    with pytest.raises(TrainingError, match="File not found: no-such-file"):
        worker.open(OpenRequest("no-such-file", stop=1))
    assert other.snapshot() == STEPS
    other.close()


def test_the_server_is_killed(python: CaffePython, serve: Serve, tmp_path: Path) -> None:
    source, server = serve()
    worker, _ = trained(python, tmp_path / "log", source)
    server.kill()
    assert gone(worker.pid)
    with pytest.raises(TrainingError, match="Caffe was killed by SIGKILL"):
        worker.snapshot()
    worker.kill()
    with Worker(python, tmp_path / "log", source=source) as another:
        assert parent_of(another.pid) == os.getpid()


def test_a_worker_is_killed_while_its_server_is_suspended(
    python: CaffePython, serve: Serve, tmp_path: Path
) -> None:
    source, server = serve()
    worker = Worker(python, tmp_path / "log", source=source)
    server.send_signal(signal.SIGSTOP)
    worker.kill()
    assert gone(worker.pid)


def test_a_forked_worker_ends_with_its_driver(
    python: CaffePython, serve: Serve, tmp_path: Path
) -> None:
    """However that ends, and in the middle of an iteration."""
    source, server = serve()
    code = (
        "import sys, socket, numpy\n"
        "from pathlib import Path\n"
        "from lrbench_caffe.runtime.client import Worker\n"
        "from lrbench_caffe.runtime.locate import find_caffe_python\n"
        "from lrbench_caffe.runtime.processes import CaffeServer\n"
        "from lrbench_caffe.runtime.replies import OpenRequest\n"
        "source = CaffeServer(socket.socket(fileno=int(sys.argv[1])))\n"
        f"worker = Worker(find_caffe_python(None), Path({str(tmp_path / 'log')!r}), source=source)\n"
        "worker.open(OpenRequest('slow.prototxt', stop=10))\n"
        "print(worker.pid, flush=True)\n"
        "worker.run(numpy.full(10, 0.01), lambda *_: None)\n"
    )
    text = Path("solver.prototxt").read_text()
    Path("slow.prototxt").write_text(f"{text}\niter_size: 1000000\n")
    number = source._asker.fileno()
    # The driver wants what the server is, so it gets our variables; its modules by the folder.

    driver = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}",
            str(number),
        ],
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[number],
    )
    assert driver.stdout is not None
    with driver.stdout:
        worker = int(driver.stdout.readline())
    assert parent_of(worker) == server.pid
    time.sleep(0.5)  # an iteration takes minutes
    driver.kill()
    driver.wait()
    assert gone(worker, 5)
    assert server.poll() is None


def test_one_that_was_started_ahead(python: CaffePython, tmp_path: Path) -> None:
    wanted = WantedProcess.here(python.command, None)
    ahead = StartedAhead(wanted)
    worker, bits = trained(python, tmp_path / "log", ahead)
    with worker:
        assert parent_of(worker.pid) == os.getpid()
    assert "Creating training net" in (tmp_path / "log").read_text()
    started, expected = trained(python, tmp_path / "started.log", ahead)  # there was only one
    assert bits == expected
    started.close()
    logs = [(tmp_path / name).read_text() for name in ("log", "started.log")]
    first = [log.partition("Solver scaffolding done")[0].splitlines() for log in logs]
    assert len(first[0]) == len(first[1]) > 100  # and so is what came before the log was known
    ahead.close()


def test_one_that_nobody_wants(python: CaffePython, tmp_path: Path) -> None:
    ahead = StartedAhead(WantedProcess.here(python.command, None))
    process = ahead._process
    assert process is not None
    assert ahead.take(WantedProcess.here(python.command, "Nehalem"), tmp_path / "log") is None
    ahead.close()
    assert gone(process.process.pid)


def test_one_that_dies_early_is_replaced(python: CaffePython, tmp_path: Path) -> None:
    ahead = StartedAhead(WantedProcess.here(python.command, None))
    assert ahead._process is not None
    os.kill(ahead._process.process.pid, signal.SIGKILL)
    with Worker(python, tmp_path / "log", source=ahead) as worker:
        assert worker.info == caffe_info(python)


@pytest.mark.parametrize(
    ("arguments", "kernels"),
    [(["--layers", "stock"], False), (["--layers=fast"], True), (["-gpu", "0"], False)],
)
def test_what_is_expected(python: CaffePython, arguments: list[str], kernels: bool) -> None:
    caffe_info(python)
    expected = expected_process(arguments)
    assert expected is not None
    plain = WantedProcess.here(python.command, None)
    assert expected.command == plain.command
    assert kernels or expected == plain
    assert expected_process(["--caffe-python", "/no/such/python"]) is None


@pytest.fixture
def starts(python: CaffePython, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a line for each start of pycaffe's interpreter; what it is told is remembered."""
    lines, launcher = tmp_path / "starts", tmp_path / "python"
    launcher.write_text(f'#!/bin/sh\necho "$*" >> {lines}\nexec {python.command[0]} "$@"\n')
    launcher.chmod(0o755)
    monkeypatch.setenv("LRBENCH_CAFFE_PYTHON", str(launcher))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    caffe_info(find_caffe_python(None))
    lines.unlink()
    return lines


@pytest.mark.parametrize("layers", ["stock", "auto"])
def test_train_starts_the_process_that_it_needs(here: Workspace, starts: Path, layers: str) -> None:
    command = [sys.executable, "-m", "lrbench_caffe.train", "solver.prototxt", "--layers", layers]
    done = subprocess.run(
        [*command, "--out", "run", "--no-db"],
        env=dict(os.environ),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(starts.read_text().splitlines()) == 1


@pytest.mark.ci
def test_a_pool_starts_caffe_once(here: Workspace, starts: Path) -> None:
    with LocalPool(2) as pool:
        for seed in range(4):
            pool.submit(Job("solver.prototxt", seed=seed, out=f"run{seed}", db=""))
        assert [result.status for _ in range(4) if (result := pool.next())] == 4 * ["finished"]
    (line,) = starts.read_text().splitlines()
    assert "worker.py serve " in line


def test_the_tests_have_forks_in_the_folder_where_they_work(
    python: CaffePython, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else they would take long, and nothing would say so."""
    source = CaffeServers()
    monkeypatch.chdir(tmp_path)
    with Worker(python, tmp_path / "log", source=source) as worker:
        assert parent_of(worker.pid) != os.getpid()
        assert Path(f"/proc/{worker.pid}/cwd").resolve() == tmp_path.resolve()
