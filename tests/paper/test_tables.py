"""The paper's results as records: each row, against the CSV files and against the shipped solvers."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import uuid
from dataclasses import asdict
from pathlib import Path

import pytest

from lrbench_caffe.lr import parse
from lrbench_caffe.paper.tables import FOLDER, paper_records, paper_task
from lrbench_caffe.records import RunRecord

ROOT = Path(__file__).parents[2]
RECORDS = list(paper_records())
ROWS = {"III": 6, "IV": 20, "V": 6, "VI": 3, "VII": 10, "VIII": 11, "IX": 3}
FILES = {
    "III": "table3_resnet32_fix_step.csv",
    "IV": "table4_cnn3_tri2_step.csv",
    "V": "table5_resnet32_tri2.csv",
    "VI": "table6_cnn3_nstep.csv",
    "VII": "table7_mnist_lenet.csv",
    "VIII": "table8_cifar10_cnn3.csv",
    "IX": "table9_cifar10_resnet32.csv",
}


def of_table(table: str) -> list[RunRecord]:
    start = f"Wu et al. 2019, Table {table}"
    return [r for r in RECORDS if r.origin == start or r.origin.startswith(f"{start} ")]


def test_every_row_of_every_table():
    assert {table: len(of_table(table)) for table in ROWS} == ROWS
    assert sum(ROWS.values()) == len(RECORDS) == 59


@pytest.mark.parametrize("table", FILES)
def test_the_numbers_are_those_of_the_files(table):
    with (FOLDER / FILES[table]).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row, record in zip(rows, of_table(table)):
        (measurement,) = record.measurements
        for name in ("top1", "top5", "ac", "cd", "cdac", "ld"):
            assert getattr(measurement, name) == (float(row[name]) if row.get(name) else None)
        assert measurement.iteration == int(row["iterations"])
        assert record.top1_sd == (float(row["top1_sd"]) if row.get("top1_sd") else None)
        assert record.repeats == (5 if table in ("VII", "VIII", "IX") else 1)
        assert record.policy.function == row["lr"]
        for name in ("k0", "k1", "gamma", "p"):
            assert record.policy.params.get(name) == (float(row[name]) if row.get(name) else None)


def test_three_rows_read_off_the_page():
    sin2 = of_table("VII")[7]
    assert (sin2.policy.text, sin2.policy.num_params) == ("SIN2(k0=0.01, k1=0.06, l=2000)", 3)
    assert (sin2.max_iter, sin2.epoch, sin2.solver.batch, sin2.solver.type) == (
        10_000,
        600,
        100,
        "SGD",
    )
    assert sin2.measurements[0].lr == 0.01  # the end of the first cycle
    nstep = of_table("VI")[2]
    assert nstep.policy.text == "NSTEP(k0=0.001, gamma=0.32, l=[30000, 50000, 60000, 65000])"
    assert (nstep.measurements[0].iteration, nstep.measurements[0].top1) == (69_750, 81.76)
    resnet = of_table("IX")[0]
    assert (resnet.max_iter, resnet.epoch, resnet.solver.type) == (64_000, 390.625, "Nesterov")
    assert resnet.measurements[0].lr == pytest.approx(0.001)  # both boundaries are passed


def test_cdac_as_printed():
    assert [r.measurements[0].cdac for r in of_table("VII")][2::4] == [0.0185, 0.0171]
    assert of_table("VII")[9].measurements[0].cdac == 0.0192


def test_poly_ends_with_the_training():
    (poly,) = [r for r in RECORDS if r.policy.function == "POLY"]
    assert (poly.policy.text, poly.policy.num_params) == ("POLY(k0=0.01, p=1.2)", 3)
    assert poly.measurements[0].lr == pytest.approx(0.01 * 0.2**1.2)


def test_an_l_that_is_not_printed_is_said_to_be_assumed():
    assumed = {r.origin for r in RECORDS if "assumed" in r.origin}
    assert assumed == {f"Wu et al. 2019, Table {t} (l=2000 assumed)" for t in ("IV", "V")}
    assert {r.policy.function for r in RECORDS if "assumed" in r.origin} == {"TRI2"}
    assert all(r.policy.params["l"] == 2000 for r in RECORDS if "assumed" in r.origin)


def test_uids_are_unique_and_stay():
    uids = [r.uid for r in RECORDS]
    assert len(set(uids)) == len(uids)
    assert uids == [r.uid for r in paper_records()]
    assert all(uuid.UUID(uid).version == 5 for uid in uids)


def test_records_survive_the_exchange_form():
    for record in RECORDS:
        assert RunRecord.from_json(json.loads(json.dumps(record.to_json()))) == record
        assert str(parse(record.policy.text)) == record.policy.text


def test_what_is_not_known_is_not_made_up():
    for record in RECORDS:
        unknown = (
            record.seed,
            record.test_interval,
            record.started,
            record.ended,
            record.dataset.digest,
        )
        assert unknown == (None,) * 5
        assert record.framework.version == "unknown"
        assert (record.measurements[0].test_loss, record.measurements[0].train_loss) == (None, None)


@pytest.mark.usefixtures("caffe_program")
def test_the_networks_are_those_of_the_shipped_nets():
    tool = [sys.executable, str(ROOT / "tools" / "make_paper_tasks"), "--check"]
    done = subprocess.run(tool, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_networks_sizes():
    # Worked out by hand in tests/test_solvers.py.
    sizes = {
        key: paper_task(key).network for key in ("lenet_mnist", "cnn3_cifar10", "resnet32_cifar10")
    }
    assert {key: n.parameters for key, n in sizes.items()} == {
        "lenet_mnist": 431_080,
        "cnn3_cifar10": 89_578,
        "resnet32_cifar10": 464_154,
    }
    assert {key: n.depth for key, n in sizes.items()} == {
        "lenet_mnist": 4,
        "cnn3_cifar10": 4,
        "resnet32_cifar10": 32,
    }
    assert set(asdict(sizes["lenet_mnist"])) == {"name", "digest", "layers", "parameters", "depth"}
