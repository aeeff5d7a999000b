"""The Python API where no Caffe is needed; tests/caffe/test_api.py has the rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from lrbench_caffe import api
from lrbench_caffe.database import Database
from lrbench_caffe.errors import InputError, ParameterError
from lrbench_caffe.knowledge.evidence import Wanted
from lrbench_caffe.records import SCRATCH
from lrbench_caffe.training import recommending
from tests.knowledge.tasks import DIGITS, LENET_DIGITS
from tests.plots.test_command import measured, write_run

SIN2 = "SIN2(k0=0.01, k1=0.06, l=86)"  # the paper's l=2000, in epochs: 2000 / 600 * 25.94
COS = "COS(k0=0.01, k1=0.06, l=86)"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with the paper's results."""
    path = tmp_path_factory.mktemp("database") / "lr.sqlite"
    Database.open(str(path)).close()
    return path


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Caffe would tell of a solver of the digits that trains 2000 iterations from iteration 700."""
    solver = SimpleNamespace(message=SimpleNamespace(max_iter=2000), epoch=25.94)
    wanted = Wanted(DIGITS, replace(SCRATCH, iteration=700))
    monkeypatch.setattr(recommending, "open_wanted", lambda *_, **__: (solver, wanted))
    monkeypatch.setattr(recommending, "solver_settings", lambda _: LENET_DIGITS)


@pytest.mark.usefixtures("digits")
def test_recommendations_show_their_policies_and_evidence(database: Path) -> None:
    proposed = api.recommend("x.prototxt", database=database, top=2)
    assert repr(proposed) == f"Recommendations(digits / LeNet_digits: {SIN2}, {COS})"
    lines = str(proposed).splitlines()
    assert lines[0] == "digits / LeNet_digits, 2000 iterations"
    assert lines[1] == f"1. {SIN2}"
    assert lines[2].startswith("   Top-1 99.33 ± 0.02 % (5 trainings) on a similar task")
    (axes,) = proposed.figure().axes
    assert [line.get_xdata()[-1] for line in axes.lines[:2]] == [1999, 1999]
    shown = proposed._repr_html_()
    assert f"1. {SIN2}" in shown and "data:image/png;base64," in shown


@pytest.mark.usefixtures("digits")
def test_nothing_to_recommend_is_said(database: Path) -> None:
    proposed = api.recommend("x.prototxt", database=database, functions=["sig"])
    assert repr(proposed) == "Recommendations(digits / LeNet_digits: none)"
    assert str(proposed).splitlines()[-1] == "nothing to propose"
    assert "SIG is not proposed: no result" in proposed._repr_html_()
    with pytest.raises(InputError, match="^digits / LeNet_digits: nothing to propose, so nothing"):
        proposed.figure()


@pytest.mark.usefixtures("digits")
def test_as_many_recommendations_as_functions(database: Path) -> None:
    names = ["sin2", "cos", "tri", "step", "poly"]
    proposed = api.recommend("x.prototxt", database=database, functions=names)
    assert sorted(policy.function.lower() for policy in proposed.policies) == sorted(names)
    assert len(api.recommend("x.prototxt", database=database).policies) == 3


@pytest.mark.usefixtures("digits")
def test_nothing_is_recommended_for_a_training_that_is_over(database: Path) -> None:
    given = {"database": database, "snapshot": "x.solverstate"}
    api.recommend("x.prototxt", max_iter=701, **given)
    with pytest.raises(
        ParameterError, match=r"^snapshot: x.solverstate is at iteration 700; max_iter is 700$"
    ):
        api.recommend("x.prototxt", max_iter=700, **given)


def test_the_front_is_that_of_all_policies(database: Path) -> None:
    three = api.rank(task="mnist", database=database, top=3)
    every = api.rank(task="mnist", database=database, top=0)
    assert (len(three.policies), len(every.policies)) == (3, 10)
    (axes,) = three.pareto_figure().axes
    numbers = sorted(int(text.get_text()) for text in axes.texts)
    assert numbers == list(range(1, 11))  # each policy has one, whatever ``top`` is
    assert axes.get_ylabel() == "Top-1 (%)"


def test_notes_have_no_passwords() -> None:
    notes: list[str] = []
    line = "note: cannot reach postgresql://ada:secret@example.org/lr"
    api._StudyNotes(notes.append).warn(line)
    api._Callbacks(None, None, api._without_passwords(notes.append)).note(line)
    assert notes == ["note: cannot reach postgresql://ada:***@example.org/lr"] * 2
    api._StudyNotes(None).say(line)  # nobody listens


def test_runs_in_one_picture(tmp_path: Path) -> None:
    for name, policy in (("a", "FIX(k0=0.01)"), ("b", "FIX(k0=0.01)"), ("c", "FIX(k0=0.02)")):
        write_run(tmp_path / name, policy, "finished", [measured(0, 10.0), measured(4, 90.0)], 5)
    (tmp_path / "latest").symlink_to("c")
    figure = api.runs_figure(tmp_path / "a", str(tmp_path / "b"), *sorted(tmp_path.glob("[cl]*")))
    assert figure.axes[0].get_title() == "solver.prototxt, seed 1"
    (legend,) = figure.legends or [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    named = [text.get_text().partition(":")[0] for text in legend.get_texts()]
    assert [name for name in named if name.startswith("FIX")] == [
        "FIX(k0=0.01), seed 1, a", "FIX(k0=0.01), seed 1, b", "FIX(k0=0.02), seed 1",
    ]  # fmt: skip
    write_run(tmp_path / "new", "FIX(k0=0.01)", "running", [], 0)
    with pytest.raises(InputError, match="new: nothing was measured yet$"):
        api.runs_figure(tmp_path / "new")
    with pytest.raises(ParameterError, match="^runs: none; allowed: one or more$"):
        api.runs_figure()
