"""What is chosen together with the LR policy: combinations of batch size, momentum and weight decay.

Pure functions and values. How a combination becomes a solver is in ``prototxt.variant``, which one
is tried next in ``chooser``, and how a tuning judges them in ``outer``.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lrbench_caffe.errors import ParameterError, did_you_mean
from lrbench_caffe.parameters import python_value

BATCH, MOMENTUM, WEIGHT_DECAY = "batch", "momentum", "weight_decay"
NAMES = (BATCH, MOMENTUM, WEIGHT_DECAY)
ALLOWED = {
    BATCH: "whole numbers that are 1 or more",
    MOMENTUM: "numbers from 0 to 1, 1 excluded",
    WEIGHT_DECAY: "numbers that are 0 or more, up to 3.4e38",
}
LARGEST_BATCH = 2**31 - 1  # of an int32
RULE = (
    "LRs x batch / own batch (linear, Goyal et al. 2017) and x (1 - momentum) / (1 - own momentum) "
    "with SGD and Nesterov (Smith et al. 2018); lengths kept in epochs; weight decay changes neither"
)


def with_settings(settings: str) -> str:
    """What follows a policy's name where it was trained with other settings; nothing where they are empty."""
    return f" with {settings}" if settings else ""


def words_of(folder: str) -> str:
    """A combination for people, from the name of its folder: "batch=64, momentum=0.8"."""
    return re.sub(rf"(?:^|-)({'|'.join(NAMES)})", r", \1=", folder).removeprefix(", ")


@dataclass(frozen=True)
class Combination:
    """A choice of values.

    Attributes:
        values: name and value, in the order of ``NAMES``.
    """

    values: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, values: Mapping[str, float]) -> Combination:
        return cls(tuple((name, values[name]) for name in NAMES if name in values))

    def __str__(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.values)

    @property
    def folder(self) -> str:
        """The name of its folder: "batch64-momentum0.8"."""
        return "-".join(f"{name}{value!r}" for name, value in self.values)

    def get(self, name: str) -> float | None:
        """The value of a name, None where it is not chosen."""
        return dict(self.values).get(name)

    def as_json(self) -> dict[str, float]:
        return dict(self.values)


@dataclass(frozen=True)
class Combinations:
    """All combinations of a tuning.

    Attributes:
        own: the solver's own values.
        values: those of each name, the solver's own one first.
    """

    own: Combination
    values: Mapping[str, tuple[float, ...]]

    @classmethod
    def of(cls, also: Mapping[str, Sequence[float]], own: Mapping[str, float]) -> Combinations:
        """From what was asked for, and the solver's own values."""
        values = {
            name: _different(name, [own[name], *also[name]]) for name in NAMES if name in also
        }
        return cls(Combination.of({name: own[name] for name in values}), values)

    def __len__(self) -> int:
        return math.prod(map(len, self.values.values()))

    def __iter__(self) -> Iterator[Combination]:
        """All of them, the solver's own first."""
        return (
            Combination(tuple(zip(self.values, chosen)))
            for chosen in itertools.product(*self.values.values())
        )


def parse_also(texts: Sequence[str] | None) -> dict[str, Any] | None:
    """The values of each name from texts "NAME=VALUE,VALUE"; None without any.

    Raises:
        ParameterError: another form, or a name that is given twice.
    """
    if not texts:
        return None
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.strip().lower().replace("-", "_")
        if not equals:
            raise ParameterError(
                "{also}: {0!r}; allowed: NAME=VALUE,VALUE with NAME one of {1}", text, _listed()
            )
        if name in found:
            raise ParameterError("{also}: {0} is given twice; allowed: once", name)
        found[name] = [value.strip() for value in values.split(",")]
    return found


def check_also(also: object) -> dict[str, tuple[float, ...]] | None:
    """The values of each name as numbers, in the order of ``NAMES``; None for None.

    Args:
        also: numbers or their texts by name.

    Raises:
        ParameterError: an unknown name, no values, or one that is not allowed.
    """
    if also is None:
        return None
    if not isinstance(also, Mapping) or not also:
        raise ParameterError("{also}: {0!r}; allowed: values by name; names: {1}", also, _listed())
    for name in also:
        if name not in NAMES:
            hint = did_you_mean(str(name), NAMES) or ";"
            raise ParameterError(
                "{also}: unknown name {0!r}{1} allowed: {2}", name, hint, _listed()
            )
    return {name: _numbers(name, also[name]) for name in NAMES if name in also}


def _numbers(name: str, values: Any) -> tuple[float, ...]:
    values = python_value(values)
    listed = values if isinstance(values, (list, tuple)) else [values]
    if not listed:
        raise ParameterError("{also}: {0}: no values; allowed: {1}", name, ALLOWED[name])
    return _different(name, [_number(name, python_value(value)) for value in listed])


def _different(name: str, values: Sequence[float]) -> tuple[float, ...]:
    """The values without those that Caffe cannot tell from an earlier one: it has them as float32."""
    found: dict[float, float] = {}
    for value in values:
        found.setdefault(value if name == BATCH else _float32(value), value)
    return tuple(found.values())


def _float32(number: float) -> float:
    with np.errstate(over="ignore", under="ignore"):
        return float(np.float32(number))


def _number(name: str, value: Any) -> float:
    number: float | None = None
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = int(value) if name == BATCH else float(value)
        except (ValueError, OverflowError):
            number = None
    right: dict[str, Callable[[float], bool]] = {
        BATCH: lambda n: 1 <= n <= LARGEST_BATCH and n == float(value),
        MOMENTUM: lambda n: n >= 0 and _float32(n) < 1,
        WEIGHT_DECAY: lambda n: n >= 0 and _float32(n) < math.inf,
    }
    if number is not None and name != BATCH and number > 0 == _float32(number):
        raise ParameterError(
            "{also}: {0}={1} is 0 to Caffe, whose numbers are float32; allowed: {2}",
            name, value, ALLOWED[name],
        )  # fmt: skip
    if number is None or not right[name](number):
        shown = value if isinstance(value, (str, float, int)) else repr(value)
        raise ParameterError("{also}: {0}={1}; allowed: {2}", name, shown, ALLOWED[name])
    return number


def _listed() -> str:
    return ", ".join(NAMES)
