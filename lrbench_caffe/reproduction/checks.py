"""The building blocks of the paper's conclusions: checks of results, by the keys of a plan's rows.

Each compares means, as the paper does. Where two policies are compared and both have deviations,
the p of Welch's test says whether it may be noise (see docs/ranking.md). Where results are missing,
those that are there decide as soon as no other could change it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from lrbench_caffe.knowledge.criteria import CRITERIA
from lrbench_caffe.knowledge.ranking import SIGNIFICANT, welch
from lrbench_caffe.reproduction.results import PolicyResult
from lrbench_caffe.tabular import number

Results = Mapping[str, PolicyResult]  # by the keys of a plan's rows
Key = TypeVar("Key")
NO_DEVIATION = 1e-12  # at most what rounding makes of equal numbers: no test is possible
EXACT = 9  # decimals that means are compared with, so that equal ones are equal


@dataclass(frozen=True)
class Judgement:
    """Whether a conclusion holds.

    Attributes:
        holds: None where it cannot be said, because something was not trained or not measured.
        numbers: the numbers that decide it ("SIN2 99.33, INV 99.09"), or what is missing.
    """

    holds: bool | None
    numbers: str

    @property
    def word(self) -> str:
        return {True: "holds", False: "does not hold", None: "undecided"}[self.holds]


class Unknown(LookupError):
    """A conclusion needs a result that is missing."""


Check = Callable[[Results], Judgement]


def value(results: Results, key: str, metric: str) -> float:
    """The mean of a metric, without what adding and dividing left in its last binary digits.

    Raises:
        Unknown: it is not there.
    """
    return round(_mean(results, key, metric), EXACT)


def _mean(results: Results, key: str, metric: str) -> float:
    result = results.get(key)
    if result is None:
        raise Unknown(key)
    if result.diverged and not result.spreads:
        raise Unknown(f"{key}{diverged(result)}")
    if metric not in result.spreads:
        raise Unknown(f"{CRITERIA[metric].heading} of {key}")
    return result.spreads[metric].mean


def known_values(
    results: Results, keys: Iterable[str], metric: str
) -> tuple[dict[str, float], Unknown | None]:
    """The means of a metric that are there, by key; and the first that is not, None where all are."""
    return known(keys, lambda key: value(results, key, metric))


def known(
    keys: Iterable[Key], value_of: Callable[[Key], float]
) -> tuple[dict[Key, float], Unknown | None]:
    """The values that are there, by key; and the first that is not, None where all are."""
    found: dict[Key, float] = {}
    missing: Unknown | None = None
    for key in keys:
        try:
            found[key] = value_of(key)
        except Unknown as error:
            missing = missing or error
    return found, missing


def extreme(
    results: Results, keys: Iterable[str], metric: str, choose: Callable[..., str]
) -> tuple[str, Unknown | None]:
    """The key with the least or the greatest mean (``choose``: min or max) of those that have one.

    Returns:
        It, and the first of those without one, None where all have one.

    Raises:
        Unknown: none has one.
    """
    values, missing = known_values(results, keys, metric)
    if not values:
        raise missing or Unknown(metric)
    return choose(values, key=lambda key: values[key]), missing


def decided(holds: bool, numbers: str, *missing: Unknown | None) -> Judgement:
    """A judgement by what is known of a claim about all of several results.

    Raises:
        Unknown: what is known agrees with the claim, but is not all of it.
    """
    unknown = next((error for error in missing if error is not None), None)
    if holds and unknown is not None:
        raise unknown
    return Judgement(holds, numbers)


def shown(results: Results, key: str, metric: str) -> str:
    """ "SIN2 99.33", "COS 99.30 (1 diverged)"."""
    text = printed(_mean(results, key, metric), CRITERIA[metric].digits)  # as in the table
    return f"{key} {text}{diverged(results[key])}"


def printed(value: float, digits: int) -> str:
    """A number with fixed digits; what is printed as 0 has no sign."""
    text = number(value, digits)
    return text if float(text) else text.lstrip("-")


def signed(difference: float, digits: int) -> str:
    """A difference with its sign; 0 has none, nor has what is printed as 0."""
    text = f"{difference:+.{digits}f}"
    return text if float(text) else text[1:]


def diverged(result: PolicyResult) -> str:
    """ " (1 diverged)", or nothing."""
    return f" ({result.diverged} diverged)" if result.diverged else ""


def pair(results: Results, one: str, other: str, metric: str) -> str:
    """ "SIN2 99.33, COS 99.32 (p=0.67, within noise)"."""
    text = f"{shown(results, one, metric)}, {shown(results, other, metric)}"
    a, b = results[one].spreads[metric], results[other].spreads[metric]
    p = welch(a, a.n or 1, b, b.n or 1)
    if p is None or max(a.sd or 0.0, b.sd or 0.0) < NO_DEVIATION:
        return text
    return f"{text} (p={p:.2g}{', within noise' if p >= SIGNIFICANT else ''})"


def above(metric: str, high: Sequence[str], low: Sequence[str]) -> Check:
    """All of ``high`` are above all of ``low``; the closest two are shown."""
    return lambda results: _apart(results, metric, (high, min), (low, max), operator.gt)


def below(metric: str, low: Sequence[str], high: Sequence[str]) -> Check:
    """All of ``low`` are below all of ``high``; the closest two are shown."""
    return lambda results: _apart(results, metric, (low, max), (high, min), operator.lt)


def _apart(
    results: Results,
    metric: str,
    one: tuple[Sequence[str], Callable[..., str]],
    other: tuple[Sequence[str], Callable[..., str]],
    differ: Callable[[float, float], bool],
) -> Judgement:
    """Whether the two sides differ so; each is its keys, and which of them is closest to the other."""
    closest, unknown = extreme(results, one[0], metric, one[1])
    to, unknown_to = extreme(results, other[0], metric, other[1])
    holds = differ(value(results, closest, metric), value(results, to, metric))
    numbers = f"{CRITERIA[metric].heading}: {pair(results, closest, to, metric)}"
    return decided(holds, numbers, unknown, unknown_to)


def highest(key: str, among: Sequence[str]) -> Check:
    """``key`` has the highest Top-1 of ``among``."""
    return above("top1", [key], [other for other in among if other != key])


def points_above(key: str, other: str, points: float) -> Check:
    """The Top-1 of ``key`` is at least the given points above that of ``other``, to two digits."""

    def check(results: Results) -> Judgement:
        difference = value(results, key, "top1") - value(results, other, "top1")
        numbers = f"{pair(results, key, other, 'top1')}: {signed(difference, 2)}"
        return Judgement(round(difference, 2) >= points, numbers)

    return check


def at_most_share(key: str, other: str, share: float, *, less: bool = False) -> Check:
    """``key`` takes at most (or less than) a share of the iterations of ``other``."""

    def check(results: Results) -> Judgement:
        mine, limit = value(results, key, "iterations"), share * value(results, other, "iterations")
        holds = mine < limit if less else mine <= limit
        numbers = (
            f"{shown(results, key, 'iterations')} iterations, {shown(results, other, 'iterations')}"
        )
        return Judgement(holds, numbers)

    return check


def at_most(metric: str, keys: Sequence[str], limit: float) -> Check:
    """All of ``keys`` have at most ``limit``; the largest is shown."""

    def check(results: Results) -> Judgement:
        largest, missing = extreme(results, keys, metric, max)
        numbers = f"{shown(results, largest, metric)}, limit {limit:g}"
        return decided(value(results, largest, metric) <= limit, numbers, missing)

    return check


def over(metric: str, keys: Sequence[str], limit: float) -> Check:
    """All of ``keys`` are above ``limit``, to the digits that are shown; the smallest is shown."""
    return lambda results: _beside(results, metric, (keys, min), limit, operator.gt)


def reach(metric: str, keys: Sequence[str], limit: float) -> Check:
    """All of ``keys`` are at ``limit`` or above it, to the digits that are shown; the smallest is shown."""
    return lambda results: _beside(results, metric, (keys, min), limit, operator.ge)


def under(metric: str, keys: Sequence[str], limit: float) -> Check:
    """All of ``keys`` are below ``limit``, to the digits that are shown; the largest is shown."""
    return lambda results: _beside(results, metric, (keys, max), limit, operator.lt)


def _beside(
    results: Results,
    metric: str,
    side: tuple[Sequence[str], Callable[..., str]],
    limit: float,
    compare: Callable[[float, float], bool],
) -> Judgement:
    """Whether a side compares so with a limit; it is its keys, and which of them is closest to that."""
    closest, missing = extreme(results, side[0], metric, side[1])
    digits = CRITERIA[metric].digits
    numbers = f"{shown(results, closest, metric)}, limit {limit:.{digits}f}"
    return decided(compare(round(value(results, closest, metric), digits), limit), numbers, missing)


def every(*checks: Check) -> Check:
    """All of them hold; one that does not decides, whatever is not known of others."""

    def check(results: Results) -> Judgement:
        verdicts = [judged(part, results) for part in checks]
        states = [verdict.holds for verdict in verdicts]
        holds = False if False in states else None if None in states else True
        # What has no result is named once, however many of them ask for it.
        return Judgement(holds, "; ".join(dict.fromkeys(verdict.numbers for verdict in verdicts)))

    return check


def judged(check: Check, results: Results) -> Judgement:
    """The judgement of a check; undecided if a result is missing."""
    try:
        return check(results)
    except Unknown as error:
        return Judgement(None, f"no result: {error}")
