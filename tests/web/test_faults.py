"""An upload in the middle of which the server or its database dies: every run is there once."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lrbench_caffe.database import Database, exchange
from lrbench_caffe.database.platform import Platform
from lrbench_caffe.sharing.client import Client
from tests.database.records import run
from tests.database.server import Server

PAGES, PAGE = 12, 25


@pytest.fixture
def own_server(server: Server) -> Iterator[Server]:
    """A PostgreSQL server that may be stopped: no other test uses it."""
    started = Server(fsync=True)
    yield started
    started.remove()


@contextlib.contextmanager
def command(
    url: str, port: int, *flags: str, logs: Sequence[Any] = (subprocess.DEVNULL,) * 2
) -> Iterator[subprocess.Popen[bytes]]:
    """The command, as a process that answers; ``logs`` are its standard output and error."""
    arguments = [sys.executable, "-m", "lrbench_caffe.web", "--db", url, "--port", str(port)]
    process = subprocess.Popen([*arguments, *flags], stdout=logs[0], stderr=logs[1])
    try:
        while True:
            assert process.poll() is None, "the server ended while it started"
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5).close()
                break
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_processes_that_take_long_to_load_are_not_replaced(new_url, tmp_path, monkeypatch):
    """As on a machine that trains: uvicorn pings a process from its first moment."""
    (tmp_path / "sitecustomize.py").write_text(
        "import time\nif 'spawn_main' in open('/proc/self/cmdline').read():\n    time.sleep(8)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with (tmp_path / "log").open("wb") as log:
        logs = (subprocess.DEVNULL, log)
        with command(new_url("sqlite"), free_port(), "--workers", "2", logs=logs) as process:
            process.terminate()  # killed, it would leave its processes behind
            assert process.wait(60) in (0, -signal.SIGTERM)
    assert "died" not in (tmp_path / "log").read_text()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def pushed(port: int, secret: str, after: Callable[[int], None]) -> list[int]:
    """Send pages of runs; ``after(page)`` is called when a page was answered. Returns new runs by page."""
    client = Client(f"http://127.0.0.1:{port}", secret, patience=120)
    new = []
    for page in range(PAGES):
        records = [run(f"p{page}-{i}", seed=page * PAGE + i) for i in range(PAGE)]
        lines = [exchange.to_line(record).encode() for record in records]
        new.append(client.send(lines, "batch", None, None).new)
        after(page)
    return new


def check_all_there_once(database: Database) -> None:
    uids = [record.uid for record in database.runs(source="measured")]
    assert len(uids) == len(set(uids)) == PAGES * PAGE
    for uid in ("p0-0", f"p{PAGES - 1}-{PAGE - 1}"):
        assert len(database.get(uid).measurements) == 3
    (batch,) = Platform(database).batches()
    assert batch.runs == PAGES * PAGE


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_server_is_killed_in_the_middle_of_an_upload(new_url, kind):
    url, port = new_url(kind), free_port()
    with Database.open(url) as database:
        secret = Platform(database).add_token("ada", "write")
        with contextlib.ExitStack() as stack:
            current = stack.enter_context(command(url, port))

            def kill(page: int) -> None:
                nonlocal current
                if page in (2, 6):  # while the next page is on its way
                    threading.Timer(0.02, current.kill).start()

            def again() -> None:
                nonlocal current
                starts = 0
                while starts < 2:
                    current.wait()
                    current = stack.enter_context(command(url, port))
                    starts += 1

            watcher = threading.Thread(target=again, daemon=True)
            watcher.start()
            pushed(port, secret, kill)
            watcher.join(60)
        check_all_there_once(database)


@pytest.mark.slow
def test_the_database_restarts_in_the_middle_of_an_upload(own_server):
    url = own_server.url(own_server.create())
    port = free_port()
    with Database.open(url, patience=60) as database:
        secret = Platform(database).add_token("ada", "write")

        answered: queue.Queue[int] = queue.Queue()
        with command(url, port), ThreadPoolExecutor(1) as pool:
            pushing = pool.submit(pushed, port, secret, answered.put)
            for page, how in ((1, signal.SIGQUIT), (5, signal.SIGINT)):
                while answered.get(timeout=120) < page:
                    pass
                # Not in a thread: PostgreSQL ends with the thread that started it.
                own_server.restart(how)
            assert sum(pushing.result()) <= PAGES * PAGE
        check_all_there_once(database)
