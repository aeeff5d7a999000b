"""Opens the LR database for a command or a study, and adds the results that wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from lrbench_caffe.database.engine import damaged, parse_url, shown
from lrbench_caffe.database.errors import DatabaseError
from lrbench_caffe.database.patience import AT_TERMINAL
from lrbench_caffe.database.preparing import exists, is_emptied
from lrbench_caffe.database.store import Database
from lrbench_caffe.database.urls import resolve_url
from lrbench_caffe.errors import InputError, LRBenchError
from lrbench_caffe.runs import waiting

SILENCE = 2.0  # seconds after which the waiting is reported


def open_database(
    url: str | None, *, to_write: bool = False, say: Callable[[str], None]
) -> Database:
    """Open the database with less patience than a training has, and report the wait.

    Args:
        url: the database's, None for the user's own. A file that it names must exist, unless it is
            opened to write: a mistyped name is not a new database.
        to_write: whether something will be recorded.
        say: called with each message for the user.

    The runs that waited for this database (``waiting``) are added.

    Raises:
        InputError: there is no such file, or no folder for a new one.
        DatabaseError: the database is away, or refuses.
    """
    database = _open(url, to_write, say)
    bring_in_what_waits(database, say)
    return database


def _open(url: str | None, to_write: bool, say: Callable[[str], None]) -> Database:
    parsed = parse_url(resolve_url(url))
    where = shown(parsed)
    if to_write:
        check_folder(url)
    if is_emptied(parsed):
        if not to_write:
            raise damaged(parsed, "it is an empty file")
        say(f"note: the database {where} was an empty file; it is set up again")
    words = f"waiting up to {AT_TERMINAL:g} s for the database {where}"
    if is_new(url):  # no other process to wait for
        words = f"creating the database {where}"
    notice = threading.Timer(SILENCE, say, (words,))
    notice.daemon = True
    notice.start()
    try:
        return Database.open(url, patience=AT_TERMINAL, must_exist=url is not None and not to_write)
    finally:
        notice.cancel()


def is_new(url: str | None) -> bool:
    """Whether the database is a file that does not exist yet."""
    return not exists(parse_url(resolve_url(url)))


def check_folder(url: str | None) -> None:
    """Check that the folder of a named SQLite file exists: it is not created.

    That of the user's own database is, also where the database is named in full.

    Raises:
        InputError: there is none.
    """
    parsed = parse_url(resolve_url(url))
    is_named = url is not None and resolve_url(url) != resolve_url(None)
    if is_named and not exists(parsed) and not Path(parsed.database or "").parent.is_dir():
        raise InputError(f"cannot create the database {shown(parsed)}: no such folder")


def bring_in_what_waits(database: Database, say: Callable[[str], None]) -> None:
    """``waiting.bring_in``, whose failure is not the command's."""
    try:
        waiting.bring_in(database, say)
    except DatabaseError as error:
        say(f"note: results wait for the LR database: {error}")


def bring_in_the_rest(
    url: str | None, where: Path, say: Callable[[str], None], warn: Callable[[str], None]
) -> None:
    """Add what the trainings of a command could not store, or say why it waits.

    Args:
        url: the database's, None for the user's own.
        where: the folder of their run directories.
        say: is told what was added, or waits.
        warn: see ``open_database``'s ``say``.
    """
    if not waiting.waits(url, where):
        return
    try:
        with _open(url, True, warn) as database:
            waiting.bring_in(database, say)
    except LRBenchError as error:
        say(f"the LR database: {error}; results wait in {where}")
