"""Parts of a training: what comes out of them, read from a run directory without training anything."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lrbench_caffe.jobs import Job, child, read_result
from lrbench_caffe.metrics import Measurement


@pytest.fixture
def training(tmp_path: Path) -> Job:
    """A training with tests at 0, 50, 100, ... 200 iterations."""
    found = Job("solver.prototxt", seed=1, out=str(tmp_path / "run"), max_iter=200)
    found.run.path.mkdir()
    values: dict[str, Any] = dict.fromkeys(Measurement.__dataclass_fields__, 0.5)
    for iteration in range(0, 201, 50):
        found.run.add_measurement(
            Measurement(**{**values, "outputs": {}, "iteration": iteration, "net": 0})
        )
    return found


def ended(training: Job, status: str, iteration: int) -> None:
    reason = "as --until asks" if status == "stopped" else None
    training.run.write(
        {"solver": "solver.prototxt", "status": status, "reason": reason, "iteration": iteration}
    )


@pytest.mark.parametrize("status", ["stopped", "finished", "diverged", "failed"])
def test_an_earlier_part_comes_out_as_it_did_then(training: Job, status: str) -> None:
    """What a run became later must not change the decisions that a study makes again."""
    ended(training, status, 200)
    part = read_result(replace(training, until=100))
    assert part is not None
    assert (part.status, part.iteration) == ("stopped", 100)
    assert [m.iteration for m in part.measurements] == [0, 50, 100]
    whole = read_result(replace(training, until=200))
    assert whole is not None
    assert (whole.status, whole.iteration, len(whole.measurements)) == (status, 200, 5)


def test_a_part_has_no_tests_that_a_kill_left_behind_it(training: Job) -> None:
    """All was killed in a later part, and goes on from the snapshot at the end of this one."""
    ended(training, "stopped", 100)
    part = read_result(replace(training, until=100))
    assert part is not None
    assert [m.iteration for m in part.measurements] == [0, 50, 100]


def test_a_part_that_is_not_there_yet(training: Job) -> None:
    ended(training, "stopped", 100)
    assert read_result(replace(training, until=150)) is None
    assert read_result(training) is None
    ended(training, "diverged", 120)
    found = read_result(replace(training, until=150))
    assert found is not None and (found.status, found.iteration) == ("diverged", 120)


def test_a_run_that_was_left_long_ago_does_not_hang_as_soon_as_it_goes_on(training: Job) -> None:
    ended(training, "stopped", 100)
    folder, long_ago = training.run.path, time.time() - 3600
    for path in (*folder.iterdir(), folder):
        os.utime(path, (long_ago, long_ago))
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.3)"])
    watch = child._Watch(process.pid, replace(training, hang_seconds=30.0), pytest.fail)
    assert not child._wait(process, threading.Event(), watch)
    assert process.wait() == 0
