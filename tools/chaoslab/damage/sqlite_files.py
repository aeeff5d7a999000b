"""Damage to a SQLite file of the LR database: what disks, copies, other programs and hands do to it.

    rng = random.Random(7)
    kind = rng.choice(list(KINDS))
    damage(path, kind, rng)          # the same seed, the same damage

The file must not be in use. Each kind changes the file, or what lies beside it, and may change
nothing that is ever read: a damaged file can still be a good one.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

Damage = Callable[[Path, random.Random], None]
KINDS: dict[str, Damage] = {}

NOT_UTF8 = (b"\xff\xfe", b"caf\xe9", b"\xed\xa0\x80", b"\xc3", b"a\x00b")
JSON_COLUMNS = (
    ("network", "layers"), ("policy", "params"), ("measurement", "outputs"), ("summary", "outputs"),
)  # fmt: skip
WORDS = ("", "[/x]", "\x1b[2J", "\u202e", "x" * 5000, "0x10", "nan", "-1", "\u0663", "null")


def kind(function: Damage) -> Damage:
    KINDS[function.__name__.replace("_", "-")] = function
    return function


def damage(path: Path, name: str, rng: random.Random) -> None:
    """Do one kind of damage to a SQLite file.

    Args:
        path: the file; it is not in use.
        name: one of ``KINDS``.
        rng: what decides where and how.
    """
    KINDS[name](path, rng)


# -- bytes -----------------------------------------------------------------------------------------


@kind
def flipped_header(path: Path, rng: random.Random) -> None:
    _flip(path, rng, rng.randint(1, 3), 0, 100)


@kind
def flipped_page_header(path: Path, rng: random.Random) -> None:
    """In the first bytes of b-tree pages: their type, number of cells, where these begin, free blocks."""
    size, count = _pages(path)
    for _ in range(rng.randint(1, 4)):
        page = rng.randrange(count)
        start = page * size + (100 if page == 0 else 0)
        _flip(path, rng, rng.randint(1, 3), start, start + 40)


@kind
def flipped_bytes(path: Path, rng: random.Random) -> None:
    _flip(path, rng, rng.choice((1, 5, 50, 500)), 0, path.stat().st_size)


@kind
def zeroed_pages(path: Path, rng: random.Random) -> None:
    size, count = _pages(path)
    for _ in range(rng.randint(1, 3)):
        _overwrite(path, rng.randrange(count) * size, bytes(size))


@kind
def swapped_pages(path: Path, rng: random.Random) -> None:
    size, count = _pages(path)
    content = path.read_bytes()
    one, other = (rng.randrange(count) * size for _ in range(2))
    _overwrite(path, one, content[other : other + size])
    _overwrite(path, other, content[one : one + size])


@kind
def random_sector(path: Path, rng: random.Random) -> None:
    _overwrite(path, rng.randrange(max(1, path.stat().st_size // 512)) * 512, rng.randbytes(512))


@kind
def truncated(path: Path, rng: random.Random) -> None:
    size = path.stat().st_size
    os.truncate(
        path, rng.choice((rng.randrange(size), rng.randrange(1, 200), size // 512 // 2 * 512))
    )


@kind
def emptied(path: Path, rng: random.Random) -> None:
    os.truncate(path, 0)


@kind
def not_a_database(path: Path, rng: random.Random) -> None:
    path.write_bytes(
        rng.choice((b"\x1f\x8b\x08", b'{"schema": 2}\n', b"\0" * 4096, rng.randbytes(10000)))
    )


@kind
def a_folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


@kind
def file_beside(path: Path, rng: random.Random) -> None:
    """A -wal, -shm or -journal that is noise, cut off, or another database's."""
    beside = Path(f"{path}{rng.choice(('-wal', '-shm', '-journal'))}")
    other = path.with_name(f"{path.name}.other")
    shutil.copy(path, other)
    with closing(sqlite3.connect(other)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        for number in range(rng.randint(1, 5)):
            database.execute(f"CREATE TABLE other{number} (x)")
        database.commit()
        logged = Path(f"{other}{'-shm' if beside.name.endswith('-shm') else '-wal'}").read_bytes()
    content = rng.choice(
        (rng.randbytes(4096), b"", logged, logged[: rng.randrange(1, len(logged))])
    )
    beside.write_bytes(content)
    for leftover in path.parent.glob(f"{other.name}*"):
        leftover.unlink()


# -- values ----------------------------------------------------------------------------------------


@kind
def text_not_utf8(path: Path, rng: random.Random) -> None:
    with closing(_unguarded(path)) as database:
        for _ in range(rng.randint(1, 3)):
            table, column, rowid = _place(database, rng, "TEXT")
            _set(database, table, column, rowid, f"CAST(x'{rng.choice(NOT_UTF8).hex()}' AS TEXT)")


@kind
def broken_json(path: Path, rng: random.Random) -> None:
    values = (
        "{", "[]", "1", '"text"', "null", "", "NaN", '{"a": NaN}', '{"a": 1e999}', '{"a": "b"}',
        '{"a": [1]}', '{"a": null}', '{"a": [[]]}', '{"a": 1, "a": 2}', '{"\\ud800": 1}', "[" * 5000,
        '{"a":' * 5000, "9" * 5000, json.dumps({"a": 10**30}), '{"a": [null, null, null]}',
    )  # fmt: skip
    with closing(_unguarded(path)) as database:
        for _ in range(rng.randint(1, 3)):
            table, column = rng.choice(JSON_COLUMNS)
            rowid = _row(database, rng, table)
            if rowid is not None:
                _set(database, table, column, rowid, "?", rng.choice(values))


@kind
def wrong_type(path: Path, rng: random.Random) -> None:
    """SQLite stores any value in any column, whatever its type: a text for a number, a blob, no value."""
    with closing(_unguarded(path)) as database:
        for _ in range(rng.randint(1, 5)):
            table, column, rowid = _place(database, rng)
            value: Any = rng.choice(
                (
                    None,
                    rng.choice(WORDS),
                    rng.randbytes(8),
                    2**63 - 1,
                    -(2**63),
                    0,
                    -1,
                    0.5,
                    1e308,
                    1e999,
                    -1e999,
                )
            )
            _set(database, table, column, rowid, "?", value)


@kind
def lost_rows(path: Path, rng: random.Random) -> None:
    """Rows that others refer to."""
    with closing(_unguarded(path)) as database:
        table = rng.choice(_tables(database))
        database.execute(f"DELETE FROM {table} WHERE rowid % 2 = ?", (rng.randint(0, 1),))
        database.commit()


@kind
def other_tables(path: Path, rng: random.Random) -> None:
    with closing(_unguarded(path)) as database:
        table = rng.choice(_tables(database))
        column = rng.choice(_columns(database, table))[0]
        change = rng.choice(
            (
                f"DROP TABLE {table}",
                f"ALTER TABLE {table} RENAME TO other",
                f"ALTER TABLE {table} RENAME COLUMN {column} TO other",
                f"CREATE TABLE stranger AS SELECT * FROM {table}",
                "DELETE FROM sqlite_master WHERE type = 'index'",
                f"DELETE FROM sqlite_master WHERE name = '{table}'",
                f"UPDATE sqlite_master SET sql = 'CREATE TABLE {table} (' WHERE name = '{table}'",
                f"UPDATE sqlite_master SET rootpage = {rng.randint(0, 100)} WHERE name = '{table}'",
            )
        )
        database.execute(change)
        database.commit()


@kind
def other_revision(path: Path, rng: random.Random) -> None:
    version = rng.choice(
        (*WORDS, "9999", "0002 ", "0001", "0002; DROP TABLE run", 2, None, b"\xff")
    )
    with closing(_unguarded(path)) as database:
        change = rng.choice(
            ("UPDATE alembic_version SET version_num = ?", "INSERT INTO alembic_version VALUES (?)")
        )
        database.execute(
            rng.choice((change, "DELETE FROM alembic_version WHERE ? IS NOT 0")), (version,)
        )
        database.commit()


@kind
def read_only(path: Path, rng: random.Random) -> None:
    """The file, or with it its folder; root may write to both all the same."""
    path.chmod(0o444)


# -- how -------------------------------------------------------------------------------------------


def _flip(path: Path, rng: random.Random, count: int, start: int, stop: int) -> None:
    with path.open("r+b") as file:
        for _ in range(count):
            place = rng.randrange(start, min(stop, path.stat().st_size))
            file.seek(place)
            old = file.read(1)[0]
            file.seek(place)
            file.write(
                bytes([rng.choice((old ^ (1 << rng.randrange(8)), rng.randrange(256), 0, 255))])
            )


def _overwrite(path: Path, start: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(content)


def _pages(path: Path) -> tuple[int, int]:
    """Size and number of the pages."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(18)[16:18], "big")
    size = 65536 if size == 1 else size
    return size, path.stat().st_size // size


def _unguarded(path: Path) -> sqlite3.Connection:
    """A connection for which no constraint holds."""
    database = sqlite3.connect(path)
    database.execute("PRAGMA ignore_check_constraints = ON")
    database.execute("PRAGMA foreign_keys = OFF")
    database.execute("PRAGMA writable_schema = ON")
    return database


def _tables(database: sqlite3.Connection) -> list[str]:
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name"
    return [row[0] for row in database.execute(query)]


def _columns(database: sqlite3.Connection, table: str) -> list[tuple[str, str]]:
    return [(row[1], row[2]) for row in database.execute(f"PRAGMA table_info({table})")]


def _row(database: sqlite3.Connection, rng: random.Random, table: str) -> int | None:
    ids = [row[0] for row in database.execute(f"SELECT rowid FROM {table} ORDER BY rowid")]
    return rng.choice(ids) if ids else None


def _place(
    database: sqlite3.Connection, rng: random.Random, declared: str = ""
) -> tuple[str, str, int]:
    """A table, a column of a type, and a row."""
    while True:
        table = rng.choice(_tables(database))
        columns = [name for name, type_ in _columns(database, table) if declared in type_]
        rowid = _row(database, rng, table)
        if columns and rowid is not None:
            return table, rng.choice(columns), rowid


def _set(
    database: sqlite3.Connection, table: str, column: str, rowid: int, value: str, *values: Any
) -> None:
    """Set a column, whatever its constraints: NOT NULL is taken out of the table's text for that long."""
    text = database.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
    schema = "UPDATE sqlite_master SET sql = ? WHERE name = ?"
    path = database.execute("PRAGMA database_list").fetchone()[2]
    with closing(_unguarded(path)) as other:
        other.execute(schema, (text.replace("NOT NULL", ""), table))
        other.commit()
    with closing(_unguarded(path)) as other:
        # A rowid must be a whole number, and a key must be unique.
        with contextlib.suppress(sqlite3.IntegrityError):
            other.execute(
                f"UPDATE {table} SET {column} = {value} WHERE rowid = ?", (*values, rowid)
            )
        other.execute(schema, (text, table))
        other.commit()
