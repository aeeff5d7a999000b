"""Processes that are killed: of a training, and of the commands that train many times."""

from __future__ import annotations

import signal

from chaoslab import moments
from chaoslab.lab import deadline
from chaoslab.processes import Done, Running, marked, send
from chaoslab.registry import scenario
from chaoslab.studies import (
    STUDIES,
    StudyReference,
    check_branches,
    check_equal,
    check_not_trained_twice,
    furnish,
    progress_of,
    study_reference,
)
from chaoslab.trial import CHILD, WORKER, Trial, processes
from chaoslab.verdicts import EQUAL, Wrong
from lrbench_caffe.terminal.cli import INTERRUPTED


@scenario("kill-random", weight=4)
def kill_random(trial: Trial) -> str:
    """Kill the worker, the command or both of a training with SIGKILL, up to three times; then --resume."""
    reference = trial.furnish(trial.choose_setup())
    for _ in range(trial.rng.randint(1, 3)):
        training = trial.start(trial.train_command(reference.setup))
        if not moments.of_training(trial, training, reference):
            break
        victim = trial.rng.choice(("worker", "command", "all"))
        kill(trial, training, victim)
        done = training.wait(deadline(reference.seconds))
        if victim == "worker" and done.code:
            done.refusal()
        trial.wait_for_workers()
    trial.finish(reference)
    trial.check_equal(reference)
    return EQUAL


@scenario("stop-random", weight=2)
def stop_random(trial: Trial) -> str:
    """Stop a training with SIGINT, SIGTERM or SIGHUP, up to three times; then --resume."""
    reference = trial.furnish(trial.choose_setup())
    effect = ("--sighup_effect", trial.rng.choice(("stop", "snapshot")))
    for _ in range(trial.rng.randint(1, 3)):
        training = trial.start((*trial.train_command(reference.setup), *effect))
        for _ in range(trial.rng.randint(1, 2)):  # people are impatient
            if moments.of_training(trial, training, reference):
                number = trial.rng.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
                if number == signal.SIGINT and not training.out:
                    continue  # what Python says of it while it starts is not ours
                trial.note(f"sent {number.name}")
                training.send(number)
        done = training.wait(deadline(reference.seconds))
        trial.note(done.summary)
        _check_stopped(done)
    trial.finish(reference)
    trial.check_equal(reference)
    return EQUAL


def _check_stopped(done: Done) -> None:
    """Check that a training stopped with exit code 0, or before it began, with a line or by the signal."""
    interrupted = done.code == INTERRUPTED and done.error_lines == ["interrupted"]
    early = done.code in (-signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP)
    if not (done.succeeded or interrupted or early):
        done.success()


@scenario("kill-study", weight=1.5)
def kill_study(trial: Trial) -> str:
    """Kill a tune, range or reproduce and trainings of it, once or twice; then the same command."""
    reference = study_reference(trial.lab, STUDIES[trial.rng.choice(sorted(STUDIES))])
    trial.note(reference.study.name)
    furnish(trial.lab, trial.folder)
    for _ in range(trial.rng.randint(1, 2)):
        running = trial.start(reference.study.args)
        # The command itself last: it ends this round.
        victims = [trial.rng.choice(("worker", "training")) for _ in range(trial.rng.randint(0, 2))]
        for victim in [*victims, trial.rng.choice(("command", "all"))]:
            if moments.of_study(trial, running, reference):
                kill(trial, running, victim)
        running.wait(deadline(reference.seconds))
        trial.wait_for_workers()
    end_study(trial, reference)
    return EQUAL


@scenario("kill-tune", weight=0.5)
def kill_tune(trial: Trial) -> str:
    """Kill all of a tune, driver and workers, at a random moment; then it ends, and trains nothing twice."""
    name = trial.rng.choice(("tune-plain", "tune-branching"))
    reference = study_reference(trial.lab, STUDIES[name])
    trial.note(name)
    check_branches(reference, name == "tune-branching")
    furnish(trial.lab, trial.folder)
    running = trial.start(reference.study.args)
    running.wait_until(lambda: False, trial.rng.random() * reference.seconds)
    kill(trial, running, "all")
    running.wait(deadline(reference.seconds))
    trial.wait_for_workers()
    killed = progress_of(trial)
    lost = sum(run.iterations - run.kept for run in killed.values())
    trial.note(f"{len(killed)} trainings were begun; {lost} iterations are lost")
    end_study(trial, reference)
    check_not_trained_twice(trial, killed)
    return EQUAL


@scenario("kill-trainings-of-study", weight=1.5)
def kill_trainings_of_study(trial: Trial) -> str:
    """Kill trainings and workers of a tune, range or reproduce, which tries them again and ends as usual."""
    reference = study_reference(trial.lab, STUDIES[trial.rng.choice(sorted(STUDIES))])
    trial.note(reference.study.name)
    furnish(trial.lab, trial.folder)
    running = trial.start(reference.study.args)
    for _ in range(trial.rng.randint(1, 3)):
        if moments.of_study(trial, running, reference):
            kill(trial, running, trial.rng.choice(("worker", "training")))
    done = running.wait(deadline(reference.seconds))
    trial.note(done.summary)
    if done.code != reference.code:
        # What was killed in each of its tries failed for good, and the exit code says so.
        done = trial.run(reference.study.args, reference.seconds)
    if done.code != reference.code:
        raise Wrong(f"{done.summary} instead of exit code {reference.code}")
    check_equal(trial, reference)
    return EQUAL


def end_study(trial: Trial, reference: StudyReference) -> None:
    """Let a study end undisturbed, and check it."""
    done = trial.run(reference.study.args, reference.seconds)
    if done.code != reference.code:
        raise Wrong(f"{done.summary} instead of exit code {reference.code}")
    check_equal(trial, reference)


def kill(trial: Trial, running: Running, victim: str) -> None:
    """End the command, a worker, a training that the command started, or all of them, at once."""
    words = {"worker": WORKER, "training": CHILD}
    trial.killed = trial.killed or victim != "worker"
    if victim == "command":
        running.send(signal.SIGKILL)
    elif victim == "all":
        for pid in marked(trial.mark):
            send(pid, signal.SIGKILL)
    else:
        found = processes(trial, words[victim])
        if found:
            send(trial.rng.choice(found), signal.SIGKILL)
    trial.note(f"killed: {victim}")
