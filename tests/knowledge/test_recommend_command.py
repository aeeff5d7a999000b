"""The commands that open a solver with real Caffe."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lrbench_caffe.prototxt.task import open_task
from tests.caffe.harness import ENVIRONMENT, ROOT, Workspace
from tests.knowledge.tasks import DIGITS


@pytest.fixture
def shipped(digits: Path, caffe_program: str, tmp_path: Path) -> Workspace:
    """A folder like a checkout, with the digits only."""
    (tmp_path / "data").symlink_to(digits)
    for name in ("prototxt", "solvers"):
        (tmp_path / name).symlink_to(ROOT / name)
    return Workspace(tmp_path, caffe_program)


def call(workspace: Workspace, command: str, *args: str):
    return workspace.command([sys.executable, "-m", f"lrbench_caffe.{command}", *args])


def test_the_digits_are_what_the_other_tests_take_them_for(shipped, monkeypatch):
    monkeypatch.chdir(shipped.path)
    solver, task = open_task(Path("solvers/lenet_digits_solver.prototxt"))
    assert task.network.layers == DIGITS.network.layers
    assert (task.network.parameters, task.network.depth) == (131_080, 4)
    data = task.dataset
    assert (data.name, data.channels, data.height, data.width, data.classes) == (
        "digits",
        1,
        8,
        8,
        10,
    )
    assert (data.train_samples, data.test_samples) == (1297, 500)
    assert solver.epoch == 25.94


def test_digits_get_a_proposal_from_mnist(shipped, fresh):
    done = call(
        shipped, "recommend", "solvers/lenet_digits_solver.prototxt", "--db", str(fresh)
    ).succeeded()
    assert "no result on this task; proposals are from the most similar one" in done.out
    assert "similar: mnist / LeNet_MNIST (0.72)" in done.out
    assert "1. SIN2(k0=0.01, k1=0.06, l=86)" in done.out
    last = done.out.splitlines()[-1]
    assert last.startswith(
        "python -m lrbench_caffe.train solvers/lenet_digits_solver.prototxt --lr "
    )


def test_functions_top_and_length(shipped, fresh):
    args = ("--functions", "sin,tri", "--top", "2", "--max-iter", "100", "--db", str(fresh))
    done = call(shipped, "recommend", "solvers/lenet_digits_solver.prototxt", *args).succeeded()
    assert [line for line in done.out.splitlines() if line[:2] in ("1.", "2.", "3.")] == [
        "1. SIN(k0=0.01, k1=0.06, l=50)",
        "2. TRI(k0=0.01, k1=0.06, l=50)",
    ]
    assert "l shortened to 50, so that a cycle fits into 100 iterations" in done.out


def test_contributors(shipped, fresh):
    args = ("recommend", "solvers/lenet_digits_solver.prototxt", "--db", str(fresh))
    papers = call(shipped, *args, "--contributors", "paper,own").succeeded()
    assert papers.out == call(shipped, *args).succeeded().out
    done = call(shipped, *args, "--contributors", "own, adda")
    words = "--contributors: 'adda' has contributed nothing; allowed: own, paper"
    assert (done.code, words in done.err) == (2, True)


@pytest.mark.ci
def test_the_start_that_is_asked_for_is_the_one_that_training_records(shipped, tmp_path):
    """A fine-tuned training is promised for the same weights, and not for random ones."""
    solver, database = (
        "solvers/lenet_digits_solver.prototxt",
        ("--db", str(tmp_path / "own.sqlite")),
    )
    length = ("--max-iter", "20", "--test-interval", "10", "--seed", "1", *database)
    call(shipped, "train", solver, "--lr", "0.01", *length, "--out", "a").succeeded()
    weights = ("--weights", "a/snapshots/lenet_digits_iter_20.caffemodel")
    call(shipped, "train", solver, "--lr", "0.02", *length, "--out", "b", *weights).succeeded()

    def proposals(*args: str) -> dict[str, dict]:
        args = (
            solver,
            "--max-iter",
            "20",
            "--functions",
            "fix",
            "--top",
            "20",
            "--json",
            *database,
            *args,
        )
        found = json.loads(call(shipped, "recommend", *args).succeeded().out)["proposals"]
        return {proposal["policy"]: proposal for proposal in found if proposal["same_task"]}

    scratch, tuned = proposals(), proposals(*weights)
    assert scratch["FIX(k0=0.01)"]["same_start"] and not scratch["FIX(k0=0.02)"]["same_start"]
    assert tuned["FIX(k0=0.02)"]["same_start"] and not tuned["FIX(k0=0.01)"]["same_start"]
    assert [found["FIX(k0=0.02)"]["expected"] is None for found in (scratch, tuned)] == [
        True,
        False,
    ]
    ranked = json.loads(call(shipped, "rank", solver, "--json", *database).succeeded().out)
    assert [(row["policy"], row["place"]) for row in ranked] == [
        ("FIX(k0=0.01)", 1),
        ("FIX(k0=0.02)", 1),
    ]


def test_ranking_a_task_that_the_database_lacks(shipped, fresh):
    done = call(shipped, "rank", "solvers/lenet_digits_solver.prototxt", "--db", str(fresh))
    done.failed(2, "the database has no run of digits / LeNet_digits yet")


@pytest.mark.ci
def test_wrong_input_is_one_line(shipped, fresh):
    call(shipped, "recommend", "nowhere.prototxt", "--db", str(fresh)).failed(2, "nowhere.prototxt")
    solver = "solvers/lenet_digits_solver.prototxt"
    call(shipped, "recommend", solver, "--functions", "sine2", "--db", str(fresh)).failed(
        2, "did you mean SIN2"
    )
    call(shipped, "recommend", solver, "--top", "0", "--db", str(fresh)).failed(2, "--top: 0")
    call(shipped, "recommend", solver, "--max-iter", "0", "--db", str(fresh)).failed(
        2, "--max-iter: 0"
    )
    for flags in (("--lower",), ("--by", "top1", "--lower"), ("--by", "test_loss", "--higher")):
        call(shipped, "recommend", solver, *flags, "--db", str(fresh)).failed(
            2, "--higher or --lower: ", "allowed: with an output of the net"
        )
    text = (shipped.path / solver).read_text()
    endless = shipped.write("endless.prototxt", re.sub(r"max_iter: \d+", "", text))
    call(shipped, "recommend", endless, "--db", str(fresh)).failed(
        2, "endless.prototxt: max_iter is missing; allowed: 1 or more (--max-iter N)"
    )


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("lrbench_caffe.train", ["sqlalchemy", "scipy", "matplotlib"]),
        ("lrbench_caffe.knowledge.ranking", ["sqlalchemy", "scipy", "matplotlib", "rich"]),
        ("lrbench_caffe.knowledge.recommendation", ["sqlalchemy", "scipy", "matplotlib"]),
        ("lrbench_caffe.rank", ["matplotlib", "scipy"]),
        ("lrbench_caffe.plot", ["matplotlib", "PIL", "scipy"]),
    ],
)
def test_what_a_module_does_not_load(module, unwanted):
    code = f"import sys, {module}; print(*[name for name in {unwanted!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=ENVIRONMENT
    )
    assert done.stdout.split() == []
