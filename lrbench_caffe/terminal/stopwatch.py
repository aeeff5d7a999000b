"""The time for which a command has worked, from which the time left follows."""

from __future__ import annotations

import time


class Stopwatch:
    """Counts the seconds between looks.

    Two looks that lie far apart lie on both sides of a suspension (Ctrl-Z, SLURM's suspend, a paused
    container) or of other work, in which nothing was trained.

    Args:
        longest: seconds between two looks that count at most.

    Attributes:
        seconds: so far.
    """

    def __init__(self, longest: float = 60.0) -> None:
        self._longest = longest
        self._looked = time.monotonic()
        self.seconds = 0.0

    def look(self) -> float:
        """Count the time since the last look; returns all seconds so far."""
        now = time.monotonic()
        self.seconds += min(self._longest, now - self._looked)
        self._looked = now
        return self.seconds
