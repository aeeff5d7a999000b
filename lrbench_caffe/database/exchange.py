"""Export and import of runs: JSON Lines, other databases, backups.

A line is the ``to_json`` of one run. Imports are checked record by record: a bad record is reported
with its place, and the others are stored.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Union

from lrbench_caffe.database.checks import run_from_json
from lrbench_caffe.database.errors import ConflictError, DatabaseError, RecordError
from lrbench_caffe.database.store import Database
from lrbench_caffe.errors import InputError, ParameterError
from lrbench_caffe.files import replacing_durably
from lrbench_caffe.records import PAPER, Contribution, NotShown, RunRecord

Target = Union[Database, Callable[[], Database]]

BATCH = 200  # records put in one transaction
_PAGES = 2000  # of a SQLite file, copied before others may write again
_SQLITE_FILE = b"SQLite format 3\0"  # how each of them begins
_BESIDE = (
    "-wal",
    "-shm",
    "-journal",
)  # SQLite considers the content of such files newer than the file itself


@dataclass
class ImportCount:
    """Counts of the records of an import.

    Attributes:
        report: called with the message of each record that is refused, as it is found.
        new: how many brought anything new; present: how many were there already.
        conflicts: how many of the refused ones are in the database with other content.
        bad: the messages.
    """

    report: Callable[[str], None]
    new: int = 0
    present: int = 0
    conflicts: int = 0
    bad: list[str] = field(default_factory=list)

    def refuse(self, message: str) -> None:
        self.bad.append(message)
        self.report(message)

    def __str__(self) -> str:
        refused = f", {len(self.bad)} refused" if self.bad else ""
        if self.conflicts:
            refused += f" ({self.conflicts} in conflict with stored runs)"
        return f"{self.new} new or completed, {self.present} already there{refused}"


def to_line(record: RunRecord, ascii_only: bool = False) -> str:
    """A run as a line of JSON.

    Args:
        ascii_only: whether other characters are written as JSON's escapes, which mean the same.
    """
    return json.dumps(record.to_json(), allow_nan=False, ensure_ascii=ascii_only) + "\n"


def from_line(line: bytes) -> RunRecord:
    """The run of a line. A UTF-8 BOM before it, as some editors write, is left out.

    Raises:
        RecordError: it is none.
        InputError: its schema is newer than this program.
    """
    try:
        value = json.loads(line.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except RecursionError:
        raise RecordError("not usable JSON: nested too deeply") from None
    except ValueError as error:
        raise RecordError(f"not JSON: {error}") from None
    return run_from_json(value)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def export_lines(database: Database, ascii_only: bool = False) -> Iterator[str]:
    """All of a database as lines, in an order that depends on the content alone; see ``to_line``."""
    return (to_line(record, ascii_only) for record in database.export())


def import_lines(
    database: Target,
    lines: Iterable[bytes],
    name: str,
    result: ImportCount,
    contribution: Contribution | None = None,
) -> None:
    """Store the runs of lines.

    Args:
        name: of the file, for messages.
        result: what became of them is added to it.
        contribution: of the runs that have none, the paper's excepted.

    Raises:
        InputError: a record's schema is newer than this program; those before it are stored.
    """
    newer: InputError | None = None

    def records() -> Iterator[tuple[str, RunRecord]]:
        nonlocal newer
        for number, line in enumerate(lines, start=1):
            place = f"{name}:{number}"
            try:
                if line.strip():
                    record = from_line(line)
                    if record.contribution is None and record.source != PAPER:
                        record = replace(record, contribution=contribution)
                    yield place, record
            except RecordError as error:
                result.refuse(f"{place}: {error}")
            except InputError as error:
                newer = InputError(f"{place}: {error}")
                return

    store_records(database, records(), result)
    if newer is not None:
        raise newer


def store_records(
    database: Target,
    records: Iterable[tuple[str, RunRecord]],
    result: ImportCount,
    not_shown: Mapping[str, NotShown] | None = None,
) -> None:
    """Store runs, each given with the place it comes from, for messages; ``result`` is added to.

    A database given as a function is opened when there is something to store.

    Args:
        not_shown: see ``Database.put_many``.
    """
    batch: list[tuple[str, RunRecord]] = []
    for item in records:
        batch.append(item)
        if len(batch) == BATCH:
            _put(database, batch, result, not_shown)
            batch = []
    _put(database, batch, result, not_shown)


def _put(
    database: Target,
    batch: list[tuple[str, RunRecord]],
    result: ImportCount,
    not_shown: Mapping[str, NotShown] | None,
) -> None:
    if not batch:
        return
    if not isinstance(database, Database):
        database = database()
    try:
        fresh = database.put_many([record for _, record in batch], not_shown=not_shown)
    except RecordError as error:
        if len(batch) == 1:
            result.conflicts += isinstance(error, ConflictError)
            result.refuse(f"{batch[0][0]}: {error}")
            return
        for item in batch:
            _put(database, [item], result, not_shown)
        return
    result.new += sum(fresh)
    result.present += len(fresh) - sum(fresh)


def check_target(database: Database, path: Path, *, force: bool, copy: bool = False) -> None:
    """Check that a file may be written to, or replaced.

    Args:
        force: whether a file that exists may be replaced.
        copy: True where a copy of a SQLite database is to be written, which may replace a database.

    Raises:
        InputError: it may not. The database's own files never may.
    """
    if database.path is not None:
        for suffix in ("", *_BESIDE):
            own = Path(database.path + suffix)
            if path.exists() and own.exists() and path.samefile(own):
                raise InputError(f"{path} is the database itself; name another file")
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is not a regular file and cannot be replaced; name another one")
    if copy:
        for beside in (path.with_name(path.name + suffix) for suffix in _BESIDE):
            if beside.exists() and beside.stat().st_size:
                raise InputError(
                    f"{path} is a database in use, or one that was not closed: there is {beside}"
                )
    if not path.exists():
        return
    if not copy and _is_sqlite(path):
        raise InputError(f"{path} is a SQLite database, which is not replaced; name another file")
    if not force:
        raise ParameterError("{0} exists; {force} replaces it", path)


def _is_sqlite(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE_FILE)) == _SQLITE_FILE
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


@contextmanager
def writing_text(path: Path) -> Iterator[IO[str]]:
    """A file to write to that takes its place under ``path`` only when it is complete.

    Raises:
        InputError: it cannot be written.
    """
    try:
        with (
            replacing_durably(path) as temporary,
            temporary.open("w", encoding="utf-8") as file,
        ):
            yield file
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None


def backup_sqlite(database: Database, path: Path) -> None:
    """Copy a SQLite database while others may still use it.

    Raises:
        InputError: the copy cannot be written.
    """
    assert database.path is not None
    try:
        with (
            replacing_durably(path) as temporary,
            closing(sqlite3.connect(database.path)) as source,
            closing(sqlite3.connect(temporary)) as copy,
        ):
            source.backup(copy, pages=_PAGES)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, not three
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
    except sqlite3.Error as error:
        raise DatabaseError(f"backup of {database.url} to {path}: {error}") from None
