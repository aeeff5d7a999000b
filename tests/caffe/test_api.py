"""The Python API with real Caffe: the same training as the command's, as objects, without a printed word."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lrbench_caffe import api
from lrbench_caffe.database import Database
from lrbench_caffe.errors import InputError, ParameterError, TrainingError
from lrbench_caffe.metrics import Measurement
from tests.caffe.harness import Workspace, assert_same_weights


@pytest.fixture
def here(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.chdir(workspace.path)
    monkeypatch.setenv("LRBENCH_DB", str(workspace.path / "lr.sqlite"))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    yield workspace


def test_a_training_is_that_of_the_command(
    here: Workspace, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[Measurement] = []
    run = api.train(
        "solver.prototxt", policy="SIN2", k0=0.01, k1=0.06, l=20, seed=3, max_iter=40, layers="stock",
        out="mine", on_measurement=seen.append,
    )  # fmt: skip
    assert capfd.readouterr() == ("", "")
    flags = (
        "--lr",
        "SIN2(k0=0.01, k1=0.06, l=20)",
        "--seed",
        "3",
        "--max-iter",
        "40",
        "--layers",
        "stock",
    )
    here.train("solver.prototxt", *flags, "--out", "theirs").succeeded()
    theirs = here.run("theirs")
    assert_same_weights(here.run("mine").model(40), theirs.model(40))
    assert (run.policy, run.seed, run.status, run.iteration) == (
        "SIN2(k0=0.01, k1=0.06, l=20)", 3, "finished", 40,
    )  # fmt: skip
    told = [(row["iteration"], row["top1"]) for row in theirs.measurements()]
    assert (
        [(m.iteration, m.top1) for m in run.measurements]
        == [(m.iteration, m.top1) for m in seen]
        == told
    )
    assert any(note.startswith("LR policy: SIN2(") for note in run.notes)
    assert "data:image/png;base64," in run._repr_html_()


@pytest.mark.ci
def test_numbers_of_numpy(here: Workspace) -> None:
    given = {"seed": np.int64(1), "max_iter": np.int32(20), "hang_seconds": np.float32(60)}
    run = api.train(
        "solver.prototxt", "nstep", k0=0.1, gamma=0.1, l=np.array([8, 16]), out="np", **given
    )
    assert (run.policy, run.seed, run.max_iter, run.status) == (
        "NSTEP(k0=0.1, gamma=0.1, l=[8, 16])", 1, 20, "finished",
    )  # fmt: skip
    found = api.find_range("solver.prototxt", iterations=np.int64(20), out="range")
    assert found.low <= found.best <= found.high


def test_what_was_measured_as_data_frames(here: Workspace) -> None:
    pytest.importorskip("pandas")
    run = api.train("solver.prototxt", policy="FIX(k0=0.01)", seed=1, max_iter=20, no_database=True)
    frame = run.to_dataframe()
    assert list(frame["iteration"]) == [m.iteration for m in run.measurements]
    assert {"top1", "test_loss", "loss"} <= set(frame.columns)  # "loss" is an output of the net
    iterations = run.iterations()
    assert list(iterations["iteration"]) == list(range(20)) and set(iterations["lr"]) == {0.01}


def test_a_training_that_was_stopped_continues(here: Workspace) -> None:
    whole = api.train("solver.prototxt", policy="FIX(k0=0.01)", seed=1, max_iter=40, out="whole")
    part = api.train(
        "solver.prototxt", policy="FIX(k0=0.01)", seed=1, max_iter=40, out="part", until=20
    )
    assert (part.status, part.iteration) == ("stopped", 20)
    rest = api.train(None, resume=True, out=part.path)
    assert (rest.status, rest.iteration) == ("finished", 40)
    assert [m.top1 for m in rest.measurements] == [m.top1 for m in whole.measurements]
    assert api.read_run("part") == api.Run(**{**rest.__dict__, "notes": ()})


def test_what_it_finds_is_in_the_database(here: Workspace) -> None:
    api.train("solver.prototxt", policy="FIX(k0=0.01)", seed=1, max_iter=20)
    api.train("solver.prototxt", policy="FIX(k0=0.001)", seed=1, max_iter=20)
    ranking = api.rank("solver.prototxt", by="iterations,top1")
    assert sorted(row.candidate.summary.policy.text for row in ranking.policies) == [
        "FIX(k0=0.001)", "FIX(k0=0.01)",
    ]  # fmt: skip
    assert ranking.rows()[0][:4] == ["place", "policy", "function", "top1"]
    assert "data:image/png;base64," in ranking._repr_html_()


def test_errors_name_the_parameter(here: Workspace) -> None:
    with pytest.raises(ParameterError, match="^max_iter: 0; allowed: 1 to 2147483647$"):
        api.train("solver.prototxt", max_iter=0)
    with pytest.raises(ParameterError, match="^snapshot and weights: allowed: one of them"):
        api.train("solver.prototxt", snapshot="a.solverstate", weights="b.caffemodel")
    with pytest.raises(ParameterError, match="^solver or task is missing; known tasks: cifar10"):
        api.rank()
    with pytest.raises(ParameterError, match="^goal: 'speed'; allowed: accuracy, cost$"):
        api.tune("solver.prototxt", goal="speed")
    with pytest.raises(InputError, match=r"^cannot read no.prototxt: No such file"):
        api.train("no.prototxt")
    with pytest.raises(TypeError, match="'maximum_iter'; did you mean 'max_iter'"):
        api.train("solver.prototxt", maximum_iter=3)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"set_lr_by": "foo"}, "set_lr_by: 'foo'; allowed: auto, "),
        ({"layers": "fats"}, "layers: 'fats'; allowed: auto, fast, fast-avx2, stock"),
        ({"hang_seconds": -1}, "hang_seconds: -1; allowed: 0 (never) or more"),
        ({"checkpoint_minutes": math.nan}, "checkpoint_minutes: nan; allowed: 0 (never) or more"),
        ({"stages": "abc"}, "stages: 'abc'; allowed: a list of names"),
        ({"max_iter": "100"}, "max_iter: '100'; allowed: a whole number"),
        ({"max_iter": 100.0}, "max_iter: 100.0; allowed: a whole number"),
        ({"seed": 1.5}, "seed: 1.5; allowed: a whole number"),
        ({"seed": True}, "seed: True; allowed: a whole number"),
        ({"preview": True}, "preview: not here; allowed: schedule_figure draws a schedule"),
        ({"head": 3}, "head: 3; allowed: text"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_values_that_the_command_line_would_refuse(parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(ParameterError) as caught:
        api.train("solver.prototxt", **parameters)
    assert str(caught.value).startswith(words)


def test_values_that_the_command_line_would_refuse_of_studies() -> None:
    with pytest.raises(
        ParameterError, match="^layers: 'fats'; allowed: auto, fast, fast-avx2, stock$"
    ):
        api.tune("solver.prototxt", layers="fats")
    with pytest.raises(ParameterError, match="^passes: 2.5; allowed: a whole number$"):
        api.find_range("solver.prototxt", form="ramp", passes=2.5)
    with pytest.raises(ParameterError, match="^max_iter: 0; allowed: 1 or more$"):
        api.recommend("solver.prototxt", max_iter=0)
    with pytest.raises(ParameterError, match="^snapshot and weights: allowed: one of them"):
        api.recommend("solver.prototxt", snapshot="a.solverstate", weights="b.caffemodel")
    with pytest.raises(ParameterError, match="^policies: none; allowed: one or more$"):
        api.schedule_figure()


def test_names_and_paths_in_any_form(tmp_path: Path) -> None:
    database = tmp_path / "lr.sqlite"
    Database.open(str(database)).close()
    of_paths = api.rank(
        task=3, database=database, functions=["SIN2", "tri"], by=["top1"], sources="paper"
    )
    of_text = api.rank(
        task="3", database=str(database), functions="sin2,tri", by="top1", sources=["paper"]
    )
    assert of_paths.rows() == of_text.rows() and len(of_text.policies) == 2


@pytest.mark.ci
def test_a_tuning_prints_nothing_about_its_database(
    here: Workspace, capfd: pytest.CaptureFixture[str]
) -> None:
    (here.path / "empty.sqlite").touch()
    notes: list[str] = []
    with contextlib.suppress(TrainingError):  # so short, no LR learns anything
        api.tune(
            "solver.prototxt", functions="sin2", top=1, seeds=1, max_iter=10, budget="10",
            database="empty.sqlite", on_note=notes.append,
        )  # fmt: skip
    assert capfd.readouterr() == ("", "")
    assert any("was an empty file; it is set up again" in note for note in notes)


def test_a_run_is_named_alike_with_and_without_a_database(here: Workspace) -> None:
    """The solver's own policy as it is written there, not with Caffe's float32 of 0.05."""
    runs = [
        api.train("solver.prototxt", seed=1, max_iter=20, out=f"run-{name}", no_database=without)
        for name, without in (("with", False), ("without", True))
    ]
    titles = {run.title for run in runs}
    assert len(titles) == 1 and titles.pop().startswith("digits / ")
    with Database.open(str(here.path / "lr.sqlite")) as database:
        (stored,) = database.runs(source="measured")
    own = "INV(k0=0.05, gamma=0.01, p=0.75)"
    assert [run.policy for run in runs] == [stored.policy.text] * 2 == [own] * 2
