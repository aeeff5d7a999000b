"""What is shown while trainings go on."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from lrbench_caffe.jobs import Job, JobResult
from lrbench_caffe.reproduction.missing import Options, missing
from lrbench_caffe.reproduction.plan import plan, select
from lrbench_caffe.terminal import reproduction_progress as progress
from lrbench_caffe.terminal.reproduction_progress import TrainingsDisplay


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when a test says so."""
    times = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: times[0])
    return times


@pytest.fixture
def trained(monkeypatch):
    """Iterations of each training, by the function of its policy."""
    found: dict[str, int] = {}

    def reached(training):
        return found.get(training.policy.partition("(")[0], 0)

    monkeypatch.setattr(Job, "reached", property(reached))
    return found


def test_iterations_and_the_time_left(clock, trained):
    of = select(plan("table7"), "inv,sin2")
    trained["INV"] = 6000  # by an earlier command
    items = missing(of, of.rows, [], Options(Path("out"), ""))[:2]
    text = io.StringIO()
    display = TrainingsDisplay(Console(file=text), items, {"lenet_mnist": 0.02}, slots=2)
    clock[0] += 30
    display.look()
    assert text.getvalue() == ""  # not every time
    clock[0] += 31
    trained.update(INV=7000, SIN2=1000)
    display.look()  # 2000 of 14,000 iterations in 61 s: 366 s for the others
    assert text.getvalue() == "2,000 of 14,000 iterations, 0/2 trainings, about 6 min left\n"
    clock[0] += 50
    display.ended(JobResult(items[0].training, "failed", "Check failed: x", 7000, 90.0))
    clock[0] += 8 * 3600  # suspended: a minute at most was spent on trainings
    display.look()  # what INV lacks is not to come: 5000 of 14,000 in 171 s, 308 s for the others
    assert text.getvalue().splitlines()[1:] == [
        "1/2 trainings: INV(k0=0.01, gamma=0.0001, p=0.75)  seed 1  iteration 7000 of 10000  "
        "failed: Check failed: x",
        "5,000 of 14,000 iterations, 1/2 trainings, about 5 min left",
    ]


def test_at_first_by_what_was_measured(clock, trained):
    of = select(plan("table7"), "inv")
    items = missing(of, of.rows, [], Options(Path("out"), ""))[:1]
    display = TrainingsDisplay(Console(file=io.StringIO()), items, {"lenet_mnist": 0.02}, slots=1)
    assert display._left({items[0].training: 0}) == ", about 3 min left"  # 10,000 times 0.02 s
    assert TrainingsDisplay(Console(file=io.StringIO()), items, {}, slots=1)._left({}) == ""
