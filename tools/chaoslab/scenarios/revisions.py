"""LR databases of every older revision: brought up to the present one, whatever happens meanwhile."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

from sqlalchemy import text

from chaoslab.damage import files as damage
from chaoslab.lab import command
from chaoslab.processes import Running
from chaoslab.registry import scenario
from chaoslab.trial import Trial
from chaoslab.verdicts import EQUAL, Wrong
from tests.database.test_migrations import DATA, REVISIONS, RUN, TEST, to_revision

SECONDS = 5.0
MIGRATING = threading.Lock()  # Alembic's context is one for all threads


@scenario("old-database", weight=1.5)
def old_database(trial: Trial) -> str:
    """Open a database of an older revision by several commands at once, or killed ones: all comes up."""
    revision = trial.rng.choice(REVISIONS)
    trial.note(f"revision {revision}")
    file = trial.folder / "lr.sqlite"
    make(file, revision, trial.rng)
    damage.copy(file, trial.folder / "untouched.sqlite")
    for _ in range(trial.rng.randint(1, 3)):
        if trial.rng.random() < 0.5:
            killed(trial)
        else:
            at_once(trial)
    if exported(trial, "lr.sqlite") != exported(trial, "untouched.sqlite"):
        raise Wrong(
            f"a database of revision {revision} holds something else after it was disturbed"
        )
    return EQUAL


def make(path: Path, revision: str, rng: random.Random) -> None:
    """A database of a revision with the tests' runs of that time and some more."""
    with MIGRATING:
        engine = to_revision(f"sqlite:///{path}", revision)
    newest = max(known for known in DATA if known <= revision)
    with engine.begin() as connection:
        for statement in DATA[newest].split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement.replace("%", "%%"))
        for number in range(2000, 2000 + rng.randint(0, 300)):
            tests = sorted(rng.sample(range(1, 21), rng.randint(1, 5)))
            top1 = [rng.randrange(0, 1000) / 10 for _ in tests]
            run = {
                "id": number,
                "uid": f"run{number}",
                "source": "measured",
                "origin": f"/runs/{number}",
            }
            status = rng.choice(("finished", "finished", "failed", "diverged", "stopped"))
            row = {**run, "seed": rng.randrange(5), "status": status, "top1": max(top1)}
            connection.execute(text(RUN), row)
            for iteration, value in zip(tests, top1):
                test = {"id": number, "iteration": iteration, "top1": value, "loss": rng.random()}
                connection.execute(text(TEST), test)
    engine.dispose()


def killed(trial: Trial) -> None:
    running = opening(trial)
    time.sleep(trial.rng.random() * 3)
    running.send(signal.SIGKILL)
    trial.killed = True
    running.wait(60)


def at_once(trial: Trial) -> None:
    commands = [opening(trial) for _ in range(trial.rng.randint(2, 4))]
    for running in commands:
        running.wait(120).success()


def opening(trial: Trial) -> Running:
    return trial.start(command("db", trial.rng.choice(("info", "tasks", "runs"))))


def exported(trial: Trial, name: str) -> list[dict[str, Any]]:
    """What a database exports, in an order of our own."""
    out = f"{name}.jsonl"
    trial.run(command("db", "--db", f"sqlite:///{name}", "export", out), SECONDS).success()
    lines = (trial.folder / out).read_text(encoding="utf-8").splitlines()
    return sorted(map(json.loads, lines), key=lambda row: json.dumps(row, sort_keys=True))
