"""The metrics of a test, and how they are computed from the worker's counts.

``METRICS`` declares them. The columns of the database and their ranges, the criteria of ranking and
the headings of all tables follow from it. All deviations are population's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SCORES, LOSSES = "scores", "losses"  # what metrics are of
UTILITY, ROBUSTNESS = "utility", "robustness"  # what policies are ranked by
_ELEMENT = re.compile(r"(.+)\[\d+\]")  # of an output that is a vector


@dataclass(frozen=True)
class Metric:
    """A metric of a test.

    Attributes:
        name: of the field of ``Measurement``, the column of the database, and the criterion.
        title: as in the paper's tables.
        of: ``SCORES`` where it is counted, for each head of the net, or ``LOSSES``.
        higher: True where more is better.
        percent: whether it is in percent.
        low, high: what is possible. A softmax in single precision, and a mean of such values, can
            exceed 1 by rounding.
        kind: what ranking takes it for, ``UTILITY`` or ``ROBUSTNESS``; None where policies are not
            ranked by it.
        meaning: in words, with the number of the paper's equation.
    """

    name: str
    title: str
    of: str
    higher: bool = False
    percent: bool = False
    low: float = -math.inf
    high: float = math.inf
    kind: str | None = UTILITY
    meaning: str = ""

    @property
    def digits(self) -> int:
        """Decimals to show."""
        return 2 if self.percent else 4

    @property
    def heading(self) -> str:
        """The title with its unit: "Top-1 (%)"."""
        return f"{self.title} (%)" if self.percent else self.title

    def text(self, value: float) -> str:
        """A value with its digits and unit.

        >>> METRICS["top1"].text(99.333), METRICS["ld"].text(-0.01)
        ('99.33 %', '-0.0100')
        """
        return f"{value:.{self.digits}f}" + " %" * self.percent


# In the order of all tables.
METRICS = {
    metric.name: metric
    for metric in (
        Metric("top1", "Top-1", SCORES, higher=True, percent=True, low=0, high=100, meaning=
               "The share of correct samples, in percent."),
        Metric("top5", "Top-5", SCORES, higher=True, percent=True, low=0, high=100, meaning=
               "The share of samples whose true class is among the 5 most probable ones (among all, "
               "where there are fewer classes), in percent."),
        Metric("ac", "AC", SCORES, higher=True, low=0, high=1.0001, meaning=
               "Average confidence: the mean, over the correct samples, of the probability of the "
               "true class (3)."),
        Metric("cd", "CD", SCORES, low=0, meaning=
               "Confidence deviation: the standard deviation of the same probabilities (4)."),
        Metric("cdac", "CDAC", SCORES, low=0, meaning=
               "Confidence deviation across classes: the standard deviation, over the classes, of "
               "the average confidence of each class's correct samples (5). Classes without one are "
               "left out."),
        Metric("test_loss", "test loss", LOSSES, meaning=
               "The loss that Caffe computes, averaged over the batches of the test pass; where the test "
               "net has none, the cross-entropy of its scores."),
        Metric("train_loss", "train loss", LOSSES, kind=None, meaning=
               "The mean training loss of all iterations since the test before."),
        Metric("ld", "LD", LOSSES, kind=ROBUSTNESS, meaning=
               "Loss difference, for robustness against over-fitting: the test loss minus the train "
               "loss (6)."),
    )
}  # fmt: skip
TOP1, TEST_LOSS = METRICS["top1"], METRICS["test_loss"]
OF_SCORES = tuple(name for name, metric in METRICS.items() if metric.of == SCORES)
RANKED = tuple(name for name, metric in METRICS.items() if metric.kind is not None)


@dataclass(frozen=True)
class TestMetrics:
    """The metrics of one head in a test pass (Wu et al. 2019, section III, formulas 3 to 5).

    Attributes:
        samples: number of samples counted.
        top1, top5: accuracy in percent; top5 is over min(5, classes) classes.
        ac: average confidence: mean probability of the true class over correctly classified
            samples.
        cd: confidence deviation: standard deviation of the same.
        cdac: standard deviation, over classes, of each class's average confidence.
        silent_classes: classes without a correctly classified sample, left out of cdac.
        cross_entropy: mean of -log(probability of the true class).

    ac and cd are NaN where no sample is classified correctly, cdac where no class has one.
    """

    __test__ = False  # not a test class, whatever pytest thinks of the name

    samples: int
    top1: float
    top5: float
    ac: float
    cd: float
    cdac: float
    silent_classes: int
    cross_entropy: float


@dataclass(frozen=True)
class Counts:
    """What the worker counted of one head in a test pass, as ``runtime.counting.Counter`` has it.

    Attributes:
        samples: number of samples counted.
        top1, top5: how many of them are right, or have the true class among the 5 best.
        entropy_sum: sum of -log(probability of the true class).
        count, mean, m2: for each class, shape (classes,): number of right samples, mean and sum of
            squared deviations of their probabilities of the true class.
    """

    samples: int
    top1: int
    top5: int
    entropy_sum: float
    count: np.ndarray
    mean: np.ndarray
    m2: np.ndarray

    def metrics(self) -> TestMetrics | None:
        """The metrics; None where no sample was counted."""
        if not self.samples:
            return None
        heard = self.count > 0
        ac, cd = self._confidence()
        return TestMetrics(
            samples=self.samples,
            top1=100.0 * self.top1 / self.samples,
            top5=100.0 * self.top5 / self.samples,
            ac=ac,
            cd=cd,
            cdac=float(np.std(self.mean[heard])) if heard.any() else float("nan"),
            silent_classes=int((~heard).sum()),
            cross_entropy=self.entropy_sum / self.samples,
        )

    def _confidence(self) -> tuple[float, float]:
        """Mean and population deviation of the probability over all classes together."""
        count = float(self.count.sum())
        if count == 0:
            return float("nan"), float("nan")
        mean = float(self.count @ self.mean) / count
        m2 = float(self.m2.sum() + self.count @ (self.mean - mean) ** 2)
        return mean, float(np.sqrt(m2 / count))


@dataclass(frozen=True)
class Measurement:
    """One row of measurements.jsonl: a test pass and what it is compared with.

    Attributes:
        iteration: updates done before it.
        lr: learning rate of the update that follows it.
        top1, top5, ac, cd, cdac: see ``TestMetrics``; None where the net does not classify. A metric
            that was not measured (those of a log or a printed table) is None.
        test_loss: Caffe's test loss, averaged over the batches.
        train_loss: mean training loss since the previous test; None before the first update.
        ld: test_loss - train_loss (formula 6).
        seconds: wall time since the run began, over all its sessions.
        outputs: every scalar output of the test net, averaged over the pass, by the name under
            which Caffe prints it; of a vector NAME its elements are NAME, NAME[1], and so on.
            Further heads have their Top-1 in percent as SCORESBLOB.top1, and so on.
    """

    iteration: int
    lr: float
    top1: float | None = None
    top5: float | None = None
    ac: float | None = None
    cd: float | None = None
    cdac: float | None = None
    test_loss: float | None = None
    train_loss: float | None = None
    ld: float | None = None
    seconds: float = 0.0
    samples: int = 0
    silent_classes: int = 0
    net: int = 0
    outputs: dict[str, float] = field(default_factory=dict, hash=False)

    @property
    def of_first_net(self) -> bool:
        """Whether it is of the first test net, by which a run is ranked."""
        return self.net == 0

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Measurement:
        """A measurement from a row of the file; keys that this version does not know are left out."""
        return cls(**{key: value for key, value in row.items() if key in cls.__dataclass_fields__})


def best(measurements: Sequence[Measurement]) -> Measurement | None:
    """The first measurement with the highest Top-1 (the paper's #Iterations is its iteration).

    Where there is no Top-1, because the net does not classify: the first with the lowest test loss.
    Where there is no loss either: the last one that has outputs which are finite.
    """
    rated = [m for m in measurements if m.top1 is not None]
    if rated:
        return max(rated, key=lambda m: m.top1 or 0.0)
    tested = [m for m in measurements if m.test_loss is not None and np.isfinite(m.test_loss)]
    if tested:
        return min(tested, key=lambda m: m.test_loss or 0.0)
    shown = (m for m in reversed(measurements) if any(map(math.isfinite, m.outputs.values())))
    return next(shown, None)


def value_of(measurement: Measurement, name: str) -> float | None:
    """A metric of a test, or an output of the net, by its name; None where it was not measured."""
    found: float | None = (
        getattr(measurement, name) if name in METRICS else measurement.outputs.get(name)
    )
    return found


def heading_of(name: str) -> str:
    """The title of a metric with its unit, the name of another output of the net."""
    return METRICS[name].heading if name in METRICS else name


def in_percent(name: str) -> bool:
    """Whether it is one of our metrics in percent, of the main head or of another one."""
    metric = METRICS.get(name.rpartition(".")[2])
    return metric is not None and metric.percent


def scalars(measurement: Measurement) -> dict[str, float]:
    """The outputs of a test that are single numbers; elements of vectors are left out."""
    return {name: measurement.outputs[name] for name in scalar_names([measurement.outputs])}


def scalar_names(tests: Iterable[Iterable[str]]) -> list[str]:
    """The names of the outputs that are single numbers: not NAME and NAME[1] of a vector.

    An element that is not finite is not recorded. So each NAME[3] tells of a vector, and where one
    test has only the element NAME, another test of the same net may have the others.

    Args:
        tests: the outputs of each test, by name.

    >>> scalar_names([["iou", "l1"], ["iou[2]"]])
    ['l1']
    """
    names = dict.fromkeys(name for outputs in tests for name in outputs)
    elements = {name: match[1] for name in names if (match := _ELEMENT.fullmatch(name))}
    vectors = set(elements.values())
    return [name for name in names if name not in elements and name not in vectors]


def of_first_net(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Those of the first test net."""
    return [m for m in measurements if m.of_first_net]


def best_trained(measurements: Sequence[Measurement]) -> Measurement | None:
    """A training's best test of the first test net.

    The one before the first update is left out: no LR has any part in it.
    """
    return best([m for m in of_first_net(measurements) if m.iteration > 0])
