"""Schedules trainings of known lengths: which to begin first, and which of them would end first."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

GOOD_ENOUGH = 1.05  # times the shortest time there is; for less a training is not cut


def pack(lengths: Sequence[int], slots: int, unit: int) -> list[tuple[int, int]]:
    """The order in which to begin trainings, some of them in two parts.

    The longest first; and where that leaves slots idle at the end, by the wrap-around rule
    (McNaughton 1959): a training that would end too late has its first part at the beginning of
    another slot.

    Args:
        lengths: iterations of each training.
        slots: how many run at a time.
        unit: lengths of parts are multiples of this many iterations.

    Returns:
        (index, iterations after which it is left or has ended), in the order of their beginnings.
    """
    order = sorted((i for i, length in enumerate(lengths) if length > 0), key=lambda i: -lengths[i])
    if not order:
        return []
    shortest = max(lengths[order[0]], -(-sum(lengths) // slots))
    if _time([lengths[i] for i in order], slots) <= GOOD_ENOUGH * shortest:
        return [(i, lengths[i]) for i in order]
    return _wrap(order, lengths, -(-shortest // unit) * unit)


def _time(lengths: Sequence[int], slots: int) -> int:
    """When all have ended that begin in this order as soon as a slot is free."""
    ends = [0] * slots
    for length in lengths:
        heapq.heappush(ends, heapq.heappop(ends) + length)
    return max(ends)


def _wrap(order: Sequence[int], lengths: Sequence[int], time: int) -> list[tuple[int, int]]:
    """Slot after slot is filled; what does not fit into one begins the next one, before its other part."""
    begins: list[tuple[int, int, int]] = []  # time, index, where it is left
    at = 0  # in the slot that is being filled
    for i in order:
        over = at + lengths[i] - time
        if over > 0:
            begins.append((0, i, over))
        begins.append((at, i, lengths[i]))
        at = over if over >= 0 else at + lengths[i]
    return [(i, until) for _, i, until in sorted(begins, key=lambda begin: begin[0])]


class Ends(Generic[T]):
    """Trainings that go on at the same time, in the order in which they would end if all iterations took the
    same time and each training began when it was asked for.

    Decisions have to be a function of the results, not of the time that each took. In the order in
    which the trainings were asked for, all slots would wait for the longest one; in this order
    hardly any slot does.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._ends: list[tuple[float, int, T]] = []
        self._reached: dict[str, tuple[float, int]] = {}  # of each training: when, and how far
        self._count = 0

    def __len__(self) -> int:
        return len(self._ends)

    def begin(self, item: T, training: str, until: int, scale: float = 1.0) -> None:
        """Add a training or a part of one.

        Args:
            training: which one it is; its parts go on from each other.
            until: the iteration at which it ends.
            scale: of its iterations; those with another batch take another time. With 0 for all,
                they come in the order in which they began.
        """
        when, before = self._reached.get(training, (0.0, 0))
        end = max(self._now, when) + scale * max(0, until - before)
        self._reached[training] = end, max(until, before)
        heapq.heappush(self._ends, (end, self._count, item))
        self._count += 1

    def next(self) -> T:
        """Take out what ends first; of several that end at the same time, what began first."""
        self._now, _, item = heapq.heappop(self._ends)
        return item
