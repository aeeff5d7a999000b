"""By how much a tuning's choice flatters: held-out records against the test set. Pure functions.

The held-out records chose each finalist and the iteration at which it counts. Its trainings on all
records are tested regularly, but only the test at that iteration counts, so its result there is
unbiased. The best test, and the best finalist's, are what a choice by the test set would have
reported. Differences are so that more flatters more, whether or not a higher value is better.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lrbench_caffe.lr import Policy
from lrbench_caffe.tabular import Rows
from lrbench_caffe.tuning.also import with_settings
from lrbench_caffe.tuning.measure import Measure
from lrbench_caffe.tuning.trainings import PolicyTrainings
from lrbench_caffe.tuning.verdict import bests, tops


@dataclass(frozen=True)
class Chosen:
    """A policy on held-out records and on the test set: values of the measure.

    Attributes:
        policy: the policy.
        iteration: where it counts, as the held-out records have it.
        held_out: the value there, of the training that was tested on them.
        test: of each training on all records, at that iteration.
        best: the best of each of these trainings.
        settings: the other settings of its trainings, for people; empty where none were chosen.
    """

    policy: Policy
    iteration: int
    held_out: float
    test: tuple[float, ...]
    best: tuple[float, ...]
    settings: str = ""

    @property
    def name(self) -> str:
        """The policy, and the other settings, for people."""
        return f"{self.policy:.6g}{with_settings(self.settings)}"

    @classmethod
    def of(cls, trained: PolicyTrainings | None, measure: Measure) -> Chosen | None:
        """None where held-out records did not choose it, or nothing was measured."""
        decisive = trained.decisive(measure) if trained else None
        if trained is None or decisive is None:
            return None
        test, best = (measure.values(found(trained, measure)) for found in (tops, bests))
        if not test:
            return None
        (held_out,) = measure.values([decisive])
        return cls(
            trained.policy, decisive.iteration, held_out, tuple(test), tuple(best), trained.settings
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "policy": str(self.policy),
            **({"settings": self.settings} if self.settings else {}),
            "iteration": self.iteration,
            "held_out": self.held_out,
            "test": statistics.fmean(self.test),
            "best_test": statistics.fmean(self.best),
        }


@dataclass(frozen=True)
class Optimism:
    """What the choice by held-out records avoided, and what it costs them.

    Attributes:
        chosen: the finalists that were measured, the recommended one first.
        own: the solver's own policy, None where it was not measured.
        policies: how many the held-out records judged.
        records: how many they are.
        measure: what policies are compared by.
    """

    chosen: tuple[Chosen, ...]
    own: Chosen | None
    policies: int
    records: int
    measure: Measure

    @property
    def reported(self) -> Chosen:
        """The finalist that the test set would have chosen."""
        return max(self.chosen, key=lambda one: self.measure.goodness(statistics.fmean(one.best)))

    @property
    def flattery(self) -> float:
        """By how much the test set would have flattered: its own choice of finalist and iteration
        against the test of what the held-out records chose. The other candidates were not measured
        on it, so it may have flattered by more."""
        return self._better(self.reported.best, self.chosen[0].test)

    @property
    def optimism(self) -> float | None:
        """By how much the best of all candidates is flattered by the held-out records that chose it.

        That is its gap, less that of the solver's own policy, which was not chosen: what the two
        sets differ in for every policy. None without that policy.
        """
        return None if self.own is None else self.gap(self.chosen[0]) - self.gap(self.own)

    def gap(self, one: Chosen) -> float:
        """By how much the held-out records show a better value than the test set."""
        return self._better([one.held_out], one.test)

    def flattered(self, one: Chosen) -> float:
        """By how much the best test of each training is better than the one that counts."""
        return self._better(one.best, one.test)

    def lines(self) -> list[str]:
        """For people."""
        first, other, measure = self.chosen[0], self.reported, self.measure
        lines = [
            f"{self.records:,} held-out records chose {first.name} among {self.policies} "
            f"policies, and iteration {first.iteration}: {measure.text(first.held_out)} there; on "
            f"the test set {measure.figures(first.test)}{measure.unit}, trained on all records",
            f"a choice of finalist and iteration by the test set would have reported "
            f"{measure.figures(other.best)}{measure.unit} ({other.name}): flattered by "
            f"{self._points(self.flattery)}",
        ]
        if self.own is not None and self.optimism is not None:
            size = f" (one of them is {self._points(100 / self.records)})" * measure.is_top1
            flattered = self._points(self.optimism) if self.optimism > 0 else "nothing"
            lines.append(
                f"on the held-out records it is {self._than(self.gap(first))} than on the test set, "
                f"your own policy, which was not chosen, {self._than(self.gap(self.own))}: they "
                f"flatter the best of {self.policies} by {flattered}{size}"
            )
        return lines

    def as_json(self) -> dict[str, Any]:
        return {
            "finalists": [one.as_json() for one in self.chosen],
            "own": self.own and self.own.as_json(),
            "judged": self.policies,
            "test_set_would_have_reported": statistics.fmean(self.reported.best),
            "flattery": self.flattery,
            "optimism": self.optimism,
        }

    def _better(self, one: Sequence[float], other: Sequence[float]) -> float:
        return self.measure.goodness(statistics.fmean(one) - statistics.fmean(other))

    def _than(self, value: float) -> str:
        return f"{self._points(abs(value))} {'better' if value >= 0 else 'worse'}"

    def _points(self, value: float) -> str:
        return f"{difference(value, self.measure)}{' points' * self.measure.percent}"


def optimism(
    finalists: Sequence[PolicyTrainings],
    own: PolicyTrainings | None,
    *,
    policies: int,
    records: int,
    measure: Measure,
) -> Optimism | None:
    """Compare the held-out records' choice with the test set; None where nothing can be compared.

    Args:
        finalists: ranked, the best first.
        own: the solver's own policy.
        policies, records, measure: see ``Optimism``.
    """
    chosen = [one for trained in finalists if (one := Chosen.of(trained, measure))]
    if not chosen:
        return None
    return Optimism(tuple(chosen), Chosen.of(own, measure), policies, records, measure)


def rows(found: Optimism) -> Rows:
    """A table of the finalists and the solver's own policy."""
    measure = found.measure
    table = [["", "policy", "held out", "at", "test set", "its best", "flattered by"]]
    for place, one in [*enumerate(found.chosen, 1), ("own", found.own)]:
        if one is not None:
            table.append(
                [
                    str(place),
                    one.name,
                    measure.figure(one.held_out),
                    str(one.iteration),
                    measure.figures(one.test),
                    measure.figures(one.best),
                    difference(found.flattered(one), measure),
                ]
            )
    return table


def difference(value: float, measure: Measure) -> str:
    """A difference without its unit, 0.00 rather than -0.00."""
    shown = measure.figure(value)
    return shown.lstrip("-") if float(shown) == 0 else shown
