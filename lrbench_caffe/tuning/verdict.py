"""Judges a tuning's finalists: among each other, and against the solver's own policy. Pure functions."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from lrbench_caffe.errors import named
from lrbench_caffe.jobs import JobResult
from lrbench_caffe.knowledge.ranking import SIGNIFICANT, welch, welch_interval
from lrbench_caffe.lr import Policy
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.records import UNSUCCESSFUL, Spread
from lrbench_caffe.tabular import count_of, number, plus_minus
from lrbench_caffe.tuning.measure import ITERATIONS, Measure
from lrbench_caffe.tuning.plan import TuningPlan
from lrbench_caffe.tuning.trainings import PolicyTrainings

RESOLVED = 1e-6  # relative to the largest: what 32 bits make of equal values differs by less
KEEP_OWN = 3  # exit code of a tuning that recommends no policy


@dataclass(frozen=True)
class TuningVerdict:
    """The recommendation of a tuning.

    Attributes:
        policy: the one that is recommended, None where none is better than the solver's own beyond
            noise.
        best: the best finalist; own: the solver's own policy, None where it has none that can be
            used.
        metric: what they were compared by: the name of the measure, or "iterations" to the target.
        difference: the best finalist's mean less the own policy's; None where they were not
            compared.
        interval: the difference's 95 % confidence interval over the seeds, lower and upper end;
            None where nothing is known of the noise.
        p: of Welch's test that the two means are equal, None where it cannot be made.
        text: all of this in words.
        settings: the other settings of the best finalist, for people; empty where none were chosen.
    """

    policy: Policy | None
    best: Policy
    own: Policy | None
    metric: str
    difference: float | None
    interval: tuple[float, float] | None
    p: float | None
    text: str
    settings: str = ""

    @property
    def within_noise(self) -> bool | None:
        """Whether the difference is within noise; None if that cannot be decided."""
        return None if self.p is None else self.p >= SIGNIFICANT

    @property
    def exit_code(self) -> int:
        return KEEP_OWN if self.policy is None else 0

    def as_json(self) -> dict[str, Any]:
        return {
            "recommended": None if self.policy is None else str(self.policy),
            "keep_own": self.policy is None,
            "best": str(self.best),
            "own": None if self.own is None else str(self.own),
            "metric": self.metric,
            "difference": self.difference,
            "interval": self.interval and list(self.interval),
            "p": self.p,
            "within_noise": self.within_noise,
            "text": self.text,
        }


def judge(
    plan: TuningPlan,
    finalists: Sequence[PolicyTrainings],
    own: PolicyTrainings | None,
    note: str = "",
) -> TuningVerdict:
    """Compare the best finalist with the solver's own policy.

    One is recommended only where none of its trainings diverged, and where it is better than the
    solver's
    own: beyond noise, or, where there is a single training of each, by that one.

    Args:
        finalists: one at least.
        own: the solver's own policy, trained with the same seeds.
        note: what else one should know, such as that not all candidates were tried.
    """
    # Where the solver's own policy is a finalist, too, the others are compared with it.
    others = [trained for trained in finalists if trained is not own] or list(finalists)
    first = ranked(plan, others)[0]
    mine = own.policy if own else None

    found = _without_comparison(plan.measure, first, own)
    if found is None:
        assert own is not None  # without it there is nothing to compare
        found = _compared(plan, first, own, target_of(plan, finalists))
    return TuningVerdict(
        policy=first.policy if found.recommended else None,
        best=first.policy,
        own=mine,
        metric=found.metric or plan.by,
        difference=found.difference,
        interval=found.interval,
        p=found.p,
        settings=first.settings,
        text=found.text + _no_gain(first, plan.measure) + (f"; {note}" if note else ""),
    )


class _AgainstOwn(NamedTuple):
    """Whether the best finalist is recommended, why, and the figures behind it (see ``TuningVerdict``)."""

    recommended: bool
    text: str
    metric: str = ""
    difference: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None


def _without_comparison(
    measure: Measure, first: PolicyTrainings, own: PolicyTrainings | None
) -> _AgainstOwn | None:
    """Whether ``first`` is recommended, and why, where nothing has to be compared; else None."""
    name = first.name
    mine = own.name if own else ""
    if first is own:
        return _AgainstOwn(
            False, f"keep your own policy, {name}: no other policy became a finalist"
        )
    unsound, own_unsound = unsoundness(first, measure), own and unsoundness(own, measure)
    if unsound:
        ends = f"{name}, the best one found, {unsound}"
        if own is not None and not own_unsound:
            return _AgainstOwn(False, f"keep your own policy, {mine}: {ends}")
        too = f"; your own policy {own_unsound}" if own_unsound else ""
        return _AgainstOwn(False, f"no policy is recommended: {ends}{too}")
    if not tops(first, measure):
        return _AgainstOwn(
            False, f"no policy is recommended: no training of {name} reached its end"
        )
    if own is None:
        return _AgainstOwn(
            True, f"train with {name}; the solver has no lr_policy to compare it with"
        )
    if own_unsound:
        return _AgainstOwn(
            True, f"train with {name}: your own policy, {mine}, {own_unsound}, this one never"
        )
    if not tops(own, measure):
        reason = next(iter(own.results.values())).reason if own.results else "it was not trained"
        return _AgainstOwn(
            True, f"train with {name}; your own policy could not be compared with it: {reason}"
        )
    return None


def _no_gain(trained: PolicyTrainings, measure: Measure) -> str:
    """Words for a policy none of whose trainings got better than the weights that it began with."""
    tests = [m for result in trained.results.values() for m in result.measurements]
    known = measure.values(m for m in tests if m.iteration == 0)
    best_of = measure.values(tops(trained, measure))
    if not known or not best_of:
        return ""
    begun = max(known, key=measure.goodness)
    if measure.goodness(max(best_of, key=measure.goodness)) > measure.goodness(begun):
        return ""
    rose = "rose above" if measure.higher else "fell below"
    text = measure.text(begun)
    return f"; but no training of {trained.name} {rose} the {text} that it began with"


def _compared(
    plan: TuningPlan, first: PolicyTrainings, own: PolicyTrainings, target: float | None
) -> _AgainstOwn:
    """Whether the first is better than the own policy."""
    name, mine, measure = first.name, own.name, plan.measure
    if plan.goal == "cost" and target is not None:
        there, own_there = (reach(trained, target, measure) for trained in (first, own))
        whole, own_whole = len(tops(first, measure)), len(tops(own, measure))
        share, own_share = len(there) / whole, len(own_there) / own_whole
        p = fisher(len(there), whole, len(own_there), own_whole)
        counts = (
            f"reached {measure.short_text(target)} in {len(there)} of {whole} trainings, "
            f"your own policy, {mine}, in {len(own_there)} of {own_whole}"
        )
        if share != own_share or not there:
            # What one reaches mostly and the other never needs no test, which few seeds cannot pass.
            clear = p < SIGNIFICANT or (share > 0.5 and not own_share)
            better = share > own_share and clear
            noise = "" if better or share <= own_share else ": within noise"
            text = f"{_advice(better, name)} {counts}{noise} (Fisher's p = {p:.2g})"
            return _AgainstOwn(better, text, "iterations", p=p)
        if share < 1 and min(len(there), len(own_there)) < 2:
            few = "too few to compare their iterations"
            return _AgainstOwn(False, f"{_advice(False, name)} {counts}: {few}", "iterations")
        return _by_means(first, own, there, own_there, ITERATIONS)
    values, own_values = (measure.values(tops(trained, measure)) for trained in (first, own))
    found = _by_means(first, own, values, own_values, measure)
    if found.recommended and first.held_out is None:
        chosen = "the test set chose it, too, so that its result there may flatter it"
        found = found._replace(text=f"{found.text}; {chosen}")
    return found


@dataclass(frozen=True)
class Means:
    """The means of a policy's values and of another one's.

    Attributes:
        difference: of the means.
        p, interval: of Welch's test; None where it cannot be made.
        better: whether the first one is better.
        figures: both, for people.
        step: the deviation that the test took, since neither has one; 0 where they have.
    """

    difference: float
    p: float | None
    interval: tuple[float, float] | None
    better: bool
    figures: str
    step: float

    @classmethod
    def of(
        cls, values: Sequence[float], others: Sequence[float], measure: Measure, step: float
    ) -> Means:
        """Compare them.

        Args:
            step: see ``resolution``. Where neither policy deviates, this is taken for the
                deviation: of 500 records all seeds may get 472 right, and the next ones would not.
        """
        first, second = _spread(values), _spread(others)
        sizes = first, len(values), second, len(others)
        if min(len(values), len(others)) < 2 or welch(*sizes) is not None:
            step = 0.0
        if step:
            sizes = replace(first, sd=step), len(values), replace(second, sd=step), len(others)
        difference = statistics.fmean(values) - statistics.fmean(others)
        figures = f"{measure.figures(values)} against {measure.figures(others)}{measure.unit}"
        better = measure.goodness(difference) > 0
        return cls(difference, welch(*sizes), welch_interval(*sizes), better, figures, step)

    @property
    def beyond_noise(self) -> bool:
        """Whether the first one is better beyond noise, or by all that is known of it."""
        return self.better and (self.p is None or self.p < SIGNIFICANT)


def _by_means(
    first: PolicyTrainings,
    own: PolicyTrainings,
    values: list[float],
    own_values: list[float],
    measure: Measure,
) -> _AgainstOwn:
    means = Means.of(values, own_values, measure, resolution((first, own), measure))
    difference, p, interval, better = means.difference, means.p, means.interval, means.better
    sizes = "is as good as" if difference == 0 else f"has {measure.difference(difference)} than"
    counts = f"{len(values)} and {len(own_values)} trainings"
    if p is None and all(one.seedless or one.alike for one in (first, own)):
        noise = "the seed changes nothing: each counts as one training, and noise cannot be tested"
    elif p is None and min(len(values), len(own_values)) > 1:
        noise = "no deviation in either, so that noise cannot be tested"
    elif p is None or interval is None:
        noise = f"too few to test for noise; use {named('seeds')} 3"
    else:
        ends = " to ".join(map(measure.signed, interval))
        taken = f"neither deviates, so that {measure.figure(means.step)} is taken for it; "
        noise = f"{taken * bool(means.step)}difference {ends} with 95 % confidence; "
        noise += f"{'within' if p >= SIGNIFICANT else 'beyond'} noise, Welch's p = {p:.2g}"
        if better and p >= SIGNIFICANT:
            noise += f"; more {named('seeds')} may tell them apart"
    name, mine = first.name, own.name
    recommended = means.beyond_noise
    text = f"{sizes} your own policy, {mine}: {means.figures} ({counts}; {noise})"
    advice = f"{_advice(recommended, name)} {text}"
    return _AgainstOwn(recommended, advice, measure.name, difference, interval, p)


def _advice(recommended: bool, name: str) -> str:
    """The beginning of a sentence that goes on with what the policy does."""
    return f"train with {name}: it" if recommended else f"keep your own policy: {name}"


def unsoundness(trained: PolicyTrainings, measure: Measure) -> str:
    """Why a policy cannot be trusted, in words: "diverged in 1 of 3 trainings"; empty where it can.

    A training whose value is not a finite number where it counts is as bad as one that diverged.
    """
    if trained.diverged:
        return f"diverged in {trained.diverged} of {count_of(len(trained.results), 'training')}"
    lost = unmeasured(trained, measure)
    of_all = count_of(len(trained.results), "training")
    return f"had no finite {measure.title} in {lost} of {of_all}" if lost else ""


def unmeasured(trained: PolicyTrainings, measure: Measure) -> int:
    """How many complete trainings have no finite value where they count."""
    return len(trained.whole) - len(measure.values(tops(trained, measure)))


def fisher(hits: int, n: int, other_hits: int, other_n: int) -> float:
    """The two-sided p of Fisher's exact test that two shares, hits / n, are equal.

    It is the probability of all tables with these sums that are no more probable than this one.

    >>> fisher(3, 3, 2, 3), round(fisher(3, 3, 0, 3), 3), round(fisher(5, 5, 1, 6), 4)
    (1.0, 0.1, 0.0152)
    """
    both, total = hits + other_hits, math.comb(n + other_n, hits + other_hits)
    ways = [math.comb(n, k) * math.comb(other_n, both - k) for k in range(both + 1)]
    return sum(way for way in ways if way <= ways[hits]) / total


def resolution(trainings: Sequence[PolicyTrainings], measure: Measure) -> float:
    """The smallest difference between two values that the trainings' tests have, such as one record's.

    For ``ITERATIONS`` it is that between two tests. It is 0 where the seed is known to change
    nothing, and where all values are the same.
    """
    if all(one.seedless or one.alike for one in trainings):
        return 0.0
    tests = [m for one in trainings for result in one.whole for m in result.measurements]
    values = [float(m.iteration) for m in tests] if measure is ITERATIONS else measure.values(tests)
    steps = sorted(set(values))
    rounding = RESOLVED * max(map(abs, steps), default=0.0)
    return min((b - a for a, b in zip(steps, steps[1:]) if b - a > rounding), default=0.0)


def _spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.fmean(values), statistics.pstdev(values) if len(values) > 1 else None)


# -- the finalists ---------------------------------------------------------------------------------


def has_target(plan: TuningPlan) -> bool:
    """Whether the iterations to a target are of interest."""
    return plan.goal_value is not None or plan.goal == "cost"


def target_of(plan: TuningPlan, finalists: Sequence[PolicyTrainings]) -> float | None:
    """The value to reach: as given, or for cost the best finalist's mean less good by its deviation."""
    if plan.goal_value is not None or plan.goal != "cost":
        return plan.goal_value
    measure = plan.measure
    values = [values for t in finalists if (values := measure.values(tops(t, measure)))]
    if not values:
        return None
    best_of = max(values, key=lambda found: measure.goodness(statistics.fmean(found)))
    deviation = statistics.pstdev(best_of) * (1 if measure.higher else -1)
    return float(measure.rounded(statistics.fmean(best_of) - deviation))


def ranked(plan: TuningPlan, finalists: Sequence[PolicyTrainings]) -> list[PolicyTrainings]:
    """The finalists, best first: by the mean of the measure, or for cost by mean iterations to the target.

    With records held out, it is these that decide, on all training records only whether a
    finalist's trainings diverged.

    Those that always reach the target come first. The fewer trainings of a finalist diverged, the
    better it ranks, whatever its results.
    """
    target, measure = target_of(plan, list(map(chosen_by, finalists))), plan.measure

    def key(one: PolicyTrainings) -> tuple[float, ...]:
        # One that was lost says nothing about its policy.
        stands = (one.diverged + unmeasured(one, measure), not tops(one, measure))
        trained, decisive = chosen_by(one), one.decisive(measure)
        best_tests = tops(trained, measure)
        badness = mean([-measure.goodness(value) for value in measure.values(best_tests)])
        if (plan.goal == "accuracy" or target is None) and decisive:
            (value,) = measure.values([decisive])
            return (*stands, -measure.goodness(value), mean([decisive.test_loss]))
        if plan.goal == "accuracy" or target is None:
            return (*stands, badness, mean([float(m.iteration) for m in best_tests]))
        there = reach(trained, target, measure)
        ended = len(trained.results) - (trained.broken - trained.diverged)
        return (*stands, -len(there) / max(1, ended), mean(there), badness)

    return sorted(finalists, key=key)


def chosen_by(trained: PolicyTrainings) -> PolicyTrainings:
    """The trainings that a finalist was chosen by: those on held-out records, if there are any."""
    return trained.held_out or trained


def tops(trained: PolicyTrainings, measure: Measure) -> list[Measurement]:
    """The test of each complete training that counts.

    That is the first best one after an update; where held-out records chose an iteration, the one
    at that iteration.
    """
    if trained.held_out is None:
        return bests(trained, measure)
    at = trained.counts_at(measure)
    return [
        next((m for m in measured if m.iteration == at), measured[-1])
        for measured in map(_after_updates, trained.whole)
        if measured
    ]


def bests(trained: PolicyTrainings, measure: Measure) -> list[Measurement]:
    """Each complete training's first best test after an update."""
    found = (measure.best_test(result.measurements) for result in trained.whole)
    return [test for test in found if test is not None]


def _after_updates(result: JobResult) -> list[Measurement]:
    return [m for m in result.measurements if m.iteration > 0]


def reach(trained: PolicyTrainings, target: float, measure: Measure) -> list[float]:
    """The iterations to a value of the measure of the complete trainings that reached it."""
    curves = (trained.curve(seed, measure) for seed in trained.whole_seeds)
    reached = [curve.reaches(measure.score(target)) for curve in curves if curve]
    return [float(iteration) for iteration in reached if iteration is not None]


def trainings(trained: PolicyTrainings) -> str:
    """ "2 (+1 diverged)": how many are complete, and the status of the others."""
    ends = Counter(
        result.status for result in trained.results.values() if result.status in UNSUCCESSFUL
    )
    broken = ", ".join(f"{count} {status}" for status, count in ends.items())
    return str(len(trained.results) - trained.broken) + (f" (+{broken})" if broken else "")


def mean(values: Sequence[float | None]) -> float:
    """The mean of the numbers among values; infinite, the worst to sort by, without any."""
    known = [v for v in values if v is not None and not math.isnan(v)]
    return statistics.fmean(known) if known else float("inf")


def spread(values: Sequence[float], digits: int) -> str:
    """ "99.31 ± 0.02" (population deviation); "-" for nothing."""
    if not values:
        return "-"
    sd = None if len(values) < 2 else number(statistics.pstdev(values), digits)
    return plus_minus(number(statistics.fmean(values), digits), sd)
