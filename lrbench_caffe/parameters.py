"""The parameters of requests: their names on the command line, and checks of their values."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import fields
from numbers import Integral, Real
from typing import Any

from lrbench_caffe.errors import ParameterError

# Parameters that have another name on the command line.
TERMINAL_NAMES = {
    "policy": "lr",
    "database": "db",
    "no_database": "no_db",
    "hang_seconds": "hang_timeout",
    "stages": "stage",
    "sources": "source",
    "starts": "start",
}


def python_value(value: Any) -> Any:
    """A number of another library as Python's bool, int or float, an array as a list.

    Anything else is unchanged. JSON, pickles and messages then have the same for NumPy's numbers.
    """
    if hasattr(value, "tolist"):  # NumPy's, pandas' and PyTorch's scalars and arrays
        value = value.tolist()
    if isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def to_python_values(request: Any) -> None:
    """Convert all values of a frozen dataclass as ``python_value`` does."""
    for item in fields(request):
        object.__setattr__(request, item.name, python_value(getattr(request, item.name)))


def check_whole(request: object, *names: str) -> None:
    """Raise a ParameterError for a parameter that is neither left out nor a whole number."""
    for name in names:
        value = getattr(request, name)
        if not _left_out(request, name) and (isinstance(value, bool) or not isinstance(value, int)):
            raise ParameterError("{" + name + "}: {0!r}; allowed: a whole number", value)


def check_level(request: Any) -> None:
    """Raise a ParameterError for a level of a net that is not an int32, if it is given."""
    value = request.level
    if value is not None and not -(2**31) <= value < 2**31:
        raise ParameterError("{level}: {0}; allowed: {1} to {2}", value, -(2**31), 2**31 - 1)


def check_choice(request: object, name: str, allowed: Sequence[str]) -> None:
    """Raise a ParameterError for a parameter that is neither left out nor an allowed word."""
    value = getattr(request, name)
    if not _left_out(request, name) and value not in allowed:
        raise ParameterError("{" + name + "}: {0!r}; allowed: {1}", value, ", ".join(allowed))


def check_duration(request: object, *names: str) -> None:
    """Raise a ParameterError for a time that is not 0 (never) or more."""
    for name in names:
        value = getattr(request, name)
        if not _is_number(value) or not value >= 0:
            raise ParameterError("{" + name + "}: {0!r}; allowed: 0 (never) or more", value)


def check_percent(request: object, name: str) -> None:
    """Raise a ParameterError for a parameter that is neither left out nor above 0, at most 100."""
    value = getattr(request, name)
    if not _left_out(request, name) and not (_is_number(value) and 0 < value <= 100):
        shown = f"{value:g}" if _is_number(value) else repr(value)
        raise ParameterError("{" + name + "}: {0}; allowed: above 0, at most 100 (percent)", shown)


def check_number(request: object, name: str) -> None:
    """Raise a ParameterError for a parameter that is neither left out nor a finite number."""
    value = getattr(request, name)
    if not _left_out(request, name) and not (_is_number(value) and math.isfinite(value)):
        raise ParameterError("{" + name + "}: {0!r}; allowed: a finite number", value)


def check_text(request: object, *names: str, allowed: str = "text") -> None:
    """Raise a ParameterError for a parameter that is neither left out nor text without a null."""
    for name in names:
        value = getattr(request, name)
        if not _left_out(request, name) and (not isinstance(value, str) or "\0" in value):
            raise ParameterError("{" + name + "}: {0!r}; allowed: {1}", value, allowed)


def check_not_empty(request: object, **allowed: str) -> None:
    """Raise a ParameterError for a parameter that is an empty text: a variable that is not set."""
    for name, what in allowed.items():
        value = getattr(request, name)
        if isinstance(value, str) and not value.strip():
            raise ParameterError("{" + name + "}: {0!r}; allowed: {1}", value, what)


def check_names(request: object, *names: str, what: str = "names") -> None:
    """Raise a ParameterError for a parameter that is neither left out nor a list of names, or of ``what``."""
    for name in names:
        value = getattr(request, name)
        listed = isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value)
        if not listed and not _left_out(request, name):
            raise ParameterError("{" + name + "}: {0!r}; allowed: a list of {1}", value, what)


def check_counts(request: object, *names: str) -> None:
    """Raise a ParameterError for a parameter that is not a list of numbers that are 1 or more."""
    for name in names:
        value = getattr(request, name)
        listed = isinstance(value, (list, tuple)) and all(
            isinstance(one, int) and not isinstance(one, bool) and one >= 1 for one in value
        )
        if not listed:
            shown = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else repr(value)
            raise ParameterError(
                "{" + name + "}: {0}; allowed: whole numbers that are 1 or more", shown
            )


def check_switch(request: object, *names: str) -> None:
    """Raise a ParameterError for a parameter that is neither left out nor True or False."""
    for name in names:
        value = getattr(request, name)
        if not _left_out(request, name) and not isinstance(value, bool):
            raise ParameterError("{" + name + "}: {0!r}; allowed: True or False", value)


def _is_number(value: object) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) <= sys.float_info.max
    return isinstance(value, float)


def _left_out(request: object, name: str) -> bool:
    """Whether a parameter is None, and that is its default (a dataclass's class attribute)."""
    return getattr(request, name) is None and getattr(type(request), name, None) is None
