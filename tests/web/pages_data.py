"""What the tests of the pages have in their database and folders."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from lrbench_caffe.database import Database
from lrbench_caffe.database.platform import Platform
from lrbench_caffe.records import Contribution, Start
from lrbench_caffe.runs.directory import RunDirectory
from tests.database.records import DATASET, NETWORK, at, policy, run

# Text of others, as bad as it may be: each must be shown, none obeyed.
MARKUP = """<script>alert("1")</script><img src=x onerror=alert(2)>'"&amp;{{ 7 * 7 }}{% raw %}"""
LONG = "name" * 200
HOSTILE = dataclasses.replace(DATASET, name=f"{MARKUP} {LONG}", digest="d9")
SHARED = Contribution("b1", "ada", f"note {MARKUP}", "https://example.org/?a=1&b=<2>", 5000.0)


def fill(database: Database) -> None:
    """Real records of two tasks: one that people have, one of hostile names."""
    fix, sin2 = policy("FIX(k0=0.01)"), policy("SIN2(k0=0.01, k1=0.06, l=50)")
    database.put_many(
        [
            *(run(f"sin{n}", seed=n, policy=sin2, measurements=_tests(95 + n)) for n in (1, 2, 3)),
            *(run(f"fix{n}", seed=n, policy=fix, measurements=_tests(90 + n)) for n in (1, 2, 3)),
            run(
                "tuned", policy=sin2, start=Start("weights", "d" * 32, 3, 4, name="base.caffemodel")
            ),
            run(
                "lost", policy=policy("FIX(k0=1)"), status="diverged", reason="nan", measurements=[]
            ),
            run("too-good", seed=9, policy=fix, measurements=_tests(99.9)),
            run("bad", seed=8, policy=fix, measurements=_tests(20.0)),
            run(
                "h1",
                dataset=HOSTILE,
                network=dataclasses.replace(NETWORK, name=MARKUP, digest="n9"),
                origin=f"log {MARKUP}",
                machine=MARKUP,
                head=MARKUP,
                start=Start("weights", "e" * 32, 1, 4, name=MARKUP),
            ),
        ]
    )
    sent = run("sent", seed=7, policy=fix, measurements=_tests(91), contribution=SHARED)
    database.put_many([sent], contributor="ada")
    platform = Platform(database)
    platform.set_standing(["too-good"], "unverified", f"far above all others {MARKUP}")
    platform.set_standing(["bad"], "hidden", "spam")


def _tests(top1: float) -> list:
    return [
        at(i, top1 - (300 - i) / 10, lr=0.01, train_loss=2.0 - i / 200) for i in (100, 200, 300)
    ]


def write_studies(runs: Path) -> None:
    """A tuning that goes on, a range test that has ended, and one whose files are damaged."""
    tuning = runs / "tune-digits"
    _study(tuning, functions=["FIX", "TRI"], budget=1000)
    kept = json.loads((tuning / "study.json").read_text())
    kept["range"] = {"low": 0.01, "high": 0.1, "best": 0.1}
    (tuning / "study.json").write_text(json.dumps(kept))
    for n, k0 in enumerate((0.1, 0.01, 0.001)):
        write_training(tuning, f"fix-{n}", f"FIX(k0={k0})", [(10, 30.0 + n), (20, 60.0 + n)])
    for n, k1 in enumerate((0.02, 0.05, 0.1, 0.2, 0.4, 0.8)):
        text = f"TRI(k0=0.001, k1={k1}, l={20 + 20 * (n % 2)})"
        write_training(tuning, f"tri-{n}", text, [(20, 90.0 - n), (40, 95.0 - n)])
    _held_out(runs / "tune-held-out")
    _with_other_settings(runs / "tune-also")
    _by_loss(runs / "tune-loss")
    ended = runs / "range-digits"
    _study(ended)
    write_training(ended, "fix-1", "FIX(k0=0.1)", [(10, 30.0), (20, 60.0)])
    write_training(ended, "fix-2", "FIX(k0=0.01)", [(10, 20.0), (20, 50.0)])
    content = {"form": "ladder", "low": 0.01, "high": 0.1, "best": 0.1, "rule": "r"}
    (ended / "range.json").write_text(json.dumps(content))
    damaged = runs / "damaged"
    (damaged / "trainings" / "one").mkdir(parents=True)
    (damaged / "study.json").write_text(
        '{"plan": {"solver": ["<b>"], "max_iter": "ten", "budget": NaN'
    )
    (damaged / "trainings" / "one" / "run.json").write_text("[]")
    odd = runs / "odd"
    _study(odd, budget="much", functions=MARKUP, goal=[1], chance=None, holdout="many")
    (odd / "result.json").write_text(
        json.dumps({"verdict": 3, "finalists": {"a": 1}, "own": [], "range": "x", "budget": -1,
                    "holdout": {"finalists": 3, "own": [], "text": 5, "records": "x", "held_out": []},
                    "also": {"trials": ["x", {"settings": MARKUP, "value": "y", "policy": [1]}]}})
    )  # fmt: skip
    write_training(odd, "x", MARKUP, [(10, 5.0)])


def _by_loss(tuning: Path) -> None:
    """A tuning from given weights by an output that is better if lower, and has an odd name."""
    start = dataclasses.asdict(Start("weights", "d" * 32, 3, 5, name="lenet.caffemodel"))
    _study(tuning, functions=["FIX"], by=MARKUP, higher=False, chance=2.5, target=0.25, start=start)
    for n, k0 in enumerate((0.1, 0.01, 0.001, 0.002, 0.005)):
        tests = [(10, 1.0 + n), (20, 0.5 + n)]
        write_training(tuning, f"fix-{n}", f"FIX(k0={k0})", tests, output=MARKUP)


def _held_out(tuning: Path) -> None:
    """A tuning by held-out records that has ended."""
    _study(tuning, functions=["FIX"], holdout=0.1)
    for n, k0 in enumerate((0.1, 0.01)):
        write_training(tuning, f"fix-{n}-holdout", f"FIX(k0={k0})", [(100, 99.0 - n), (200, 97.0)])
    write_training(tuning, "fix-0", "FIX(k0=0.1)", [(100, 99.5), (200, 90.0)])
    chosen = {"iteration": 100, "held_out": 99.0, "test": 94.25, "best_test": 95.5}
    told = {
        "held_out": 130, "records": 1297, "text": [f"chosen {MARKUP}", 3],
        "finalists": [{"policy": f"FIX {MARKUP}", **chosen}, "x"], "own": {"policy": [1], "test": "y"},
    }  # fmt: skip
    verdict = {"text": "train with FIX(k0=0.1)"}
    trials = [
        {"settings": {"batch": 50}, "policy": "FIX(k0=0.1)", "status": "finished", "value": 98.0,
         "test_loss": 0.25},
        {"settings": {"batch": 100}, "policy": MARKUP, "status": "diverged", "value": None,
         "test_loss": None},
        {"settings": {"batch": 25, MARKUP: 1}, "policy": "x", "status": "finished", "value": 99.0,
         "test_loss": 0.125},
    ]  # fmt: skip
    content = {
        "verdict": verdict,
        "finalists": [{"policy": "FIX(k0=0.1)"}],
        "holdout": told,
        "also": {"trials": trials},
    }
    (tuning / "result.json").write_text(json.dumps(content))


def _with_other_settings(tuning: Path) -> None:
    """A tuning of other settings, too: the finalists are one policy with two settings."""
    _study(tuning, functions=["FIX"], also=["batch=25,50", "weight_decay=1e-05,0.0005"])
    write_training(tuning, "fix-0", "FIX(k0=0.1)", [(20, 50.0), (40, 60.0)])
    write_training(tuning, "fix-1", "FIX(k0=0.2)", [(20, 40.0)])
    small = tuning / "also" / "batch25-weight_decay1e-05"
    write_training(small, "fix-0", "FIX(k0=0.1)", [(40, 70.0), (80, 65.0)], max_iter=400)
    write_training(small, "fix-1", "FIX(k0=0.2)", [(40, 75.0)], max_iter=400)
    write_training(tuning / "also" / "odd", "x", MARKUP, [(10, 5.0)], max_iter=0)
    own, other = {"batch": 50, "weight_decay": 0.0005}, {"batch": 25, "weight_decay": 1e-05}
    finalists = [{"policy": "FIX(k0=0.1)", "settings": one} for one in (own, other)]
    told = {"finalists": [*finalists, [MARKUP]], "also": {"own": own, "trials": []}}
    (tuning / "result.json").write_text(json.dumps(told))


def _study(folder: Path, **plan: object) -> None:
    folder.mkdir(parents=True)
    values = {
        "solver": f"s {MARKUP}", "max_iter": 200, "test_interval": 10, "chance": 10.0, "seed": 1,
        "goal": "accuracy", **plan,
    }  # fmt: skip
    known = {"policies": [["FIX(k0=0.5)", "from the LR database"]]}
    (folder / "study.json").write_text(json.dumps({"plan": values, "experience": known}))


def write_training(
    study: Path,
    name: str,
    text: str,
    tests: list[tuple[int, float]],
    status: str = "stopped",
    output: str | None = None,
    max_iter: int = 200,
) -> None:
    """Write a run directory of a study; ``tests`` have Top-1, or this output."""
    directory = RunDirectory(study / "trainings" / name)
    directory.path.mkdir(parents=True)
    record = {
        "solver": "s.prototxt", "policy": text, "seed": 1, "max_iter": max_iter, "task": "digits / LeNet",
        "status": status, "iteration": tests[-1][0],
    }  # fmt: skip
    (directory.path / "run.json").write_text(json.dumps(record))
    measured = [at(i, value) for i, value in tests]
    if output is not None:
        pairs = zip(measured, tests)
        measured = [dataclasses.replace(m, outputs={output: value}) for m, (_, value) in pairs]
    rows = (json.dumps(dataclasses.asdict(m)) for m in measured)
    (directory.path / "measurements.jsonl").write_text("\n".join(rows) + "\n")
    (directory.path / "iterations.csv").write_text(
        "iteration,lr,loss\n" + "".join(f"{i},0.01,{2 - i / 100}\n" for i in range(tests[-1][0]))
    )
