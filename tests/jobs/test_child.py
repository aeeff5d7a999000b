"""What is told of a training's process, without Caffe; tests/caffe/test_jobs.py has the rest."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from lrbench_caffe.jobs import Job, attempts, child
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


def test_one_that_could_not_even_say_why_it_ended_may_have_had_no_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    training = Job(solver="solver.prototxt", seed=1, out=str(tmp_path))
    (tmp_path / "output.log").touch()
    assert child._failure(training, 1, False, 1.0).reason == "exit code 1"
    full = SimpleNamespace(total=1 << 30, free=4096)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    assert child._failure(training, 1, False, 1.0).reason == "No space left on device"
    (tmp_path / "output.log").write_text("error: it says why\n")
    assert child._failure(training, 1, False, 1.0).reason == "it says why"


def test_the_mark_of_a_clusters_lost_attempt_goes_with_the_result(tmp_path: Path) -> None:
    training = Job(solver="solver.prototxt", seed=1, out=str(tmp_path / "run"))
    training.run.path.mkdir()
    attempts.begin(training)
    training.run.write({"solver": "solver.prototxt", "status": "finished", "iteration": 100})
    result = child.run_child(training)
    assert result.status == "finished" and attempts.read(training) is None


def test_nobody_needs_to_be_there_to_be_told(suspended: int) -> None:
    def gone(_: str) -> None:
        raise BrokenPipeError

    watch = _Watch(suspended, job(), gone)
    assert not any(watch.hangs() for _ in range(4))
