"""Two commands at once at the same place: one is refused, or both end well; the results are those of one."""

from __future__ import annotations

import signal
from pathlib import Path

from chaoslab import moments, results
from chaoslab.lab import Lab, Reference, command, deadline
from chaoslab.processes import Done
from chaoslab.registry import scenario
from chaoslab.setups import SETUPS
from chaoslab.studies import STUDIES, check_equal, furnish, study_reference
from chaoslab.trial import Trial
from chaoslab.verdicts import EQUAL, Wrong

COMMAND_SECONDS = 5.0


@scenario("two-trainings-at-once", weight=1.5)
def two_trainings(trial: Trial) -> str:
    """Begin, or resume, the same run directory twice at once: one trains, one is refused in a line."""
    reference = trial.furnish(trial.choose_setup())
    if trial.rng.random() < 0.5:
        first = trial.start(trial.train_command(reference.setup))
        moments.of_training(trial, first, reference)
        first.send(signal.SIGKILL)
        trial.killed = True
        first.wait(deadline(reference.seconds))
        trial.wait_for_workers()
    _both(trial, trial.train_command(reference.setup), reference.seconds)
    trial.finish(reference)
    trial.check_equal(reference)
    return EQUAL


@scenario("same-second")
def same_second(trial: Trial) -> str:
    """Begin two trainings of one solver at once without --out: each has a run directory of its own."""
    reference = trial.furnish(SETUPS["plain"])
    args = command("train", "solver.prototxt", "--layers", "stock", *reference.setup.flags)
    for done in [
        one.wait(deadline(2 * reference.seconds)) for one in (trial.start(args), trial.start(args))
    ]:
        done.success()
    runs = [
        path.parent
        for path in (trial.folder / "runs").glob("*/run.json")
        if not path.parent.is_symlink()
    ]
    words = [] if len(runs) == 2 else [f"{len(runs)} run directories instead of 2"]
    words += [word for run in runs for word in results.differences(reference.run, run)]
    (wanted,) = results.stored(reference.database).values()
    found = list(results.stored(trial.database).values())
    if found != [wanted, wanted]:
        words.append(
            f"the database has {len(found)} runs, or others, instead of 2 of the untouched one"
        )
    if words:
        raise Wrong(results.first(words))
    return EQUAL


@scenario("two-studies-at-once", weight=0.5)
def two_studies(trial: Trial) -> str:
    """Start the same tune, range or reproduce twice at once: one is refused, or both end as one."""
    reference = study_reference(trial.lab, STUDIES[trial.rng.choice(sorted(STUDIES))])
    trial.note(reference.study.name)
    furnish(trial.lab, trial.folder)
    running = [trial.start(reference.study.args) for _ in range(2)]
    ended = [one.wait(deadline(2 * reference.seconds)) for one in running]
    for done in ended:
        trial.note(done.summary)
        if done.code != reference.code:
            done.refusal()
    if all(done.code != reference.code for done in ended):
        raise Wrong(f"both were refused: {ended[0].summary}")
    check_equal(trial, reference)
    return EQUAL


@scenario("two-imports-at-once")
def two_imports(trial: Trial) -> str:
    """Import the same export twice at once: the database has each run once."""
    reference = trial.lab.reference(SETUPS["plain"])
    file = trial.lab.once("export", lambda: _export(trial.lab, reference))
    _both(trial, command("db", "import", str(file)), COMMAND_SECONDS)
    trial.run(command("db", "import", str(file)), COMMAND_SECONDS).success()
    words = results.stored_differences(reference.database, trial.database)
    if words:
        raise Wrong(results.first(words))
    return EQUAL


@scenario("backup-during-training")
def backup_during_training(trial: Trial) -> str:
    """Make backups of the LR database while a training writes to it: they are whole, and so is it."""
    reference = trial.furnish(trial.choose_setup("plain", "plateau", "random"))
    training = trial.start(trial.train_command(reference.setup))
    (wanted,) = results.stored(reference.database).values()
    for number in range(trial.rng.randint(1, 2)):
        moments.of_training(trial, training, reference)
        copy = trial.folder / f"copy{number}.sqlite"
        done = trial.run(command("db", "backup", str(copy)), COMMAND_SECONDS)
        if not done.succeeded:
            done.refusal()
            continue
        trial.run(command("db", "info", "--db", str(copy)), COMMAND_SECONDS).success()
        for tests in results.stored(f"sqlite:///{copy}").values():
            if any(wanted.get(key) != test for key, test in tests.items()):
                raise Wrong(f"{copy.name} holds other tests than the training made")
    training.wait(deadline(reference.seconds)).success()
    trial.check_equal(reference)
    return EQUAL


def _both(trial: Trial, args: tuple[str, ...], seconds: float) -> list[Done]:
    """Run a command twice at once: at least one succeeds, and the other does or is refused.

    Raises:
        Wrong: neither succeeds, or one fails in another way.
    """
    running = [trial.start(args) for _ in range(2)]
    ended = [one.wait(deadline(2 * seconds)) for one in running]
    for done in ended:
        trial.note(done.summary)
        if not done.succeeded:
            done.refusal()
    if not any(done.succeeded for done in ended):
        raise Wrong(f"both were refused: {ended[0].summary}")
    return ended


def _export(lab: Lab, reference: Reference) -> Path:
    file = reference.folder / "runs.jsonl"
    lab.untouched(reference.folder, command("db", "export", str(file)))
    return file
