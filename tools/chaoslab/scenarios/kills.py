"""Processes of a training that are killed."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from chaoslab.lab import Reference, deadline
from chaoslab.processes import Running, marked, send
from chaoslab.registry import scenario
from chaoslab.trial import WORKER, Trial, processes
from chaoslab.verdicts import EQUAL


@scenario("kill-random", weight=4)
def kill_random(trial: Trial) -> str:
    """Kill the worker, the command or both of a training with SIGKILL, up to three times; then --resume."""
    reference = trial.furnish(trial.choose_setup())
    for _ in range(trial.rng.randint(1, 3)):
        training = trial.start(trial.train_command(reference.setup))
        if not _reach_a_moment(trial, training, reference):
            break
        victim = trial.rng.choice(("worker", "command", "both"))
        iterations = _size(trial, "out/iterations.csv")
        _kill(trial, training, victim)
        trial.note(f"killed {victim} at {iterations} bytes of iterations.csv")
        done = training.wait(deadline(reference.seconds))
        if victim == "worker" and done.code:
            done.refusal()
        trial.wait_for_workers()
    trial.finish(reference)
    trial.check_equal(reference)
    return EQUAL


def _reach_a_moment(trial: Trial, training: Running, reference: Reference) -> bool:
    """Wait for a random moment; False where the training has ended before."""
    wait = trial.rng.random()
    if trial.rng.random() < 0.25:  # at the very beginning, or wherever it is by then
        time.sleep(wait * reference.seconds)
        return training.alive
    name = trial.rng.choice(("out/iterations.csv", "out/snapshots.jsonl", "out/measurements.jsonl"))
    whole = (reference.run / name.removeprefix("out/")).stat().st_size
    size = _size(trial, name) + trial.rng.random() * whole / 2
    training.wait_until(lambda: _size(trial, name) >= size, deadline(reference.seconds))
    time.sleep(wait * 0.03)
    return training.alive


def _size(trial: Trial, name: str) -> int:
    with contextlib.suppress(OSError):
        return os.stat(trial.folder / name).st_size
    return 0


def _kill(trial: Trial, training: Running, victim: str) -> None:
    if victim == "worker":
        for pid in processes(trial, WORKER):
            send(pid, signal.SIGKILL)
    elif victim == "command":
        training.send(signal.SIGKILL)
    else:
        for pid in marked(trial.mark):
            send(pid, signal.SIGKILL)
