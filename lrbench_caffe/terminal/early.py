"""Starts Caffe for ``train`` before anything else is loaded. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence

from lrbench_caffe.runtime.processes import StartedAhead
from lrbench_caffe.training.expecting import expected_process

_TRAIN_NOTHING = {"-h", "--help", "--version", "--preview"}


def start_ahead(arguments: Sequence[str]) -> StartedAhead | None:
    """Start the process that ``train`` will most likely want; None where that cannot be told."""
    if not arguments or _TRAIN_NOTHING.intersection(arguments):
        return None
    try:
        wanted = expected_process(arguments)
        return None if wanted is None else StartedAhead(wanted)
    except OSError:  # which the command will tell
        return None
