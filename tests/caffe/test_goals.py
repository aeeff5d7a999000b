"""range and tune by other measures than Top-1, and from given weights, on real Caffe."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.caffe import nets
from tests.caffe.harness import Workspace
from tests.caffe.test_tune import run, runs

DATA = nets.data_layer("TRAIN", batch=50) + nets.data_layer("TEST", batch=100)
HALVES = """
layer { name: "halves" type: "Slice" bottom: "data" top: "left" top: "right"
  slice_param { axis: 3 slice_point: 4 } }
layer { name: "flat" type: "Flatten" bottom: "right" top: "flat" }"""
TRUNK = nets.inner_product("ip1", "left", 32) + nets.relu("ip1")
SILENCE = '\nlayer { name: "silence" type: "Silence" bottom: "label" }'
# The right half of a digit from its left half.
REGRESSION = f"""name: "half"{DATA}{HALVES}{SILENCE}{TRUNK}{nets.inner_product("ip2", "ip1", 32)}
layer {{ name: "loss" type: "EuclideanLoss" bottom: "ip2" bottom: "flat" top: "loss" }}
"""
# The digit, too.
TWO_LOSSES = f"""name: "two"{DATA}{HALVES}{TRUNK}
{nets.inner_product("ip2", "ip1", 32)}{nets.inner_product("digit", "ip1", 10)}
layer {{ name: "loss_half" type: "EuclideanLoss" bottom: "ip2" bottom: "flat" top: "loss_half" }}
layer {{ name: "loss_digit" type: "SoftmaxWithLoss" bottom: "digit" bottom: "label" top: "loss_digit" }}
"""
TEST = "include { phase: TEST }"
# Which pixels have ink, from means over 2 x 2 of them; the IoU of its probabilities by Caffe's own layers.
SEGMENTATION = f"""name: "ink"{DATA}{SILENCE}
layer {{ name: "ink" type: "Threshold" bottom: "data" top: "ink" threshold_param {{ threshold: 0.4 }} }}
layer {{ name: "coarse" type: "Pooling" bottom: "data" top: "coarse"
  pooling_param {{ pool: AVE kernel_size: 2 stride: 2 }} }}
layer {{ name: "up" type: "Deconvolution" bottom: "coarse" top: "up"
  convolution_param {{ num_output: 8 kernel_size: 4 stride: 2 pad: 1 weight_filler {{ type: "xavier" }} }} }}
{nets.relu("up")}
layer {{ name: "score" type: "Convolution" bottom: "up" top: "score"
  convolution_param {{ num_output: 2 kernel_size: 3 pad: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "ink" top: "loss" }}
layer {{ name: "prob" type: "Softmax" bottom: "score" top: "prob" {TEST} }}
layer {{ name: "parts" type: "Slice" bottom: "prob" top: "p0" top: "p1" {TEST} }}
layer {{ name: "quiet" type: "Silence" bottom: "p0" {TEST} }}
layer {{ name: "both" type: "Eltwise" bottom: "p1" bottom: "ink" top: "both"
  eltwise_param {{ operation: PROD }} {TEST} }}
layer {{ name: "either" type: "Eltwise" bottom: "p1" bottom: "ink" bottom: "both" top: "either"
  eltwise_param {{ coeff: 1 coeff: 1 coeff: -1 }} {TEST} }}
layer {{ name: "amount" type: "Reduction" bottom: "p1" top: "amount" {TEST} }}
layer {{ name: "common" type: "Reduction" bottom: "both" top: "common" {TEST} }}
layer {{ name: "all" type: "Reduction" bottom: "either" top: "all" {TEST} }}
layer {{ name: "part" type: "Power" bottom: "all" top: "part" power_param {{ power: -1 }} {TEST} }}
layer {{ name: "iou" type: "Eltwise" bottom: "common" bottom: "part" top: "iou"
  eltwise_param {{ operation: PROD }} {TEST} }}
"""
LOW = {"lr_policy": '"fixed"', "gamma": None, "power": None, "max_iter": 100, "test_interval": 20}
SMALL = ("--functions", "fix,poly", "--top", "1", "--seeds", "2", "--fresh", "--holdout", "0", "--jobs", "2",
         "--layers", "stock", "--out", "study", "--json")  # fmt: skip


@pytest.fixture
def here(workspace: Workspace) -> Workspace:
    """The solvers regression, two and ink, whose own LRs are far too low."""
    for name, net in (
        ("regression", REGRESSION),
        ("two", TWO_LOSSES),
        ("ink", SEGMENTATION),
        ("odd", SEGMENTATION.replace('"amount"', '"aperture"')),
    ):
        workspace.write(f"{name}.net", net)
        text = nets.solver(net=f'"{name}.net"', base_lr=0.0001, **LOW)
        workspace.write(f"{name}.prototxt", text)
    return workspace


def tuned(workspace: Workspace, *args: str) -> dict[str, Any]:
    """The result of a tuning that recommends a policy."""
    words = ("tune", "--budget", "700", *SMALL, *args)
    found: dict[str, Any] = json.loads(run(workspace, *words).succeeded().out)
    return found


@pytest.mark.ci
def test_a_regression_net_is_tuned_by_its_test_loss(here: Workspace) -> None:
    found = tuned(here, "regression.prototxt")
    assert (found["by"], found["higher"], found["verdict"]["metric"]) == (
        "test_loss",
        False,
        "test_loss",
    )
    best, own = found["finalists"][0], found["own"]
    assert found["verdict"]["recommended"] == best["policy"]
    assert found["verdict"]["difference"] == pytest.approx(best["test_loss"] - own["test_loss"])
    # What the runs say themselves.
    ends = [
        one for one in runs(here.path / "study").values() if one.record["policy"] == best["policy"]
    ]
    lowest = [min(row["test_loss"] for row in one.last_measurements().values()) for one in ends]
    assert best["test_loss"] == pytest.approx(sum(lowest) / 2)
    report = (here.path / "study" / "report.md").read_text()
    assert "Goal: accuracy, the lowest test loss." in report
    assert "best gain (by the logarithm) over guessing" in report

    words = ("train", "regression.prototxt", "--lr", "study/result.json", "--preview")
    length = str(found["max_iter"])
    done = run(here, *words, "--max-iter", length).succeeded()
    assert f"LR policy: {best['policy']} (from --lr)" in done.out
    assert "not adapted" not in done.out + done.err
    shorter = run(here, *words, "--max-iter", "30").succeeded()
    assert f"of trainings of {length} iterations; this one has 30" in shorter.out + shorter.err


@pytest.mark.slow
def test_a_segmentation_net_is_tuned_by_its_iou(here: Workspace) -> None:
    found = tuned(here, "ink.prototxt", "--metric", "iou", "--max-iter", "400", "--budget", "1600")
    assert (found["by"], found["higher"]) == ("iou", True)
    assert found["finalists"][0]["iou"] > found["own"]["iou"] + 0.1
    assert found["finalists"][0]["top1"] is not None  # it classifies pixels


@pytest.mark.slow
def test_a_net_of_two_losses_is_tuned_by_one_of_them(here: Workspace) -> None:
    found = tuned(here, "two.prototxt", "--by", "loss_half", "--target", "0.5")
    assert (found["by"], found["higher"], found["target"], found["target_top1"]) == (
        "loss_half",
        False,
        0.5,
        None,
    )
    assert found["finalists"][0]["loss_half"] < found["own"]["loss_half"]


@pytest.mark.ci
def test_a_range_test_by_an_output(here: Workspace) -> None:
    words = (
        "range",
        "two.prototxt",
        "--by",
        "loss_half",
        "--iterations",
        "40",
        "--layers",
        "stock",
    )
    done = run(here, *words, "--out", "range").succeeded()
    assert (
        "note: loss_half: lower is better (assumed; --higher or --lower overrides it)" in done.out
    )
    assert "loss_half with a" in done.out
    assert "good: LRs whose loss_half is within 5% of the best gain (by the logarithm)" in done.out
    found = json.loads((here.path / "range" / "range.json").read_text())
    values = {
        float(one.record["policy"][7:-1]): one.last_measurements()[40, 0]["outputs"]["loss_half"]
        for one in runs(here.path / "range").values()
        if one.record["status"] != "diverged"
    }
    assert values[found["best"]] < 1.1 * min(values.values())


@pytest.mark.parametrize(
    ("solver", "arguments", "words"),
    [
        ("regression", ("--by", "top1"), ("--by", "'top1'", "outputs of the test net", "test_loss, loss")),
        ("odd", ("--by", "aperture"), ("--by: aperture: is more of it better, or less?",)),
        ("two", ("--by", "los_half"), ("--by", "'los_half'", "did you mean 'loss_half'", "loss_digit")),
        ("ink", ("--by", "amount"), ("--by: amount: is more of it better, or less?", "--higher or --lower")),
        ("two", ("--by", "test_loss", "--higher"), ("--higher or --lower", "is better if it is lower")),
        ("two", ("--by", "loss_half", "--target-top1", "9"), ("--target-top1", "by loss_half", "--target")),
        ("two", ("--target", "9"), ("--target", "by Top-1", "--target-top1")),
        ("two", ("--weights", "no.caffemodel"), ("no.caffemodel",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)  # fmt: skip
def test_bad_input_is_one_line(
    here: Workspace, solver: str, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    run(here, "tune", f"{solver}.prototxt", "--out", "bad", *arguments).failed(2, *words)
    assert not (here.path / "bad").exists()


def test_no_outputs_without_test_nets(workspace: Workspace) -> None:
    workspace.write("solver.prototxt", nets.solver(test_iter=None, test_interval=None))
    done = run(workspace, "range", "solver.prototxt", "--by", "loss", "--out", "bad")
    done.failed(2, "no test net", "--form ramp")


def _start(workspace: Workspace, name: str) -> dict[str, Any]:
    record: dict[str, Any] = next(iter(runs(workspace.path / name).values())).record["start"]
    return record


def test_fine_tuning(here: Workspace) -> None:
    run(
        here, "train", "two.prototxt", "--lr", "FIX(k0=0.02)", "--max-iter", "60", "--out", "first"
    ).succeeded()
    shutil.copy(next(here.path.glob("first/snapshots/*.caffemodel")), here.path / "two.caffemodel")
    # The regression has ip1 and ip2 of it: a new net of the same data.
    words = (
        "range",
        "regression.prototxt",
        "--iterations",
        "40",
        "--layers",
        "stock",
        "--out",
        "range",
    )
    done = run(here, *words, "--weights", "two.caffemodel").succeeded()
    assert "test loss of the initial weights: " in done.out
    tried = {float(one.record["policy"][7:-1]) for one in runs(here.path / "range").values()}
    assert {0.01, 0.001, 0.0001} <= tried  # a decade lower than from scratch
    study = json.loads((here.path / "range" / "study.json").read_text())["plan"]
    start = _start(here, "range")
    assert study["start"] == start
    assert (start["kind"], start["filled"], start["layers"], start["name"]) == (
        "weights",
        2,
        2,
        "two.caffemodel",
    )
    # The level of guessing is that of random weights, the level to beat that of the given ones.
    first = next(iter(runs(here.path / "range").values())).last_measurements()[0, 0]["test_loss"]
    assert first < study["chance"]

    # The same content under another name is the same study; other weights are another one.
    (here.path / "two.caffemodel").rename(here.path / "renamed.caffemodel")
    again = run(here, *words, "--weights", "renamed.caffemodel").succeeded()
    assert "FIX(" not in again.out.partition("with a")[0]
    snapshot = Path(run_model(here))
    shutil.copy(snapshot, here.path / "other.caffemodel")
    run(
        here, "tune", "regression.prototxt", "--weights", "other.caffemodel", "--out", "range"
    ).failed(2, "range holds a study with")


@pytest.mark.ci
def test_weights_of_which_the_net_takes_none_are_from_scratch(here: Workspace) -> None:
    model = run_model(here)
    renamed = REGRESSION.replace('name: "ip1"', 'name: "new1"').replace(
        'name: "ip2"', 'name: "new2"'
    )
    here.write("regression.net", renamed)
    words = ("--iterations", "40", "--layers", "stock", "--out", "range", "--weights", model)
    done = run(here, "range", "regression.prototxt", *words).succeeded()
    assert "WARNING: weights: 0 of 2 layers filled" in done.out + done.err
    tried = {float(one.record["policy"][7:-1]) for one in runs(here.path / "range").values()}
    assert {0.1, 0.01, 0.001} <= tried  # the first of random weights


def run_model(workspace: Workspace) -> str:
    """The caffemodel of another training."""
    run(workspace, "train", "two.prototxt", "--max-iter", "20", "--out", "second").succeeded()
    return str(next(workspace.path.glob("second/snapshots/*.caffemodel")))
