"""Upgrades a database's tables to this version, once, even if many processes open it together."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import inspect, text
from sqlalchemy.engine import URL, Connection

from lrbench_caffe.database import schema
from lrbench_caffe.database.engine import damaged, shown
from lrbench_caffe.database.errors import DatabaseError

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"
_ALEMBIC = (
    threading.Lock()
)  # it keeps the migration under way in its modules: one at a time in a process
_OURS = {"run", "measurement", "policy", "meta"}  # of every revision
_REVISION = re.compile(r"\d{4}")  # how each is written
LOCK = 0x4C5242454E4348  # "LRBENCH": the advisory lock of those who migrate a PostgreSQL database


def revision(connection: Connection) -> str | None:
    """The revision of a database; None for an empty one.

    Raises:
        DatabaseError: it has tables, but not ours.
    """
    tables = set(inspect(connection).get_table_names())
    if "alembic_version" in tables:
        stored = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        if stored is not None and not tables >= _OURS:
            raise DatabaseError(
                f"database {shown(connection.engine.url)}: it belongs to another program, at that program's "
                f"revision {stored}"
            )
        if stored is not None:
            return str(stored)
    strange = tables.intersection(schema.metadata.tables)
    if strange:
        raise DatabaseError(
            f"database {shown(connection.engine.url)}: it has tables named "
            f"{', '.join(sorted(strange))} that this program did not make"
        )
    return None


def lock(connection: Connection) -> None:
    """Let no other process migrate until this transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
    # In SQLite a transaction that writes is alone already.


def upgrade(connection: Connection, target: str = "head") -> None:
    """Run the migrations that the database lacks, up to ``target``, in the connection's transaction.

    Raises:
        DatabaseError: the database is of a newer version of this program.
    """
    # Loaded here because most opens find nothing to do.
    from alembic import command
    from alembic.script import ScriptDirectory

    config = configuration()
    known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    stored = revision(connection)
    if stored is None:
        _check_empty(connection)
    elif stored not in known and not _REVISION.fullmatch(stored):
        raise damaged(connection.engine.url, f"its revision is {stored!r:.60}")
    elif stored not in known:
        raise DatabaseError(
            f"database {shown(connection.engine.url)}: it is at revision {stored}, of a newer version of "
            f"this program; this one knows up to {known[0]}. Update with: pip install -U lrbench-caffe"
        )
    config.attributes["connection"] = connection
    with _ALEMBIC:
        command.upgrade(config, target)


def _check_empty(connection: Connection) -> None:
    """Refuse to create tables in a file that already had some, so that nothing is overwritten."""
    if connection.dialect.name == "sqlite":
        names = ("page_count", "freelist_count")
        pages, free = (connection.execute(text(f"PRAGMA {name}")).scalar_one() for name in names)
        if pages - free > 1:
            raise damaged(connection.engine.url, f"it has {pages} pages, but no table")


def check_current(url: URL, stored: str | None) -> None:
    """Raise a DatabaseError unless this is the revision that this program reads."""
    if stored is None:
        raise DatabaseError(f"database {shown(url)}: it is empty, not an LR database")
    if stored != schema.REVISION:
        raise DatabaseError(
            f"database {shown(url)}: it is at revision {stored}, and this program reads {schema.REVISION}; "
            "the command info upgrades an older one"
        )


def configuration() -> Config:
    """Alembic's configuration for the migrations in this package; no file is needed."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
