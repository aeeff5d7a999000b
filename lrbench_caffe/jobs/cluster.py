"""Trainings on a Dask cluster: the same jobs, on other machines.

Every worker needs this package, a Caffe, the data at the same paths, and the run directories on a
disk that all share; the LR database is one that all reach (PostgreSQL). A worker that is lost loses
no more than what it trained since its last snapshot: another one continues from there. A training
that loses worker after worker without progress is one failed run (``attempts``): Dask itself gives up
a task whose workers were lost more often than its scheduler's ``allowed-failures`` say, whatever
the task's ``retries`` are.

A worker that was started with a GPU in CUDA_VISIBLE_DEVICES trains on it, as Slurm's do that were
given one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lrbench_caffe.errors import LRBenchError, ParameterError
from lrbench_caffe.jobs import attempts
from lrbench_caffe.jobs.attempts import LostAttempts
from lrbench_caffe.jobs.child import run_child
from lrbench_caffe.jobs.training import Job, JobResult, failed_result, read_result

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = "10s"
GONE = "the Dask scheduler is gone; the same command continues when it is back"
RETRIES = 2  # for a task that raised


class ClusterPool:
    """Trainings on a Dask cluster.

    Args:
        client: connected to its scheduler; closed with the pool.
    """

    room = sys.maxsize  # the scheduler has the queue

    def __init__(self, client: Client) -> None:
        self._client = client
        self._results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._futures: dict[str, tuple[Any, Job]] = {}
        self._submitted: Counter[Job] = Counter()
        self._given_up: dict[
            Job, list[LostAttempts | None]
        ] = {}  # the losses whenever Dask gave one up

    @property
    def slots(self) -> int:
        return sum(self._client.ncores().values())

    def submit(self, training: Job) -> None:
        # Dask may not have forgotten yet how the task before it ended.
        key = _key(training) + "-again" * self._submitted[training]
        self._submitted[training] += 1
        future = self._client.submit(
            _train_there, training, os.getcwd(), key=key, pure=False, retries=RETRIES
        )
        self._futures[str(future.key)] = future, training  # Dask drops a future without references
        future.add_done_callback(self._results.put)

    def next(self, timeout: float | None = None) -> JobResult | None:
        while True:
            try:
                future = self._results.get(timeout=timeout)
            except queue.Empty:
                if self._client.status != "running":
                    raise LRBenchError(GONE) from None
                return None
            _, training = self._futures.pop(str(future.key))
            if (
                future.cancelled()
            ):  # the client does so with all of them when it loses the scheduler
                raise LRBenchError(GONE)
            result = (
                self._given_up_by_dask(training, future)
                if future.status == "error"
                else future.result()
            )
            if result is not None:
                return cast(JobResult, result)

    def _given_up_by_dask(self, training: Job, future: Any) -> JobResult | None:
        """The failure of a training that loses its workers without progress; None where it is tried again.

        Raises:
            LRBenchError: it ended by an error of its own.
        """
        from distributed import KilledWorker

        error = future.exception()
        if not isinstance(error, KilledWorker):
            raise LRBenchError(f"the Dask cluster: {error}")
        before = self._given_up.setdefault(training, [])
        before.append(attempts.read(training))
        # Who counts the losses is the task itself; one that never began, or was only waiting behind
        # another that took the worker with it, has not counted any.
        if before[-1 - attempts.RETRIED :] != [before[-1]] * (attempts.RETRIED + 1):
            self.submit(training)
            return None
        attempts.end(training)
        self._given_up.pop(training)
        reason = f"the Dask cluster dropped this training {len(before)} times: {error}"
        return replace(_failed(training, reason), losses=len(before))

    def close(self) -> None:
        """Trainings still running there are not stopped: they end, and the next command finds them done."""
        for future, _ in self._futures.values():
            future.cancel()
        self._client.close()


def _key(training: Job) -> str:
    """The same training has the same key in every client, so a scheduler never runs it twice at a time."""
    digest = hashlib.sha256(repr((training, training.db)).encode()).hexdigest()[:16]
    return f"training-{Path(training.out).name}-{digest}"


class WorkingFolder:
    """The working directory of a worker's process, which all of its threads share.

    They work in one folder at a time; who wants another one waits until those in this one have ended,
    and whoever comes later waits behind him.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._folder: str | None = None
        self._inside = 0

    @contextlib.contextmanager
    def at(self, folder: str) -> Iterator[None]:
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            self._changed.wait_for(lambda: self._waiting[0] is turn and self._is_free_for(folder))
            self._waiting.popleft()
            self._inside += 1
            self._folder = folder
            self._changed.notify_all()
        try:
            os.chdir(folder)
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def _is_free_for(self, folder: str) -> bool:
        return self._inside == 0 or self._folder == folder


_working = WorkingFolder()


def _train_there(training: Job, folder: str) -> JobResult:
    """In a worker: the paths of a training are those of the command."""
    with _working.at(folder):
        lost = attempts.begin(training)
        try:
            if lost.hopeless:
                found = read_result(training)
                return found or replace(_failed(training, str(lost)), losses=lost.count)
            return run_child(training, gpu=os.environ.get("CUDA_VISIBLE_DEVICES") or None)
        finally:
            attempts.end(training)


def _failed(training: Job, reason: str) -> JobResult:
    if (
        training.run.running
    ):  # by a worker that was considered lost; the same command finds the result
        return JobResult(training, "failed", reason, training.reached)
    return failed_result(training, reason)


def open_cluster(url: str) -> ClusterPool:
    """Connect to a scheduler.

    Raises:
        InputError: distributed is not installed, or no scheduler answers there.
    """
    try:
        from distributed import Client
    except ImportError:
        raise ParameterError(
            "{scheduler} needs the package distributed: pip install lrbench-caffe[cluster]"
        ) from None
    try:
        return ClusterPool(Client(url, timeout=CONNECT_SECONDS, set_as_default=False))
    except (OSError, ValueError) as error:
        raise ParameterError(
            "{scheduler}: no Dask scheduler at {0} ({1})",
            url,
            error,
        ) from error
