"""The errors of the commands, and their exit codes."""

from __future__ import annotations

import contextlib
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

_spell: Callable[[str], str] = str  # of the whole process; a context variable misses its threads


@contextlib.contextmanager
def spelling(spell: Callable[[str], str]) -> Iterator[None]:
    """Let all messages write the names of parameters as ``spell`` does: a command's, as its flags."""
    global _spell
    before, _spell = _spell, spell
    try:
        yield
    finally:
        _spell = before


def named(parameter: str) -> str:
    """A parameter as the reader of a message knows it: a function's argument, or a command's flag.

    >>> named("max_iter")
    'max_iter'
    >>> with spelling(lambda name: "--" + name.replace("_", "-")):
    ...     named("max_iter")
    '--max-iter'
    """
    return _spell(parameter)


class LRBenchError(Exception):
    """A failure with a message for people: printed as one line, without a traceback."""

    exit_code = 1


class InputError(LRBenchError):
    """Something the user gave is wrong. The message names the file, field, value and what is allowed."""

    exit_code = 2


class PassingError(InputError):
    """What was given cannot be used now, but perhaps later: nothing about it has to be changed."""


class ParameterError(InputError):
    """A parameter that is not allowed, named as the reader knows it (see ``named``).

    >>> print(ParameterError("{max_iter}: {0}; allowed: {1} or more", 0, 1))
    max_iter: 0; allowed: 1 or more

    Args:
        text: a format string: named fields are parameters, numbered fields are values.
        values: the values.
    """

    def __init__(self, text: str, *values: Any) -> None:
        self._text, self._values = text, values
        super().__init__(_Names().vformat(text, values, {}))

    def within(self, words: str) -> ParameterError:
        """The same error after some words, which are part of the format string."""
        return ParameterError(words + self._text, *self._values)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._text, *self._values)


def verbatim(text: object) -> str:
    """A value as part of the format string of a ``ParameterError``."""
    return str(text).replace("{", "{{").replace("}", "}}")


class _Names(string.Formatter):
    def get_value(self, key: int | str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        return named(key) if isinstance(key, str) else args[key]


class TrainingError(LRBenchError):
    """A training ended before its time: Caffe aborted, hung or was killed."""


def did_you_mean(name: str, known: Iterable[str], least: float = 0.6) -> str:
    """The end of a message about an unknown name: the nearest known one, nothing where none is near.

    Args:
        least: how alike they must be, from 0 to 1 (difflib's ratio).
    """
    import difflib  # only a name that is not known needs it

    by_lower = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), by_lower, 1, least)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""
