"""The command ``train`` for a parent process: it stops, with a snapshot, when the parent is gone.

A program, not for people: ``jobs.child`` starts it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

from lrbench_caffe import train
from lrbench_caffe.errors import LRBenchError
from lrbench_caffe.jobs.child import exit_code
from lrbench_caffe.terminal import cli

_PR_SET_PDEATHSIG = 1


def train_for_parent() -> int:
    """``train``, ended by SIGTERM when the parent is gone."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        return 0  # it was gone before that
    return cli.run(_train)


def _train(argv: Sequence[str]) -> int:
    """``train``, whose failures have an exit code that tells more."""
    try:
        return train.main(argv)
    except LRBenchError as error:
        error.exit_code = exit_code(error)
        raise


if __name__ == "__main__":
    sys.exit(train_for_parent())
