"""Damaged files: run directories, databases, LMDBs, logs and exports."""

from __future__ import annotations

import shutil
from pathlib import Path

from chaoslab import results, studies
from chaoslab.damage import files as damage
from chaoslab.damage import sqlite_files, texts
from chaoslab.lab import Lab, Reference, command, database_of
from chaoslab.processes import Done
from chaoslab.registry import scenario
from chaoslab.scenarios.prototxts import by_caffe, check_same
from chaoslab.setups import SETUPS, Setup
from chaoslab.studies import STUDIES, study_reference
from chaoslab.trial import Trial
from chaoslab.verdicts import EQUAL, REFUSED, Skip, Wrong
from lrbench_caffe.database import Database
from lrbench_caffe.runtime.locate import caffe_binary
from tests.caffe import nets
from tests.caffe.differential_cases import Case

COMMAND_SECONDS = 5.0


def settled(done: Done) -> bool:
    """Whether a command succeeded; else it must be a refusal, here of any number of lines: ``db import`` has
    one for each refused run, and ``recommend`` none that is called an error.

    Raises:
        Wrong: it is neither.
    """
    refused = done.code in (1, 2) and bool(done.error_lines)
    if not (done.succeeded or refused):
        raise Wrong(
            f"{done.summary} instead of success, or exit code 1 or 2 and a line that says why"
        )
    return done.succeeded


# -- run directories -------------------------------------------------------------------------------


@scenario("damaged-run", weight=4)
def damaged_run(trial: Trial) -> str:
    """Damage a file of a run that was stopped, or two; then look at it, and --resume it."""
    reference = stopped(trial, trial.choose_setup())
    run = trial.folder / "out"
    before = set(damage.files_in(run))
    wounds = []
    for _ in range(trial.rng.choice((1, 1, 1, 2))):
        files = damage.files_in(run)
        # Not the many files of prototxt/ before the few that hold results.
        folder = trial.rng.choice(sorted({file.parent for file in files}))
        chosen = trial.rng.choice([file for file in files if file.parent == folder])
        wounds.append(damage.Wound(chosen, trial.rng))
        trial.note(wounds[-1].what)
    for look in trial.rng.sample(LOOKS, 1):
        settled(trial.run(command(*look), COMMAND_SECONDS))
    lost = before - set(damage.files_in(run))
    if not settled(trial.run(trial.train_command(reference.setup), reference.seconds)):
        gone = before - lost - set(damage.files_in(run))
        if gone:
            raise Wrong(f"refused, and gone: {', '.join(sorted(path.name for path in gone))}")
        return REFUSED
    for wound in wounds:
        if wound.path.parent.name == "snapshots":  # one before that which it continued from
            wound.heal()
    trial.check_equal(reference)
    return EQUAL


LOOKS = (
    ("plot", "runs", "out", "--out", "look.png"),
    ("db", "sync", "out"),
    ("rank", "solver.prototxt"),
)


def stopped(trial: Trial, setup: Setup) -> Reference:
    """Put a training that was stopped in the middle into the trial's folder; returns the untouched one."""
    reference = trial.furnish(setup)
    source = trial.lab.once(f"stopped {setup.name}", lambda: _stop(trial.lab, setup))
    for path in source.iterdir():
        if (
            path.name not in ("data", "net.prototxt", "solver.prototxt", "tmp")
            and "untouched" not in path.name
        ):
            damage.copy(path, trial.folder / path.name)
    return reference


def _stop(lab: Lab, setup: Setup) -> Path:
    folder = lab.new_folder(f"stopped-{setup.name}")
    lab.furnish(folder, setup)
    args = ("solver.prototxt", "--out", "out", "--layers", "stock", *setup.flags)
    # Neither at a test nor at a snapshot of the solver's own.
    lab.untouched(folder, command("train", *args, "--until", str(2 * setup.max_iter // 3 + 5)))
    return folder


# -- studies ---------------------------------------------------------------------------------------


@scenario("damaged-study", weight=1.5)
def damaged_study(trial: Trial) -> str:
    """Damage files of a tune, range or reproduce that ended; then the same command: equal, or refused."""
    reference = study_reference(trial.lab, STUDIES[trial.rng.choice(sorted(STUDIES))])
    trial.note(reference.study.name)
    studies.furnish(trial.lab, trial.folder)
    for name in (studies.OUT, "lr.sqlite"):
        if (reference.folder / name).exists():  # a ramp records nothing
            damage.copy(reference.folder / name, trial.folder / name)
    folder = trial.folder / studies.OUT
    wounds = []
    for _ in range(trial.rng.choice((1, 1, 2))):
        own = [file for file in damage.files_in(folder) if file.parent == folder]
        files = own if trial.rng.random() < 0.4 else damage.files_in(folder)
        chosen = trial.rng.choice(files)
        wounds.append(damage.Wound(chosen, trial.rng))
        trial.note(f"{chosen.relative_to(folder).parent}: {wounds[-1].what}")
    done = trial.run(reference.study.args, reference.seconds)
    if done.code != reference.code:
        settled(done)
        return REFUSED
    for wound in wounds:
        if wound.path.parent != folder:  # of a training that was not needed again
            wound.heal()
    studies.check_equal(trial, reference)
    return EQUAL


# -- databases -------------------------------------------------------------------------------------


@scenario("damaged-database", weight=2)
def damaged_database(trial: Trial) -> str:
    """Damage the SQLite file of the LR database; then train, and use it."""
    setup = SETUPS["plain"]
    reference = trial.furnish(setup)
    source = Path(reference.database.removeprefix("sqlite:///"))
    file = damage.copy(source, trial.folder / "lr.sqlite")
    if trial.rng.random() < 0.5:
        trial.note(damage.damage(file, trial.rng))
    else:  # what only a SQLite file can have
        kind = trial.rng.choice(sorted(sqlite_files.KINDS))
        sqlite_files.damage(file, kind, trial.rng)
        trial.note(f"{file.name}: {kind}")
    for name in trial.rng.sample(sorted(DATABASE_COMMANDS), 3):
        settled(trial.run(command(*DATABASE_COMMANDS[name]), COMMAND_SECONDS))
    # The training continues without its database.
    trial.run(trial.train_command(setup), reference.seconds).success()
    words = results.differences(reference.run, trial.folder / "out")
    if words:
        raise Wrong(results.first(words))
    # What waits is brought into a database that is none the worse for it.
    file.unlink(missing_ok=True) if not file.is_dir() else shutil.rmtree(file)
    for more in ("-journal", "-wal", "-shm"):
        file.with_name(file.name + more).unlink(missing_ok=True)
    trial.run(command("db", "sync", "out"), COMMAND_SECONDS).success()
    words = results.stored_differences(reference.database, trial.database)
    if words:
        raise Wrong(results.first(words))
    return EQUAL


DATABASE_COMMANDS = {
    "info": ("db", "info"),
    "check": ("db", "check"),
    "tasks": ("db", "tasks"),
    "runs": ("db", "runs"),
    "export": ("db", "export", "all.jsonl", "--force"),
    "backup": ("db", "backup", "copy.sqlite", "--force"),
    "delete": ("db", "delete", "--source", "paper", "--yes"),
    "rank": ("rank", "solver.prototxt"),
    "recommend": ("recommend", "solver.prototxt"),
    "table": ("plot", "table", "--task", "digits", "--out", "table.png"),
    "merge": ("db", "--db", "sqlite:///other.sqlite", "merge", "lr.sqlite"),
}


# -- exports and logs ------------------------------------------------------------------------------


@scenario("damaged-export", weight=2)
def damaged_export(trial: Trial) -> str:
    """Damage an export of the LR database and import it: as the undamaged one, or refused, and then the whole
    one still comes in."""
    reference = trial.lab.reference(SETUPS["plain"])
    whole = trial.lab.once("export", lambda: _export(trial.lab, reference))
    file = damage.copy(whole, trial.folder / "damaged.jsonl")
    changed = trial.rng.random() < 0.5
    if changed:
        file.write_bytes(texts.damaged_export(file.read_bytes(), trial.rng))
        trial.note("other fields and values")
    else:
        trial.note(damage.damage(file, trial.rng))
    taken = settled(trial.run(command("db", "import", "damaged.jsonl"), COMMAND_SECONDS))
    settled(trial.run(command("rank", "--task", "digits"), COMMAND_SECONDS))
    settled(trial.run(command("db", "runs"), COMMAND_SECONDS))
    if taken:
        return EQUAL  # an export has no digest: what is a number in it is taken
    if (
        changed
    ):  # of several runs one may be taken, which then is another one than that of the whole export
        return REFUSED
    damage.copy(whole, trial.folder / "whole.jsonl")
    trial.run(command("db", "import", "whole.jsonl"), COMMAND_SECONDS).success()
    words = results.stored_differences(reference.database, trial.database)
    if words:
        raise Wrong(results.first(words))
    return REFUSED


def _export(lab: Lab, reference: Reference) -> Path:
    folder = lab.new_folder("export")
    lab.untouched(folder, command("db", "--db", reference.database, "export", "all.jsonl"))
    return folder / "all.jsonl"


@scenario("damaged-log", weight=2)
def damaged_log(trial: Trial) -> str:
    """Damage a log of caffe train and import it: the tests that come in are those of the whole log."""
    program = caffe_binary()
    if program is None:
        raise Skip("there is no caffe binary")
    whole = trial.lab.once("log", lambda: _log(trial.lab, str(program)))
    wanted = trial.lab.once("tests of the log", lambda: _tests_of(trial.lab, whole))
    (trial.folder / "net.prototxt").write_text(SETUPS["plain"].net, encoding="utf-8")
    file = damage.copy(whole, trial.folder / "damaged.log")
    if trial.rng.random() < 0.5:
        file.write_bytes(texts.damaged_log(file.read_bytes(), trial.rng))
        trial.note("lines, words and other numbers")
    else:
        trial.note(damage.damage(file, trial.rng))
    if not settled(trial.run(command("db", "import-log", "damaged.log"), COMMAND_SECONDS)):
        return REFUSED
    found = imported(trial.database)
    changed = [key for key in found if key in wanted and found[key] != wanted[key]]
    # A digit that is another digit, nobody can tell.
    if changed and not any(word in trial.notes[0] for word in UNSEEN):
        raise Wrong(f"test {changed[0]} is {found[changed[0]]} instead of {wanted[changed[0]]}")
    return EQUAL


UNSEEN = ("bit flipped", "noise", "other number", "piece", "lost", "control", "swapped", "twice")


def _log(lab: Lab, program: str) -> Path:
    folder = lab.new_folder("log")
    lab.furnish(folder, SETUPS["plain"])
    lab.untouched(folder, (program, "train", "--solver=solver.prototxt"))
    return (folder / "untouched.err").rename(folder / "whole.txt")


def _tests_of(lab: Lab, log: Path) -> dict[results.Key, float | None]:
    lab.untouched(log.parent, command("db", "import-log", log.name))
    return imported(database_of(log.parent))


def imported(url: str) -> dict[results.Key, float | None]:
    """Top-1 of the tests of imported runs, by iteration and net."""
    with Database.open(url) as database:
        runs = list(database.runs(source="imported", measurements=True))
    return {(m.iteration, m.net): m.top1 for run in runs for m in run.measurements}


# -- LMDBs -----------------------------------------------------------------------------------------


@scenario("damaged-lmdb", weight=2)
def damaged_lmdb(trial: Trial) -> str:
    """Damage an LMDB of a training: as caffe train does with it, or refused in one line."""
    program = caffe_binary()
    if program is None:
        raise Skip("there is no caffe binary")
    digits = trial.lab.data
    (trial.folder / "data").mkdir()
    for folder in digits.iterdir():
        damage.copy(folder, trial.folder / "data" / folder.name)
    case = Case(nets.net(), {"display": 1, "test_iter": 5})
    (trial.folder / "net.prototxt").write_text(nets.net(), encoding="utf-8")
    (trial.folder / "solver.prototxt").write_text(case.solver_text, encoding="utf-8")
    file = (
        trial.folder
        / "data"
        / trial.rng.choice(("digits_train_lmdb", "digits_test_lmdb"))
        / "data.mdb"
    )
    trial.note(damage.damage(file, trial.rng))
    keep = damage.copy(trial.folder / "data", trial.folder / "kept")
    theirs = by_caffe(trial, (str(program), "train", "--solver=solver.prototxt"))
    shutil.rmtree(trial.folder / "data")
    keep.rename(trial.folder / "data")
    args = ("solver.prototxt", "--out", "out", "--layers", "stock")
    if not settled(trial.run(command("train", *args), COMMAND_SECONDS)):
        return REFUSED
    if not theirs.succeeded:
        raise Wrong(f"caffe train ends otherwise: {theirs.summary}")
    check_same(trial, theirs)
    return EQUAL
