"""The command ``train`` for a parent process: it stops, with a snapshot, when the parent is gone.

A program, not for people: ``jobs.child`` starts it, or ``jobs.forkserver``, which forks it.
"""

from __future__ import annotations

import functools
import gc
import importlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence

from lrbench_caffe import plots, train
from lrbench_caffe.errors import LRBenchError
from lrbench_caffe.jobs.child import exit_code
from lrbench_caffe.jobs.forkserver import SERVE, serve_trainings
from lrbench_caffe.runtime.forking import end_with
from lrbench_caffe.runtime.processes import CaffeServer
from lrbench_caffe.terminal import cli

# What a training loads only when it needs it.
LATER = (
    "lrbench_caffe.training.recorder",
    "lrbench_caffe.database.store",
    "lrbench_caffe.runs.mending",
    "lrbench_caffe.runs.waiting",
    "sqlalchemy.dialects.sqlite",
    "lrbench_caffe.plots.training",
)


def train_for_parent() -> int:
    """``train``, ended by SIGTERM when the parent is gone."""
    if not end_with(os.getppid(), signal.SIGTERM):
        return 0  # it was gone before that
    source = None
    if sys.argv[1:2] == [SERVE]:
        forked = serve_trainings(int(sys.argv[2]), int(sys.argv[3]), _load())
        if forked is None:
            return 0
        sys.argv[1:], source = forked
    return cli.run(functools.partial(_train, source=source))


def _load() -> Iterator[str]:
    """Load what trainings need later, step by step."""
    for name in LATER:
        importlib.import_module(name)
        yield name
    plots.load()
    gc.collect()
    gc.freeze()  # else each training copies all of this memory when its garbage is collected
    yield "plots"


def _train(argv: Sequence[str], source: CaffeServer | None) -> int:
    """``train``, whose failures have an exit code that tells more."""
    try:
        return train.main(argv, source)
    except LRBenchError as error:
        error.exit_code = exit_code(error)
        raise


if __name__ == "__main__":
    sys.exit(train_for_parent())
