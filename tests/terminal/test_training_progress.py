"""The rate of a training, and the time left."""

from __future__ import annotations

import pytest

from lrbench_caffe.terminal import stopwatch
from lrbench_caffe.terminal.training_progress import Rate


def test_the_time_left_is_by_the_mean_without_suspensions(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(stopwatch.time, "monotonic", lambda: clock[0])
    rate = Rate(100, 500)
    assert rate.left == "-:--:--"
    clock[0] += 200
    rate.update(200)
    assert (rate.per_second, rate.left) == (0.5, "0:10:00")
    clock[0] += (
        8 * 3600
    )  # at most as long as from one iteration to the next of a training that hangs
    rate.update(300)
    assert rate.left == "0:13:20"  # 200 iterations in 800 s, 200 are left
    clock[0] += 100  # tests count, too
    assert rate.left == "0:15:00"
