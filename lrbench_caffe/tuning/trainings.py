"""The trainings of a study: what they are for, where they are kept, and what they came to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lrbench_caffe.jobs import JobResult
from lrbench_caffe.lr import Policy
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.records import UNSUCCESSFUL
from lrbench_caffe.tuning.also import with_settings
from lrbench_caffe.tuning.curves import Curve, decisive
from lrbench_caffe.tuning.folder import FILE
from lrbench_caffe.tuning.measure import Measure

RANGE_TEST, SEARCH, FINAL, OWN = (
    "range test",
    "search",
    "finalists",
    "own policy",
)  # what trainings are for
COMBINATIONS = "combinations"
HELD_OUT = "-holdout"  # how run directories end of trainings that are tested on held-out records
ALSO = "also"  # the folder of the combinations' folders


@dataclass
class PolicyTrainings:
    """The trainings of one policy.

    Attributes:
        policy: the policy.
        results: by seed.
        held_out: its training that was tested on held-out records, by which it was chosen, and
            the iteration at which these, trained on all records, count; None where ``results``
            are what it was chosen by.
        settings: the other settings of these trainings, for people; empty where none are chosen.
        scale: iterations of the solver itself that read as many records as one of these.
        seedless: whether another seed is known to change nothing, so that the first is all there is.
    """

    policy: Policy
    results: dict[int, JobResult] = field(default_factory=dict)
    held_out: PolicyTrainings | None = None
    settings: str = ""
    scale: float = 1.0
    seedless: bool = False

    @property
    def name(self) -> str:
        """The policy, and the other settings, for people."""
        return f"{self.policy:.6g}{with_settings(self.settings)}"

    @property
    def broken(self) -> int:
        """How many trainings of it diverged or were lost."""
        return sum(result.status in UNSUCCESSFUL for result in self.results.values())

    @property
    def diverged(self) -> int:
        """How many trainings of it diverged."""
        return sum(result.status == "diverged" for result in self.results.values())

    @property
    def reliable(self) -> bool:
        """Whether none diverged, and not all were lost."""
        return not self.diverged and self.broken < len(self.results)

    @property
    def whole(self) -> list[JobResult]:
        """The complete trainings, by seed."""
        return [self.results[seed] for seed in self.whole_seeds]

    @property
    def whole_seeds(self) -> list[int]:
        """The seeds of the complete trainings, in order."""
        ordered = sorted(self.results.items())
        return [seed for seed, result in ordered if result.status not in UNSUCCESSFUL]

    @property
    def alike(self) -> bool:
        """Whether all complete trainings have the same tests to the last digit: no seed made a difference."""
        tests = [
            [replace(m, seconds=0.0) for m in result.measurements if m.iteration > 0]
            for result in self.whole
        ]
        return len(tests) > 1 and all(other == tests[0] for other in tests)

    def decisive(self, measure: Measure) -> Measurement | None:
        """The test on held-out records that it was chosen by; None without one."""
        chosen = self.held_out.results.values() if self.held_out else ()
        tests = [decisive(r.measurements, measure) for r in chosen if r.status not in UNSUCCESSFUL]
        return next(iter(tests), None)

    def counts_at(self, measure: Measure) -> int | None:
        """The iteration at which its trainings on all records count, which held-out records chose;
        None for their end."""
        test = self.decisive(measure)
        return test.iteration if test else None

    def curve(self, seed: int, measure: Measure) -> Curve | None:
        result = self.results.get(seed)
        if result is None:
            return None
        return Curve.of(result.measurements, result.iteration, result.status, measure)


@dataclass(frozen=True)
class Lost:
    """A training that was given up, although its policy is not to blame.

    Attributes:
        result: how it ended the last time.
        stage: what it was for: ``RANGE_TEST``, ``SEARCH``, ``FINAL`` or ``OWN``.
        counts: where its result would have counted, in words.
    """

    result: JobResult
    stage: str
    counts: str

    @property
    def text(self) -> str:
        return f"{self.result.loss}; {self.counts}"

    def as_json(self) -> dict[str, Any]:
        result, training = self.result, self.result.training
        return {
            "policy": training.policy, "seed": training.seed, "until": training.until, "stage": self.stage,
            "counts": self.counts, "iteration": result.iteration, "reason": result.reason,
            "losses": result.losses, "folder": training.out,
        }  # fmt: skip


def settings_of(run: Path) -> str:
    """The folder of the combination of settings that a training is of, by its run directory; empty for the
    solver's own."""
    folder = run.parent.parent
    is_one = folder.parent.name == ALSO and (folder.parent.parent / FILE).is_file()
    return folder.name if is_one else ""
