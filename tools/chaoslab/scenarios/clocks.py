"""Time: a wall clock that jumps, and processes that are suspended."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping

from chaoslab import moments
from chaoslab.lab import deadline
from chaoslab.processes import Running, marked, send
from chaoslab.registry import scenario
from chaoslab.setups import SETUPS
from chaoslab.shim import preload
from chaoslab.studies import STUDIES, check_equal, furnish, study_reference
from chaoslab.trial import CHILD, WORKER, Trial, processes
from chaoslab.verdicts import EQUAL, Wrong
from lrbench_caffe.jobs.child import GRACE

HOUR, DAY = 3600.0, 86400.0
STUDIED = 0.3  # the share of trials with a study instead of a training


@scenario("clock-jump", weight=2)
def clock_jump(trial: Trial) -> str:
    """Set the wall clock of a train, tune, range or reproduce off by an hour or a day, by the shim."""
    with preload(trial) as shim:
        offset = 0.0

        def disturb(running: Running) -> None:
            nonlocal offset
            offset += trial.rng.choice((-DAY, -HOUR, HOUR, DAY))
            shim.shift_clock(offset)
            trial.note(f"the clock is off by {offset:+g} s")

        return _disturbed(trial, disturb, trial.rng.randint(1, 2), more=shim.environment)


@scenario("suspension", weight=2)
def suspension(trial: Trial) -> str:
    """Suspend processes of a train, tune, range or reproduce for longer than --hang-timeout."""
    # Longer than the slow moments of a busy machine, such as Caffe's start.
    limit = round(min(15.0, max(4.0, trial.lab.reference(SETUPS["plain"]).seconds)))

    def disturb(running: Running) -> None:
        whom = trial.rng.choice(("all", "command", "trainings", "workers"))
        stopped = suspend(trial, running, whom)
        seconds = limit + trial.rng.random() * 3
        if trial.rng.random() < 0.1:
            seconds += GRACE  # then the command would have to take its trainings for hung, too
        trial.note(f"suspended for {seconds:.1f} s: {whom}, {len(stopped)} processes")
        try:
            time.sleep(seconds)
        finally:
            for pid in stopped:
                send(pid, signal.SIGCONT)

    return _disturbed(trial, disturb, 1, flags=("--hang-timeout", str(limit)))


def suspend(trial: Trial, running: Running, whom: str) -> list[int]:
    """Stop the processes; returns them."""
    chosen = {
        "all": list(marked(trial.mark)),
        "command": [running.pid],
        "trainings": processes(trial, CHILD) or [running.pid],
        "workers": processes(trial, WORKER),
    }[whom]
    for pid in chosen:
        send(pid, signal.SIGSTOP)
    return chosen


def _disturbed(
    trial: Trial,
    disturb: Callable[[Running], None],
    times: int,
    *,
    flags: tuple[str, ...] = (),
    more: Mapping[str, str] | None = None,
) -> str:
    """Disturb a training or a study, which must end as if nothing had happened."""
    if trial.rng.random() < STUDIED:
        return _disturbed_study(trial, disturb, times, flags, more)
    reference = trial.furnish(trial.choose_setup())
    running = trial.start((*trial.train_command(reference.setup), *flags), more)
    for _ in range(times):
        if moments.of_training(trial, running, reference):
            disturb(running)
    running.wait(deadline(reference.seconds)).success()
    trial.check_equal(reference)
    return EQUAL


def _disturbed_study(
    trial: Trial,
    disturb: Callable[[Running], None],
    times: int,
    flags: tuple[str, ...],
    more: Mapping[str, str] | None,
) -> str:
    reference = study_reference(trial.lab, STUDIES[trial.rng.choice(sorted(STUDIES))])
    trial.note(reference.study.name)
    furnish(trial.lab, trial.folder)
    running = trial.start(
        (*reference.study.args, *(flags if reference.study.takes_limit else ())), more
    )
    for _ in range(times):
        if moments.of_study(trial, running, reference):
            disturb(running)
    done = running.wait(deadline(reference.seconds))
    if done.code != reference.code:
        raise Wrong(f"{done.summary} instead of exit code {reference.code}")
    check_equal(trial, reference)
    return EQUAL
