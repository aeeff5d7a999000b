"""A database with bad trials, repeated seeds, fine-tuned, continued and unknown runs, worked out by hand.

policy        start      trainings                               mean   deviation
FIX(k0=0.02)  scratch    seeds 1, 2, 3: 96, 97, 98               97     sqrt(2/3)
FIX(k0=0.01)  scratch    seeds 1, 2, 3: 94, 95, 96               95     sqrt(2/3)
FIX(k0=0.04)  scratch    seeds 1, 2: 95, 97; seed 3 diverged     96     1
FIX(k0=3e-5)  scratch    400 of 2000 iterations: 20
FIX(k0=2e-4)  weights    seeds 1, 2: 97.9, 98.1                  98     0.1
FIX(k0=2e-4)  snapshot   seed 1: 95.08
FIX(k0=2e-4)  unknown    seed 1: 99; seed 2: 72
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lrbench_caffe import rank, recommend
from lrbench_caffe.database import Database
from lrbench_caffe.knowledge.evidence import Wanted
from lrbench_caffe.lr import parse
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.records import SCRATCH, UNKNOWN_START, PolicyRecord, RunRecord, Start, Task
from lrbench_caffe.terminal import cli
from lrbench_caffe.training import choosing, recommending
from tests.knowledge.tasks import DIGITS, HERE, LENET_DIGITS

WEIGHTS = Start("weights", "a" * 32, 3, 4, name="mnist.caffemodel")
SNAPSHOT = Start("snapshot", "c" * 32, iteration=500, name="x.solverstate")


def training(lr: str, seed: int, top1: float | None, **other: Any) -> RunRecord:
    """A run with one test; None for one that diverged."""
    values: dict[str, Any] = {
        "start": SCRATCH,
        "max_iter": 2000,
        "again": 0,
        "task": DIGITS,
        **other,
    }
    task, start, again = values["task"], values["start"], values["again"]
    at = values["max_iter"] // 2
    loss = values.get("loss")
    ended = top1 is not None or loss is not None or "outputs" in other
    tests = [Measurement(at, 0.01, top1, None, None, None, None, loss, None, None, 1.0, 500)]
    return RunRecord(
        uid=f"{lr} {seed} {start} {again}", source="measured", origin=f"runs/{seed}-{again}",
        task_type=task.task_type, framework=HERE, network=task.network, dataset=task.dataset,
        policy=PolicyRecord.of(parse(f"FIX(k0={lr})")), solver=LENET_DIGITS, seed=seed,
        max_iter=values["max_iter"], test_interval=at, epoch=25.94, machine=None, started=float(seed),
        ended=seed + 1.0, status="finished" if ended else "diverged",
        measurements=[replace(test, outputs=values.get("outputs", {})) for test in tests],
        start=start, layers="fast",
    )  # fmt: skip


def all_of_it() -> list[RunRecord]:
    scratch = {"0.02": (96.0, 97.0, 98.0), "0.01": (94.0, 95.0, 96.0), "0.04": (95.0, 97.0, None)}
    return [
        *(
            training(lr, seed, top1)
            for lr, found in scratch.items()
            for seed, top1 in enumerate(found, 1)
        ),
        training("3e-5", 1, 20.0, max_iter=400),
        training("2e-4", 1, 97.9, start=WEIGHTS),
        training("2e-4", 2, 98.1, start=WEIGHTS),
        training("2e-4", 1, 95.08, start=SNAPSHOT),
        training("2e-4", 1, 99.0, start=UNKNOWN_START),
        training("2e-4", 2, 72.0, start=replace(UNKNOWN_START, name="lost.caffemodel")),
    ]


class Commands:
    """rank and recommend on a database, by their JSON and text."""

    def __init__(self, path: Path, capsys: Any, monkeypatch: Any) -> None:
        self.path, self.capsys, self.monkeypatch = str(path), capsys, monkeypatch

    def put(self, *runs: RunRecord) -> None:
        with Database.open(self.path) as database:
            database.put_many(list(runs))

    def rank(self, *args: str, task: str = "digits", code: int = 0) -> str:
        assert cli.run(rank.main, ["--task", task, "--db", self.path, *args]) == code
        captured = self.capsys.readouterr()
        self.said = captured.err
        return captured.err if code else captured.out

    def ranked(self, *args: str, **other: str) -> list[dict[str, Any]]:
        return json.loads(self.rank("--json", *args, **other))

    def recommend(
        self, *args: str, start: Start = SCRATCH, task: Task = DIGITS, code: int = 0
    ) -> str:
        solver = SimpleNamespace(message=SimpleNamespace(max_iter=2000), epoch=25.94)
        with self.monkeypatch.context() as patch:
            patch.setattr(
                recommending, "open_wanted", lambda *_, **__: (solver, Wanted(task, start))
            )
            patch.setattr(choosing, "solver_settings", lambda _: LENET_DIGITS)
            assert cli.run(recommend.main, ["x.prototxt", "--db", self.path, *args]) == code
        captured = self.capsys.readouterr()
        return captured.err if code else captured.out

    def proposed(self, *args: str, **other: Any) -> list[dict[str, Any]]:
        return json.loads(self.recommend("--json", *args, **other))["proposals"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("statistics") / "lr.sqlite"
    with Database.open(str(path)) as database:
        database.put_many(all_of_it())
    return path


@pytest.fixture
def commands(made, tmp_path, capsys, monkeypatch) -> Commands:
    return Commands(shutil.copy(made, tmp_path / "lr.sqlite"), capsys, monkeypatch)


# -- rank ------------------------------------------------------------------------------------------


def test_each_start_is_ranked_by_itself(commands):
    rows = commands.ranked()
    found = [
        (r["place"], r["policy"], r["start"], r["top1"], r["trainings"], r["diverged"])
        for r in rows
    ]
    weights = "weights mnist.caffemodel, 3 of 4 layers filled"
    assert found == [
        (1, "FIX(k0=0.02)", "scratch", 97, 3, 0),
        (2, "FIX(k0=0.04)", "scratch", 96, 2, 1),
        (3, "FIX(k0=0.01)", "scratch", 95, 3, 0),
        (4, "FIX(k0=3e-05)", "scratch", 20, 1, 0),
        (1, "FIX(k0=0.0002)", weights, 98, 2, 0),
        (1, "FIX(k0=0.0002)", "snapshot x.solverstate, iteration 500", 95.08, 1, 0),
        (None, "FIX(k0=0.0002)", "unknown", 99, 1, 0),
        (None, "FIX(k0=0.0002)", "unknown lost.caffemodel", 72, 1, 0),
    ]
    # Sample variances 1 and 1, 3 trainings each: t = 2 / sqrt(2 / 3), t^2 = 6, of 4 degrees of
    # freedom, so p = 2 (1/2 - 3/8 t / sqrt(1 + 6/4) (1 - 6 / (12 (1 + 6/4)))) = 0.0705.
    assert rows[2]["p_best"] == pytest.approx(0.0705, abs=5e-5)
    assert all(row["p_best"] is None for row in rows[4:])
    assert rows[0]["top1_sd"] == pytest.approx((2 / 3) ** 0.5)


def test_repeating_a_seed_changes_nothing(commands):
    before = commands.ranked()
    commands.put(*(training("0.02", 1, 96.0, again=i) for i in range(1, 6)))
    after = commands.ranked()
    assert [row.pop("origin") for row in after] and [row.pop("origin") for row in before]
    assert after == before and before[0]["trainings"] == 3
    # A further seed does: 96, 97, 98, 99.
    commands.put(training("0.02", 4, 99.0))
    assert (commands.ranked()[0]["trainings"], commands.ranked()[0]["top1"]) == (4, 97.5)


def test_only_some_starts(commands):
    assert len(commands.ranked("--start", "scratch")) == 4
    assert [row["top1"] for row in commands.ranked("--start", "weights,snapshot")] == [98, 95.08]
    error = commands.rank("--start", "fresh", code=2)
    assert "--start: 'fresh'; allowed: scratch, weights, snapshot, unknown" in error


def test_the_column_is_there_only_where_starts_differ(commands):
    assert "| start |" in commands.rank("--format", "markdown")
    assert "start" not in commands.rank("--format", "markdown", "--start", "scratch")
    table = commands.rank()
    assert "weights: weights mnist.caffemodel, 3 of 4 layers filled\n" in table  # below it
    assert "snapshot: snapshot x.solverstate, iteration 500\n" in table


def test_the_first_of_each_start(commands):
    rows = commands.ranked("--top", "1")
    assert [row["top1"] for row in rows] == [97, 98, 95.08, 99]
    assert ": the first 4 (--top 0: all)" in commands.rank("--top", "1")


# -- recommend -------------------------------------------------------------------------------------


def test_from_scratch(commands):
    """Usual deviation: the median of the variances 1, 1 and 2, so 1. FIX(0.02): 97 - 2 / sqrt(3) = 95.8;
    FIX(0.01): 93.8; FIX(0.04): (2 (96 - 2 sqrt(2) / sqrt(2)) + 10) / 3 = 66."""
    first, second, third = commands.proposed()
    assert (first["policy"], first["expected"]["mean"]) == ("FIX(k0=0.02)", 97)
    assert (second["policy"], second["expected"]["mean"]) == ("FIX(k0=0.01)", 95)
    assert (third["policy"], third["expected"]["mean"]) == ("FIX(k0=0.04)", 96)
    assert (
        third["evidence"][2] == "expected: Top-1 96.00 ± 1.00 %, unless it diverges, as 1 of 3 did"
    )
    assert "set aside" not in commands.recommend()


def test_fine_tuned(commands):
    first, *others = commands.proposed("--top", "8", start=WEIGHTS)
    assert (first["policy"], first["expected"]["mean"]) == ("FIX(k0=0.0002)", 98)
    # Trainings from scratch follow, those of this task first, and nothing is promised for them.
    assert [p["policy"] for p in others[:2]] == ["FIX(k0=0.02)", "FIX(k0=0.01)"]
    assert all(p["expected"] is None and not p["same_start"] for p in others)
    text = commands.recommend(start=WEIGHTS)
    assert "start: weights mnist.caffemodel, 3 of 4 layers filled" in text
    assert "1 policy on this task" in text and "too few to choose from" in text


def test_continued(commands):
    promised = [p for p in commands.proposed("--top", "60", start=SNAPSHOT) if p["expected"]]
    assert [(p["policy"], p["expected"]["mean"]) for p in promised] == [("FIX(k0=0.0002)", 95.08)]


# -- nets that do not classify ---------------------------------------------------------------------

REGRESSION = replace(
    DIGITS, task_type="other", dataset=replace(DIGITS.dataset, name="faces", classes=None)
)


@pytest.fixture
def regression(commands) -> Commands:
    """Test losses 0.5, 0.25 and 0.75, and an output "iou" with 0.6, 0.4 and 0.7."""
    for lr, loss, iou in (("0.01", 0.5, 0.6), ("0.02", 0.25, 0.4), ("0.04", 0.75, 0.7)):
        outputs = {"iou": iou, "loss_box": 2 * loss, "Error.rate": loss, "l2": loss}
        commands.put(training(lr, 1, None, loss=loss, task=REGRESSION, outputs=outputs, again=9))
    return commands


@pytest.mark.parametrize(
    ("args", "order"),
    [
        ((), ["0.02", "0.01", "0.04"]),
        (("--by", "test_loss"), ["0.02", "0.01", "0.04"]),
        (("--by", "iou"), ["0.04", "0.01", "0.02"]),
        (("--by", "iou", "--lower"), ["0.02", "0.01", "0.04"]),
        (("--by", "loss_box"), ["0.02", "0.01", "0.04"]),
        (("--by", "l2"), ["0.02", "0.01", "0.04"]),  # equal to the test loss
        (("--by", "Error.rate", "--higher"), ["0.04", "0.01", "0.02"]),
        (("--weights", "iou=3,test_loss=1"), ["0.04", "0.01", "0.02"]),
    ],
)
def test_losses_and_outputs(regression, args, order):
    rows = regression.ranked(*args, task="faces")
    assert [row["policy"] for row in rows] == [f"FIX(k0={lr})" for lr in order]


def test_the_direction_is_said(regression):
    by_iou = regression.rank("--by", "iou", task="faces")
    assert "iou: higher is better (assumed; --higher or --lower overrides it)" in by_iou
    assert "loss_box: lower is better (assumed" in regression.rank("--by", "loss_box", task="faces")
    assert "iou: lower is better\n" in regression.rank("--by", "iou", "--lower", task="faces")
    assert "unknown criterion 'iuo'; did you mean 'iou'?" in regression.rank(
        "--by", "iuo", task="faces", code=2
    )
    error = regression.rank("--lower", task="faces", code=2)
    assert "--higher or --lower: allowed with --by or --weights of an output of the net" in error


@pytest.mark.parametrize("form", ["markdown", "csv", "json"])
def test_the_direction_is_said_beside_other_forms(regression, form):
    regression.rank("--by", "iou", "--format", form, task="faces")
    assert regression.said == (
        "note: iou: higher is better (assumed; --higher or --lower overrides it)\n"
    )
    regression.rank("--by", "test_loss", "--format", form, task="faces")
    assert regression.said == ""


def test_columns_are_those_of_a_table(regression):
    said = regression.rank("--columns", "place", "--json", task="faces", code=2)
    assert said == "error: --columns: allowed with --format table, which json is not\n"


def test_nobody_guesses_which_way_an_unknown_output_is_better(regression):
    """Two losses in one net: neither equals the test loss, and no name tells."""
    odd = {"y": 0.5, "vector": 0.1, "vector[1]": 0.9}
    regression.put(training("0.08", 1, None, loss=0.9, task=REGRESSION, outputs=odd))
    said = regression.rank("--by", "y", task="faces", code=2)
    assert said == "error: --by: y: is more of it better, or less? --higher or --lower says so\n"
    assert "--weights: y: is more" in regression.rank("--weights", "y=1", task="faces", code=2)
    rows = regression.ranked("--by", "y", "--lower", task="faces")
    assert (rows[0]["policy"], rows[1]["y"]) == ("FIX(k0=0.08)", None)
    for name in ("vector", "vector[1]"):  # not a single number
        error = regression.rank("--by", name, "--higher", task="faces", code=2)
        assert f"unknown criterion {name!r}" in error
    assert "y: is more of it better" in regression.recommend("--by", "y", task=REGRESSION, code=2)


def test_what_nobody_measured_ranks_nothing(regression):
    for asked in (("--by", "top1"), ("--weights", "ac=1")):
        said = regression.rank(*asked, task="faces", code=2)
        assert "it was not measured on faces / " in said
        assert "known: test_loss, iterations, num_params, Error.rate, iou, l2, loss_box" in said


def test_a_net_without_a_loss_is_ranked_by_an_output(commands):
    """As SSD's, whose test net has nothing but its mAP."""
    for lr, value in (("0.01", 0.6), ("0.02", 0.7)):
        outputs = {"bins": 3.0, "bins[1]": 4.0, "a": 1.0, "detection_eval": value}
        commands.put(training(lr, 1, None, loss=None, task=REGRESSION, outputs=outputs, again=9))
    rows = commands.ranked(task="faces")
    assert [row["policy"] for row in rows] == ["FIX(k0=0.02)", "FIX(k0=0.01)"]
    assert rows[0]["detection_eval"] == 0.7
    assert "by detection_eval (higher is better)" in commands.rank(task="faces")
    (first, _) = commands.proposed(task=REGRESSION)
    assert (first["by"], first["higher"]) == ("detection_eval", True)


def test_an_output_has_its_name_exactly(commands):
    for lr, value in (("0.01", 0.6), ("0.02", 0.7)):
        outputs = {"AC": value, "Target": -value, "top1": 99.0}
        commands.put(training(lr, 1, None, loss=value, task=REGRESSION, outputs=outputs, again=9))
    (best, _) = commands.ranked("--by", "AC", "--higher", task="faces")
    assert (best["policy"], best["AC"]) == ("FIX(k0=0.02)", 0.7)
    (best, _) = commands.ranked("--by", "Target", "--higher", task="faces")
    assert best["policy"] == "FIX(k0=0.01)"
    assert "target needs" in commands.rank("--by", "target", task="faces", code=2)
    assert "not measured" in commands.rank("--by", "top1", task="faces", code=2)
    (best, _) = commands.ranked("--by", "TEST_LOSS", task="faces")
    assert best["policy"] == "FIX(k0=0.01)"
    assert commands.proposed("--by", "TEST_LOSS", task=REGRESSION)[0]["by"] == "test_loss"


def test_what_an_output_is_the_most_similar_task_says(regression):
    """Another net has a second loss beside its l2; here l2 is the test loss."""
    other = replace(REGRESSION, dataset=replace(REGRESSION.dataset, name="other", height=64))
    regression.put(training("0.5", 1, None, loss=3.0, task=other, outputs={"l2": 1.0}))
    assert "l2: lower is better (assumed" in regression.recommend("--by", "l2", task=REGRESSION)


def test_the_pareto_front_of_a_loss(regression, tmp_path):
    plot = tmp_path / "front.png"
    rows = regression.ranked("--pareto", "--plot", str(plot), task="faces")
    assert [row["policy"] for row in rows] == ["FIX(k0=0.02)"]  # the same #Iterations for all
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_recommending_by_a_loss(regression):
    first, *_ = regression.proposed(task=REGRESSION)
    assert (first["policy"], first["by"], first["expected"]["mean"]) == (
        "FIX(k0=0.02)",
        "test_loss",
        0.25,
    )
