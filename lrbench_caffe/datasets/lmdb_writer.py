"""Writes image sets as Caffe LMDBs, which are complete once they have their final name."""

from __future__ import annotations

import errno
import fcntl
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import lmdb
import numpy as np
from numpy.typing import NDArray

from lrbench_caffe.datasets.datum import datum_bytes
from lrbench_caffe.datasets.lmdb_info import Summary, SummaryBuilder
from lrbench_caffe.errors import InputError, ParameterError, named
from lrbench_caffe.files import is_full, replacing_durably
from lrbench_caffe.progress import SILENT, Progress, track

_COMMIT_EVERY = 1000  # records; as in Caffe's own tools, and it bounds the memory of a transaction
_PAGE = 4096
_SCANTY = 1 << 18  # bytes free: less than LMDB wants at a time
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make ``folder`` if need be and hold it: a second writer waits until the first is done or dead."""
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn whatever keeps us from writing ``path`` into one line that names it."""
    try:
        yield
    except (lmdb.Error, OSError) as error:
        number = getattr(error, "errno", None)
        # LMDB reports a write that the full disk cut short as an input/output error.
        cut_short = (isinstance(error, lmdb.Error) or number == errno.EIO) and is_full(
            path.parent, _SCANTY
        )
        if isinstance(error, lmdb.DiskError) or number in _FULL or cut_short:
            raise InputError(f"{path}: {_disk_full()}") from error
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ParameterError(
            "{0}: cannot write ({1}); choose another {out}", path, reason
        ) from error


def _disk_full() -> str:
    return f"disk full; free some space or choose another {named('out')}"


def write_lmdb(
    path: Path,
    images: Iterable[NDArray[np.uint8]],
    labels: Sequence[int] | NDArray[np.uint8],
    shape: tuple[int, int, int],
    key_digits: int = 8,
    progress: Progress = SILENT,
) -> Summary:
    """Write images and labels, in the order given, as the Caffe LMDB ``path``; replaces one that is there.

    It is written beside its final name and renamed when it is complete and on the disk, so an
    interrupted run leaves nothing that could be mistaken for a finished one.

    Args:
        images: arrays of shape (channels, height, width), as many as there are labels.
        labels: the class numbers.
        shape: (channels, height, width) of every image.
        key_digits: keys are the record numbers with that many digits ("%08d" in Caffe's tools).
        progress: told how many are written.

    Raises:
        InputError: the disk is full, or the folder cannot be written.
    """
    _check_space(path, len(labels), shape)
    partial = path.with_name(f".{path.name}.partial")
    with writing_to(path):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
    try:
        with writing_to(path):
            counted = track(zip(images, labels), progress, f"writing {path.name}", len(labels))
            summary = _fill(partial, counted, len(labels), shape, key_digits)
            _replace(partial, path)
        return summary
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_file(path: Path, content: bytes) -> None:
    """Write a file beside its final name and rename it when it is complete."""
    with writing_to(path), replacing_durably(path) as partial:
        partial.write_bytes(content)


def stored_bytes(count: int, shape: tuple[int, int, int]) -> int:
    """About how many bytes an LMDB of ``count`` images takes.

    A record of more than half a page fills whole pages of its own: a 40 x 40 colour image takes
    two.
    """
    record = math.prod(shape) + 48
    each = record if record < _PAGE // 2 else math.ceil(record / _PAGE) * _PAGE + 32
    return int(count * each * 1.05) + 16 * _PAGE


def _check_space(path: Path, count: int, shape: tuple[int, int, int]) -> None:
    needed = stored_bytes(count, shape)
    with writing_to(path):
        usage = shutil.disk_usage(path.parent)
    if usage.total > 0 and usage.free < needed:
        needs, free = f"{needed / 1e6:,.1f} MB", f"{usage.free / 1e6:,.1f} MB"
        raise InputError(f"{path}: needs about {needs}, {free} are free there; {_disk_full()}")


def _fill(
    folder: Path,
    labelled: Iterable[tuple[NDArray[np.uint8], int]],
    count: int,
    shape: tuple[int, int, int],
    key_digits: int,
) -> Summary:
    builder = SummaryBuilder()
    # The map is address space, not disk: the file grows with what is written. Syncing once at the
    # end is enough, since nothing counts before the rename.
    map_size = 2 * stored_bytes(count, shape) + (1 << 24)
    environment = lmdb.open(str(folder), map_size=map_size, sync=False, metasync=False)
    try:
        records = enumerate(labelled)
        for _ in range(0, count, _COMMIT_EVERY):
            with environment.begin(write=True) as transaction:
                for number, (image, label) in islice(records, _COMMIT_EVERY):
                    if image.shape != shape:
                        raise ValueError(f"image {number} has the shape {image.shape}, not {shape}")
                    key = b"%0*d" % (key_digits, number)
                    transaction.put(key, datum_bytes(image, int(label)), append=True)
                    builder.add(shape, int(label), image.tobytes())
        environment.sync(True)
    finally:
        environment.close()
    return builder.result()


def _replace(partial: Path, path: Path) -> None:
    """Give the complete folder its name; an earlier one is removed only now."""
    old = path.with_name(f".{path.name}.old")
    _remove(old)
    with suppress(FileNotFoundError):
        os.rename(path, old)
    os.rename(partial, path)
    _remove(old)


def _remove(path: Path) -> None:
    """Remove what an LMDB takes the place of: a folder, or a file or link of its name."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
