"""What a study's trainings are compared by, on a scale on which more is better.

The search, the range test and their constants work on a *score* in points of 100:

- Top-1, and other metrics in percent: the score is the value.
- What lies between 0 and 1, and higher is better (an accuracy, an IoU, an mAP): 100 times the value.
- What is above 0, and lower is better (a loss):

      score = LOG * ln(start / value)

  Losses of two nets differ by orders of magnitude, and so does one loss from beginning to end. On
  this scale a loss that is 10 % lower is worth the same wherever that is: about a point, as much as
  a tenth of the errors of a net with 90 % Top-1. A net that has learned nothing has 0 points. A loss
  above e times that counts as e times that: a spike says no more than that a training failed there.
  Below ``LEAST`` of the beginning the scale is linear, so that 0 and negative losses have a place.
- Anything else (a reward, a PSNR, a loss that begins below 0): the share of the best gain that was
  known when the search began, in percent. A loss of more than that gain counts as that.

A share below 0 counts as 0, so that no value has fewer points than what is no number.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lrbench_caffe.knowledge.utility import Utility
from lrbench_caffe.metrics import METRICS, TOP1, Measurement, in_percent, value_of
from lrbench_caffe.tabular import number, plus_minus

LOG = 10.0  # points for a loss that is e times lower
LEAST = 1e-6  # of the loss at the beginning: below it the scale is linear
LEARNED = 0.1  # of the best gain so far: what has gained less by then has not learned
ABOVE_CHANCE = 1.5  # times the Top-1 of guessing: what has less has not learned
RARE = 25.0  # Top-1 of guessing, in percent, up to which that is little of what there is to gain


@dataclass(frozen=True)
class Measure(Utility):
    """What policies are compared by in a study; ``worthless`` is the value of a net that learned nothing.

    Attributes:
        known: the best value that is known before the search, None where none is.
    """

    known: float | None = None

    @classmethod
    def of(cls, name: str, higher: bool, start: float) -> Measure:
        """The measure called ``name``, as it is before the first update (for Top-1: by guessing)."""
        return cls(name, higher, start, None)

    @classmethod
    def of_top1(cls, chance: float) -> Measure:
        """Top-1, with its value in percent for guessing."""
        return cls.of("top1", True, chance)

    def knowing(self, values: Iterable[float]) -> Measure:
        """The same, where these values are known before the search."""
        finite = [value for value in values if math.isfinite(value)]
        return replace(self, known=max(finite, key=self.goodness)) if finite else self

    # -- values ---------------------------------------------------------------------------------

    def value(self, measurement: Measurement) -> float | None:
        """Its value in a test, None where it was not measured."""
        return value_of(measurement, self.name)

    def values(self, measurements: Iterable[Measurement]) -> list[float]:
        """Its finite values in tests, those without one left out."""
        found = (self.value(m) for m in measurements)
        return [value for value in found if value is not None and math.isfinite(value)]

    def line(self, measurements: Iterable[Measurement]) -> tuple[np.ndarray, np.ndarray]:
        """The iterations of a training's tests, and its finite values there: both of shape (n,)."""
        tests = [
            (m.iteration, v) for m in measurements if m.iteration > 0 for v in self.values([m])
        ]
        return np.array([at for at, _ in tests], dtype=np.int64), np.array([v for _, v in tests])

    def best_test(self, measurements: Sequence[Measurement]) -> Measurement | None:
        """A training's first best test; the one before the first update is not its own."""
        rated = [(m, value) for m in measurements if m.iteration > 0 for value in self.values([m])]
        best = max(rated, key=lambda pair: self.goodness(pair[1]), default=None)
        return best[0] if best else None

    # -- scores ---------------------------------------------------------------------------------

    @property
    def percent(self) -> bool:
        """Whether it is in percent: one of our metrics, of the main head or of another one."""
        return in_percent(self.name)

    @property
    def is_share(self) -> bool:
        """Whether it is a share of what is possible, so that a perfect net has 100 points."""
        if self.percent:
            return True
        return self.higher and all(0 <= v <= 1 for v in (self.worthless, self.known or 0.0))

    @property
    def is_log(self) -> bool:
        return not self.higher and 0 < self.worthless < math.inf

    def scores(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """The points of values; a value that is not finite has the fewest."""
        x = np.asarray(values, dtype=np.float64)
        if self.is_share:
            return np.where(np.isfinite(x), np.maximum(0.0, x if self.percent else 100 * x), 0.0)
        if self.is_log:
            return self._log_scores(x)
        known = self.worthless if self.known is None else self.known
        unit = abs(known - self.worthless) or abs(self.worthless) or 1.0
        gains = (x - self.worthless) / unit * (1 if self.higher else -1)
        return np.where(np.isfinite(x), np.maximum(-100.0, 100 * gains), -100.0)

    def scores_of(self, measurements: Sequence[Measurement]) -> np.ndarray:
        """The points of tests, shape (n,); one without a value has the fewest."""
        found = (self.value(m) for m in measurements)
        return self.scores([math.nan if value is None else value for value in found])

    def score(self, value: float) -> float:
        """The points of a value."""
        return float(self.scores([value])[0])

    @property
    def guess(self) -> float:
        """The points of a net that learned nothing."""
        return self.score(self.worthless) if self.is_share else 0.0

    def headroom(self, score: float) -> float:
        """How many points there are to gain, of which a training gains a share; see the module."""
        return max(0.0, 100.0 - score) if self.is_share else LOG

    @property
    def known_chance(self) -> bool:
        """Whether what has learned is told by guessing alone, whatever the best of all had."""
        return self.is_top1 and self.worthless <= RARE

    def has_learned(self, score: float, record: float = 0.0) -> bool:
        """Whether a training has learned that has this score, when the best of all had ``record``.

        Half as much again as guessing would be 75 % of two classes: there a tenth of the best gain
        counts, as with other measures.
        """
        if self.known_chance:
            return score > ABOVE_CHANCE * self.worthless
        return score > self.guess + LEARNED * max(0.0, record - self.guess)

    def _log_scores(self, x: np.ndarray) -> np.ndarray:
        share = np.where(np.isfinite(x), x, np.inf) / self.worthless
        logs = np.log(np.clip(share, LEAST, math.e))
        beyond = np.maximum(0.0, LEAST - share) / LEAST
        return LOG * (beyond - logs)

    def rounded(self, value: float) -> float:
        """A value with as many digits as are shown, at most as good as it is."""
        near = float(self.figure(value))
        if self.goodness(near) <= self.goodness(value):
            return near
        digits = self.digits
        last = 3 - math.floor(math.log10(abs(near))) if digits is None else digits
        step = 10.0**-last
        return float(self.figure(near - step if self.higher else near + step))

    # -- words ----------------------------------------------------------------------------------

    @property
    def heading(self) -> str:
        """The title with its unit: "Top-1 (%)"."""
        return METRICS[self.name].heading if self.name in METRICS else self.title

    @property
    def best(self) -> str:
        """ "highest Top-1", "lowest loss"."""
        return f"{'highest' if self.higher else 'lowest'} {self.title}"

    @property
    def digits(self) -> int | None:
        """Decimals to show; None for significant digits."""
        return 0 if self.name == ITERATIONS.name else TOP1.digits if self.percent else None

    def figure(self, value: float) -> str:
        """A value without its unit."""
        return f"{value:.4g}" if self.digits is None else number(value, self.digits)

    def text(self, value: float) -> str:
        """A value with its unit, for people: "99.33 %" or "0.1234"."""
        return self.figure(value) + self.unit

    def short_text(self, value: float) -> str:
        """A value that somebody gave, for people: "99.2 %" or "0.01"."""
        return f"{value:g}{self.unit}"

    def figures(self, values: Sequence[float]) -> str:
        """Mean and population deviation: "99.31 ± 0.02" or "0.1234 ± 0.0012"; "-" for nothing."""
        if not values:
            return "-"
        sd = statistics.pstdev(values) if len(values) > 1 else None
        shown = None if sd is None else f"{sd:.2g}" if self.digits is None else self.figure(sd)
        return plus_minus(self.figure(statistics.fmean(values)), shown)

    @property
    def unit(self) -> str:
        """ " %", or nothing."""
        return " %" * self.percent

    def signed(self, value: float) -> str:
        """A difference with its sign, without its unit: "+0.05" or "-0.012"."""
        return f"{value:+.3g}" if self.digits is None else f"{value:+.{self.digits}f}"

    def difference(self, value: float) -> str:
        """A difference of two means: "0.05 points of Top-1 more" or "0.012 less test loss"."""
        more = "more" if value > 0 else "less"
        if self.digits is None:
            return f"{abs(value):.3g} {more} {self.title}"
        points = "points of " * self.percent
        return f"{self.figure(abs(value))} {points}{self.title} {more}"


ITERATIONS = Measure.of("iterations", False, math.inf)  # what goal "cost" compares by
