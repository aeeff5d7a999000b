"""What a command can fail with, and the exit code that goes with it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LRBenchError(Exception):
    """A failure with a message for people: printed as one line, without a traceback."""

    exit_code = 1


class InputError(LRBenchError):
    """Something the user gave is wrong. The message names the file, field, value and what is allowed."""

    exit_code = 2


class TrainingError(LRBenchError):
    """A training ended before its time: Caffe aborted, hung, was killed, or the loss diverged."""


def did_you_mean(name: str, known: Iterable[str], least: float = 0.6) -> str:
    """The end of a message about an unknown name: the nearest known one, nothing where none is near.

    Args:
        least: how alike they must be, from 0 to 1 (difflib's ratio).
    """
    by_lower = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), by_lower, 1, least)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""
