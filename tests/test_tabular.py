"""The rows that people see, and that pictures come out whatever was measured."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from lrbench_caffe.lr import parse
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.plots import schedule_figure, training_figure
from lrbench_caffe.plots.files import save
from lrbench_caffe.tabular import csv_text, json_text, markdown_table, metrics_rows, number
from lrbench_caffe.terminal.tables import terminal_table

FIRST = Measurement(
    iteration=0, lr=0.01, top1=10.0, top5=50.0, ac=math.nan, cd=math.nan, cdac=math.nan, test_loss=2.3,
    train_loss=None, ld=None, seconds=0.1,
)  # fmt: skip
BEST = Measurement(
    iteration=100, lr=0.06, top1=99.125, top5=100.0, ac=0.98765, cd=0.04321, cdac=0.00567, test_loss=0.03,
    train_loss=0.025, ld=0.005, seconds=2.0,
)  # fmt: skip
LAST = Measurement(
    iteration=200, lr=0.01, top1=98.0, top5=99.5, ac=0.9, cd=0.1, cdac=0.01, test_loss=0.05,
    train_loss=0.0625, ld=-0.0125, seconds=4.0,
)  # fmt: skip
NO_CLASSES = Measurement(300, 0.01, None, None, None, None, None, 4.5, 4.25, 0.25, 9.0)


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (1 / 3, 4, "0.3333"),
        (99.125, 2, "99.12"),
        (-0.5, 1, "-0.5"),
        (0.0, 2, "0.00"),
        (None, 3, "-"),
        (math.nan, 3, "-"),
    ],
)
def test_numbers(value, digits, text):
    assert number(value, digits) == text


def test_rows_at_the_best_and_the_last_test():
    assert metrics_rows([FIRST, BEST, LAST], num_params=3) == [
        ["metric", "best, at 100", "last, at 200"],
        ["Top-1 (%)", "99.12", "98.00"],
        ["Top-5 (%)", "100.00", "99.50"],
        ["AC", "0.9877", "0.9000"],
        ["CD", "0.0432", "0.1000"],
        ["CDAC", "0.0057", "0.0100"],
        ["test loss", "0.0300", "0.0500"],
        ["LD", "0.0050", "-0.0125"],
        ["#Iterations at the highest Top-1", "100", ""],
        ["#Param", "3", ""],
    ]


def test_what_was_not_measured_is_a_dash():
    rows = metrics_rows([FIRST], num_params=1)
    assert rows[0] == ["metric", "best, at 0", "last, at 0"]
    assert [row[1] for row in rows[1:]] == [
        "10.00",
        "50.00",
        "-",
        "-",
        "-",
        "2.3000",
        "-",
        "0",
        "1",
    ]


def test_a_net_that_does_not_classify():
    rows = metrics_rows([NO_CLASSES], num_params=2)
    assert [row[1] for row in rows] == ["best, at 300", "4.5000", "0.2500", "300", "2"]
    assert rows[-2][0] == "#Iterations at the lowest test loss"


def test_outputs_that_are_single_numbers_are_shown():
    first = replace(
        NO_CLASSES, outputs={"mae": 0.123456789, "each": 1.0, "each[1]": 2.0, "early": 3.0}
    )
    last = replace(NO_CLASSES, iteration=400, test_loss=5.0, outputs={"mae": 1234567.0})
    rows = metrics_rows([first, last], num_params=2)
    assert rows[3:5] == [["mae", "0.123457", "1.23457e+06"], ["early", "3", "-"]]


def test_a_vector_with_elements_that_are_not_finite_is_not_shown():
    # Its second element never is; at the end only the first one is.
    first = replace(NO_CLASSES, outputs={"mae": 0.5, "each": 1.0, "each[2]": 2.0})
    last = replace(NO_CLASSES, iteration=400, outputs={"mae": 0.25, "each": 1.0})
    assert [row[0] for row in metrics_rows([first, last], num_params=2)] == [
        "metric", "test loss", "LD", "mae", "#Iterations at the lowest test loss", "#Param",
    ]  # fmt: skip
    assert panels([first, last])["test net outputs"] == {"mae": [0.5, 0.25]}


def test_the_table_shows_every_cell():
    console = Console(width=100, record=True, file=None, color_system=None)
    rows = metrics_rows([FIRST, BEST, LAST], num_params=3)
    with console.capture() as captured:
        console.print(terminal_table(rows, "NSTEP(k0=0.1, gamma=0.1, l=[60000, 65000])"))
    lines = [line.strip() for line in captured.get().splitlines()]
    assert lines[0] == "NSTEP(k0=0.1, gamma=0.1, l=[60000, 65000])"
    text = " ".join(" ".join(lines).split())
    for row in rows:
        assert " ".join(row).strip() in text


ROWS = [["policy", "Top-1 (%)", "#Param"], ["A | B", "99.12", "3"], ["a, b", "-", "1"]]


def test_markdown():
    assert markdown_table(ROWS) == (
        "| policy | Top-1 (%) | #Param |\n"
        "| --- | ---: | ---: |\n"
        "| A \\| B | 99.12 | 3 |\n"
        "| a, b | - | 1 |\n"
    )  # fmt: skip


def test_csv():
    assert csv_text(ROWS) == 'policy,Top-1 (%),#Param\nA | B,99.12,3\n"a, b",,1\n'


def test_json():
    assert json.loads(json_text(ROWS)) == [
        {"policy": "A | B", "Top-1 (%)": 99.12, "#Param": 3},
        {"policy": "a, b", "Top-1 (%)": None, "#Param": 1},
    ]
    # What only looks like a number stays text; JSON has no NaN.
    assert json.loads(json_text([["policy"], ["nan"], ["inf"]])) == [
        {"policy": "nan"},
        {"policy": "inf"},
    ]


# -- pictures --------------------------------------------------------------------------------------


def is_png(path) -> bool:
    content = path.read_bytes()
    return content.startswith(b"\x89PNG") and len(content) > 5000


def training(count: int, loss=lambda t: 2.0 / (1 + t)) -> np.ndarray:
    return np.array([[t, 0.01, loss(t)] for t in range(count)]).reshape(-1, 3)


@pytest.mark.parametrize(
    ("iterations", "measurements", "decisions"),
    [
        (training(300), [FIRST, BEST, LAST], [100]),
        (training(0), [], []),
        (training(0), [FIRST], []),
        (training(5), [], []),
        (training(300), [NO_CLASSES], []),
        (training(300, lambda t: math.nan if t > 100 else 10.0**t), [FIRST], []),  # diverged
        (training(9000), [BEST], []),
    ],
    ids=["usual", "nothing", "a test only", "no test", "no classes", "diverged", "long"],
)
def test_a_training_is_drawn(tmp_path, iterations, measurements, decisions):
    path = tmp_path / "training.png"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(
            training_figure("SIN2(k0=0.01, k1=0.06, l=2000)", iterations, measurements, decisions),
            path,
        )
    assert is_png(path)


def panels(measurements) -> dict[str, dict[str, list[float]]]:
    """What a training's picture shows: the lines by label, by panel."""
    figure = training_figure("title", training(10), measurements, [])
    return {
        axes.get_ylabel(): {
            str(line.get_label()): list(line.get_ydata()) for line in axes.get_lines()
        }
        for axes in figure.axes
    }


def test_the_outputs_of_all_test_nets_are_drawn():
    first = replace(NO_CLASSES, outputs={"mae": 1.0, "loss": 4.5, "each": 1.0, "each[1]": 2.0})
    other = replace(NO_CLASSES, net=1, outputs={"mae": 3.0})
    shown = panels([first, other])
    assert list(shown) == [
        "loss",
        "test net outputs",
        "learning rate",
    ]  # no Top-1, as there is none
    assert shown["loss"]["test"] == [4.5]
    # The first net's loss is in its own panel.
    assert shown["test net outputs"] == {"mae (test net #0)": [1.0], "mae (test net #1)": [3.0]}


def test_further_heads_are_drawn_beside_the_main_one():
    outputs = {"accuracy": 0.99125, "loss": 0.03, "aux.top1": 50.0, "aux.ac": 0.5}
    shown = panels([replace(BEST, outputs=outputs)])
    assert list(shown) == [
        "Top-1 (%)",
        "loss",
        "learning rate",
    ]  # nothing else that is not shown already
    assert (shown["Top-1 (%)"]["Top-1"], shown["Top-1 (%)"]["aux"]) == ([99.125], [50.0])


@pytest.mark.parametrize("max_iter", [1, 1000, 250_000])
def test_schedules_are_drawn(tmp_path, max_iter):
    policies = [
        parse("SIN2(k0=0.01, k1=0.06, l=2000)"),
        parse("NSTEP(k0=0.1, gamma=0.1, l=[100, 200])"),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(schedule_figure(policies, max_iter), tmp_path / "schedule.png")
    assert is_png(tmp_path / "schedule.png")
