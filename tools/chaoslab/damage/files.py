"""Damage to files, of the kinds that disks, copies and editors do. Chance decides what is hit."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

BLOCK = 4096  # bytes that a file system writes, or loses, at once

Damage = Callable[[bytes, random.Random], bytes]


def nothing_left(data: bytes, rng: random.Random) -> bytes:
    """The file is there and empty."""
    return b""


def cut_short(data: bytes, rng: random.Random) -> bytes:
    """Only the beginning is there."""
    return data[: rng.randrange(len(data))]


def beginning_lost(data: bytes, rng: random.Random) -> bytes:
    return data[rng.randrange(1, len(data) + 1) :]


def block_of_zeros(data: bytes, rng: random.Random) -> bytes:
    """What a power cut leaves of a block that was never written."""
    size = rng.choice((16, 512, BLOCK, len(data)))
    start = rng.randrange(len(data))
    end = min(start + size, len(data))
    return data[:start] + bytes(end - start) + data[end:]


def bit_flipped(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def noise(data: bytes, rng: random.Random) -> bytes:
    """Random bytes in place of what was there."""
    start = rng.randrange(len(data))
    size = min(rng.choice((1, 16, 512)), len(data) - start)
    return data[:start] + rng.randbytes(size) + data[start + size :]


def piece_lost(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.choice((1, 16, 512)) :]


def piece_twice(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    piece = data[start : start + rng.choice((1, 16, 512))]
    return data[:start] + piece + data[start:]


def more_behind_it(data: bytes, rng: random.Random) -> bytes:
    return data + rng.choice((b"\0" * 64, b"\n", b"}", b"\xff\xfe garbage", data[-64:]))


BYTES: tuple[Damage, ...] = (
    nothing_left, cut_short, beginning_lost, block_of_zeros, bit_flipped, noise, piece_lost, piece_twice,
    more_behind_it,
)  # fmt: skip


# -- text in lines ---------------------------------------------------------------------------------


def line_lost(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    del lines[rng.randrange(len(lines))]
    return b"".join(lines)


def line_twice(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    place = rng.randrange(len(lines))
    lines.insert(rng.randrange(len(lines) + 1), lines[place])
    return b"".join(lines)


def lines_swapped(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    one, two = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[one], lines[two] = lines[two], lines[one]
    return b"".join(lines)


def line_of_zeros(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    place = rng.randrange(len(lines))
    lines[place] = bytes(max(0, len(lines[place]) - 1)) + b"\n"
    return b"".join(lines)


def end_of_a_line_lost(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    place = rng.randrange(len(lines))
    lines[place] = lines[place][: rng.randrange(len(lines[place]))]
    return b"".join(lines)


def lines_of_dos(data: bytes, rng: random.Random) -> bytes:
    return data.replace(b"\n", b"\r\n")


def other_encoding(data: bytes, rng: random.Random) -> bytes:
    """As an editor saves it: UTF-16, or with a byte order mark."""
    text = data.decode("utf-8", "replace")
    return text.encode(rng.choice(("utf-16", "utf-8-sig")))


def control_characters(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    return (
        data[:place]
        + rng.choice((b"\0", b"\x1b[31m", b"\r", b"\x07", b"\xff", b"\x85"))
        + data[place:]
    )


def other_number(data: bytes, rng: random.Random) -> bytes:
    """One of the numbers is another one, or none."""
    places = [
        i for i in range(len(data)) if data[i : i + 1].isdigit() and not data[i - 1 : i].isdigit()
    ]
    if not places:
        return bit_flipped(data, rng)
    start = rng.choice(places)
    end = start
    while data[end : end + 1].isdigit():
        end += 1
    new = rng.choice(
        (b"-1", b"0", b"999999999999", b"9" * 4500, b"nan", b"1e400", b"", b"x", b"0.5")
    )
    return data[:start] + new + data[end:]


LINES: tuple[Damage, ...] = (
    line_lost, line_twice, lines_swapped, line_of_zeros, end_of_a_line_lost, lines_of_dos, other_encoding,
    control_characters, other_number,
)  # fmt: skip


# -- JSON ------------------------------------------------------------------------------------------

ODD_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 10**12, 2**70, "", "x", "\x1b[31m", [], [None], {}, {"a": 1}, "NaN",
)  # fmt: skip


def other_value(data: bytes, rng: random.Random) -> bytes:
    """One value of a JSON document, or of a line of JSON, has another type, or is gone."""
    lines = data.splitlines(keepends=True)
    try:
        json.loads(data)
        place, text = None, data
    except ValueError:
        place = rng.randrange(len(lines))
        text = lines[place]
    try:
        document = json.loads(text)
    except ValueError:
        return noise(data, rng)
    changed = json.dumps(_with_another_value(document, rng)).encode()
    if place is None:
        return changed + b"\n"
    lines[place] = changed + b"\n"
    return b"".join(lines)


def _with_another_value(document: Any, rng: random.Random) -> Any:
    if not isinstance(document, (dict, list)) or not document or rng.random() < 0.15:
        return rng.choice(ODD_VALUES)
    keys = list(document) if isinstance(document, dict) else list(range(len(document)))
    key = rng.choice(keys)
    if rng.random() < 0.15:
        del document[key]
    else:
        document[key] = _with_another_value(document[key], rng)
    return document


# -- files -----------------------------------------------------------------------------------------


class Wound:
    """A file, damaged by a kind that fits it.

    Attributes:
        path: the file.
        what: what was done, in words.
    """

    def __init__(self, path: Path, rng: random.Random) -> None:
        self.path = path
        self._before = path.read_bytes()
        self.what = damage(path, rng)
        self._after = _state(path)

    def heal(self) -> None:
        """Make it whole, where it still is as it was after the damage: nobody needed it."""
        if _state(self.path) == self._after:
            _remove(self.path)
            self.path.write_bytes(self._before)


def _state(path: Path) -> bytes | str:
    if path.is_symlink():
        return f"a link to {path.readlink()}"
    if path.is_dir():
        return "a folder"
    return path.read_bytes() if path.exists() else "gone"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    path.unlink(missing_ok=True)


def damage(path: Path, rng: random.Random) -> str:
    """Damage a file, by a kind that fits it; returns what was done, in words.

    Three in twenty are gone, or something else is in their place.
    """
    how = rng.random()
    if how < 0.1:
        path.unlink()
        return f"{path.name} is gone"
    if how < 0.15:
        return _something_else(path, rng)
    data = path.read_bytes()
    kind = rng.choice(kinds(path))
    path.write_bytes(kind(data, rng) if data else rng.randbytes(40))
    return f"{path.name}: {kind.__name__.replace('_', ' ')}"


def kinds(path: Path) -> tuple[Damage, ...]:
    """The kinds of damage that fit a file."""
    if path.suffix in (".json", ".jsonl"):
        return (*BYTES, *LINES, other_value, other_value, other_value)
    if path.suffix in (".csv", ".log", ".prototxt", ".txt", ".svg"):
        return (*BYTES, *LINES)
    return BYTES


def _something_else(path: Path, rng: random.Random) -> str:
    """A folder, a link to nowhere, or a link to itself, in place of a file."""
    what = rng.choice(("a folder", "a link to nowhere", "a link to itself"))
    path.unlink()
    if what == "a folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere" if what == "a link to nowhere" else path.name)
    return f"{path.name} is {what}"


def files_in(folder: Path) -> list[Path]:
    """All plain files below a folder, in an order that is always the same."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def copy(source: Path, target: Path) -> Path:
    """A copy of a file or folder that may be damaged: nothing in it is shared with the original."""
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target)
    return target
