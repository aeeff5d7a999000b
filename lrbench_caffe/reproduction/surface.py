"""Figure 1 of the paper: three LR policies find their way down a loss surface of two parameters.

The paper (section II) states the policies, the 200 iterations, the common initial point, the
iterations of its three pictures, and what they show. It does not state the surface or the point.
Those here are chosen so that the same can be seen, for the same reasons:

    L(x, y) = 0.035 (x + 0.49)^2 + 0.205 (y + 0.49)^2
              - 2.00 / (1 + (x / 0.38)^2 + (y / 0.20)^2)                      (a local minimum)
              - 2.76 / (1 + ((x + 0.06) / 0.24)^2 + ((y + 0.58) / 0.32)^2)    (the global minimum)

a wide bowl with two wells. Plain gradient descent (formula 1, no momentum, no noise) settles in a
well where the LR is below 2 / curvature. At the bottom of the local minimum, the first well on the
way, the curvatures are 29 and 49: FIX with 0.025 (up to 80) stays there, an LR of 0.05 (up to 40)
is thrown out and over to the global minimum. There they are 51 and 96: at 0.05, which TRIEXP comes
down to (its lower bound) and NSTEP has until iteration 150, the parameters bounce; at the 0.005
that NSTEP then has (up to 400), they come to rest.

Only sums, products and quotients are taken, and LRs of 12 digits, so that every machine finds the
same paths although they are chaotic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from lrbench_caffe.lr import Policy, parse

Number = TypeVar("Number", float, np.ndarray)

ITERATIONS = 200
SHOWN = (70, 115, 199)  # the iterations of Figures 1a, 1b and 1c
START = (-1.77, -0.99)
LR_DIGITS = 12


@dataclass(frozen=True)
class Well:
    """-depth / (1 + ((x - x0) / width_x)^2 + ((y - y0) / width_y)^2)."""

    depth: float
    x: float
    y: float
    width_x: float
    width_y: float


LOCAL = Well(2.00, 0.0, 0.0, 0.38, 0.20)
GLOBAL = Well(2.76, -0.06, -0.58, 0.24, 0.32)
BOTTOM = (-0.49, -0.49)  # of the bowl
CURVATURE = (0.07, 0.41)

POLICIES = {  # by the colour that the paper draws them in
    "black": parse("FIX(k0=0.025)"),
    "red": parse("NSTEP(k0=0.05, gamma=0.1, l=[150, 180])"),
    "yellow": parse("TRIEXP(k0=0.05, k1=0.3, gamma=0.94, l=100)"),
}


@dataclass(frozen=True)
class DescentPath:
    """The path of one policy.

    Attributes:
        policy: the LR policy.
        colour: as in the paper.
        points: shape (ITERATIONS, 2): x and y before the update of each iteration; the first is the
            start.
        losses: shape (ITERATIONS,): the loss there.
    """

    policy: Policy
    colour: str
    points: np.ndarray
    losses: np.ndarray


def loss(x: Number, y: Number) -> Number:
    """The surface; scalars, or arrays of one shape."""
    value = 0.5 * (CURVATURE[0] * (x - BOTTOM[0]) ** 2 + CURVATURE[1] * (y - BOTTOM[1]) ** 2)
    for well in (LOCAL, GLOBAL):
        u, v = (x - well.x) / well.width_x, (y - well.y) / well.width_y
        value = value - well.depth / (1 + u * u + v * v)
    return value


def gradient(x: float, y: float) -> tuple[float, float]:
    """The derivatives of ``loss`` by x and y."""
    dx, dy = CURVATURE[0] * (x - BOTTOM[0]), CURVATURE[1] * (y - BOTTOM[1])
    for well in (LOCAL, GLOBAL):
        u, v = (x - well.x) / well.width_x, (y - well.y) / well.width_y
        below = 1 + u * u + v * v
        slope = 2 * well.depth / (below * below)
        dx += slope * u / well.width_x
        dy += slope * v / well.width_y
    return dx, dy


def descend(rates: Sequence[float], start: tuple[float, float] = START) -> np.ndarray:
    """Gradient descent (formula 1): theta_(t+1) = theta_t - eta(t) * gradient(theta_t).

    Args:
        rates: eta of the iterations 0, 1, ...

    Returns:
        Shape (len(rates), 2): the parameters at each iteration, before its update.
    """
    x, y = start
    points = []
    for rate in rates:
        points.append((x, y))
        dx, dy = gradient(x, y)
        x, y = x - rate * dx, y - rate * dy
    return np.array(points)


def paths() -> list[DescentPath]:
    """The paths of FIX, NSTEP and TRIEXP."""
    files = []
    for colour, policy in POLICIES.items():
        rates = [round(rate, LR_DIGITS) for rate in policy(np.arange(ITERATIONS)).tolist()]
        points = descend(rates)
        files.append(DescentPath(policy, colour, points, loss(points[:, 0], points[:, 1])))
    return files
