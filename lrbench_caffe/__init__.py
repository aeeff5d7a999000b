"""LRBench for Caffe: find, measure, rank and recommend learning-rate policies."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Any

__version__ = "0.1.0"

# What a program or a notebook begins with, loaded when it is asked for. The functions of the Python
# API that are called like a command (train, tune, rank, ...) are in ``lrbench_caffe.api`` alone:
# here these names are the commands' modules.
_LAZY = {
    "Database": "lrbench_caffe.database",
    "Policy": "lrbench_caffe.lr",
    "find_range": "lrbench_caffe.api",
    "parse": "lrbench_caffe.lr",
    "read_run": "lrbench_caffe.api",
    "runs_figure": "lrbench_caffe.api",
    "schedule_figure": "lrbench_caffe.api",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])


# A command that still loads its modules (``python -m`` has not named it in argv yet) ends at Ctrl-C
# without a traceback; ``cli.run`` listens once they are there. As a library this package leaves
# signals alone.
_is_command = os.path.basename(sys.argv[0] if sys.argv else "") in ("-m", "lrbench-caffe")
_is_ignored = (
    signal.getsignal(signal.SIGINT) is not signal.default_int_handler
)  # as in the background
if _is_command and not _is_ignored:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
