"""Scans the records of a data set: which labels and which shapes occur.

``LmdbRecords``, ``ImageList`` and ``Hdf5Rows``, in the modules beside this one, scan what Caffe's
data layers read. A scan does not depend on a net, so that it can be kept for as long as the data
stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

OnScanned = Callable[[int, int], None]  # records so far, and in all
Ranges = list[tuple[int, int]]  # first and last value of each, in order

RAW, ENCODED, TURNED = (
    "raw",
    "encoded",
    "turned",
)  # TURNED: encoded, and perhaps turned by its Exif data
EVERY = 1024  # records between two calls of progress
_MOST_VALUES = 1 << 17  # different labels that are distinguished
_MOST_RANGES = 1 << 13


@dataclass(frozen=True)
class Shape:
    """A shape that occurs.

    Attributes:
        channels, height, width: channels are 0 where they depend on the decoder.
        kind: RAW, ENCODED or TURNED.
        record: the first record with it.
    """

    channels: int
    height: int
    width: int
    kind: str
    record: str


@dataclass(frozen=True)
class Scan:
    """The properties of a data set's records.

    Attributes:
        records: how many there are.
        labels: the labels that occur, as whole numbers, as Caffe takes them.
        unlabelled: the first record whose label is not a number; None where all are.
        shapes: the shapes that occur, the first record's first; of very many only some, with the
            smallest sides and all numbers of channels among them. Empty where they are not known.
        size_step: records of another height or width than the one before are at multiples of this
            number only; 0 where all have one size.
        channel_step: the same of their channels.
    """

    records: int
    labels: Ranges
    unlabelled: str | None = None
    shapes: list[Shape] = field(default_factory=list)
    size_step: int = 0
    channel_step: int = 0

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "shapes": [list(vars(shape).values()) for shape in self.shapes]}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Scan:
        """Raises a KeyError, TypeError or ValueError for what is not a scan."""
        unlabelled = content["unlabelled"]
        return cls(
            records=int(content["records"]),
            labels=[(int(low), int(high)) for low, high in content["labels"]],
            unlabelled=None if unlabelled is None else str(unlabelled),
            shapes=[Shape(*shape) for shape in content["shapes"]],
            size_step=int(content["size_step"]),
            channel_step=int(content["channel_step"]),
        )


class Records(Protocol):
    """The records of a data layer, for a scan."""

    @property
    def place(self) -> str:
        """The place of the data, for messages and as a key."""

    def stamp(self) -> str:
        """A value that changes whenever the data does, found without reading it."""

    def scan(self, progress: OnScanned) -> Scan:
        """Look at all records.

        Raises:
            InputError: it is damaged, or a record is not one that Caffe can read.
        """

    def find(self, wrong: Callable[[int], bool]) -> tuple[str, int] | None:
        """The first record whose label is ``wrong``, in words, and the label; None where there is none."""


def no_progress(done: int, total: int) -> None:
    """Show no progress."""


class Values:
    """The distinct whole numbers among many, as ranges."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._wide: tuple[int, int] | None = None  # instead of the set, if there are too many

    def add(self, value: int) -> None:
        if value not in self._seen:
            self._seen.add(value)
            if len(self._seen) > _MOST_VALUES:
                self._widen()

    def ranges(self) -> Ranges:
        """The added numbers as ranges; very many as one range from the smallest to the largest."""
        if self._wide is not None:
            self._widen()
            return [self._wide]
        ranges: Ranges = []
        for value in sorted(self._seen):
            if ranges and ranges[-1][1] == value - 1:
                ranges[-1] = ranges[-1][0], value
            else:
                ranges.append((value, value))
        return ranges if len(ranges) <= _MOST_RANGES else [(ranges[0][0], ranges[-1][1])]

    def _widen(self) -> None:
        values = [*self._seen, *(self._wide or ())]
        self._wide = min(values), max(values)
        self._seen.clear()
