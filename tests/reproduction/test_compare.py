"""The paper beside ours, with numbers by hand."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from pathlib import Path

import pytest

from lrbench_caffe.records import Spread
from lrbench_caffe.reproduction.compare import (
    PaperComparison,
    belongs,
    compare,
    conclusion_rows,
    data_rows,
    our_results,
    paper_results,
    table_rows,
)
from lrbench_caffe.reproduction.plan import plan, scale, select
from lrbench_caffe.reproduction.publishing import LEGEND
from lrbench_caffe.reproduction.results import PolicyResult, result_of, spread
from lrbench_caffe.tabular import csv_text, markdown_table
from tests.reproduction.runs import measured, run

VII = plan("table7")
SIN2 = VII.row("SIN2")


def sin2(seed: int, *tests, of=VII, **others):
    return run(of, of.row("SIN2").trained, seed, list(tests), **others)


# -- results ---------------------------------------------------------------------------------------


def test_each_training_counts_at_its_first_highest_top1():
    one = sin2(1, measured(500, 97.0), measured(4000, 99.3, ld=0.02), measured(8000, 99.3, ld=0.5))
    other = sin2(2, measured(500, 97.0), measured(8000, 99.4, ld=0.04))
    found = result_of([one, other])
    assert found.spreads["top1"] == Spread(pytest.approx(99.35), pytest.approx(0.05))
    assert found.spreads["iterations"] == Spread(6000.0, 2000.0)
    assert found.spreads["ld"].mean == pytest.approx(0.03)
    assert found.seeds == (1, 2)


def test_of_one_seed_the_last_run_counts():
    old = sin2(1, measured(500, 90.0), uid="old", ended=10.0)
    new = sin2(1, measured(500, 95.0), uid="new", ended=20.0)
    found = result_of([new, old])
    assert found.spreads["top1"] == Spread(95.0, None)


def test_runs_that_did_not_finish_do_not_count():
    assert result_of([sin2(1, measured(500, 95.0), status="stopped")]) is None
    assert result_of([sin2(1, measured(500, None))]) is None
    lost = sin2(3, measured(0, 10.0), status="diverged")
    again = sin2(1, measured(0, 10.0), status="diverged", uid="x", ended=1.0)
    found = result_of([lost, again, sin2(1, measured(500, 95.0))])
    assert (found.seeds, found.diverged) == ((1,), 1)


def test_a_policy_that_only_diverged_is_no_policy_that_was_not_trained():
    of = select(VII, "sin2,cos")
    lost = [sin2(seed, measured(0, 10.0), status="diverged") for seed in (1, 2)]
    ours = our_results(of, lost)
    assert (ours["SIN2"].spreads, ours["SIN2"].seeds, ours["SIN2"].diverged) == ({}, (), 2)
    rows = table_rows(of, ours)
    assert [row[2] for row in rows[1:]] == [
        "paper", "ours, 2 diverged", "difference", "paper", "ours, not trained", "difference",
    ]  # fmt: skip
    assert rows[2][3:] == rows[3][3:] == ["-"] * 7
    data = data_rows(of, ours)
    count = data[0].index("diverged")
    assert {(row[1], row[count - 1], row[count]) for row in data[1:]} == {
        ("8", "0", "2"),
        ("10", "0", "0"),
    }
    verdicts = {row[1]: row[3:] for row in conclusion_rows(of, ours)}
    half = verdicts["SIN2 is at least 0.15 points above INV in at most half of its iterations"]
    assert half[0] == "undecided" and "no result: SIN2 (2 diverged)" in half[1]


def test_other_test_nets_and_what_was_not_measured_are_left_out():
    found = result_of(
        [sin2(1, measured(500, 95.0, ac=math.nan, ld=None), measured(500, 99.0, net=1))]
    )
    assert found.spreads["top1"].mean == 95.0
    assert {"ac", "ld"}.isdisjoint(found.spreads)


def test_only_runs_of_the_plan_are_ours():
    mine = sin2(1, measured(500, 95.0))
    assert belongs(VII, mine)
    for wrong in (
        {"max_iter": 5000},
        {"test_interval": 250},
        {"seed": 6},
        {"seed": None},
        {"source": "paper"},
        {"solver": dataclasses.replace(mine.solver, batch=64)},
        {"network": dataclasses.replace(mine.network, digest="other")},
        {"dataset": dataclasses.replace(mine.dataset, name="fashion")},
    ):
        assert not belongs(VII, dataclasses.replace(mine, **wrong)), wrong
    assert set(our_results(VII, [mine])) == {"SIN2"}


def test_scaled_and_full_runs_never_meet():
    short = scale(VII, 0.1)
    full, scaled = sin2(1, measured(500, 95.0)), sin2(1, measured(500, 90.0), of=short)
    assert our_results(VII, [full, scaled])["SIN2"].spreads["top1"].mean == 95.0
    assert our_results(short, [full, scaled])["SIN2"].spreads["top1"].mean == 90.0


# -- comparison ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paper", "ours", "within"),
    [
        (Spread(99.33, 0.02), Spread(99.30, 0.01), True),  # 0.03 <= 0.02 + 0.01
        (Spread(99.33, 0.02), Spread(99.29, 0.01), False),
        (Spread(99.33, 0.02), Spread(99.29, 0.02), True),
        (
            Spread(99.33, 0.02),
            Spread(99.35, None),
            True,
        ),  # a single training: the paper's deviation alone
        (Spread(99.33, None), Spread(99.33, None), None),
        (Spread(99.33, 0.02), None, None),
        (None, Spread(99.33, 0.02), None),
    ],
)
def test_within_the_two_deviations(paper, ours, within):
    assert PaperComparison(SIN2, "top1", paper, ours).within is within


def test_the_rounding_of_the_printed_number_is_allowed():
    # 0.0166 may stand for anything from 0.01655 to 0.01665.
    assert PaperComparison(SIN2, "ld", Spread(0.0166, None), Spread(0.01664, 0.0)).within is True
    assert PaperComparison(SIN2, "ld", Spread(0.0166, None), Spread(0.01666, 0.0)).within is False
    assert PaperComparison(SIN2, "top1", Spread(99.33, 0.02), Spread(99.304, 0.001)).within is True
    assert (
        PaperComparison(SIN2, "iterations", Spread(4000.0, None), Spread(4000.4, 0.0)).within
        is False
    )


def test_the_legend_says_the_rule():
    rule = "because the paper's means are rounded, they may be off by half of the last digit (except #Iter)"
    assert LEGEND.startswith(f'"=": the paper\'s range mean ± deviation and ours overlap; {rule}; ')
    doc = (Path(__file__).parents[2] / "docs" / "reproducing.md").read_text(encoding="utf-8")
    assert rule in " ".join(doc.split())


def test_every_number_of_the_table_is_compared():
    ours = our_results(VII, [sin2(1, measured(4000, 99.3)), sin2(2, measured(4000, 99.4))])
    found = compare(VII, ours)
    assert len(found) == 10 * 7
    top1 = next(c for c in found if c.row.key == "SIN2" and c.metric == "top1")
    assert (top1.paper, top1.ours) == (Spread(99.33, 0.02), spread([99.3, 99.4]))
    assert top1.difference == pytest.approx(0.02)
    assert all(c.ours is None and c.difference is None for c in found if c.row.key != "SIN2")


def test_what_the_paper_states_in_its_text_only():
    of = plan("figure3")
    assert paper_results(of) == {  # section V-A
        "FIX(k0=0.001)": PolicyResult({"top1": Spread(78.62, None)}),
        "FIX(k0=0.01)": PolicyResult({"top1": Spread(69.63, None)}),
    }
    one = run(of, of.row("FIX(k0=0.01)").policy, 1, [measured(70_000, 70.13)])
    paper, _, difference = [
        r[3:] for r in table_rows(of, our_results(of, [one])) if "FIX(k0=0.01)" in r
    ]
    assert paper == ["-", "-", "69.63", "-", "-", "-", "-"]
    assert difference == ["-", "-", "+0.50", "-", "-", "-", "-"]


# -- rows ------------------------------------------------------------------------------------------


def test_three_lines_for_a_policy():
    of = select(VII, "sin2,cos")
    ours = our_results(
        of, [sin2(1, measured(4000, 99.3, ld=0.0172)), sin2(2, measured(8000, 99.4, ld=0.02))]
    )
    heading, *rows = table_rows(of, ours)
    assert heading == [
        "#",
        "policy",
        "",
        "#Iter",
        "LD",
        "Top-1 (%)",
        "Top-5 (%)",
        "AC",
        "CD",
        "CDAC",
    ]
    assert [row[:3] for row in rows] == [
        ["8", "SIN2(k0=0.01, k1=0.06, l=2000)", "paper"],
        ["8", "SIN2(k0=0.01, k1=0.06, l=2000)", "ours, 2 seeds"],
        ["8", "SIN2(k0=0.01, k1=0.06, l=2000)", "difference"],
        ["10", "COS(k0=0.01, k1=0.06, l=2000)", "paper"],
        ["10", "COS(k0=0.01, k1=0.06, l=2000)", "ours, not trained"],
        ["10", "COS(k0=0.01, k1=0.06, l=2000)", "difference"],
    ]
    paper, mine, difference, *of_cos = [row[3:] for row in rows]
    assert paper == ["4000", "0.0166", "99.33 ± 0.02", "100.00", "0.9950", "0.0342", "0.0018"]
    assert mine[:4] == ["6000 ± 2000", "0.0186 ± 0.0014", "99.35 ± 0.05", "99.90 ± 0.00"]
    assert difference == [
        "+2000 =",
        "+0.0020 ≠",
        "+0.02 =",
        "-0.10 ≠",
        "-0.0050 ≠",
        "-0.0042 ≠",
        "+0.0002 ≠",
    ]
    assert of_cos[1] == of_cos[2] == ["-"] * 7


def test_csv_has_a_line_for_each_number():
    of = select(VII, "sin2")
    ours = our_results(
        of, [sin2(1, measured(4000, 99.3)), sin2(2, measured(0, 10.0), status="diverged")]
    )
    lines = list(csv.DictReader(io.StringIO(csv_text(data_rows(of, ours)))))
    assert [line["metric"] for line in lines] == [
        "iterations",
        "ld",
        "top1",
        "top5",
        "ac",
        "cd",
        "cdac",
    ]
    assert lines[2] == {
        "plan": "table7", "row": "8", "policy": "SIN2(k0=0.01, k1=0.06, l=2000)",
        "paper_policy": "SIN2(k0=0.01, k1=0.06, l=2000)", "metric": "top1",
        "paper": "99.33", "paper_sd": "0.02", "ours": "99.3", "ours_sd": "", "seeds": "1", "diverged": "1",
        "difference": "-0.03", "within": "no", "max_iter": "10000", "scale": "1",
    }  # fmt: skip


def test_a_scaled_down_run_says_so_in_every_line_and_claims_nothing():
    of = scale(VII, 0.02)
    ours = our_results(of, [sin2(1, measured(40, 95.0), of=of), sin2(2, measured(40, 96.0), of=of)])
    for rows in (table_rows(of, ours), conclusion_rows(of, ours)):
        assert rows[0][-1] == "scale"
        assert {row[-1] for row in rows[1:]} == {"SCALED DOWN: 200 of 10000 iterations"}
    text = markdown_table(table_rows(of, ours))
    assert "SIN2(k0=0.01, k1=0.06, l=40)" in text and "95.50 ± 0.50" in text
    assert " = |" not in text and " ≠ |" not in text
    data = data_rows(of, ours)
    assert {row[data[0].index("within")] for row in data[1:]} == {"-"}
    assert {row[data[0].index("scale")] for row in data[1:]} == {"0.02"}


def test_a_scaled_table_has_the_papers_policy_in_the_papers_line():
    of = scale(select(VII, "sin2"), 0.02)
    ours = our_results(of, [sin2(1, measured(40, 95.0), of=of)])
    paper, mine, difference = table_rows(of, ours)[1:]
    assert [paper[1], mine[1], difference[1]] == [
        "SIN2(k0=0.01, k1=0.06, l=2000)", "SIN2(k0=0.01, k1=0.06, l=40)", "SIN2(k0=0.01, k1=0.06, l=40)",
    ]  # fmt: skip
    assert (paper[3], mine[3], difference[3]) == ("4000", "40", "-")  # iterations are not compared
    assert difference[5] == "-4.33"
    first = dict(zip(*data_rows(of, ours)[:2]))
    assert (first["policy"], first["paper_policy"]) == (mine[1], paper[1])
    assert (first["paper"], first["ours"], first["difference"]) == ("4000", "40", "-")
    assert {row[1] for row in table_rows(of, ours, short=True)[1:]} == {"SIN2"}


def test_a_scaled_policy_is_named_where_its_key_is_the_papers():
    of = scale(plan("figure5"), 0.01)
    scaled = "NSTEP(k0=0.001, gamma=0.32, l=[300, 500, 600, 650])"
    paper, mine, _ = table_rows(of, {}, short=True)[1:]
    assert (paper[1], mine[1]) == (
        "NSTEP(k0=0.001, gamma=0.32, l=[30000, 50000, 60000, 65000])",
        scaled,
    )
    assert conclusion_rows(of, {})[1][4] == f"no result: {scaled}"


def test_iterations_in_a_scaled_conclusion_are_scaled():
    of = scale(VII, 0.02)
    records = [run(of, row.trained, 1, [measured(100, 95.0)]) for row in of.rows]
    records[of.rows.index(of.row("SIN2"))].measurements[:] = [measured(80, 96.0)]
    rows = {row[1]: row[2:] for row in conclusion_rows(of, our_results(of, records))}
    # 4000 of 10,000 iterations are 80 of 200; the paper's own numbers are judged by 4000.
    assert rows["SIN2 has the lowest cost, 80 iterations"][:3] == [
        "holds",
        "holds",
        "SIN2 80, limit 80; SIN2 80, TRI 100",
    ]
    faster = next(
        row
        for statement, row in rows.items()
        if statement.startswith("all CLRs but COS have their highest Top-1 by iteration 80,")
    )
    assert faster[:2] == ["holds", "does not hold"] and faster[2].endswith("TRI 100, limit 80")
    texts = " ".join(row[1] for row in conclusion_rows(scale(plan("table8"), 0.02), {}))
    assert "in 205 iterations less" in texts and "10,250" not in texts
    texts = " ".join(row[1] for row in conclusion_rows(scale(plan("table4"), 0.1), {}))
    assert "l = 700 has" in texts


def test_conclusions_as_rows():
    ours = our_results(
        VII,
        [sin2(1, measured(4000, 99.3)), run(VII, VII.row("INV").policy, 1, [measured(8000, 99.1)])],
    )
    rows = {row[1]: row for row in conclusion_rows(VII, ours)}
    assert rows["SIN2 is at least 0.15 points above INV in at most half of its iterations"] == [
        "V-C",
        "SIN2 is at least 0.15 points above INV in at most half of its iterations",
        "holds",
        "holds",
        "SIN2 99.30, INV 99.10: +0.20; SIN2 4000 iterations, INV 8000",
    ]
    assert rows["SIN2 has the highest Top-1"][2:4] == ["holds", "undecided"]
