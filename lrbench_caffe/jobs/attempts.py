"""Counts how often a training lost its worker, in its run directory, which all machines share.

A process that begins a training leaves a mark there and removes it at the end. A mark that exists
already means that the attempt before was lost. So every loss is counted, whatever the cluster's own
settings are.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from lrbench_caffe.files import read_own, replace_own
from lrbench_caffe.jobs.training import Job

RETRIED = 3  # losses in a row without progress after which a training is begun again; one more is a failure
MARK = ".attempt"


@dataclass(frozen=True)
class LostAttempts:
    """The attempts at one training whose worker was lost.

    Attributes:
        count: losses in a row, none of them at a later iteration than the one before.
        reached: the most iterations that the training had at any of them.
    """

    count: int
    reached: int

    @property
    def hopeless(self) -> bool:
        return self.count > RETRIED

    def __str__(self) -> str:
        return f"its worker was lost {self.count} times without progress beyond iteration {self.reached}"


def begin(training: Job) -> LostAttempts:
    """Mark that a training begins; returns the losses before it."""
    before, reached = read(training), training.reached
    if before is None:
        losses = LostAttempts(0, reached)
    elif reached > before.reached:
        losses = LostAttempts(1, reached)
    else:
        losses = LostAttempts(before.count + 1, before.reached)
    mark = _mark(training)
    mark.parent.mkdir(parents=True, exist_ok=True)
    replace_own(mark, json.dumps(asdict(losses)).encode())
    return losses


def read(training: Job) -> LostAttempts | None:
    """The losses so far, None where no attempt was lost and none is under way."""
    try:
        losses = json.loads(read_own(_mark(training)).decode())
        return LostAttempts(int(losses["count"]), int(losses["reached"]))
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        OverflowError,
        RecursionError,
    ):  # damaged: of no use
        return None


def end(training: Job) -> None:
    """Remove the mark: the training ended, in whatever way."""
    with contextlib.suppress(OSError):
        _mark(training).unlink()


def _mark(training: Job) -> Path:
    """Of its own for each part of a training: the next one may wait behind it, and has lost nothing."""
    return Path(training.out) / (MARK if training.until is None else f"{MARK}-{training.until}")
