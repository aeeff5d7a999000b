"""What policies are compared by, and what a few trainings say about it. Pure functions.

A policy is compared by a cautious value,

    caution = ((mean - 2 s / sqrt(n)) * runs + worthless * diverged) / (runs + diverged)

of the Top-1, or of the test loss (with its sign turned, so that higher is better) where the net does not
classify. n is the number of trainings behind the mean and s the larger of the policy's own deviation and the
task's usual one, so a single training counts with the risk that it was a lucky one. ``worthless`` is what a
diverged training is worth: see ``Utility``.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from lrbench_caffe.records import PolicySummary, Spread, Task
from lrbench_caffe.report import number

MANY = 2  # trainings: fewer say nothing about noise


@dataclass(frozen=True)
class Utility:
    """A value that policies are compared by.

    Attributes:
        name: "top1" or "test_loss": an attribute of PolicySummary.
        worthless: the value of a training that learned nothing, which a diverged training is worth. For
            Top-1 it is chance, 100 % / classes (0 where the number of classes is not known). A loss has no
            chance level: the test loss of the untrained net stands in its place.
        learned: the value from which on a training has learned; None where that cannot be told. For Top-1 it
            is the geometric mean of chance and 100 %, or a quarter of the way between them if that is less;
            for a test loss half of the untrained net's.
    """

    name: str
    worthless: float
    learned: float | None

    @classmethod
    def top1(cls, classes: int | None) -> Utility:
        """Of nets that classify."""
        if not classes:
            return cls("top1", 0.0, None)
        chance = 100.0 / classes
        return cls("top1", chance, min(math.sqrt(100 * chance), chance + (100 - chance) / 4))

    @classmethod
    def test_loss(cls, untrained: float | None, results: Sequence[PolicySummary] = ()) -> Utility:
        """Of nets that do not classify.

        Args:
            untrained: the test loss before the first update; None where it was not measured, and then the
                highest mean of ``results`` takes its place.
        """
        means = [summary.test_loss.mean for summary in results if summary.test_loss]
        worthless = max(means, default=math.inf) if untrained is None else untrained
        return cls("test_loss", worthless, untrained / 2 if untrained is not None and untrained > 0 else None)

    @property
    def higher(self) -> bool:
        """Whether more is better."""
        return self.name == "top1"

    @property
    def title(self) -> str:
        return "Top-1" if self.higher else "test loss"

    @property
    def best(self) -> str:
        """ "highest Top-1" or "lowest test loss"."""
        return f"{'highest' if self.higher else 'lowest'} {self.title}"

    def spread(self, summary: PolicySummary) -> Spread | None:
        found: Spread | None = getattr(summary, self.name)
        return None if found is None or math.isnan(found.mean) else found

    def goodness(self, value: float) -> float:
        """The value with the sign that makes higher better."""
        return value if self.higher else -value

    def text(self, value: float) -> str:
        """ "99.33 %" or "0.1234"."""
        return f"{number(value, 2)} %" if self.higher else f"{value:.4g}"

    def spread_text(self, spread: Spread) -> str:
        """ "99.33 ± 0.02 %" or "0.1234 ± 0.0012"."""
        if not self.higher:
            return f"{spread.mean:.4g}" + (f" ± {spread.sd:.2g}" if spread.sd is not None else "")
        return number(spread.mean, 2) + (f" ± {number(spread.sd, 2)}" if spread.sd is not None else "") + " %"


def classifies(task: Task) -> bool:
    return task.task_type.startswith("classification")


def only_diverged(summary: PolicySummary) -> bool:
    return summary.diverged > 0 and summary.runs == 0


def usual_deviation(summaries: Sequence[PolicySummary], utility: Utility) -> float:
    """How far single trainings of one policy usually lie apart: the root of the median of the variances.

    Over the policies with two or more trainings; 0 where there are none. Sample variances,
    sd^2 * n / (n - 1) of the population's.
    """
    variances = [own**2 for summary in summaries if (own := _own_deviation(summary, utility)) is not None]
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
