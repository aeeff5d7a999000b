"""The command, on a fresh database."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from lrbench_caffe import rank
from lrbench_caffe.database import Database
from lrbench_caffe.errors import InputError
from lrbench_caffe.knowledge import selection
from lrbench_caffe.knowledge.criteria import CRITERIA
from lrbench_caffe.lr import parse
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.records import (
    Dataset,
    Framework,
    Network,
    PolicyRecord,
    RunRecord,
    SolverSettings,
    Start,
)
from lrbench_caffe.terminal import cli, rank_tables
from lrbench_caffe.terminal.tables import fitting
from tests.knowledge.tasks import DIGITS

PNG = b"\x89PNG"


@pytest.fixture
def url(fresh: Path) -> str:
    return str(fresh)


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
    assert run(*args, "json") == run(*args[:-1], "--json")


def test_functions_sources_and_top(run):
    def policies(*args: str) -> list[str]:
        return [
            row["function"] for row in json.loads(run("--task", "cnn3", "--format", "json", *args))
        ]

    assert set(policies("--functions", "sin2,TRI", "--top", "0")) == {"SIN2", "TRI"}
    assert len(policies()) == 10
    assert (
        len(policies("--top", "0")) == 32
    )  # 34 rows, two of which repeat a policy of another table
    assert len(policies("--source", "paper,measured", "--top", "3")) == 3


def test_iterations_to_a_target(run):
    rows = json.loads(
        run(
            "--task",
            "cnn3",
            "--by",
            "target,top1",
            "--target-top1",
            "81.5",
            "--format",
            "json",
            "--top",
            "0",
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
    assert [(row["function"], row["score"]) for row in rows] == [
        ("SIN2", 1.0),
        ("SIN", 0.9583333333),
    ]


def test_weights_near_the_end_of_all_numbers(run):
    def scores(weight: str) -> list[float]:
        asked = f"top1={weight},iterations={weight}"
        rows = json.loads(run("--task", "mnist", "--weights", asked, "--format", "json"))
        return [row["score"] for row in rows]

    assert scores("1e308") == scores("1")


def test_pareto_front_and_plot(run, tmp_path):
    file = tmp_path / "front.png"
    rows = json.loads(run("--task", "cnn3", "--pareto", "--format", "json", "--plot", str(file)))
    # STEP with l=1000 is the cheapest, 76.51 % at 37750; nothing is better than SINEXP, or cheaper
    # and near.
    assert [(row["top1"], row["iterations"]) for row in rows] == [(82.16, 52_000), (76.51, 37_750)]
    assert file.read_bytes().startswith(PNG)
    # Every policy of the picture has a number and stands in the list, those of the front first.
    picture = tmp_path / "front.svg"
    run("--task", "cnn3", "--pareto", "--plot", str(picture))
    text = picture.read_text()
    everyone = json.loads(run("--task", "cnn3", "--top", "0", "--format", "json"))
    shown = [row for row in everyone if row["top1"] is not None and row["iterations"] is not None]
    listed = re.findall(r"<!-- (\d+)  (.+): [\d.]+ at \d+ -->", text)
    assert [int(number) for number, _ in listed] == list(range(1, len(shown) + 1))
    assert {policy for _, policy in listed[:2]} == {row["policy"] for row in rows}
    assert {policy for _, policy in listed} == {row["policy"] for row in shown}
    assert all(f"<!-- {number} -->" in text for number, _ in listed)


def test_a_front_of_values_that_no_policy_has_is_not_drawn(url, tmp_path, capsys):
    """The paper's tables have no test losses."""
    file = tmp_path / "front.png"
    args = ["--task", "mnist", "--by", "test_loss", "--plot", str(file), "--db", url]
    assert cli.run(rank.main, args) == 2
    line = "error: --by: test_loss: it was not measured on mnist / LeNet_MNIST; known: top1, "
    assert capsys.readouterr().err.startswith(line)
    assert not file.exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--task", "imagenet"], "--task: 'imagenet' is not in the database; known: cifar10 /"),
        (["--task", "cifar10"], "more than one task"),
        (["--task", "mnist", "--by", "speed"], "unknown criterion 'speed'"),
        (["--task", "mnist", "--by", "target"], "target needs --target-top1"),
        (
            ["--task", "mnist", "--weights", "top1"],
            "--weights: 'top1'; allowed: NAME=NUMBER above 0",
        ),
        (["--task", "mnist", "--functions", "sine2"], "did you mean SIN2?"),
        (
            ["--task", "mnist", "--source", "hearsay"],
            "--source: 'hearsay'; allowed: measured, paper, imported",
        ),
        (
            ["--task", "mnist", "--source", "measured"],
            "no finished run with a Top-1 fits --source\n",
        ),
        (["--task", "mnist", "--top", "-1"], "--top: -1"),
        (["--task", "mnist", "--target-top1", "101"], "--target-top1: 101"),
        (["--task", "mnist", "--pareto", "--weights", "top1=1"], "allowed: one of them"),
        (
            ["--task", "mnist", "--pareto", "--by", "ld"],
            "--by: ld; allowed with --pareto: one utility",
        ),
        (["--task", "mnist", "--pareto", "--by", "top1,top5"], "--by: top5; allowed with --pareto"),
        (["--task", "mnist", "x.prototxt"], "SOLVER and --task"),
        (["--task", "mnist", "--out", "/nowhere/x"], "--out: cannot write /nowhere/x"),
        (
            ["--task", "mnist", "--plot", "/nowhere/x.png"],
            "--plot: /nowhere/x.png: no such folder: /nowhere",
        ),
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
        run("--task", "cnn3", "--by", by, "--top", top, "--format", "csv").splitlines()
        for top in ("5", "0")
    )
    assert few[:6] == every[:6]


# -- runs that did not finish ----------------------------------------------------------------------


def training(
    policy: str, seed: int, top1: float | None, status: str = "finished", ld: float | None = None
):
    """A run on a task of which hardly anything is known, with one test."""
    test = Measurement(100, 0.01, top1, None, None, None, None, None, None, ld, 1.0, 500)
    return RunRecord(
        uid=f"{policy} {seed}", source="measured", origin="runs/x", task_type="classification",
        framework=Framework("Caffe", "1.0.0", "CPU"), network=Network("net", "odd", {}, None, 2),
        dataset=Dataset("odd", None, None, None, None, None, None), policy=PolicyRecord.of(parse(policy)),
        solver=SolverSettings("SGD", 100, 1, 0.01, 0.9, 0.0005), seed=seed, max_iter=100, test_interval=100,
        epoch=None, machine=None, started=float(seed), ended=seed + 1.0, status=status,
        measurements=[test],
    )  # fmt: skip


@pytest.fixture
def odd(new_database, capsys):
    """rank --task 4: of FIX(0.02) three runs finished and two diverged; FIX(0.5) only diverged."""
    with Database.open(new_database) as database:
        database.put_many(
            [training("FIX(k0=0.02)", i, 90.0 + 2 * i) for i in range(3)]
            + [training("FIX(k0=0.02)", i, None, "diverged") for i in (3, 4)]
            + [training("FIX(k0=0.5)", i, None, "diverged") for i in (5, 6)]
            + [training("FIX(k0=0.6)", 7, None, "failed")]
        )  # fmt: skip

    def call(*args: str, code: int = 0) -> str:
        assert cli.run(rank.main, ["--task", "4", *args, "--db", new_database]) == code
        captured = capsys.readouterr()
        return captured.err if code else captured.out

    return call


def test_a_task_of_unknown_size_can_be_named(odd):
    assert "odd / net, by Top-1" in odd()


def test_divergence_is_shown(odd):
    rows = [
        [c.strip() for c in line.strip("|\n ").split(" | ")]
        for line in odd("--format", "markdown").splitlines()
    ]
    assert [(row[0], row[1], row[-2]) for row in rows[2:]] == [
        ("1", "FIX(k0=0.02)", "3 (+2 diverged)"),
        ("-", "FIX(k0=0.5)", "0 (+2 diverged)"),
        ("-", "FIX(k0=0.6)", "0 (+1 failed)"),
    ]
    assert all(
        text in odd("--by", "num_params", "--top", "1")
        for text in ("3 (+2 diverged)", "0 (+2 diverged)")
    )
    (only,) = json.loads(odd("--format", "json"))
    assert (only["trainings"], only["diverged"], only["failed"]) == (3, 2, 0)
    assert "0 (+2 diverged)" in odd("--functions", "fix", "--source", "measured", "--top", "0")
    assert "FIX(k0=0.5)" not in odd("--pareto")


def test_a_target_counts_the_runs_that_diverged(odd):
    assert "100, 1 of 3 (+2 diverged)" in odd("--target-top1", "93", "--by", "target")


def test_trainings_of_one_length(odd, new_database):
    with Database.open(new_database) as known:
        known.put_many([replace(training("FIX(k0=0.03)", 20, 99.0), max_iter=30)])
        known.put_many([replace(training("FIX(k0=0.7)", 21, None, "diverged"), max_iter=30)])
    every = odd("--format", "csv")
    assert every.count("FIX(k0=0.03)") == every.count("FIX(k0=0.02)") == 1
    full, short = odd("--max-iter", "100"), odd("--max-iter", "30", "--top", "1")
    assert "FIX(k0=0.02)" in full and "FIX(k0=0.5)" in full
    assert not any(f"FIX(k0={k0})" in full for k0 in ("0.03", "0.7"))
    assert "FIX(k0=0.03)" in short and "FIX(k0=0.02)" not in short
    assert "FIX(k0=0.03)" not in odd("--max-iter", "100", "--pareto")
    assert odd("--max-iter", "5", code=2).endswith("no finished run with a Top-1 fits --max-iter\n")
    assert "--max-iter: 0; allowed: 1 or more" in odd("--max-iter", "0", code=2)


def test_only_flags_that_were_given_are_named(odd):
    words = odd("--functions", "sin2", code=2)
    assert words == "error: odd / net: no finished run with a Top-1 fits --functions\n"


def test_a_metric_counts_the_trainings_that_have_it(new_database):
    with Database.open(new_database) as database:
        database.put_many(
            [training("FIX(k0=0.02)", i, 90.0 + i, ld=ld) for i, ld in enumerate([0.5, None, 0.7])]
        )
        database.put(training("FIX(k0=0.02)", 3, None))
        (found,) = database.summaries(4)
    assert (found.runs, found.repeats, found.top1.n, found.ld.n) == (4, 4, 3, 2)
    assert (found.trainings(), found.trainings(found.ld)) == (3, 2)


def test_pooled_rows_of_the_paper_name_every_table(run):
    rows = json.loads(run("--task", "cnn3", "--format", "json", "--top", "0"))
    by_table = [row["origin"].count("Table") for row in rows]
    assert sum(by_table) == 34


def test_help_names_every_criterion():
    text = rank.parser().format_help()
    for name in CRITERIA:
        assert name in text


WEIGHTS = Start("weights", "a" * 32, 4, 4, name="x.caffemodel")


def test_starts_stay_apart_whatever_columns_are_asked_for(odd, new_database):
    with Database.open(new_database) as known:
        known.put(replace(training("FIX(k0=0.02)", 30, 99.0), start=WEIGHTS))
    heading, *rows = [
        line.split() for line in odd("--columns", "policy,top1").splitlines()[1:] if line.strip()
    ]
    assert heading == ["policy", "Top-1", "(%)", "start"]
    assert [row[-1] for row in rows if row[0] == "FIX(k0=0.02)"] == ["scratch", "weights"]
    only = odd("--start", "weights", "--columns", "policy,top1")
    assert "weights: weights x.caffemodel, 4 of 4 layers filled" in only


def test_a_column_that_tells_rows_of_one_policy_apart_stays(odd, new_database):
    query = selection.Query(task="4")
    with Database.open(new_database) as known:
        known.put(replace(training("FIX(k0=0.02)", 30, 92.0), max_iter=400))
        found = selection.select(query, known, selection.find_tasks(query, known.tasks()))
    shown = [CRITERIA[name] for name in ("top1", "test_loss", "ld", "iterations", "num_params")]
    table, form = rank_tables.headed(
        rank_tables.rank_rows(found.groups[0], shown, False, "scratch"), shown, False, found
    )
    kept, _ = fitting(table, form, 60)
    assert "max_iter" in [form.names[i] for i in kept]


def _named(text: str, *names: str) -> list[str]:
    """The tasks that a name finds among those of data and a net each."""
    known = []
    for number, name in enumerate(names, 1):
        data, _, net = name.partition("/")
        parts = (1167, 130) if data.endswith("_holdout") else (1297, 500)
        dataset = replace(DIGITS.dataset, name=data, digest=data, train_samples=parts[0],
                          test_samples=parts[1])  # fmt: skip
        network = replace(DIGITS.network, name=net, digest=net)
        known.append(replace(DIGITS, id=number, dataset=dataset, network=network))
    query = selection.Query(task=text)
    return [task.title.replace(" ", "") for task in selection.find_tasks(query, known) or []]


@pytest.mark.parametrize(
    "text", ["digits/LeNet_digits", "Digits/lenet", "digits", "lenet_digits", "digits / LeNet", "2"]
)
def test_a_name_means_the_task_and_not_what_was_held_out_of_it(text):
    both = ("digits_holdout/LeNet_digits", "digits/LeNet_digits")
    assert _named(text, *both) == ["digits/LeNet_digits"]
    assert _named("digits_holdout/lenet", *both) == _named("holdout", *both) == [both[0]]


def test_a_whole_name_counts_more_than_a_part():
    known = ("cifar10/net", "cifar100/net", "cifar10/net2")
    assert _named("CIFAR-10/Net", *known) == ["cifar10/net"]
    assert _named("net2", *known) == ["cifar10/net2"]
    for text in ("cifar", "cifar10", "cifar10/ne"):
        with pytest.raises(InputError, match="is more than one task"):
            _named(text, *known)
