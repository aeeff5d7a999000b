"""How much each parameter of a policy mattered in a tuning, read off its trainings.

The measure is Spearman's rank correlation of a parameter with Top-1 (or another result of which
more is better) over the candidates of one LR
function: 1 or -1 where Top-1 always rises or falls with it, 0 where it does neither. It needs no
model, and no scale of the parameter. A permutation test says whether chance alone would give as
much. What rises and then falls again is not seen.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LEAST = 5  # candidates: with fewer, chance gives every correlation
SHARE = 0.75  # of the candidates must have got as far as Top-1 is compared
PERMUTATIONS = 2000


@dataclass(frozen=True)
class ComparedTraining:
    """A candidate's training, to be compared with others.

    Attributes:
        values: what is varied, by name.
        tests: iteration and Top-1 of its tests, by iteration.
        diverged: whether it did; it counts as guessing then.
    """

    values: Mapping[str, float]
    tests: Sequence[tuple[int, float]]
    diverged: bool = False


@dataclass(frozen=True)
class Importance:
    """What a parameter had to do with Top-1.

    Attributes:
        name: the parameter.
        correlation: Spearman's, from -1 to 1.
        p: the share of random orders that correlate as much.
        n: how many candidates it is of.
    """

    name: str
    correlation: float
    p: float
    n: int


def common_iteration(trainings: Sequence[ComparedTraining]) -> int | None:
    """The last test that enough of the candidates have; None where too few have any.

    The search stops most candidates early, so only what they had reached by then can be compared.
    """
    needed = max(LEAST, SHARE * len(trainings))
    tested = [(t.tests[0][0], t.tests[-1][0]) for t in trainings if t.tests and not t.diverged]
    diverged = sum(t.diverged for t in trainings)
    for end in sorted({last for _, last in tested}, reverse=True):
        if end and sum(first <= end <= last for first, last in tested) + diverged >= needed:
            return end
    return None


def compared(
    trainings: Sequence[ComparedTraining], iteration: int, chance: float
) -> list[tuple[ComparedTraining, float]]:
    """The candidates that got to an iteration, each with its highest Top-1 up to there.

    Args:
        chance: Top-1 in percent of those that diverged.
    """
    found = []
    for training in trainings:
        if training.diverged:
            found.append((training, chance))
        elif training.tests and training.tests[0][0] <= iteration <= training.tests[-1][0]:
            tests = [top1 for at, top1 in training.tests if at <= iteration]
            found.append((training, max(tests)))
    return found


def importances(
    trainings: Sequence[ComparedTraining], iteration: int, chance: float
) -> list[Importance]:
    """The importance of every parameter that was varied, the greatest first."""
    rated = compared(trainings, iteration, chance)
    names = dict.fromkeys(name for training, _ in rated for name in training.values)
    found = []
    for name in names:
        pairs = [(t.values[name], top1) for t, top1 in rated if name in t.values]
        values, tops = [value for value, _ in pairs], [top1 for _, top1 in pairs]
        if len(pairs) >= LEAST and len(set(values)) > 1 and len(set(tops)) > 1:
            correlation, p = rank_correlation(values, tops)
            found.append(Importance(name, correlation, p, len(pairs)))
    return sorted(found, key=lambda one: -abs(one.correlation))


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Spearman's correlation, and the share of ``PERMUTATIONS`` random orders that give as much.

    >>> round(rank_correlation([1, 2, 3, 4, 5], [1, 2, 3, 5, 4])[0], 10)
    0.9
    """
    a, b = _standardised(x), _standardised(y)
    correlation = float(a @ b)
    chance = np.random.default_rng(0)
    orders = np.array([chance.permutation(b) for _ in range(PERMUTATIONS)])
    as_much = np.abs(orders @ a) >= abs(correlation) - 1e-12
    return correlation, (1 + int(as_much.sum())) / (1 + PERMUTATIONS)


def _standardised(values: Sequence[float]) -> np.ndarray:
    """The ranks, equal values with their mean rank, of mean 0 and length 1."""
    ordered = sorted(values)
    first = {value: ordered.index(value) for value in ordered}
    ranks = np.array([first[v] + (ordered.count(v) - 1) / 2 for v in values])
    centred = ranks - statistics.fmean(ranks)
    return np.asarray(centred / np.linalg.norm(centred))
