"""The command ``train`` for a process that starts it: it stops, with a snapshot, when that one is gone.

A program, not for people: ``jobs.child`` starts it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from lrbench_caffe import train
from lrbench_caffe.terminal import cli

_PR_SET_PDEATHSIG = 1


def train_for_parent() -> int:
    """``train``, ended by SIGTERM when the parent is gone."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        return 0  # it was gone before that
    return cli.run(train.main)


if __name__ == "__main__":
    sys.exit(train_for_parent())
