"""Brings a database up to date when it is opened: its tables, and the paper's results."""

from __future__ import annotations

import time
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.engine import URL, Connection

from lrbench_caffe.database import migrate, schema, summaries, writing
from lrbench_caffe.database.checks import checked_run
from lrbench_caffe.paper.tables import EDITION, paper_records

EMPTY = 2.0  # seconds for which a SQLite file may be empty while it is made
_PAPER = "paper results"  # in meta: which edition of them is in the database


def exists(url: URL) -> bool:
    """Whether this database exists; a server has to be asked."""
    return url.get_backend_name() != "sqlite" or Path(url.database or "").is_file()


def is_emptied(url: URL) -> bool:
    """Whether a SQLite file is empty because it was cut off, not because it is just being made."""
    path = Path(url.database or "")
    deadline = time.monotonic() + EMPTY
    while url.get_backend_name() == "sqlite" and path.is_file() and not path.stat().st_size:
        if time.monotonic() > deadline:
            return True
        time.sleep(0.1)
    return False


def is_current(connection: Connection) -> bool:
    """Whether nothing has to be migrated and the paper's results of this edition or later are in it."""
    if migrate.revision(connection) != schema.REVISION:
        return False
    query = select(schema.meta.c.value).where(schema.meta.c.name == _PAPER)
    stored = connection.execute(query).scalar() or ""
    return stored.isdecimal() and int(stored) >= EDITION


def bring_up(connection: Connection) -> None:
    """Migrate and store the paper's results, under a lock; a concurrent caller finds it done."""
    migrate.lock(connection)
    before = migrate.revision(connection)
    if before != schema.REVISION:
        migrate.upgrade(connection)
        if before is not None:
            summaries.rebuild(connection)
    if not is_current(connection):
        records = [checked_run(record) for record in paper_records()]
        # Of an older edition a row may have been corrected: it is replaced, not completed.
        writing.remove(connection, [record.uid for record in records])
        writing.put(connection, records)
        connection.execute(schema.meta.delete().where(schema.meta.c.name == _PAPER))
        connection.execute(schema.meta.insert().values(name=_PAPER, value=str(EDITION)))
