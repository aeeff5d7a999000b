"""Opens the pool that trains many times, and the flags that each training is given."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence

from lrbench_caffe.errors import ParameterError
from lrbench_caffe.jobs.pool import LocalPool, Pool
from lrbench_caffe.runtime.info import caffe_info
from lrbench_caffe.runtime.locate import find_caffe_python
from lrbench_caffe.training.settings import check_gpu

GPU = re.compile(r"[0-9]{1,9}|(GPU|MIG)-[\w/-]+")  # as in CUDA_VISIBLE_DEVICES
SCHEDULER = re.compile(r"\w+://[^\s/:]+:\d+/?|\w+://\[[0-9a-fA-F:]+\]:\d+/?")

TRUST_DATA = "--trust-data"  # a flag of trainings that does not identify them


def training_flags(
    layers: str, caffe_python: str | None, head: str | None = None
) -> tuple[str, ...]:
    """The flags with values that a command hands on to each of its trainings."""
    flags = {"--layers": layers, "--caffe-python": caffe_python, "--head": head}
    return tuple(word for flag, value in flags.items() if value for word in (flag, value))


def beginning_flags(
    weights: str | None, level: int = 0, stages: Sequence[str] = ()
) -> tuple[str, ...]:
    """The flags of a new training that decide its start and its net."""
    flags = {"--weights": weights, "--level": level, "--stage": ",".join(stages)}
    return tuple(str(word) for flag, value in flags.items() if value for word in (flag, value))


def check_jobs(jobs: int | None) -> None:
    """Raise an InputError for an impossible number of jobs."""
    if jobs is not None and jobs < 1:
        raise ParameterError("{jobs}: {0}; allowed: 1 or more", jobs)


def open_pool(
    jobs: int | None,
    gpus: str | None,
    scheduler: str | None,
    caffe_python: str | None,
    warn: Callable[[str], None],
) -> Pool:
    """The pool that the flags ask for; the caller closes it.

    Args:
        warn: called with warnings for the user while trainings run on this machine.

    Raises:
        InputError: a flag is wrong, or there is no such scheduler or GPU.
    """
    if scheduler is not None:
        if jobs is not None or gpus is not None:
            raise ParameterError(
                "{scheduler}: {jobs} and {gpus} do not go with it; the cluster's workers say how many"
            )
        if not SCHEDULER.fullmatch(scheduler):
            raise ParameterError(
                "{scheduler}: {0!r}; allowed: an address such as tcp://host:8786", scheduler
            )
        from lrbench_caffe.jobs.cluster import open_cluster

        return open_cluster(scheduler)
    names = [] if gpus is None else [name.strip() for name in gpus.split(",")]
    if not all(GPU.fullmatch(name) for name in names):
        raise ParameterError(
            "{gpus}: {0!r}; allowed: comma-separated numbers or UUIDs of GPUs", gpus
        )
    if len(set(names)) < len(names):
        raise ParameterError("{gpus}: {0}; allowed: each GPU once", gpus)
    check_jobs(jobs)
    if names and jobs is not None and jobs != len(names):
        raise ParameterError(
            "{jobs} {0}: with {gpus} one training runs on each; allowed: {1}, or no {jobs}",
            jobs,
            len(names),
        )
    if names:
        info = caffe_info(find_caffe_python(caffe_python))
        for name in names:
            check_gpu(int(name) if name.isdecimal() else 0, f"{{gpus}} {gpus}", info, hint="")
    return LocalPool(jobs or len(os.sched_getaffinity(0)), names, warn)
