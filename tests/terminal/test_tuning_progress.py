"""What a person sees of a tuning: a line a training, what is best so far, the time that is left."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from lrbench_caffe.jobs import Job, JobResult
from lrbench_caffe.terminal import tuning_progress as progress
from lrbench_caffe.terminal.tuning_progress import TuningDisplay
from tests.tuning.test_verdict import measurement


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that pass when a test says so."""
    times = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: times[0])
    return times


def training(policy: str, folder: Path) -> Job:
    (folder / policy).mkdir()
    return Job("solver.prototxt", seed=1, out=str(folder / policy), policy=policy, max_iter=200)


def result(
    of: Job, top1: float, iteration: int, status: str = "stopped", reason: str | None = None
) -> JobResult:
    (Path(of.out) / "iterations.csv").write_text(f"iteration,lr,loss\n{iteration - 1},0.1,2.3\n")
    return JobResult(of, status, reason, iteration, 1.0, [measurement(iteration, top1)])


def test_one_line_a_training_with_the_best_so_far_and_the_time_left(
    tmp_path: Path, clock: list[float]
) -> None:
    text = io.StringIO()
    display = TuningDisplay(Console(file=text, width=80))
    good, bad = training("FIX(k0=0.01)", tmp_path), training("FIX(k0=0.001)", tmp_path)
    display.expect(1000)
    for one in (good, bad):
        display.begun(one)
    clock[0] += 10
    display.ended(result(good, 90.0, 100), 100)
    clock[0] += 10
    display.ended(result(bad, 80.0, 100), 200)
    display.begun(bad)
    display.ended(result(bad, 81.0, 150), 250)  # it may go on: no line
    display.begun(good)
    display.ended(result(good, 91.0, 150), 300)
    display.begun(bad)
    display.ended(result(bad, 81.5, 200, "diverged", "the training diverged: the loss is nan"), 350)
    first, second = "FIX(k0=0.01)  seed 1  iteration", "FIX(k0=0.001)  seed 1  iteration"
    # 900 of 1,000 iterations are left after 100 in 10 seconds, 800 after 200 in 20, 650 after 350
    # in 20.
    assert text.getvalue().splitlines() == [
        f"{first} 100 of 200  best Top-1 90.00 % at 100; the best so far; "
        "10 % of 1,000 iterations, about 0:01:30 left",
        f"{second} 100 of 200  best Top-1 80.00 % at 100; best so far 90.00 %; "
        "20 % of 1,000 iterations, about 0:01:20 left",
        f"{second} 200  best Top-1 81.50 % at 200  the training diverged: the loss is nan; best so far "
        "91.00 %; 35 % of 1,000 iterations, about 0:00:37 left",
    ]


def test_what_is_under_way_counts_and_the_first_percent_tells_no_time(
    tmp_path: Path, clock: list[float]
) -> None:
    text = io.StringIO()
    display = TuningDisplay(Console(file=text, width=80))
    bad, good = training("FIX(k0=1)", tmp_path), training("FIX(k0=0.1)", tmp_path)
    display.expect(10_000)
    for one in (bad, good):
        display.begun(one)
    clock[0] += 5  # most of it for starting Caffe
    display.ended(result(bad, 10.0, 20, "diverged", "the training diverged: as it was"), 20)
    (Path(good.out) / "iterations.csv").write_text("iteration,lr,loss\n179,0.1,2.3\n")
    clock[0] += 35
    display.waiting(20)  # 200 iterations in 40 seconds
    assert text.getvalue().splitlines() == [
        "FIX(k0=1)  seed 1  iteration 20 of 200  best Top-1 10.00 % at 20  the training diverged: as it "
        "was; the best so far; 0 % of 10,000 iterations",
        "2 % of 10,000 iterations, about 0:32:40 left; best so far 10.00 % FIX(k0=1)",
    ]


def test_the_parts_of_a_training_count_once(tmp_path: Path, clock: list[float]) -> None:
    text = io.StringIO()
    display = TuningDisplay(Console(file=text, width=80))
    first = training("FIX(k0=0.1)", tmp_path)
    second = replace(first, until=200)
    display.expect(200)
    for one in (first, second):
        display.begun(one)
    csv = Path(first.out) / "iterations.csv"
    for iteration, ended in ((59, False), (99, True), (149, False)):
        clock[0] += 31
        if ended:
            display.ended(result(first, 90.0, 100), 100)
        csv.write_text(f"iteration,lr,loss\n{iteration},0.1,2.3\n")
        display.waiting(100 if iteration > 99 else 0)
    shares = [line.split(" % of 200")[0].split()[-1] for line in text.getvalue().splitlines()]
    assert shares == ["30", "50", "75"]


def test_what_an_earlier_command_trained_of_an_interrupted_training_is_not_left(
    tmp_path: Path, clock: list[float]
) -> None:
    text = io.StringIO()
    display = TuningDisplay(Console(file=text, width=80))
    killed, part = training("FIX(k0=0.1)", tmp_path), training("FIX(k0=0.01)", tmp_path)
    part = replace(part, until=100)  # of one that has got further
    result(killed, 90.0, 160)
    result(part, 80.0, 200)
    display.expect(400)
    for one in (killed, part):
        display.begun(one)
    result(killed, 90.0, 180)
    clock[0] += 31
    display.waiting(0)  # 180 and 100 are there; 20 in 31 seconds are this command's, 120 are left
    display.ended(result(killed, 90.0, 200, "finished"), 200)  # 40 in 31 seconds, 100 are left
    waiting, ended = text.getvalue().splitlines()
    assert waiting == "70 % of 400 iterations, about 0:03:06 left"
    assert ended.endswith("; 75 % of 400 iterations, about 0:01:17 left")


def test_the_time_for_which_it_was_suspended_is_not_that_of_its_trainings(
    tmp_path: Path, clock: list[float]
) -> None:
    text = io.StringIO()
    display = TuningDisplay(Console(file=text, width=80))
    one = training("FIX(k0=0.1)", tmp_path)
    display.expect(200)
    display.begun(one)
    clock[0] += 40
    display.waiting(0)
    clock[0] += 8 * 3600  # Ctrl-Z in the evening, fg in the morning
    display.ended(result(one, 90.0, 100), 100)
    # 100 iterations in 40 seconds, and in one minute of those hours at most.
    assert text.getvalue().endswith("; 50 % of 200 iterations, about 0:01:40 left\n")


def test_iterations_of_another_batch_count_as_the_solvers_own(
    tmp_path: Path, clock: list[float]
) -> None:
    """Those under way count as much as they do when they have ended: progress does not go back."""
    text = io.StringIO()
    display = TuningDisplay(Console(file=text, width=80))
    one = training("FIX(k0=1)", tmp_path)
    display.expect(1000)
    display.begun(one, 0.5)  # half the batch
    ended = result(one, 90.0, 200, "finished")  # all of its iterations.csv is there
    clock[0] += progress.LINE_SECONDS + 1
    display.waiting(100)
    display.ended(ended, 200)
    under_way, whole = text.getvalue().splitlines()
    assert under_way.startswith("20 % of 1,000 iterations")
    assert "; 20 % of 1,000 iterations" in whole


def test_what_was_tested_on_held_out_records_is_said_of_the_test(
    tmp_path: Path, clock: list[float]
) -> None:
    text = io.StringIO()
    display = TuningDisplay(Console(file=text, width=80))
    one = training("FIX(k0=1)-holdout", tmp_path)
    display.begun(one)
    display.ended(result(one, 10.0, 20, "diverged", "the training diverged: the loss is nan"), 20)
    assert (
        "10.00 % at 20 on held-out records  the training diverged: the loss is nan; the best"
        in (text.getvalue())
    )


def test_on_a_terminal_there_is_a_bar_before_it_is_known_how_much_is_to_do(tmp_path: Path) -> None:
    text = io.StringIO()
    one = training("FIX(k0=0.01)", tmp_path)
    with TuningDisplay(Console(file=text, width=80, force_terminal=True)) as display:
        display.begun(one)
        display.waiting(0)
        display.expect(1000)
        display.ended(result(one, 90.0, 100), 100)
    assert "10 % of 1,000 iterations" in text.getvalue()
