"""What the paper concludes (sections V-A to V-C): against the numbers that it prints, and against others.

docs/ranking.md lists the same conclusions and which of them hold.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from lrbench_caffe.paper.tables import FOLDER
from lrbench_caffe.records import Spread
from lrbench_caffe.reproduction.checks import (
    Judgement,
    above,
    at_most,
    at_most_share,
    below,
    every,
    highest,
    judged,
    over,
    points_above,
    reach,
    shown,
    signed,
    under,
)
from lrbench_caffe.reproduction.compare import data_rows, paper_results, table_rows
from lrbench_caffe.reproduction.conclusions import (
    CLRS,
    CONCLUSIONS,
    DECAYING,
    SMITH,
    Conclusion,
    conclusions,
)
from lrbench_caffe.reproduction.plan import plan, plans, select
from lrbench_caffe.reproduction.results import PAPER_METRICS, PolicyResult

DOC = Path(__file__).parents[2] / "docs" / "ranking.md"

# Whether the printed numbers bear it out, read from the tables by eye. None: the paper prints no
# table of it.
HOLDS = {
    "Figure 3: the best k0 is from 0.0005 to 0.006": None,
    "Figure 3: k0 = 0.01 is 8.99 points below k0 = 0.001": True,
    "Figure 3: Top-1 falls faster from k0 = 0.006 to 0.1 than from the best k0 below to 0.006": None,
    "Figure 3: after 10, 20, 40, 80 and 140 epochs alike, the best k0 is from 0.0005 to 0.006": None,
    "Figure 4: the best l is from 1000 to 10,000": None,
    "Figure 4: l changes Top-1 by less than k0 of FIX does, 8.99 points from 0.001 to 0.01": None,
    "Figure 5: right after each update of the LR, at 30,000, 50,000, 60,000 and 65,000, Top-1 rises or the "
    "test loss drops": None,
    "III: of FIX, k0 = 0.1 has the highest Top-1": True,
    "III: of STEP, l = 5000 has the highest Top-1": True,
    "IV: of TRI2, k0 = 0.00005 and k1 = 0.006 have the highest Top-1": True,
    "IV: TRI2 with k0 from 0.00002 to 0.00008 and k1 = 0.006 is above the 78.62 of FIX(k0=0.001)": True,
    "IV: of STEP, l = 7000 has the highest Top-1": True,
    "IV: of STEP, the smallest l has the lowest Top-1": True,
    "V: of TRI2, k0 = 0.0001 and k1 = 0.9 have the highest Top-1": True,
    "VI: 4 steps with gamma = 0.32 have the highest Top-1": True,
    "VII: SIN2 has the highest Top-1": True,
    "VII: SIN2 has the lowest cost, 4000 iterations": True,
    "VII: SIN2 is 0.21 and 0.24 points above NSTEP and INV": True,
    "VII: SIN2 is at least 0.15 points above INV in at most half of its iterations": True,
    "VII: SIN2 saves more than half of the cost of NSTEP and INV": False,  # exactly half of INV's 8000
    "VII: the 7 CLRs have a higher Top-1 than the decaying LRs": True,
    "VII: the 7 CLRs have a lower CD than the decaying LRs": True,
    "VII: the 7 CLRs have a lower CDAC than the decaying LRs": False,  # SIN, COS
    "VII: the 7 CLRs have a lower LD than the decaying LRs": True,
    "VII: the 7 CLRs reach their highest Top-1 in fewer iterations than the decaying LRs": False,  # COS
    "VII: all CLRs but COS have their highest Top-1 by iteration 4000, the decaying LRs later": True,
    "VII: all CLRs but COS reach 99.27 %, NSTEP and INV do not": True,
    "VII: at the same Top-1 as TRI and TRI2, SINEXP has a higher AC and a lower CD than they": True,
    "VIII: SINEXP, TRIEXP, SIN and TRI, in this order, are above NSTEP, and no other is": True,
    "VIII: SINEXP is 0.55 points above NSTEP in 10,250 iterations less": True,
    "VIII: the paper's five best by Top-1 have a higher AC than the others": False,  # Smith's TRI2 0.8652
    "VIII: SINEXP, TRIEXP, SIN and TRI have a higher CD than NSTEP": True,
    "VIII: TRI, TRI2, TRIEXP are better than Smith's in Top-1, Top-5 and LD": True,
    "VIII: the 7 CLRs have a higher Top-1 than NSTEP": False,  # 4 of 7 are
    "IX: TRIEXP and SINEXP have a higher Top-1 than NSTEP": True,
    "IX: TRIEXP and SINEXP have a higher Top-5 than NSTEP": False,  # TRIEXP 99.74
    "IX: TRIEXP and SINEXP have a lower LD, CD and CDAC than NSTEP": True,
}


def result(n: int = 1, sd: float | None = None, **means: float) -> PolicyResult:
    return PolicyResult(
        {name: Spread(mean, sd, n) for name, mean in means.items()}, tuple(range(1, n + 1))
    )


# -- the paper's numbers ---------------------------------------------------------------------------


def test_each_is_listed_here_and_belongs_to_a_plan():
    assert [conclusion.name for conclusion in CONCLUSIONS] == list(HOLDS)
    assert {conclusion.plan for conclusion in CONCLUSIONS} <= set(plans())
    assert sum(len(conclusions(name)) for name in plans()) == len(HOLDS)


@pytest.mark.parametrize("conclusion", CONCLUSIONS, ids=list(HOLDS))
def test_of_the_printed_numbers(conclusion):
    verdict = conclusion.judge(paper_results(plan(conclusion.plan)))
    assert verdict.holds is HOLDS[conclusion.name]
    assert verdict.numbers
    assert verdict.word == {True: "holds", False: "does not hold", None: "undecided"}[verdict.holds]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("table7", "table7_mnist_lenet.csv"),
        ("table8", "table8_cifar10_cnn3.csv"),
        ("table9", "table9_cifar10_resnet32.csv"),
    ],
)
def test_the_papers_results_are_the_printed_ones(name, file):
    with (FOLDER / file).open(encoding="utf-8") as lines:
        printed = list(csv.DictReader(lines))
    results = paper_results(plan(name))
    assert len(results) == len(printed)
    for found, line in zip(results.values(), printed):
        assert {metric: found.spreads[metric].mean for metric in PAPER_METRICS} == {
            m: float(line[m]) for m in PAPER_METRICS
        }
        assert found.spreads["top1"].sd == float(line["top1_sd"])
        assert found.spreads["ld"].sd is None


def test_the_docs_list_the_same():
    text = DOC.read_text(encoding="utf-8")
    for name, holds in HOLDS.items():
        number, _, words = name.partition(": ")
        if not number.startswith("Figure"):  # they are listed of Tables III to IX
            assert f"| {number} | {words} | {'yes' if holds else 'no'} |" in text


# -- other numbers ---------------------------------------------------------------------------------


def test_the_numbers_that_decide_are_shown():
    results = {"A": result(top1=99.3), "B": result(top1=99.1), "C": result(top1=99.2)}
    assert highest("A", "ABC")(results).numbers == "Top-1 (%): A 99.30, C 99.20"
    assert highest("C", "ABC")(results).holds is False
    assert above("top1", "AC", "B")(results).numbers == "Top-1 (%): C 99.20, B 99.10"
    assert below("top1", "B", "AC")(results).holds is True


def test_trainings_that_diverged_are_named():
    results = {
        "A": PolicyResult({"top1": Spread(99.3, None, 1)}, (1,), 1),
        "B": result(top1=99.1),
        "C": PolicyResult({}, (), 2),
    }
    assert above("top1", "A", "B")(results).numbers == "Top-1 (%): A 99.30 (1 diverged), B 99.10"
    conclusion = Conclusion("x", "X: C is above A", "V", above("top1", "C", "A"))
    assert conclusion.judge(results) == Judgement(None, "no result: C (2 diverged)")


def test_what_several_checks_lack_is_named_once():
    results = {"A": result(top1=99.3, top5=99.9), "B": result(top1=99.1, top5=99.8)}
    parts = [above(metric, "A", other) for metric in ("top1", "top5") for other in "BC"]
    assert every(*parts)(results) == Judgement(
        None, "Top-1 (%): A 99.30, B 99.10; no result: C; Top-5 (%): A 99.90, B 99.80"
    )


def test_equal_is_not_above():
    results = {"A": result(top1=99.3), "B": result(top1=99.3)}
    assert above("top1", "A", "B")(results).holds is False
    assert below("top1", "A", "B")(results).holds is False


def test_noise_is_named():
    # Welch by hand: t = 0.1 / sqrt(0.1^2/4 + 0.1^2/4) = 1.414, 8 degrees of freedom: p = 0.195
    results = {"A": result(5, 0.1, top1=99.3), "B": result(5, 0.1, top1=99.2)}
    assert above("top1", "A", "B")(results).numbers.endswith(
        "A 99.30, B 99.20 (p=0.2, within noise)"
    )
    equal = {"A": result(5, 0.0, top1=99.3), "B": result(5, 2e-14, top1=99.2)}
    assert (
        above("top1", "A", "B")(equal).numbers == "Top-1 (%): A 99.30, B 99.20"
    )  # no test without a deviation
    clear = {"A": result(5, 0.01, top1=99.3), "B": result(5, 0.01, top1=99.2)}
    assert "within noise" not in above("top1", "A", "B")(clear).numbers


@pytest.mark.parametrize(
    ("iterations", "share", "less"), [(4000, True, False), (3999, True, True), (4001, False, False)]
)
def test_half_of_the_iterations(iterations, share, less):
    results = {"A": result(iterations=iterations), "B": result(iterations=8000)}
    assert at_most_share("A", "B", 0.5)(results).holds is share
    assert at_most_share("A", "B", 0.5, less=True)(results).holds is less


def test_a_difference_has_no_negative_zero():
    assert [signed(x, 2) for x in (0.004, -0.004, 0.0, -0.0, 0.005001, -0.01)] == [
        "0.00", "0.00", "0.00", "0.00", "+0.01", "-0.01",
    ]  # fmt: skip


def test_no_number_has_a_negative_zero():
    assert shown({"A": result(ld=-0.00004)}, "A", "ld") == "A 0.0000"
    of = select(plan("table7"), "sin2")
    ours = {
        "SIN2": PolicyResult(
            {"ld": Spread(-0.00004, 0.0, 2), "top5": Spread(100 - 1e-14, 0.0, 2)}, (1, 2)
        )
    }
    rows = [*table_rows(of, ours), *data_rows(of, ours)]
    cells = [cell for row in rows for cell in row]
    assert not [cell for cell in cells if cell.startswith("-0") and not float(cell.split()[0])]
    assert table_rows(of, ours)[3][6] == "0.00 ="


def test_above_a_number_to_the_digits_that_are_shown():
    results = {"A": result(top1=78.63), "B": result(top1=78.624)}
    assert over("top1", "A", 78.62)(results) == Judgement(True, "A 78.63, limit 78.62")
    assert over("top1", "AB", 78.62)(results) == Judgement(False, "B 78.62, limit 78.62")


def test_at_a_number_and_below_it_to_the_digits_that_are_shown():
    results = {"A": result(top1=99.2667), "B": result(top1=99.264)}
    assert reach("top1", "A", 99.27)(results) == Judgement(True, "A 99.27, limit 99.27")
    assert reach("top1", "AB", 99.27)(results) == Judgement(False, "B 99.26, limit 99.27")
    assert under("top1", "B", 99.27)(results) == Judgement(True, "B 99.26, limit 99.27")
    assert under("top1", "AB", 99.27)(results).holds is False


def test_equal_means_are_equal_whatever_adding_and_dividing_left():
    results = {"A": result(top1=(99.00 + 99.04) / 2), "B": result(top1=99.02)}
    assert results["A"].spreads["top1"].mean != 99.02  # in its last bit
    assert above("top1", "A", "B")(results).holds is above("top1", "B", "A")(results).holds is False
    by_name = {conclusion.name: conclusion for conclusion in CONCLUSIONS}
    same = by_name[
        "VII: at the same Top-1 as TRI and TRI2, SINEXP has a higher AC and a lower CD than they"
    ]
    for tri, other in ((99.12, 99.07), (99.37, 99.32), (99.27, 99.22)):  # all 0.05 apart
        tops = {"TRI": tri, "TRI2": other, "SINEXP": other}
        results = {
            key: result(
                top1=top, ac=0.9 + (key == "SINEXP") / 100, cd=0.1 - (key == "SINEXP") / 100
            )
            for key, top in tops.items()
        }
        assert same.judge(results).holds is True


def test_points_are_those_of_the_printed_digits():
    results = {"A": result(top1=99.3001), "B": result(top1=99.15)}
    assert points_above("A", "B", 0.15)(results).holds is True
    assert points_above("A", "B", 0.16)(results).holds is False


def test_what_cannot_be_said():
    by_name = {conclusion.name: conclusion for conclusion in CONCLUSIONS}
    best = by_name["VII: SIN2 has the highest Top-1"]
    everything = {key: result(top1=99.0) for key in (*CLRS, *DECAYING)}
    everything["SIN2"] = result(top1=99.5)
    missing = {key: value for key, value in everything.items() if key != "COS"}
    verdict = best.judge(missing)
    assert (verdict.holds, verdict.numbers, verdict.word) == (None, "no result: COS", "undecided")
    no_ac = by_name["VIII: the paper's five best by Top-1 have a higher AC than the others"]
    assert (
        no_ac.judge({key: result(top1=80.0) for key in everything}).numbers
        == "no result: AC of NSTEP"
    )
    assert best.judge({}).holds is None


def test_what_is_known_decides_where_nothing_else_could_change_it():
    known = {"A": result(top1=99.1, ld=0.1), "B": result(top1=99.3, ld=0.2)}
    refuted = Judgement(False, "Top-1 (%): A 99.10, B 99.30")
    for check in (above("top1", "A", "BC"), above("top1", "AC", "B"), highest("A", "ABC")):
        assert check(known) == refuted
    assert below("top1", "BC", "A")(known) == Judgement(False, "Top-1 (%): B 99.30, A 99.10")
    assert at_most("ld", "ABC", 0.15)(known) == Judgement(False, "B 0.2000, limit 0.15")
    assert over("top1", "ABC", 99.2)(known) == Judgement(False, "A 99.10, limit 99.20")
    for open_one in (
        above("top1", "B", "AC"), above("top1", "BC", "A"), below("top1", "A", "BC"),
        at_most("ld", "ABC", 0.25), over("top1", "ABC", 99.0), above("top1", "C", "AB"),
    ):  # fmt: skip
        assert judged(open_one, known) == Judgement(None, "no result: C")


@pytest.mark.parametrize(
    ("name", "tops", "word"),
    [
        (
            "all CLRs but COS reach 99.27 %, NSTEP and INV do not",
            {"SINEXP": 99.25},
            "does not hold",
        ),
        ("all CLRs but COS reach 99.27 %, NSTEP and INV do not", {"INV": 99.40}, "does not hold"),
        ("all CLRs but COS reach 99.27 %, NSTEP and INV do not", {"INV": 99.0}, "undecided"),
        (
            "at the same Top-1 as TRI and TRI2, SINEXP has a higher AC and a lower CD than they",
            {"TRI": 99.4, "TRI2": 99.2},
            "does not hold",
        ),
    ],
)
def test_one_part_that_fails_refutes_it_before_the_others_are_trained(name, tops, word):
    by_name = {conclusion.name: conclusion for conclusion in CONCLUSIONS}
    results = {key: result(top1=top1) for key, top1 in tops.items()}
    assert by_name[f"VII: {name}"].judge(results).word == word


def test_the_lowest_cost_is_refuted_by_its_limit_alone():
    by_name = {conclusion.name: conclusion for conclusion in CONCLUSIONS}
    cost = by_name["VII: SIN2 has the lowest cost, 4000 iterations"]
    assert cost.judge({"SIN2": result(iterations=6000)}).holds is False
    assert cost.judge({"SIN2": result(iterations=4000)}).holds is None


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({}, "undecided"),  # COS may be above NSTEP, or not
        ({"SIN": 81.0}, "does not hold"),
        ({"TRIEXP": 84.0}, "does not hold"),  # above SINEXP
        ({"SIN2": 81.7}, "does not hold"),  # another one above NSTEP
    ],
)
def test_the_order_above_nstep_without_one_of_them(changed, word):
    order = {"SINEXP": 82.2, "TRIEXP": 82.0, "SIN": 81.9, "TRI": 81.8, "NSTEP": 81.6}
    below_it = {key: 80.0 for key in (*CLRS, *SMITH) if key not in {*order, "COS"}}
    results = {key: result(top1=top1) for key, top1 in {**order, **below_it, **changed}.items()}
    by_name = {conclusion.name: conclusion for conclusion in CONCLUSIONS}
    name = "VIII: SINEXP, TRIEXP, SIN and TRI, in this order, are above NSTEP, and no other is"
    assert by_name[name].judge(results).word == word
    with_it = by_name[name].judge({**results, "COS": result(top1=80.0)})
    assert with_it.holds is (not changed)


def test_of_several_one_that_fails_decides():
    results = {"A": result(top1=99.0), "B": result(top1=99.5)}
    assert every(above("top1", "A", "B"), above("top1", "A", "C"))(results).holds is False
    assert every(above("top1", "B", "A"), above("top1", "A", "C"))(results).holds is None
    assert every(above("top1", "B", "A"))(results).holds is True


def test_the_best_k0_of_figure_3():
    check = conclusions("figure3")[0]
    results = {row.key: result(top1=70.0) for row in plan("figure3").rows}
    assert check.judge({**results, "FIX(k0=0.001)": result(top1=78.0)}).holds is True
    assert check.judge({**results, "FIX(k0=0.01)": result(top1=79.0)}).holds is False
    results["FIX(k0=0.001)"] = result(top1=78.0)
    del results["FIX(k0=0.1)"]
    assert check.judge(results) == Judgement(None, "no result: FIX(k0=0.1)")
    results["FIX(k0=0.02)"] = result(top1=79.0)  # FIX(k0=0.1) could only be better still
    assert check.judge(results) == Judgement(False, "best: FIX(k0=0.02) 79.00")
    del results["FIX(k0=0.002)"]  # but this one could be the best
    assert check.judge(results).holds is None
