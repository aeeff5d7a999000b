"""Reading an LMDB without LMDB: the same records, and damage is one line, never the end of the process."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrbench_caffe.datasets.lmdb_reader import LmdbReader
from lrbench_caffe.datasets.lmdb_writer import write_lmdb
from lrbench_caffe.errors import InputError

PAGE = 4096
Records = list[tuple[bytes, bytes]]


def by_lmdb(folder: Path) -> Records:
    with (
        lmdb.open(str(folder), readonly=True, lock=False) as environment,
        environment.begin() as transaction,
    ):
        return [(bytes(key), bytes(value)) for key, value in transaction.cursor()]


def by_us(folder: Path, reverse: bool = False) -> Records:
    with LmdbReader(folder) as reader:
        return [(record.key, record.read()) for record in reader.records(reverse)]


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32))
def test_what_lmdb_itself_reads(tmp_path_factory, seed):
    """After insertions and deletions in several transactions; records from 0 to 20,000 bytes."""
    draw, folder = random.Random(seed), tmp_path_factory.mktemp("lmdb") / "x_lmdb"
    with lmdb.open(
        str(folder), map_size=1 << 27, writemap=bool(seed % 2), sync=False
    ) as environment:
        for _ in range(draw.randrange(1, 8)):
            with environment.begin(write=True) as transaction:
                for _ in range(draw.randrange(300)):
                    key = str(draw.randrange(1000)).encode() * draw.choice([1, 1, 20])
                    if draw.random() < 0.4:
                        transaction.delete(key)
                    else:
                        transaction.put(
                            key, draw.randbytes(draw.choice([0, 5, 1000, 2040, 5000, 20000]))
                        )
    expected = by_lmdb(folder)
    assert by_us(folder) == expected
    assert by_us(folder, reverse=True) == expected[::-1]


def test_parts_of_a_record(tmp_path):
    content = bytes(range(256)) * 40  # of three pages
    with lmdb.open(str(tmp_path)) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"large", content)
        transaction.put(b"small", content[:100])
    with LmdbReader(tmp_path) as reader:
        large, small = reader.records()
        for record in (large, small):
            whole = content[: record.size]
            for start, count in ((0, 10), (90, 20), (4070, 30), (10230, 50), (0, 20000)):
                assert record.read(start, count) == whole[start : start + count]
            assert record.read(50) == whole[50:]


# -- damage ----------------------------------------------------------------------------------------


@pytest.fixture(params=[12, 50], ids=["records in the tree", "records in pages of their own"])
def sound(request, tmp_path) -> Path:
    """300 images; LMDB of 1 or 3 channels."""
    draw, side = np.random.default_rng(1), request.param
    images = draw.integers(0, 256, (300, 1, side, side), dtype=np.uint8)
    write_lmdb(tmp_path / "x_lmdb", images, draw.integers(0, 10, 300), (1, side, side))
    return tmp_path / "x_lmdb"


def pages_of(kind: int, content: bytes) -> list[int]:
    """The pages in use whose flags are ``kind``."""
    flags = [
        struct.unpack_from("<H", content, start + 10)[0] for start in range(0, len(content), PAGE)
    ]
    return [number for number, found in enumerate(flags) if found == kind]


def swap_leaves(content: bytearray) -> None:
    one, other = pages_of(2, content)[:2]
    a, b = slice(one * PAGE, (one + 1) * PAGE), slice(other * PAGE, (other + 1) * PAGE)
    content[a], content[b] = content[b], content[a]


def zero_a_leaf(content: bytearray) -> None:
    start = pages_of(2, content)[1] * PAGE
    content[start : start + PAGE] = bytes(PAGE)


def zero_the_root(content: bytearray) -> None:
    (start,) = (page * PAGE for page in pages_of(1, content)[-1:])
    content[start : start + PAGE] = bytes(PAGE)


def point_a_node_outside(content: bytearray) -> None:
    struct.pack_into("<H", content, pages_of(2, content)[1] * PAGE + 16, PAGE - 4)


def no_first_header(content: bytearray) -> None:
    content[:PAGE] = bytes(PAGE)


def no_second_header(content: bytearray) -> None:
    content[PAGE : 2 * PAGE] = bytes(PAGE)


def other_magic(content: bytearray) -> None:
    content[16] ^= 1


def other_format(content: bytearray) -> None:
    content[20] += 1


def more_records_announced(content: bytearray) -> None:
    for header in (0, PAGE):
        struct.pack_into("<Q", content, header + 16 + 72 + 32, 301)


def half(content: bytearray) -> None:
    del content[len(content) // 2 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (swap_leaves, r"damaged LMDB \(page \d+ is not a leaf page\)"),
        (zero_a_leaf, r"damaged LMDB \(page \d+ is not a leaf page\)"),
        (zero_the_root, r"damaged LMDB \(page \d+ is not a branch page\)"),
        (point_a_node_outside, r"damaged LMDB \(page \d+: a node outside of it\)"),
        (no_first_header, r"cannot be opened as an LMDB \(header 0 has no LMDB mark\)"),
        (no_second_header, r"cannot be opened as an LMDB \(header 1 has no LMDB mark\)"),
        (other_magic, r"cannot be opened as an LMDB \(header 0 has no LMDB mark\)"),
        (other_format, r"cannot be opened as an LMDB \(format 2; Caffe reads 1\)"),
        (more_records_announced, r"damaged LMDB \(300 records; its header announces 301\)"),
        (half, r"truncated, data.mdb has [\d,]+ bytes; its header announces [\d,]+"),
    ],
)
def test_damage_is_one_line(sound: Path, damage: Callable[[bytearray], None], message: str) -> None:
    content = bytearray((sound / "data.mdb").read_bytes())
    damage(content)
    (sound / "data.mdb").write_bytes(content)
    with pytest.raises(InputError, match=rf"^{sound}: {message}$"):
        by_us(sound)


ALARM = "import signal; signal.alarm(60); "


def read_by_lmdb_elsewhere(folder: Path) -> int:
    """The exit code of a process that reads all of it."""
    code = ALARM + (
        "import lmdb, sys; e = lmdb.open(sys.argv[1], readonly=True, lock=False);"
        "t = e.begin(); [bytes(v) for _, v in t.cursor()]"
    )
    return subprocess.run([sys.executable, "-c", code, str(folder)], check=False).returncode


def test_what_we_take_lmdb_can_read(sound: Path) -> None:
    """Bytes at random: none ends the reader, and LMDB itself goes through all that it takes."""
    draw = random.Random(7)
    intact = (sound / "data.mdb").read_bytes()
    refused, taken = 0, []
    for number in range(200):
        content = bytearray(intact)
        page = draw.randrange(len(content) // PAGE) * PAGE
        for _ in range(draw.choice([1, 20])):
            content[page + draw.randrange(draw.choice([60, PAGE]))] = draw.randrange(256)
        folder = sound.parent / f"{number}_lmdb"
        folder.mkdir()
        (folder / "data.mdb").write_bytes(content)
        try:
            taken.append((folder, by_us(folder)))
        except InputError as error:
            assert str(error).startswith(f"{folder}: ")
            refused += 1
    assert refused > 50 and len(taken) > 50
    for folder, found in taken[::10]:
        assert read_by_lmdb_elsewhere(folder) == 0
        assert by_lmdb(folder) == found


def test_a_file_that_is_shortened_while_it_is_read(sound: Path) -> None:
    with LmdbReader(sound) as reader:
        records = reader.records()
        next(records)
        os.truncate(sound / "data.mdb", 3 * PAGE)
        with pytest.raises(
            InputError, match=r"damaged LMDB \(data.mdb ends at .* before a page in use\)"
        ):
            list(records)


def test_a_folder_in_the_place_of_the_file(tmp_path):
    (tmp_path / "data.mdb").mkdir()
    with pytest.raises(InputError, match=r"not an LMDB, its data.mdb is not a file"):
        by_us(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(sound: Path) -> None:
    (sound / "data.mdb").chmod(0)
    with pytest.raises(InputError, match=r"data.mdb: cannot be read \(Permission denied\)"):
        by_us(sound)
