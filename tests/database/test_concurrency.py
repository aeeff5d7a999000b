"""Many processes write at once, one is killed, the server restarts: nothing is lost, nothing is doubled.

Each writer notes in a file of its own what it was told is stored. What is noted must be in the
database.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import statistics
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lrbench_caffe.database import Database, schema
from lrbench_caffe.metrics import best
from tests.database import records
from tests.database.records import at, run
from tests.database.server import Server

POLICIES = [
    "FIX(k0=0.1)",
    "FIX(k0=0.2)",
    "SIN2(k0=0.01, k1=0.06, l=2000)",
    "TRI(k0=0.01, k1=0.06, l=2000)",
]
TESTS = 6  # of each run, on two test nets


def top1(writer: int, number: int, iteration: int, net: int) -> float:
    """A value that tells where it comes from."""
    return (37 * writer + 11 * number + 3 * iteration / 100 + net) % 100


def write(url: str, writer: int, runs: int, notes: Path, start) -> None:
    """What a writer process does: runs that share task and policies with those of the others."""
    with (notes / f"{writer}.jsonl").open("w") as file:

        def note(**what) -> None:
            file.write(json.dumps(what) + "\n")
            file.flush()

        start.wait(600)
        try:
            with Database.open(url, patience=600) as database:
                for number in range(runs):
                    uid = f"w{writer}-{number}"
                    policy = records.policy(POLICIES[(writer + number) % len(POLICIES)])
                    seed = 10 + 1000 * writer + number  # each run is a training of its own
                    database.begin_run(run(uid, policy=policy, seed=seed, measurements=[]))
                    note(run=uid)
                    for iteration in range(100, 100 * TESTS + 1, 100):
                        rows = [
                            at(iteration, top1(writer, number, iteration, net), net=net)
                            for net in (0, 1)
                        ]
                        database.add_measurements(uid, rows)
                        note(stored=uid, iteration=iteration)
                    database.end_run(uid, "finished", None, 2000.0)
                    note(ended=uid)
                    database.put(run("shared"))  # what all of them bring in
        except BaseException as error:
            note(error=repr(error))
            raise
        note(done=True)


def notes_of(folder: Path) -> list[dict]:
    lines = [line for path in folder.glob("*.jsonl") for line in path.read_text().split("\n")[:-1]]
    return [json.loads(line) for line in lines]


def stored_by(folder: Path) -> int:
    """How many test passes the writers have noted as stored."""
    return sum("stored" in note for note in notes_of(folder))


def check(url: str, folder: Path, writers: int, runs: int, killed: int) -> None:
    notes = notes_of(folder)
    assert [note["error"] for note in notes if "error" in note] == []
    assert sum("done" in note for note in notes) == writers - 1
    with Database.open(url) as database:
        stored = {r.uid: r for r in database.runs(source="measured", measurements=True)}
        lost = [
            note
            for note in notes
            if "stored" in note
            and [
                m.top1
                for m in stored[note["stored"]].measurements
                if m.iteration == note["iteration"]
            ]
            != [
                top1(*map(int, note["stored"][1:].split("-")), note["iteration"], net)
                for net in (0, 1)
            ]
        ]
        assert lost == []
        assert {n["run"] for n in notes if "run" in n} <= stored.keys()
        assert all(stored[n["ended"]].status == "finished" for n in notes if "ended" in n)
        # None twice: every run of a writer that was not killed has exactly what it stored.
        expected = Counter(
            {f"w{w}-{n}": 2 * TESTS for w in range(writers) for n in range(runs) if w != killed}
        )
        expected["shared"] = 3
        found = Counter(
            {u: len(r.measurements) for u, r in stored.items() if not u.startswith(f"w{killed}-")}
        )
        assert found == expected
        assert database.counts()["measurement"] == sum(
            len(r.measurements) for r in database.runs(measurements=True)
        )
        check_summaries(database, list(stored.values()))


def check_summaries(database: Database, runs: list) -> None:
    """They are what the runs make them, however they came in."""
    task = next(t for t in database.tasks() if t.dataset == records.DATASET)
    found = {(s.policy.text, s.max_iter): s for s in database.summaries(task.id)}
    groups: dict = {}
    for record in runs:
        if record.status == "finished":
            top = best([m for m in record.measurements if m.net == 0])
            groups.setdefault((record.policy.text, record.max_iter), []).append(top)
    assert found.keys() == groups.keys()
    for key, tops in groups.items():
        assert found[key].runs == len(tops)
        assert math.isclose(found[key].top1.mean, statistics.fmean(m.top1 for m in tops))
        assert math.isclose(found[key].iterations.mean, statistics.fmean(m.iteration for m in tops))


@pytest.mark.parametrize(
    ("on_postgresql", "on_sqlite", "runs"),
    [
        pytest.param(8, 4, 5, id="few"),
        pytest.param(32, 8, 20, id="many", marks=pytest.mark.ci),
    ],
)
@pytest.mark.timeout(2400)  # 40 processes, beside whatever else the machine does
def test_many_writers_one_killed_and_a_restart(
    new_url, server, tmp_path, on_postgresql, on_sqlite, runs
):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lrbench_caffe.database.store", "tests.database.records"])
    start = context.Barrier(on_postgresql + on_sqlite)
    own = Server()
    try:
        groups = []
        for name, url, writers in (
            (
                "postgresql",
                own.url(own.create()),
                on_postgresql,
            ),  # not opened before: all open it at once
            ("sqlite", new_url("sqlite", empty=True), on_sqlite),
        ):
            folder = tmp_path / name
            folder.mkdir()
            processes = [
                context.Process(target=write, args=(url, number, runs, folder, start))
                for number in range(writers)
            ]
            for process in processes:
                process.start()
            groups.append((url, folder, writers, processes))
        waiting = list(groups)
        deadline = time.monotonic() + 900
        while waiting:
            assert time.monotonic() < deadline, "the writers do not get on"
            for group in list(waiting):
                if stored_by(group[1]) >= group[2] * TESTS:
                    os.kill(group[3][0].pid, signal.SIGKILL)
                    waiting.remove(group)
            time.sleep(0.01)
        for how in (signal.SIGINT, signal.SIGQUIT):
            own.restart(how)
            time.sleep(0.5)
        for _, _, _, processes in groups:
            for process in processes:
                process.join(900)
            assert [p.exitcode for p in processes] == [-signal.SIGKILL] + [0] * (len(processes) - 1)
        for url, folder, writers, _ in groups:
            check(url, folder, writers, runs, killed=0)
    finally:
        own.remove()


def test_threads_that_make_databases_at_once(tmp_path):
    """Alembic is not made for it: one thread saw the migration of another, or none."""
    barrier = threading.Barrier(4)

    def make(number: int) -> str:
        barrier.wait(30)
        with Database.open(str(tmp_path / f"{number}.sqlite")) as made:
            return made.revision()

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(make, range(4))) == {schema.REVISION}
