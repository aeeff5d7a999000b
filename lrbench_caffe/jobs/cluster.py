"""Trainings on a Dask cluster: the same jobs, on other machines.

Every worker needs this package, a Caffe, the data at the same paths, and the run directories on a disk
that all share; the LR database is one that all reach (PostgreSQL). A worker that is lost loses no more than
what it trained since its last snapshot: Dask gives its task to another one, which goes on from there.

A worker that was started with a GPU in CUDA_VISIBLE_DEVICES trains on it, as Slurm's do that were given one.
"""

from __future__ import annotations

import hashlib
import os
import queue
from pathlib import Path
from typing import TYPE_CHECKING

from lrbench_caffe.errors import InputError, LRBenchError
from lrbench_caffe.jobs.child import run_child
from lrbench_caffe.jobs.training import Result, Training

if TYPE_CHECKING:
    from distributed import Client, Future

CONNECT_SECONDS = "10s"
GONE = "the Dask scheduler is gone; the same command goes on when it is back"
RETRIES = 2  # for a task that raised; one whose worker was lost is moved by Dask anyway


class ClusterPool:
    """Trainings on a Dask cluster.

    Args:
        client: connected to its scheduler; closed with the pool.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._results: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._futures: dict[str, Future] = {}

    @property
    def slots(self) -> int:
        return sum(self._client.ncores().values())

    def submit(self, training: Training) -> None:
        future = self._client.submit(
            _train_there, training, os.getcwd(), key=_key(training), pure=False, retries=RETRIES
        )
        self._futures[str(future.key)] = future  # Dask forgets what nobody holds
        future.add_done_callback(self._results.put)

    def next(self, timeout: float | None = None) -> Result | None:
        try:
            future = self._results.get(timeout=timeout)
        except queue.Empty:
            if self._client.status != "running":
                raise LRBenchError(GONE) from None
            return None
        self._futures.pop(str(future.key), None)
        if future.cancelled():  # the client does so with all of them when it loses the scheduler
            raise LRBenchError(GONE)
        if future.status == "error":
            raise LRBenchError(f"the Dask cluster: {future.exception()}")
        found: Result = future.result()
        return found

    def close(self) -> None:
        """Trainings that go on there are not stopped: they end, and the next command finds them done."""
        for future in self._futures.values():
            future.cancel()
        self._client.close()


def _key(training: Training) -> str:
    """The same training has the same key in every client, so a scheduler never runs it twice at a time."""
    digest = hashlib.sha256(repr((training, training.db)).encode()).hexdigest()[:16]
    return f"training-{Path(training.out).name}-{digest}"


def _train_there(training: Training, folder: str) -> Result:
    """In a worker: the paths of a training are those of the command."""
    os.chdir(folder)
    return run_child(training, gpu=os.environ.get("CUDA_VISIBLE_DEVICES") or None)


def open_cluster(url: str) -> ClusterPool:
    """Connect to a scheduler.

    Raises:
        InputError: distributed is not installed, or no scheduler answers there.
    """
    try:
        from distributed import Client
    except ImportError:
        raise InputError(
            "--scheduler needs the package distributed: pip install lrbench-caffe[cluster]"
        ) from None
    try:
        return ClusterPool(Client(url, timeout=CONNECT_SECONDS, set_as_default=False))
    except (OSError, ValueError) as error:
        raise InputError(f"--scheduler: no Dask scheduler at {url} ({error})") from error
