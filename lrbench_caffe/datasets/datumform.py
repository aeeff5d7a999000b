"""The label and the form of a serialized Datum, without its pixels.

Protobuf's own parser copies every pixel. Here the fields are walked by their wire format, of which
only tags and lengths are read, so that a record of an encoded image costs its first and last bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from google.protobuf.message import DecodeError

from lrbench_caffe.datasets.datum import Datum
from lrbench_caffe.datasets.lmdb_reader import Record

# Datum's field numbers and wire types (caffe.proto).
_CHANNELS, _HEIGHT, _WIDTH, _LABEL, _ENCODED = (number << 3 for number in (1, 2, 3, 5, 7))
_DATA = 4 << 3 | 2
_FLOAT, _FLOATS = 6 << 3 | 5, 6 << 3 | 2  # one by one, as caffe.proto has them, or packed
_INTS = (_CHANNELS, _HEIGHT, _WIDTH, _LABEL, _ENCODED)
_VARINT = 10  # bytes that one takes at most
_WINDOW = 64  # bytes that are looked at together


@dataclass(frozen=True)
class Form:
    """The form of a Datum.

    Attributes:
        channels, height, width, label: its fields; 0 where they are missing.
        encoded: whether its data is an encoded image.
        data: where its bytes begin in the record, and how many there are.
        floats: how many values float_data has.
    """

    channels: int
    height: int
    width: int
    label: int
    encoded: bool
    data: tuple[int, int]
    floats: int

    @property
    def values(self) -> int:
        """The number of values that Caffe reads: those of data, else those of float_data."""
        return self.data[1] or self.floats


class _Unusual(Exception):
    """A text that protobuf's own parser has to read."""


def read_form(record: Record) -> Form | None:
    """The form of a record; None where it is not a Datum."""
    try:
        return _walk(record)
    except _Unusual:
        pass
    try:
        datum = Datum.FromString(record.read())
    except DecodeError:
        return None
    position = record.read().find(datum.data) if datum.data else 0
    return Form(
        datum.channels, datum.height, datum.width, datum.label, datum.encoded,
        (position, len(datum.data)), len(datum.float_data),
    )  # fmt: skip


def _walk(record: Record) -> Form:
    numbers = dict.fromkeys(_INTS, 0)
    data, floats = (0, 0), 0
    position, begin, window = 0, 0, record.read(0, _WINDOW)
    while position < record.size:
        if position + 2 * _VARINT > begin + len(window):
            begin, window = position, record.read(position, _WINDOW)
        tag, at = _varint(window, position - begin)
        if tag in numbers:
            numbers[tag], at = _varint(window, at)
            position = begin + at
        elif tag in (_DATA, _FLOATS):
            length, at = _varint(window, at)
            position = begin + at + length
            if position > record.size or (tag == _FLOATS and length % 4):
                raise _Unusual
            if tag == _DATA:
                data = begin + at, length
            else:
                floats += length // 4
        elif tag == _FLOAT:
            run = _run_of_floats(record, position)
            floats, position = floats + run, position + 5 * run
        else:
            raise _Unusual
    channels, height, width, label = (_int32(numbers[tag]) for tag in _INTS[:4])
    return Form(channels, height, width, label, bool(numbers[_ENCODED]), data, floats)


def _varint(window: bytes, at: int) -> tuple[int, int]:
    """A number, and where the next one begins."""
    value = shift = 0
    for place in range(at, min(len(window), at + _VARINT)):
        byte = window[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place + 1
        shift += 7
    raise _Unusual


def _int32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def _run_of_floats(record: Record, position: int) -> int:
    """How many values of float_data follow each other from here on, five bytes each."""
    rest = np.frombuffer(record.read(position), np.uint8)
    tags = rest[::5]
    others = np.flatnonzero(tags != _FLOAT)
    run = int(others[0]) if len(others) else len(tags)
    if 5 * run > len(rest):
        raise _Unusual
    return run
