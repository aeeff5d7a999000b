"""Our commands as processes that have our modules already: each is forked from one that has loaded them.

What the command does from there on it does in a process of its own, with its own arguments, folder,
environment and output, as ``python -m`` would. Loading takes longer than most of the small trainings
of the tests. So it is with Caffe, and trainings have their workers as those of ``tune`` have them,
forked (``caffe_server``).

This file is the program that forks, and ``run`` asks it to.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lrbench_caffe import plots
from lrbench_caffe.jobs import forkserver
from lrbench_caffe.runtime.processes import CaffeServer, WantedProcess, WorkerProcess
from lrbench_caffe.terminal import early, training_output
from lrbench_caffe.training.expecting import expected_process

COMMANDS = ("train", "range", "tune", "rank", "recommend", "plot", "db", "data", "reproduce")
WITH_TRAININGS = ("range", "tune", "reproduce")
LARGEST = 1 << 18  # bytes of a request
CAFFE_SERVER = Path(__file__).resolve().with_name("caffe_server.py")
_ONE = threading.Lock()


def run(
    module: str,
    args: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    seconds: float,
    pictures: bool = False,
) -> tuple[int, str, str]:
    """``python -m MODULE ARGS`` in a folder; returns its exit code, stdout and stderr.

    The environment is that of the first call: what is loaded may depend on it.

    Args:
        pictures: whether a training draws its picture. Without it a small training takes a fifth of
            the time; what pictures show is for the tests of plots.

    Raises:
        socket.timeout: it took longer, and was killed.
    """
    request = json.dumps([module, list(args), str(folder), pictures]).encode()
    with _ONE, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        server = _server(tuple(sorted(environment.items())))
        socket.send_fds(server, [request], [out.fileno(), err.fileno()])
        pid = int(server.recv(LARGEST))
        server.settimeout(seconds)
        try:
            code = int(server.recv(LARGEST))
        except socket.timeout:
            os.kill(pid, signal.SIGKILL)
            server.settimeout(None)
            server.recv(LARGEST)
            raise
        texts = []
        for file in (out, err):
            file.seek(0)
            text = file.read().decode("utf-8", "replace")
            texts.append(text.replace("\r\n", "\n").replace("\r", "\n"))  # as of subprocess
    return code, texts[0], texts[1]


@functools.cache
def _server(environment: tuple[tuple[str, str], ...]) -> socket.socket:
    """Our end of the program's socket. It ends when this end is closed."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        subprocess.Popen(
            [sys.executable, __file__, str(its.fileno())],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[its.fileno()],
        )
    return ours


# -- the program -----------------------------------------------------------------------------------


def server_of(wanted: WantedProcess) -> WantedProcess:
    """The server's own process, which is one for all that differ in their folders only."""
    command = [*wanted.command, str(CAFFE_SERVER)]
    return WantedProcess(command, wanted.environment, str(CAFFE_SERVER.parent))


class InItsFolder(WantedProcess):
    """A worker's process, asked of a server that stands in another folder."""

    @property
    def key(self) -> str:
        return f"{server_of(self).key} {self.folder}"


class CaffeServers:
    """Have workers with Caffe's own layers, and with the fast ones, for any folder."""

    forks = True

    def __init__(self) -> None:
        self._servers: dict[str, CaffeServer] = {}
        for layers in ("stock", "auto"):
            wanted = expected_process(["--layers", layers])
            if wanted is not None and server_of(wanted).key not in self._servers:
                asker, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with its:
                    CaffeServer.start(server_of(wanted), its.fileno())
                self._servers[server_of(wanted).key] = CaffeServer(asker)

    def take(self, wanted: WantedProcess, log: Path) -> WorkerProcess | None:
        server = self._servers.get(server_of(wanted).key)
        here = InItsFolder(wanted.command, wanted.environment, wanted.folder)
        return None if server is None else server.take(here, log)

    def close(self) -> None:
        """Nothing: they are for the other commands, too."""


def load() -> None:
    """Load what the commands load, sooner or later, but not the commands themselves: these are run."""
    for name in (*COMMANDS, "database.store", "terminal.database", "plots.training"):
        importlib.import_module(f"lrbench_caffe.{name}")
    plots.load()
    for name in COMMANDS:
        delattr(sys.modules["lrbench_caffe"], name)
        del sys.modules[f"lrbench_caffe.{name}"]
    gc.freeze()


def serve(asker: socket.socket) -> tuple[str, list[str], str, bool]:
    """Fork for each request until there are no more; returns, in a child, what it is to be."""
    while True:
        data, fds, _, _ = socket.recv_fds(asker, LARGEST, 2)
        if not data:
            os._exit(0)
        child = os.fork()
        if child == 0:
            asker.close()
            os.dup2(fds[0], 1)
            os.dup2(fds[1], 2)
            for fd in fds:
                os.close(fd)
            return json.loads(data)
        for fd in fds:
            os.close(fd)
        # The tests may have ended.
        with contextlib.suppress(BrokenPipeError):
            asker.send(str(child).encode())
            status = os.waitpid(child, 0)[1]
            asker.send(str(os.waitstatus_to_exitcode(status)).encode())


class ForkedServer:
    """A server of trainings that has all modules: forked before its command runs, when it has no threads.

    The command starts its first server with it; what it starts beside that is a program, as always.
    """

    def __init__(self) -> None:
        self._asker, asked = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._start = forkserver.start_server
        self.pid = os.fork()
        if self.pid == 0:
            self._asker.close()
            _become_server(asked)
        asked.close()

    def start(self, numbers: Sequence[int], environment: Mapping[str, str]) -> Any:
        """As ``forkserver.start_server``."""
        forkserver.start_server = self._start
        socket.send_fds(self._asker, [json.dumps(dict(environment)).encode()], list(numbers))
        self._asker.close()
        return self

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> None:
        os.waitpid(self.pid, 0)


def _become_server(asked: socket.socket) -> NoReturn:
    data, fds, _, _ = socket.recv_fds(asked, LARGEST, 2)
    if not data:  # no server was wanted
        os._exit(0)
    asked.close()
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    os.environ.clear()
    os.environ.update(json.loads(data))
    sys.argv[:] = ["-m", forkserver.SERVE, *map(str, fds)]
    plots.load = lambda: None  # it is loaded
    sys.exit(runpy.run_module("lrbench_caffe.jobs", run_name="__main__", alter_sys=True))


if __name__ == "__main__":
    workers = CaffeServers()  # first, as Caffe takes longer
    load()
    module, args, folder, pictures = serve(socket.socket(fileno=int(sys.argv[1])))
    os.chdir(folder)
    sys.path[0] = folder  # as of python -m
    sys.argv[:] = ["-m", *args]
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    early.start_ahead = lambda arguments: workers
    if not pictures:
        training_output._draw = lambda run, policy, measurements: None
    if module.rpartition(".")[2] in WITH_TRAININGS:
        forkserver.start_server = ForkedServer().start
    runpy.run_module(module, run_name="__main__", alter_sys=True)
