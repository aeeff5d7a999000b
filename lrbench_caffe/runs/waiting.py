"""Runs whose results are not in the LR database yet: noted at the start, added by a later command.

A training notes its run directory here before it first writes to the database, and removes the note
when the database has everything. The results of a training that ended without its database, or was
killed, are added by the next command that opens this database. The notes are small files in the
user's data directory, so a database that is out of reach does not matter.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from lrbench_caffe.database.engine import parse_url, shown
from lrbench_caffe.database.errors import RecordError
from lrbench_caffe.database.store import Database
from lrbench_caffe.database.urls import default_path, resolve_url
from lrbench_caffe.errors import InputError
from lrbench_caffe.files import remove_leftovers, replace_own
from lrbench_caffe.records import RunRecord, digest
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.runs.syncing import NotForDatabase, StillRunning, read_run
from lrbench_caffe.tabular import count_of


@dataclass(frozen=True)
class Note:
    """A run that a database waits for.

    Attributes:
        database: where it is, without a password.
        run: the run directory. machine: the host that it is on.
        uid: the run's, as another run may be in the directory by now.
    """

    database: str
    run: str
    machine: str
    uid: str

    @property
    def path(self) -> Path:
        return folder() / f"{digest([self.database, self.run, self.machine])}.json"


def folder() -> Path:
    """Where the notes are."""
    return default_path().parent / "waiting"


def note_of(url: str | None, run: Path, uid: str) -> Note:
    """The note of a run for the database that ``url`` names."""
    return Note(_name(shown(parse_url(resolve_url(url)))), str(run.resolve()), platform.node(), uid)


def _name(database: str) -> str:
    return database if "://" in database else str(Path(database).resolve())


def add(note: Note) -> None:
    """Write a note.

    Raises:
        OSError: it cannot be written.
    """
    note.path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(note.path.parent, r"\w+\.json")
    replace_own(note.path, (json.dumps(asdict(note)) + "\n").encode())


def discard(note: Note) -> None:
    """Remove a note if it exists."""
    note.path.unlink(missing_ok=True)


def waits(url: str | None, where: Path) -> bool:
    """Whether a run in a folder waits for the database that ``url`` names."""
    name = _name(shown(parse_url(resolve_url(url))))
    return any(
        note.database == name and Path(note.run).is_relative_to(where.resolve())
        for note in _notes()
    )


def bring_in(database: Database, say: Callable[[str], None]) -> None:
    """Store the runs that wait for this database, and report them.

    Runs that are still being trained, and those of other machines, keep waiting. What can never be
    stored is told once.

    Raises:
        DatabaseError: the database refuses, or is away; what it did not get keeps waiting.
    """
    name = _name(database.url)
    count = 0
    for note in list(_notes()):
        if note.database != name or note.machine != platform.node():
            continue
        try:
            record = _record(note)
            count += record is not None and database.put(record)
        except StillRunning:
            continue
        except OSError:
            continue
        except (InputError, RecordError) as error:
            say(f"{note.run} waited for the LR database, which refuses it: {error}")
        discard(note)
    if count:
        say(f"added to the LR database: {count_of(count, 'run')} that waited for it")


def _record(note: Note) -> RunRecord | None:
    """The run as it is by now; None where there is nothing of it left to store.

    Raises:
        OSError: it cannot be read now; the folder that it is in may be on a disk that is away.
    """
    path = Path(note.run)
    if not path.parent.is_dir():
        raise FileNotFoundError(path.parent)
    if not RunDirectory(path).exists:
        return None
    try:
        record = read_run(path)
    except NotForDatabase:
        return None
    return record if record.uid == note.uid else None


def _notes() -> Iterator[Note]:
    for path in sorted(folder().glob("*.json")):
        try:
            yield Note(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # gone meanwhile, or not ours
            continue
