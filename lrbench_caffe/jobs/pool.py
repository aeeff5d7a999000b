"""Where trainings run: submit them, and take the results as they come."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Protocol

from lrbench_caffe.jobs.child import Stopped, on_stderr, run_child
from lrbench_caffe.jobs.forkserver import ForkServer
from lrbench_caffe.jobs.training import Job, JobResult


class Pool(Protocol):
    """Trains submitted jobs, as many at a time as there is room for.

    Attributes:
        slots: how many trainings run at a time; a cluster's number may change.
        room: how many it should be given at a time.
    """

    @property
    def slots(self) -> int: ...

    @property
    def room(self) -> int: ...

    def submit(self, training: Job) -> None:
        """Train this as soon as there is room."""

    def next(self, timeout: float | None = None) -> JobResult | None:
        """The next result, in the order in which trainings end; None after ``timeout`` seconds without one.

        Raises:
            Exception: what is not a training's fault, such as a cluster that is gone.
        """

    def close(self) -> None:
        """Stop what still runs, with snapshots, and wait for that."""


class LocalPool:
    """Trainings on this machine, each in a process of its own.

    Args:
        jobs: how many at a time on the CPU.
        gpus: names of GPUs, for one training each at a time; then ``jobs`` does not count.
        warn: called with warnings for the user while they train.
    """

    def __init__(
        self,
        jobs: int = 1,
        gpus: Sequence[str] = (),
        warn: Callable[[str], None] = on_stderr,
    ) -> None:
        self._warn = warn
        self.slots = self.room = len(gpus) or jobs
        self._devices: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        devices: list[str | None] = list(gpus) or [None] * jobs
        for device in devices:
            self._devices.put(device)
        self._results: queue.SimpleQueue[JobResult | BaseException] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._server = ForkServer()
        self._threads = ThreadPoolExecutor(self.slots, thread_name_prefix="training")

    def submit(self, training: Job) -> None:
        self._threads.submit(self._run, training)

    def _run(self, training: Job) -> None:
        device = self._devices.get()
        try:
            self._results.put(run_child(training, self._stop, device, self._warn, self._server))
        except Stopped:
            pass
        except BaseException as error:
            self._results.put(error)
        finally:
            self._devices.put(device)

    def next(self, timeout: float | None = None) -> JobResult | None:
        try:
            result = self._results.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(result, BaseException):
            raise result
        return result

    def close(self) -> None:
        self._stop.set()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._server.close()

    def __enter__(self) -> LocalPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
