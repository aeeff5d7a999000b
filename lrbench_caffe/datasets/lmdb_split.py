"""Splits LMDBs into two by record: those held out, and the rest.

Caffe's Data layer reads an LMDB from the first key to the last, and has no index to skip records
by. So each part is an LMDB of its own, with the original's records and keys unchanged and in its
order: any Caffe reads it, with any layers, on a CPU or a GPU, and a resumed training finds its
place by counting records, as always.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import lmdb
import numpy as np
from numpy.typing import NDArray

from lrbench_caffe.datasets.lmdb_reader import LmdbReader
from lrbench_caffe.datasets.lmdb_writer import writing_to
from lrbench_caffe.errors import InputError

_COMMIT_BYTES = 1 << 25  # written before each commit, which bounds the memory of a transaction
_ROOM = 1.1  # bytes of both parts by those of the original: pages of the trees are less full


def choose(labels: Sequence[int] | NDArray[np.int64], count: int, seed: int) -> NDArray[np.bool_]:
    """Which records are held out: a share of each label, drawn at random.

    Each label gets the whole part of count * n / N (n of all N records have it). What is missing
    to ``count`` goes to the labels with the largest remainders, by lot among equal ones, and last
    to labels of a single record: what nothing was trained on says nothing about a training.

    Args:
        labels: of all records, shape (N,).
        count: how many are held out, at most N.
        seed: 0 to 2**32 - 1. The choice depends on nothing else: ``RandomState`` draws the same
            numbers in every version of NumPy.

    Returns:
        Shape (N,), True for a record that is held out.
    """
    numbers = np.asarray(labels)
    random = np.random.RandomState(seed)
    order = random.permutation(len(numbers))
    _, classes, sizes = np.unique(numbers, return_inverse=True, return_counts=True)
    quotas, remainders = np.divmod(count * sizes, max(1, len(numbers)))
    lots = random.permutation(len(sizes))
    neediest = np.lexsort((lots, -remainders, sizes == 1))
    quotas[neediest[: count - int(quotas.sum())]] += 1
    by_class = order[np.argsort(classes[order], kind="stable")]
    held = np.zeros(len(numbers), dtype=np.bool_)
    for end, size, quota in zip(np.cumsum(sizes), sizes, quotas):
        held[by_class[end - size : end - size + quota]] = True
    return held


def digest_of(held: NDArray[np.bool_]) -> str:
    """32 hexadecimal digits that tell one choice of records from another."""
    return hashlib.sha256(np.packbits(held).tobytes() + b"%d" % len(held)).hexdigest()[:32]


def split_bytes(source: Path) -> int:
    """About how many bytes the two parts of an LMDB take together.

    Raises:
        InputError: it cannot be read, or its order is one that the parts could not have.
    """
    with LmdbReader(source) as reader:
        if not reader.ordered:
            raise InputError(f"{source}: its keys are not in the order of their bytes")
        return int((reader.meta.last_page + 1) * reader.meta.page_size * _ROOM) + (1 << 20)


def split_lmdb(source: Path, held: NDArray[np.bool_], rest: Path, held_out: Path) -> None:
    """Write the two parts of an LMDB; what is at their places is replaced.

    A part that a kill left unfinished looks like an LMDB: the caller marks what is complete.

    Args:
        held: which records are held out, in the order in which Caffe reads them.
        rest, held_out: the folders of the parts.

    Raises:
        InputError: the source cannot be read or has another number of records; the disk is full.
    """
    with LmdbReader(source) as reader, contextlib.ExitStack() as stack:
        if reader.entries != len(held):
            raise InputError(f"{source}: {reader.entries:,} records; expected {len(held):,}")
        room = 2 * split_bytes(source) + (1 << 24)
        parts = [stack.enter_context(_part(path, room)) for path in (rest, held_out)]
        for record, is_held in zip(reader.records(), held):
            parts[int(is_held)].put(record.key, record.read())


class _Part:
    """An LMDB that is being written, record by record in the order of their keys."""

    def __init__(self, path: Path, environment: lmdb.Environment) -> None:
        self._path, self._environment = path, environment
        self._transaction = environment.begin(write=True)
        self._written = 0

    def put(self, key: bytes, value: bytes) -> None:
        with writing_to(self._path):
            self._transaction.put(key, value, append=True)
            self._written += len(value)
            if self._written >= _COMMIT_BYTES:
                self._transaction.commit()
                self._transaction = self._environment.begin(write=True)
                self._written = 0

    def finish(self) -> None:
        with writing_to(self._path):
            self._transaction.commit()
            self._environment.sync(True)


@contextlib.contextmanager
def _part(path: Path, room: int) -> Iterator[_Part]:
    with writing_to(path):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        environment = lmdb.open(str(path), map_size=room, sync=False, metasync=False)
    try:
        part = _Part(path, environment)
        yield part
        part.finish()
    finally:
        environment.close()
