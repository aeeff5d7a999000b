"""The LR range test of the paper (section V-A): short trainings with a constant LR each.

From 0.1 the LR goes down by tens, and up where the top one is best, until Top-1 drops at both ends.
Then the steps around the good ones become finer. An LR is good where its Top-1 after the test's
length is within ``TOLERANCE`` of the best, as a share of what the best has gained over guessing;
the good range is the run of good LRs around the best one. Another measure takes the place of Top-1
by its points (see ``measure``); of a loss, which is noisier, the mean of the last ``STEADY`` tests
counts.

A net that begins with weights (fine-tuning) needs LRs that are about ten times lower, so the test
begins with these. It is good at its first test, with an LR that changes nothing, too. There an LR
must also have at least ``HALF`` of what the best has gained over the test before the first update.
Where none has gained anything, the range ends below at the first LR that leaves Top-1 as it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from lrbench_caffe.errors import TrainingError
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.tuning.measure import Measure
from lrbench_caffe.tuning.space import GoodRange

FIRST = (0.1, 0.01, 0.001)
FIRST_PRETRAINED = (0.01, 0.001, 0.0001)
STEADY = 2  # tests
TOLERANCE = 0.05
SMALL = 0.05  # share of what there is to gain over guessing that any test set shows
HALF = 0.5
AS_IT_WAS = 0.001  # of what the weights have over guessing: within that, nothing has changed
LOWEST, HIGHEST = 1e-7, 10.0  # no net needs LRs beyond them
_FINER = (2.0, 5.0)  # between two powers of ten


@dataclass
class Rung:
    """One LR of the ladder: its tests, none after it diverged.

    One that failed for another reason than its loss says nothing about its LR.
    """

    lr: float
    measurements: Sequence[Measurement]
    diverged: bool = False
    failed: bool = False


@dataclass
class Ladder:
    """Decides which LRs to try next, and finds the good range.

    An LR may be asked for while others are being tried: it is then wanted whatever they show.

    Args:
        measure: what LRs are compared by.
        pretrained: whether the trainings begin with weights, so that the test before the first
            update says what an LR has to beat.
    """

    measure: Measure
    pretrained: bool = False
    rungs: dict[float, Rung] = field(default_factory=dict)
    _tried: set[float] = field(default_factory=set)

    def add(self, rung: Rung) -> None:
        self._tried.add(rung.lr)
        self.rungs[rung.lr] = rung

    @property
    def tests(self) -> list[int]:
        """The iterations of all tests, rising, without those before the first update."""
        return sorted(
            {m.iteration for rung in self.rungs.values() for m in rung.measurements if m.iteration}
        )

    @property
    def begin(self) -> float | None:
        """The value of the weights that the trainings begin with; None from scratch, or where not tested."""
        if not self.pretrained:
            return None
        values = (self.value(lr, 0) for lr in self.rungs)
        return next((value for value in values if value is not None), None)

    @property
    def first(self) -> Sequence[float]:
        """The LRs that are tried whatever they show."""
        return FIRST_PRETRAINED if self.pretrained else FIRST

    @property
    def rule(self) -> str:
        """The rule by which an LR is good, in words."""
        log = " (by the logarithm)" * self.measure.is_log
        rule = (
            f"LRs whose {self.measure.title} is within {TOLERANCE:.0%} of the best gain{log} "
            "over guessing, around the best constant LR"
        )
        if self.begin is None:
            return rule
        return (
            f"{rule}, and with at least {HALF:.0%} of the best gain over the weights it began with"
        )

    def value(self, lr: float, iteration: int) -> float | None:
        """The measure of an LR at a test, None where there was none."""
        tests = [m for m in self.rungs[lr].measurements if m.iteration == iteration]
        return self.measure.value(tests[0]) if tests else None

    def score(self, lr: float) -> float:
        """The points of an LR at the end of its training; 0 if it diverged."""
        rung = self.rungs[lr]
        tests = [m for m in rung.measurements if m.iteration]
        if not tests or rung.diverged:
            return 0.0
        last = 1 if self.measure.is_share else STEADY
        return float(self.measure.scores_of(tests[-last:]).mean())

    def ask(self) -> float | None:
        """The next LR to try; None where there is none before the result of one that is being tried, and,
        where none is, when the range is found."""
        wanted = self._wanted() if self._tried.issuperset(self.first) else self.first
        untried = next((lr for lr in wanted if lr not in self._tried), None)
        if untried is not None:
            self._tried.add(untried)
        return untried

    def _wanted(self) -> list[float]:
        """The next tens, or finer steps, at both ends of what is good so far; some may have been tried."""
        good = self._good()
        if not good:
            return [] if self._tried - set(self.rungs) else self._beyond()
        low, high = self._known(_ten_below(good[0] / 1.01), 0.1), _ten_below(good[-1])
        above = self._known(_times(high, 10), 10)
        wanted = []
        # An end that is a ten may still turn out to be bad, beside a better one that is being
        # tried.
        if not _is_ten(good[-1]) or _times(good[-1], 0.1) in self.rungs:
            wanted += self._further(above) or self._finer(high, above)
        if (not _is_ten(good[0]) or _times(good[0], 10) in self.rungs) and not self._idle(good[0]):
            wanted += self._further(low) or self._finer(low, low)
        return wanted

    def _beyond(self) -> list[float]:
        """The next tens where none of those that were tried is good."""
        below, top = self._further(_times(min(self._tried), 0.1)), max(self._tried)
        # Top-1 hardly ever gets worse than guessing with too low an LR; an IoU does, before it rises.
        if self.measure.is_top1 or self.rungs[top].diverged:
            return below
        return self._further(_times(top, 10)) + below

    def _known(self, ten: float, factor: float) -> float:
        """A ten, or the next one in a direction that was not lost: of what is lost nobody knows whether it is
        good, so it is not an end of the range."""
        while ten in self.rungs and self.rungs[ten].failed:
            ten = _times(ten, factor)
        return ten

    def _idle(self, lr: float) -> bool:
        """Whether an LR leaves the weights as good as they were, so that a lower one does no more."""
        begin = self.begin
        if begin is None:
            return False
        before = self.measure.score(begin)
        return abs(self.score(lr) - before) <= AS_IT_WAS * max(0.0, before - self.measure.guess)

    def _further(self, ten: float) -> list[float]:
        return [ten] if LOWEST <= ten <= HIGHEST and ten not in self._tried else []

    def _finer(self, ten: float, end: float) -> list[float]:
        """The steps above a ten, once it is known that the range ends at ``end``."""
        return [_times(ten, factor) for factor in _FINER] if end in self.rungs else []

    def _good(self) -> list[float]:
        """The good LRs around the best one, rising."""
        ordered = sorted(lr for lr, rung in self.rungs.items() if not rung.failed)
        values = {lr: self.score(lr) for lr in ordered}
        top = max(values.values(), default=0.0)
        guess = self.measure.guess
        if top - guess <= self._by_chance():
            return []
        least = top - TOLERANCE * (top - guess)
        if self.begin is not None and top > (begin := self.measure.score(self.begin)):
            least = max(least, begin + HALF * (top - begin))
        at = max(range(len(ordered)), key=lambda i: values[ordered[i]])
        first = last = at
        while first > 0 and values[ordered[first - 1]] >= least:
            first -= 1
        while last + 1 < len(ordered) and values[ordered[last + 1]] >= least:
            last += 1
        return ordered[first : last + 1]

    def _by_chance(self) -> float:
        """The points above guessing that are no sign of learning: three standard errors of such a Top-1.

        Of a small test set a single image may be more than that, so it is at most a twentieth of
        what there is to gain.
        """
        counts = [m.samples for rung in self.rungs.values() for m in rung.measurements]
        samples, share = max(counts, default=0), self.measure.guess / 100
        if not self.measure.is_top1 or not samples or self.begin is not None:
            return 0.0
        return 100 * min(3 * math.sqrt(share * (1 - share) / samples), SMALL * (1 - share))

    def result(self) -> GoodRange:
        """The good range.

        Raises:
            TrainingError: no LR learned anything.
        """
        good = self._good()
        if not good:
            tried = ", ".join(f"{lr:g}" for lr in sorted(self.rungs))
            raise TrainingError(
                f"no constant LR learned anything: {tried} ended no better than guessing"
            )
        limit = min(
            (lr for lr, rung in self.rungs.items() if rung.diverged and lr > good[-1]), default=None
        )
        return GoodRange(good[0], good[-1], max(good, key=self.score), limit)


def _is_ten(lr: float) -> bool:
    return math.isclose(math.log10(lr), round(math.log10(lr)), abs_tol=1e-6)


def _ten_below(lr: float) -> float:
    """The highest power of ten that is not above an LR."""
    return _times(10.0 ** math.floor(math.log10(lr) + 1e-9), 1)


def _times(lr: float, factor: float) -> float:
    return float(f"{lr * factor:.3g}")
