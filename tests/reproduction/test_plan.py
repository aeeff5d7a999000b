"""What is planned: against the paper's tables, the solver files, and by hand."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from lrbench_caffe.errors import InputError
from lrbench_caffe.paper.tables import FOLDER
from lrbench_caffe.reproduction.plan import SEEDS, TABLES, plan, plans, scale, select

ROOT = Path(__file__).parents[2]
FILES = {
    "table3": "table3_resnet32_fix_step.csv",
    "table4": "table4_cnn3_tri2_step.csv",
    "table5": "table5_resnet32_tri2.csv",
    "table6": "table6_cnn3_nstep.csv",
    "table7": "table7_mnist_lenet.csv",
    "table8": "table8_cifar10_cnn3.csv",
    "table9": "table9_cifar10_resnet32.csv",
}


def test_all_that_the_paper_has():
    assert plans() == [*FILES, "figure3", "figure4", "figure5"]
    assert plan("table7").title == "Table VII: LeNet on MNIST"
    assert SEEDS == (1, 2, 3, 4, 5)


@pytest.mark.parametrize("name", FILES)
def test_a_table_has_its_rows_in_order(name):
    with (FOLDER / FILES[name]).open(encoding="utf-8") as file:
        printed = list(csv.DictReader(file))
    rows = plan(name).rows
    assert [row.number for row in rows] == list(range(1, len(printed) + 1))
    assert len({row.key for row in rows}) == len(rows)
    for row, line in zip(rows, printed):
        assert row.policy.function == line["lr"]
        assert row.policy.params["k0"] == float(line["k0"])
        assert row.paper.measurements[0].top1 == float(line["top1"])
        assert row.trained == row.policy


@pytest.mark.parametrize("name", plans())
def test_it_is_the_length_and_test_interval_of_the_solver_file(name):
    of = plan(name)
    text = (ROOT / of.setup.solver).read_text(encoding="utf-8")
    for field in ("max_iter", "test_interval"):
        assert re.findall(rf"^{field}: (\d+)$", text, re.M) == [str(getattr(of, field))]


def test_policies_of_other_sources_are_told_apart():
    assert [row.key for row in plan("table8").rows[:5]] == [
        "NSTEP", "TRI (Smith 2015)", "TRI2 (Smith 2015)", "TRIEXP (Smith 2015)", "TRI",
    ]  # fmt: skip
    assert str(plan("table8").row("TRI").policy) == "TRI(k0=5e-05, k1=0.006, l=2000)"
    assert str(plan("table8").row("TRI (Smith 2015)").policy) == "TRI(k0=0.001, k1=0.006, l=2000)"
    assert plan("table3").rows[0].key == "FIX(k0=0.1)"


def test_figures_know_the_papers_numbers_where_a_table_has_them():
    known = {row.key: row.paper.measurements[0].top1 for row in plan("figure4").rows if row.paper}
    assert len(known) == 10 and known["STEP(k0=0.001, gamma=0.85, l=7000)"] == 80.08
    (row,) = plan("figure5").rows
    assert row.paper.measurements[0].top1 == 81.76
    assert all(row.paper is None for row in plan("figure3").rows)


def test_an_unknown_one():
    with pytest.raises(
        InputError, match="unknown table or figure 'tabel7'; did you mean 'table7'\\? known: table3"
    ):
        plan("tabel7")


# -- rows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "numbers"),
    [
        ("1", [1]),
        ("1,3-5", [1, 3, 4, 5]),
        ("10, 2 - 3", [2, 3, 10]),
        ("sin2", [8]),
        ("TRI,1", [1, 4]),
        ("3,3,3-3,POLY", [3]),
    ],
)
def test_some_rows(rows, numbers):
    assert [row.number for row in select(plan("table7"), rows).rows] == numbers


def test_a_function_may_have_several_rows():
    assert [row.number for row in select(plan("table8"), "tri").rows] == [2, 5]


@pytest.mark.parametrize("rows", ["0", "11", "5-3", "9-11", "", "STEP", "1;2", "-1", "1,,2"])
def test_rows_that_there_are_not(rows):
    with pytest.raises(InputError, match="rows: .*(1 to 10|NSTEP, INV)"):
        select(plan("table7"), rows)


# -- scaled ----------------------------------------------------------------------------------------


def test_a_fiftieth_of_table_vii():
    of = scale(plan("table7"), 0.02)
    assert (of.max_iter, of.test_interval, of.scaled) == (200, 10, True)
    assert of.note == "SCALED DOWN: 200 of 10000 iterations"
    assert [str(of.row(key).trained) for key in ("NSTEP", "INV", "POLY", "SIN2", "SINEXP")] == [
        "NSTEP(k0=0.01, gamma=0.9, l=[100, 140, 160, 180, 190])",
        "INV(k0=0.01, gamma=0.005, p=0.75)",
        "POLY(k0=0.01, p=1.2)",
        "SIN2(k0=0.01, k1=0.06, l=40)",
        "SINEXP(k0=0.01, k1=0.06, gamma=0.9970044, l=40)",  # 0.99994^50
    ]
    assert str(of.row("SIN2").policy) == "SIN2(k0=0.01, k1=0.06, l=2000)"  # as the paper has it


@pytest.mark.parametrize("name", plans())
def test_200_iterations_of_everything(name):
    whole = plan(name)
    of = scale(whole, 200 / whole.max_iter)
    assert of.max_iter == 200
    assert of.test_interval >= 10  # at most 20 tests
    for row in of.rows:
        row.trained.bind(of.max_iter)(range(200))


def test_the_whole_is_not_scaled():
    assert scale(plan("table7"), 1) == plan("table7")
    assert plan("table7").note == ""


@pytest.mark.parametrize("factor", [0, -1, 1.5, float("nan"), float("inf")])
def test_no_scale(factor):
    with pytest.raises(InputError, match="iterations_scale: .*; allowed: above 0, at most 1"):
        scale(plan("table7"), factor)


def test_20_iterations_are_the_least():
    assert (scale(plan("table7"), 0.002).max_iter, scale(plan("table7"), 0.002).test_interval) == (
        20,
        1,
    )
    with pytest.raises(
        InputError, match="0.0019: 19 iterations of table7; allowed: 20 or more, 0.002 here"
    ):
        scale(plan("table7"), 0.0019)


def test_every_task_is_one_of_the_papers():
    assert {setup.key for _, setup in TABLES.values()} == {
        "lenet_mnist",
        "cnn3_cifar10",
        "resnet32_cifar10",
    }


@pytest.mark.parametrize("name", plans())
def test_docs_have_the_number_of_trainings_and_iterations(name):
    of = plan(name)
    trainings = len(of.rows) * len(of.seeds)
    row = rf"^\| `{name}` \| .* \| {trainings} \| {trainings * of.max_iter:,} \|"
    assert re.search(row, (ROOT / "docs" / "reproducing.md").read_text(encoding="utf-8"), re.M)
