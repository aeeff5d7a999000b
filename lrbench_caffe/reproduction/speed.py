"""Measures how long trainings take on this machine, with some iterations and test batches."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lrbench_caffe.errors import TrainingError
from lrbench_caffe.native.library import usable_libraries
from lrbench_caffe.progress import Progress
from lrbench_caffe.prototxt.solver import Solver, TestNet
from lrbench_caffe.prototxt.task import open_worker, read_with_caffe
from lrbench_caffe.reproduction.plan import Setup
from lrbench_caffe.runtime.blas import kernels_to_try
from lrbench_caffe.runtime.client import Worker
from lrbench_caffe.runtime.cpu import this_cpu
from lrbench_caffe.runtime.starting import FastLayers
from lrbench_caffe.training.evaluator import head_request
from lrbench_caffe.training.settings import choose_gpu, choose_layers, width_of

SECONDS = 3.0  # of training; one iteration at least
MOST = 200  # iterations
TEST_BATCHES = 5


@dataclass(frozen=True)
class Speed:
    """The speed of a solver.

    Attributes:
        iteration, test: seconds for one iteration, and for a test of all test nets.
    """

    iteration: float
    test: float

    def seconds(self, iterations: int, test_interval: int) -> float:
        """Seconds for a number of iterations with their tests, including the first one."""
        return iterations * self.iteration + (1 + iterations // test_interval) * self.test


def measure(
    path: Path,
    layers: str,
    gpu: int | None = None,
    caffe_python: str | None = None,
    check_data: Progress | None = None,
) -> Speed:
    """Train for some seconds, and test with some batches.

    Args:
        path: the solver file.
        layers: "auto", "fast" or "stock".
        gpu: the GPU's id, None for the CPU.
        caffe_python: the Python that can import caffe; None to find one.
        check_data: as for ``load_solver``.

    Raises:
        InputError: the solver, its data or the flags are wrong, or there is no Caffe.
        InputError: Caffe does not accept the solver.
    """
    solver, info, python, _ = read_with_caffe(path, caffe_python, check_data=check_data)
    if gpu is not None:
        choose_gpu(str(gpu), solver, info)
    fast = None
    if choose_layers(layers, gpu, info) == "fast":
        kernels = kernels_to_try(info.blas_kernels, None, this_cpu())
        fast = FastLayers(usable_libraries(width_of(layers)), kernels)
    with open_worker(solver, info, python, gpu=gpu, layers=fast) as (worker, _):
        iteration = _iteration(worker, solver)
        test = sum(_test(worker, index, net) for index, net in enumerate(solver.tests))
    return Speed(iteration, test)


def _iteration(worker: Worker, solver: Solver) -> float:
    rate = solver.message.base_lr
    start = worker.run(np.full(1, rate), _ignore)  # the first one makes room for all that follows
    began = time.monotonic()
    end = worker.run(np.full(MOST, rate), _ignore, lambda: time.monotonic() - began > SECONDS)
    return (time.monotonic() - began) / max(1, end - start)


def _ignore(start: int, losses: np.ndarray) -> None:
    pass


def _test(worker: Worker, index: int, net: TestNet) -> float:
    passes, heads = min(net.passes, TEST_BATCHES), [head_request(head) for head in net.heads]
    worker.test(index, 1, heads)  # the first one makes room, here too
    began = time.monotonic()
    worker.test(index, passes, heads)
    return (time.monotonic() - began) / passes * net.passes


class Prober:
    """Measures the speed of the trainings that a command is about to start.

    Args:
        layers, gpus, caffe_python: as the flags; of several GPUs the first one is measured.
        elsewhere: whether the trainings run on other machines, of which nothing is known here.
        check_data: as for ``load_solver``.
    """

    def __init__(
        self,
        layers: str,
        gpus: str | None,
        caffe_python: str | None,
        elsewhere: bool,
        check_data: Progress | None = None,
    ) -> None:
        self._layers = layers
        self._gpu = (gpus or "").split(",")[0].strip()
        self._caffe_python = caffe_python
        self._elsewhere = elsewhere
        self._check_data = check_data

    def speeds(self, setups: Iterable[Setup]) -> dict[str, Speed]:
        """The speeds, by the setup's key.

        Raises:
            LRBenchError: why it cannot be measured.
        """
        if self._elsewhere:
            raise TrainingError("the trainings run on other machines")
        if self._gpu and not self._gpu.isdecimal():
            raise TrainingError(f"GPU {self._gpu} has no number")
        gpu = int(self._gpu) if self._gpu else None
        return {
            setup.key: measure(
                Path(setup.solver), self._layers, gpu, self._caffe_python, self._check_data
            )
            for setup in setups
        }


def duration(seconds: float) -> str:
    """A duration as text.

    >>> duration(40), duration(500), duration(9000), duration(600_000)
    ('40 s', '8 min', '2 h 30 min', '6.9 days')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        hours, minutes = divmod(round(seconds / 60), 60)
        return f"{hours} h {minutes} min"
    return f"{seconds / 86400:.1f} days"
