"""The task of a solver as the LR database records it: data set, network, framework."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from lrbench_caffe.datasets.identity import data_samples
from lrbench_caffe.errors import InputError, TrainingError
from lrbench_caffe.progress import Progress
from lrbench_caffe.prototxt.heads import find_heads
from lrbench_caffe.prototxt.messages import Messages, shortest
from lrbench_caffe.prototxt.nets import PhaseNet
from lrbench_caffe.prototxt.patch import (
    BASE_LR,
    GRADIENTS,
    check_settable,
    gradient_options,
    write_prototxts,
)
from lrbench_caffe.prototxt.refusal import open_solver, with_data
from lrbench_caffe.prototxt.solver import Solver, load_solver
from lrbench_caffe.prototxt.sources import Source, free_dead_readers
from lrbench_caffe.records import Dataset, Framework, Network, SolverSettings, Task, digest
from lrbench_caffe.runtime.client import Worker, no_note
from lrbench_caffe.runtime.failures import Death
from lrbench_caffe.runtime.info import caffe_info, check_described
from lrbench_caffe.runtime.locate import CaffePython, find_caffe_python
from lrbench_caffe.runtime.reader import CaffeReader
from lrbench_caffe.runtime.replies import CaffeInfo, Opened, OpenRequest
from lrbench_caffe.runtime.starting import FastLayers, Started, start_checked

WEIGHTED = ("Convolution", "Deconvolution", "InnerProduct")
_NO_PART_OF_A_NAME = re.compile(r"train|training|lmdb|db|pad\d+")
_NO_PART_OF_A_NET = ("Accuracy", "Silence")


class ReadSolver(NamedTuple):
    """A solver, and the Caffe whose messages it was read with."""

    solver: Solver
    info: CaffeInfo
    python: CaffePython
    messages: Messages


def read_with_caffe(
    path: Path,
    caffe_python: str | None = None,
    *,
    level: int = 0,
    stages: Sequence[str] = (),
    head: str | None = None,
    check_data: Progress | None = None,
) -> ReadSolver:
    """Find a Caffe and read a solver file with it.

    Args:
        caffe_python: the Python that can import caffe; None to find one.
        level, stages, head, check_data: as for ``load_solver``.

    Raises:
        InputError: the solver is wrong, or there is no Caffe.
    """
    python = find_caffe_python(caffe_python)
    info = caffe_info(python)
    messages = Messages(info.descriptor, CaffeReader(python))
    solver = load_solver(
        path, messages, info, level=level, stages=stages, head=head, check_data=check_data
    )
    return ReadSolver(solver, info, python, messages)


def open_task(
    path: Path,
    caffe_python: str | None = None,
    head: str | None = None,
    check_data: Progress | None = None,
) -> tuple[Solver, Task]:
    """A solver file and what it trains, for a command that tries or proposes LR policies for it.

    Args:
        caffe_python: the Python that can import caffe; None to find one.
        head: the blob of scores that Top-1 is of; None for the default.
        check_data: as for ``load_solver``.

    Raises:
        InputError: the solver is wrong or takes no LR policy here, or there is no Caffe.
        TrainingError: Caffe crashes or hangs.
    """
    solver, info, python, _ = read_with_caffe(path, caffe_python, head=head, check_data=check_data)
    check_settable(solver, info)
    return solver, describe_task(solver, info, python)


def solver_task(path: Path | None, caffe_python: str | None, head: str | None) -> Task | None:
    """The task of a solver file, None where there is none; see ``open_task``."""
    return open_task(path, caffe_python, head)[1] if path else None


def describe_task(
    solver: Solver,
    info: CaffeInfo,
    python: CaffePython,
    *,
    gpu: int | None = None,
    level: int = 0,
    stages: Sequence[str] = (),
) -> Task:
    """The task of a solver. Caffe opens it on the CPU, in a temporary folder, and trains nothing.

    Args:
        gpu: the GPU it would be trained on, None for the CPU.
        level, stages: of the training net, as the solver was loaded with.

    Raises:
        InputError: Caffe does not accept the solver.
        TrainingError: it crashes or hangs.
    """
    with open_worker(solver, info, python, level=level, stages=stages) as (_, opened):
        return task_of(solver, info, opened, gpu)


@contextlib.contextmanager
def open_worker(
    solver: Solver,
    info: CaffeInfo,
    python: CaffePython,
    *,
    gpu: int | None = None,
    level: int = 0,
    stages: Sequence[str] = (),
    layers: FastLayers | None = None,
) -> Iterator[tuple[Worker, Opened]]:
    """A temporary worker with the solver open; nothing is kept.

    Args:
        gpu: the GPU's id, None for the CPU.
        level, stages: of the training net, as the solver was loaded with.
        layers: the fast layers, None for Caffe's own.

    Raises:
        InputError: Caffe does not accept the solver.
        TrainingError: it crashes or hangs.
    """
    with tempfile.TemporaryDirectory(prefix="lrbench-") as name:
        folder = Path(name)
        patched = write_prototxts(
            solver,
            folder,
            snapshot_prefix=folder / "snapshot",
            max_iter=solver.message.max_iter,
            seed=1,
            gpu=gpu,
            level=level,
            stages=stages,
            lr_by=BASE_LR if info.writable_base_lr else GRADIENTS,
        )
        gradients = None if info.writable_base_lr else gradient_options(solver)
        request = OpenRequest(
            str(patched), solver.message.max_iter, solver.iter_size, gpu=gpu, gradients=gradients,
        )  # fmt: skip
        free_dead_readers(solver.phase_nets)

        def start(blas_kernels: str | None = None) -> Worker:
            return Worker(python, folder / "caffe.log", known=True, blas_kernels=blas_kernels)

        started = start_checked(start, layers, no_note) if layers else Started(start(), None)
        with started.worker as worker:
            check_described(python, info, worker.info)
            if layers and started.library:
                request = replace(request, layers=str(started.library), threads=layers.threads)
            try:
                yield worker, open_solver(worker, solver, request)
            except Death as error:
                words, of_data = with_data(solver, error)
                raise (InputError if of_data else TrainingError)(words) from error


def task_of(solver: Solver, info: CaffeInfo, opened: Opened, gpu: int | None) -> Task:
    """The task of a solver that a worker has open."""
    return Task(
        framework(info, gpu),
        task_type(solver),
        dataset(solver, opened),
        network(solver, opened.parameters),
    )


def task_type(solver: Solver) -> str:
    """Whether it classifies, and by which head where that is not the default one."""
    if solver.head:
        return f"classification of {solver.head}"
    return (
        "classification"
        if find_heads(solver.train) or any(t.heads for t in solver.tests)
        else "other"
    )


def title(solver: Solver) -> str:
    """Data and net, "digits / LeNet_digits", as the task's title; Caffe need not open the solver."""
    return f"{_name(solver.source)} / {_net_name(solver)}"


def _net_name(solver: Solver) -> str:
    return solver.train.name or solver.path.stem


def framework(info: CaffeInfo, gpu: int | None) -> Framework:
    return Framework("Caffe", info.caffe, "CPU" if gpu is None else "GPU")


def solver_settings(solver: Solver) -> SolverSettings:
    message = solver.message
    return SolverSettings(
        type=solver.type,
        batch=solver.source.batch if solver.source else None,
        iter_size=solver.iter_size,
        base_lr=shortest(message.base_lr),
        momentum=shortest(message.momentum),
        weight_decay=shortest(message.weight_decay),
    )


def network(solver: Solver, parameters: int | None) -> Network:
    """The training net with so many parameters.

    Two files with other names for the same layers are the same network.
    """
    layers = [layer for layer in solver.train.layers if _is_net(layer)]
    counts = Counter(layer.type for layer in layers)
    return Network(
        name=_net_name(solver),
        digest=digest(canonical_net(solver.train)),
        layers=dict(sorted(counts.items())),
        parameters=parameters,
        depth=sum(counts[kind] for kind in WEIGHTED),
    )


def _is_net(layer: Any) -> bool:
    return bool(layer.bottom) and layer.type not in _NO_PART_OF_A_NET


def canonical_net(net: PhaseNet) -> list[list[Any]]:
    """The net as data: each layer's type, wiring by numbers, and other settings, without names."""
    numbers: dict[str, int] = {}
    rows = []
    for layer in net.layers:
        if _is_net(layer):
            rest = type(layer)()
            rest.CopyFrom(layer)
            for name in ("name", "type", "bottom", "top", "include", "exclude", "phase"):
                rest.ClearField(name)
            for spec in rest.param:
                spec.ClearField("name")
            bottoms = [numbers.get(blob, -1) for blob in layer.bottom]
            rows.append(
                [
                    layer.type,
                    bottoms,
                    len(layer.top),
                    rest.SerializeToString(deterministic=True).hex(),
                ]
            )
        for blob in layer.top:
            numbers[blob] = len(numbers)
    return rows


def dataset(solver: Solver, opened: Opened) -> Dataset:
    """The data of the training net and of the first test net."""
    source = solver.source
    test = solver.tests[0] if solver.tests else None
    shape = (source.shape if source else None) or _record_shape(solver, opened)
    classes = None
    if test and test.head and opened.test_shapes:
        classes = test.head.classes(opened.test_shapes[0][test.head.scores])
    return Dataset(
        name=_name(source),
        channels=shape[0],
        height=shape[1],
        width=shape[2],
        classes=classes,
        train_samples=_samples(source, solver.train),
        test_samples=_samples(test.source, test.net) if test else None,
        digest=solver.data_digest,
    )


def _samples(source: Source | None, net: PhaseNet) -> int | None:
    if source and source.samples is not None:
        return source.samples
    return next((data_samples(layer) for layer in net.data_layers[:1]), None)


def _record_shape(solver: Solver, opened: Opened) -> tuple[int | None, int | None, int | None]:
    """(channels, height, width) of what the first data layer gives the net, as Caffe has it."""
    blobs = [blob for layer in solver.train.data_layers for blob in layer.top]
    shape = opened.train_shapes.get(blobs[0], []) if blobs else []
    if not 2 <= len(shape) <= 4:
        return None, None, None
    channels, height, width = [*shape[1:], 1, 1][:3]
    return channels, height, width


def _name(source: Source | None) -> str:
    return dataset_name(source.path) if source else "unknown"


def dataset_name(path: str) -> str:
    """The name of a data set: "mnist" of mnist_train_lmdb, "cifar10" of cifar10_pad4_train_lmdb."""
    stem = Path(path).stem
    return (
        "_".join(part for part in stem.split("_") if not _NO_PART_OF_A_NAME.fullmatch(part)) or stem
    )
