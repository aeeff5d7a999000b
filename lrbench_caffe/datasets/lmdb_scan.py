"""A scan of an LMDB: of raw images the length and the label are read, of encoded ones header and label."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from lrbench_caffe.datasets.datum import Datum
from lrbench_caffe.datasets.datumform import Form, read_form
from lrbench_caffe.datasets.imageheader import KNOWN_FORMATS, Read, image_size, is_image
from lrbench_caffe.datasets.lmdb_reader import LmdbReader, Record
from lrbench_caffe.datasets.scan import ENCODED, EVERY, RAW, TURNED, OnScanned, Scan, Shape, Values
from lrbench_caffe.errors import InputError

_MOST_SHAPES = 256
_LONGEST_TAIL = 64  # bytes behind the pixels
_MOST_TAILS = 1 << 12
_IMAGES = (b"\xff\xd8\xff", b"\x89PNG")  # how JPEG and PNG images begin


class LmdbRecords:
    """The records of an LMDB that Caffe's Data layer reads; see ``data.scan.Records``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.place = str(folder)

    def stamp(self) -> str:
        with LmdbReader(self.folder) as reader:
            return reader.stamp

    def scan(self, progress: OnScanned) -> Scan:
        labels, shapes = Values(), _Shapes()
        with LmdbReader(self.folder) as reader:
            for number, (record, form) in enumerate(_forms(self.folder, reader.records())):
                for label in self._labels(record, form):
                    labels.add(label)
                shapes.add(number, record, form)
                if number % EVERY == 0:
                    progress(number, reader.entries)
            return shapes.scan(reader.entries, labels)

    def find(self, wrong: Callable[[int], bool]) -> tuple[str, int] | None:
        with LmdbReader(self.folder) as reader:
            for record, form in _forms(self.folder, reader.records()):
                for label in filter(wrong, self._labels(record, form)):
                    return f"record {record.shown}", label
        return None

    def _labels(self, record: Record, form: Form) -> Sequence[int]:
        return (form.label,)


class LmdbPixels(LmdbRecords):
    """The same with a label in each pixel (segmentation); labels of encoded images are unknown."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.place = f"{folder} (pixels)"

    def _labels(self, record: Record, form: Form) -> Sequence[int]:
        if form.encoded:
            return ()
        if form.data[1]:
            counts = np.bincount(np.frombuffer(record.read(*form.data), np.uint8), minlength=256)
            return [int(value) for value in np.flatnonzero(counts)]
        values = np.array(Datum.FromString(record.read()).float_data)
        return [int(value) for value in np.unique(np.trunc(values[np.isfinite(values)]))]


def read_labels(folder: Path) -> np.ndarray:
    """The label of each record, in the order in which Caffe reads them: shape (n,), int64.

    Raises:
        InputError: the LMDB is damaged, or a record is no Datum that Caffe could read.
    """
    with LmdbReader(folder) as reader:
        forms = _forms(folder, reader.records())
        return np.fromiter((form.label for _, form in forms), np.int64, reader.entries)


def _forms(folder: Path, records: Iterable[Record]) -> Iterator[tuple[Record, Form]]:
    """The records with their forms, each checked for itself.

    Most data sets have raw images of one size, whose records differ in nothing but the pixels and
    the label behind them. What is before the pixels (which tells their number) and behind them then
    says it all.
    """
    before, end = b"", 0
    known: dict[bytes, Form] = {}  # by the bytes after the pixels
    for record in records:
        same = before != b"" and record.read(0, len(before)) == before
        form = known.get(record.read(end)) if same else None
        if form is None:
            form = _checked(folder, record, read_form(record))
            start, size = form.data
            if size and not form.encoded and record.size - start - size <= _LONGEST_TAIL:
                if not same or len(known) > _MOST_TAILS:
                    before, end, known = record.read(0, start), start + size, {}
                known[record.read(end)] = form
        yield record, form


def _checked(folder: Path, record: Record, form: Form | None) -> Form:
    """Raise an InputError for a record of which Caffe would read more than there is."""
    where = f"{folder}: record {record.shown}"
    if form is None:
        raise InputError(f"{where} is not a Caffe Datum; was this LMDB written for Caffe?")
    if not (form.data[1] if form.encoded else form.values):
        raise InputError(
            f"{where} has no data; allowed: data or float_data of channels x height x width"
        )
    if form.encoded:
        if not is_image(_reader(record, form)):
            raise InputError(
                f"{where} is marked as an encoded image, and begins with {record.read(form.data[0], 8)!r}; "
                f"allowed: what Caffe's OpenCV can decode, such as {KNOWN_FORMATS}"
            )
        return form
    shape = (form.channels, form.height, form.width)
    if min(shape) < 1 or math.prod(shape) != form.values:
        unit = "bytes" if form.data[1] else "values of float_data"
        hint = ""
        if record.read(form.data[0], 4).startswith(_IMAGES):
            hint = "; it is an encoded image, but not marked as encoded"
        raise InputError(
            f"{where} is {' x '.join(map(str, shape))} in {form.values:,} {unit}; allowed: "
            f"channels x height x width, which is {math.prod(shape):,}{hint}"
        )
    return form


def _reader(record: Record, form: Form) -> Read:
    """Reads in a record's encoded image."""
    start, size = form.data
    return lambda begin, count: record.read(start + begin, max(0, min(count, size - begin)))


class _Shapes:
    """Collects the shapes of records."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, int, int, str], str] = {}
        self._last: tuple[int, int, int, str] | None = None
        self._smallest = (1 << 31, 1 << 31)
        self._channels: set[int] = set()
        self._size_step = self._channel_step = 0

    def add(self, number: int, record: Record, form: Form) -> None:
        shape = (form.channels, form.height, form.width, RAW)
        if form.encoded:
            image = image_size(_reader(record, form))
            if image is None:  # Caffe will say whether it can decode it
                return
            shape = (image.channels, image.height, image.width, TURNED if image.turned else ENCODED)
        if shape == self._last:
            return
        if self._last is not None:
            if shape[1:3] != self._last[1:3]:
                self._size_step = math.gcd(self._size_step, number)
            if shape[0] != self._last[0]:
                self._channel_step = math.gcd(self._channel_step, number)
        self._last = shape
        if shape not in self._found and self._matters(shape):
            self._found[shape] = record.shown

    def _matters(self, shape: tuple[int, int, int, str]) -> bool:
        channels, height, width, _ = shape
        smaller = height < self._smallest[0] or width < self._smallest[1]
        new = channels not in self._channels
        self._smallest = min(height, self._smallest[0]), min(width, self._smallest[1])
        self._channels.add(channels)
        return len(self._found) < _MOST_SHAPES or smaller or new

    def scan(self, records: int, labels: Values) -> Scan:
        """The scan. After the last record Caffe continues with the first one."""
        return Scan(
            records=records,
            labels=labels.ranges(),
            shapes=[Shape(*shape, record) for shape, record in self._found.items()],
            size_step=math.gcd(self._size_step, records) if self._size_step else 0,
            channel_step=math.gcd(self._channel_step, records) if self._channel_step else 0,
        )
