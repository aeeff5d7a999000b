"""range and tune on real Caffe, as they are typed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from lrbench_caffe.database import Database
from lrbench_caffe.datasets.datum import Datum
from lrbench_caffe.lr import parse
from lrbench_caffe.tuning.verdict import KEEP_OWN
from tests.caffe import nets
from tests.caffe.conftest import make_workspace
from tests.caffe.harness import (
    ENVIRONMENT,
    Done,
    Run,
    Workspace,
    invert_training_images,
    own_data,
)
from tests.datasets.lmdb_files import records

TUNE = (
    "tune", "solver.prototxt", "--fresh", "--functions", "cyclic", "--max-iter", "200",
    "--test-interval", "50", "--top", "1", "--seeds", "2", "--budget", "1400", "--layers", "stock",
    "--holdout", "0", "--out", "study", "--jobs", "2",
)  # fmt: skip
HELD_OUT = (
    "tune", "solver.prototxt", "--fresh", "--functions", "sin2", "--max-iter", "120",
    "--test-interval", "30", "--top", "1", "--seeds", "2", "--budget", "600", "--layers", "stock",
    "--out", "study", "--jobs", "2",
)  # fmt: skip


def ours(command: str, *args: str) -> list[str]:
    return [sys.executable, "-m", f"lrbench_caffe.{command}", *args, "--db", "lr.sqlite"]


def run(workspace: Workspace, *args: str) -> Done:
    return workspace.command(ours(*args))


def tuned(workspace: Workspace, *args: str, folder: str = "study") -> Done:
    """A tuning that ended; its exit code, report and screen say the same."""
    done = run(workspace, *args)
    verdict = json.loads((workspace.path / folder / "result.json").read_text())["verdict"]
    assert done.code == (KEEP_OWN if verdict["keep_own"] else 0), f"{done.out}\n{done.err}"
    assert f"verdict: {verdict['text']}" in done.out
    assert verdict["text"][1:] in (workspace.path / folder / "report.md").read_text()
    command = done.out.splitlines()[-1]
    assert command.startswith("python -m lrbench_caffe.train solver.prototxt ")
    _the_range_is_in_study_json(workspace.path / folder)
    assert ("--lr" in command) != verdict["keep_own"]
    return done


def _the_range_is_in_study_json(study: Path) -> None:
    """As result.json has it, where the study found it, for pages that show the study before its end."""
    known = json.loads((study / "result.json").read_text())["range"]
    found = json.loads((study / "study.json").read_text()).get("range")
    assert (known.pop("source") == "range test") == (found is not None)
    assert found in (None, known)


def runs(study: Path) -> dict[str, Run]:
    return {
        path.parent.name: Run(path.parent) for path in sorted(study.glob("trainings/*/run.json"))
    }


def results(study: Path) -> dict[str, tuple[int, Sequence[float]]]:
    """How far each training got, and its Top-1."""
    return {
        name: (one.record["iteration"], [row["top1"] for row in one.last_measurements().values()])
        for name, one in runs(study).items()
    }


@pytest.mark.ci
def test_range_by_ladder_and_by_ramp(workspace: Workspace) -> None:
    workspace.write("solver.prototxt", nets.solver(max_iter=400, test_interval=20))
    done = run(
        workspace, "range", "solver.prototxt", "--layers", "stock", "--out", "range"
    ).succeeded()
    found = json.loads((workspace.path / "range" / "range.json").read_text())
    assert 0.001 <= found["low"] <= found["best"] <= found["high"] < 10
    assert f"range of good LRs: {found['low']:g} to {found['high']:g}" in done.out
    assert (workspace.path / "range" / "range.png").is_file()
    with Database.open(str(workspace.path / "lr.sqlite")) as database:
        stored = list(database.runs(source="measured"))
    assert {run.policy.function for run in stored} == {"FIX"}
    assert len(stored) == len(runs(workspace.path / "range"))

    again = run(
        workspace, "range", "solver.prototxt", "--layers", "stock", "--out", "range"
    ).succeeded()
    assert "FIX(" not in again.out.partition("Top-1 (%) with")[0]  # nothing was trained again
    run(workspace, "range", "solver.prototxt", "--out", "range", "--test-interval", "5").failed(
        2, "range holds a study with test_interval 20, not 5; allowed: the same, or another --out"
    )

    ramp = (
        "range",
        "solver.prototxt",
        "--layers",
        "stock",
        "--form",
        "ramp",
        "--passes",
        "2",
        "--out",
        "ramp",
    )
    # Beside the ladder, or in a folder of its own: the two have nothing in common that must be the same.
    run(workspace, *ramp[:-1], "range", "--iterations", "60").succeeded()
    kept = json.loads((workspace.path / "range" / "study.json").read_text())["plan"]
    assert (kept["form"], kept["chance"], kept["test_interval"]) == ("ladder", 10.0, 20)
    run(workspace, *ramp, "--iterations", "200").succeeded()
    rising = json.loads((workspace.path / "ramp" / "range.json").read_text())
    assert rising["form"] == "ramp"
    assert found["low"] / 30 < rising["high"] < 30 * found["high"]
    assert (workspace.path / "ramp" / "ramp.png").is_file()
    with Database.open(str(workspace.path / "lr.sqlite")) as database:
        assert len(list(database.runs(source="measured"))) == len(stored)  # a pass is no result
        assert len({task.title for task in database.tasks() if "digits" in task.title}) == 1


def test_a_range_test_that_shows_no_range_says_why_in_its_file(workspace: Workspace) -> None:
    layer = nets.inner_product("ip2", "data", 10, 2 * "param { lr_mult: 0 } ")
    weights_of_0 = layer.replace("xavier", "constant")  # a loss of log 10, whatever the LR
    workspace.write("net.prototxt", nets.net(middle=weights_of_0))
    workspace.write("solver.prototxt", nets.solver(max_iter=10, test_interval=5))
    ramp = ("--form", "ramp", "--iterations", "10", "--passes", "1", "--layers", "stock")
    done = run(workspace, "range", "solver.prototxt", *ramp, "--out", "range")
    reason = done.err.removeprefix("error: ").strip()
    done.failed(1, "the loss of the range test did not fall at any LR by more than its noise")
    assert "--" not in reason  # it is stored, for readers who did not type a command
    found = json.loads((workspace.path / "range" / "range.json").read_text())
    assert (found["form"], found["failure"]) == ("ramp", reason)
    assert [found[name] for name in ("low", "high", "best", "rule")] == [None] * 4
    assert (found["lost"], found["policies"]) == ([], {})


@pytest.mark.slow
def test_range_with_a_damaged_database(workspace: Workspace) -> None:
    workspace.write("solver.prototxt", nets.solver(max_iter=10, test_interval=5))
    words = (
        "range",
        "solver.prototxt",
        "--layers",
        "stock",
        "--iterations",
        "10",
        "--out",
        "range",
    )
    workspace.write("lr.sqlite", "not a database" * 1000)
    (line,) = [
        line for line in run(workspace, *words).succeeded().out.splitlines() if "database" in line
    ]
    assert line.startswith(
        "the LR database: database lr.sqlite is damaged: file is not a database; "
    )
    assert line.endswith("; results wait in range")

    (workspace.path / "lr.sqlite").unlink()
    count = len(runs(workspace.path / "range"))
    done = run(workspace, *words).succeeded()
    added = f"added to the LR database: {count} runs that waited for it\n"
    assert added in done.out + done.err
    assert "database" not in run(workspace, *words).succeeded().out


@pytest.fixture(scope="module")
def whole(shared_workspace: Workspace) -> Workspace:
    """A study that was not interrupted."""
    tuned(shared_workspace, *TUNE)
    return shared_workspace


def test_tune(whole: Workspace) -> None:
    study = whole.path / "study"
    trained = runs(study)
    ends = [one.record["status"] for one in trained.values()]
    assert set(ends) <= {"stopped", "finished", "diverged"} and ends.count("finished") >= 2
    report = (study / "report.md").read_text()
    total = sum(one.record["iteration"] for one in trained.values())
    assert f"| in all | {total:,} |" in report
    assert (study / "tuning.png").is_file()
    found = json.loads((study / "result.json").read_text())
    own = [one for one in trained.values() if one.record["policy"] == found["verdict"]["own"]]
    assert sorted(one.record["seed"] for one in own if one.record["status"] == "finished") == [1, 2]
    again = whole.command(ours(*TUNE, "--json"))
    assert json.loads(again.out) == found
    assert "finalists" in again.err
    with Database.open(str(whole.path / "lr.sqlite")) as database:
        stored = list(database.runs(source="measured"))
    assert len(stored) == len(trained)


def count_tests(study: Path) -> int:
    """How many tests the trainings of a study have."""
    return sum(len(one.measurements()) for one in runs(study).values())


def is_unfinished(run: Run) -> bool:
    """Whether a training was stopped before it was where it was to pause."""
    return run.record["status"] == "stopped" and not run.record.get("paused")


def end_after(workspace: Workspace, command: Sequence[str], tests: int, by: signal.Signals) -> None:
    """Begin a study, and send its command a signal when its trainings have so many tests."""
    process = subprocess.Popen(
        ours(*command), cwd=workspace.path, env=ENVIRONMENT, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    study = workspace.path / "study"
    while count_tests(study) < tests:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(by)
    process.wait()


@pytest.mark.ci
def test_killed_and_started_again_it_makes_the_same_study(
    workspace: Workspace, whole: Workspace
) -> None:
    study = workspace.path / "study"
    for tests in (6, 25):
        end_after(workspace, TUNE, tests, signal.SIGKILL)
    tuned(workspace, *TUNE)
    assert results(study) == results(whole.path / "study")
    assert all(len(one.iterations()) == one.record["iteration"] for one in runs(study).values())


@pytest.mark.slow
def test_one_job_decides_as_two_do(workspace: Workspace, whole: Workspace) -> None:
    tuned(workspace, *TUNE[:-1], "1")
    assert results(workspace.path / "study") == results(whole.path / "study")


@pytest.mark.slow
def test_a_second_tuning_starts_from_what_is_known(whole: Workspace, tmp_path: Path) -> None:
    workspace = whole.copy(tmp_path / "copy")
    again = [word for word in TUNE if word != "--fresh"]
    again[again.index("study")] = "second"
    done = tuned(workspace, *again, folder="second")
    known = json.loads((workspace.path / "second" / "result.json").read_text())["known"]
    assert known
    trained = {one.record["policy"] for one in runs(workspace.path / "second").values()}
    for policy in known:
        assert f"tried first: {policy} (from the LR database" in done.out
        assert policy in trained


GIVEN = ("SIN2(k0=0.001, k1=0.04, l=50)", "FIX(k0=2e-05)")


@pytest.mark.ci
def test_a_tuning_of_given_policies_and_lrs(workspace: Workspace) -> None:
    words = (
        "tune", "solver.prototxt", "--fresh", "--holdout", "0", "--layers", "stock", "--out", "study",
        "--max-iter", "100", "--budget", "300", "--top", "1", "--seeds", "1", "--jobs", "1",
        "--functions", "fix,step", "--lr-range", "0.01,0.05",
        *(word for policy in GIVEN for word in ("--try-first", policy)),
    )  # fmt: skip
    done = run(workspace, *words)
    assert done.code in (0, KEEP_OWN)
    for policy in GIVEN:
        assert f"tried first: {policy} (given)" in done.out
    assert "range of good LRs, given: 0.01 to 0.05" in done.out
    found = json.loads((workspace.path / "study" / "result.json").read_text())
    assert found["known"] == list(GIVEN)
    assert found["range"] == {"low": 0.01, "high": 0.05, "best": 0.022, "source": "given"}
    trained = {one.record["policy"] for one in runs(workspace.path / "study").values()}
    assert trained.issuperset(GIVEN)
    # Each candidate of the heuristics is in the range; there was no range test.
    others = [parse(text) for text in (*trained, *found["untried"]) if text not in GIVEN]
    highest = [max(policy.bind(100)(t) for t in range(100)) for policy in others]
    assert highest and all(0.01 <= lr <= 0.05 for lr in highest)  # the solver's own: 0.05
    run(workspace, *words[:-2]).failed(2, "study holds a study with try_first", "another --out")


# -- held-out records ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def held_out(
    tmp_path_factory: pytest.TempPathFactory, digits: Path, caffe_program: str
) -> Workspace:
    """A study with held-out records that was not interrupted."""
    workspace = make_workspace(tmp_path_factory.mktemp("held-out"), digits, caffe_program)
    done = tuned(workspace, *HELD_OUT)
    line = "130 of 1,297 training records are held out to judge by; copying "
    assert done.out.count(line) == 1
    return workspace


def test_tune_by_held_out_records(held_out: Workspace) -> None:
    study = held_out.path / "study"
    found = json.loads((study / "result.json").read_text())
    told = found["holdout"]
    assert [told[name] for name in ("share", "seed", "records", "held_out")] == [0.1, 1, 1297, 130]
    trained = runs(study)
    final = {name: one for name, one in trained.items() if not name.endswith("-holdout")}
    assert {one.record["solver"] for one in final.values()} == {"solver.prototxt"}
    judged = {one.record["solver"] for name, one in trained.items() if name not in final}
    assert judged == {"study/holdout/solver.prototxt"}
    policies = {entry["policy"] for entry in (*found["finalists"], found["own"])}
    assert {one.record["policy"] for one in final.values()} == policies
    # What the report says of each is in its trainings' measurements, at the iteration that counts.
    for entry in (*told["finalists"], told["own"]):
        of = [one for one in trained.values() if one.record["policy"] == entry["policy"]]
        rows = [one.last_measurements()[entry["iteration"], 0] for one in of]
        by_records: dict[int, list[float]] = {130: [], 500: []}
        for row in rows:
            by_records[row["samples"]].append(row["top1"])
        assert by_records[130] == [entry["held_out"]]
        assert len(by_records[500]) == 2
        assert entry["test"] == pytest.approx(sum(by_records[500]) / 2)
        best = [max(r["top1"] for r in one.last_measurements().values()) for one in of
                if one.record["solver"] == "solver.prototxt"]  # fmt: skip
        assert entry["best_test"] == pytest.approx(sum(best) / 2)
    assert "## Held-out records and test set" in (study / "report.md").read_text()


@pytest.mark.ci
def test_a_study_removes_its_copies_and_its_runs_are_on_data_of_their_own(
    held_out: Workspace, tmp_path: Path
) -> None:
    workspace = held_out.copy(tmp_path / "copy")
    study = workspace.path / "study"
    assert not list(study.glob("holdout/*_lmdb"))
    again = tuned(workspace, *HELD_OUT)
    assert "copying" not in again.out  # nothing was trained
    before = results(study)
    more = (*HELD_OUT, "--seeds", "3")
    assert "copying" not in tuned(workspace, *more).out  # on all records alone
    assert results(study).items() >= before.items() and len(results(study)) == len(before) + 2
    with Database.open(str(workspace.path / "lr.sqlite")) as database:
        data = {
            (task.dataset.name, task.dataset.train_samples, task.dataset.test_samples)
            for task in database.tasks()
            if task.dataset.name.startswith("digits")
        }
    assert data == {("digits", 1297, 500), ("digits_holdout", 1167, 130)}


@pytest.mark.slow
def test_killed_with_held_out_records_it_makes_the_same_study(
    workspace: Workspace, held_out: Workspace
) -> None:
    study = workspace.path / "study"
    for tests in (1, 8, 14):
        end_after(workspace, HELD_OUT, tests, signal.SIGKILL)
        whole = records(workspace.path / "data" / "digits_train_lmdb")
        rest = records(study / "holdout" / "digits_holdout_train_lmdb")
        held = records(study / "holdout" / "digits_holdout_test_lmdb")
        assert sorted(rest + held) == whole and not set(rest) & set(held)
        classes = [Counter(Datum.FromString(v).label for _, v in part) for part in (whole, held)]
        for label, count in classes[0].items():
            assert abs(classes[1][label] - count * 130 / 1297) < 1
    tuned(workspace, *HELD_OUT)
    wanted = json.loads((held_out.path / "study" / "result.json").read_text())
    mine = json.loads((study / "result.json").read_text())
    for found in (mine, wanted):  # what was measured differs
        del found["seconds"]
    assert mine == wanted or wanted["seeds"] == [1, 2, 3]
    assert results(study).items() <= results(held_out.path / "study").items()


@pytest.mark.slow
@pytest.mark.parametrize("share", ["0", "0.1"])
def test_data_exchanged_between_a_study_and_its_continuation(
    workspace: Workspace, share: str
) -> None:
    """Other images with the same labels are refused; the same ones in another file are not."""
    words = (*HELD_OUT, "--seeds", "1", "--holdout", share)
    tuned(workspace, *words)
    before = results(workspace.path / "study")
    own_data(workspace)
    tuned(workspace, *words)
    more = (*words, "--seeds", "2")
    invert_training_images(workspace)
    done = run(workspace, *more)
    done.failed(2, "study", "the data has changed", "the data as it was, or another --out")
    assert results(workspace.path / "study") == before
    invert_training_images(workspace)
    assert "copying" not in tuned(workspace, *more).out
    assert results(workspace.path / "study").items() > before.items()


@pytest.mark.ci
def test_a_moved_study_says_where_it_was_begun(workspace: Workspace) -> None:
    """Its trainings on held-out records know their solver there."""
    study = workspace.path / "study"
    while not any(is_unfinished(one) for one in runs(study).values()):
        end_after(workspace, HELD_OUT, count_tests(study) + 1, signal.SIGINT)
    study.rename(workspace.path / "moved")
    words = ["moved" if word == "study" else word for word in HELD_OUT]
    wanted = "moved: the study was begun in study and cannot be continued elsewhere"
    run(workspace, *words).failed(2, wanted, "allowed: move it back, or another --out")


NOISE = """
layer {
  name: "noise" type: "DummyData" top: "data" top: "label" include { phase: TRAIN }
  dummy_data_param { shape { dim: 20 dim: 1 dim: 8 dim: 8 } shape { dim: 20 } }
}"""


@pytest.mark.ci
def test_data_that_cannot_be_held_out(workspace: Workspace) -> None:
    """It is said, and the tuning continues with the test set; asked for, it is refused."""
    workspace.write("net.prototxt", nets.net(train=NOISE))
    words = (
        "tune",
        "solver.prototxt",
        "--max-iter",
        "20",
        "--seeds",
        "1",
        "--out",
        "study",
        "--fresh",
    )
    why = "the training net reads no LMDB"
    asked = run(workspace, *words, "--holdout", "0.2")
    asked.failed(2, "--holdout 0.2", why, "allowed: --holdout 0, to judge by the test set")
    assert not (workspace.path / "study").exists()
    done = run(workspace, *words, "--functions", "sin2", "--budget", "40", "--layers", "stock")
    line = f"candidates are judged by the test set, as no records can be held out: {why}"
    assert line in (done.out + done.err).splitlines()
    assert json.loads((workspace.path / "study" / "study.json").read_text())["plan"]["holdout"] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--holdout", "0.7"), ("--holdout", "0.7", "0, or a share from 0.01 to 0.5")),
        (("--budget", "many"), ("--budget", "'many'", "xF")),
        (("--functions", "sinn"), ("--functions", "sinn", "did you mean")),
        (("--top", "0"), ("--top", "0", "1 or more")),
        (("--jobs", "0"), ("--jobs", "0", "1 or more")),
        (("--target-top1", "120"), ("--target-top1", "120", "at most 100")),
        (("--gpus", "0,0"), ("--gpus", "0,0", "once")),
        (("--gpus", ""), ("--gpus", "''", "comma-separated")),
        (("--try-first", "sin2"), ("--try-first: ", "SIN2")),
        (("--try-first", "FIX(k0=1) ; plateau(n=2): FIX(k0=0.1)"), ("--try-first: ", "a plateau")),
        (
            ("--lr-range", "0.1"),
            ("--lr-range: 0.1; allowed: a pair of numbers, the lowest and the highest LR",),
        ),
        (("--lr-range", "0.1,0.01"), ("--lr-range: 0.1,0.01; allowed",)),
        (("--lr-range", "1e-40,0.01"), ("--lr-range: 1e-40,0.01; allowed", "1e-30 or more")),
        (("--lr-range", "0,0.01"), ("--lr-range: 0.0,0.01; allowed",)),
        (("--lr-range", "0.1,x"), ("--lr-range: '0.1,x'; allowed: LOW,HIGH",)),
        (("--gpus", "a"), ("--gpus", "'a'", "comma-separated")),
        (("--gpus", "0,1"), ("--gpus 0,1", "CPU-only")),
        (("--scheduler", "here"), ("--scheduler", "'here'", "tcp://host:8786")),
        (("--scheduler", "tcp://127.0.0.1:9", "--jobs", "2"), ("--scheduler", "--jobs")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else value,
)
def test_bad_input_is_one_line(
    workspace: Workspace, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    run(workspace, "tune", "solver.prototxt", "--out", "bad", *arguments).failed(2, *words)
    assert not (workspace.path / "bad").exists()


def test_a_net_that_does_not_classify(workspace: Workspace) -> None:
    workspace.write("solver.prototxt", nets.solver(test_iter=None, test_interval=None))
    run(workspace, "tune", "solver.prototxt", "--out", "bad").failed(
        2, "solver.prototxt", "no test net"
    )
