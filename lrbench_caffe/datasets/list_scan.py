"""Scans of what Caffe's ImageData and HDF5Data layers read: the labels in a list, or in HDF5 files."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lrbench_caffe.datasets.scan import EVERY, OnScanned, Scan, Values
from lrbench_caffe.errors import InputError

_NUMBER = re.compile(rb"\s*([+-]?\d+)")  # what C's atoi takes; Caffe reads labels with it
_DIGITS = 18  # beyond them a number is none for atoi
_CHUNK = 1 << 20  # values of an HDF5 file that are read together


class ImageList:
    """The list of an ImageData layer: in each line a file and, behind its last space, the label."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place = str(path)

    def stamp(self) -> str:
        return _stamp(self.path)

    def scan(self, progress: OnScanned) -> Scan:
        labels, unlabelled, count = Values(), None, 0
        total = os.stat(self.path).st_size  # in bytes, as lines are not known
        done = 0
        for where, label, size in self._labels():
            count, done = count + 1, done + size
            if label is not None:
                labels.add(label)
            elif unlabelled is None:
                unlabelled = where
            if count % EVERY == 0:
                progress(done, total)
        return Scan(count, labels.ranges(), unlabelled)

    def find(self, wrong: Callable[[int], bool]) -> tuple[str, int] | None:
        return next(
            ((where, n) for where, n, _ in self._labels() if n is not None and wrong(n)), None
        )

    def _labels(self) -> Iterator[tuple[str, int | None, int]]:
        """The number, label and length of each line that names a file."""
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        match = _NUMBER.match(line.rstrip(b"\r\n").rpartition(b" ")[2])
                        label = int(match[1]) if match and len(match[1]) <= _DIGITS else None
                        yield f"line {number}", label, len(line)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror})") from error


class Hdf5Rows:
    """One data set in all files of an HDF5Data layer.

    Args:
        path: the list of the files.
        name: the data set, which is a top of the layer.
        files: their names, in the list's order.
    """

    def __init__(self, path: Path, name: str, files: list[Path]) -> None:
        self.path, self.name, self.files = path, name, files
        self.place = f"{path} ({name})"

    def stamp(self) -> str:
        return "\n".join([self.name, *map(_stamp, (self.path, *self.files))])

    def scan(self, progress: OnScanned) -> Scan:
        """A file that cannot be read has no labels here: Caffe reports the reason."""
        labels, unlabelled, count = Values(), None, 0
        for values in self._values():
            numbers = np.isfinite(values.flat)
            if unlabelled is None and not numbers.all():
                unlabelled = values.where(int(np.argmin(numbers)))
            for value in np.unique(np.trunc(values.flat[numbers])).tolist():
                labels.add(int(value))
            count += values.rows
            progress(values.file, len(self.files))
        return Scan(count, labels.ranges(), unlabelled)

    def find(self, wrong: Callable[[int], bool]) -> tuple[str, int] | None:
        for values in self._values():
            for place, value in enumerate(np.trunc(values.flat).tolist()):
                if math.isfinite(value) and wrong(int(value)):
                    return values.where(place), int(value)
        return None

    def _values(self) -> Iterator[_HDF5Rows]:
        """The data set of each file, where it is one of numbers, some rows at a time."""
        import h5py  # which takes its time

        for number, path in enumerate(self.files):
            # What is wrong with a file, Caffe will say.
            with (
                contextlib.suppress(OSError, KeyError, RuntimeError, ValueError),
                h5py.File(path, "r") as file,
            ):
                data = file[self.name]
                if (
                    not isinstance(data, h5py.Dataset)
                    or data.dtype.kind not in "iuf"
                    or not data.size
                ):
                    continue
                table = data if data.ndim else data[()].reshape(1)
                step = max(1, _CHUNK * len(table) // table.size)
                for row in range(0, len(table), step):
                    part = np.asarray(table[row : row + step], dtype=np.float64)
                    yield _HDF5Rows(part.ravel(), number, path, row, len(part))


@dataclass(frozen=True)
class _HDF5Rows:
    """Some rows of a data set: all their values; the file's number and path, the first row, how many."""

    flat: np.ndarray
    file: int
    path: Path
    row: int
    rows: int

    def where(self, place: int) -> str:
        """The row of the value at ``place``, in words."""
        return f"row {self.row + place * self.rows // len(self.flat)} of {self.path}"


def _stamp(path: Path) -> str:
    try:
        status = os.stat(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    times = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return repr((os.path.realpath(path), times))
