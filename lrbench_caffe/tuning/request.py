"""The request for a tuning or a range test, from the command line or the Python API."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lrbench_caffe.errors import ParameterError
from lrbench_caffe.parameters import (
    check_choice,
    check_duration,
    check_level,
    check_names,
    check_not_empty,
    check_number,
    check_percent,
    check_switch,
    check_text,
    check_whole,
    to_python_values,
)
from lrbench_caffe.runtime.client import HANG_SECONDS
from lrbench_caffe.training.request import LAYERS
from lrbench_caffe.tuning.also import check_also

GOALS = ("accuracy", "cost")
USUAL_HOLDOUT = 0.1  # share of the training records that is held out
LEAST_HOLDOUT, MOST_HOLDOUT = 0.01, 0.5
FORMS = ("ladder", "ramp")
LARGEST_SEED = 2**31 - 1
LEAST_LR = 1e-30  # Caffe has LRs as float32, in which the candidates' lowest ones are 0 below that
MOST_SEEDS = 1000  # trainings of a finalist
LEAST_PASS = 2  # iterations of a pass of the ramp
_FULL = re.compile(r"x([0-9]{1,9}(?:\.[0-9]{1,9})?)")
_ITERATIONS = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True)
class StudyRequest:
    """Many trainings of one solver. None means not given.

    Attributes:
        solver: the solver file.
        seed: of the first training.
        test_interval: iterations between tests.
        out: the study's directory; None for one in runs/ by the solver's name. What is there is
            continued.
        by, higher: what policies are compared by (see ``untrained.choose_measure``), and whether
            more of it is better; None for Top-1, or the test loss, and to find out.
        weights: comma-separated caffemodels to start from; None for the solver's own.
        level, stages: of the training net, as caffe train's flags.
        head: the blob of scores that Top-1 is taken from.
        trust_data: do not check the data's records.
        layers: "auto", "fast", "fast-avx2" or "stock".
        caffe_python: the Python that can import caffe.
        database: the LR database's URL; None for the default one.
        no_database: neither ask the LR database nor record into it.
        hang_seconds: seconds of silence after which Caffe counts as hung; 0 for never.
        jobs: trainings at a time.
        gpus: comma-separated GPUs to train on.
        scheduler: the address of a Dask scheduler to train on instead.
    """

    solver: Path
    seed: int = 1
    test_interval: int | None = None
    out: Path | None = None
    by: str | None = None
    higher: bool | None = None
    weights: str | None = None
    level: int | None = None
    stages: tuple[str, ...] | None = None
    head: str | None = None
    trust_data: bool = False
    layers: str = "auto"
    caffe_python: str | None = None
    database: str | None = None
    no_database: bool = False
    hang_seconds: float = HANG_SECONDS
    jobs: int | None = None
    gpus: str | None = None
    scheduler: str | None = None

    def _check(self, *counts: str) -> None:
        """Check what all studies have, and counts that are 1 or more."""
        to_python_values(self)
        check_whole(self, "seed", "jobs", "level", *counts)
        check_level(self)
        check_text(self, "by", "weights")
        check_not_empty(self, by="a name", weights="names of files")
        check_switch(self, "higher")
        check_names(self, "stages")
        check_choice(self, "layers", LAYERS)
        check_duration(self, "hang_seconds")
        check_text(self, "head", "caffe_python", "database", "gpus", "scheduler")
        check_switch(self, "trust_data", "no_database")
        for name in counts:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ParameterError("{" + name + "}: {0}; allowed: 1 or more", value)


@dataclass(frozen=True)
class TuningRequest(StudyRequest):
    """A tuning; see ``StudyRequest`` for the other attributes.

    Attributes:
        goal: "accuracy" for the best results, "cost" for the fewest iterations to one.
        target_top1: the Top-1 in percent that is enough, or with "cost" the one to reach.
        target: the same for another measure (see ``by``).
        functions: "all", "cyclic", "decaying", or comma-separated LR functions.
        compose: also try compositions of the best policies.
        fresh: start from nothing that the LR database knows.
        budget: iterations, or "xF" for F times max_iter; None for 15 % of all candidates in full.
        top: finalists; seeds: trainings of each.
        max_iter: the trainings' length; None for the solver's.
        holdout: share of the training records that are held out to judge candidates by; 0: the
            test set judges them. None for that of the study in ``out``, in a new one for
            ``USUAL_HOLDOUT`` where the data can be split.
        try_first: whole policies that are tried before any other candidate.
        lr_range: the lowest and the highest good constant LR, instead of a range test. The highest
            LRs of the candidates are in this range; their lowest ones may be below it.
        also: values of other settings to choose from, by name: "batch", "momentum",
            "weight_decay"; the solver's own value is always among them. Needs Optuna.
        reuse: folders of earlier studies or runs: trainings in them that have ended, and are the
            same, are not made again.
    """

    goal: str = "accuracy"
    target_top1: float | None = None
    target: float | None = None
    functions: str = "all"
    compose: bool = False
    fresh: bool = False
    budget: str | None = None
    top: int = 2
    seeds: int = 3
    max_iter: int | None = None
    holdout: float | None = None
    try_first: Sequence[str] = ()
    lr_range: Sequence[float] | None = None
    also: Mapping[str, Sequence[float]] | None = None
    reuse: Sequence[Path] = ()

    def __post_init__(self) -> None:
        self._check("top", "seeds", "max_iter", "test_interval")
        check_choice(self, "goal", GOALS)
        check_text(self, "functions")
        check_text(self, "budget", allowed="iterations, or xF for F times max_iter, above 0")
        check_switch(self, "compose", "fresh")
        if self.seeds > MOST_SEEDS:
            raise ParameterError("{seeds}: {0}; allowed: 1 to {1}", self.seeds, MOST_SEEDS)
        if not 0 <= self.seed <= LARGEST_SEED - self.seeds:
            raise ParameterError(
                "{seed}: {0}; allowed: 0 to {1}", self.seed, LARGEST_SEED - self.seeds
            )
        check_percent(self, "target_top1")
        check_number(self, "target")
        self._check_holdout()
        check_names(self, "try_first", what="policies")
        self._check_range()
        object.__setattr__(self, "also", check_also(self.also))
        if self.also and self.goal == "cost":
            raise ParameterError(
                "{also}: iterations with other settings do not compare; allowed: {goal} accuracy"
            )

    def _check_holdout(self) -> None:
        value = self.holdout
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (
            is_number and (value == 0 or LEAST_HOLDOUT <= value <= MOST_HOLDOUT)
        ):
            raise ParameterError(
                "{holdout}: {0!r}; allowed: 0, or a share from {1:g} to {2:g}",
                value,
                LEAST_HOLDOUT,
                MOST_HOLDOUT,
            )

    def _check_range(self) -> None:
        value = self.lr_range
        if value is None:
            return
        listed = isinstance(value, (list, tuple))
        pair = listed and len(value) == 2 and all(isinstance(one, (int, float)) for one in value)
        if not pair or not LEAST_LR <= value[0] <= value[1] < math.inf:
            shown = ",".join(map(str, value)) if listed else repr(value)
            raise ParameterError(
                "{lr_range}: {0}; allowed: a pair of numbers, the lowest and the highest LR, {1:g} or more",
                shown,
                LEAST_LR,
            )

    def iterations(self, max_iter: int) -> int | None:
        """The budget in iterations, None where none was given.

        Raises:
            ParameterError: it is neither a number of iterations nor xF.
        """
        if self.budget is None:
            return None
        text = self.budget.strip()
        match = _FULL.fullmatch(text)
        if match and float(match[1]) > 0:
            return max(1, round(float(match[1]) * max_iter))
        if _ITERATIONS.fullmatch(text) and int(text) > 0:
            return int(text)
        raise ParameterError(
            "{budget}: {0!r}; allowed: iterations, or xF for F times max_iter, above 0", self.budget
        )


@dataclass(frozen=True)
class RangeRequest(StudyRequest):
    """A range test; see ``StudyRequest`` for the other attributes.

    Attributes:
        form: "ladder" or "ramp".
        iterations: of each training of the ladder, or of a pass of the ramp.
        passes: of the ramp, each with a seed of its own.
    """

    form: str = "ladder"
    iterations: int | None = None
    passes: int = 3

    def __post_init__(self) -> None:
        self._check("iterations", "passes", "test_interval")
        last = LARGEST_SEED - (self.passes - 1 if self.form == "ramp" else 0)
        if not 0 <= self.seed <= last:
            raise ParameterError("{seed}: {0}; allowed: 0 to {1}", self.seed, last)
        for name in ("by", "higher", "test_interval"):
            if self.form == "ramp" and getattr(self, name) is not None:
                raise ParameterError(
                    "{" + name + "}: the ramp reads the training loss; allowed: with {form} ladder"
                )
        check_choice(self, "form", FORMS)
        if self.form == "ramp" and self.iterations is not None and self.iterations < LEAST_PASS:
            raise ParameterError(
                "{iterations}: {0}; allowed with {form} ramp: {1} or more",
                self.iterations,
                LEAST_PASS,
            )
