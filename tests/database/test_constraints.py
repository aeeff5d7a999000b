"""The database itself refuses what cannot be, whoever writes: raw SQL, past all of our Python."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import IntegrityError

from lrbench_caffe.database import Database, schema
from lrbench_caffe.database.ranges import RANGES
from lrbench_caffe.database.urls import resolve_url
from tests.database.conftest import KINDS, new_databases
from tests.database.records import run


@pytest.fixture(scope="module", params=KINDS)
def engine(request, tmp_path_factory, templates):
    """Of a database with one run, which all tests leave as it is."""
    with new_databases(request, tmp_path_factory.mktemp("database"), templates) as make:
        url = make(request.param)
        with Database.open(url) as database:
            database.put(run("a"))
        engine = create_engine(resolve_url(url))
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", lambda c, _: c.execute("PRAGMA foreign_keys = ON"))
        yield engine
        engine.dispose()


@pytest.fixture
def connection(engine):
    """One whose changes are not kept."""
    with engine.connect() as opened:
        yield opened


def refuses(connection, statement: str) -> None:
    with pytest.raises(IntegrityError):
        connection.execute(text(statement))
    connection.rollback()


A = "(SELECT id FROM run WHERE uid = 'a')"


@pytest.mark.parametrize(
    "change",
    [
        "run SET status = 'ended'",
        "run SET source = 'guessed'",
        "run SET uid = ''",
        "run SET max_iter = 0",
        "run SET epoch = 1e-310",
        "run SET started = 1e12",
        "run SET repeats = 1000001",
        "network SET depth = 1000001",
        "measurement SET ld = 1e200",
        "run SET test_interval = -1",
        "run SET epoch = 0",
        "run SET repeats = 0",
        "run SET top1_sd = -1",
        "run SET best_top1 = 101",
        "run SET origin = NULL",
        "run SET start_kind = 'magic'",
        "run SET start_kind = NULL",
        "run SET start_key = NULL",
        "run SET start_filled = -1",
        "run SET start_iteration = 3000000000",
        "summary SET start_kind = 'magic'",
        "summary SET start_layers = -1",
        "summary SET test_loss = 1e200",
        "run SET policy_id = 999999",
        "run SET task_id = 999999",
        "task SET dataset_id = 999999",
        "measurement SET iteration = -1",
        "measurement SET net = -1",
        "measurement SET top1 = 100.5",
        "measurement SET top5 = -1",
        "measurement SET ac = 1.5",
        "measurement SET cd = -1",
        "measurement SET cdac = -1",
        "measurement SET samples = -1",
        "measurement SET silent_classes = -1",
        "measurement SET lr = NULL",
        "measurement SET run_id = 999999",
        "dataset SET channels = 0",
        "dataset SET height = -1",
        "dataset SET width = 0",
        "dataset SET classes = 0",
        "dataset SET train_samples = -1",
        "dataset SET test_samples = -1",
        "network SET parameters = -1",
        "network SET depth = -1",
        "task_type SET classes = 0",
        "policy SET num_params = -1",
        "solver SET batch = 0",
        "solver SET iter_size = 0",
        "summary SET runs = -1",
        "summary SET failed = -1",
        "summary SET top1 = 101",
        "summary SET source = 'guessed'",
        "summary SET function = 'COS' WHERE function = 'SIN2'",
    ],
)
def test_values_that_cannot_be(connection, change):
    refuses(connection, f"UPDATE {change}")


@pytest.mark.parametrize(
    "table", ["framework", "task_type", "dataset", "network", "task", "policy", "solver"]
)
def test_a_part_is_there_once(connection, table):
    """Its key is a digest that takes NULL for a value like any other."""
    columns = [c.name for c in schema.metadata.tables[table].columns if c.name != "id"]
    names = ", ".join(f'"{name}"' for name in columns)
    refuses(connection, f"INSERT INTO {table} ({names}) SELECT {names} FROM {table}")


@pytest.mark.parametrize("table", ["run", "measurement", "summary"])
def test_a_run_a_measurement_and_a_summary_are_there_once(connection, table):
    columns = [c.name for c in schema.metadata.tables[table].columns if c.name != "id"]
    names = ", ".join(columns)
    refuses(connection, f"INSERT INTO {table} ({names}) SELECT {names} FROM {table}")


def test_a_part_that_is_used_cannot_go(connection):
    for table in ("task", "policy", "solver", "framework", "dataset", "network", "task_type"):
        refuses(connection, f"DELETE FROM {table}")


def test_the_measurements_of_a_run_go_with_it(connection):
    connection.execute(text("DELETE FROM run WHERE uid = 'a'"))
    found = connection.execute(
        text("SELECT count(*) FROM measurement WHERE top1 = 95 AND lr = 0.01")
    )
    assert found.scalar() == 0


def test_what_is_checked_before_is_what_the_database_checks():
    """Every range in ranges.py has its constraint."""
    for name in RANGES:
        table, _, column = name.partition(".")
        if table == "start":  # it is columns of the run
            table, column = "run", f"start_{column}"
        if table == "contribution":
            table = "batch"
        whole = schema.metadata.tables[table]
        constraints = [*whole.constraints, *(c for column in whole.c for c in column.constraints)]
        texts = [str(getattr(c, "sqltext", "")) for c in constraints]
        assert any(t.startswith(f"{column} BETWEEN ") for t in texts), name
