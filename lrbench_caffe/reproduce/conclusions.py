"""What the paper concludes from its tables and figures, as checks of anybody's results.

Each is judged by the means, as the paper does it. Where two policies are compared and both have deviations,
the p of Welch's test says whether it may be noise (see docs/ranking.md). A conclusion that names a difference
("0.21 points above") holds where ours is at least as large.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lrbench_caffe.ranking import CRITERIA, SIGNIFICANT, welch
from lrbench_caffe.report import number
from lrbench_caffe.reproduce.plan import FIGURE3_GOOD, FIGURE3_K0
from lrbench_caffe.reproduce.results import Result

Results = Mapping[str, Result]  # by the keys of a plan's rows

CLRS = ("TRI", "TRI2", "TRIEXP", "SIN", "SIN2", "SINEXP", "COS")
FASTER = ("TRI", "TRI2", "TRIEXP", "SIN", "SIN2", "SINEXP")
DECAYING = ("NSTEP", "INV", "POLY")
DEFAULTS = ("NSTEP", "INV")
SMITH = ("TRI (Smith 2015)", "TRI2 (Smith 2015)", "TRIEXP (Smith 2015)")
ABOVE_NSTEP = ("SINEXP", "TRIEXP", "SIN", "TRI")
SAME_TOP1 = 0.05  # points; a difference that nobody would call one


@dataclass(frozen=True)
class Verdict:
    """Whether a conclusion holds.

    Attributes:
        holds: None where it cannot be said, because something was not trained or not measured.
        numbers: the numbers that decide it ("SIN2 99.33, INV 99.09"), or what is missing.
    """

    holds: bool | None
    numbers: str

    @property
    def word(self) -> str:
        return {True: "holds", False: "does not hold", None: "cannot be said"}[self.holds]


class Unknown(LookupError):
    """A result that a conclusion needs and that is not there."""


Check = Callable[[Results], Verdict]


@dataclass(frozen=True)
class Conclusion:
    """Something that the paper says.

    Attributes:
        plan: the table or figure it is about: "table7".
        name: short and unique: "VII: SIN2 has the highest Top-1".
        section: of the paper.
        check: tells from results whether it holds; may raise ``Unknown``.
    """

    plan: str
    name: str
    section: str
    check: Check

    @property
    def statement(self) -> str:
        """The name without the number of the table."""
        return self.name.partition(": ")[2]

    def judge(self, results: Results) -> Verdict:
        """Whether it holds for these results."""
        try:
            return self.check(results)
        except Unknown as error:
            return Verdict(None, f"no result: {error}")


def conclusions(plan: str) -> list[Conclusion]:
    """The conclusions about a table or figure."""
    return [conclusion for conclusion in CONCLUSIONS if conclusion.plan == plan]


# -- what checks are made of ----------------------------------------------------------------------------


def value(results: Results, key: str, metric: str) -> float:
    """A mean.

    Raises:
        Unknown: it is not there.
    """
    result = results.get(key)
    if result is None:
        raise Unknown(key)
    if result.diverged and not result.spreads:
        raise Unknown(f"{key} ({result.diverged} diverged)")
    if metric not in result.spreads:
        raise Unknown(f"{CRITERIA[metric].heading} of {key}")
    return result.spreads[metric].mean


def shown(results: Results, key: str, metric: str) -> str:
    """ "SIN2 99.33", "COS 99.30 (1 diverged)"."""
    text = f"{key} {number(value(results, key, metric), CRITERIA[metric].digits)}"
    diverged = results[key].diverged
    return f"{text} ({diverged} diverged)" if diverged else text


def _pair(results: Results, one: str, other: str, metric: str) -> str:
    """ "SIN2 99.33, COS 99.32 (p=0.67, within noise)"."""
    text = f"{shown(results, one, metric)}, {shown(results, other, metric)}"
    a, b = results[one].spreads[metric], results[other].spreads[metric]
    p = welch(a, a.n or 1, b, b.n or 1)
    if p is None:
        return text
    return f"{text} (p={p:.2g}{', within noise' if p >= SIGNIFICANT else ''})"


def above(metric: str, high: Sequence[str], low: Sequence[str]) -> Check:
    """All of ``high`` are above all of ``low``; the closest two are shown."""

    def check(results: Results) -> Verdict:
        weakest = min(high, key=lambda key: value(results, key, metric))
        strongest = max(low, key=lambda key: value(results, key, metric))
        holds = value(results, weakest, metric) > value(results, strongest, metric)
        return Verdict(holds, f"{CRITERIA[metric].heading}: {_pair(results, weakest, strongest, metric)}")

    return check


def below(metric: str, low: Sequence[str], high: Sequence[str]) -> Check:
    """All of ``low`` are below all of ``high``; the closest two are shown."""

    def check(results: Results) -> Verdict:
        highest = max(low, key=lambda key: value(results, key, metric))
        lowest = min(high, key=lambda key: value(results, key, metric))
        holds = value(results, highest, metric) < value(results, lowest, metric)
        return Verdict(holds, f"{CRITERIA[metric].heading}: {_pair(results, highest, lowest, metric)}")

    return check


def highest(key: str, among: Sequence[str]) -> Check:
    """``key`` has the highest Top-1 of ``among``."""
    return above("top1", [key], [other for other in among if other != key])


def points_above(key: str, other: str, points: float) -> Check:
    """The Top-1 of ``key`` is at least so many points above that of ``other``, to two digits."""

    def check(results: Results) -> Verdict:
        difference = value(results, key, "top1") - value(results, other, "top1")
        numbers = f"{_pair(results, key, other, 'top1')}: {difference:+.2f}"
        return Verdict(round(difference, 2) >= points, numbers)

    return check


def at_most_share(key: str, other: str, share: float, *, less: bool = False) -> Check:
    """``key`` takes at most (or less than) a share of the iterations of ``other``."""

    def check(results: Results) -> Verdict:
        mine, limit = value(results, key, "iterations"), share * value(results, other, "iterations")
        holds = mine < limit if less else mine <= limit
        numbers = f"{shown(results, key, 'iterations')} iterations, {shown(results, other, 'iterations')}"
        return Verdict(holds, numbers)

    return check


def at_most(metric: str, keys: Sequence[str], limit: float) -> Check:
    """All of ``keys`` have at most ``limit``; the largest is shown."""

    def check(results: Results) -> Verdict:
        largest = max(keys, key=lambda key: value(results, key, metric))
        numbers = f"{shown(results, largest, metric)}, limit {limit:g}"
        return Verdict(value(results, largest, metric) <= limit, numbers)

    return check


def every(*checks: Check) -> Check:
    """All of them hold; one that does not decides, whatever is not known of others."""

    def check(results: Results) -> Verdict:
        verdicts = [_judged(part, results) for part in checks]
        states = [verdict.holds for verdict in verdicts]
        holds = False if False in states else None if None in states else True
        return Verdict(holds, "; ".join(verdict.numbers for verdict in verdicts))

    return check


def _judged(check: Check, results: Results) -> Verdict:
    try:
        return check(results)
    except Unknown as error:
        return Verdict(None, f"no result: {error}")


# -- checks of their own --------------------------------------------------------------------------------


def _lowest_cost(results: Results) -> Verdict:
    others = [key for key in (*CLRS, *DECAYING) if key != "SIN2"]
    cheapest = min(others, key=lambda key: value(results, key, "iterations"))
    mine = value(results, "SIN2", "iterations")
    numbers = f"{shown(results, 'SIN2', 'iterations')}, {shown(results, cheapest, 'iterations')}"
    return Verdict(mine <= min(4000, value(results, cheapest, "iterations")), numbers)


def _never_reach(results: Results) -> Verdict:
    default = max(DEFAULTS, key=lambda key: value(results, key, "top1"))
    other = min(FASTER, key=lambda key: value(results, key, "top1"))
    holds = value(results, default, "top1") < 99.27 <= value(results, other, "top1")
    return Verdict(holds, f"{shown(results, default, 'top1')}, {shown(results, other, 'top1')}, limit 99.27")


def _same_top1(results: Results) -> Verdict:
    keys = ("TRI", "TRI2", "SINEXP")
    values = [value(results, key, "top1") for key in keys]
    numbers = "Top-1: " + ", ".join(shown(results, key, "top1") for key in keys)
    return Verdict(max(values) - min(values) <= SAME_TOP1, numbers)


def _order_above_nstep(results: Results) -> Verdict:
    limit = value(results, "NSTEP", "top1")
    values = {key: value(results, key, "top1") for key in (*CLRS, *SMITH)}
    found = sorted((key for key in values if values[key] > limit), key=lambda key: -values[key])
    numbers = (
        f"{shown(results, 'NSTEP', 'top1')}; above: {', '.join(shown(results, k, 'top1') for k in found)}"
    )
    return Verdict(found == list(ABOVE_NSTEP), numbers)


def _iterations_less(results: Results) -> Verdict:
    saved = value(results, "NSTEP", "iterations") - value(results, "SINEXP", "iterations")
    numbers = f"{shown(results, 'SINEXP', 'iterations')}, {shown(results, 'NSTEP', 'iterations')} iterations"
    return Verdict(saved >= 10_250, numbers)


def _best_in_good_range(results: Results) -> Verdict:
    low, high = FIGURE3_GOOD
    tops = {k0: value(results, f"FIX(k0={k0:g})", "top1") for k0 in FIGURE3_K0}
    best = max(tops, key=lambda k0: tops[k0])
    return Verdict(low <= best <= high, f"best: {shown(results, f'FIX(k0={best:g})', 'top1')}")


# -- the paper's conclusions ------------------------------------------------------------------------------


def _step(k0: float, l: int) -> str:  # noqa: E741
    return f"STEP(k0={k0:g}, gamma=0.85, l={l})"


def _tri2(k0: str, k1: str) -> str:
    return f"TRI2(k0={k0}, k1={k1}, l=2000)"


_TRI2_CNN3 = (
    *(
        _tri2(k0, "0.006")
        for k0 in ("5e-05", "0.0005", "1e-05", "6e-05", "8e-05", "0.00025", "0.0002", "2e-05")
    ),
    _tri2("0.0001", "0.01"),
    _tri2("0.0001", "0.006"),
)
_TRI2_RESNET = tuple(_tri2(k0, k1) for k0 in ("0.0001", "0.001") for k1 in ("0.9", "0.6", "0.3"))
_STEP_CNN3 = tuple(_step(0.001, size) for size in range(1000, 10_001, 1000))
_STEP_RESNET = tuple(_step(0.1, size) for size in (1000, 5000, 10_000))
_FIX_RESNET = ("FIX(k0=0.1)", "FIX(k0=0.01)", "FIX(k0=0.001)")
_NSTEP_CNN3 = (
    "NSTEP(k0=0.001, gamma=0.1, l=[60000, 65000])",
    "NSTEP(k0=0.001, gamma=0.1, l=[30000, 50000, 60000, 65000])",
    "NSTEP(k0=0.001, gamma=0.32, l=[30000, 50000, 60000, 65000])",
)


def _conclusion(name: str, section: str, check: Check) -> Conclusion:
    numbers = {"III": 3, "IV": 4, "V": 5, "VI": 6, "VII": 7, "VIII": 8, "IX": 9}
    table = name.partition(":")[0]
    plan = f"table{numbers[table]}" if table in numbers else table.lower().replace(" ", "")
    return Conclusion(plan, name, section, check)


CONCLUSIONS = [
    _conclusion("Figure 3: the best k0 is from 0.0005 to 0.006", "V-A", _best_in_good_range),
    _conclusion(
        "Figure 3: k0 = 0.01 is 8.99 points below k0 = 0.001",
        "V-A",
        points_above("FIX(k0=0.001)", "FIX(k0=0.01)", 8.99),
    ),
    _conclusion("III: of FIX, k0 = 0.1 has the highest Top-1", "V-A", highest("FIX(k0=0.1)", _FIX_RESNET)),
    _conclusion(
        "III: of STEP, l = 5000 has the highest Top-1", "V-B", highest(_step(0.1, 5000), _STEP_RESNET)
    ),
    _conclusion(
        "IV: of TRI2, k0 = 0.00005 and k1 = 0.006 have the highest Top-1",
        "V-A",
        highest(_TRI2_CNN3[0], _TRI2_CNN3),
    ),
    _conclusion(
        "IV: of STEP, l = 7000 has the highest Top-1", "V-B", highest(_step(0.001, 7000), _STEP_CNN3)
    ),
    _conclusion(
        "IV: of STEP, the smallest l has the lowest Top-1",
        "V-B",
        below("top1", _STEP_CNN3[:1], _STEP_CNN3[1:]),
    ),
    _conclusion(
        "V: of TRI2, k0 = 0.0001 and k1 = 0.9 have the highest Top-1",
        "V-A",
        highest(_TRI2_RESNET[0], _TRI2_RESNET),
    ),
    _conclusion(
        "VI: 4 steps with gamma = 0.32 have the highest Top-1", "V-B", highest(_NSTEP_CNN3[2], _NSTEP_CNN3)
    ),
    _conclusion("VII: SIN2 has the highest Top-1", "V-C", highest("SIN2", (*CLRS, *DECAYING))),
    _conclusion("VII: at the lowest cost, 4000 iterations", "V-C", _lowest_cost),
    _conclusion(
        "VII: SIN2 is 0.21 and 0.24 points above NSTEP and INV",
        "V-C",
        every(points_above("SIN2", "NSTEP", 0.21), points_above("SIN2", "INV", 0.24)),
    ),
    _conclusion(
        "VII: SIN2 is at least 0.15 points above INV in at most half of its iterations",
        "V-C",
        every(points_above("SIN2", "INV", 0.15), at_most_share("SIN2", "INV", 0.5)),
    ),
    _conclusion(
        "VII: more than half of the cost of NSTEP and INV is saved",
        "V-C",
        every(at_most_share("SIN2", "NSTEP", 0.5, less=True), at_most_share("SIN2", "INV", 0.5, less=True)),
    ),
    _conclusion(
        "VII: the 7 CLRs have a higher Top-1 than the decaying LRs", "V-C", above("top1", CLRS, DECAYING)
    ),
    _conclusion("VII: the 7 CLRs have a lower CD", "V-C", below("cd", CLRS, DECAYING)),
    _conclusion("VII: the 7 CLRs have a lower CDAC", "V-C", below("cdac", CLRS, DECAYING)),
    _conclusion("VII: the 7 CLRs have a lower LD", "V-C", below("ld", CLRS, DECAYING)),
    _conclusion("VII: CLRs reach it in fewer iterations", "V-C", below("iterations", CLRS, DECAYING)),
    _conclusion(
        "VII: all CLRs but COS do so, in 4000",
        "V-C",
        every(below("iterations", FASTER, DECAYING), at_most("iterations", FASTER, 4000)),
    ),
    _conclusion("VII: all CLRs but COS reach 99.27 %, NSTEP and INV do not", "V-C", _never_reach),
    _conclusion(
        "VII: at the same Top-1 as TRI and TRI2, SINEXP has a higher AC and a lower CD",
        "V-C",
        every(_same_top1, above("ac", ["SINEXP"], ["TRI", "TRI2"]), below("cd", ["SINEXP"], ["TRI", "TRI2"])),
    ),
    _conclusion(
        "VIII: SINEXP, TRIEXP, SIN and TRI, in this order, are above NSTEP, and no other is",
        "V-C",
        _order_above_nstep,
    ),
    _conclusion(
        "VIII: SINEXP is 0.55 points above NSTEP in 10,250 iterations less",
        "V-C",
        every(points_above("SINEXP", "NSTEP", 0.55), _iterations_less),
    ),
    _conclusion(
        "VIII: the five best by Top-1 have a higher AC than the others",
        "V-C",
        above("ac", ("NSTEP", *ABOVE_NSTEP), ("TRI2", "SIN2", "COS", *SMITH)),
    ),
    _conclusion("VIII: these four have a higher CD than NSTEP", "V-C", above("cd", ABOVE_NSTEP, ["NSTEP"])),
    _conclusion(
        "VIII: TRI, TRI2, TRIEXP are better than Smith's in Top-1, Top-5 and LD",
        "V-C",
        every(
            *(
                better(metric, [name], [f"{name} (Smith 2015)"])
                for name in ("TRI", "TRI2", "TRIEXP")
                for better, metric in ((above, "top1"), (above, "top5"), (below, "ld"))
            )
        ),
    ),
    _conclusion("VIII: the CLRs are better than NSTEP", "V-C", above("top1", CLRS, ["NSTEP"])),
    _conclusion(
        "IX: TRIEXP and SINEXP have a higher Top-1 than NSTEP",
        "V-C",
        above("top1", ("TRIEXP", "SINEXP"), ["NSTEP"]),
    ),
    _conclusion("IX: and a higher Top-5", "V-C", above("top5", ("TRIEXP", "SINEXP"), ["NSTEP"])),
    _conclusion(
        "IX: and a lower LD, CD and CDAC",
        "V-C",
        every(*(below(metric, ("TRIEXP", "SINEXP"), ["NSTEP"]) for metric in ("ld", "cd", "cdac"))),
    ),
]
