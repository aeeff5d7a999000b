"""A journal: a second copy of a run directory's rows, each with a number and a checksum.

    0 5d1c7a02 journal 1 4f0c2d9b71e84a36
    1 9be01733 run.json {"solver": ...}
    2 c4a81e90 measurements.jsonl {"iteration": 0, ...}

The number tells a line that is missing, doubled or out of order, the checksum one that was changed.
The id of the run is part of every checksum, so a journal of another run does not fit this one.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from lrbench_caffe.files import open_own, read_own, replace_own

_HEADING = "journal"
_VERSION = "1"


@dataclass(frozen=True)
class Journaled:
    """The content of a journal.

    Attributes:
        id: the run's, None where its heading is damaged.
        entries: name and text of each entry that is intact, in their order.
        damage: what is wrong with it, None where it is whole. A last line that a kill cut off is
            not damage.
    """

    id: str | None = None
    entries: list[tuple[str, str]] = field(default_factory=list)
    damage: str | None = None

    @property
    def whole(self) -> bool:
        return self.damage is None

    def of(self, name: str) -> list[str]:
        """The texts of the entries of a name."""
        return [text for own, text in self.entries if own == name]


class Journal:
    """A journal that is appended to.

    Args:
        path: the file. It is made, or must be whole.
        id: the run's.
        count: the entries that it has already, with the heading; 0 for a new one.
    """

    def __init__(self, path: Path, id: str, count: int) -> None:
        self._id = id
        self._count = count
        if not count:
            replace_own(path, b"")
        self._file: IO[bytes] = open_own(path, "ab")
        if not count:
            self.append(_HEADING, f"{_VERSION} {id}")

    def append(self, name: str, text: str) -> None:
        """Append an entry of one line; it is in the operating system's hands when this returns.

        Raises:
            OSError: there is no room for it; the journal is as it was.
        """
        handle = self._file.fileno()
        size = os.fstat(handle).st_size
        try:
            rest = memoryview(_line(self._id, self._count, name, text))
            while rest:
                rest = rest[os.write(handle, rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(handle, size)
            raise
        self._count += 1

    def close(self) -> None:
        self._file.close()


def _line(id: str, number: int, name: str, text: str) -> bytes:
    return f"{number} {_checksum(id, number, name, text)} {name} {text}\n".encode()


def _checksum(id: str, number: int, name: str, text: str) -> str:
    return f"{zlib.crc32(f'{id} {number} {name} {text}'.encode()):08x}"


def write_journal(path: Path, id: str, entries: Iterable[tuple[str, str]]) -> None:
    """Replace a journal by one with these entries."""
    numbered = enumerate([(_HEADING, f"{_VERSION} {id}"), *entries])
    replace_own(path, b"".join(_line(id, number, name, text) for number, (name, text) in numbered))


def read_journal(path: Path, id: str | None = None) -> Journaled:
    """The intact part of a journal.

    Args:
        id: the run's; None to believe the journal's heading.
    """
    try:
        lines = read_own(path).split(b"\n")[:-1]
    except OSError as error:
        return Journaled(
            damage="is missing" if isinstance(error, FileNotFoundError) else f"{error.strerror}"
        )
    if not lines:
        return Journaled(damage="is empty")
    own = _id_of(lines[0])
    if id is not None and own not in (None, id):
        return Journaled(own, damage="is of another run")
    id = id or own
    if id is None:
        return Journaled(damage="line 1 is damaged")
    numbered: dict[int, tuple[str, str]] = {}
    damage = None
    for place, line in enumerate(lines):
        entry = _entry(id, line)
        if entry is None:
            damage = damage or f"line {place + 1} is damaged"
        else:
            numbered[entry[0]] = entry[1:]
            if entry[0] != place:
                damage = damage or f"line {place + 1} is not the one that belongs there"
    entries = [numbered[number] for number in sorted(numbered) if number]
    return Journaled(own or id, entries, damage)


def _id_of(line: bytes) -> str | None:
    with contextlib.suppress(UnicodeDecodeError, ValueError):
        number, checksum, name, version, id = line.decode().split(" ")
        if (number, name, version) == ("0", _HEADING, _VERSION) and checksum == _checksum(
            id, 0, name, f"{version} {id}"
        ):
            return id
    return None


def _entry(id: str, line: bytes) -> tuple[int, str, str] | None:
    with contextlib.suppress(UnicodeDecodeError, ValueError):
        number, checksum, name, text = line.decode().split(" ", 3)
        if checksum == _checksum(id, int(number), name, text) and str(int(number)) == number:
            return int(number), name, text
    return None
