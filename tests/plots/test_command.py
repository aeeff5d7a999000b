"""The plot command: what it draws, which file it writes, and what it refuses."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from lrbench_caffe import plot
from lrbench_caffe.database import Database
from lrbench_caffe.errors import InputError
from lrbench_caffe.lr import parse
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.plots import natural_length
from lrbench_caffe.plots.curves import compared, short_names
from lrbench_caffe.plots.style import TRAIN
from lrbench_caffe.plots.training import Compared, RunCurves, runs_figure
from lrbench_caffe.terminal import cli

SIN2 = "SIN2(k0=0.01, k1=0.06, l=2000)"
STARTS = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*args: str, code: int = 0) -> str:
        assert cli.run(plot.main, list(args)) == code
        captured = capsys.readouterr()
        return captured.err if code else captured.out

    return call


def write_run(
    folder: Path, policy: str, status: str, tests: list[Measurement], iterations: int
) -> None:
    folder.mkdir()
    record = {
        "solver": "solver.prototxt",
        "policy": policy,
        "policy_short": policy,
        "seed": 1,
        "status": status,
    }
    (folder / "run.json").write_text(json.dumps(record))
    rows = "".join(f"{t},0.01,{2 / (1 + t)}\n" for t in range(iterations))
    (folder / "iterations.csv").write_text("iteration,lr,loss\n" + rows)
    (folder / "measurements.jsonl").write_text("".join(json.dumps(asdict(m)) + "\n" for m in tests))


def measured(iteration: int, top1: float | None, net: int = 0) -> Measurement:
    return Measurement(iteration, 0.01, top1, None, None, None, None, 0.5, 0.4, 0.1, 1.0, net=net)


# -- schedule --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", STARTS)
def test_schedules_in_every_format(run, suffix):
    name = f"x{suffix}"
    assert run("schedule", SIN2, "POLY(k0=0.01, p=1.2)", "--out", name) == f"plot: {name}\n"
    assert Path(name).read_bytes().startswith(STARTS[suffix])


def test_a_schedule_names_its_file(run):
    assert (
        run("schedule", SIN2, "TRI(k0=0.01, k1=0.06, l=2000)", "--log")
        == "plot: schedule-sin2-tri.png\n"
    )
    assert (
        run("schedule", "FIX(k0=0.1) ; 100: FIX(k0=0.2)", "--max-iter", "200")
        == "plot: schedule-fix.png\n"
    )
    assert run("schedule", SIN2, "--out", "without_suffix") == "plot: without_suffix.png\n"


def test_the_same_picture_has_the_same_bytes(run):
    for suffix in STARTS:
        files = [Path(f"{name}{suffix}") for name in "ab"]
        for file in files:
            run("schedule", SIN2, "--out", str(file))
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("policy", "length"),
    [
        (SIN2, 12_000),  # three cycles of 4000
        ("STEP(k0=0.1, gamma=0.85, l=5000)", 30_000),
        ("NSTEP(k0=0.1, gamma=0.1, l=[32000, 48000])", 57_600),  # 1.2 * 48000
        ("FIX(k0=0.1)", 10_000),
        ("POLY(k0=0.1, p=2)", 10_000),
        ("POLY(k0=0.1, p=2, l=500)", 1000),
        ("FIX(k0=0.1) ; 20000: SIN2(k0=0.01, k1=0.06, l=100)", 20_600),
        ("FIX(k0=0.1) ; plateau(n=3): FIX(k0=0.01)", 10_000),
    ],
)
def test_as_many_iterations_as_show_it(policy, length):
    assert natural_length([parse(policy)]) == length
    assert natural_length([parse(policy), parse("NSTEP(k0=0.1, gamma=0.1, l=[100000])")]) == 120_000


# -- runs ------------------------------------------------------------------------------------------


def test_runs_in_one_picture(run, tmp_path):
    write_run(
        tmp_path / "a",
        SIN2,
        "finished",
        [measured(0, 10.0), measured(50, 99.0), measured(50, 1.0, net=1)],
        60,
    )
    write_run(tmp_path / "b", SIN2, "running", [], 30)  # killed before its first test
    write_run(tmp_path / "c", "FIX(k0=0.1)", "diverged", [measured(0, None)], 0)
    write_run(tmp_path / "d", "FIX(k0=0.2)", "failed", [], 0)
    assert run("runs", "a", "b", "c", "d", "--out", "x.svg") == "plot: x.svg\n"
    text = Path("x.svg").read_text()
    for label in (
        f"{SIN2}, seed 1: 99.00 % at 50",
        f"{SIN2}, seed 1, interrupted",
        "FIX(k0=0.1), seed 1, diverged",
    ):
        assert f"<!-- {label} -->" in text, label
    assert run("runs", "a") == "plot: a.png\n"
    assert run("runs", "a", "b") == "plot: runs.png\n"
    (tmp_path / "latest").symlink_to("a")
    assert run("runs", "latest", "a", "a") == "plot: a.png\n"  # runs/*: one run


def test_a_long_policy_makes_room_for_seed_status_and_best_test(run, tmp_path):
    long = f"NSTEP(k0=0.01, gamma=0.9, l={list(range(100, 9000, 100))})"
    write_run(tmp_path / "a", long, "failed", [measured(50, 99.0)], 60)
    write_run(tmp_path / ("b" * 150), long, "failed", [measured(50, 98.0)], 60)
    run("runs", "a", "b" * 150, "--out", "x.svg")
    labels = re.findall(r"<!-- (NSTEP.*) -->", Path("x.svg").read_text())
    assert labels[0].endswith("…, seed 1, failed, a: 99.00 % at 50")
    assert labels[1].endswith("bbb…: 98.00 % at 50") and "…, seed 1, failed, bbb" in labels[1]


def test_runs_that_are_called_alike_have_their_folders_named(run, tmp_path):
    for name in ("a", "b"):
        write_run(tmp_path / name, SIN2, "finished", [], 5)
    run("runs", "a", "b", "--out", "x.svg")
    assert f"<!-- {SIN2}, seed 1, b -->" in Path("x.svg").read_text()


def test_starts_are_named(run, tmp_path):
    starts = {
        "a": {"kind": "scratch"}, "b": {"kind": "weights", "name": "x.caffemodel"},
        "c": {"kind": "snapshot", "iteration": 300}, "d": None, "e": {"kind": "snapshot"},
    }  # fmt: skip
    for name, start in starts.items():
        write_run(tmp_path / name, SIN2, "finished", [], 5)
        file = tmp_path / name / "run.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "start": start}))
    run("runs", *starts, "--out", "x.svg")
    text = Path("x.svg").read_text()
    for words in ("a", "from weights", "from snapshot at 300", "d", "from snapshot"):
        assert f"<!-- {SIN2}, seed 1, {words} -->" in text, words


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["runs/a", "runs/b"], ["a", "b"]),
        (["x/run", "y/run"], ["x", "y"]),
        (["a/deep/run", "b/deep/run"], ["a", "b"]),
        (["x/run", "y/run", "y/other"], ["x/run", "y/run", "other"]),
        (["run", "run/run"], ["parent", "run"]),
    ],
)
def test_the_shortest_names_that_tell_folders_apart(tmp_path, folders, names):
    found = short_names([tmp_path / "parent" / folder for folder in folders])
    assert found == names


def test_a_run_that_diverged_is_drawn(run, tmp_path):
    write_run(tmp_path / "a", SIN2, "diverged", [measured(0, 10.0)], 0)
    rows = "".join(f"{t},0.01,{math.nan if t > 20 else 10.0**t}\n" for t in range(30))
    (tmp_path / "a" / "iterations.csv").write_text("iteration,lr,loss\n" + rows)
    run("runs", "a")


def curves(number: int, lr: float, losses: list[float], diverged: bool = False) -> RunCurves:
    rows = np.array([[t, lr, loss] for t, loss in enumerate(losses)])
    tests = [
        replace(measured(t, 50.0 + number + t / 10), test_loss=losses[t]) for t in (0, 50, 100)
    ]
    return RunCurves(f"run {number}", rows, tests, diverged)


def test_a_run_that_diverged_does_not_flatten_the_others():
    good = curves(1, 0.01, [2.0 - t / 100 for t in range(101)])
    bad = curves(2, 7.0, [2.0 * 1.5 ** (t / 2) for t in range(101)], diverged=True)
    _, loss, lr = runs_figure("digits / LeNet, seed 1", [good, bad]).axes
    assert lr.get_ylim() == (0, pytest.approx(0.0105))
    low, high = loss.get_ylim()
    assert 0.9 < low < 1.0 and 2.0 < high < 2.2 and loss.get_yscale() == "linear"
    alone = runs_figure("alone", [bad])  # there is nothing else to show
    assert alone.axes[2].get_ylim()[1] == pytest.approx(7.35)


def rated(*values: float, diverged: bool = False) -> RunCurves:
    tests = [measured(10 * number, value) for number, value in enumerate(values)]
    return RunCurves("run", np.empty((0, 3)), tests, diverged)


@pytest.mark.parametrize(
    "runs",
    [
        [rated(93.0, 90.0, 89.0, 88.0)],  # a fine-tuning that made the net worse
        [rated(10.0, 95.0, 80.0, *10 * [81.0])],
        [rated(10.0, 80.0, 81.0, 82.0), rated(10.0, 93.0, 12.0, diverged=True)],
    ],
)
def test_the_best_test_is_in_the_picture(runs):
    low, high = runs_figure("digits", runs).axes[0].get_ylim()
    best = max(test.top1 for run in runs for test in run.measurements)
    assert 50 < low < best < high  # and the tests at chance are not


def autoencoder(*values: float, **outputs: float) -> RunCurves:
    """Tests of a net whose loss is called l2; the first one is before any update."""
    tests = [
        Measurement(t, 0.01, test_loss=v, outputs={"l2": v, **outputs})
        for t, v in enumerate(values)
    ]
    return RunCurves("run", np.empty((0, 3)), tests)


def test_what_runs_are_compared_by():
    found = autoencoder(2.0, 0.5, 0.7)
    assert compared([found]) == Compared("test_loss", False)
    assert compared([found], "l2") == Compared("l2", False)  # it equals the test loss
    assert found.best(compared([found], "l2")) == (1, 0.5)
    further = autoencoder(2.0, **{"l2_classifier.top1": 90.0})
    assert compared([further]) == Compared("l2_classifier.top1", True)
    ours = autoencoder(2.0, top1=0.9)  # its own output with the name of our metric is not that
    assert compared([ours]) == Compared("test_loss", False)
    with pytest.raises(
        InputError, match="unknown output 'top1'; measured in these runs: test_loss, l2"
    ):
        compared([ours], "top1")
    odd = autoencoder(2.0, y=1.0)
    with pytest.raises(InputError, match="by: y: is more of it better, or less"):
        compared([odd], "y")
    assert compared([odd], "y", higher=False) == Compared("y", False)
    with pytest.raises(InputError, match="test loss is better if it is lower"):
        compared([odd], "TEST_LOSS", higher=True)


def test_of_many_runs_the_best_have_colours_and_all_are_named_beside_the_picture():
    many = [curves(number, 0.01, [1.0] * 101) for number in range(19)]
    figure = runs_figure("digits / LeNet, seed 1", many)
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == [f"run {number}: {60 + number:.2f} % at 100" for number in reversed(range(19))]
    colours = [line.get_color() for line in figure.axes[0].lines if line.get_label() in texts]
    assert len(set(colours[:7])) == 7 and set(colours[7:]) == {TRAIN}
    accuracy = figure.axes[0]
    assert accuracy.get_title() == "digits / LeNet, seed 1"
    figure.draw_without_rendering()
    title, box = accuracy.title.get_window_extent(), accuracy.get_window_extent()
    assert (title.x0 + title.x1) / 2 == pytest.approx((box.x0 + box.x1) / 2, abs=1)
    right = figure.axes[0].get_window_extent().x1
    assert legend.get_window_extent().x0 > right


@pytest.mark.parametrize("number", [2, 8])
def test_a_long_title_stays_over_the_drawing(number):
    title = "digits / a net " + 12 * "with a long name "
    runs = [curves(n, 0.01, [1.0] * 101) for n in range(number)]
    runs = [replace(run, label=f"{run.label} {90 * 'x'}") for run in runs]
    axes = runs_figure(title, runs).axes[0]
    axes.figure.draw_without_rendering()
    shown, drawing = axes.title.get_window_extent(), axes.get_window_extent()
    assert drawing.x0 - 20 < shown.x0 and shown.x1 < drawing.x1 + 20
    assert axes.get_title().replace("\n", " ") == f"{title[:149]}…"  # as all titles


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn, in the place of their files."""
    figures = []
    monkeypatch.setattr("lrbench_caffe.plots.save", lambda figure, path: figures.append(figure))
    return figures


def test_the_title_names_data_net_and_seeds(run, tmp_path, drawn):
    for name, seed in (("a", 1), ("b", 3)):
        write_run(tmp_path / name, SIN2, "finished", [measured(50, 99.0)], 60)
        path = tmp_path / name / "run.json"
        known = {"dataset": {"name": "digits"}, "network": {"name": "LeNet"}}
        path.write_text(json.dumps({**json.loads(path.read_text()), "seed": seed, "record": known}))
    write_run(tmp_path / "c", SIN2, "finished", [measured(50, 99.0)], 60)  # of an earlier version
    run("runs", "a")
    run("runs", "a", "b")
    run("runs", "a", "b", "c")
    titles = [figure.axes[0].get_title() for figure in drawn]
    assert titles == [
        "digits / LeNet, seed 1", "digits / LeNet, seeds 1, 3", "digits / LeNet; solver.prototxt, seeds 1, 3"
    ]  # fmt: skip


def outputs(iteration: int, **values: float) -> Measurement:
    """A test of a net that does not classify."""
    return replace(measured(iteration, None), test_loss=2.0 / (1 + iteration), outputs=values)


def test_nets_without_top1_are_drawn_by_what_they_have(run, tmp_path, drawn):
    for name, better in (("a", 0.1), ("b", 0.2)):
        tests = [outputs(t, loss=2.0 / (1 + t), iou=better + t / 100) for t in (0, 50, 60)]
        write_run(tmp_path / name, SIN2, "finished", [*tests, outputs(70, iou=0.3)], 71)
    run("runs", "a", "b")
    run("runs", "a", "--by", "TEST_LOSS")
    run("runs", "a", "--metric", "iou", "--lower")
    shown = [(figure.axes[0].get_ylabel(), legend_of(figure)) for figure in drawn]
    # The best of 0.1, 0.6, 0.7 and 0.3, or of 2, 2/51, 2/61 and 2/71.
    assert shown[0] == (
        "iou",
        [f"{SIN2}, seed 1, {n}: {top} at 60" for n, top in (("a", 0.7), ("b", 0.8))],
    )
    assert shown[1] == ("test loss", [f"{SIN2}, seed 1: 0.02817 at 70"])
    assert shown[2] == ("iou", [f"{SIN2}, seed 1: 0.1 at 0"])
    assert [figure.axes[0].get_yscale() for figure in drawn] == ["linear", "log", "log"]
    points = list(zip(*drawn[0].axes[0].lines[0].get_data()))
    assert points == [(0, 0.1), (50, 0.6), (60, 0.7), (70, 0.3)]


def test_an_output_that_no_run_has_is_refused(run, tmp_path):
    write_run(tmp_path / "a", SIN2, "finished", [outputs(50, iou=0.5)], 60)
    assert run("runs", "a", "--by", "iuo", code=2) == (
        "error: --by: unknown output 'iuo'; did you mean 'iou'? measured in these runs: "
        "test_loss, train_loss, ld, iou\n"
    )


def legend_of(figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


# -- table -----------------------------------------------------------------------------------------


def test_a_table(run, tmp_path):
    url = str(tmp_path / "lr.sqlite")
    Database.open(url).close()
    out = run(
        "table",
        "--task",
        "mnist/lenet",
        "--top",
        "0",
        "--by",
        "iterations,top1",
        "--db",
        url,
        "--out",
        "x.svg",
    )
    assert out == "plot: x.svg\n"
    text = Path("x.svg").read_text()
    shown = [line for line in text.splitlines() if "<!-- " in line]
    policies = [line.split("<!-- ")[1].split("(")[0] for line in shown if "(k0=" in line]
    assert policies == [
        "SIN2",
        "SIN",
        "TRI",
        "TRI2",
        "SINEXP",
        "TRIEXP",
        "POLY",
        "INV",
        "COS",
        "NSTEP",
    ]
    assert "<!-- 99.33 -->" in text and "<!-- 4000 -->" in text and "<!-- #Iterations -->" in text
    assert run("table", "--task", "cnn3", "--pareto", "--db", url) == "plot: table.png\n"


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["schedule", "SINE2(k0=1)"], "error: unknown LR function 'SINE2'; did you mean SIN2?"),
        (["schedule", "SIN2"], "error: SIN2: "),
        (["schedule", SIN2, "--max-iter", "0"], "error: --max-iter: 0; allowed: 1 to 10000000"),
        (
            ["schedule", SIN2, "--out", "x.doc"],
            "error: --out: x.doc: unknown suffix .doc; allowed: .png, .pdf, .svg",
        ),
        (["schedule", SIN2, "--out", "no/x.png"], "error: --out: no/x.png: no such folder: no"),
        (["runs", "nowhere"], "error: nowhere is not a run directory: it has no run.json"),
        (["runs", "empty"], "error: empty: nothing was measured yet\n"),
        (["table"], "error: SOLVER or --task is missing; known tasks: "),
        (["table", "--task", "imagenet"], "error: --task: 'imagenet' is not in the database"),
        (
            ["table", "--task", "mnist", "--functions", "STEP"],
            "no finished run with a Top-1 fits --functions",
        ),
        (["table", "--task", "mnist", "--by", "speed"], "error: --by: unknown criterion 'speed'"),
    ],
)
def test_bad_input_is_one_line(run, tmp_path, args, message):
    write_run(tmp_path / "empty", SIN2, "running", [], 0)
    error = run(*args, code=2)
    assert message in error
    notes = (
        "waiting",
        "creating the database",
    )  # of a busy machine, and of the first use of a database
    said = [line for line in error.splitlines() if not line.startswith(notes)]
    assert len(said) == 1
