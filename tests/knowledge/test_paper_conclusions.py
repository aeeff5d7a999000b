"""Ranking the paper's tables gives what it concludes (its conclusions one by one: tests/reproduce)."""

from __future__ import annotations

import csv

from lrbench_caffe.knowledge.criteria import CRITERIA, criteria
from lrbench_caffe.knowledge.ranking import RankingEntry, pareto_front, rank, welch
from lrbench_caffe.paper.tables import FOLDER, paper_records
from tests.knowledge.summaries import of_record

CLRS = ("TRI", "TRI2", "TRIEXP", "SIN", "SIN2", "SINEXP", "COS")
DECAYING = ("NSTEP", "INV", "POLY")


def table(name: str, source: str | None = None) -> dict[str, dict[str, float]]:
    """A table's rows, straight from the CSV, by function."""
    with (FOLDER / name).open(encoding="utf-8") as file:
        return {
            row["lr"]: {k: float(v) for k, v in row.items() if v and k in (*CRITERIA, "top1_sd")}
            for row in csv.DictReader(file)
            if source in (None, row["source"])
        }


VII = table("table7_mnist_lenet.csv")


def candidates(number: str) -> list[RankingEntry]:
    return [
        RankingEntry(of_record(r))
        for r in paper_records()
        if r.origin == f"Wu et al. 2019, Table {number}"
    ]


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
    assert [c.summary.policy.function for c in pareto_front(rows, CRITERIA["iterations"])] == [
        "SIN2"
    ]


def test_what_of_it_is_noise():
    """SIN2's lead over the decaying LRs is real, over COS, SIN and SINEXP it is within noise."""
    marks = {
        r.candidate.summary.policy.function: r.from_best
        for r in rank(candidates("VII"), criteria("top1"))
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
