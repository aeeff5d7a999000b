"""When the lines of a log were written. glog's older stamps have no year, and clocks are set back.

The year is, in this order: in the stamp itself; in glog's header or in another program's date
before the line; the file's own. It changes where the months begin again. Times are this machine's
local time.
"""

from __future__ import annotations

import calendar
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

_FIRST, _LAST = 1970, 2999  # years that a log can be of
_JITTER = 60.0  # seconds that threads' lines may be out of order
_SET_BACK = 2 * 3600.0  # seconds by which clocks are set back; more is another log
_HALF_A_YEAR = 6  # months
_ZONES = 26 * 3600.0  # seconds between the local times of two machines, at most


@dataclass(frozen=True)
class Stamp:
    """A date and time as glog prints them; ``year`` is None where it prints none."""

    text: str
    year: int | None
    month: int
    day: int
    clock: str  # "21:04:52.367612"

    def seconds(self, year: int) -> float:
        """Seconds since 1970 in this year."""
        hour, minute, second = self.clock.split(":")
        return _hour(year, self.month, self.day, hour) + 60 * int(minute) + float(second)


@lru_cache(maxsize=4096)
def _hour(year: int, month: int, day: int, hour: str) -> float:
    day = min(day, calendar.monthrange(year, month)[1])
    return datetime(year, month, day, int(hour)).timestamp()


class Clock:
    """Tells the years of a log's stamps.

    Args:
        path: the log; the date of the file is the last resort.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[int, int] = {}  # year of a message, by its place among the messages

    def dated(self, index: int, stamp: Stamp, year: int, month: int, day: int) -> None:
        """Use another source's date of message ``index``: its year, or the next one on New Year."""
        if (
            _FIRST <= year <= _LAST
            and 1 <= month <= 12
            and 1 <= day <= 31
            and index not in self._known
        ):
            months = stamp.month - month
            self._known[index] = year + (months < -_HALF_A_YEAR) - (months > _HALF_A_YEAR)

    def seconds(self, stamps: Sequence[Stamp], note: Callable[[str], None]) -> list[float]:
        """Seconds since 1970 of each stamp."""
        times = []
        behind = 0.0  # seconds that the clock was set back by
        latest = float("-inf")
        for stamp, year in zip(stamps, self._years(stamps, note)):
            at = stamp.seconds(year) + behind
            if _JITTER < latest - at <= _SET_BACK:
                behind += latest - at
                at = latest
            elif latest - at > _SET_BACK:  # the next log in the same file, of an earlier day
                at -= behind
                behind = 0.0
                latest = at
            latest = max(latest, at)
            times.append(at)
        return times

    def _years(self, stamps: Sequence[Stamp], note: Callable[[str], None]) -> list[int]:
        turns = [0] * len(stamps)
        for i in range(1, len(stamps)):
            again = stamps[i - 1].month - stamps[i].month > 1
            # A line of the old year may follow one of the new year: threads overtake each other.
            late = (stamps[i - 1].month, stamps[i].month) == (1, 12)
            turns[i] = max(0, turns[i - 1] + again - (late and turns[i - 1] > 0))
        anchors = {i: stamp.year for i, stamp in enumerate(stamps) if stamp.year is not None}
        anchors = anchors or self._known
        if not anchors and stamps:
            anchors = {len(stamps) - 1: self._year_of_file(stamps, turns, note)}
        years = []
        base = None
        for i, turn in enumerate(turns):
            if i in anchors:
                base = anchors[i] - turn
            if base is None:
                first = min(anchors)
                base = anchors[first] - turns[first]
            years.append(base + turn)
        return years

    def _year_of_file(
        self, stamps: Sequence[Stamp], turns: list[int], note: Callable[[str], None]
    ) -> int:
        """The latest year in which the last line is not later than the file."""
        written = self._path.stat().st_mtime
        year = time.localtime(written).tm_year + 1
        while year > _FIRST and stamps[-1].seconds(year) > written + _ZONES:
            year -= 1
        # How many years before the last line each 29 February was written.
        ago = {turns[-1] - turn for s, turn in zip(stamps, turns) if (s.month, s.day) == (2, 29)}
        fitting = [y for y in range(year, year - 9, -1) if all(calendar.isleap(y - n) for n in ago)]
        if fitting and fitting[0] != year:
            note(f"a log of 29 February, not of {year}: {fitting[0]} is taken for its year")
            year = fitting[0]
        return year
