"""The Python API where no Caffe is needed; tests/caffe/test_api.py has the rest."""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lrbench_caffe import api
from lrbench_caffe.errors import InputError, ParameterError
from lrbench_caffe.knowledge.evidence import Wanted
from lrbench_caffe.knowledge.selection import Query
from lrbench_caffe.lr import PolicyError, parse
from lrbench_caffe.records import SCRATCH
from lrbench_caffe.terminal.cli import flag
from lrbench_caffe.train import parser
from lrbench_caffe.training import choosing, recommending
from lrbench_caffe.training.request import TrainingRequest
from lrbench_caffe.tuning.request import RangeRequest, StudyRequest, TuningRequest
from tests.knowledge.tasks import DIGITS, LENET_DIGITS
from tests.plots.test_command import measured, write_run

SIN2 = "SIN2(k0=0.01, k1=0.06, l=86)"  # the paper's l=2000, in epochs: 2000 / 600 * 25.94
COS = "COS(k0=0.01, k1=0.06, l=86)"


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Caffe would tell of a solver of the digits that trains 2000 iterations from iteration 700."""
    solver = SimpleNamespace(message=SimpleNamespace(max_iter=2000), epoch=25.94)
    wanted = Wanted(DIGITS, replace(SCRATCH, iteration=700))
    monkeypatch.setattr(recommending, "open_wanted", lambda *_, **__: (solver, wanted))
    monkeypatch.setattr(choosing, "solver_settings", lambda _: LENET_DIGITS)


@pytest.mark.usefixtures("digits")
def test_recommendations_show_their_policies_and_evidence(fresh: Path) -> None:
    proposed = api.recommend("x.prototxt", database=fresh, top=2)
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
def test_nothing_to_recommend_is_said(fresh: Path) -> None:
    proposed = api.recommend("x.prototxt", database=fresh, functions=["sig"])
    assert repr(proposed) == "Recommendations(digits / LeNet_digits: none)"
    assert str(proposed).splitlines()[-1] == "nothing to propose"
    assert "SIG is not proposed: no result" in proposed._repr_html_()
    with pytest.raises(InputError, match="^digits / LeNet_digits: nothing to propose, so nothing"):
        proposed.figure()


@pytest.mark.usefixtures("digits")
def test_as_many_recommendations_as_functions(fresh: Path) -> None:
    names = ["sin2", "cos", "tri", "step", "poly"]
    proposed = api.recommend("x.prototxt", database=fresh, functions=names)
    assert sorted(policy.function.lower() for policy in proposed.policies) == sorted(names)
    assert len(api.recommend("x.prototxt", database=fresh).policies) == 3


@pytest.mark.usefixtures("digits")
def test_recommendations_of_chosen_contributors(fresh: Path) -> None:
    everybody = api.recommend("x.prototxt", database=fresh)
    for names in ("paper", ["paper", "own"], " own , paper "):
        chosen = api.recommend("x.prototxt", database=fresh, contributors=names)
        assert chosen.policies == everybody.policies  # the database has the paper's results only
    assert api.recommend("x.prototxt", database=fresh, contributors="own").policies == []
    with pytest.raises(
        ParameterError, match="contributors: 'Paper' has contributed nothing; did you"
    ):
        api.recommend("x.prototxt", database=fresh, contributors="Paper")


@pytest.mark.usefixtures("digits")
def test_nothing_is_recommended_for_a_training_that_is_over(fresh: Path) -> None:
    given = {"database": fresh, "snapshot": "x.solverstate"}
    api.recommend("x.prototxt", max_iter=701, **given)
    with pytest.raises(
        ParameterError, match=r"^snapshot: x.solverstate is at iteration 700; max_iter is 700$"
    ):
        api.recommend("x.prototxt", max_iter=700, **given)


def test_the_front_is_that_of_all_policies(fresh: Path) -> None:
    three = api.rank(task="mnist", database=fresh, top=3)
    every = api.rank(task="mnist", database=fresh, top=0)
    assert (len(three.policies), len(every.policies)) == (3, 10)
    (axes,) = three.pareto_figure().axes
    # Each policy has one, whatever ``top`` is; those with the same values share a text.
    numbers = sorted(int(n) for text in axes.texts for n in text.get_text().split(", "))
    assert numbers == list(range(1, 11))
    assert axes.get_ylabel() == "Top-1 (%)"


def test_a_front_of_values_that_no_policy_has_is_not_drawn(fresh: Path) -> None:
    ranking = api.rank(task="mnist", by="iterations,test_loss", database=fresh)
    with pytest.raises(InputError, match="no policy has both test loss and #Iterations$"):
        ranking.pareto_figure()


def test_policies_may_be_given_as_such() -> None:
    given = [parse("FIX(k0=0.01)"), "SIN2(k0=0.01, k1=0.06, l=500)"]
    request = api._study_request(TuningRequest, "x.prototxt", {"try_first": given})
    assert request.try_first == ["FIX(k0=0.01)", "SIN2(k0=0.01, k1=0.06, l=500)"]


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
    by_loss = api.runs_figure(tmp_path / "a", by="test_loss")
    assert by_loss.axes[0].get_ylabel() == "test loss"
    with pytest.raises(ParameterError, match="^by: 3; allowed: text$"):
        api.runs_figure(tmp_path / "a", by=3)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="^runs: none; allowed: one or more$"):
        api.runs_figure()


def typed(request: object, *names: str) -> list[tuple[type, Any]]:
    return [(type(getattr(request, name)), getattr(request, name)) for name in names]


def test_requests_have_python_numbers_of_numpys() -> None:
    given = {
        "seed": np.int64(1), "max_iter": np.uint8(20), "threads": np.int32(2),
        "hang_seconds": np.float32(7.5), "checkpoint_minutes": np.int64(0), "publish": np.True_,
        "stages": np.array(["a", "b"]),
    }  # fmt: skip
    training = api._training_request("x.prototxt", None, {**given, "gpu": np.int64(1)})
    assert typed(training, *given, "gpu") == [
        (int, 1), (int, 20), (int, 2), (float, 7.5), (int, 0), (bool, True), (list, ["a", "b"]),
        (str, "1"),
    ]  # fmt: skip
    seed, iterations = {"seed": np.int64(1)}, {"iterations": np.int16(20)}
    request: StudyRequest = RangeRequest(Path("x.prototxt"), **seed, **iterations)  # type: ignore[arg-type]
    assert typed(request, "seed", "iterations") == [(int, 1), (int, 20)]
    numbers = {"target_top1": np.float64(97.5), "top": np.int64(1)}
    request = TuningRequest(Path("x.prototxt"), **numbers)  # type: ignore[arg-type]
    assert typed(request, *numbers) == [(float, 97.5), (int, 1)]
    assert typed(Query(**numbers), *numbers) == [(float, 97.5), (int, 1)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "steps", [[2, 3], (2, 3), np.array([2, 3]), [np.int64(2), np.int64(3)], range(2, 4)], ids=repr
)
def test_a_list_of_a_policy_in_any_form(steps: Any) -> None:
    given = {"k0": np.float32(0.1), "gamma": 0.1, "l": steps}
    request = api._training_request("x.prototxt", "nstep", given)
    assert request.parameters == {"k0": "0.1", "k1": None, "gamma": "0.1", "p": None, "l": "[2, 3]"}


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"top": 2.5}, "top: 2.5; allowed: a whole number"),
        ({"top": np.float64(3)}, "top: 3.0; allowed: a whole number"),
        ({"top": "3"}, "top: '3'; allowed: a whole number"),
        ({"top": None}, "top: None; allowed: a whole number"),
        ({"max_iter": "x"}, "max_iter: 'x'; allowed: a whole number"),
        ({"target_top1": "abc"}, "target_top1: 'abc'; allowed: above 0, at most 100 (percent)"),
        ({"target_top1": 101.0}, "target_top1: 101; allowed: above 0, at most 100 (percent)"),
        ({"task": 3.0}, "task: 3.0; allowed: a task's number, or DATASET/NETWORK"),
        ({"task": True}, "task: True; allowed: a task's number, or DATASET/NETWORK"),
        ({"by": 3}, "by: 3; allowed: text"),
        ({"weights": 3}, "weights: 3; allowed: text"),
        ({"functions": 3}, "functions: 3; allowed: a list of names"),
        ({"sources": [3]}, "sources: (3,); allowed: a list of names"),
        ({"starts": {"scratch": 1}}, "starts: {'scratch': 1}; allowed: a list of names"),
        ({"higher": "yes"}, "higher: 'yes'; allowed: True or False"),
        ({"pareto": None}, "pareto: None; allowed: True or False"),
        ({"database": 3}, "database: 3; allowed: a URL or a file"),
        ({"solver": 3}, "solver: 3; allowed: a path"),
    ],
    ids=str,
)
def test_values_that_a_ranking_refuses(fresh: Path, parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(ParameterError) as caught:
        api.rank(**{"database": fresh, **parameters})
    assert str(caught.value) == words


def test_values_of_a_ranking_in_any_form(fresh: Path) -> None:
    rows = api.rank(task=3, database=fresh, top=3, weights="top1=2,iterations=1").rows()
    weights = {"top1": 2, "iterations": np.int64(1)}
    ranking = api.rank(task=np.int64(3), database=fresh, top=np.int64(3), weights=weights)
    assert ranking.rows() == rows
    (every, all_there_are) = (api.rank(task=3, database=fresh, top=n) for n in (10**30, 0))
    assert every.rows() == all_there_are.rows()


@pytest.mark.usefixtures("digits")
@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"top": "x"}, "top: 'x'; allowed: a whole number"),
        ({"top": 1.5}, "top: 1.5; allowed: a whole number"),
        ({"max_iter": "x"}, "max_iter: 'x'; allowed: a whole number"),
        ({"max_iter": 1.5}, "max_iter: 1.5; allowed: a whole number"),
        ({"max_iter": np.int64(0)}, "max_iter: 0; allowed: 1 or more"),
        ({"head": 3}, "head: 3; allowed: text"),
        ({"by": 3}, "by: 3; allowed: text"),
        ({"higher": 1}, "higher: 1; allowed: True or False"),
        ({"functions": 3}, "functions: 3; allowed: a list of names"),
        ({"snapshot": 3}, "snapshot: 3; allowed: text"),
        ({"database": 3}, "database: 3; allowed: a URL or a file"),
    ],
    ids=str,
)
def test_values_that_a_recommendation_refuses(parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(ParameterError) as caught:
        api.recommend("x.prototxt", **parameters)
    assert str(caught.value) == words


def test_lists_of_files_and_gpus(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def carry_out(request: recommending.RecommendationRequest, _: object) -> None:
        asked["weights"] = request.weights
        raise InputError("enough")

    monkeypatch.setattr(recommending, "carry_out", carry_out)
    with pytest.raises(InputError, match="^enough$"):
        api.recommend("x.prototxt", database=fresh, weights=["a", Path("b")])
    assert asked == {"weights": "a,b"}
    for gpus, text in ([0, 1], "0,1"), (np.array([0, 1]), "0,1"), (0, "0"), ("0,1", "0,1"):
        assert api._study_request(TuningRequest, "x.prototxt", {"gpus": gpus}).gpus == text


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"target_top1": "x"}, "target_top1: 'x'; allowed: above 0, at most 100 (percent)"),
        ({"budget": 1.5}, "budget: 1.5; allowed: iterations, or xF for F times max_iter, above 0"),
        ({"gpus": 1.5}, "gpus: 1.5; allowed: text"),
        ({"functions": None}, "functions: None; allowed: text"),
        ({"seed": None}, "seed: None; allowed: a whole number"),
        ({"compose": "no"}, "compose: 'no'; allowed: True or False"),
        ({"out": 3}, "out: 3; allowed: a path"),
        ({"solver": None}, "solver: None; allowed: a path"),
        ({"on_note": 3}, "on_note: 3; allowed: a function"),
    ],
    ids=str,
)
def test_values_that_a_tuning_refuses(parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(ParameterError) as caught:
        api.tune(**{"solver": "x.prototxt", **parameters})
    assert str(caught.value) == words


@pytest.mark.parametrize("budget", [500, np.int64(500), "500"], ids=repr)
def test_a_budget_is_a_number_or_text(budget: Any) -> None:
    request = api._study_request(TuningRequest, "x.prototxt", {"budget": budget})
    assert request.iterations(1000) == 500


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"stages": 3}, "stages: 3; allowed: a list of names"),
        ({"stages": [3]}, "stages: [3]; allowed: a list of names"),
        ({"gpu": 1.5}, "gpu: 1.5; allowed: a GPU's number, all or none"),
        ({"resume": "no"}, "resume: 'no'; allowed: True or False"),
        ({"hang_seconds": "3"}, "hang_seconds: '3'; allowed: 0 (never) or more"),
        ({"max_iter": [3]}, "max_iter: [3]; allowed: a whole number"),
        ({"solver": 3}, "solver: 3; allowed: a path"),
        ({"solver": "a\0b"}, "solver: 'a\\x00b'; allowed: a path"),
        ({"weights": "a\0b"}, "weights: 'a\\x00b'; allowed: text"),
        ({"on_iteration": 3}, "on_iteration: 3; allowed: a function"),
        ({"progress": True}, "progress: True; allowed: only in a notebook; elsewhere use on_iteration"),
    ],
    ids=str,
)  # fmt: skip
def test_values_that_a_training_refuses(parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(ParameterError) as caught:
        api.train(**{"solver": "x.prototxt", **parameters})
    assert str(caught.value) == words


@pytest.mark.parametrize("shell", ["ZMQInteractiveShell", "derived", "TerminalInteractiveShell"])
def test_where_a_progress_bar_is_shown(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type("ZMQInteractiveShell" if shell == "derived" else shell, (), {})
    kind = type("Shell", (kind,), {}) if shell == "derived" else kind
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=kind))
    in_notebook = shell != "TerminalInteractiveShell"
    assert api._shows_progress(None) == in_notebook
    assert not api._shows_progress(False)
    if in_notebook:
        assert api._shows_progress(True)
    else:
        with pytest.raises(ParameterError, match="^progress: True; allowed: only in a notebook"):
            api._shows_progress(True)


@pytest.mark.parametrize(
    ("max_iter", "shown"), [(0, "0"), (-1, "-1"), (10**12, "1000000000000"), (1.5, "1.5")], ids=str
)
def test_lengths_that_a_schedule_refuses(max_iter: Any, shown: str) -> None:
    with pytest.raises(ParameterError, match=f"^max_iter: {shown}; allowed: 1 to 10000000$"):
        api.schedule_figure("FIX(k0=0.1)", max_iter=max_iter)


def test_a_schedule_is_of_policies_and_of_a_length() -> None:
    (axes,) = api.schedule_figure("FIX(k0=0.1)", max_iter=np.int64(5)).axes  # type: ignore[arg-type]
    assert list(axes.lines[0].get_xdata()) == [0, 1, 2, 3, 4]
    with pytest.raises(ParameterError, match="^policies: 3; allowed: policies, or their text$"):
        api.schedule_figure(3)  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match="wobble"):
        api.schedule_figure("wobble")
    with pytest.raises(ParameterError, match="^runs: 3; allowed: a path$"):
        api.runs_figure(3)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="^path: 3; allowed: a path$"):
        api.read_run(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("function", "typed", "meant"),
    [
        (api.train, "lr", "policy"),
        (api.train, "db", "database"),
        (api.train, "no_db", "no_database"),
        (api.train, "hang_timeout", "hang_seconds"),
        (api.train, "stage", "stages"),
        (api.train, "maximum_iter", "max_iter"),
        (api.tune, "db", "database"),
        (api.rank, "db", "database"),
        (api.rank, "source", "sources"),
        (api.rank, "start", "starts"),
        (api.recommend, "db", "database"),
        (api.recommend, "tops", "top"),
    ],
)
def test_a_flags_name_tells_the_parameters(function: Any, typed: str, meant: str) -> None:
    words = f"^unexpected keyword argument '{typed}'; did you mean '{meant}'\\?$"
    with pytest.raises(TypeError, match=words):
        function("x.prototxt", **{typed: "x"})


def test_the_page_names_the_flags_that_differ() -> None:
    page = " ".join((Path(__file__).parent.parent / "docs/python.md").read_text("utf-8").split())
    parameters = {item.name for item in fields(TrainingRequest)} - {"solver", "parameters"}
    flags = {text for action in parser()._actions for text in action.option_strings}
    flags = {text for text in flags if text.startswith("--") and "_" not in text}
    assert {flag(name) for name in parameters} <= flags
    for name in parameters:
        if flag(name) != "--" + name.replace("_", "-"):
            assert f"`{flag(name)}` is `{name}`" in page, name
    others = {text.lstrip("-") for text in flags} - {"help", "version", "debug", "solver"}
    others -= {flag(name).lstrip("-") for name in parameters - {"preview"}} | set(api.PARAMETERS)
    assert others == {"preview", "sigint-effect", "sighup-effect", "log-to-stderr", "web"}
    assert all(f"`--{text}`" in page for text in others)
