"""The results of trainings: means and deviations over seeds, from records of the LR database."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lrbench_caffe.metrics import Measurement, best, of_first_net
from lrbench_caffe.records import RunRecord, Spread

# The columns of Tables VII to IX.
PAPER_METRICS = ("iterations", "ld", "top1", "top5", "ac", "cd", "cdac")


@dataclass(frozen=True)
class PolicyResult:
    """One policy's metrics at its highest Top-1.

    Attributes:
        spreads: mean and population deviation over trainings, by name, of ``PAPER_METRICS``; a metric
            that no training has is not among them. Empty where all trainings diverged.
        seeds: of the trainings behind them, in order; empty for the paper, which does not state
            them.
        diverged: how many trainings more diverged.
        runs: all of these trainings, those that diverged last; empty for the paper.
    """

    spreads: Mapping[str, Spread]
    seeds: tuple[int | None, ...] = ()
    diverged: int = 0
    runs: tuple[RunRecord, ...] = field(default=(), repr=False, compare=False)


def spread(values: Sequence[float]) -> Spread:
    """Mean and population deviation; no deviation for a single value.

    >>> spread([99.0, 99.5])
    Spread(mean=99.25, sd=0.25, n=2)
    """
    sd = float(np.std(values)) if len(values) > 1 else None
    return Spread(math.fsum(values) / len(values), sd, len(values))


def result_of(records: Iterable[RunRecord]) -> PolicyResult | None:
    """The result of one policy's runs, one for each seed: of several, the one that ended last.

    Returns:
        None where no run finished with a Top-1 and none diverged.
    """
    runs = runs_of(records)
    kept, diverged = one_for_each_seed(runs)
    if not kept and not diverged:
        return None
    tops = [top for record in kept if (top := best(of_first_net(record.measurements))) is not None]
    spreads = {}
    for name in PAPER_METRICS:
        values = [value for top in tops if (value := _metric(top, name)) is not None]
        if values:
            spreads[name] = spread(values)
    return PolicyResult(spreads, tuple(record.seed for record in kept), diverged, tuple(runs))


def runs_of(records: Iterable[RunRecord]) -> list[RunRecord]:
    """The trainings of one policy, one for each seed: those that finished, then those that diverged."""
    runs = list(records)
    finished, _ = one_for_each_seed(runs)
    seeds = {record.seed for record in finished}
    lost = {r.seed: r for r in runs if r.status == "diverged" and r.seed not in seeds}
    return [*finished, *lost.values()]


def finished(runs: Iterable[RunRecord]) -> list[RunRecord]:
    """The runs that finished."""
    return [run for run in runs if run.status == "finished"]


def counted(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """The runs that a policy is judged by: those that finished; where none did, those that diverged."""
    return finished(runs) or list(runs)


def top1_until(runs: Iterable[RunRecord], iteration: int) -> list[float]:
    """The highest Top-1 of each run's tests up to an iteration.

    One that diverged is at chance from then on: its last test stands for all that would have
    followed.
    """
    highest = []
    for run in runs:
        tests = [m for m in of_first_net(run.measurements) if m.iteration <= iteration]
        top = best(tests)
        if top is not None and top.top1 is not None:
            highest.append(top.top1)
    return highest


def one_for_each_seed(records: Iterable[RunRecord]) -> tuple[list[RunRecord], int]:
    """The finished runs, one for each seed, by seed; and the number of other seeds that diverged."""
    finished: dict[int | None, RunRecord] = {}
    diverged: set[int | None] = set()
    for record in sorted(records, key=lambda r: r.ended or 0.0):
        if record.status == "finished" and any(
            m.top1 is not None for m in of_first_net(record.measurements)
        ):
            finished[record.seed] = record
        elif record.status == "diverged":
            diverged.add(record.seed)
    kept = [finished[seed] for seed in sorted(finished, key=lambda seed: (seed is None, seed or 0))]
    return kept, len(diverged - set(finished))


def _metric(measurement: Measurement, name: str) -> float | None:
    value = measurement.iteration if name == "iterations" else getattr(measurement, name)
    return None if value is None or math.isnan(value) else float(value)
