"""Runs of optimisers on the curves, and the figures that are reported of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lrbench_caffe.tabular import Rows, number

from .curves import Curve, CurveSet
from .ledger import Ledger
from .peers import Optimiser, SearchOutcome

GOAL = 0.99  # of the way from the pool's median to its best
SHARES = (5, 10, 15, 25, 50)  # % of what training all in full costs


@dataclass(frozen=True)
class Way:
    """From the median of a pool's policies, each taken by its best Top-1, to the best of all."""

    median: float
    top: float

    @classmethod
    def of(cls, curves: Sequence[Curve]) -> Way:
        bests = [curve.best for curve in curves]
        return cls(float(np.median(bests)), max(bests))

    @property
    def goal(self) -> float:
        """The Top-1 to reach."""
        return self.median + GOAL * (self.top - self.median)

    def gone(self, top1: float) -> float:
        """How much of the way a Top-1 is, in %; below 0 before its start."""
        return 100 * (top1 - self.median) / (self.top - self.median)


@dataclass(frozen=True)
class Run:
    """One optimiser on the curves of one seed.

    Attributes:
        costs: in % of what training the whole pool in full costs, ascending, from 0.
        bests: the best Top-1 found at these costs.
        way: what the best Top-1 is compared with.
    """

    costs: np.ndarray
    bests: np.ndarray
    way: Way
    outcome: SearchOutcome

    @property
    def cost_of_goal(self) -> float:
        """The cost in % at which the goal was reached; infinite if it was not."""
        reached = np.flatnonzero(self.bests >= self.way.goal - 1e-9)
        return float(self.costs[reached[0]]) if reached.size else math.inf

    def best_at(self, share: float) -> float:
        """The best Top-1 found at a cost of `share` %."""
        return float(self.bests[np.searchsorted(self.costs, share + 1e-9, side="right") - 1])


def replay(task: CurveSet, optimiser: Optimiser, seeds: int) -> Iterator[Run]:
    """Let an optimiser spend iterations with seeds 0, 1, ..., on the curves' seeds in turn."""
    for seed in range(seeds):
        yield run_once(task, optimiser, seed)


def run_once(task: CurveSet, optimiser: Optimiser, seed: int) -> Run:
    """Let an optimiser spend iterations with one seed."""
    curves = task.curves_of(seed)
    ledger = Ledger(curves)
    outcome = optimiser(task, ledger, seed)
    costs, bests = np.array(ledger.trace).T
    return Run(100 * costs / ledger.full_cost, bests, Way.of(curves), outcome)


def quantiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Quartiles and median, each one of the values: some may be infinite."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], method="inverted_cdf")
    return float(low), float(middle), float(high)


def table(results: Mapping[str, Sequence[Run]]) -> Rows:
    """A row for each optimiser, under a heading."""
    heading = ["optimiser", "to goal", "quartiles", "never"]
    rows = [[*heading, *(f"at {share} %" for share in SHARES), "repeats"]]
    return rows + [[name, *_figures(runs)] for name, runs in results.items()]


def _figures(runs: Sequence[Run]) -> list[str]:
    costs = [run.cost_of_goal for run in runs]
    low, median, high = map(_cost, quantiles(costs))
    found = [number(float(np.median([run.best_at(share) for run in runs])), 2) for share in SHARES]
    repeats = float(np.median([run.outcome.repeats for run in runs]))
    return [median, f"{low} to {high}", str(sum(map(math.isinf, costs))), *found, f"{repeats:.0f}"]


def seeds_table(results: Mapping[str, Sequence[Run]], recorded: Sequence[int]) -> Rows:
    """The median cost to the goal on the curves of each seed of the trainings, a row for each optimiser.

    More seeds of an optimiser average out its luck, but not that of the few trainings which it is
    given: this table shows how far one may generalise.
    """
    rows: Rows = [["optimiser", *(f"trainings' seed {seed}" for seed in recorded)]]
    for name, runs in results.items():
        parts = _by_seed(runs, len(recorded))
        rows.append([name, *(_cost(_median_cost(part)) if part else "-" for part in parts)])
    return rows


def _by_seed(runs: Sequence[Run], count: int) -> list[Sequence[Run]]:
    """The runs on the curves of each seed of the trainings (see ``CurveSet.curves_of``)."""
    return [runs[first::count] for first in range(count)]


def _cost(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.1f}"


@dataclass(frozen=True)
class Ratio:
    """What the tuner costs on a set, in parts of what the best of its rivals costs there.

    Attributes:
        ours, best: median costs to the goal, in %; infinite where it was not reached.
        rival: whose the lower cost is.
        by_seed: the ratio on the curves of each seed of the trainings, to the best rival there.
    """

    task: str
    ours: float
    rival: str
    best: float
    by_seed: Sequence[float] = ()

    @property
    def value(self) -> float:
        """Infinite where the tuner did not reach the goal, 0 where none of the others did."""
        if math.isinf(self.ours):
            return math.inf
        return self.ours / self.best


def ratio(
    task: str, ours: Sequence[Run], rivals: Mapping[str, Sequence[Run]], recorded: int
) -> Ratio:
    """Compare the tuner's median cost to the goal with that of its best rival on a set.

    Args:
        recorded: how many seeds the set's trainings have.
    """
    costs = {name: _median_cost(runs) for name, runs in rivals.items()}
    rival = min(costs, key=lambda name: costs[name])
    apart = [
        ratio(task, part, {name: _by_seed(runs, recorded)[i] for name, runs in rivals.items()}, 1)
        for i, part in enumerate(_by_seed(ours, recorded) if recorded > 1 else [])
        if part
    ]
    by_seed = [one.value for one in apart]
    return Ratio(task, _median_cost(ours), rival, costs[rival], by_seed)


def _median_cost(runs: Sequence[Run]) -> float:
    return quantiles([run.cost_of_goal for run in runs])[1]


def ratio_table(ratios: Sequence[Ratio]) -> Rows:
    """A row for each set, and the geometric mean of all."""
    rows: Rows = [
        ["set", "this tuner", "best of the others", "its cost", "ratio", "by the trainings' seeds"]
    ]
    for found in ratios:
        costs = _cost(found.ours), _cost(found.best)
        by_seed = ", ".join(number(value, 2) for value in found.by_seed) or "-"
        rows.append([found.task, costs[0], found.rival, costs[1], number(found.value, 2), by_seed])
    values = [found.value for found in ratios]
    mean = math.exp(sum(map(_log, values)) / len(values))
    return [*rows, ["geometric mean", "", "", "", number(mean, 2), ""]]


def _log(value: float) -> float:
    return math.log(value) if value else -math.inf
