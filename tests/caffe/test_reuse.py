"""tune --reuse on real Caffe: what an earlier study has trained is not trained again."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lrbench_caffe.database import Database
from lrbench_caffe.jobs import Job
from lrbench_caffe.progress import SILENT
from lrbench_caffe.records import Start, Task
from lrbench_caffe.tuning.plan import TuningPlan
from lrbench_caffe.tuning.request import TuningRequest
from lrbench_caffe.tuning.reuse import EarlierTrainings
from lrbench_caffe.tuning.running import prepare_tuning
from lrbench_caffe.tuning.verdict import KEEP_OWN
from tests.caffe import nets
from tests.caffe.conftest import make_workspace
from tests.caffe.harness import Done, Run, Workspace

TUNE = (
    "tune", "solver.prototxt", "--fresh", "--holdout", "0", "--lr-range", "0.01,0.02", "--functions", "fix",
    "--max-iter", "40", "--test-interval", "10", "--layers", "stock", "--jobs", "2",
)  # fmt: skip


def tune(workspace: Workspace, out: str, *args: str) -> Done:
    words = [*TUNE, "--out", out, *args]
    return workspace.command([sys.executable, "-m", f"lrbench_caffe.{words[0]}", *words[1:]])


def trainings(workspace: Workspace, out: str) -> dict[str, Run]:
    folders = (workspace.path / out / "trainings").iterdir()
    return {path.name: Run(path) for path in folders}


@pytest.fixture(scope="module")
def earlier(
    tmp_path_factory: pytest.TempPathFactory, digits: Path, caffe_program: str
) -> Workspace:
    """A workspace with a study, and a database that the next one does not use."""
    workspace = make_workspace(tmp_path_factory.mktemp("reuse"), digits, caffe_program)
    workspace.write("solver.prototxt", nets.solver())
    done = tune(workspace, "first", "--top", "1", "--seeds", "1", "--db", "first.sqlite")
    assert done.code in (0, KEEP_OWN), done.err
    return workspace


def test_what_is_the_same_is_not_trained_again(earlier: Workspace) -> None:
    first = trainings(earlier, "first")
    words = ("--top", "1", "--seeds", "2", "--db", "second.sqlite")
    done = tune(earlier, "second", *words, "--reuse", "first")
    assert done.code in (0, KEEP_OWN), done.err
    second = trainings(earlier, "second")
    ended = {name for name, run in first.items() if run.record["status"] == "finished"}
    assert ended and ended <= second.keys() and len(second) > len(first)
    for name in ended:
        assert f"taken over from {Path('first') / 'trainings' / name}" in done.out
        tests = [run.path / "measurements.jsonl" for run in (first[name], second[name])]
        assert tests[0].read_bytes() == tests[1].read_bytes()
        assert second[name].record["sessions"] == first[name].record["sessions"]
        (branch,) = second[name].record["branches"]
        assert (branch["after"], branch["at"]) == (0, 40)
    result = json.loads((earlier.path / "second" / "result.json").read_text())
    assert result["iterations_taken_over"] == 40 * len(ended)
    # They are stored in this study's database, too, each once.
    with Database.open(str(earlier.path / "second.sqlite")) as database:
        stored = [record.uid for record in database.runs() if record.source == "measured"]
    assert sorted(stored) == sorted(run.record["record"]["uid"] for run in second.values())
    # The study is whole without the other one, and continues without the flag.
    shutil.move(earlier.path / "first", earlier.path / "away")
    again = tune(earlier, "second", *words)
    shutil.move(earlier.path / "away", earlier.path / "first")
    assert "nothing was left to train" in again.out + again.err


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"max_iter": 60}, "of another length"),
        ({"test_interval": 20}, "tested at other intervals"),
        ({"files": "another"}, "with other settings in the solver or net"),
        ({"level": 1}, "with other settings in the solver or net"),
        ({"start": Start("weights", digest="0", filled=1, layers=3)}, "from another start"),
        ({}, ""),
    ],
    ids=str,
)
def test_what_differs_is_not_taken(
    earlier: Workspace, changed: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(earlier.path)
    plan, task = prepared()
    said: list[str] = []
    EarlierTrainings([Path("first")], replace(plan, **changed), task).look(said.append)
    number = len(trainings(earlier, "first"))
    taken, differing = (0, f" ({number} {words})") if words else (number, "")
    assert said == [f"{taken} of {number} runs in first can be taken over{differing}"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda task: replace(task, dataset=replace(task.dataset, digest="0")), "on other data"),
        (lambda task: replace(task, network=replace(task.network, digest="0")), "of another net"),
        (
            lambda task: replace(task, framework=replace(task.framework, version="2")),
            "with another Caffe, device or other layers",
        ),
        (lambda task: replace(task, framework=replace(task.framework, device="GPU")), ""),
    ],
)
def test_of_another_task_nothing_is_taken(
    earlier: Workspace,
    change: Callable[[Task], Task],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of GPUs the flags tell: the task is looked up on the CPU."""
    monkeypatch.chdir(earlier.path)
    plan, task = prepared()
    said: list[str] = []
    EarlierTrainings([Path("first")], plan, change(task)).look(said.append)
    assert words in said[0] and said[0].startswith("0 of ") is bool(words)
    for more in ({"gpu": True}, {"layers": "fast"}, {"layers": "fast-avx2"}):
        EarlierTrainings([Path("first")], plan, task, **more).look(said.append)
        assert said[-1].startswith("0 of ") and "device or other layers" in said[-1]
    EarlierTrainings([Path("first")], plan, task, layers="stock").look(said.append)
    assert not said[-1].startswith("0 of ")


def test_one_that_cannot_be_copied_is_trained(
    earlier: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run directory may be gone meanwhile, or the disk be full: nothing incomplete is left."""
    monkeypatch.chdir(earlier.path)
    plan, task = prepared()
    trained = EarlierTrainings([Path("first")], plan, task)
    trained.look(lambda text: None)
    (name, run), *_ = trainings(earlier, "first").items()
    shutil.copytree("first", "there", ignore=shutil.ignore_patterns("snapshots"))
    policy, seed = run.record["policy"], run.record["seed"]
    job = Job("solver.prototxt", seed=seed, out=f"there/trainings/{name}-new", policy=policy)
    monkeypatch.setattr("lrbench_caffe.tuning.reuse.share", no_room)
    with pytest.raises(OSError, match="No space left"):
        trained.take_over(job)
    assert not job.run.exists and not list(Path("there").glob(".*"))


def no_room(source: Path, target: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def prepared() -> tuple[TuningPlan, Task]:
    """The plan and task of the study here."""
    request = TuningRequest(
        Path("solver.prototxt"), max_iter=40, test_interval=10, holdout=0, layers="stock",
        functions="fix", no_database=True, out=Path("other"),
    )  # fmt: skip
    tuning = prepare_tuning(request, SILENT)
    return tuning.plan, tuning.wanted.task


def test_a_folder_without_runs(earlier: Workspace) -> None:
    done = tune(earlier, "third", "--reuse", "data")
    done.failed(2, "--reuse: data holds no run; allowed: the folder of an earlier study or run")
    assert not (earlier.path / "third").exists()
