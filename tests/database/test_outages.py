"""What passes is waited for: restarts, lost connections, deadlocks, files in use. What does not is told."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import Connection, make_url

from lrbench_caffe.database import Database, DatabaseError, DatabaseUnavailable, schema
from lrbench_caffe.database.engine import _libpq_options
from lrbench_caffe.database.transactions import Transactions
from lrbench_caffe.database.urls import resolve_url
from tests.database.records import at, run
from tests.database.server import Server

SPAWN = multiprocessing.get_context("spawn")


def while_away(server: Server, work, seconds: float = 1.0):
    """What ``work`` returns that begins with the server stopped; the server comes back after a while."""
    server.stop()
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(work)
        time.sleep(seconds)
        assert not result.done()
        server.start()  # not in the thread: the server ends with the thread that started it
        return result.result(60)


# -- PostgreSQL ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own_server(server):
    """One to stop; the others go on. (``server`` decides whether there can be one at all.)"""
    started = Server()
    yield started
    started.remove()


@pytest.fixture
def postgresql(own_server) -> Database:
    with Database.open(own_server.url(own_server.create()), patience=20) as database:
        database.begin_run(run("a", measurements=[]))
        yield database


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_restart_between_two_writes_is_not_noticed(own_server, postgresql, how):
    own_server.restart(how)
    postgresql.add_measurements("a", [at(100, 90.0)])
    own_server.restart(how)
    assert [m.iteration for m in postgresql.get("a").measurements] == [100]


def test_a_write_waits_for_a_server_that_is_away(own_server, postgresql):
    while_away(own_server, lambda: postgresql.add_measurements("a", [at(100, 90.0)]))
    assert [m.iteration for m in postgresql.get("a").measurements] == [100]


def test_opening_waits_too(own_server):
    url = own_server.url(own_server.create())
    while_away(own_server, lambda: Database.open(url, patience=20)).close()


def test_after_the_patience_it_is_told(own_server):
    with Database.open(own_server.url(own_server.create()), patience=0.5) as database:
        own_server.stop()
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable, match=r"\(tried for 0\.\d s\)"):
            database.put(run("a"))
        assert time.monotonic() - began < 5
        own_server.start()
        assert database.put(run("a")) is True


def test_a_lock_is_waited_for_no_longer_than_the_patience(own_server):
    url = own_server.url(own_server.create())
    with Database.open(url) as holder, Database.open(url, patience=0.5) as database:
        database.put(run("a"))
        with holder._engine.connect() as connection, connection.begin():
            connection.execute(text("LOCK TABLE run IN ACCESS EXCLUSIVE MODE"))
            for work in (
                lambda: database.get("a"),
                lambda: database.end_run("a", "failed", None, 2e3),
            ):
                began = time.monotonic()
                with pytest.raises(DatabaseUnavailable, match=r"timeout .*\(tried for \d\.\d s\)"):
                    work()
                assert time.monotonic() - began < 2
        assert database.get("a") == run("a")


@pytest.mark.parametrize(("patience", "expected"), [(0.3, 1), (2, 2), (60, 5)])
def test_a_connection_is_waited_for_no_longer_than_the_patience(patience, expected):
    options = _libpq_options(make_url("postgresql://h/lr"), patience)
    assert options["connect_timeout"] == expected


def test_a_commit_of_unknown_outcome_is_made_once(postgresql, monkeypatch):
    """The connection breaks after the server has committed and before it could say so."""
    real = Connection._commit_impl
    broken = []

    def commit_and_break(self):
        real(self)
        if not broken:
            broken.append(True)
            pid = self.connection.driver_connection.info.backend_pid
            with postgresql._engine.connect() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
            self.exec_driver_sql("SELECT 1")  # finds the connection gone, as the commit would have

    before = postgresql.counts()
    monkeypatch.setattr(Connection, "_commit_impl", commit_and_break)
    assert postgresql.put(run("b")) is True
    assert broken
    after = postgresql.counts()
    assert after["run"] == before["run"] + 1
    assert after["measurement"] == before["measurement"] + 3
    assert postgresql.get("b") == run("b")


def test_a_deadlock_is_tried_again(postgresql):
    """Two transactions that each want what the other has: the server ends one, nobody notices."""
    postgresql.put_many([run("x"), run("y", seed=2)])
    transactions = Transactions(postgresql._engine, patience=120)
    both_have_one, other_is_done = threading.Barrier(2), threading.Event()
    attempts = []

    def work(first: str, second: str) -> None:
        def in_transaction(connection: Connection) -> None:
            attempts.append(first)
            again = attempts.count(first) > 1
            if again:
                # Else it might have its row again before the other has noticed that it is free: the
                # rows' locks have no queue, and there would be another deadlock.
                assert other_is_done.wait(100)
            table = schema.run
            connection.execute(table.update().where(table.c.uid == first).values(machine=first))
            if not again:
                both_have_one.wait(100)
            connection.execute(table.update().where(table.c.uid == second).values(machine=first))

        transactions.write(in_transaction)
        other_is_done.set()

    with ThreadPoolExecutor(2) as pool:
        for result in [pool.submit(work, *pair) for pair in (("x", "y"), ("y", "x"))]:
            result.result(120)
    *once, twice = attempts
    assert sorted(once) == ["x", "y"]
    assert postgresql.get("x").machine == postgresql.get("y").machine == twice


def test_ending_a_run_does_not_wait_for_the_others_of_its_group(postgresql):
    """Else two that end at once wait for each other, as 32 writers once did for longer than they had."""
    postgresql.put(run("x"))
    postgresql.begin_run(run("y", seed=2))
    with postgresql._engine.connect() as other, other.begin():
        table = schema.run
        other.execute(table.update().where(table.c.uid == "x").values(machine="elsewhere"))
        with ThreadPoolExecutor(1) as pool:
            pool.submit(postgresql.end_run, "y", "finished", None, 5.0).result(10)


def test_what_does_not_pass_is_told_at_once(postgresql):
    began = time.monotonic()
    with pytest.raises(DatabaseError, match="relation .* does not exist") as caught:
        postgresql._transactions.write(lambda c: c.execute(text("SELECT * FROM nowhere")))
    assert not isinstance(caught.value, DatabaseUnavailable)
    assert time.monotonic() - began < 5


def test_runs_that_others_delete_meanwhile_are_written_whole(postgresql):
    """Deleting takes parts away that a writer has just looked up: it makes them again."""
    stop = threading.Event()
    errors = []

    def delete() -> None:
        with Database.open(resolve_url_of(postgresql), patience=20) as other:
            while not stop.is_set():
                other.delete(["gone"])

    def write() -> None:
        try:
            for _ in range(40):
                postgresql.put(run("gone"))
        except Exception as error:
            errors.append(error)
        stop.set()

    threads = [threading.Thread(target=work) for work in (delete, write)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []


def resolve_url_of(database: Database) -> str:
    return database._engine.url.render_as_string(hide_password=False)


# -- SQLite ----------------------------------------------------------------------------------------


def _hold(path: str, seconds: float, holding) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    holding.set()
    time.sleep(seconds)
    connection.execute("COMMIT")


@pytest.fixture
def file(new_url):
    return resolve_url(new_url("sqlite"))


def test_a_file_in_use_is_waited_for(file, monkeypatch):
    monkeypatch.setattr("lrbench_caffe.database.engine.CONNECT_SECONDS", 0.2)
    with Database.open(file, patience=30) as database:
        holding = SPAWN.Event()
        other = SPAWN.Process(target=_hold, args=(database.path, 1.0, holding))
        other.start()
        holding.wait(30)
        assert database.put(run("a")) is True  # longer than SQLite's own patience
        other.join()


def test_after_the_patience_the_file_in_use_is_told(file):
    with Database.open(file, patience=0.1) as database:
        holding = SPAWN.Event()
        other = SPAWN.Process(target=_hold, args=(database.path, 60.0, holding))
        other.start()
        holding.wait(30)
        with pytest.raises(DatabaseUnavailable, match="locked"):
            database.put(run("a"))
        assert list(database.runs(source="measured")) == []  # readers are not kept out
        other.kill()
        other.join()
        assert database.put(run("a")) is True


def test_commits_are_on_the_disk(file):
    with Database.open(file) as database:
        modes = database._transactions.read(
            lambda c: [
                c.exec_driver_sql(f"PRAGMA {n}").scalar()
                for n in ("journal_mode", "synchronous", "foreign_keys")
            ]
        )
    assert modes == ["wal", 2, 1]


def test_a_file_that_is_no_database_is_told(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("these are not the tables you are looking for" * 100)
    with pytest.raises(DatabaseError, match="notes.txt is damaged: file is not a database"):
        Database.open(str(path))


def test_a_folder_that_cannot_be_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DatabaseError, match="cannot make .*file/folder for the database"):
        Database.open(str(tmp_path / "file" / "folder" / "lr.sqlite"))


def test_the_embedded_database_is_in_the_data_directory(tmp_path, monkeypatch):
    monkeypatch.delenv("LRBENCH_DB", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with Database.open() as database:
        assert database.path == str(tmp_path / "data" / "lrbench_caffe" / "lr.sqlite")
        assert os.path.exists(database.path)
    monkeypatch.setenv("LRBENCH_DB", str(tmp_path / "other.sqlite"))
    with Database.open() as database:
        assert database.path == str(tmp_path / "other.sqlite")
    with Database.open(f"sqlite:///{tmp_path}/third.sqlite") as database:
        assert database.path == str(tmp_path / "third.sqlite")


def test_a_connection_that_breaks_in_the_middle_is_made_anew(database):
    """Whatever the database: the driver says that the connection is gone, and the work is done again."""
    failures = []

    def fail_once(connection, cursor, statement, parameters, context, executemany):
        if "INSERT INTO measurement" in statement and not failures:
            failures.append(statement)
            module = connection.dialect.loaded_dbapi
            raise module.OperationalError("database is locked")

    event.listen(database._engine, "before_cursor_execute", fail_once)
    assert database.put(run("a")) is True
    assert len(failures) == 1
    assert database.get("a") == run("a")


def test_all_connections_in_use_is_no_damage(new_url):
    with Database.open(new_url("postgresql"), patience=1) as database:
        engine = database.transactions.engine
        engine.pool._timeout = 0.1
        with contextlib.ExitStack() as stack:
            for _ in range(engine.pool.size() + engine.pool._max_overflow):
                stack.enter_context(engine.connect())
            with pytest.raises(DatabaseUnavailable, match="all connections of this process are in"):
                database.tasks()
        assert database.tasks()
