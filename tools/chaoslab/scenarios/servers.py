"""A PostgreSQL server that is frozen, killed, restarted or drops its connections under several writers."""

from __future__ import annotations

import signal
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from chaoslab import results
from chaoslab.lab import ROOT, command, deadline
from chaoslab.processes import Running, send
from chaoslab.registry import scenario
from chaoslab.trial import Trial
from chaoslab.verdicts import EQUAL, Skip, Wrong
from lrbench_caffe.database import Database
from tests.database.server import NoServer, Server

WRITERS, TESTS = 3, 150
SECONDS = 10.0  # for which the writers are busy when nothing disturbs them
SYNC_SECONDS = 5.0


@scenario("postgresql", weight=2)
def postgresql(trial: Trial) -> str:
    """Freeze, kill or restart a PostgreSQL server under writers: what was confirmed is there, once."""
    try:
        server = Server()
    except NoServer as error:
        raise Skip(str(error)) from None
    try:
        return _writers(trial, server)
    finally:
        server.remove()


def _writers(trial: Trial, server: Server) -> str:
    reference = trial.furnish(trial.choose_setup("plain", "plateau", "own"))
    url = server.url(server.create())
    Database.open(url).close()  # the paper's results take their time
    more = {"LRBENCH_DB": url, "PYTHONPATH": f"{ROOT}:{ROOT / 'tools'}"}
    uids = [uuid.UUID(int=trial.rng.getrandbits(128)).hex for _ in range(WRITERS)]
    writer = (sys.executable, "-m", "chaoslab.writer", str(reference.run))
    writers = {uid: trial.start((*writer, uid, str(TESTS)), more) for uid in uids}
    training = trial.start(trial.train_command(reference.setup), more)
    for _ in range(trial.rng.randint(1, 3)):
        _wait(trial, list(writers.values()))
        fault = trial.rng.choice(sorted(FAULTS))
        trial.note(f"server: {fault}")
        FAULTS[fault](trial, server)
    for running in writers.values():
        running.wait(deadline(SECONDS)).success()
    training.wait(deadline(reference.seconds)).success()
    trial.run(command("db", "sync", "out"), SYNC_SECONDS, more).success()
    _check(url, {uid: _confirmed(running) for uid, running in writers.items()})
    words = results.differences(reference.run, trial.folder / "out")
    wanted, found = results.stored(reference.database), results.stored(url)
    (key,) = wanted
    if wanted[key] not in found.values():
        words.append("database: the tests of the training are others, or not all there")
    if len(found) != WRITERS + 1:
        words.append(f"database: {len(found)} runs instead of {WRITERS + 1}")
    if words:
        raise Wrong(results.first(words))
    return EQUAL


def _wait(trial: Trial, writers: list[Running]) -> None:
    """Wait until a writer has got a little further."""
    writer = trial.rng.choice(writers)
    goal = len(_confirmed(writer)) + trial.rng.randint(0, TESTS // 3)
    writer.wait_until(lambda: len(_confirmed(writer)) >= goal, deadline(SECONDS))


def _confirmed(writer: Running) -> list[int]:
    """The tests of which a writer knows that they are stored."""
    return [int(line) for line in writer.out.splitlines(keepends=True) if line.strip().isdigit()]


def _check(url: str, confirmed: dict[str, list[int]]) -> None:
    with Database.open(url) as database:
        for uid, iterations in confirmed.items():
            stored = [test.iteration for test in database.get(uid).measurements]
            if sorted(stored) != sorted(iterations):
                lost = sorted(set(iterations) - set(stored))
                raise Wrong(
                    f"of {len(iterations)} confirmed tests {len(stored)} are stored; lost: {lost[:5]}"
                )


# -- what happens to the server --------------------------------------------------------------------


def _freeze(trial: Trial, server: Server) -> None:
    stopped = [server.pid, *_children(server.pid)]
    for pid in stopped:
        send(pid, signal.SIGSTOP)
    try:
        time.sleep(1 + 5 * trial.rng.random())
    finally:
        for pid in stopped:
            send(pid, signal.SIGCONT)


def _kill(trial: Trial, server: Server) -> None:
    """The whole server; its processes notice, and the next one recovers."""
    children = _children(server.pid)
    for pid in (server.pid, *children):
        send(pid, signal.SIGKILL)
    server.stop(signal.SIGKILL)
    time.sleep(2 * trial.rng.random())
    server.start()


def _kill_backend(trial: Trial, server: Server) -> None:
    """One of its processes: it ends all the others, and recovers."""
    send(trial.rng.choice(_children(server.pid)), signal.SIGKILL)


def _restart(trial: Trial, server: Server) -> None:
    server.stop(trial.rng.choice((signal.SIGINT, signal.SIGQUIT)))
    time.sleep(3 * trial.rng.random())
    server.start()


def _drop_connections(trial: Trial, server: Server) -> None:
    for _ in range(trial.rng.randint(1, 5)):
        server.drop_connections()
        time.sleep(trial.rng.random() / 2)


FAULTS: dict[str, Callable[[Trial, Server], None]] = {
    "frozen": _freeze,
    "killed": _kill,
    "a process killed": _kill_backend,
    "restarted": _restart,
    "connections dropped": _drop_connections,
}


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for task in tasks for word in task.read_text().split()]
