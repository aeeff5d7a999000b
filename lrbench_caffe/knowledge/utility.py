"""What policies are compared by, and what a few trainings say about it. Pure functions.

A policy is compared by a cautious value,

    caution = ((mean - 2 s / sqrt(n)) * runs + worthless * diverged) / (runs + diverged)

of the Top-1, or where the net does not classify of the test loss or another output (with its sign
turned where lower is better). n is the number of trainings behind the mean and s the larger of the
policy's own deviation and the task's usual one, so a single training counts with the risk that it
was a lucky one. ``worthless`` is what a diverged training is worth: see ``Utility``.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lrbench_caffe.metrics import METRICS, TOP1
from lrbench_caffe.records import PolicySummary, Spread, Task
from lrbench_caffe.tabular import number, plus_minus

OWN = (
    "top1",
    "test_loss",
)  # a summary's own fields, by name; anything else is an output of the net
STARTED = 0.1  # share of the missing part that a training from trained weights gains, if it learned
HARDLY = 0.01  # less of it is not an improvement
MANY = 2  # trainings: fewer say nothing about noise


@dataclass(frozen=True)
class Utility:
    """A value that policies are compared by.

    Attributes:
        name: "top1", "test_loss", or an output of the test net.
        higher: whether more is better.
        worthless: the value of a training that learned nothing, which a diverged training is worth.
            For Top-1 it is chance, 100 % / classes (0 where the number of classes is not known). A
            loss has no chance level: the test loss of the untrained net is used instead; for
            other outputs the worst mean that is known.
        learned: the value from which on a training has learned; None where that cannot be told. For
            Top-1 it is the geometric mean of chance and 100 %, or a quarter of the way between them
            if that is less; for a test loss half of the untrained net's. From weights that were
            trained before, a tenth of the way from ``before`` to 100 %, or to a loss of 0.
        before: the value before the first update, of a start that is not scratch; None where it is
            not known.
    """

    name: str
    higher: bool
    worthless: float
    learned: float | None
    before: float | None = None

    @classmethod
    def top1(cls, classes: int | None) -> Utility:
        """The Top-1, for nets that classify."""
        if not classes:
            return cls("top1", True, 0.0, None)
        chance = 100.0 / classes
        return cls("top1", True, chance, min(math.sqrt(100 * chance), chance + (100 - chance) / 4))

    @classmethod
    def test_loss(cls, untrained: float | None, results: Sequence[PolicySummary] = ()) -> Utility:
        """The test loss, for nets that do not classify.

        Args:
            untrained: the test loss before the first update; None where it was not measured, and
                then the highest mean of ``results`` takes its place.
        """
        if untrained is None:
            return cls.output("test_loss", False, results)
        return cls("test_loss", False, untrained, untrained / 2 if untrained > 0 else None)

    @classmethod
    def output(cls, name: str, higher: bool, results: Sequence[PolicySummary]) -> Utility:
        """Any output of the test net.

        Args:
            results: the worst mean of these is what a training is worth that diverged.
        """
        means = [spread.mean for summary in results if (spread := value_of(summary, name))]
        worst = (min if higher else max)(means, default=-math.inf if higher else math.inf)
        return cls(name, higher, worst, None)

    def begun(self, before: float) -> Utility:
        """The same from trained weights, which have this value before the first update."""
        return replace(self, before=before, learned=self._beyond(before, STARTED))

    @property
    def improved(self) -> float | None:
        """The value that a training from trained weights must be beyond to have improved anything."""
        return None if self.before is None else self._beyond(self.before, HARDLY)

    def _beyond(self, before: float, share: float) -> float:
        ideal = 100.0 if self.is_top1 else min(0.0, before)
        return before + share * (ideal - before)

    @property
    def is_top1(self) -> bool:
        return self.name == "top1"

    @property
    def title(self) -> str:
        return METRICS[self.name].title if self.name in OWN else self.name

    @property
    def best(self) -> str:
        """ "highest Top-1", "lowest test loss"; other outputs do not decide at which test they are taken."""
        if self.name not in OWN:
            return f"{self.title} measured"
        return f"{'highest' if self.higher else 'lowest'} {self.title}"

    def spread(self, summary: PolicySummary) -> Spread | None:
        return value_of(summary, self.name)

    def goodness(self, value: float) -> float:
        """The value with the sign that makes higher better."""
        return value if self.higher else -value

    def text(self, value: float) -> str:
        """ "99.33 %" or "0.1234"."""
        return f"{number(value, TOP1.digits)} %" if self.is_top1 else f"{value:.4g}"

    def spread_text(self, spread: Spread) -> str:
        """ "99.33 ± 0.02 %" or "0.1234 ± 0.0012"."""
        if not self.is_top1:
            return plus_minus(
                f"{spread.mean:.4g}", None if spread.sd is None else f"{spread.sd:.2g}"
            )
        sd = None if spread.sd is None else number(spread.sd, TOP1.digits)
        return f"{plus_minus(number(spread.mean, TOP1.digits), sd)} %"


def value_of(summary: PolicySummary, name: str) -> Spread | None:
    """A Top-1, test loss or other output of the net; None where it was not measured."""
    value: Spread | None = getattr(summary, name) if name in OWN else summary.outputs.get(name)
    return None if value is None or math.isnan(value.mean) else value


def classifies(task: Task) -> bool:
    return task.task_type.startswith("classification")


def only_diverged(summary: PolicySummary) -> bool:
    return summary.diverged > 0 and summary.runs == 0


def usual_deviation(summaries: Sequence[PolicySummary], utility: Utility) -> float:
    """The usual deviation of one policy's trainings: the root of the median of the variances.

    Over the policies with two or more trainings; 0 where there are none. Sample variances,
    sd^2 * n / (n - 1) of the population's.
    """
    variances = [
        own**2 for summary in summaries if (own := _own_deviation(summary, utility)) is not None
    ]
    return math.sqrt(statistics.median(variances)) if variances else 0.0


def _own_deviation(summary: PolicySummary, utility: Utility) -> float | None:
    spread = utility.spread(summary)
    if spread is None or spread.sd is None:
        return None
    n = summary.trainings(spread)
    return spread.sd * math.sqrt(n / (n - 1)) if n >= MANY else None


def standard_error(summary: PolicySummary, usual: float, utility: Utility) -> float:
    """s / sqrt(n) of a policy's mean (see the module).

    Args:
        usual: how far single trainings of the task usually lie apart (see ``usual_deviation``).
    """
    deviation = max(usual, _own_deviation(summary, utility) or 0.0)
    return deviation / math.sqrt(max(1, summary.trainings(utility.spread(summary))))


def caution(summary: PolicySummary, error: float, utility: Utility) -> float:
    """The cautious value that a policy is compared by, higher is better; -inf where nothing is known.

    Args:
        error: the standard error of its mean.
    """
    worthless = utility.goodness(utility.worthless)
    spread = utility.spread(summary)
    if spread is None:
        return worthless if only_diverged(summary) else -math.inf
    low = utility.goodness(spread.mean) - 2 * error
    if not summary.diverged:
        return low
    return (low * summary.runs + worthless * summary.diverged) / (summary.runs + summary.diverged)
