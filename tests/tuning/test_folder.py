"""Where studies are kept: no two solvers share one, and the same command finds its own again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lrbench_caffe.errors import InputError
from lrbench_caffe.files import temporary_of
from lrbench_caffe.records import Start
from lrbench_caffe.tuning import folder
from lrbench_caffe.tuning.folder import study_folder
from lrbench_caffe.tuning.plan import TuningPlan
from lrbench_caffe.tuning.prior import Prior
from lrbench_caffe.tuning.space import GoodRange


def plan(solver: Path, files: str = "digest") -> TuningPlan:
    return TuningPlan(str(solver), 1000, 50, None, 10.0, 1, files=files)


@pytest.fixture
def solvers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.chdir(tmp_path)
    return Path("one/solver.prototxt"), Path("other/solver.prototxt")


@pytest.mark.parametrize("kind", ["tune", "range"])
def test_two_solvers_of_one_name_have_two_folders(kind: str, solvers: tuple[Path, Path]) -> None:
    one, other = solvers
    assert study_folder(kind, one) == Path(f"runs/{kind}-solver")
    folder.write(study_folder(kind, one), plan(one), Prior())
    second = study_folder(kind, other)
    assert (
        second.name.startswith(f"{kind}-solver-") and len(second.name) == len(f"{kind}-solver-") + 8
    )
    folder.write(second, plan(other), Prior())
    # Again, in whatever way the path is written; and also when the first one's study is gone.
    assert study_folder(kind, one.resolve()) == Path(f"runs/{kind}-solver")
    assert study_folder(kind, Path("one/../other/solver.prototxt")) == second
    (Path(f"runs/{kind}-solver") / "study.json").unlink()
    assert study_folder(kind, other) == second


@pytest.mark.parametrize("kind", ["tune", "range"])
def test_a_link_to_a_solver_has_the_solvers_folder(kind: str, solvers: tuple[Path, Path]) -> None:
    one, other = solvers
    for path in solvers:
        path.parent.mkdir()
        path.touch()
    link, folder_link = Path("link.prototxt"), Path("uno")
    link.symlink_to(one)
    folder_link.symlink_to("one")
    ways = (one, one.resolve(), link, link.absolute(), folder_link / "solver.prototxt")
    assert {study_folder(kind, way) for way in ways} == {Path(f"runs/{kind}-solver")}
    folder.write(study_folder(kind, link), plan(link), Prior())
    assert {study_folder(kind, way) for way in ways} == {Path(f"runs/{kind}-solver")}
    # Also where another solver of the name was first, and where the link named the folder once.
    folder.write(Path(f"runs/{kind}-solver"), plan(other), Prior())
    named = {study_folder(kind, way) for way in ways}
    assert len(named) == 1 and named != {Path(f"runs/{kind}-solver")}
    folder.write(Path(f"runs/{kind}-link"), plan(link), Prior())
    assert study_folder(kind, link) == Path(f"runs/{kind}-link")


def test_a_range_test_and_a_tuning_are_no_study_of_each_other(tmp_path: Path) -> None:
    tuning = plan(Path("solver.prototxt"))
    ladder = replace(tuning, form="ladder", test_interval=30)  # what they are is said first
    for kept, now, words in (
        (ladder, tuning, "a range test, not a tuning"), (tuning, ladder, "a tuning, not a range test"),
    ):  # fmt: skip
        folder.write(tmp_path, kept, Prior())
        with pytest.raises(InputError) as error:
            folder.check_plan(tmp_path, now, folder.read(tmp_path), ())
        assert str(error.value) == f"{tmp_path} holds {words}; allowed: another out"


def test_folders_of_earlier_versions_are_found(solvers: tuple[Path, Path]) -> None:
    """A range test had no study.json; one that was cut off had trainings alone."""
    one, other = solvers
    run = Path("runs/range-solver/trainings/fix-1/run.json")
    run.parent.mkdir(parents=True)
    run.write_text(json.dumps({"solver": str(one), "status": "stopped"}))
    assert study_folder("range", one) == Path("runs/range-solver")
    assert study_folder("range", other) != Path("runs/range-solver")
    folder.check_solver(Path("runs/range-solver"), replace(plan(one), form="ladder"), None)
    with pytest.raises(
        InputError, match="range-solver holds a study of one/solver.prototxt, not other/solver"
    ):
        folder.check_solver(Path("runs/range-solver"), plan(other), None)


def test_another_solver_is_not_taken_for_an_edited_one(solvers: tuple[Path, Path]) -> None:
    one, other = solvers
    where = Path("study")
    folder.write(where, plan(one), Prior())
    kept = folder.read(where)
    folder.check_solver(where, plan(one.resolve()), kept)
    with pytest.raises(
        InputError, match="study holds a study of one/solver.prototxt, not other/solver"
    ):
        folder.check_solver(where, plan(other, "of the other"), kept)
    with pytest.raises(InputError, match="as it was before it or its net was edited"):
        folder.check_solver(where, plan(one, "edited"), kept)


def test_other_data_is_refused_and_data_of_which_nothing_is_known_is_not(tmp_path: Path) -> None:
    own = replace(plan(tmp_path / "solver.prototxt"), data="ab" * 16)
    folder.write(tmp_path, own, Prior())
    kept = folder.read(tmp_path)
    assert kept is not None
    other = replace(own, data="cd" * 16)
    with pytest.raises(
        InputError, match="the data has changed; allowed: the data as it was, or an"
    ):
        folder.check_solver(tmp_path, other, kept)
    folder.check_solver(tmp_path, own, kept)
    folder.check_solver(tmp_path, replace(own, data=""), kept)
    del kept["plan"]["data"]  # as earlier versions wrote it
    folder.check_solver(tmp_path, other, kept)
    folder.check_plan(tmp_path, other, kept, ())


def test_trainings_without_a_study_are_not_taken_for_this_ones(tmp_path: Path) -> None:
    """Who removes study.json, to get rid of what it says, has trainings of another length there."""
    run = tmp_path / "trainings" / "fix-1"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"solver": "solver.prototxt"}))
    asked = plan(Path("solver.prototxt").resolve())
    with pytest.raises(
        InputError, match=r"holds trainings, such as fix-1, and no study.json that says"
    ):
        folder.check_solver(tmp_path, asked, folder.read(tmp_path))
    # An earlier version's range test that was cut off.
    folder.check_solver(tmp_path, replace(asked, form="ladder"), folder.read(tmp_path))


def test_a_fresh_study_is_not_one_that_knew_something(tmp_path: Path) -> None:
    given = ("FIX(k0=0.02)",)
    for knew, refused in (
        (Prior(), False),
        (Prior((("FIX(k0=0.02)", "given"),)), False),
        (Prior((("FIX(k0=0.01)", "from the LR database"),)), True),
        (Prior((), GoodRange(0.001, 0.1, 0.01)), True),
        (Prior((), None, (("FIX(k0=0.01)", 98.5),)), True),
    ):
        folder.write(tmp_path, plan(Path("solver.prototxt")), knew)
        kept = folder.read(tmp_path)
        assert kept is not None
        if refused:
            with pytest.raises(InputError, match="fresh: .* began with what the LR database knew"):
                folder.check_fresh(tmp_path, kept, given)
        else:
            folder.check_fresh(tmp_path, kept, given)


def test_what_was_known_is_kept(tmp_path: Path) -> None:
    for good in (None, GoodRange(0.001, 0.1, 0.01), GoodRange(0.001, 0.1, 0.01, 0.3)):
        known = Prior((("FIX(k0=0.01)", "from the LR database"),), good, (("FIX(k0=0.01)", 98.5),))
        folder.write(tmp_path, plan(Path("solver.prototxt")), known)
        kept = folder.read(tmp_path)
        assert kept is not None and Prior.from_json(kept["experience"]) == known


@pytest.mark.parametrize(
    "damaged",
    [
        {"experience": {"policies": 5, "range": None}},
        {"experience": {"policies": [["FIX(k0=0.1)"]], "range": None}},
        {"experience": {"policies": [["FIX(k0=x)", ""]], "range": None}},
        {"experience": {"policies": [], "range": [1, 2]}},
        {"experience": {"policies": [], "range": ["a", 2, 1, None]}},
        {"experience": {"policies": [], "range": None, "results": [["FIX(k0=0.1)", "high"]]}},
        {"experience": []},
        {"plan": {"solver": 5}},
        {"plan": {"solver": "s.prototxt"}},  # no length
        {"plan": {"solver": "s.prototxt", "slots": "two"}},
    ],
)
def test_a_damaged_study_is_one_line(tmp_path: Path, damaged: dict[str, Any]) -> None:
    folder.write(tmp_path, plan(Path("s.prototxt")), Prior())
    content = json.loads((tmp_path / "study.json").read_text())
    (tmp_path / "study.json").write_text(json.dumps({**content, **damaged}))
    with pytest.raises(InputError, match="study.json: not a study: ") as caught:
        folder.read(tmp_path)
    assert "\n" not in str(caught.value)


def test_what_a_killed_command_left_in_a_study_is_removed(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    own = plan(Path("solver.prototxt"))
    folder.write(tmp_path, own, Prior())
    left = temporary_of(tmp_path / "tuning.png")
    left = left.with_name(left.name.replace(f".{os.getpid()}", f".{child.pid}"))
    left.touch()
    folder.check_solver(tmp_path, own, folder.read(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["study.json"]


def test_a_study_of_an_earlier_version_goes_on_and_one_of_another_goal_or_start_does_not(
    tmp_path: Path,
) -> None:
    now = plan(tmp_path / "solver.prototxt")
    folder.write(tmp_path, now, Prior())
    kept = folder.read(tmp_path)
    assert kept is not None
    for name in ("by", "higher", "classifies", "target", "start", "weights", "level", "stages"):
        del kept["plan"][name]  # what version 0.1 did not write
    folder.check_solver(tmp_path, now, kept)
    folder.check_plan(tmp_path, now, kept, ())
    with pytest.raises(InputError, match="holds a study with by top1, not loss"):
        folder.check_plan(tmp_path, replace(now, by="loss"), kept, ())
    with pytest.raises(InputError, match="holds a study with level 0, not 1"):
        folder.check_solver(tmp_path, replace(now, level=1), kept)

    tuned = replace(now, start=Start("weights", "ab" * 16, 2, 4, name="a.caffemodel"))
    folder.write(tmp_path, tuned, Prior())
    kept = folder.read(tmp_path)
    same = replace(tuned.start, name="b.caffemodel")
    folder.check_solver(tmp_path, replace(tuned, start=same, weights="b.caffemodel"), kept)
    other = replace(tuned.start, digest="cd" * 16, name="c.caffemodel")
    with pytest.raises(
        InputError,
        match="holds a study with start weights a.caffemodel, 2 of 4 layers filled, not weights c",
    ):
        folder.check_solver(tmp_path, replace(tuned, start=other), kept)
    other = replace(tuned.start, digest="cd" * 16)  # another file of the same name
    words = "weights a.caffemodel, 2 of 4 layers filled"
    with pytest.raises(InputError, match=rf"{words} \(abababab\), not {words} \(cdcdcdcd\);"):
        folder.check_solver(tmp_path, replace(tuned, start=other), kept)


def test_the_value_before_the_first_update_stays_as_the_study_began(tmp_path: Path) -> None:
    """Caffe measures it anew for each command, and with another BLAS it differs in the last digits."""
    began = replace(
        plan(tmp_path / "solver.prototxt"), by="test_loss", higher=False, chance=2.2832201957
    )
    folder.write(tmp_path, began, Prior())
    kept = folder.read(tmp_path)
    assert kept is not None
    now = replace(began, chance=2.2832202434)
    folder.check_plan(tmp_path, now, kept, ())
    assert folder.keeping_chance(now, kept) == began
    assert folder.keeping_chance(now, None) == now
    # What is compared by something else is another study, and says so.
    other = replace(now, by="loss", chance=7.0)
    assert folder.keeping_chance(other, kept) == other
    top1 = plan(tmp_path / "solver.prototxt")  # of which it is 100 % / classes, and is not measured
    folder.write(tmp_path, replace(top1, chance=0.0), Prior())
    assert folder.keeping_chance(top1, folder.read(tmp_path)) == top1
    with pytest.raises(InputError, match="holds a study with by test_loss, not loss"):
        folder.check_plan(tmp_path, other, kept, ())


def test_a_range_test_leaves_the_folder_of_a_tuning_alone(tmp_path: Path) -> None:
    tuning = replace(plan(Path("solver.prototxt")), top=2, seeds=3)
    folder.write(tmp_path, tuning, Prior())
    asked = replace(plan(Path("solver.prototxt")), form="ladder")
    for form in ("ladder", "ramp"):
        with pytest.raises(InputError, match=r"holds a tuning; allowed: another out"):
            folder.check_range_test(tmp_path, folder.read(tmp_path), replace(asked, form=form))
    # An earlier version's range test does not say what it is, but has left its result.
    (tmp_path / "range.json").write_text("{}")
    folder.check_range_test(tmp_path, folder.read(tmp_path), asked)


def test_a_range_test_is_not_continued_with_longer_trainings(tmp_path: Path) -> None:
    kept = replace(plan(Path("solver.prototxt")), form="ladder")
    folder.write(tmp_path, kept, Prior())
    shorter = replace(kept, max_iter=kept.max_iter - 1)
    folder.check_range_test(tmp_path, folder.read(tmp_path), shorter)
    longer = replace(kept, max_iter=2000)
    with pytest.raises(InputError, match="trainings that end at iteration 1000, not 2000; allowed"):
        folder.check_range_test(tmp_path, folder.read(tmp_path), longer)
