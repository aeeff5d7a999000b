"""A Dask cluster that loses its workers."""

from __future__ import annotations

import importlib.util
import json
import signal
import sys
import time

from chaoslab import results
from chaoslab.dispatcher import FLAGS, POLICY
from chaoslab.lab import ROOT, Lab, Reference, command, database_of, deadline
from chaoslab.moments import file_size
from chaoslab.processes import Done, Running
from chaoslab.registry import scenario
from chaoslab.setups import SETUPS
from chaoslab.trial import Trial
from chaoslab.verdicts import EQUAL, Hang, Skip, Wrong

SEEDS = (1, 2, 3)
WORKERS = 2
PATH = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tools'}"}


@scenario("dask")
def dask(trial: Trial) -> str:
    """Kill the workers of a Dask cluster, up to four times: all trainings end, or fail with that reason."""
    if importlib.util.find_spec("distributed") is None:
        raise Skip("distributed is not installed")
    references = [_reference(trial.lab, seed) for seed in SEEDS]
    trial.lab.furnish(trial.folder, SETUPS["plain"])
    cluster = _Cluster(trial)
    seconds = sum(reference.seconds for reference in references)
    dispatcher = cluster.dispatch()
    for _ in range(trial.rng.randint(1, 4)):
        _wait(trial, dispatcher, references)
        cluster.kill_worker()
    for done in (dispatcher.wait(deadline(seconds)), cluster.dispatch().wait(deadline(seconds))):
        lost = _lost(done)
        trial.note(f"lost: {lost}")
    if lost:
        raise Wrong(f"lost with all workers alive: {lost}")
    words = []
    for reference in references:
        run = trial.folder / "runs" / reference.run.name
        words += results.differences(reference.run, run)
        (wanted,) = results.stored(reference.database).values()
        if wanted not in results.stored(trial.database).values():
            words.append(f"database: {run.name} is not there as it was measured")
    count = len(results.stored(trial.database))
    if count != len(SEEDS):
        words.append(f"database: {count} runs instead of {len(SEEDS)}")
    if words:
        raise Wrong(results.first(words))
    return EQUAL


class _Cluster:
    """A scheduler and workers, each a process of the trial."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._file = trial.place / "scheduler.json"
        self._start("scheduler", "--port", "0", "--dashboard-address", ":0", "--host", "127.0.0.1")
        end = time.monotonic() + deadline(5)
        while not self._file.exists():
            if time.monotonic() > end:
                raise Hang("the Dask scheduler does not start")
            time.sleep(0.05)
        self._workers = [self._worker() for _ in range(WORKERS)]

    def dispatch(self) -> Running:
        address = json.loads(self._file.read_text(encoding="utf-8"))["address"]
        seeds = [str(seed) for seed in SEEDS]
        return self._trial.start(
            (sys.executable, "-m", "chaoslab.dispatcher", address, *seeds), PATH
        )

    def kill_worker(self) -> None:
        """Kill one, and let another one take its place."""
        place = self._trial.rng.randrange(WORKERS)
        self._workers[place].send(signal.SIGKILL)
        self._trial.killed = True
        self._trial.note(f"killed worker {place}")
        self._workers[place] = self._worker()

    def _worker(self) -> Running:
        place = str(self._trial.place)
        return self._start(
            "worker", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", place
        )

    def _start(self, what: str, *options: str) -> Running:
        args = (
            sys.executable,
            "-m",
            f"distributed.cli.dask_{what}",
            "--scheduler-file",
            str(self._file),
        )
        return self._trial.start((*args, *options), PATH, others=True)


def _reference(lab: Lab, seed: int) -> Reference:
    """The untouched training of a seed."""

    def make() -> Reference:
        folder = lab.new_folder(f"untouched-dask-{seed}")
        lab.furnish(folder, SETUPS["plain"])
        args = command(
            "train", "solver.prototxt", "--seed", str(seed), "--out", f"runs/{seed}", "--lr", POLICY
        )
        done = lab.untouched(folder, (*args, *FLAGS))
        return Reference(
            SETUPS["plain"], folder, folder / "runs" / str(seed), database_of(folder), done.seconds
        )

    return lab.once(f"dask {seed}", make)


def _wait(trial: Trial, dispatcher: Running, references: list[Reference]) -> None:
    """Wait until the trainings have got a little further."""
    names = [f"runs/{reference.run.name}/iterations.csv" for reference in references]
    whole = sum(file_size(reference.folder / name) for reference, name in zip(references, names))

    def written() -> int:
        return sum(file_size(trial.folder / name) for name in names)

    goal = written() + trial.rng.random() * whole / 3
    dispatcher.wait_until(
        lambda: written() >= goal, deadline(sum(one.seconds for one in references))
    )


def _lost(done: Done) -> list[str]:
    """The reasons of the trainings that were lost. What else does not finish is wrong."""
    done.success()
    rows = [json.loads(line) for line in done.out.splitlines() if line.startswith("{")]
    lost = [row for row in rows if row["status"] != "finished"]
    for row in lost:
        if row["status"] != "failed" or "lost" not in row["reason"]:
            raise Wrong(f"the training with seed {row['seed']} is {row['status']}: {row['reason']}")
    if len(rows) != len(SEEDS):
        raise Wrong(f"{len(rows)} results instead of {len(SEEDS)}")
    return [row["reason"] for row in lost]
