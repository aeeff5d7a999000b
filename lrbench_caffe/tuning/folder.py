"""A study's folder: its default name, and study.json, which describes the study."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from lrbench_caffe.errors import ParameterError
from lrbench_caffe.files import remove_leftovers, replace_own
from lrbench_caffe.prototxt.messages import utf8_stem
from lrbench_caffe.records import Start
from lrbench_caffe.tuning.plan import TuningPlan
from lrbench_caffe.tuning.prior import Prior
from lrbench_caffe.tuning.space import GoodRange

FILE = "study.json"
RANGE_FILE = "range.json"
# What a study of an earlier version has, which does not say it; of its start nothing is known.
_BEFORE = {
    "by": "top1", "higher": True, "target": None, "level": 0, "stages": [], "holdout": 0.0, "also": [],
    "try_first": [], "lr_range": [], "form": "",
}  # fmt: skip
# The solver is compared by its content, and files to begin with by theirs (``start``). The chance is
# kept: see ``keeping_chance``.
_UNCHECKED = ("solver", "files", "data", "weights", "classifies", "chance")
_BEGINNING = ("start", "level", "stages")  # what makes other trainings of the same solver
# What reading a file that is not a study raises; RuntimeError: a path in it that goes round in a
# circle.
_DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, RuntimeError)


def study_folder(kind: str, solver: Path) -> Path:
    """Where the study of a solver is or will be: runs/KIND-NAME, or runs/KIND-NAME-DIGEST where another
    solver of that name has this.

    Args:
        kind: "tune" or "range".
        solver: the solver file; NAME is that of the file to which links lead, the digest is of its
            path from here.
    """
    file = solver.resolve()
    path = os.path.relpath(file, Path.cwd())
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    # Earlier versions named the study of a link by the link.
    for name in dict.fromkeys((utf8_stem(solver), utf8_stem(file))):
        plain = Path("runs") / f"{kind}-{name}"
        named = plain.with_name(f"{plain.name}-{digest}")
        if named.is_dir():
            return named
        owner = _owner(plain)
        if owner == file:
            return plain
    return plain if owner is None else named


def _owner(folder: Path) -> Path | None:
    """The solver that a folder's study is of, None where there is none or nobody can say."""
    for path in (
        folder / FILE,
        folder / RANGE_FILE,
        *sorted(folder.glob("trainings/*/run.json")),
    ):
        with contextlib.suppress(*_DAMAGED):
            content = json.loads(path.read_text(encoding="utf-8"))
            return Path(content.get("plan", content)["solver"]).resolve()
    return None


def read(folder: Path) -> dict[str, Any] | None:
    """The content of study.json, None if it does not exist.

    Raises:
        InputError: it is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        Path(content["plan"]["solver"]), int(content["plan"].get("slots", 1))
        int(content["plan"]["max_iter"])
        float(content["plan"].get("chance", 0))
        Prior.from_json(content["experience"])
        kept_holdout(content)
    except _DAMAGED as error:
        raise ParameterError(
            "{0}: not a study: {1}; allowed: another {out}",
            path,
            error,
        ) from error
    return dict(content)


def write(
    folder: Path, plan: TuningPlan, experience: Prior, found: GoodRange | None = None
) -> None:
    """Write study.json, so that a kill leaves all of it or nothing.

    Args:
        found: the range that the range test found, for those who look before the study has ended.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = {"plan": plan.as_json(), "experience": experience.as_json()}
    if found is not None:
        content["range"] = found.as_json()
    replace_own(folder / FILE, (json.dumps(content, indent=2) + "\n").encode())


def check_solver(folder: Path, plan: TuningPlan, kept: dict[str, Any] | None) -> None:
    """Check that a folder's study is of this solver, of its present content, and from this start.

    What killed commands left in it is removed then.

    Args:
        kept: its study.json, None where it has none.
    """
    owner = _owner(folder)
    if owner is not None and owner != Path(plan.solver).resolve():
        raise ParameterError(
            "{0} holds a study of {1}, not {2}; allowed: another {out}",
            folder,
            _shown(owner),
            plan.solver,
        )
    if kept is None and not plan.form:  # earlier range tests have just trainings
        _check_no_trainings(folder)
    if kept is not None and kept["plan"].get("files") != plan.files:
        raise ParameterError(
            "{0} holds a study of {1} as it was before it or its net was edited; allowed: "
            "the files as they were, or another {out}",
            folder,
            plan.solver,
        )
    if kept is not None:
        _check_data(folder, plan, kept)
        _check_same(folder, plan, kept, _BEGINNING)
        remove_leftovers(folder, r"[^/]*")


def _check_no_trainings(folder: Path) -> None:
    """Check that no trainings are there of which nobody knows what they are of: how long, on what."""
    for run in folder.glob("trainings/*/run.json"):
        raise ParameterError(
            "{0} holds trainings, such as {1}, and no {2} that says what they are of; allowed: another {out}",
            folder,
            run.parent.name,
            FILE,
        )


def check_fresh(folder: Path, kept: dict[str, Any], given: Collection[str]) -> None:
    """Check that a study, which is to know nothing, was begun so.

    Args:
        given: policies that were given to be tried first.
    """
    knew = Prior.from_json(kept["experience"])
    texts = [text for text, _ in knew.policies if text not in given]
    if texts or knew.results or (knew.good and not kept["plan"].get("lr_range")):
        raise ParameterError(
            "{fresh}: {0} holds a study that began with what the LR database knew; allowed: without it, "
            "or another {out}",
            folder,
        )


def check_range_test(folder: Path, kept: dict[str, Any] | None, plan: TuningPlan) -> None:
    """Check that a range test can be made in a folder with this study, and shares its results.

    Raises:
        InputError: a tuning is there, or trainings that are shorter than those asked for now.
    """
    if kept is None:
        return
    before = kept["plan"]
    if not before.get("form") and not (folder / RANGE_FILE).exists():  # earlier ones have no form
        raise ParameterError("{0} holds a tuning; allowed: another {out}", folder)
    if before.get("form") == plan.form == "ladder" and before["max_iter"] < plan.max_iter:
        raise ParameterError(
            "{0} holds a range test of trainings that end at iteration {1}, not {2}; allowed: another {out}",
            folder,
            before["max_iter"],
            plan.max_iter,
        )


def _check_data(folder: Path, plan: TuningPlan, kept: dict[str, Any]) -> None:
    """Check that the data is what it was. Studies of earlier versions do not say what that is."""
    before = kept["plan"].get("data")
    if before and plan.data and before != plan.data:
        raise ParameterError(
            "{0} holds a study of {1} with other data: the data has changed; allowed: the data as it "
            "was, or another {out}",
            folder,
            plan.solver,
        )


def check_plan(
    folder: Path, plan: TuningPlan, kept: dict[str, Any], may_change: Collection[str]
) -> None:
    """Check that a study is continued with its original parameters."""
    _check_same(folder, plan, kept, set(plan.as_json()) - {*may_change, *_UNCHECKED})


def keeping_chance(plan: TuningPlan, kept: dict[str, Any] | None) -> TuningPlan:
    """The plan with the ``chance`` that the folder's study began with.

    Where Caffe measures it, another BLAS or number of threads rounds it otherwise.
    """
    if kept is None or plan.by == "top1" or kept["plan"].get("by") != plan.by:
        return plan
    return replace(plan, chance=float(kept["plan"].get("chance", plan.chance)))


def _check_same(
    folder: Path, plan: TuningPlan, kept: dict[str, Any], names: Collection[str]
) -> None:
    """Check that these parameters are those of a folder's study."""
    now = plan.as_json()
    before = {**_BEFORE, "start": now["start"], **kept["plan"]}
    kinds = ["a range test" if side.get("form") else "a tuning" for side in (before, now)]
    if "form" in names and kinds[0] != kinds[1]:
        raise ParameterError("{0} holds {1}, not {2}; allowed: another {out}", folder, *kinds)
    for name in (name for name in now if name in names):
        pair = [
            Start.of_json(side[name]) if name == "start" else side.get(name)
            for side in (before, now)
        ]
        if pair[0] != pair[1]:
            if name == "start" and str(pair[0]) == str(pair[1]):  # files of one name
                pair = [f"{one} ({one.digest[:8]})" if one and one.digest else one for one in pair]
            raise ParameterError(
                "{0} holds a study with {1} {2}, not {3}; allowed: the same, or another {out}",
                folder,
                name,
                *pair,
            )


def kept_holdout(kept: dict[str, Any] | None) -> float | None:
    """The share of records that a study holds out; None where there is no study."""
    return None if kept is None else float(kept["plan"].get("holdout", 0))


def _shown(path: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)
