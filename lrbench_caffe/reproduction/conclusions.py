"""The paper's conclusions from its tables and figures, as checks of any results.

Each is judged by the means, as the paper does it. A conclusion that names a difference ("0.21
points above") holds if ours is at least as large. In a scaled-down plan the iterations in a
conclusion are scaled, too; differences in Top-1 are not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from lrbench_caffe.reproduction import figure_checks as figures
from lrbench_caffe.reproduction.checks import (
    EXACT,
    Check,
    Judgement,
    Results,
    above,
    at_most,
    at_most_share,
    below,
    decided,
    every,
    extreme,
    highest,
    judged,
    known_values,
    over,
    points_above,
    reach,
    shown,
    under,
    value,
)
from lrbench_caffe.reproduction.plan import (
    FIGURE3_EPOCHS,
    FIGURE3_STATED,
    FIGURE5,
    scaled_iterations,
)

CLRS = ("TRI", "TRI2", "TRIEXP", "SIN", "SIN2", "SINEXP", "COS")
FASTER = ("TRI", "TRI2", "TRIEXP", "SIN", "SIN2", "SINEXP")
DECAYING = ("NSTEP", "INV", "POLY")
DEFAULTS = ("NSTEP", "INV")
SMITH = ("TRI (Smith 2015)", "TRI2 (Smith 2015)", "TRIEXP (Smith 2015)")
ABOVE_NSTEP = ("SINEXP", "TRIEXP", "SIN", "TRI")
Scaled = Callable[[int], int]  # the iterations of a scaled-down plan for those of the paper
# What the paper calls its tables and figures.
_PLACES = {
    "table3": "III", "table4": "IV", "table5": "V", "table6": "VI", "table7": "VII", "table8": "VIII",
    "table9": "IX", "figure3": "Figure 3", "figure4": "Figure 4", "figure5": "Figure 5",
}  # fmt: skip
SAME_TOP1 = 0.05  # points; a negligible difference


@dataclass(frozen=True)
class Conclusion:
    """A conclusion of the paper.

    Attributes:
        plan: the table or figure it is about: "table7".
        statement: "SIN2 has the highest Top-1".
        section: of the paper.
        check: tells from results whether it holds; may raise ``Unknown``.
    """

    plan: str
    statement: str
    section: str
    check: Check

    @property
    def name(self) -> str:
        """A short, unique name: "VII: SIN2 has the highest Top-1"."""
        return f"{_PLACES[self.plan]}: {self.statement}"

    def judge(self, results: Results) -> Judgement:
        """Whether it holds for these results."""
        return judged(self.check, results)


def conclusions(plan: str, share: float = 1.0) -> list[Conclusion]:
    """The conclusions about a table or figure.

    Args:
        share: of the paper's iterations, for a scaled-down plan: its iterations are scaled by it.
    """
    return [conclusion for conclusion in all_conclusions(share) if conclusion.plan == plan]


def all_conclusions(share: float = 1.0) -> list[Conclusion]:
    """The conclusions about every table and figure, in the paper's order."""
    scaled = partial(scaled_iterations, share=share)
    return [
        *_figure3(share),
        *_figure4(scaled),
        *_figure5(scaled),
        *_tables_3_and_4(scaled),
        *_tables_5_and_6(),
        *_sin2_of_table7(scaled),
        *_clrs_of_table7(scaled),
        *_table8(scaled),
        *_table9(),
    ]


# -- checks of their own ---------------------------------------------------------------------------


def _cheapest(results: Results) -> Judgement:
    others = [key for key in (*CLRS, *DECAYING) if key != "SIN2"]
    cheapest, missing = extreme(results, others, "iterations", min)
    mine = value(results, "SIN2", "iterations")
    numbers = f"{shown(results, 'SIN2', 'iterations')}, {shown(results, cheapest, 'iterations')}"
    return decided(mine <= value(results, cheapest, "iterations"), numbers, missing)


def _same_top1(results: Results) -> Judgement:
    values, missing = known_values(results, ("TRI", "TRI2", "SINEXP"), "top1")
    numbers = "Top-1: " + ", ".join(shown(results, key, "top1") for key in values)
    apart = max(values.values()) - min(values.values()) if values else 0.0
    return decided(round(apart, EXACT) <= SAME_TOP1, numbers, missing)


def _order_above_nstep(results: Results) -> Judgement:
    limit = value(results, "NSTEP", "top1")
    values, missing = known_values(results, (*CLRS, *SMITH), "top1")
    above_it = sorted((key for key in values if values[key] > limit), key=lambda key: -values[key])
    above = ", ".join(shown(results, key, "top1") for key in above_it) or "none"
    numbers = f"{shown(results, 'NSTEP', 'top1')}; above: {above}"
    return decided(above_it == [key for key in ABOVE_NSTEP if key in values], numbers, missing)


def _iterations_less(limit: int, results: Results) -> Judgement:
    saved = value(results, "NSTEP", "iterations") - value(results, "SINEXP", "iterations")
    numbers = f"{shown(results, 'SINEXP', 'iterations')}, {shown(results, 'NSTEP', 'iterations')} iterations"
    return Judgement(saved >= limit, numbers)


# -- the paper's conclusions -----------------------------------------------------------------------


def _step(k0: float, l: int) -> str:  # noqa: E741
    return f"STEP(k0={k0:g}, gamma=0.85, l={l})"


def _count(iterations: int) -> str:
    """Iterations for people: 4000, but 10,250."""
    return f"{iterations:,}" if iterations >= 10_000 else str(iterations)


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


def _figure3(share: float) -> list[Conclusion]:
    epochs = ", ".join(f"{number * share:g}" for number in FIGURE3_EPOCHS[:-1])
    last = f"{FIGURE3_EPOCHS[-1] * share:g}"
    return [
        Conclusion(
            "figure3", "the best k0 is from 0.0005 to 0.006", "V-A", figures.best_in_good_range
        ),
        Conclusion(
            "figure3",
            "k0 = 0.01 is 8.99 points below k0 = 0.001",
            "V-A",
            points_above("FIX(k0=0.001)", "FIX(k0=0.01)", 8.99),
        ),
        Conclusion(
            "figure3",
            "Top-1 falls faster from k0 = 0.006 to 0.1 than from the best k0 below to 0.006",
            "V-A",
            figures.falls_faster_above_good_range,
        ),
        Conclusion(
            "figure3",
            f"after {epochs} and {last} epochs alike, the best k0 is from 0.0005 to 0.006",
            "V-A",
            partial(figures.same_shape, share),
        ),
    ]


def _figure4(scaled: Scaled) -> list[Conclusion]:
    low, high = scaled(1000), scaled(10_000)
    return [
        Conclusion(
            "figure4", f"the best l is from {_count(low)} to {_count(high)}", "V-B", figures.best_l
        ),
        Conclusion(
            "figure4",
            "l changes Top-1 by less than k0 of FIX does, 8.99 points from 0.001 to 0.01",
            "V-B",
            partial(figures.small_impact, round(FIGURE3_STATED[0.001] - FIGURE3_STATED[0.01], 2)),
        ),
    ]


def _figure5(scaled: Scaled) -> list[Conclusion]:
    l = FIGURE5.params["l"]  # noqa: E741
    assert isinstance(l, tuple)
    updates = [scaled(int(update)) for update in l]
    times = f"{', '.join(map(_count, updates[:-1]))} and {_count(updates[-1])}"
    return [
        Conclusion(
            "figure5",
            f"right after each update of the LR, at {times}, Top-1 rises or the test loss drops",
            "V-B",
            partial(figures.better_after, str(FIGURE5), updates),
        )
    ]


def _tables_3_and_4(scaled: Scaled) -> list[Conclusion]:
    return [
        Conclusion(
            "table3",
            "of FIX, k0 = 0.1 has the highest Top-1",
            "V-A",
            highest("FIX(k0=0.1)", _FIX_RESNET),
        ),
        Conclusion(
            "table3",
            f"of STEP, l = {scaled(5000)} has the highest Top-1",
            "V-B",
            highest(_step(0.1, 5000), _STEP_RESNET),
        ),
        Conclusion(
            "table4",
            "of TRI2, k0 = 0.00005 and k1 = 0.006 have the highest Top-1",
            "V-A",
            highest(_TRI2_CNN3[0], _TRI2_CNN3),
        ),
        Conclusion(
            "table4",
            "TRI2 with k0 from 0.00002 to 0.00008 and k1 = 0.006 is above the 78.62 of FIX(k0=0.001)",
            "V-A",
            over(
                "top1",
                [_tri2(k0, "0.006") for k0 in ("2e-05", "5e-05", "6e-05", "8e-05")],
                FIGURE3_STATED[0.001],
            ),
        ),
        Conclusion(
            "table4",
            f"of STEP, l = {scaled(7000)} has the highest Top-1",
            "V-B",
            highest(_step(0.001, 7000), _STEP_CNN3),
        ),
        Conclusion(
            "table4",
            "of STEP, the smallest l has the lowest Top-1",
            "V-B",
            below("top1", _STEP_CNN3[:1], _STEP_CNN3[1:]),
        ),
    ]


def _tables_5_and_6() -> list[Conclusion]:
    return [
        Conclusion(
            "table5",
            "of TRI2, k0 = 0.0001 and k1 = 0.9 have the highest Top-1",
            "V-A",
            highest(_TRI2_RESNET[0], _TRI2_RESNET),
        ),
        Conclusion(
            "table6",
            "4 steps with gamma = 0.32 have the highest Top-1",
            "V-B",
            highest(_NSTEP_CNN3[2], _NSTEP_CNN3),
        ),
    ]


def _sin2_of_table7(scaled: Scaled) -> list[Conclusion]:
    cost = scaled(4000)
    return [
        Conclusion(
            "table7", "SIN2 has the highest Top-1", "V-C", highest("SIN2", (*CLRS, *DECAYING))
        ),
        Conclusion(
            "table7",
            f"SIN2 has the lowest cost, {cost} iterations",
            "V-C",
            every(at_most("iterations", ["SIN2"], cost), _cheapest),
        ),
        Conclusion(
            "table7",
            "SIN2 is 0.21 and 0.24 points above NSTEP and INV",
            "V-C",
            every(points_above("SIN2", "NSTEP", 0.21), points_above("SIN2", "INV", 0.24)),
        ),
        Conclusion(
            "table7",
            "SIN2 is at least 0.15 points above INV in at most half of its iterations",
            "V-C",
            every(points_above("SIN2", "INV", 0.15), at_most_share("SIN2", "INV", 0.5)),
        ),
        Conclusion(
            "table7",
            "SIN2 saves more than half of the cost of NSTEP and INV",
            "V-C",
            every(
                at_most_share("SIN2", "NSTEP", 0.5, less=True),
                at_most_share("SIN2", "INV", 0.5, less=True),
            ),
        ),
    ]


def _clrs_of_table7(scaled: Scaled) -> list[Conclusion]:
    cost = scaled(4000)

    def of_table7(statement: str, check: Check) -> Conclusion:
        return Conclusion("table7", statement, "V-C", check)

    return [
        of_table7(
            "the 7 CLRs have a higher Top-1 than the decaying LRs",
            above("top1", CLRS, DECAYING),
        ),
        of_table7(
            "the 7 CLRs have a lower CD than the decaying LRs",
            below("cd", CLRS, DECAYING),
        ),
        of_table7(
            "the 7 CLRs have a lower CDAC than the decaying LRs",
            below("cdac", CLRS, DECAYING),
        ),
        of_table7(
            "the 7 CLRs have a lower LD than the decaying LRs",
            below("ld", CLRS, DECAYING),
        ),
        of_table7(
            "the 7 CLRs reach their highest Top-1 in fewer iterations than the decaying LRs",
            below("iterations", CLRS, DECAYING),
        ),
        of_table7(
            f"all CLRs but COS have their highest Top-1 by iteration {cost}, the decaying LRs later",
            every(below("iterations", FASTER, DECAYING), at_most("iterations", FASTER, cost)),
        ),
        of_table7(
            "all CLRs but COS reach 99.27 %, NSTEP and INV do not",
            every(reach("top1", FASTER, 99.27), under("top1", DEFAULTS, 99.27)),
        ),
        of_table7(
            "at the same Top-1 as TRI and TRI2, SINEXP has a higher AC and a lower CD than they",
            every(
                _same_top1,
                above("ac", ["SINEXP"], ["TRI", "TRI2"]),
                below("cd", ["SINEXP"], ["TRI", "TRI2"]),
            ),
        ),
    ]


def _table8(scaled: Scaled) -> list[Conclusion]:
    saved = scaled(10_250)
    return [
        Conclusion(
            "table8",
            "SINEXP, TRIEXP, SIN and TRI, in this order, are above NSTEP, and no other is",
            "V-C",
            _order_above_nstep,
        ),
        Conclusion(
            "table8",
            f"SINEXP is 0.55 points above NSTEP in {_count(saved)} iterations less",
            "V-C",
            every(points_above("SINEXP", "NSTEP", 0.55), partial(_iterations_less, saved)),
        ),
        Conclusion(
            "table8",
            "the paper's five best by Top-1 have a higher AC than the others",
            "V-C",
            above("ac", ("NSTEP", *ABOVE_NSTEP), ("TRI2", "SIN2", "COS", *SMITH)),
        ),
        Conclusion(
            "table8",
            "SINEXP, TRIEXP, SIN and TRI have a higher CD than NSTEP",
            "V-C",
            above("cd", ABOVE_NSTEP, ["NSTEP"]),
        ),
        Conclusion(
            "table8",
            "TRI, TRI2, TRIEXP are better than Smith's in Top-1, Top-5 and LD",
            "V-C",
            every(
                *(
                    better(metric, [name], [f"{name} (Smith 2015)"])
                    for name in ("TRI", "TRI2", "TRIEXP")
                    for better, metric in ((above, "top1"), (above, "top5"), (below, "ld"))
                )
            ),
        ),
        Conclusion(
            "table8",
            "the 7 CLRs have a higher Top-1 than NSTEP",
            "V-C",
            above("top1", CLRS, ["NSTEP"]),
        ),
    ]


def _table9() -> list[Conclusion]:
    return [
        Conclusion(
            "table9",
            "TRIEXP and SINEXP have a higher Top-1 than NSTEP",
            "V-C",
            above("top1", ("TRIEXP", "SINEXP"), ["NSTEP"]),
        ),
        Conclusion(
            "table9",
            "TRIEXP and SINEXP have a higher Top-5 than NSTEP",
            "V-C",
            above("top5", ("TRIEXP", "SINEXP"), ["NSTEP"]),
        ),
        Conclusion(
            "table9",
            "TRIEXP and SINEXP have a lower LD, CD and CDAC than NSTEP",
            "V-C",
            every(
                *(below(metric, ("TRIEXP", "SINEXP"), ["NSTEP"]) for metric in ("ld", "cd", "cdac"))
            ),
        ),
    ]


CONCLUSIONS = all_conclusions()
