"""What is told of a training's process, without Caffe; tests/caffe/test_jobs.py has the rest."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from lrbench_caffe.jobs import Job
from lrbench_caffe.jobs.child import _Watch
from lrbench_caffe.runtime.liveness import paused


@pytest.fixture
def suspended() -> Iterator[int]:
    process = subprocess.Popen(["sleep", "600"])
    os.kill(process.pid, signal.SIGSTOP)
    while paused(process.pid) is None:
        pass
    yield process.pid
    process.kill()
    process.wait()


def job() -> Job:
    return Job(solver="solver.prototxt", seed=1, out="run", policy="FIX(k0=0.01)")


def test_whoever_waits_is_told_once_of_a_suspended_training(suspended: int) -> None:
    told: list[str] = []
    watch = _Watch(suspended, job(), told.append)
    assert not any(watch.hangs() for _ in range(4))
    line = f"note: run: the training is stopped (process {suspended}): waiting until it continues"
    assert told == [line]


def test_nobody_needs_to_be_there_to_be_told(suspended: int) -> None:
    def gone(_: str) -> None:
        raise BrokenPipeError

    watch = _Watch(suspended, job(), gone)
    assert not any(watch.hangs() for _ in range(4))
