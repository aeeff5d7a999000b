"""First iterations: which trainings came so far, by run directories and the LR database."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from lrbench_caffe.jobs import Job, JobResult
from lrbench_caffe.reproduction.missing import Options, training_of
from lrbench_caffe.reproduction.plan import plan, select
from lrbench_caffe.reproduction.starts import start_rows, starts
from tests.reproduction.runs import measured, run

VII = dataclasses.replace(select(plan("table7"), "inv,sin2"), seeds=(1, 2))
INV, SIN2 = VII.rows


@pytest.fixture
def options(tmp_path) -> Options:
    return Options(tmp_path, "", until=200)


def outcomes(options: Options, records=(), results=()) -> list[tuple[str, int, int, str]]:
    rows = start_rows(VII, starts(VII, records, options, results))[1:]
    return [(row[0], int(row[2]), int(row[3]), row[6]) for row in rows]


def keep(training: Job, status: str, iteration: int, reason: str | None = None) -> None:
    """A run directory."""
    folder = Path(training.out)
    folder.mkdir(parents=True)
    state = {"solver": training.solver, "status": status, "iteration": iteration, "reason": reason}
    (folder / "run.json").write_text(json.dumps(state))
    losses = [f"{n},0.01,{2.5 - 0.002 * n}\n" for n in range(min(iteration, 300))]
    (folder / "iterations.csv").write_text("iteration,lr,loss\n" + "".join(losses))


def test_a_training_has_the_commands_hang_timeout(options: Options) -> None:
    words = training_of(VII, SIN2, 1, dataclasses.replace(options, hang_seconds=30)).arguments()
    assert words[words.index("--hang-timeout") + 1] == "30"


def test_the_losses_of_first_iterations(tmp_path):
    training = Job("s.prototxt", seed=1, out=str(tmp_path), policy=str(INV.trained))
    losses = [f"{n},0.01,{2.5 - 0.1 * n}\n" for n in range(20)]
    (tmp_path / "iterations.csv").write_text("iteration,lr,loss\n" + "".join(losses))
    (row,) = start_rows(VII, [JobResult(training, "stopped", "as --until asks", 14)])[1:]
    # 2.5 to 1.6, and up to iteration 13: 2.1 to 1.2.
    assert row[3:] == ["14", "2.050", "1.650", "started"]


def test_run_directories_count_whatever_call_made_them(options):
    keep(training_of(VII, SIN2, 2, options), "stopped", 200, "as --until asks")
    keep(training_of(VII, INV, 1, options), "finished", 10_000)
    keep(training_of(VII, INV, 2, options), "stopped", 150)  # not yet
    keep(training_of(VII, SIN2, 1, options), "diverged", 29, "the loss is nan")
    assert outcomes(options) == [
        ("2", 1, 200, "started"),
        ("8", 1, 29, "diverged: the loss is nan"),
        ("8", 2, 200, "started"),
    ]
    damaged = Path(training_of(VII, INV, 2, options).out) / "run.json"
    damaged.write_text("{")
    assert len(outcomes(options)) == 3
    first = start_rows(VII, starts(VII, [], options))[1]
    assert first[4:6] == [
        "2.491",
        "2.111",
    ]  # of iterations 0 to 9 and 190 to 199, though it has more


def test_what_was_trained_elsewhere_counts_without_losses(options):
    records = [
        run(VII, INV.trained, 1, [measured(10_000, 99.0)]),
        run(VII, INV.trained, 2, [measured(500, 98.0)], status="stopped"),
        run(VII, SIN2.trained, 1, [measured(0, 10.0)], status="diverged", reason="the loss is nan"),
        run(VII, SIN2.trained, 2, [measured(0, 10.0)], status="stopped"),
    ]
    assert outcomes(options, records) == [
        ("2", 1, 200, "started"),
        ("2", 2, 200, "started"),
        ("8", 1, 0, "diverged: the loss is nan"),
    ]
    assert start_rows(VII, starts(VII, records, options))[1][4:6] == ["-", "-"]


def test_what_was_just_made_counts_first(options):
    training = training_of(VII, INV, 1, options)
    keep(training, "stopped", 200, "as --until asks")
    failed = JobResult(training, "failed", "Check failed: x", 7)
    assert outcomes(options, results=[failed]) == [("2", 1, 7, "failed: Check failed: x")]
