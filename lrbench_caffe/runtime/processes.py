"""Starts the process of a worker, or takes one that has loaded Caffe already."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from lrbench_caffe.runtime import blas
from lrbench_caffe.runtime import worker as protocol
from lrbench_caffe.runtime.forked import ForkedProcess, Unanswered, ask_for_fork


@dataclass(frozen=True)
class WantedProcess:
    """What decides a worker's process: two that want the same can have the same.

    Attributes:
        command: starts pycaffe's interpreter.
        environment: its variables.
        folder: its working directory.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    folder: str

    @classmethod
    def here(
        cls,
        command: Sequence[str],
        blas_kernels: str | None,
        environment: Mapping[str, str] = os.environ,
    ) -> WantedProcess:
        """A worker's, in this process's folder.

        Args:
            blas_kernels: the name of OpenBLAS's kernels; None for those that it chooses, or the
                user.
            environment: the driver's.
        """
        variables = dict(environment)
        if blas_kernels:
            variables[blas.VARIABLE] = blas_kernels
        # More BLAS threads do not make these nets faster, and one thread gives the same bits every
        # time.
        variables.setdefault("OPENBLAS_NUM_THREADS", "1")
        variables.update(GLOG_logtostderr="1", GLOG_minloglevel="0")
        return cls(command, variables, os.getcwd())

    @property
    def key(self) -> str:
        parts = [list(self.command), sorted(self.environment.items()), self.folder]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True)
class WorkerProcess:
    """A worker's process, with our ends of its stdin and stdout."""

    process: subprocess.Popen[bytes] | ForkedProcess
    stdin: int
    stdout: int


class ProcessSource(Protocol):
    """Has processes that have loaded Caffe.

    Attributes:
        forks: whether they are forks of one, which are for the CPU and for layers of Caffe's own.
    """

    forks: bool

    def take(self, wanted: WantedProcess, log: Path) -> WorkerProcess | None:
        """One as wanted, whose stderr goes to the end of ``log``; None where there is none."""


class _Pipes:
    """The stdin and stdout of a process that is about to start."""

    def __init__(self) -> None:
        self.its_stdin, self.stdin = os.pipe()
        self.stdout, self.its_stdout = os.pipe()

    def of(self, process: subprocess.Popen[bytes] | ForkedProcess | None) -> WorkerProcess | None:
        """Close what the process has now; everything, where there is none."""
        for end in (self.its_stdin, self.its_stdout):
            os.close(end)
        if process is not None:
            return WorkerProcess(process, self.stdin, self.stdout)
        for end in (self.stdin, self.stdout):
            os.close(end)
        return None


def start_process(wanted: WantedProcess, stderr: IO[bytes]) -> WorkerProcess:
    """Start a process.

    Raises:
        OSError: it cannot be started.
    """
    pipes, process = _Pipes(), None
    try:
        process = subprocess.Popen(
            [*wanted.command, protocol.__file__],
            stdin=pipes.its_stdin,
            stdout=pipes.its_stdout,
            stderr=stderr,
            env=wanted.environment,
            start_new_session=True,  # Ctrl-C reaches the driver alone
        )
    finally:
        started = pipes.of(process)
    assert started is not None
    return started


class StartedAhead:
    """One process that is started before it is wanted, with what it most likely has to have.

    Raises:
        OSError: it cannot be started.
    """

    forks = False

    def __init__(self, wanted: WantedProcess) -> None:
        self._wanted = wanted
        with tempfile.TemporaryFile() as stderr:  # until its log is known
            self._process: WorkerProcess | None = start_process(wanted, stderr)

    def take(self, wanted: WantedProcess, log: Path) -> WorkerProcess | None:
        if self._process is None:
            return None
        if wanted.key != self._wanted.key:
            self.close()
            return None
        process, self._process = self._process, None
        try:
            os.write(process.stdin, protocol.pack("log_to", file=str(log.absolute())))
        except OSError:  # it has ended
            _end(process)
            return None
        return process

    def close(self) -> None:
        """End it if nobody has taken it."""
        process, self._process = self._process, None
        if process is not None:
            _end(process)


def _end(process: WorkerProcess) -> None:
    process.process.kill()
    process.process.wait()
    os.close(process.stdin)
    os.close(process.stdout)


class CaffeServer:
    """Forks workers from a process that has loaded Caffe (see worker.py). CPU only.

    Args:
        asker: the socket that it takes requests from. It ends when all copies of this are closed.
    """

    forks = True

    def __init__(self, asker: socket.socket) -> None:
        self._asker = asker
        self._gave_up = False

    @staticmethod
    def start(wanted: WantedProcess, descriptor: int) -> subprocess.Popen[bytes]:
        """Start a server for such processes, which takes requests from a socket's descriptor.

        Raises:
            OSError: it cannot be started.
        """
        return subprocess.Popen(
            [*wanted.command, protocol.__file__, protocol.SERVE, str(descriptor), wanted.key],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=wanted.environment,
            cwd=wanted.folder,
            pass_fds=[descriptor],
            start_new_session=True,
        )

    def take(self, wanted: WantedProcess, log: Path) -> WorkerProcess | None:
        if self._gave_up:
            return None
        pipes, process = _Pipes(), None
        try:
            with log.open("ab") as stderr:
                descriptors = [pipes.its_stdin, pipes.its_stdout, stderr.fileno()]
                process = ask_for_fork(
                    self._asker, wanted.key.encode(), descriptors, signal.SIGKILL
                )
        except Unanswered:
            self._gave_up = True
        finally:
            taken = pipes.of(process)
        return taken
