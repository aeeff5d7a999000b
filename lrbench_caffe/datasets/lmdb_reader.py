"""Reads an LMDB by its file format and checks every page before using it.

LMDB itself maps the file into memory and follows whatever numbers it finds there: a damaged or
shortened file ends the process that reads it (SIGSEGV, SIGBUS). This reader takes pages with
``pread``, so that all that can come of damage is an :class:`InputError` that names the folder. A
tree that it has walked to the end is one that LMDB can walk, too. It takes no lock and writes
nothing, and reads no more of a large record than it is asked for.

The format is that of LMDB 0.9 on 64-bit little-endian machines (lmdb.h, mdb.c), which is what Caffe
writes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from lrbench_caffe.errors import InputError

_MAGIC, _VERSION = 0xBEEFC0DE, 1
_EMPTY = (1 << 64) - 1  # the root of a tree without pages
_BRANCH, _LEAF, _OVERFLOW, _META = 1, 2, 4, 8  # kinds of pages
_KINDS = 0x2F  # the bits of a page's flags that tell its kind
_BIG = 1  # a record that is kept in pages of its own
_ORDERED = 0  # flags of a tree whose keys are in the order of their bytes
_TREE_FLAGS = (_ORDERED, 2, 8)  # and reverse or integer keys
_DEEPEST = 32  # levels that LMDB follows

_HEADER = struct.Struct(
    "<QHHHH"
)  # page number, padding, flags, lower and upper end of the free space
_HEADER_SIZE = _HEADER.size
# Behind a meta page's header: magic, version, address and size of the map; the trees of free pages
# and of records; last page, transaction.
_TREE = (
    "IHH5Q"  # page size or padding, flags, depth; branch, leaf and overflow pages, entries, root
)
_META_BODY = struct.Struct(f"<IIQQ{_TREE}{_TREE}QQ")
_META_SIZE = _HEADER_SIZE + _META_BODY.size
_NODE = struct.Struct(
    "<HHHH"
)  # data size or page number (two halves), flags or its third part, key size
_LARGEST_MAP = 1 << 47  # bytes that a process can address


@dataclass(frozen=True)
class Meta:
    """The content of a meta page.

    Attributes:
        page_size: bytes of a page.
        map_size: bytes that a reader maps.
        flags, depth, entries, root: of the tree of records; its root is None where there are no
            records.
        last_page: the highest page in use.
        transaction: the transaction that wrote it.
    """

    page_size: int
    map_size: int
    flags: int
    depth: int
    entries: int
    root: int | None
    last_page: int
    transaction: int


class Record:
    """A record, of which only its key and its part in the tree's own page have been read yet."""

    __slots__ = ("_file", "_offset", "_page", "key", "size")

    def __init__(self, file: LmdbReader, key: bytes, size: int, page: bytes, offset: int) -> None:
        self._file = file
        self._page = page  # the page with the record, or the first one of a large record
        self._offset = (
            offset  # of the record in that page, in bytes; negative: of a large one in the file
        )
        self.key = key
        self.size = size

    def read(self, start: int = 0, count: int | None = None) -> bytes:
        """``count`` bytes from ``start`` on, fewer at the record's end; None for all of the rest."""
        end = self.size if count is None else min(self.size, start + count)
        if self._offset >= 0:
            return self._page[self._offset + start : self._offset + end]
        if end + _HEADER_SIZE <= len(self._page):
            return self._page[_HEADER_SIZE + start : _HEADER_SIZE + end]
        return self._file.pread(end - start, start - self._offset)

    @property
    def shown(self) -> str:
        """Its key as text."""
        return self.key.decode(errors="replace")


class LmdbReader:
    """An open LMDB, as its newest complete transaction left it; a context manager.

    Args:
        folder: the folder with data.mdb in it.

    Raises:
        InputError: there is none, it may not be read, or its header is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        _check_folder(folder)
        try:
            self._descriptor = os.open(folder / "data.mdb", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise InputError(f"{folder / 'data.mdb'}: cannot be read ({error.strerror})") from error
        try:
            self.meta = self._read_meta()
            self._check_size()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> LmdbReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._descriptor)

    @property
    def entries(self) -> int:
        return self.meta.entries

    @property
    def ordered(self) -> bool:
        """Whether the keys are in the order of their bytes, as in what Caffe's tools write."""
        return self.meta.flags == _ORDERED

    @property
    def stamp(self) -> str:
        """A value that changes whenever the file does: its path, its times, and its header."""
        status = os.fstat(self._descriptor)
        times = (
            status.st_dev,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )
        return repr((os.path.realpath(self.folder), times, self.meta))

    def records(self, reverse: bool = False) -> Iterator[Record]:
        """All records in the order of their keys, which is the order in which Caffe reads them.

        Raises:
            InputError: the tree is damaged; at the latest at its end, where records are missing.
        """
        count, last = 0, None
        ordered = self.ordered
        for record in self._walk(self.meta.root, 1, reverse) if self.meta.root is not None else ():
            key = record.key
            if ordered and last is not None and (key >= last if reverse else key <= last):
                raise self._damaged(f"record {record.shown} is out of order")
            count, last = count + 1, key
            yield record
        if count != self.meta.entries:
            raise self._damaged(f"{count:,} records; its header announces {self.meta.entries:,}")

    def pread(self, count: int, offset: int) -> bytes:
        """Bytes of the file; all that were asked for."""
        try:
            content = os.pread(self._descriptor, count, offset)
            while 0 < len(content) < count:  # a single call ends at 2 GiB
                more = os.pread(self._descriptor, count - len(content), offset + len(content))
                if not more:
                    break
                content += more
        except OSError as error:
            raise InputError(
                f"{self.folder / 'data.mdb'}: cannot be read ({error.strerror})"
            ) from error
        if len(content) < count:
            raise self._damaged(
                f"data.mdb ends at {offset + len(content):,} bytes, before a page in use"
            )
        return content

    # -- the header -------------------------------------------------------------------------------

    def _read_meta(self) -> Meta:
        """The newer one of the two meta pages; LMDB wants both."""
        size = os.fstat(self._descriptor).st_size
        if size < 2 * _META_SIZE:
            raise self._bad(f"data.mdb has {size:,} bytes")
        first = self._one_meta(0, 0)
        second = self._one_meta(1, first.page_size)
        if second.page_size != first.page_size:
            raise self._bad("its two headers differ in the page size")
        return first if first.transaction >= second.transaction else second

    def _one_meta(self, number: int, offset: int) -> Meta:
        page = self.pread(_META_SIZE, offset)
        _, _, kind, _, _ = _HEADER.unpack_from(page)
        body = _META_BODY.unpack_from(page, _HEADER_SIZE)
        magic, version, _, map_size, page_size = body[:5]
        flags, depth, entries, root = body[13], body[14], body[18], body[19]
        last_page, transaction = body[20:]
        if magic != _MAGIC or not kind & _META:
            raise self._bad(f"header {number} has no LMDB mark")
        if version != _VERSION:
            raise self._bad(f"format {version}; Caffe reads {_VERSION}")
        if page_size & (page_size - 1) or not 256 <= page_size <= 1 << 16:
            raise self._bad(f"header {number}: a page size of {page_size:,} bytes")
        if map_size > _LARGEST_MAP:
            raise self._bad(f"header {number}: a map of {map_size:,} bytes")
        return Meta(
            page_size, map_size, flags, depth, entries, None if root == _EMPTY else root, last_page,
            transaction,
        )  # fmt: skip

    def _check_size(self) -> None:
        """Refuse a file that is shorter than its header says, and a tree that is not one of Caffe's."""
        meta = self.meta
        announced = (meta.last_page + 1) * meta.page_size
        size = os.fstat(self._descriptor).st_size
        if size < announced:
            raise InputError(
                f"{self.folder}: truncated, data.mdb has {size:,} bytes; its header announces {announced:,}"
            )
        if meta.flags not in _TREE_FLAGS:
            raise self._bad(f"several values for a key (flags {meta.flags:#x}); Caffe reads one")
        if (meta.root is None) != (meta.entries == 0):
            raise self._bad(
                f"{meta.entries:,} records and {'no' if meta.root is None else 'a'} tree"
            )

    # -- the tree ---------------------------------------------------------------------------------

    def _walk(self, number: int, level: int, reverse: bool) -> Iterator[Record]:
        page, pointers = self._page(number, level)
        if reverse:
            pointers = pointers[::-1]
        if level == self.meta.depth:
            for pointer in pointers:
                yield self._record(number, page, pointer)
            return
        for pointer in pointers:
            low, high, highest, size = _NODE.unpack_from(page, pointer)
            if pointer + _NODE.size + size > self.meta.page_size:
                raise self._damaged(f"page {number}: a node beyond its end")
            yield from self._walk(low | high << 16 | highest << 32, level + 1, reverse)

    def _page(self, number: int, level: int) -> tuple[bytes, tuple[int, ...]]:
        """A page of the tree, and where in it its nodes are."""
        if not 1 < number <= self.meta.last_page:
            raise self._damaged(
                f"page {number} is named; pages of the tree are 2 to {self.meta.last_page}"
            )
        size = self.meta.page_size
        page = self.pread(size, number * size)
        own, _, flags, lower, upper = _HEADER.unpack_from(page)
        wanted = _LEAF if level == self.meta.depth else _BRANCH
        if own != number or flags & _KINDS != wanted or level > _DEEPEST:
            raise self._damaged(
                f"page {number} is not a {'leaf' if wanted == _LEAF else 'branch'} page"
            )
        nodes = (lower - _HEADER_SIZE) // 2
        if not (nodes > 0 and lower <= upper <= size and lower % 2 == 0):
            raise self._damaged(f"page {number}: {nodes} nodes")
        pointers = struct.unpack_from(f"<{nodes}H", page, _HEADER_SIZE)
        if min(pointers) < upper or max(pointers) > size - _NODE.size:
            raise self._damaged(f"page {number}: a node outside of it")
        return page, pointers

    def _record(self, number: int, page: bytes, pointer: int) -> Record:
        low, high, flags, key_size = _NODE.unpack_from(page, pointer)
        size = low | high << 16
        begin = pointer + _NODE.size
        key = page[begin : begin + key_size]
        begin += key_size
        page_size = self.meta.page_size
        if flags & ~_BIG or begin + (8 if flags & _BIG else size) > page_size:
            raise self._damaged(f"page {number}: a record beyond its end, or not one of Caffe's")
        if not flags & _BIG:
            return Record(self, key, size, page, begin)
        (first,) = struct.unpack_from("<Q", page, begin)
        needed = -(-(_HEADER_SIZE + size) // page_size)
        if not 1 < first <= self.meta.last_page - needed + 1:
            raise self._damaged(f"page {number}: a large record at page {first}")
        offset = first * page_size
        large = self.pread(page_size, offset)
        own, _, kind, pages, more = _HEADER.unpack_from(large)
        if own != first or kind & _KINDS != _OVERFLOW or pages | more << 16 < needed:
            raise self._damaged(
                f"page {first} is not the beginning of a large record of {size:,} bytes"
            )
        return Record(self, key, size, large, -offset - _HEADER_SIZE)

    def _bad(self, what: str) -> InputError:
        return InputError(f"{self.folder}: cannot be opened as an LMDB ({what})")

    def _damaged(self, what: str) -> InputError:
        return InputError(f"{self.folder}: damaged LMDB ({what})")


def _check_folder(folder: Path) -> None:
    try:
        if not folder.exists():
            raise InputError(f"{folder}: no such LMDB folder")
        if not folder.is_dir():
            raise InputError(f"{folder}: is a file; a Caffe LMDB is a folder with a data.mdb in it")
        data = folder / "data.mdb"
        if data.is_file():
            return
        is_leveldb = (folder / "CURRENT").exists()
        there = data.exists()
    except OSError as error:  # a folder that may not be entered
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from error
    if there:
        raise InputError(f"{folder}: not an LMDB, its data.mdb is not a file")
    hint = " (it looks like a LevelDB, which needs backend: LEVELDB)" if is_leveldb else ""
    raise InputError(f"{folder}: not an LMDB, it contains no data.mdb{hint}")
