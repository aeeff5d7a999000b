"""Connections: how each kind of database is opened, and what its errors mean."""

from __future__ import annotations

import math
import os
import re
import shlex
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from lrbench_caffe import installation
from lrbench_caffe.database.errors import DamagedDatabase, DatabaseError
from lrbench_caffe.database.urls import safe_url, scrub, scrub_text
from lrbench_caffe.errors import InputError
from lrbench_caffe.plaintext import shortened

CONNECT_SECONDS = 5
LONGEST_REASON = 300  # characters; some have the whole text that cannot be decoded
READ_ONLY = "lrbench_read_only"  # execution option: a transaction that writes nothing

# A server or network that silently vanished must not delay a training for the two hours that TCP
# would.
_LIBPQ = {
    "application_name": "lrbench_caffe",
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "client_encoding": "utf8",  # a database that is SQL_ASCII would have ours be ASCII
}
_SILENT_SECONDS = 20  # for which data may stay unacknowledged by the network

# SQLSTATEs after which the same transaction may succeed: connection exceptions, rollbacks of
# deadlocks and serialization failures, too many connections, a lock not available, a timeout, a
# server that stops or starts.
_PASSING = re.compile(r"08...|40001|40P01|53300|55P03|57014|57P0[1-3]")
# Values that a column cannot hold, that a constraint forbids, that an index has no room for.
_VALUE = re.compile(r"22...|23...|54000")
# Failures to connect have no SQLSTATE in psycopg2. These do not pass by waiting.
_LASTING = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|does not exist|permission denied"
    r"|Name or service not known|No address associated|invalid (connection option|port|URI|integer|sslmode)"
    r"|does not support SSL|root certificate"
)
# A file that is not one of SQLite's any more, a table or column that is gone, text that is none; of
# PostgreSQL data_corrupted and index_corrupted.
_DAMAGED = re.compile(
    r"malformed|not a database|unsupported file format|disk I/O error|could not decode|no such (table|column)"
    r"|is not a table|unable to (open|use)|file is (encrypted|empty)",
    re.IGNORECASE,
)
_BROKEN_DATA = re.compile(r"XX00[12]")
_BUSY = re.compile(
    r"database (table |schema )?is locked|database is busy|cannot start a transaction"
)

DriverError = (DBAPIError, sqlite3.Error, psycopg2.Error)


def open_engine(url: str, patience: float = CONNECT_SECONDS, query_only: bool = False) -> Engine:
    """An engine for a URL that ``resolve_url`` made. Nothing is connected yet.

    Args:
        patience: seconds for which SQLite itself waits for a file in use, and libpq for a
            connection, if fewer than usual.
        query_only: True where nothing in a SQLite file may change, the kind of its journal
            included.

    Raises:
        InputError: the URL cannot be read.
        DatabaseError: the folder of a SQLite file cannot be made.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed, min(patience, CONNECT_SECONDS), query_only)
    return create_engine(parsed, connect_args=_libpq_options(parsed, patience), pool_use_lifo=True)


def parse_url(url: str) -> URL:
    """The parts of a database URL.

    Raises:
        InputError: it has none; the message hides the password.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    # A raw @, / or : in a password shifts what follows it into the wrong part.
    if parsed is None or any(mark in (parsed.host or "") for mark in "@#"):
        raise InputError(
            f"cannot read the database URL {safe_url(url)}; write special characters in user and "
            "password as %XX (@ is %40, / is %2F, : is %3A)"
        )
    return parsed


def secrets(url: URL) -> list[str | None]:
    """The secrets in a URL and in what libpq adds to it from the environment."""
    hidden = {"password", "sslpassword"}
    options = [
        value for name, value in url.query.items() if name in hidden and isinstance(value, str)
    ]
    return [url.password, *options, os.environ.get("PGPASSWORD")]


def _libpq_options(url: URL, patience: float) -> dict[str, Any]:
    whole = max(1, math.ceil(patience))  # libpq knows no parts of seconds
    options = {
        **_LIBPQ,
        "connect_timeout": min(whole, CONNECT_SECONDS),
        "tcp_user_timeout": 1000 * min(whole, _SILENT_SECONDS),
    }
    return {name: value for name, value in options.items() if name not in url.query}


def limit_waiting(connection: Connection, seconds: float) -> None:
    """Let no statement of this PostgreSQL transaction wait for longer: for a lock, or for its end."""
    limit = max(100, math.ceil(1000 * seconds))  # 0 would be no limit
    connection.exec_driver_sql(
        f"SET LOCAL statement_timeout = {limit}; SET LOCAL lock_timeout = {limit}"
    )


# -- SQLite ----------------------------------------------------------------------------------------


def _sqlite(url: URL, busy_seconds: float, query_only: bool) -> Engine:
    if url.database and url.database != ":memory:" and not url.database.startswith("file:"):
        folder = Path(url.database).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatabaseError(
                f"cannot make {folder} for the database: {error.strerror}"
            ) from None
    engine = create_engine(url, connect_args={"timeout": busy_seconds})
    event.listen(engine, "connect", _read_sqlite if query_only else _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _read_sqlite(connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA query_only = ON")


def _prepare_sqlite(connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None  # transactions are begun by _begin_sqlite, DDL included
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")  # a commit is on the disk, as with PostgreSQL
    deadline = time.monotonic() + CONNECT_SECONDS
    while connection.execute("PRAGMA journal_mode").fetchone()[0] == "delete":
        # SQLite does not wait for other connections when it changes the mode. Without WAL, on a file
        # system that has none, readers and writers wait for each other, and all is well otherwise.
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                return
            time.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and wants to write later fails at once when another has
    # written.
    read_only = connection.get_execution_options().get(READ_ONLY)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


# -- errors ----------------------------------------------------------------------------------------


def _origins(error: BaseException) -> Iterator[BaseException]:
    yield error
    if isinstance(error, DBAPIError) and error.orig is not None:
        yield error.orig


def sqlstate(error: BaseException) -> str | None:
    """PostgreSQL's code for an error, None for other errors and for failures to connect."""
    for origin in _origins(error):
        if isinstance(origin, psycopg2.Error):
            return origin.pgcode
    return None


def passes(error: BaseException) -> bool:
    """True for an error that may be gone when the transaction is tried again."""
    code = sqlstate(error)
    if code is not None:
        return _PASSING.fullmatch(code) is not None
    driver = list(_origins(error))[-1]
    if isinstance(driver, sqlite3.Error):
        return (
            isinstance(driver, sqlite3.OperationalError) and _BUSY.search(str(driver)) is not None
        )
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    connection_failed = isinstance(driver, (psycopg2.OperationalError, psycopg2.InterfaceError))
    return lost or (connection_failed and _LASTING.search(str(driver)) is None)


def refuses_value(error: BaseException) -> bool:
    """Whether the value to be written is wrong, not the database."""
    code = sqlstate(error)
    if code is not None:
        return _VALUE.fullmatch(code) is not None
    return isinstance(list(_origins(error))[-1], (sqlite3.IntegrityError, sqlite3.DataError))


def takes_no_such_number(error: BaseException) -> bool:
    """Whether SQLite cannot take a number of the request, which has more than 64 bits."""
    return isinstance(error, OverflowError) and "SQLite" in str(error)


def shows_damage(error: BaseException) -> bool:
    """Whether the database itself is damaged, not the request."""
    code = sqlstate(error)
    if code is not None:
        return _BROKEN_DATA.fullmatch(code) is not None
    driver = list(_origins(error))[-1]
    # SQLite's errors of a broken file have no class of their own.
    return isinstance(driver, sqlite3.Error) and (
        type(driver) is sqlite3.DatabaseError or _DAMAGED.search(str(driver)) is not None
    )


def refers_to_missing_row(error: BaseException) -> bool:
    """Whether a foreign key refers to a row that another process deleted meanwhile."""
    driver = list(_origins(error))[-1]
    return sqlstate(error) == "23503" or "FOREIGN KEY constraint failed" in str(driver)


def explain(error: BaseException, url: URL) -> str:
    """One line about an error, without statements, values and passwords."""
    return f"database {shown(url)}: {reason(error, url)}"


def reason(error: BaseException, url: URL) -> str:
    """The same without the database's name."""
    lines = str(list(_origins(error))[-1]).strip().splitlines() or ["no reason given"]
    text = shortened(" ".join(line.strip() for line in lines[:2]), LONGEST_REASON)
    return scrub_text(scrub(text, secrets(url)))


def damaged(url: URL, why: str) -> DamagedDatabase:
    """The error for a database that is broken."""
    name = shown(url)
    where = shlex.quote(name)
    check = f"{installation.command('db')} check --db {where} lists the damage"
    return DamagedDatabase(
        f"database {name} is damaged: {why}; {check}; {how_to_restore(url)}", why
    )


def how_to_restore(url: URL) -> str:
    """How to restore a damaged database."""
    if url.get_backend_name() != "sqlite":
        return "to restore it, import an export that 'db backup' wrote into a new database"
    return (
        "to restore it, move it away with its -wal and -shm, and put a copy that 'db backup' wrote in its "
        "place ('db sync' then adds what run directories have)"
    )


def shown(url: URL) -> str:
    """The URL as people write it, with its passwords hidden; a SQLite file as its path."""
    if url.get_backend_name() == "sqlite":
        return url.database or ":memory:"
    return safe_url(url.set(drivername="postgresql").render_as_string(hide_password=True))
