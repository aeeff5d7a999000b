"""What somebody wants reproduced, and which trainings that needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from lrbench_caffe.errors import ParameterError
from lrbench_caffe.reproduction.plan import ExperimentPlan, check_factor, plan, plans, scale, select
from lrbench_caffe.reproduction.runner import Goal

MOST_SEEDS = 1000


def known_names() -> list[str]:
    """What there is to reproduce; "all" comes last."""
    tables = [name for name in plans() if name.startswith("table")]
    return [*tables, "figure1", *(name for name in plans() if name.startswith("figure")), "all"]


@dataclass(frozen=True)
class ReproductionRequest:
    """Which trainings of a table or figure are wanted.

    Attributes:
        what: one of ``known_names()``.
        rows: only these, as ``plan.select`` reads them; None for all.
        seeds: trainings of each row; None for as many as the plan has.
        iterations_scale: the part of the iterations, above 0 and at most 1.
        until: the iteration at which each training is paused; None to train to the end.

    Raises:
        ParameterError: a value is not allowed.
    """

    what: str
    rows: str | None = None
    seeds: int | None = None
    iterations_scale: float = 1.0
    until: int | None = None

    def __post_init__(self) -> None:
        if self.rows is not None and self.what in ("figure1", "all"):
            raise ParameterError(
                "{rows}: {0} has no rows; allowed: with one table or figure3 to figure5", self.what
            )
        if self.seeds is not None and not 1 <= self.seeds <= MOST_SEEDS:
            raise ParameterError("{seeds}: {0}; allowed: 1 to {1}", self.seeds, MOST_SEEDS)
        check_factor(self.iterations_scale)
        if self.until is not None and self.until < 1:
            raise ParameterError("{until}: {0}; allowed: 1 or more", self.until)

    @property
    def has_figure1(self) -> bool:
        """Whether Figure 1 is wanted, for which nothing is trained."""
        return self.what in ("figure1", "all")

    def goals(self, find: Callable[[str], ExperimentPlan] = plan) -> list[Goal]:
        """What is to be trained for it, in order.

        Args:
            find: tells the plan of a name.

        Raises:
            InputError: the plan has no such row, or no such iteration.
        """
        if self.what == "figure1":
            return []
        names = plans() if self.what == "all" else [self.what]
        return [self._goal(find(name)) for name in names]

    def _goal(self, whole: ExperimentPlan) -> Goal:
        chosen = whole if self.rows is None else select(whole, self.rows)
        numbers = {row.number for row in chosen.rows}
        scaled = scale(whole, self.iterations_scale)
        if self.seeds is not None:
            scaled = replace(scaled, seeds=tuple(range(1, self.seeds + 1)))
        if self.until is not None and self.until >= scaled.max_iter:
            raise ParameterError(
                "{until}: {0}; allowed: 1 to {1} for {2}",
                self.until,
                scaled.max_iter - 1,
                whole.name,
            )
        return Goal(scaled, tuple(row for row in scaled.rows if row.number in numbers))
