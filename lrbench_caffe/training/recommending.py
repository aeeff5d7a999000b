"""Policies for a solver, from what the LR database knows: the command ``recommend`` and the API's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lrbench_caffe.errors import ParameterError
from lrbench_caffe.knowledge.contributors import results_of
from lrbench_caffe.knowledge.evidence import Wanted
from lrbench_caffe.knowledge.proposing import usual_top
from lrbench_caffe.knowledge.recommendation import Recommendation
from lrbench_caffe.parameters import (
    check_level,
    check_names,
    check_not_empty,
    check_switch,
    check_text,
    check_whole,
    to_python_values,
)
from lrbench_caffe.prototxt.solver import check_length
from lrbench_caffe.training.beginning import check_before_end, without_weights
from lrbench_caffe.training.choosing import open_wanted, recommend_for

if TYPE_CHECKING:
    from lrbench_caffe.database import Database


@dataclass(frozen=True)
class RecommendationRequest:
    """What a recommendation is asked for.

    Attributes:
        solver: the solver.prototxt.
        max_iter: iterations of the training; None for the solver's.
        functions: propose these LR functions only, each if possible; none for any.
        by, higher: an output of the test net to compare by, and whether more of it is better.
        top: proposals at most; None for 3, or one for each of ``functions``.
        snapshot, weights: what the training begins with.
        level, stages, head, caffe_python: as for a training.
        contributors: use only their results: names of those who uploaded runs, "own" for runs that
            were never uploaded, "paper" for the paper's; none for all.
    """

    solver: Path
    max_iter: int | None = None
    functions: tuple[str, ...] = ()
    by: str | None = None
    higher: bool | None = None
    top: int | None = None
    snapshot: str | None = None
    weights: str | None = None
    level: int | None = None
    stages: tuple[str, ...] | None = None
    head: str | None = None
    caffe_python: str | None = None
    contributors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check what does not depend on the solver.

        Raises:
            ParameterError: a value is not allowed.
        """
        to_python_values(self)
        check_not_empty(self, by="a name")
        check_whole(self, "max_iter", "top", "level")
        check_text(self, "by", "snapshot", "weights", "head", "caffe_python")
        check_names(self, "functions", "contributors", "stages")
        check_level(self)
        check_switch(self, "higher")
        if self.max_iter is not None and self.max_iter < 1:
            raise ParameterError("{max_iter}: {0}; allowed: 1 or more", self.max_iter)


@dataclass(frozen=True)
class Recommended:
    """A recommendation, what it is for, and the length of that training in iterations."""

    wanted: Wanted
    recommendation: Recommendation
    max_iter: int

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a person should know."""
        start = without_weights(self.wanted.start)
        return (*([start] if start else []), *self.recommendation.remarks)


def carry_out(request: RecommendationRequest, open_database: Callable[[], Database]) -> Recommended:
    """Propose policies for a solver.

    Args:
        request: what is asked for.
        open_database: opens the LR database; called when the solver is known to be right.

    Raises:
        InputError: a parameter, the solver or what it begins with is wrong.
        DatabaseError: the database is out of reach.
    """
    solver, wanted = open_wanted(
        request.solver,
        caffe_python=request.caffe_python,
        head=request.head,
        snapshot=request.snapshot,
        weights=request.weights,
        level=request.level or 0,
        stages=request.stages or (),
    )
    max_iter, functions = request.max_iter or solver.message.max_iter, request.functions
    check_length(solver, max_iter)
    if request.snapshot:
        check_before_end(request.snapshot, wanted.start.iteration or 0, max_iter)
    with open_database() as database:
        recommendation = recommend_for(
            results_of(database, request.contributors),
            wanted,
            solver,
            max_iter,
            functions=functions or None,
            by=request.by,
            higher=request.higher,
            top=usual_top(functions) if request.top is None else request.top,
        )
    return Recommended(wanted, recommendation, max_iter)
