"""What a tuning is asked for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from lrbench_caffe.jobs.opening import beginning_flags
from lrbench_caffe.records import SCRATCH, Start
from lrbench_caffe.tuning.measure import Measure
from lrbench_caffe.tuning.space import FAMILIES

TESTS = 20  # in a training, at least: the search looks at tests
FEW = 2  # slots that are planned for even if there are fewer, so that both make the same decisions


@dataclass(frozen=True)
class TuningPlan:
    """The plan of a tuning, as in study.json.

    Attributes:
        solver: the solver file.
        max_iter, test_interval: of every training; epoch: iterations in one, None where not known.
        by, higher: what policies are compared by (see ``Measure``), and whether more of it is better.
        classifies: whether the first test net does.
        chance: its value for a net that has learned nothing: Top-1 of guessing in percent, else the
            value before the first update.
        seed: of the first training of each policy; further ones have the numbers after it.
        flags: more flags for every training.
        functions: LR functions to choose from.
        goal: "accuracy", or "cost": the fewest iterations to the target.
        target_top1: the target in percent, None for as high as possible; ``target``: the same for
            another measure.
        seeds: trainings of each finalist; top: how many finalists.
        budget: iterations, for all of it; None for the usual share.
        compose: whether to try compositions of the best policies.
        files: digest of the solver and its nets, so that no other training is mistaken for one of
            this study.
        data: digest of the data's content, "" where that is not known.
        slots: trainings that the pool had room for at a time when the study began.
        start: what the trainings begin with; ``weights``: the files of it that were asked for,
            comma-separated, None for the solver's own. level, stages: of the training net.
        holdout: share of the training records that are held out, by which policies are chosen; 0:
            they are chosen by the test set.
        split: digest of the choice of these records, "" before it is made.
        also: other settings that are chosen, too: "momentum=0.8,0.9" (see ``also``).
        form: of a range test, "ladder" or "ramp"; empty for a tuning.
        try_first: policies that were given to be tried first; lr_range: the lowest and the highest
            good constant LR that were given, empty where they are to be found.
    """

    solver: str
    max_iter: int
    test_interval: int
    epoch: float | None
    chance: float
    seed: int
    flags: tuple[str, ...] = ()
    functions: tuple[str, ...] = FAMILIES["all"]
    goal: str = "accuracy"
    target_top1: float | None = None
    seeds: int = 1
    top: int = 1
    budget: int | None = None
    compose: bool = False
    files: str = ""
    data: str = ""
    slots: int = 1
    by: str = "top1"
    higher: bool = True
    classifies: bool = True
    target: float | None = None
    start: Start = SCRATCH
    weights: str | None = None
    level: int = 0
    stages: tuple[str, ...] = ()
    holdout: float = 0.0
    split: str = ""
    also: tuple[str, ...] = ()
    try_first: tuple[str, ...] = ()
    lr_range: tuple[float, ...] = ()
    form: str = ""

    @property
    def beginning(self) -> tuple[str, ...]:
        """Flags of a new training, for its start and its net."""
        return beginning_flags(self.weights, self.level, self.stages)

    @property
    def measure(self) -> Measure:
        """What policies are compared by."""
        return Measure.of(self.by, self.higher, self.chance)

    @property
    def goal_value(self) -> float | None:
        """The target, a value of the measure; None where none was given."""
        return self.target_top1 if self.by == "top1" else self.target

    @property
    def target_text(self) -> str:
        """The target for people; empty where none was given."""
        return "" if self.goal_value is None else self.measure.short_text(self.goal_value)

    @property
    def ahead(self) -> int:
        """How many trainings are decided on before the result of the first of them must be known."""
        return max(FEW, self.slots)

    def as_json(self) -> dict[str, Any]:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def test_interval(own: int, max_iter: int) -> int:
    """The solver's, or the largest whole part of max_iter that gives enough tests."""
    if own and own * TESTS <= max_iter:
        return own
    return max(1, max_iter // TESTS)
