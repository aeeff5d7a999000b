"""tune --also on real Caffe: batch, momentum and weight decay are chosen together with the LR policy."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lrbench_caffe.database import Database
from lrbench_caffe.errors import InputError
from lrbench_caffe.progress import SILENT
from lrbench_caffe.prototxt.messages import Messages
from lrbench_caffe.prototxt.solver import Solver, load_solver
from lrbench_caffe.runtime.replies import CaffeInfo
from lrbench_caffe.tuning import side_studies
from lrbench_caffe.tuning.plan import TuningPlan
from lrbench_caffe.tuning.side_studies import check_batches, combinations_of
from lrbench_caffe.tuning.verdict import KEEP_OWN
from tests.caffe import nets
from tests.caffe.conftest import make_workspace
from tests.caffe.harness import ENVIRONMENT, Done, Run, Workspace

ALSO = (
    "tune", "solver.prototxt", "--fresh", "--functions", "poly", "--max-iter", "200", "--test-interval",
    "50", "--top", "1", "--seeds", "3", "--budget", "5000", "--layers", "stock", "--jobs", "2",
    "--also", "batch=40", "--also", "weight_decay=0.0005",
    "--by", "test_loss", "--out", "study",
)  # fmt: skip


def ours(*args: str) -> list[str]:
    return [sys.executable, "-m", f"lrbench_caffe.{args[0]}", *args[1:], "--db", "lr.sqlite"]


def tuned(workspace: Workspace, *args: str) -> tuple[Done, dict[str, Any]]:
    done = workspace.command(ours(*args))
    assert done.code in (0, KEEP_OWN), done.err
    return done, json.loads((workspace.path / "study" / "result.json").read_text())


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, digits: Path, caffe_program: str
) -> tuple[Workspace, Done, dict[str, Any]]:
    """A study that was not interrupted, of a solver whose own settings are bad ones."""
    pytest.importorskip("optuna")
    workspace = make_workspace(tmp_path_factory.mktemp("also"), digits, caffe_program)
    bad = nets.solver(base_lr="0.0001", weight_decay="0.5", momentum="0.9")
    workspace.write("solver.prototxt", bad)
    return (workspace, *tuned(workspace, *ALSO))


@pytest.mark.ci
def test_settings_are_found_with_the_policy(whole: tuple[Workspace, Done, dict[str, Any]]) -> None:
    workspace, done, found = whole
    study = workspace.path / "study"
    also, verdict = found["also"], found["verdict"]
    assert done.code == 0 and f"verdict: {verdict['text']}" in done.out
    assert also["own"] == {"batch": 20, "weight_decay": 0.5}
    assert also["trials"][0]["settings"] == also["own"]
    # A decay of 0.5 holds the weights near 0, and with them the scores.
    assert also["recommended"]["weight_decay"] == 0.0005
    assert verdict["difference"] < -0.2 and "other settings are better: " in verdict["text"]
    # Each combination's trainings have its settings, as many epochs, and no others.
    for trial in also["trials"]:
        settings = trial["settings"]
        name = "-".join(f"{key}{value!r}" for key, value in settings.items())
        folder = study / "also" / name if settings != also["own"] else study
        runs = [Run(path.parent) for path in folder.glob("trainings/*/run.json")]
        held_out = f"{folder.relative_to(workspace.path)}/holdout/"
        (run,) = (
            one
            for one in runs
            if one.record["policy"] == trial["policy"] and one.record["solver"].startswith(held_out)
        )
        solver = (run.path / "prototxt" / "solver.prototxt").read_text()
        assert "momentum: 0.9" in solver
        assert f"weight_decay: {settings['weight_decay']}" in solver
        assert run.record["max_iter"] == 200 * 20 // settings["batch"]
    with Database.open(str(workspace.path / "lr.sqlite")) as database:
        stored = {
            (run.solver.batch, run.solver.weight_decay) for run in database.runs(source="measured")
        }
    assert stored == {tuple(trial["settings"].values()) for trial in also["trials"]}
    # What is recommended can be trained by caffe train, and by train with the file.
    assert also["solver"] == "study/recommended/solver.prototxt"
    workspace.caffe("train", "-solver", also["solver"]).succeeded()
    last = done.out.splitlines()[-1]
    assert last.startswith(f"python -m lrbench_caffe.train {also['solver']} --lr ")
    refused = workspace.train("solver.prototxt", "--lr", "study/result.json", "--out", "a")
    refused.failed(2, "--lr", "its policy was found with", "weight_decay=0.0005", also["solver"])
    best = found["finalists"][0]
    taken = workspace.train(
        also["solver"],
        "--lr",
        "study/result.json",
        "--seed",
        "1",
        "--out",
        "b",
        "--layers",
        "stock",
    ).succeeded()
    assert taken.code == 0
    losses = [row["test_loss"] for row in workspace.run("b").last_measurements().values()]
    assert min(losses) < best["test_loss"] + 0.1


@pytest.mark.slow
def test_killed_and_started_again_it_makes_the_same_study(
    workspace: Workspace, whole: tuple[Workspace, Done, dict[str, Any]]
) -> None:
    wanted = whole[2]
    workspace.write("solver.prototxt", (whole[0].path / "solver.prototxt").read_text())
    study = workspace.path / "study"

    def tests() -> int:
        runs = study.glob("**/run.json")
        return sum(len(Run(path.parent).measurements()) for path in runs)

    for least in (6, 20, 36):
        process = subprocess.Popen(
            ours(*ALSO), cwd=workspace.path, env=ENVIRONMENT, stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 120
        while tests() < least:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    _, found = tuned(workspace, *ALSO)
    for measured in ("seconds",):
        found.pop(measured, None), wanted.pop(measured, None)
    assert found == wanted
    names = [
        sorted(str(path.parent.relative_to(one)) for path in one.glob("**/run.json"))
        for one in (study, whole[0].path / "study")
    ]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    ("net", "solver", "also", "words"),
    [
        ({}, {}, "batch=5000", ("--also: batch=5000; allowed: 1 to 1297, the training records",)),
        ({}, {}, "batch=200", ("batch=200: a training of as many epochs has 10 iterations", "20 or more")),
        ({"train": 'layer { name: "noise" type: "DummyData" top: "data" top: "label" '
                   "include { phase: TRAIN } dummy_data_param { shape { dim: 20 dim: 1 dim: 8 dim: 8 } "
                   "shape { dim: 20 } } }"},
         {}, "batch=40", ("--also batch: ", "no layer of the training net has a batch_size")),
        ({}, {"type": '"RMSProp"', "momentum": "0"}, "momentum=0,0.9", ("--also: momentum=0.9", "RMSProp")),
    ],
)  # fmt: skip
def test_what_cannot_be_chosen_is_one_line(
    workspace: Workspace, net: Any, solver: Any, also: str, words: tuple[str, ...]
) -> None:
    pytest.importorskip("optuna")
    workspace.write("net.prototxt", nets.net(**net))
    workspace.write("solver.prototxt", nets.solver(**solver))
    done = workspace.command(ours("tune", "solver.prototxt", "--also", also, "--out", "bad"))
    done.failed(2, *words)
    assert not (workspace.path / "bad").exists()


@pytest.fixture
def opened(
    workspace: Workspace, messages: Messages, caffe_info: CaffeInfo, monkeypatch: pytest.MonkeyPatch
) -> Solver:
    monkeypatch.chdir(workspace.path)
    return load_solver(Path("solver.prototxt"), messages, caffe_info, check_data=SILENT)


def check(solver: Solver, batch: int, scratch: Path) -> None:
    plan = TuningPlan("solver.prototxt", 1000, 50, None, 10.0, 1)
    check_batches(solver, combinations_of(solver, {"batch": (batch,)}), plan, None, scratch)


def test_a_batch_must_fit_into_memory(
    opened: Solver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(opened, 100, tmp_path)
    # 100 images of 64 numbers, their labels, and what the net makes of them; each with a gradient.
    monkeypatch.setattr(side_studies, "available_memory", lambda: 8 * 100 * 65)
    with pytest.raises(
        InputError, match=r"^also: batch=100: the training net takes 0\.0 GB of memory"
    ):
        check(opened, 100, tmp_path)


def test_a_net_that_only_takes_its_own_batch(
    opened: Solver, workspace: Workspace, messages: Messages, caffe_info: CaffeInfo, tmp_path: Path
) -> None:
    """Caffe's own words say why."""
    shaped = nets.net().replace(
        nets.relu("ip1"),
        nets.relu("ip1") + '\nlayer { name: "shaped" type: "Reshape" bottom: "label" top: "shaped" '
        "include { phase: TRAIN } reshape_param { shape { dim: 20 dim: 1 } } }"
        '\nlayer { name: "quiet" type: "Silence" bottom: "shaped" include { phase: TRAIN } }',
    )
    workspace.write("net.prototxt", shaped)
    solver = load_solver(Path("solver.prototxt"), messages, caffe_info, check_data=SILENT)
    with pytest.raises(InputError, match="^also: batch=40: .*shape") as error:
        check(solver, 40, tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path / "40") not in str(error.value)
