"""The command, on a fresh database."""

from __future__ import annotations

import csv
import io
import json

import pytest

from lrbench_caffe import cli, rank
from lrbench_caffe.database import Database

PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("database") / "lr.sqlite"
    Database.open(str(path)).close()
    return str(path)


@pytest.fixture
def run(url, capsys):
    def call(*args: str, code: int = 0) -> str:
        assert cli.run(rank.main, [*args, "--db", url]) == code
        captured = capsys.readouterr()
        return captured.err if code else captured.out

    return call


def test_which_tasks_are_known(run):
    out = run()
    for name in ("mnist / LeNet_MNIST", "cifar10 / CNN3_CIFAR10", "cifar10 / ResNet32_CIFAR10"):
        assert name in out


def test_the_best_policy_of_table_vii(run):
    lines = run("--task", "mnist/lenet").splitlines()
    assert lines[0].strip() == "mnist / LeNet_MNIST, by Top-1 (%)"
    first = lines[4].split("  ")
    assert [cell.strip() for cell in first if cell.strip()][:3] == [
        "1",
        "SIN2(k0=0.01, k1=0.06, l=2000)",
        "99.33 ± 0.02",
    ]
    assert len([line for line in lines if " paper " in line]) == 10


def test_all_formats_have_the_same_rows(run, tmp_path):
    args = ("--task", "mnist", "--by", "ld,top1", "--top", "4", "--format")
    table = list(csv.DictReader(io.StringIO(run(*args, "csv"))))
    objects = json.loads(run(*args, "json"))
    markdown = [line.split(" | ") for line in run(*args, "markdown").splitlines()[2:]]
    assert [row["policy"] for row in table] == [row["policy"] for row in objects]
    assert [row["policy"] for row in table] == [cells[1] for cells in markdown]
    assert markdown[0][1].startswith("SIN2(")
    assert objects[0]["ld"] == 0.0166 and table[0]["ld"] == "0.0166" and "0.0166" in markdown[0]
    assert objects[0]["ld_sd"] is None and table[0]["ld_sd"] == ""
    assert objects[0]["num_params"] == 3 and objects[0]["origin"] == "Wu et al. 2019, Table VII"
    run(*args, "csv", "--out", str(tmp_path / "x.csv"))
    assert (tmp_path / "x.csv").read_text() == run(*args, "csv")


def test_functions_sources_and_top(run):
    def policies(*args: str) -> list[str]:
        return [row["function"] for row in json.loads(run("--task", "cnn3", "--format", "json", *args))]

    assert set(policies("--functions", "sin2,TRI", "--top", "0")) == {"SIN2", "TRI"}
    assert len(policies()) == 10
    assert len(policies("--top", "0")) == 32  # 34 rows, two of which repeat a policy of another table
    assert len(policies("--source", "paper,measured", "--top", "3")) == 3


def test_iterations_to_a_target(run):
    rows = json.loads(
        run(
            "--task", "cnn3", "--by", "target,top1", "--target-top1", "81.5", "--format", "json", "--top", "0"
        )
    )
    assert (rows[0]["function"], rows[0]["target"]) == ("SINEXP", 52_000)
    assert [row["target"] for row in rows[-3:]] == [None] * 3
    assert "<=52000" in run("--task", "cnn3", "--by", "target", "--target-top1", "81.5")


def test_weights(run):
    rows = json.loads(
        run("--task", "mnist", "--weights", "top1=1,iterations=1", "--format", "json", "--top", "2")
    )
    # SIN2 is the best in both. SIN: Top-1 (99.31 - 99.09) / (99.33 - 99.09) = 0.91667, iterations 1
    assert [(row["function"], row["score"]) for row in rows] == [("SIN2", 1.0), ("SIN", 0.9583)]


def test_pareto_front_and_plot(run, tmp_path):
    file = tmp_path / "front.png"
    rows = json.loads(run("--task", "cnn3", "--pareto", "--format", "json", "--plot", str(file)))
    # STEP with l=1000 is the cheapest, 76.51 % at 37750; nothing is better than SINEXP, or cheaper and near.
    assert [(row["top1"], row["iterations"]) for row in rows] == [(82.16, 52_000), (76.51, 37_750)]
    assert file.read_bytes().startswith(PNG)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--task", "imagenet"], "--task: 'imagenet' is not in the database; known: cifar10 /"),
        (["--task", "cifar10"], "more than one task"),
        (["--task", "mnist", "--by", "speed"], "unknown criterion 'speed'"),
        (["--task", "mnist", "--by", "target"], "target needs --target-top1"),
        (["--task", "mnist", "--weights", "top1"], "--weights: 'top1'; allowed: NAME=NUMBER above 0"),
        (["--task", "mnist", "--functions", "sine2"], "did you mean SIN2?"),
        (
            ["--task", "mnist", "--source", "hearsay"],
            "--source: 'hearsay'; allowed: measured, paper, imported",
        ),
        (["--task", "mnist", "--source", "measured"], "no finished run fits"),
        (["--task", "mnist", "--top", "-1"], "--top: -1"),
        (["--task", "mnist", "--target-top1", "101"], "--target-top1: 101"),
        (["--task", "mnist", "--pareto", "--weights", "top1=1"], "allowed: one of them"),
        (["--task", "mnist", "x.prototxt"], "SOLVER and --task"),
        (["--task", "mnist", "--out", "/nowhere/x"], "--out: cannot write /nowhere/x"),
        (["--task", "mnist", "--plot", "/nowhere/x.png"], "--plot: cannot write /nowhere/x.png"),
    ],
)
def test_wrong_input_is_one_line(run, args, words):
    err = run(*args, code=2)
    assert words in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("by", ["top1", "ld", "iterations", "num_params", "cdac"])
def test_a_few_of_the_best_are_the_first_of_all(run, by):
    """However many are read: the marks and places are the same."""
    few, every = (
        run("--task", "cnn3", "--by", by, "--top", top, "--format", "csv").splitlines() for top in ("5", "0")
    )
    assert few[:6] == every[:6]


def test_help_names_every_criterion():
    text = rank.parser().format_help()
    for name in rank.CRITERIA:
        assert name in text
