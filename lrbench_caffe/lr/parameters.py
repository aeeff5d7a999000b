"""The parameters of the LR functions: how each is read, checked, printed and counted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, NamedTuple, Union

from .errors import PolicyError, nearest

Value = Union[float, int, str, tuple[int, ...], None]

WATCHED = ("top1", "test_loss")
_LARGEST = 2**53  # whole numbers above it are not exact in float64


class _Required:
    def __repr__(self) -> str:
        return "required"


REQUIRED: Any = _Required()


class Rule(NamedTuple):
    """A constraint on a value, in words ("must be <text>") and as a test."""

    text: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True)
class Parameter:
    """One parameter of an LR function or trigger.

    Arguments:
        name: as written in a policy, e.g. "gamma".
        read: turns what was given into the stored value, or raises ValueError.
        rule: the constraint on the stored value.
        relaxed: the constraint where Caffe's own, wider one is asked for.
        default: the value where it is not given; REQUIRED if it has to be. Defaults are not
            printed.
        count: what it adds to #Param: "always" 1, "given" 1 if it differs from its default, "each"
            1 per element of a list, "never" 0.
    """

    name: str
    read: Callable[[object], Value]
    rule: Rule
    relaxed: Rule
    default: Any = REQUIRED
    count: str = "always"

    def accept(self, owner: str, given: object, strict: bool = True) -> Value:
        """The stored value for what was given.

        Raises:
            PolicyError: not of the parameter's type, or outside its rule.
        """
        rule = self.rule if strict else self.relaxed
        try:
            value = self.read(given)
        except (ValueError, TypeError, OverflowError):
            value = None
        if value is None or not rule.holds(value):
            raise PolicyError(f"{owner}: {self.name}={_shown(given)} must be {rule.text}")
        return value

    def counted(self, value: Value) -> int:
        """What this value adds to #Param."""
        if self.count == "each":
            return len(value) if isinstance(value, tuple) else 0
        return int(self.count == "always" or (self.count == "given" and value != self.default))


def _number(given: object) -> float:
    if isinstance(given, (str, bytes, bool)) or not hasattr(given, "__float__"):
        raise ValueError("not a number")
    value = float(given)
    if not math.isfinite(value):
        raise ValueError("not finite")
    return value + 0.0  # -0.0 becomes 0.0, so that equal policies print alike


def _whole(given: object) -> int:
    value = _number(given)
    if value != int(value) or abs(value) > _LARGEST:
        raise ValueError("not whole")
    return int(value)


def _whole_list(given: object) -> tuple[int, ...]:
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise ValueError("not a list")
    return tuple(_whole(item) for item in given)


def _word(given: object) -> str:
    if not isinstance(given, str):
        raise ValueError("not a word")
    return given.lower()


def _ascending(values: Sequence[int]) -> bool:
    return all(a < b for a, b in zip(values, values[1:]))


_FINITE = Rule("a finite number", lambda v: True)
_POSITIVE = Rule("a finite number above 0", lambda v: v > 0)
_NOT_NEGATIVE = Rule("a finite number, 0 or more", lambda v: v >= 0)
_SHARE = Rule("above 0 and at most 1 (the envelope decays)", lambda v: 0 < v <= 1)
_NOT_ZERO = Rule("a finite number other than 0", lambda v: v != 0)
_ITERATIONS = Rule("a whole number of iterations above 0", lambda v: v > 0)
_ANY_ITERATION = Rule("a whole number of iterations", lambda v: True)
_TESTS = Rule("a whole number of tests above 0", lambda v: v > 0)
_STEPS = Rule(
    "a list of iterations above 0 in strictly ascending order, such as [5000, 7000]",
    lambda v: bool(v) and v[0] > 0 and _ascending(v),
)
_STEPS_FROM_0 = Rule(
    "a list of iterations in strictly ascending order, such as [5000, 7000]",
    lambda v: bool(v) and v[0] >= 0 and _ascending(v),
)
_DECISIONS = Rule(
    "a list of iterations above 0 in strictly ascending order", lambda v: not v or _STEPS.holds(v)
)
_METRIC = Rule(" or ".join(WATCHED), lambda v: v in WATCHED)

K0 = Parameter("k0", _number, _POSITIVE, _FINITE)
K1 = Parameter("k1", _number, _NOT_NEGATIVE, _NOT_NEGATIVE)
K1_FLOOR = Parameter("k1", _number, _NOT_NEGATIVE, _NOT_NEGATIVE, default=0.0, count="given")
K1_FLOOR_COUNTED = Parameter(
    "k1", _number, _NOT_NEGATIVE, _NOT_NEGATIVE, default=0.0, count="always"
)
GAMMA_SHARE = Parameter("gamma", _number, _SHARE, _NOT_NEGATIVE)
GAMMA_INV = Parameter("gamma", _number, _NOT_NEGATIVE, _NOT_NEGATIVE)
GAMMA_SIG = Parameter("gamma", _number, _NOT_ZERO, _FINITE)
P = Parameter("p", _number, _POSITIVE, _FINITE)
L = Parameter("l", _whole, _ITERATIONS, _ITERATIONS)
L_SIG = Parameter("l", _whole, _ITERATIONS, _ANY_ITERATION)
L_MAX_ITER = Parameter("l", _whole, _ITERATIONS, _ITERATIONS, default=None, count="given")
L_LIST = Parameter("l", _whole_list, _STEPS, _STEPS_FROM_0, count="each")
N = Parameter("n", _whole, _TESTS, _TESTS)
METRIC = Parameter("metric", _word, _METRIC, _METRIC, default=WATCHED[0], count="never")
MIN_DELTA = Parameter(
    "min_delta", _number, _NOT_NEGATIVE, _NOT_NEGATIVE, default=0.0, count="given"
)
DECIDED = Parameter("decided", _whole_list, _DECISIONS, _DECISIONS, default=(), count="never")


def accept_all(
    owner: str, parameters: Sequence[Parameter], given: Mapping[str, object], strict: bool = True
) -> dict[str, Value]:
    """Every parameter's value, in the order of `parameters`, with the defaults filled in.

    Raises:
        PolicyError: an unknown or missing parameter, or a value outside its rule.
    """
    known = [parameter.name for parameter in parameters]
    for name in given:
        if name not in known:
            raise PolicyError(unknown_parameter(owner, name, known))
    values: dict[str, Value] = {}
    for parameter in parameters:
        if parameter.name in given:
            values[parameter.name] = parameter.accept(owner, given[parameter.name], strict)
        elif parameter.default is REQUIRED:
            raise PolicyError(
                f"{owner}: {parameter.name} is missing; its parameters: {', '.join(known)}"
            )
        else:
            values[parameter.name] = parameter.default
    return values


def check_whole(name: str, given: object, least: int = 1) -> int:
    """A number of iterations that is not a function's parameter, such as max_iter.

    Raises:
        PolicyError: not whole, or below `least`.
    """
    try:
        value = _whole(given)
    except (ValueError, TypeError, OverflowError):
        value = least - 1
    if value < least:
        raise PolicyError(
            f"{name}={_shown(given)} must be a whole number of iterations, {least} or more"
        )
    return value


def unknown_parameter(owner: str, name: str, known: Sequence[str]) -> str:
    """The message for a parameter that the function does not have."""
    return f"{owner} has no parameter {name!r};{nearest(name, known)} its parameters: {', '.join(known)}"


def print_value(value: Value, spec: str = "") -> str:
    """A value as written in a policy: numbers in their shortest exact form, or with `spec` (e.g. ".7g").

    >>> print_value(0.00005), print_value(1.0), print_value((5000, 7000)), print_value(1 / 3, ".3g")
    ('5e-05', '1', '[5000, 7000]', '0.333')
    """
    if isinstance(value, float):
        text = format(value, spec) if spec else repr(value)
        return text[:-2] if not spec and text.endswith(".0") else text
    if isinstance(value, tuple):
        return "[" + ", ".join(str(item) for item in value) + "]"
    return str(value)


def print_arguments(
    parameters: Sequence[Parameter], values: Mapping[str, Value], spec: str = ""
) -> str:
    """`k0=0.01, l=2000`: the values that differ from their defaults, in the order of the table."""
    return ", ".join(
        f"{parameter.name}={print_value(values[parameter.name], spec)}"
        for parameter in parameters
        if values[parameter.name] != parameter.default
    )


def _shown(given: object) -> str:
    if isinstance(given, (list, tuple)):
        return "[" + ", ".join(_shown(item) for item in given) + "]"
    return print_value(given) if isinstance(given, float) else str(given)
