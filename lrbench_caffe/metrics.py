"""The paper's metrics of a test pass: accumulate over batches, merge, compute.

Memory is O(classes), whatever the number of samples. All deviations are population deviations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lrbench_caffe.errors import TrainingError

TOP_K = 5
SMALLEST = float(np.finfo(np.float32).tiny)  # what Caffe's losses put in place of a probability of 0


@dataclass(frozen=True)
class TestMetrics:
    """The metrics of one test pass (Wu et al. 2019, section III, formulas 3 to 5).

    Attributes:
        samples: number of samples counted.
        top1, top5: accuracy in percent; top5 is over min(5, classes) classes.
        ac: average confidence: mean probability of the true class over correctly classified samples.
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


@dataclass
class Moments:
    """Count, mean and sum of squared deviations of a value for each class, exact under merging (Chan)."""

    count: np.ndarray
    mean: np.ndarray
    m2: np.ndarray

    @classmethod
    def empty(cls, classes: int) -> Moments:
        return cls(np.zeros(classes), np.zeros(classes), np.zeros(classes))

    @classmethod
    def of(cls, values: np.ndarray, groups: np.ndarray, classes: int) -> Moments:
        """Moments of ``values``, shape (n,), by ``groups``, shape (n,), integers below ``classes``."""
        count = np.bincount(groups, minlength=classes).astype(float)
        total = np.bincount(groups, values, minlength=classes)
        mean = np.divide(total, count, out=np.zeros(classes), where=count > 0)
        return cls(count, mean, np.bincount(groups, (values - mean[groups]) ** 2, minlength=classes))

    def merge(self, other: Moments) -> Moments:
        count = self.count + other.count
        share = np.divide(other.count, count, out=np.zeros_like(count), where=count > 0)
        delta = other.mean - self.mean
        return Moments(count, self.mean + delta * share, self.m2 + other.m2 + delta**2 * self.count * share)

    def overall(self) -> tuple[float, float, float]:
        """Count, mean and population deviation over all classes together."""
        count = float(self.count.sum())
        if count == 0:
            return 0.0, float("nan"), float("nan")
        mean = float(self.count @ self.mean) / count
        m2 = float(self.m2.sum() + self.count @ (self.mean - mean) ** 2)
        return count, mean, float(np.sqrt(m2 / count))


@dataclass
class MetricsAccumulator:
    """Accumulates the metrics of a test pass.

    Args:
        probabilities: True where the scores are probabilities already, False for logits.
        axis: axis of the scores that the classes are on.
        ignore_label: label of samples that do not count.
    """

    probabilities: bool = False
    axis: int = 1
    ignore_label: int | None = None
    samples: int = 0
    top1: int = 0
    top5: int = 0
    entropy: float = 0.0
    confidence: Moments | None = field(default=None, repr=False)

    def add(self, scores: np.ndarray, labels: np.ndarray) -> None:
        """Take one batch.

        Args:
            scores: shape (n, classes) or (n, classes, ...) with the classes on ``axis``.
            labels: true classes, as many as there are score vectors, of any shape.

        Raises:
            TrainingError: a label that is not one of the classes (Caffe would read past the scores), or
                a number of labels other than the number of score vectors.
        """
        scores, truth = self._select(scores, labels)
        if not len(truth):
            return
        classes = scores.shape[1]
        rows = np.arange(len(truth))
        own = scores[rows, truth]
        # Caffe's own rule: a class with the same score as the true one counts as better.
        better = (scores >= own[:, None]).sum(axis=1) - 1
        # NaN compares as not better, which must not pass for a hit.
        valid = np.isfinite(own)
        correct = valid & (better < 1)
        log_p = np.log(np.maximum(own, SMALLEST)) if self.probabilities else own - _logsumexp(scores)
        self.samples += len(truth)
        self.top1 += int(correct.sum())
        self.top5 += int((valid & (better < min(TOP_K, classes))).sum())
        self.entropy -= float(log_p.sum())
        moments = Moments.of(np.exp(log_p[correct]), truth[correct], classes)
        self.confidence = moments if self.confidence is None else self.confidence.merge(moments)

    def _select(self, scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores as (n, classes) in float64 and labels as (n,) integers, without ignored samples."""
        scores = np.moveaxis(scores, self.axis, -1)
        classes = scores.shape[-1]
        scores = scores.reshape(-1, classes).astype(np.float64)
        truth = labels.reshape(-1).astype(np.int64)
        if len(scores) != len(truth):
            raise TrainingError(f"the test net puts out {len(scores)} score vectors for {len(truth)} labels")
        if self.ignore_label is not None:
            counted = truth != self.ignore_label
            scores, truth = scores[counted], truth[counted]
        if len(truth) and not 0 <= truth.min() <= truth.max() < classes:
            raise TrainingError(
                f"the test data has labels from {truth.min()} to {truth.max()}, but the net has {classes} "
                f"classes (labels 0 to {classes - 1})"
            )
        return scores, truth

    def merge(self, other: MetricsAccumulator) -> None:
        """Take in what another accumulator has seen."""
        self.samples += other.samples
        self.top1 += other.top1
        self.top5 += other.top5
        self.entropy += other.entropy
        if other.confidence is not None:
            mine = self.confidence
            self.confidence = other.confidence if mine is None else mine.merge(other.confidence)

    def compute(self) -> TestMetrics:
        """The metrics of all that was added.

        Raises:
            TrainingError: nothing was added.
        """
        if not self.samples or self.confidence is None:
            raise TrainingError("the test pass had no sample to measure")
        heard = self.confidence.count > 0
        _, ac, cd = self.confidence.overall()
        return TestMetrics(
            samples=self.samples,
            top1=100.0 * self.top1 / self.samples,
            top5=100.0 * self.top5 / self.samples,
            ac=ac,
            cd=cd,
            cdac=float(np.std(self.confidence.mean[heard])) if heard.any() else float("nan"),
            silent_classes=int((~heard).sum()),
            cross_entropy=self.entropy / self.samples,
        )


def _logsumexp(scores: np.ndarray) -> np.ndarray:
    """log(sum(exp(scores))) over the last axis, without overflow."""
    top = scores.max(axis=1)
    return top + np.log(np.exp(scores - top[:, None]).sum(axis=1))


@dataclass(frozen=True)
class Measurement:
    """One row of measurements.jsonl: a test pass and what it is compared with.

    Attributes:
        iteration: updates done before it.
        lr: learning rate of the update that follows it.
        top1, top5, ac, cd, cdac: see ``TestMetrics``; None where the net does not classify.
        test_loss: Caffe's test loss, averaged over the batches.
        train_loss: mean training loss since the previous test; None before the first update.
        ld: test_loss - train_loss (formula 6).
        seconds: wall time since the run began, over all its sessions.
        outputs: every scalar output of the test net, averaged over the pass, by the name under which Caffe
            prints it; of a vector NAME its elements are NAME, NAME[1], and so on. Further heads have their
            Top-1 in percent as SCORESBLOB.top1, and so on.
    """

    iteration: int
    lr: float
    top1: float | None
    top5: float | None
    ac: float | None
    cd: float | None
    cdac: float | None
    test_loss: float | None
    train_loss: float | None
    ld: float | None
    seconds: float
    samples: int = 0
    silent_classes: int = 0
    net: int = 0
    outputs: dict[str, float] = field(default_factory=dict, hash=False)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Measurement:
        """A measurement from a row of the file; keys that this version does not know are left out."""
        return cls(**{key: value for key, value in row.items() if key in cls.__dataclass_fields__})


def best(measurements: Sequence[Measurement]) -> Measurement | None:
    """The first measurement with the highest Top-1 (the paper's #Iterations is its iteration).

    Where there is no Top-1, because the net does not classify: the first with the lowest test loss.
    """
    rated = [m for m in measurements if m.top1 is not None]
    if rated:
        return max(rated, key=lambda m: m.top1 or 0.0)
    tested = [m for m in measurements if m.test_loss is not None and np.isfinite(m.test_loss)]
    return min(tested, key=lambda m: m.test_loss or 0.0, default=None)
