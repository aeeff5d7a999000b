"""What is measured, beside what Caffe itself says: its layers, `caffe test`, and its own log parser."""

from __future__ import annotations

import csv
import json
import math
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from lrbench_caffe.lr import parse
from lrbench_caffe.runtime.locate import find_caffe_python, runtime_dir
from tests.caffe import nets
from tests.caffe.harness import Run, Workspace, train_command

POLICY = "SIN2(k0=0.01, k1=0.06, l=60)"
ITERATIONS = 200
SIX_DIGITS = 1e-5  # relative: what a number keeps in Caffe's log

# The metrics from their definitions, in Caffe's Python, with Caffe's own Softmax layer.
ORACLE = """
import json, sys
import caffe
import numpy as np
net = caffe.Net("softmax.prototxt", caffe.TEST, weights=sys.argv[1])
p, y = [], []
for _ in range(5):
    net.forward()
    p.append(net.blobs["prob"].data.astype(float))
    y.append(net.blobs["label"].data.astype(int))
p, y = np.concatenate(p), np.concatenate(y)
own = p[np.arange(len(y)), y]
hit = p.argmax(axis=1) == y
each = [own[hit & (y == c)].mean() for c in range(10) if (hit & (y == c)).any()]
top5 = np.mean([c in np.argsort(-row)[:5] for row, c in zip(p, y)])
json.dump({"top1": 100 * hit.mean(), "top5": 100 * top5, "ac": own[hit].mean(), "cd": own[hit].std(),
           "cdac": np.std(each), "test_loss": -np.log(own).mean(), "samples": len(y)},
          open("oracle.json", "w"))
"""


@pytest.fixture(scope="module")
def trained(shared_workspace: Workspace) -> tuple[Workspace, Run]:
    shared_workspace.write("solver.prototxt", nets.solver(max_iter=ITERATIONS))
    shared_workspace.train("solver.prototxt", "--lr", POLICY, "--out", "out").succeeded()
    return shared_workspace, shared_workspace.run("out")


def logged_tests(log: str) -> dict[int, dict[str, float]]:
    """The means of a test net's outputs in a Caffe log, by iteration."""
    tests: dict[int, dict[str, float]] = {}
    for line in log.splitlines():
        start = re.search(r"Iteration (\d+), Testing net \(#0\)", line)
        if start:
            tests[int(start.group(1))] = {}
        output = re.search(r"Test net output #\d+: (\w+) = (\S+)", line)
        if output:
            tests[max(tests)][output.group(1)] = float(output.group(2))
    return tests


def test_there_is_a_measurement_at_every_test_and_its_numbers_are_numbers(
    trained: tuple[Workspace, Run],
) -> None:
    rows = trained[1].measurements()
    assert [row["iteration"] for row in rows] == [0, 50, 100, 150, 200]
    lr = parse(POLICY)
    for row in rows:
        assert {
            "iteration",
            "lr",
            "top1",
            "top5",
            "ac",
            "cd",
            "cdac",
            "test_loss",
            "train_loss",
            "ld",
        } <= {*row}
        first = row["iteration"] == 0
        outputs = row.pop("outputs")
        numbers = [v for k, v in row.items() if not (first and k in ("train_loss", "ld"))]
        numbers += outputs.values()
        assert all(math.isfinite(number) for number in numbers)
        assert row["lr"] == lr(row["iteration"])
        assert first == (row["train_loss"] is None) == (row["ld"] is None)
    losses = trained[1].iterations()
    between = [losses[i][1] for i in range(100, 150)]
    assert rows[3]["train_loss"] == pytest.approx(np.mean(between), rel=1e-9)
    assert rows[3]["ld"] == rows[3]["test_loss"] - rows[3]["train_loss"]


def test_top1_top5_and_loss_are_those_of_caffes_layers_in_the_same_pass(
    trained: tuple[Workspace, Run],
) -> None:
    run = trained[1]
    logged = logged_tests(run.log.read_text())
    for row in run.measurements():
        caffe = logged[row["iteration"]]
        assert row["top1"] == pytest.approx(100 * caffe["accuracy"], rel=SIX_DIGITS)
        assert row["top5"] == pytest.approx(100 * caffe["top5"], rel=SIX_DIGITS)
        assert row["test_loss"] == pytest.approx(caffe["loss"], rel=SIX_DIGITS)
        assert row["outputs"] == pytest.approx(caffe, rel=SIX_DIGITS)
    assert len(logged) == 5


def test_the_last_measurement_is_that_of_caffe_test(trained: tuple[Workspace, Run]) -> None:
    workspace, run = trained
    model = str(run.model(ITERATIONS))
    done = workspace.caffe(
        "test", "-model", "net.prototxt", "-weights", model, "-iterations", "5"
    ).succeeded()
    means = dict(re.findall(r"caffe\.cpp:\d+\] (accuracy|top5|loss) = (\S+)", done.err))
    row = run.measurements()[-1]
    assert row["top1"] == pytest.approx(100 * float(means["accuracy"]), rel=SIX_DIGITS)
    assert row["top5"] == pytest.approx(100 * float(means["top5"]), rel=SIX_DIGITS)
    assert row["test_loss"] == pytest.approx(float(means["loss"]), rel=SIX_DIGITS)


def test_all_metrics_are_those_of_their_definitions(trained: tuple[Workspace, Run]) -> None:
    workspace, run = trained
    softmax = nets.net(last='\nlayer { name: "prob" type: "Softmax" bottom: "ip2" top: "prob" }')
    workspace.write("softmax.prototxt", softmax)
    oracle = workspace.write("oracle.py", ORACLE)
    workspace.command(
        [*find_caffe_python(None).command, oracle, str(run.model(ITERATIONS))]
    ).succeeded()
    expected = json.loads((workspace.path / "oracle.json").read_text())
    row = run.measurements()[-1]
    assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_every_iteration_has_its_lr_and_loss(trained: tuple[Workspace, Run]) -> None:
    rows = trained[1].iterations()
    assert list(rows) == list(range(ITERATIONS))
    policy = parse(POLICY)
    assert [lr for lr, _ in rows.values()] == policy(np.arange(ITERATIONS)).tolist()
    log = trained[1].log.read_text()
    shown = re.findall(r"Iteration (\d+), lr = (\S+)", log)
    assert [int(iteration) for iteration, _ in shown] == list(range(0, ITERATIONS, 10))
    for iteration, lr in shown:
        assert float(lr) == pytest.approx(policy(int(iteration)), rel=SIX_DIGITS, abs=1e-9)
    losses = re.findall(r"Iteration (\d+)[^\n]*\n[^\n]*Train net output #0: loss = (\S+)", log)
    assert len(losses) == len(shown)
    for iteration, loss in losses:
        assert rows[int(iteration)][1] == pytest.approx(float(loss), rel=SIX_DIGITS)


@pytest.mark.parametrize("log", ["caffe.log", "2>&1 | tee"])
def test_caffes_own_parse_log_reads_the_log(
    trained: tuple[Workspace, Run], tmp_path: Path, log: str
) -> None:
    workspace, run = trained
    text = run.log.read_text()
    if "tee" in log:
        command = train_command(
            "solver.prototxt", "--lr", POLICY, "--log-to-stderr", "--out", "teed"
        )
        done = workspace.command(["sh", "-c", f"{shlex.join(command)} 2>&1"]).succeeded()
        assert "run directory: teed" in done.out
        text = done.out
    (tmp_path / "caffe.log").write_text(text)
    parsers = sorted(runtime_dir().glob("**/tools/extra/parse_log.py"))
    if not parsers:
        pytest.skip("this Caffe came without its parse_log.py")
    for name in ("parse_log.py", "extract_seconds.py"):
        text = (parsers[0].parent / name).read_text()
        # One print is Python 2's, and keeps the file from being read at all.
        (tmp_path / name).write_text(
            re.sub(r"^( +)print '(.+)$", r"\1print('\2)", text, flags=re.MULTILINE)
        )
    python = find_caffe_python(None).command
    workspace.command(
        [*python, str(tmp_path / "parse_log.py"), str(tmp_path / "caffe.log"), str(tmp_path)]
    ).succeeded()
    with (tmp_path / "caffe.log.test").open() as file:
        tests = {int(float(row["NumIters"])): row for row in csv.DictReader(file)}
    measurements = run.measurements()
    assert list(tests) == [row["iteration"] for row in measurements]
    for row in measurements:
        parsed = tests[row["iteration"]]
        assert float(parsed["accuracy"]) == pytest.approx(row["top1"] / 100, rel=SIX_DIGITS)
        assert float(parsed["loss"]) == pytest.approx(row["test_loss"], rel=SIX_DIGITS)
    with (tmp_path / "caffe.log.train").open() as file:
        train = {int(float(row["NumIters"])): row for row in csv.DictReader(file)}
    assert list(train) == list(range(0, ITERATIONS, 10))
    policy = parse(POLICY)
    # parse_log reads a display's outputs before its LR, and so files them under the LR of the one
    # before.
    for before, now in zip(list(train), list(train)[1:]):
        parsed_lr = float(train[now]["LearningRate"])
        assert parsed_lr == pytest.approx(policy(before), rel=SIX_DIGITS, abs=1e-9)


def test_several_test_nets_are_each_measured(workspace: Workspace) -> None:
    training_data = nets.data_layer("TEST", source="data/digits_train_lmdb", batch=50)
    workspace.write("other.prototxt", nets.net(test=training_data))
    solver = nets.solver(net=None, train_net='"net.prototxt"', test_iter=[5, 20], max_iter=50)
    workspace.write(
        "solver.prototxt", solver + 'test_net: "net.prototxt" test_net: "other.prototxt"'
    )
    done = workspace.train("solver.prototxt", "--out", "out").succeeded()
    assert "1000 of 1297" in done.out  # 20 x 50: said, since it leaves some data out
    rows = workspace.run("out").measurements()
    assert [(row["iteration"], row["net"], row["samples"]) for row in rows] == [
        (0, 0, 500), (0, 1, 1000), (50, 0, 500), (50, 1, 1000),
    ]  # fmt: skip
    log = workspace.run("out").log.read_text()
    accuracies = [
        float(value) for value in re.findall(r"Test net output #0: accuracy = (\S+)", log)
    ]
    assert [row["top1"] for row in rows] == pytest.approx(
        [100 * value for value in accuracies], rel=SIX_DIGITS
    )


def test_a_solver_without_tests_trains_and_says_so(workspace: Workspace) -> None:
    workspace.write("solver.prototxt", nets.solver(test_iter=None, test_interval=None, max_iter=20))
    done = workspace.train("solver.prototxt", "--out", "out").succeeded()
    assert "no test nets (no test_iter)" in done.out
    run = workspace.run("out")
    assert run.record["status"] == "finished"
    assert run.measurements() == []
    assert len(run.iterations()) == 20
    assert run.model(20).is_file()
