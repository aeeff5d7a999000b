"""The content of a Caffe LMDB, read without Caffe and without disturbing a Caffe that reads it.

:func:`inspect` looks at the first record only (instant, whatever the size); :func:`read_summary`
reads all.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from google.protobuf.message import DecodeError

from lrbench_caffe.datasets.datum import Datum
from lrbench_caffe.datasets.lmdb_reader import LmdbReader, Record
from lrbench_caffe.errors import InputError

# py-lmdb refuses to open one path twice in a process; a second thread waits for the first instead.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class LmdbInfo:
    """The size of an LMDB and the form of its first record (Caffe takes the shape from there as well).

    ``channels``, ``height``, ``width`` are 0 where the record is an encoded image (JPEG, PNG) whose
    size Caffe only learns by decoding it. ``is_float`` says that the values are in ``float_data``.
    """

    path: Path
    entries: int
    channels: int
    height: int
    width: int
    encoded: bool
    is_float: bool
    first_label: int
    first_key: bytes

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the first record."""
        return self.channels, self.height, self.width


@dataclass(frozen=True)
class Summary:
    """All records of an image set: their number, shape, count per label, and a digest.

    The digest is the SHA-256 of every record's label (4 bytes, little-endian) and pixels, in key
    order; it does not depend on how the records are keyed, stored or serialized.
    """

    entries: int
    shape: tuple[int, int, int]
    class_counts: dict[int, int]
    digest: str

    def __str__(self) -> str:
        size = "x".join(map(str, self.shape))
        counts = sorted(self.class_counts.values())
        each = f"{counts[0]:,}" if counts[0] == counts[-1] else f"{counts[0]:,} to {counts[-1]:,}"
        images = f"{self.entries:,} images of {size}"
        return f"{images}, {len(counts)} classes of {each}, sha256 {self.digest[:16]}"


class SummaryBuilder:
    """Accumulates a :class:`Summary`, record by record."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._counts: dict[int, int] = {}
        self._shape: tuple[int, int, int] = (0, 0, 0)
        self._entries = 0

    def add(self, shape: tuple[int, int, int], label: int, pixels: bytes) -> None:
        self._hash.update(label.to_bytes(4, "little", signed=True))
        self._hash.update(pixels)
        self._counts[label] = self._counts.get(label, 0) + 1
        self._shape = shape
        self._entries += 1

    def result(self) -> Summary:
        counts = dict(sorted(self._counts.items()))
        return Summary(self._entries, self._shape, counts, self._hash.hexdigest())


def inspect(path: str | Path) -> LmdbInfo:
    """Number of entries and form of the first record of the LMDB in the folder ``path``.

    Opens read-only and without locks: nothing is written, and a Caffe reading the same LMDB does
    not notice.

    Raises:
        InputError: no such folder, not an LMDB, empty, or its first record is not a Datum.
    """
    folder = Path(path)
    with LmdbReader(folder) as reader:
        first = next(reader.records(), None)
        if first is None:
            raise InputError(f"{folder}: the LMDB is empty; expected at least one record")
        datum = _parse(folder, first)
        return LmdbInfo(
            path=folder,
            entries=reader.entries,
            channels=datum.channels,
            height=datum.height,
            width=datum.width,
            encoded=datum.encoded,
            is_float=len(datum.float_data) > 0,
            first_label=datum.label,
            first_key=first.key,
        )


def ends(path: Path, count: int) -> tuple[int, list[bytes]]:
    """How many records an LMDB has; the first ``count`` of them, and the last ones, the last one first.

    Raises:
        InputError: it cannot be read.
    """
    with LmdbReader(path) as reader:
        records = [*islice(reader.records(), count), *islice(reader.records(reverse=True), count)]
        return reader.entries, [record.read() for record in records]


def read_summary(path: str | Path) -> Summary:
    """Read every record of an LMDB of raw images and check that all have the first one's shape.

    Raises:
        InputError: as :func:`inspect`; or a record of another shape, or of a wrong length.
    """
    folder = Path(path)
    builder = SummaryBuilder()
    expected = inspect(folder).shape
    with LmdbReader(folder) as reader:
        for record in reader.records():
            datum = _parse(folder, record)
            shape = (datum.channels, datum.height, datum.width)
            if shape != expected or len(datum.data) != np.prod(shape):
                have = f"{'x'.join(map(str, shape))} in {len(datum.data):,} bytes"
                raise InputError(
                    f"{folder}: record {record.shown} is {have}; "
                    f"expected {'x'.join(map(str, expected))} in {np.prod(expected):,} bytes"
                )
            builder.add(shape, datum.label, datum.data)
    return builder.result()


def check_lock(folder: Path) -> None:
    """Check that Caffe can lock an LMDB: every reader writes to its lock.mdb, or creates it.

    Raises:
        InputError: it may not. On a read-only file system LMDB does without.
    """
    lock = folder / "lock.mdb"
    try:
        os.close(os.open(lock, os.O_RDWR))
    except FileNotFoundError:
        if os.access(folder, os.W_OK | os.X_OK) or os.statvfs(folder).f_flag & os.ST_RDONLY:
            return
        raise InputError(
            f"{folder}: {lock.name} is missing and cannot be created there; Caffe needs it: allow it "
            f"(chmod a+w {folder}), or copy the folder"
        ) from None
    except OSError as error:
        if error.errno != errno.EROFS:
            raise InputError(
                f"{lock}: cannot be written ({error.strerror}); Caffe locks what it reads: allow it "
                f"(chmod a+rw {lock}), or copy the folder"
            ) from error


def free_dead_readers(folder: str | Path) -> None:
    """Free the places that dead processes hold among the readers of an LMDB.

    There are 126, in its lock.mdb. A killed reader keeps its place until another process looks, or
    until no process has the LMDB open; where trainings follow each other without a gap the places
    would run out, and Caffe abort with MDB_READERS_FULL. Looking needs one that is free. Where
    nothing can be written there are no such places.
    """
    with (
        _ONE_AT_A_TIME,
        contextlib.suppress(lmdb.Error),
        lmdb.open(str(folder), readonly=True, readahead=False, create=False) as environment,
    ):
        environment.reader_check()


def _parse(folder: Path, record: Record) -> Any:
    try:
        datum = Datum.FromString(record.read())
    except DecodeError:
        datum = None
    if datum is None or not (datum.data or datum.float_data):
        raise InputError(
            f"{folder}: record {record.shown} is not a Caffe Datum; was this LMDB written for Caffe?"
        )
    return datum
