"""Commands that train many times, small enough for a trial, and how their results are compared."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaoslab import results
from chaoslab.lab import ROOT, Lab, command, database_of
from chaoslab.setups import SETUPS
from chaoslab.trial import Trial, temporary_files
from chaoslab.verdicts import Wrong

OUT = "study"
LENET = "solvers/lenet_digits_solver.prototxt"  # 100 iterations take about a second
TRAIN = ("--layers", "stock", "--jobs", "2", "--out", OUT)


@dataclass(frozen=True)
class Study:
    """A command that trains many times.

    Attributes:
        name: for people.
        args: the command.
        tables: the files in its folder that hold its results, as patterns.
        trainings: how many there are, about.
        takes_limit: whether it has the flag --hang-timeout.
    """

    name: str
    args: tuple[str, ...]
    tables: tuple[str, ...]
    trainings: int
    takes_limit: bool = False


STUDIES = {
    study.name: study
    for study in (
        Study(
            "tune",
            command("tune", "solver.prototxt", "--fresh", "--functions", "sin2", "--max-iter", "60",
                    "--test-interval", "20", "--top", "1", "--seeds", "2", "--budget", "100", *TRAIN),
            ("result.json",), 12, takes_limit=True,
        ),
        Study(
            "tune-plain",
            command("tune", LENET, "--fresh", "--functions", "poly", "--max-iter", "120",
                    "--test-interval", "40", "--top", "1", "--seeds", "2", "--holdout", "0", *TRAIN),
            ("result.json",), 12, takes_limit=True,
        ),
        # STEP and NSTEP branch from FIX; what is held out is copied.
        Study(
            "tune-branching",
            command("tune", LENET, "--fresh", "--functions", "FIX,STEP,NSTEP", "--max-iter", "200",
                    "--test-interval", "40", "--top", "1", "--seeds", "2", "--budget", "1200", *TRAIN),
            ("result.json",), 24, takes_limit=True,
        ),
        Study(
            "range",
            command("range", "solver.prototxt", "--iterations", "40", "--test-interval", "20", *TRAIN),
            ("range.json",), 8,
        ),
        Study(
            "ramp",
            command("range", "solver.prototxt", "--form", "ramp", "--passes", "3", "--iterations", "120",
                    *TRAIN),
            ("range.json",), 3,
        ),
        Study(
            "reproduce",
            (sys.executable, "-m", "tests.reproduction.digits", "table7", "--iterations-scale", "0.02",
             "--rows", "inv,poly", "--seeds", "2", *TRAIN),
            ("*.csv",), 4,
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class StudyReference:
    """An untouched study.

    Attributes:
        study: what was studied.
        folder: where the command was typed.
        code: its exit code, which tells a verdict.
        seconds: how long it took.
    """

    study: Study
    folder: Path
    code: int
    seconds: float


def study_reference(lab: Lab, study: Study) -> StudyReference:
    """The untouched study."""

    def make() -> StudyReference:
        folder = lab.new_folder(f"untouched-{study.name}")
        furnish(lab, folder)
        done = lab.untouched(folder, study.args, allowed=(0, 3))
        return StudyReference(study, folder, done.code, done.seconds)

    return lab.once(f"study {study.name}", make)


def furnish(lab: Lab, folder: Path) -> None:
    """Put what the studies need into a folder."""
    lab.furnish(folder, SETUPS["plain"])
    for name in ("solvers", "prototxt"):
        (folder / name).symlink_to(ROOT / name)


def check_equal(trial: Trial, reference: StudyReference) -> None:
    """Check that a study has the results of the untouched one, table by table and training by training.

    Raises:
        Wrong: it has not.
    """
    trial.bring_in()
    words = []
    wanted, found = reference.folder / OUT, trial.folder / OUT
    for pattern in reference.study.tables:
        for table in sorted(wanted.glob(pattern)):
            words += _table_differences(table, found / table.name)
    runs, others = _runs(wanted), _runs(found)
    if runs != others:
        words.append(f"trainings {sorted(runs ^ others)} are not in both")
    for run in sorted(runs & others):
        words += [f"{run}: {word}" for word in results.differences(wanted / run, found / run)]
    words += results.stored_differences(database_of(reference.folder), trial.database)
    words += [f"left: {path.relative_to(trial.folder)}" for path in temporary_files(trial.folder)]
    if words:
        raise Wrong(results.first(words))


def check_branches(reference: StudyReference, wanted: bool) -> None:
    """Check that trainings of a tuning branched from others if that is ``wanted``, else that none did.

    Raises:
        Wrong: they did not, or one did.
    """
    result = json.loads((reference.folder / OUT / "result.json").read_text(encoding="utf-8"))
    if (result["iterations_taken_over"] > 0) != wanted:
        raise Wrong(f"untouched, {result['iterations_taken_over']} iterations were taken over")


@dataclass(frozen=True)
class Progress:
    """How far a run had come when its command was killed.

    Attributes:
        sessions: how often it had been begun.
        iterations: how many of them are recorded.
        kept: the iteration of the last snapshot, or of the end of one that diverged; else 0.
    """

    sessions: int
    iterations: int
    kept: int


def progress_of(trial: Trial) -> dict[str, Progress]:
    """How far each run of the trial's study has come, by its folder."""
    return {run: _progress(trial.folder / OUT / run) for run in _runs(trial.folder / OUT)}


def _progress(folder: Path) -> Progress:
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    last: dict[str, int] = {"iterations.csv": 0, "snapshots.jsonl": 0}
    for name in last:
        with contextlib.suppress(FileNotFoundError):
            # The last line may be torn: a kill hits between any two bytes.
            lines = (folder / name).read_text(encoding="utf-8").split("\n")[:-1]
            if name == "snapshots.jsonl":
                last[name] = max((json.loads(line)["iteration"] for line in lines), default=0)
            elif len(lines) > 1:
                last[name] = int(lines[-1].split(",")[0]) + 1
    iterations, kept = last["iterations.csv"], last["snapshots.jsonl"]
    if record["status"] == "diverged":
        kept = iterations
    return Progress(len(record.get("sessions", [])), iterations, kept)


def check_not_trained_twice(trial: Trial, killed: Mapping[str, Progress]) -> None:
    """Check that a study that was continued began each run where its last snapshot was, and trained no more
    of it again than was lost behind that.

    Args:
        killed: how far its runs had come.

    Raises:
        Wrong: it did.
    """
    for run, before in killed.items():
        record = json.loads((trial.folder / OUT / run / "run.json").read_text(encoding="utf-8"))
        begun = [session["iteration"] for session in record["sessions"][before.sessions :]]
        if begun and min(begun) < before.kept:
            raise Wrong(f"{run}: continued from {min(begun)}, though {before.kept} was kept")
        lost = before.iterations - before.kept
        if record.get("repeated", 0) > lost:
            raise Wrong(
                f"{run}: {record['repeated']} iterations were trained again; {lost} were lost"
            )


def _table_differences(wanted: Path, found: Path) -> list[str]:
    if not found.exists():
        return [f"there is no {found.name}"]
    if wanted.suffix != ".json":
        same = wanted.read_bytes() == found.read_bytes()
        return [] if same else [f"{found.name} differs"]
    one, other = (
        _without_times(json.loads(path.read_text(encoding="utf-8"))) for path in (wanted, found)
    )
    changed = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    return [
        f"{found.name}: {key} is {_short(other.get(key))} instead of {_short(one.get(key))}"
        for key in changed
    ]


def _short(value: Any) -> str:
    return json.dumps(value)[:300]


def _without_times(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            key: _without_times(v)
            for key, v in value.items()
            if "second" not in key and "time" not in key
        }
    return [_without_times(v) for v in value] if isinstance(value, list) else value


def _runs(folder: Path) -> set[str]:
    return {os.fspath(path.parent.relative_to(folder)) for path in folder.rglob("run.json")}
