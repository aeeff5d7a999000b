"""The order of trainings on slots, against times by hand and a simulation of slots."""

from __future__ import annotations

import numpy as np
import pytest

from lrbench_caffe.tuning.packing import GOOD_ENOUGH, Ends, pack


def time(pieces: list[tuple[int, int]], slots: int) -> int:
    """When all have ended that begin in this order as soon as a slot is free; a training is never in two."""
    free, ended, done = [0] * slots, {}, {}
    for index, until in pieces:
        slot = int(np.argmin(free))
        begin = max(free[slot], ended.get(index, 0))
        free[slot] = ended[index] = begin + until - done.get(index, 0)
        done[index] = until
    return max(free)


def test_by_hand() -> None:
    # Three and a half trainings on two slots: 20 + 14 at best; uncut, 40 - 6 are 40 and 34.
    assert pack([10, 10, 10, 6], 2, 1) == [(0, 10), (1, 2), (2, 10), (1, 10), (3, 6)]
    assert time(pack([10, 10, 10, 6], 2, 1), 2) == 18


@pytest.mark.parametrize(
    "lengths", [[10, 10, 6, 6], [10], [10, 6], [6, 10, 10, 10, 10, 6], [5, 5, 5]]
)
def test_nothing_is_cut_where_that_gains_nothing(lengths: list[int]) -> None:
    slots = 3 if lengths == [5, 5, 5] else 2
    pieces = pack(lengths, slots, 1)
    assert sorted(pieces) == sorted(enumerate(lengths))
    assert [until for _, until in pieces] == sorted(lengths, reverse=True)


def test_what_has_nothing_left_is_left_out() -> None:
    assert pack([0, 4, 0], 2, 1) == [(1, 4)]
    assert pack([0, 0], 2, 1) == []
    assert pack([], 2, 1) == []


@pytest.mark.parametrize("slots", [1, 2, 3, 8])
def test_any_lengths(slots: int) -> None:
    random = np.random.default_rng(slots)
    for _ in range(300):
        unit = int(random.choice([1, 5]))
        lengths = [unit * int(n) for n in random.integers(1, 40, random.integers(1, 20))]
        pieces = pack(lengths, slots, unit)
        for index, length in enumerate(lengths):
            untils = [until for i, until in pieces if i == index]
            assert untils == sorted(set(untils)) and untils[-1] == length and len(untils) <= 2
            assert all(until % unit == 0 for until in untils)
        best = max(max(lengths), sum(lengths) / slots)
        assert len(pieces) < len(lengths) + slots
        assert time(pieces, slots) <= GOOD_ENOUGH * best + unit


def test_what_would_end_first_is_next() -> None:
    ends: Ends[str] = Ends()
    ends.begin("long", "a", 100)
    ends.begin("short", "b", 30)
    assert ends.next() == "short"  # at 30
    ends.begin("its other part", "b", 60)  # at 60
    ends.begin("as long as that", "c", 30)  # at 60, too
    ends.begin("double", "d", 30, 2.0)  # at 90
    assert [ends.next() for _ in range(4)] == [
        "its other part",
        "as long as that",
        "double",
        "long",
    ]
    ends.begin("what there is already", "a", 80)  # at 100, now
    assert len(ends) == 1 and ends.next() == "what there is already"


def test_without_lengths_they_take_turns() -> None:
    ends: Ends[int] = Ends()
    for number, until in enumerate((100, 30, 60)):
        ends.begin(number, "abc"[number], until, 0.0)
    assert ends.next() == 0
    ends.begin(3, "a", 110, 0.0)
    assert [ends.next() for _ in range(3)] == [1, 2, 3]


def test_a_part_that_is_asked_for_ahead_follows_the_one_before_it() -> None:
    ends: Ends[int] = Ends()
    ends.begin(1, "a", 100)
    ends.begin(2, "b", 150)
    ends.begin(3, "a", 140)  # it begins at 100
    assert [ends.next() for _ in range(3)] == [1, 3, 2]
