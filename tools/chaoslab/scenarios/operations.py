"""What happens at the n-th file operation of a training, by the preloaded shim."""

from __future__ import annotations

import errno
import signal

from chaoslab.lab import deadline
from chaoslab.registry import scenario
from chaoslab.scenarios.kills import end_study
from chaoslab.shim import (
    CHILD,
    COMMAND,
    FAIL_ON,
    FAIL_ONCE,
    KILL_AFTER,
    KILL_BEFORE,
    KINDS,
    TORN,
    WORKER,
    Blow,
    counted_operations,
    operations,
    preload,
)
from chaoslab.studies import STUDIES, StudyReference, furnish, study_reference
from chaoslab.trial import Trial
from chaoslab.verdicts import EQUAL

ROLE_NAMES = {COMMAND: "the command", CHILD: "a training", WORKER: "a worker"}
# What can fail in which way: removing needs no room.
FAILING = {
    errno.ENOSPC: ("write", "open", "rename", "link", "mkdir"),
    errno.EDQUOT: ("write", "open", "link", "mkdir"),
    errno.EIO: ("write", "fsync", "rename", "unlink", "open", "truncate"),
}


@scenario("kill-at-file-operation", weight=5)
def kill_at_file_operation(trial: Trial) -> str:
    """Kill the command or the worker at its n-th file operation or within a write; then --resume."""
    reference = trial.furnish(trial.choose_setup())
    counted = operations(trial, reference.setup)
    with preload(trial) as shim:
        for part in range(1, trial.rng.randint(2, 3)):  # a second time there is less to do
            action = trial.rng.choice((KILL_BEFORE, KILL_AFTER, TORN))
            blow = _choose(trial, counted, KINDS, action, part, everyone=trial.rng.random() < 0.3)
            shim.arm(blow)
            trial.killed = True
            done = trial.start(trial.train_command(reference.setup), shim.environment)
            ended = done.wait(deadline(reference.seconds))
            shim.disarm()
            trial.note(f"{ended.summary}; happened {shim.fired} times")
            if ended.code > 0:  # its worker was killed
                ended.refusal()
            trial.wait_for_workers()
    trial.finish(reference)
    trial.check_equal(reference)
    return EQUAL


@scenario("failing-disk", weight=5)
def failing_disk(trial: Trial) -> str:
    """Let the n-th file operation fail with ENOSPC, EDQUOT or EIO, once or from there on; then --resume."""
    reference = trial.furnish(trial.choose_setup())
    counted = operations(trial, reference.setup)
    with preload(trial) as shim:
        error = trial.rng.choice(sorted(FAILING))
        blow = _choose(
            trial, counted, FAILING[error], trial.rng.choice((FAIL_ONCE, FAIL_ON)), 1, error
        )
        shim.arm(blow)
        done = trial.run(trial.train_command(reference.setup), reference.seconds, shim.environment)
        shim.disarm()
        trial.note(f"happened {shim.fired} times")
        if not done.succeeded:
            done.refusal()
    trial.finish(reference)
    trial.check_equal(reference)
    return EQUAL


def _choose(
    trial: Trial,
    counted: dict[int, dict[str, int]],
    kinds: tuple[str, ...],
    action: int,
    part: int,
    error: int = 0,
    everyone: bool = False,
) -> Blow:
    """A blow at one of the first 1/``part`` of the operations of an untouched training. In half of the trials
    it is one of a single kind, as there are far more writes than anything else."""
    role = trial.rng.choice(
        [role for role in ROLE_NAMES if any(counted[role][kind] for kind in kinds)]
    )
    there = tuple(kind for kind in kinds if counted[role][kind])
    if trial.rng.random() < 0.5:
        there = (trial.rng.choice(there),)
    number = trial.rng.randint(1, -(-sum(counted[role][kind] for kind in there) // part))
    trial.note(
        f"{ROLE_NAMES[role]} at operation {number} of {'/'.join(there)}: action {action}"
        + (f" {errno.errorcode[error]}" if error else "")
        + (", and all others" if everyone else "")
    )
    return Blow(there, role, number, action, error, everyone)


@scenario("study-at-file-operation", weight=1.5)
def study_at_file_operation(trial: Trial) -> str:
    """Kill, or let fail, a tune, range or reproduce at a file operation of it or its trainings; once more."""
    reference = study_reference(trial.lab, STUDIES[trial.rng.choice(sorted(STUDIES))])
    trial.note(reference.study.name)
    furnish(trial.lab, trial.folder)
    counted = _operations_of_study(trial, reference)
    action = trial.rng.choice((KILL_BEFORE, KILL_AFTER, TORN, FAIL_ONCE, FAIL_ON))
    error = trial.rng.choice(sorted(FAILING)) if action in (FAIL_ONCE, FAIL_ON) else 0
    with preload(trial) as shim:
        blow = _choose(trial, counted, FAILING.get(error, KINDS), action, 1, error)
        shim.arm(blow)
        trial.killed = not error
        done = trial.run(reference.study.args, reference.seconds, shim.environment)
        shim.disarm()
        trial.note(f"happened {shim.fired} times")
    if done.code not in (reference.code, -signal.SIGKILL):
        done.refusal()
    trial.wait_for_workers()
    end_study(trial, reference)
    return EQUAL


def _operations_of_study(trial: Trial, reference: StudyReference) -> dict[int, dict[str, int]]:
    def count() -> dict[int, dict[str, int]]:
        folder = trial.lab.new_folder(f"counted-{reference.study.name}")
        furnish(trial.lab, folder)
        return counted_operations(
            trial.lab, folder, reference.study.args, allowed=(reference.code,)
        )

    return trial.lab.once(f"operations {reference.study.name}", count)
