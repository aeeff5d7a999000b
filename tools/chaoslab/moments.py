"""Random moments of a command that runs."""

from __future__ import annotations

import contextlib
import os
import time

from chaoslab.lab import Reference, deadline
from chaoslab.processes import Running
from chaoslab.studies import OUT, StudyReference
from chaoslab.trial import Trial


def of_training(trial: Trial, training: Running, reference: Reference, out: str = "out") -> bool:
    """Wait for a random moment of a training; False where it has ended before."""
    wait = trial.rng.random()
    if trial.rng.random() < 0.25:  # at the very beginning, or wherever it is by then
        time.sleep(wait * reference.seconds)
        return training.alive
    name = trial.rng.choice(("iterations.csv", "snapshots.jsonl", "measurements.jsonl"))
    share = trial.rng.random() / 2
    path = trial.folder / out / name
    size = file_size(path) + share * file_size(reference.run / name)
    training.wait_until(lambda: file_size(path) >= size, deadline(reference.seconds))
    time.sleep(wait * 0.03)
    trial.note(f"{name} has {file_size(path)} bytes")
    return training.alive


def of_study(trial: Trial, running: Running, reference: StudyReference) -> bool:
    """Wait for a random moment of a study; False where it has ended before."""
    count = len(_trainings(trial)) + trial.rng.randint(0, max(1, reference.study.trainings // 2))
    running.wait_until(lambda: len(_trainings(trial)) >= count, deadline(reference.seconds))
    wait = trial.rng.random() * 2 * reference.seconds / reference.study.trainings
    running.wait_until(lambda: False, wait)
    trial.note(f"{len(_trainings(trial))} trainings begun")
    return running.alive


def file_size(path: os.PathLike[str]) -> int:
    """A file's size in bytes, 0 where there is none."""
    with contextlib.suppress(OSError):
        return os.stat(path).st_size
    return 0


def _trainings(trial: Trial) -> list[os.PathLike[str]]:
    return list((trial.folder / OUT).rglob("run.json"))
