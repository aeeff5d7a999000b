"""The page of a training or a tuning, in a browser, for as long as the command runs (--web)."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from lrbench_caffe.errors import LRBenchError

FIRST_PORT, PORTS = 8080, 100
START_SECONDS = 30.0
NEEDS = ("fastapi", "uvicorn", "jinja2", "plotly", "multipart")


def add_flag(p: argparse._ArgumentGroup) -> None:
    p.add_argument(
        "--web", action="store_true",
        help="show it in a browser while it runs: the address is printed (needs lrbench-caffe[web])",
    )  # fmt: skip


def check_installed() -> None:
    """Check that the web server is installed, before anything is trained.

    Raises:
        LRBenchError: it is not.
    """
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise LRBenchError(f"--web needs {missing[0]}: pip install 'lrbench-caffe[web]'")


@contextlib.contextmanager
def viewing(
    wanted: bool, folder: Path, page: str, db: str | None, say: Callable[[str], None]
) -> Iterator[None]:
    """Serve a folder of runs during the block, if that is wanted. A server that fails is only told.

    Args:
        folder: the runs.
        page: the path of the page whose address is said.
        db: the LR database's URL.
    """
    if not wanted:
        yield
        return
    port = _free_port()
    command = [
        sys.executable,
        "-m",
        "lrbench_caffe.web",
        "--port",
        str(port),
        "--runs",
        str(folder),
    ]
    command += ["--db", db] if db else []
    # It ends when its standard input does, however this process ends.
    server = subprocess.Popen(
        [*command, "--with-parent"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # an interrupt is for the training
    )
    address = f"http://127.0.0.1:{port}"
    telling = threading.Thread(target=_tell, args=(server, address, page, say), daemon=True)
    telling.start()  # the training does not wait for the server
    try:
        yield
    finally:
        assert server.stdin is not None
        server.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(1)
        server.kill()
        server.wait()


def _free_port() -> int:
    for port in range(FIRST_PORT, FIRST_PORT + PORTS):
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port
    return 0


def _tell(
    server: subprocess.Popen[bytes], address: str, page: str, say: Callable[[str], None]
) -> None:
    if _answers(server, address):
        say(f"page: {address}{page}")
    elif server.poll() not in (None, 0, -signal.SIGTERM, -signal.SIGKILL):
        say("note: --web: the web server ended; the command web says why")


def _answers(server: subprocess.Popen[bytes], address: str) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
            return True
        time.sleep(0.1)
    return False
