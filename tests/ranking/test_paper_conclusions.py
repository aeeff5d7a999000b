"""What section V-C of the paper concludes from Tables VII to IX, against the numbers that these print.

docs/ranking.md lists the same conclusions and which of them hold.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from lrbench_caffe.database.paper import FOLDER, paper_records
from lrbench_caffe.ranking import CRITERIA, Candidate, criteria, pareto_front, rank, welch
from tests.ranking.summaries import of_record

DOC = Path(__file__).parents[2] / "docs" / "ranking.md"
CLRS = ("TRI", "TRI2", "TRIEXP", "SIN", "SIN2", "SINEXP", "COS")
DECAYING = ("NSTEP", "INV", "POLY")
FASTER = ("TRI", "TRI2", "TRIEXP", "SIN", "SIN2", "SINEXP")


def table(name: str, source: str | None = None) -> dict[str, dict[str, float]]:
    """A table's rows, straight from the CSV, by function."""
    with (FOLDER / name).open(encoding="utf-8") as file:
        return {
            row["lr"]: {k: float(v) for k, v in row.items() if v and k in (*CRITERIA, "top1_sd")}
            for row in csv.DictReader(file)
            if source in (None, row["source"])
        }


VII = table("table7_mnist_lenet.csv")
SMITH = table("table8_cifar10_cnn3.csv", "Smith 2015")
VIII = table("table8_cifar10_cnn3.csv", "LRBench") | table("table8_cifar10_cnn3.csv", "Default")
IX = table("table9_cifar10_resnet32.csv")


def below(values: dict, low: tuple[str, ...], high: tuple[str, ...], metric: str) -> bool:
    return max(values[f][metric] for f in low) < min(values[f][metric] for f in high)


def best(values: dict, metric: str) -> str:
    return max(values, key=lambda function: values[function][metric])


# Conclusion, whether the printed numbers bear it out, and how that is seen.
CONCLUSIONS: list[tuple[str, bool, Callable[[], bool]]] = [
    ("VII: SIN2 has the highest Top-1", True, lambda: best(VII, "top1") == "SIN2"),
    (
        "VII: at the lowest cost, 4000 iterations",
        True,
        lambda: VII["SIN2"]["iterations"] == min(r["iterations"] for r in VII.values()) == 4000,
    ),
    (
        "VII: SIN2 is 0.21 and 0.24 points above NSTEP and INV",
        True,
        lambda: [round(VII["SIN2"]["top1"] - VII[f]["top1"], 2) for f in ("NSTEP", "INV")] == [0.21, 0.24],
    ),
    (
        "VII: more than half of the cost of NSTEP and INV is saved",
        False,  # exactly half of INV's 8000
        lambda: all(VII["SIN2"]["iterations"] < VII[f]["iterations"] / 2 for f in ("NSTEP", "INV")),
    ),
    (
        "VII: the 7 CLRs have a higher Top-1 than the decaying LRs",
        True,
        lambda: below(VII, DECAYING, CLRS, "top1"),
    ),
    ("VII: the 7 CLRs have a lower CD", True, lambda: below(VII, CLRS, DECAYING, "cd")),
    ("VII: the 7 CLRs have a lower CDAC", False, lambda: below(VII, CLRS, DECAYING, "cdac")),  # SIN, COS
    ("VII: the 7 CLRs have a lower LD", True, lambda: below(VII, CLRS, DECAYING, "ld")),
    (
        "VII: CLRs reach it in fewer iterations",
        False,
        lambda: below(VII, CLRS, DECAYING, "iterations"),
    ),  # COS
    (
        "VII: all CLRs but COS do so, in 4000",
        True,
        lambda: (
            below(VII, FASTER, DECAYING, "iterations") and {VII[f]["iterations"] for f in FASTER} == {4000}
        ),
    ),
    (
        "VII: NSTEP and INV never reach 99.27 %",
        True,
        lambda: max(VII[f]["top1"] for f in ("NSTEP", "INV")) < 99.27 <= min(VII[f]["top1"] for f in FASTER),
    ),
    (
        "VII: at the same Top-1 as TRI and TRI2, SINEXP has a higher AC and a lower CD",
        True,
        lambda: (
            {VII[f]["top1"] for f in ("TRI", "TRI2", "SINEXP")} == {99.28}
            and below(VII, ("TRI", "TRI2"), ("SINEXP",), "ac")
            and below(VII, ("SINEXP",), ("TRI", "TRI2"), "cd")
        ),
    ),
    (
        "VIII: SINEXP, TRIEXP, SIN and TRI, in this order, are above NSTEP, and no other is",
        True,
        lambda: (
            sorted(
                (f for f in VIII if VIII[f]["top1"] > VIII["NSTEP"]["top1"]), key=lambda f: -VIII[f]["top1"]
            )
            == ["SINEXP", "TRIEXP", "SIN", "TRI"]
            and max(row["top1"] for row in SMITH.values()) < VIII["NSTEP"]["top1"]
        ),
    ),
    (
        "VIII: SINEXP is 0.55 points above NSTEP in 10,250 iterations less",
        True,
        lambda: (
            round(VIII["SINEXP"]["top1"] - VIII["NSTEP"]["top1"], 2) == 0.55
            and VIII["NSTEP"]["iterations"] - VIII["SINEXP"]["iterations"] == 10_250
        ),
    ),
    (
        "VIII: the five best by Top-1 have a higher AC than the others",
        False,  # Smith's TRI2 and TRIEXP have 0.8652 and 0.8686, SINEXP 0.8632
        lambda: (
            min(VIII[f]["ac"] for f in ("NSTEP", "SINEXP", "TRIEXP", "SIN", "TRI"))
            > max([VIII[f]["ac"] for f in ("TRI2", "SIN2", "COS")] + [row["ac"] for row in SMITH.values()])
        ),
    ),
    (
        "VIII: these four have a higher CD than NSTEP",
        True,
        lambda: below(VIII, ("NSTEP",), ("SINEXP", "TRIEXP", "SIN", "TRI"), "cd"),
    ),
    (
        "VIII: TRI, TRI2, TRIEXP are better than Smith's in Top-1, Top-5 and LD",
        True,
        lambda: all(
            VIII[f]["top1"] > SMITH[f]["top1"]
            and VIII[f]["top5"] > SMITH[f]["top5"]
            and VIII[f]["ld"] < SMITH[f]["ld"]
            for f in ("TRI", "TRI2", "TRIEXP")
        ),
    ),
    (
        "VIII: the CLRs are better than NSTEP",
        False,
        lambda: below(VIII, ("NSTEP",), CLRS, "top1"),
    ),  # 4 of 7 are
    (
        "IX: TRIEXP and SINEXP have a higher Top-1 than NSTEP",
        True,
        lambda: below(IX, ("NSTEP",), ("TRIEXP", "SINEXP"), "top1"),
    ),
    (
        "IX: and a higher Top-5",
        False,
        lambda: below(IX, ("NSTEP",), ("TRIEXP", "SINEXP"), "top5"),
    ),  # TRIEXP 99.74
    (
        "IX: and a lower LD, CD and CDAC",
        True,
        lambda: all(below(IX, ("TRIEXP", "SINEXP"), ("NSTEP",), metric) for metric in ("ld", "cd", "cdac")),
    ),
]


@pytest.mark.parametrize(("conclusion", "holds", "check"), CONCLUSIONS, ids=[c[0] for c in CONCLUSIONS])
def test_conclusion(conclusion, holds, check):
    assert check() is holds


def test_the_docs_list_the_same():
    text = DOC.read_text(encoding="utf-8")
    for conclusion, holds, _ in CONCLUSIONS:
        number, _, words = conclusion.partition(": ")
        assert f"| {number} | {words} | {'yes' if holds else 'no'} |" in text


def candidates(number: str) -> list[Candidate]:
    return [Candidate(of_record(r)) for r in paper_records() if r.origin == f"Wu et al. 2019, Table {number}"]


def functions(rows) -> list[str]:
    return [row.candidate.summary.policy.function for row in rows]


def test_ranking_table_vii_gives_them():
    """The ranking of the records, against the order of the CSV's numbers."""
    rows = candidates("VII")
    assert len(rows) == 10
    by_top1 = rank(rows, criteria("top1,iterations"))
    assert functions(by_top1)[:3] == ["SIN2", "COS", "SIN"]
    assert functions(by_top1)[-3:] == ["NSTEP", "POLY", "INV"]
    assert [r.candidate.spread("top1").mean for r in by_top1] == sorted(
        (row["top1"] for row in VII.values()), reverse=True
    )
    by_ld = rank(rows, criteria("ld,top1"))
    assert functions(by_ld)[0] == "SIN2"
    assert set(functions(by_ld)[:7]) == set(CLRS)
    by_cost = rank(rows, criteria("iterations,top1"))
    assert functions(by_cost)[:6] == ["SIN2", "SIN", "TRI", "TRI2", "SINEXP", "TRIEXP"]
    assert [row.place for row in by_cost[:6]] == [1, 2, 3, 3, 3, 6]
    assert [c.summary.policy.function for c in pareto_front(rows, CRITERIA["iterations"])] == ["SIN2"]


def test_what_of_it_is_noise():
    """SIN2's lead over the decaying LRs is real, over COS, SIN and SINEXP it is within noise."""
    marks = {
        r.candidate.summary.policy.function: r.from_best for r in rank(candidates("VII"), criteria("top1"))
    }
    assert {f for f, c in marks.items() if c and c.mark == "~"} == {"COS", "SIN", "SINEXP"}
    assert all(marks[f].p < 1e-4 for f in DECAYING)


def test_table_viii_lead_over_nstep_is_noise_but_for_two():
    by_policy = {c.summary.policy.text: c for c in candidates("VIII")}
    nstep = by_policy["NSTEP(k0=0.001, gamma=0.1, l=[60000, 65000])"].spread("top1")
    p = {
        c.summary.policy.function: welch(c.spread("top1"), 5, nstep, 5)
        for text, c in by_policy.items()
        if "k0=5e-05" in text and c.spread("top1").mean > nstep.mean
    }
    assert {f for f, value in p.items() if value < 0.05} == {"SINEXP", "TRIEXP"}
    assert {f for f, value in p.items() if value >= 0.05} == {"SIN", "TRI"}
