"""Ranks LR policies by what they achieved, what they cost and how robust they are. Pure functions.

The metrics are the paper's (section III), each policy's at its first highest Top-1. See
docs/ranking.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from lrbench_caffe.knowledge.criteria import CRITERIA, Criterion
from lrbench_caffe.records import PolicySummary, Spread

SIGNIFICANT = 0.05  # a smaller p is a difference
ROUNDING = 1e-9  # a deviation that is a smaller share of the mean is none


@dataclass(frozen=True)
class TargetCost:
    """The iterations that a policy's runs took to a wanted Top-1.

    Attributes:
        iterations: mean, over the runs that got there, of the first test with that Top-1.
        runs: how many got there, ``of`` how many that finished.
        at_most: True where ``iterations`` is only an upper bound: the paper gives the best test
            alone.
        diverged: how many more diverged.
    """

    iterations: float
    runs: int
    of: int
    at_most: bool = False
    diverged: int = 0

    @property
    def cost(self) -> float:
        """iterations * (of + diverged) / runs: what is ranked by, so that getting there in one run of three
        costs more."""
        return self.iterations * (self.of + self.diverged) / self.runs


@dataclass(frozen=True)
class RankingEntry:
    """A policy to be ranked.

    Attributes:
        summary: its results.
        target: how long it took to a wanted Top-1; None where that was not asked for, or no run got
            there.
    """

    summary: PolicySummary
    target: TargetCost | None = None

    def spread(self, name: str) -> Spread | None:
        """The value of a criterion, None where it was not measured."""
        if name == "num_params":
            return Spread(float(self.summary.policy.num_params), None)
        if name == "target":
            return Spread(self.target.cost, None) if self.target else None
        value: Spread | None = (
            getattr(self.summary, name) if name in CRITERIA else self.summary.outputs.get(name)
        )
        return None if value is None or math.isnan(value.mean) else value


@dataclass(frozen=True)
class Comparison:
    """Whether two policies differ in a criterion.

    Attributes:
        p: of Welch's test; None where it cannot be made (a single run, or no deviation).
    """

    p: float | None

    @property
    def mark(self) -> str:
        """ "" for a difference, "~" for one within noise, "?" where that cannot be told."""
        if self.p is None:
            return "?"
        return "" if self.p < SIGNIFICANT else "~"


@dataclass(frozen=True)
class Ranked:
    """One place of a ranking.

    Attributes:
        place: 1 for the best; equal values share the place of the first. None where it may not be
            compared.
        score: of a weighted ranking.
        from_best, from_next: the comparison with the first and with the next policy; None at the
            ends.
    """

    place: int | None
    candidate: RankingEntry
    score: float | None = None
    from_best: Comparison | None = None
    from_next: Comparison | None = None


# -- ranking ---------------------------------------------------------------------------------------


def rank(
    candidates: Sequence[RankingEntry], by: Sequence[Criterion], top: int | None = None
) -> list[Ranked]:
    """Rank by the first criterion, equal ones by the next, and so on, by the means as they are.

    A policy without a value for a criterion ranks behind all that have one. The comparisons are by
    the first criterion.

    Args:
        top: how many are returned; None for all.
    """

    def key(candidate: RankingEntry) -> tuple[float, ...]:
        return tuple(_badness(candidate, criterion) for criterion in by)

    ordered = sorted(candidates, key=key)
    places = _places([key(candidate) for candidate in ordered])
    ranked = [Ranked(place, candidate) for place, candidate in zip(places, ordered)]
    return _compared(ranked, by[0], top)


def rank_weighted(
    candidates: Sequence[RankingEntry], by: Mapping[Criterion, float], top: int | None = None
) -> list[Ranked]:
    """Rank by a weighted mean of normalised criteria.

        score = sum_c w_c * u_c / sum_c w_c,   u_c = (x - worst_c) / (best_c - worst_c) in [0, 1]

    best_c and worst_c are over the policies that are ranked, so a score holds within one ranking
    only. A policy without a value for c gets u_c = 0, as the worst does. Where all values of c are
    equal, u_c = 1 for all that have one. The comparisons are by the criterion with the largest
    weight (the first of equal ones).

    Args:
        top: as for ``rank``.
    """
    largest = max(by.values())  # so that no sum is beyond all numbers
    by = {criterion: weight / largest for criterion, weight in by.items()}
    total = sum(by.values())
    scores = np.zeros(len(candidates))
    for criterion, weight in by.items():
        scores += weight / total * _normalised(candidates, criterion)
    # Rounded, so that values that are equal by the formula do not differ in the last bit of a sum.
    ordered = sorted(zip(-scores.round(12), range(len(candidates))))
    places = _places([(score,) for score, _ in ordered])
    ranked = [
        Ranked(place, candidates[index], score=float(scores[index]))
        for place, (_, index) in zip(places, ordered)
    ]
    return _compared(ranked, max(by, key=lambda criterion: by[criterion]), top)


def _badness(candidate: RankingEntry, criterion: Criterion) -> float:
    spread = candidate.spread(criterion.name)
    if spread is None:
        return math.inf
    if criterion.name == "iterations" and spread.mean == 0:
        return math.inf  # no update made the net better: that is no low cost
    return -spread.mean if criterion.higher else spread.mean


def _normalised(candidates: Sequence[RankingEntry], criterion: Criterion) -> np.ndarray:
    badness = np.array([_badness(candidate, criterion) for candidate in candidates], dtype=float)
    known = np.isfinite(badness)
    if not known.any():
        return np.zeros(len(candidates))
    best, worst = badness[known].min(), badness[known].max()
    if best == worst:
        return np.asarray(known, dtype=float)
    return np.where(known, (worst - np.where(known, badness, worst)) / (worst - best), 0.0)


def _places(keys: Sequence[tuple[float, ...]]) -> list[int]:
    places: list[int] = []
    for index, key in enumerate(keys):
        places.append(places[-1] if index and key == keys[index - 1] else index + 1)
    return places


def _compared(ranked: list[Ranked], criterion: Criterion, top: int | None) -> list[Ranked]:
    """The first rows with their comparisons: of the last one with one that is not returned."""
    compared = ranked[:top]
    for index, row in enumerate(compared):
        if index:
            from_best = compare(ranked[0].candidate, row.candidate, criterion)
            compared[index] = replace(compared[index], from_best=from_best)
        if index + 1 < len(ranked):
            from_next = compare(row.candidate, ranked[index + 1].candidate, criterion)
            compared[index] = replace(compared[index], from_next=from_next)
    return compared


# -- noise -----------------------------------------------------------------------------------------


def compare(one: RankingEntry, other: RankingEntry, criterion: Criterion) -> Comparison:
    """Welch's test of two policies' means of a criterion (p is not corrected for many comparisons).

    Only trainings that began with the same are compared: others differ by more than their policy.
    """
    if not one.summary.start.same(other.summary.start):
        return Comparison(None)
    if criterion.name == "num_params":  # an exact number, without noise
        return Comparison(float(one.spread("num_params") == other.spread("num_params")))
    a, b = one.spread(criterion.name), other.spread(criterion.name)
    if a is None or b is None:
        return Comparison(None)
    return Comparison(welch(a, one.summary.trainings(a), b, other.summary.trainings(b)))


def welch(a: Spread, n_a: int, b: Spread, n_b: int) -> float | None:
    """The two-sided p of Welch's test that two means are equal.

        t = (a - b) / sqrt(v_a + v_b),   v = s^2 / n,   s^2 = sd^2 * n / (n - 1)
        dof = (v_a + v_b)^2 / (v_a^2 / (n_a - 1) + v_b^2 / (n_b - 1))

    Args:
        a, b: mean and population standard deviation.
        n_a, n_b: trainings behind each.

    Returns:
        None where either has fewer than two trainings or no known deviation, or where neither
        deviates: then nothing is known of the noise.

    >>> round(welch(Spread(99.33, 0.02), 5, Spread(99.28, 0.02), 5), 4)
    0.0077
    """
    noise = _noise(a, n_a, b, n_b)
    if noise is None:
        return None
    error, dof = noise
    return student_p(abs(a.mean - b.mean) / error, dof)


def welch_interval(a: Spread, n_a: int, b: Spread, n_b: int) -> tuple[float, float] | None:
    """The 95 % confidence interval of a difference of means, a - b, that belongs to Welch's test.

        a - b -+ t * sqrt(v_a + v_b),   P(|T| >= t) = SIGNIFICANT

    It contains 0 if and only if ``welch`` is ``SIGNIFICANT`` or more.

    Args:
        a, b, n_a, n_b: as for ``welch``.

    Returns:
        The lower and the upper end; None where ``welch`` is.

    >>> low, high = welch_interval(Spread(99.33, 0.02), 5, Spread(99.28, 0.02), 5)
    >>> print(f"{low:.4f} {high:.4f}")
    0.0174 0.0826
    """
    noise = _noise(a, n_a, b, n_b)
    if noise is None:
        return None
    error, dof = noise
    half = student_t(SIGNIFICANT, dof) * error
    return a.mean - b.mean - half, a.mean - b.mean + half


def _noise(a: Spread, n_a: int, b: Spread, n_b: int) -> tuple[float, float] | None:
    """The standard error of a difference of means, and its degrees of freedom; None if unknown."""
    if a.sd is None or b.sd is None or n_a < 2 or n_b < 2:
        return None
    v_a, v_b = a.sd**2 / (n_a - 1), b.sd**2 / (n_b - 1)
    error = math.sqrt(v_a + v_b)
    if error <= ROUNDING * max(abs(a.mean), abs(b.mean)):
        return None
    return error, (v_a + v_b) ** 2 / (v_a**2 / (n_a - 1) + v_b**2 / (n_b - 1))


def student_t(p: float, dof: float) -> float:
    """The t >= 0 of which ``student_p`` is p, by bisection to the last digit.

    >>> round(student_t(0.05, 4), 3)
    2.776
    """
    low, high = 0.0, 1.0
    while student_p(high, dof) > p:
        low, high = high, 2 * high
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if student_p(middle, dof) > p else (low, middle)
    return high


def student_p(t: float, dof: float) -> float:
    """The probability of |T| >= t for Student's distribution, t >= 0.

        p = 2 C * integral of cos(x)^(dof - 1) from atan(t / sqrt(dof)) to pi/2,
        C = Gamma((dof + 1) / 2) / (sqrt(pi) * Gamma(dof / 2))

    which is its density after the substitution T = sqrt(dof) * tan(x); by Gauss-Legendre
    quadrature.
    """
    low, high = math.atan(t / math.sqrt(dof)), math.pi / 2
    nodes, quadrature = _gauss_legendre()
    x = (high - low) / 2 * nodes + (high + low) / 2
    area = (high - low) / 2 * float(quadrature @ np.cos(x) ** (dof - 1))
    log_c = math.lgamma((dof + 1) / 2) - math.lgamma(dof / 2) - 0.5 * math.log(math.pi)
    return min(1.0, 2 * math.exp(log_c) * area)


@cache
def _gauss_legendre() -> tuple[np.ndarray, np.ndarray]:
    """200 nodes in [-1, 1] and their weights: eleven digits for any number of trainings."""
    return np.polynomial.legendre.leggauss(200)


# -- trade-off -------------------------------------------------------------------------------------


def pareto_front(
    candidates: Sequence[RankingEntry], cost: Criterion, utility: Criterion = CRITERIA["top1"]
) -> list[RankingEntry]:
    """The policies that no other one beats: none has a utility at least as good at a cost at most as high,
    and one of the two better. By the means; in order of cost. Those without either value are left
    out.
    """
    places = [(_badness(c, cost), _badness(c, utility), n) for n, c in enumerate(candidates)]
    front: list[RankingEntry] = []
    best = (math.inf, math.inf)  # cost and utility of the last one
    for price, value, number in sorted(p for p in places if max(p[:2]) < math.inf):
        if value < best[1] or (price, value) == best:
            front.append(candidates[number])
            best = price, value
    return front
