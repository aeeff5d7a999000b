"""The ingredients of every LR function: g(t) = wave(t/l) x envelope(t).

A wave is a ramp in [0, 1] that repeats, bent by a shape. All ramps are built from a remainder of
whole numbers (exact in float64), so they are exact where the textbook forms are not: with u = t mod
2l,

    (2/pi) * abs(arcsin(sin(pi*t/(2l)))) = min(u, 2l - u) / l

is exactly 0 at even and exactly 1 at odd multiples of l, however large t is; sin(pi*t) itself is
off by 1e-10 at t = 1e6. Likewise abs(sin(pi*t/(2l))) = sin(pi/2 * ramp) and cos(pi*t/l) = cos(pi *
ramp).
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

import numpy as np

Array = Any  # a float64 array; numpy's own generic alias differs between the releases that are supported
Values = dict[str, Any]


class Ramp(NamedTuple):
    """A repeating straight line between 0 and 1: where it starts, its period, and the line itself.

    `shift` and `period` are in units of l; `line` maps the position u in the period, 0 <= u <
    period*l, to [0, 1].
    """

    shift: int
    period: int
    line: Callable[[Array, int], Array]

    def __call__(self, t: Array, length: int) -> Array:
        return self.line(np.mod(t + self.shift * length, self.period * length), length)

    def cycle(self, t: Array, length: int) -> Array:
        """How many cycles were completed before t, counted on the shifted t."""
        return np.floor_divide(t + self.shift * length, self.period * length)


class Wave(NamedTuple):
    """A ramp bent by a shape, e.g. the triangle bent by sin(pi/2 * v) is abs(sin(pi*t/(2l)))."""

    ramp: Ramp
    shape: Callable[[Array], Array]

    def __call__(self, t: Array, length: int) -> Array:
        return self.shape(self.ramp(t, length))


def _triangle(u: Array, length: int) -> Array:
    return np.minimum(u, 2 * length - u) / length


def _fall(u: Array, length: int) -> Array:
    return (length - u) / length


RISE = Ramp(shift=0, period=2, line=_triangle)  # starts at the bottom, at the top after l
FALL = Ramp(shift=1, period=2, line=_triangle)  # the same triangle l later: starts at the top
RESTART = Ramp(shift=0, period=1, line=_fall)  # falls from the top and jumps back to it every l


def straight(v: Array) -> Array:
    return v


def sine(v: Array) -> Array:
    return np.sin(np.pi / 2 * v)


def cosine(v: Array) -> Array:
    return 0.5 * (1 - np.cos(np.pi * v))


def constant(t: Array, v: Values) -> Array:
    """1"""
    return np.ones_like(t)


def power_of_gamma(t: Array, v: Values) -> Array:
    """gamma^t"""
    return np.power(v["gamma"], t)


def stairs(t: Array, v: Values) -> Array:
    """gamma^floor(t/l)"""
    return np.power(v["gamma"], np.floor_divide(t, v["l"]))


def boundaries(name: str) -> Callable[[Array, Values], Array]:
    """gamma^i, i = how many of the iterations listed in parameter `name` are <= t."""

    def envelope(t: Array, v: Values) -> Array:
        passed = np.searchsorted(np.array(v[name], dtype=np.float64), t, side="right")
        return np.power(v["gamma"], passed.astype(np.float64))

    return envelope


def inverse_time(t: Array, v: Values) -> Array:
    """(1 + gamma*t)^(-p)"""
    return np.power(1 + v["gamma"] * t, -v["p"])


def polynomial(t: Array, v: Values) -> Array:
    """(1 - t/l)^p, and 0 from l on, where the formula has no real value for most p."""
    before_end = t < v["l"]
    rest = np.where(before_end, 1 - t / v["l"], 1.0)
    return np.where(before_end, np.power(rest, v["p"]), 0.0)


def sigmoid(t: Array, v: Values) -> Array:
    """1 / (1 + exp(-gamma*(t - l)))"""
    return 1 / (1 + np.exp(-v["gamma"] * (t - v["l"])))


def halved_per_cycle(ramp: Ramp) -> Callable[[Array, Values], Array]:
    """2^-cycle of the ramp. 2^-2000 is 0 in float64, so that the exponent can stop there."""

    def envelope(t: Array, v: Values) -> Array:
        return np.ldexp(1.0, -np.minimum(ramp.cycle(t, v["l"]), 2000).astype(np.int64))

    return envelope
