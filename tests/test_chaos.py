"""The frame of tools/chaos: it sees what is wrong, a traceback, a hang and what is left."""

from __future__ import annotations

import json
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chaoslab import results, running, trial
from chaoslab.lab import Lab
from chaoslab.processes import MARK, marked
from chaoslab.registry import Scenario, load_all
from chaoslab.trial import Ended, Trial, perform
from chaoslab.verdicts import (
    EQUAL,
    HANG,
    LEFT,
    REFUSED,
    SKIPPED,
    TRACEBACK,
    WRONG,
    Skip,
    TrialVerdict,
)
from lrbench_caffe.terminal.cli import INTERRUPTED

ROOT = Path(__file__).parents[1]
PYTHON = sys.executable


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trial, "GONE_SECONDS", 0.5)
    made = Lab(str(tmp_path))
    yield made
    made.close(keep=False)
    assert marked(made.name) == {}


def verdict_of(lab: Lab, body) -> TrialVerdict:
    return perform(lab, Scenario("fake", body), seed=1).verdict


def python(code: str) -> tuple[str, ...]:
    return (PYTHON, "-c", code)


# What a command says and with which exit code it ends, and what that is where a refusal is allowed.
ENDS = {
    "a refusal": ("import sys; sys.exit('error: no')", REFUSED),
    "a refusal with a remark": ("import sys; sys.stderr.write('note: x\\n'); sys.exit('error: no')", REFUSED),
    "two lines": ("import sys; sys.exit('error: no\\nand more')", WRONG),
    "silence": ("import sys; sys.exit(1)", WRONG),
    "another exit code": ("import sys; print('error: no', file=sys.stderr); sys.exit(3)", WRONG),
    "a signal": ("import os; os.kill(os.getpid(), 11)", WRONG),
    "success": ("pass", WRONG),
    "a traceback": ("1 / 0", TRACEBACK),
    "a caught traceback": ("import traceback\ntry: 1 / 0\nexcept: traceback.print_exc()", TRACEBACK),
}  # fmt: skip


@pytest.mark.parametrize("end", ENDS)
def test_what_counts_as_a_refusal(lab: Lab, end: str) -> None:
    code, expected = ENDS[end]

    def body(one: Trial) -> str:
        one.run(python(code)).refusal()
        return REFUSED

    assert verdict_of(lab, body).kind == expected


def test_success_is_equal_only_if_the_scenario_says_so(lab: Lab) -> None:
    assert verdict_of(lab, lambda one: one.run(python("pass")).success() and EQUAL) == TrialVerdict(
        EQUAL
    )
    failed = verdict_of(
        lab, lambda one: one.run(python("import sys; sys.exit('error: no')")).success() and EQUAL
    )
    assert failed.kind == WRONG
    assert "exit code 1: error: no instead of success" in failed.detail


def test_a_traceback_in_a_log_is_seen(lab: Lab) -> None:
    def body(one: Trial) -> str:
        (one.folder / "runs").mkdir()
        text = "Traceback (most recent call last):\n  File 'x'\nKeyError: 'lr'\n"
        (one.folder / "runs" / "output.log").write_text(text)
        return EQUAL

    assert verdict_of(lab, body) == TrialVerdict(TRACEBACK, "output.log: KeyError: 'lr'; ")


def test_the_tracebacks_of_other_programs_are_theirs(lab: Lab) -> None:
    def body(one: Trial) -> str:
        one.start(python("1 / 0"), others=True).wait(60)
        return EQUAL

    assert verdict_of(lab, body) == TrialVerdict(EQUAL)


def test_a_hang_is_seen_and_ended(lab: Lab) -> None:
    def body(one: Trial) -> str:
        one.start(python("import time; time.sleep(600)")).wait(0.2)
        return EQUAL

    began = time.monotonic()
    assert verdict_of(lab, body).kind == HANG
    assert time.monotonic() - began < 60


# A grandchild in a session of its own, which outlives the command that started it.
LEAVES = (
    "import subprocess, sys; "
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)"
)


def test_a_left_process_is_seen_and_ended(lab: Lab) -> None:
    def body(one: Trial) -> str:
        one.run(python(LEAVES)).success()
        return EQUAL

    found = verdict_of(lab, body)
    assert found.kind == LEFT
    assert "time.sleep(600)" in found.detail
    assert marked(lab.name) == {}


def test_left_temporary_files_are_seen_unless_a_command_was_killed(lab: Lab) -> None:
    def body(one: Trial) -> str:
        one.run(python("import tempfile; tempfile.mkdtemp(prefix='look-')")).success()
        return EQUAL

    def killed(one: Trial) -> str:
        one.killed = True
        return body(one)

    found = verdict_of(lab, body)
    assert found.kind == LEFT
    assert found.detail.startswith("left: tmp/look-")
    assert verdict_of(lab, killed) == TrialVerdict(EQUAL)


def test_the_processes_of_a_lab_include_those_of_its_trials(lab: Lab) -> None:
    def body(one: Trial) -> str:
        running = one.start(python("import time; time.sleep(600)"))
        # For a moment after it begins, the kernel shows no environment of a program.
        end = time.monotonic() + 30
        while running.pid not in marked(one.mark):
            assert time.monotonic() < end
        assert running.pid in marked(lab.name)
        assert running.pid not in marked(f"{lab.name}x") | marked(f"{one.mark[:-1]}")
        return EQUAL

    assert verdict_of(lab, body) == TrialVerdict(EQUAL)


def test_what_a_scenario_itself_starts_is_not_left(lab: Lab) -> None:
    def body(one: Trial) -> str:
        one.start(python("import time; time.sleep(600)"))
        return EQUAL

    assert verdict_of(lab, body) == TrialVerdict(EQUAL)


def test_other_processes_are_not_touched(lab: Lab) -> None:
    other = subprocess.Popen(python("import time; time.sleep(600)"), env={MARK: "of another lab"})
    try:
        assert verdict_of(lab, lambda one: EQUAL) == TrialVerdict(EQUAL)
        lab.close(keep=False)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_scenario_that_fails_itself_is_wrong(lab: Lab) -> None:
    found = verdict_of(lab, lambda one: str(1 / 0))
    assert found.kind == WRONG
    assert "ZeroDivisionError" in found.detail


def test_a_skip_says_why(lab: Lab) -> None:
    def body(one: Trial) -> str:
        raise Skip("no C compiler")

    assert verdict_of(lab, body) == TrialVerdict(SKIPPED, "no C compiler")


def test_the_folder_of_a_bad_trial_is_kept_on_request(lab: Lab) -> None:
    perform(lab, Scenario("bad", lambda one: one.run(python("1/0")) and EQUAL), 1, keep=True)
    perform(lab, Scenario("good", lambda one: EQUAL), 1, keep=True)
    assert list(lab.folder.glob("*-bad"))
    assert not list(lab.folder.glob("*-good"))


# -- comparing -------------------------------------------------------------------------------------

TEST = {"iteration": 50, "net": 0, "top1": 61.0, "outputs": {"loss": 1.5}, "seconds": 0.1}
SNAPSHOT = {
    "iteration": 50,
    "model": "x_iter_50.caffemodel",
    "state": "x_iter_50.solverstate",
    "automatic": False,
}


def write_run(folder: Path, **changes: str) -> Path:
    files = {
        "run.json": json.dumps({"status": "finished"}),
        "measurements.jsonl": json.dumps(TEST) + "\n",
        "iterations.csv": "iteration,lr,loss\n0,0.1,2.5\n1,0.1,2.25\n",
        "snapshots.jsonl": json.dumps(SNAPSHOT) + "\n",
        "snapshots/x_iter_50.caffemodel": "weights",
        "snapshots/x_iter_50.solverstate": "state",
        **changes,
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


CHANGES = {
    "another time": ("measurements.jsonl", json.dumps({**TEST, "seconds": 9}) + "\n", None),
    "another Top-1": (
        "measurements.jsonl",
        json.dumps({**TEST, "top1": 61.2}) + "\n",
        "test (50, 0) is",
    ),
    "a lost test": ("measurements.jsonl", "", "tests missing: [(50, 0)]"),
    "a test twice": ("measurements.jsonl", 2 * (json.dumps(TEST) + "\n"), "stands twice"),
    "another status": (
        "run.json",
        json.dumps({"status": "failed", "reason": "x"}),
        "status failed (x)",
    ),
    "another loss": (
        "iterations.csv",
        "iteration,lr,loss\n0,0.1,2.5\n1,0.1,2.3\n",
        "iteration 1 is",
    ),
    "a lost loss": ("iterations.csv", "iteration,lr,loss\n0,0.1,2.5\n", "iterations missing: [1]"),
    "no snapshot": ("snapshots.jsonl", "", "there is no snapshot of iteration 50"),
    "a line of zeros": ("measurements.jsonl", "\0\0\n", "cannot be read: JSONDecodeError"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_differences_of_runs(tmp_path: Path, change: str) -> None:
    name, text, expected = CHANGES[change]
    said = results.differences(write_run(tmp_path / "a"), write_run(tmp_path / "b", **{name: text}))
    assert said == [] if expected is None else any(expected in word for word in said)


def test_what_a_kill_may_leave_is_seen(tmp_path: Path) -> None:
    write_run(tmp_path / "out")
    assert trial.temporary_files(tmp_path) == []
    assert trial.unrecorded_snapshots(tmp_path / "out") == []
    for name in (
        "out/run.json.tmp",
        ".x_iter_50.caffemodel.4711",
        "out/snapshots/x_iter_60.caffemodel",
    ):
        (tmp_path / name).write_text("")
    assert sorted(path.name for path in trial.temporary_files(tmp_path)) == [
        ".x_iter_50.caffemodel.4711", "run.json.tmp",
    ]  # fmt: skip
    assert trial.unrecorded_snapshots(tmp_path / "out") == [
        "left: snapshots/x_iter_60.caffemodel is in no line of snapshots.jsonl"
    ]


# -- which trials, and the table -------------------------------------------------------------------


def test_the_seed_decides_which_trials_are_done() -> None:
    scenarios = [Scenario(name, lambda one: EQUAL, weight) for name, weight in (("a", 1), ("b", 3))]

    def chosen(seed: int) -> list[tuple[str, int]]:
        todo = running.at_random(scenarios, seed, minutes=1)
        return [(one.name, number) for one, number in (next(todo) for _ in range(40))]

    assert chosen(1) == chosen(1) != chosen(2)
    assert {name for name, _ in chosen(1)[:2]} == {"a", "b"}
    assert len({number for _, number in chosen(1)}) == 40
    assert list(running.at_random(scenarios, 1, minutes=0)) == []


def test_the_table_counts_and_the_file_tells_each_trial(tmp_path: Path) -> None:
    kinds = {"a": [EQUAL, EQUAL, WRONG], "b": [REFUSED, LEFT]}
    tally = running.Tally(7)
    for name, verdicts in kinds.items():
        tally.ended += [Ended(name, 1, TrialVerdict(kind), 1.0, ()) for kind in verdicts]
    assert [row[:3] + row[5:6] + row[-1:] for row in tally.rows()] == [
        ["scenario", "tried", "equal", "wrong", "left"],
        ["a", "3", "2", "1", "0"],
        ["b", "2", "0", "0", "1"],
        ["all", "5", "2", "1", "1"],
    ]
    assert [one.verdict.kind for one in tally.bad] == [WRONG, LEFT]
    tally.write(tmp_path / "table.json")
    written = json.loads((tmp_path / "table.json").read_text())
    assert written["scenarios"]["all"]["tried"] == len(written["trials"]) == 5


def chaos(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [PYTHON, str(ROOT / "tools" / "chaos"), *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_every_scenario_is_listed_and_an_unknown_one_refused(tmp_path: Path) -> None:
    done = chaos(cwd=tmp_path)
    assert done.returncode == 0
    scenarios = load_all()
    assert scenarios
    for one in scenarios.values():
        assert one.help, one.name
        assert one.name in done.stdout
    done = chaos("kill-randomly", cwd=tmp_path)
    assert done.returncode == 2
    assert "no scenario 'kill-randomly'; known: " in done.stderr


def test_many_signals_end_it_like_one(tmp_path: Path, caffe_python) -> None:
    process = subprocess.Popen(
        [PYTHON, str(ROOT / "tools" / "chaos"), "kill-random", "damaged-run", "--folder", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        name = process.stdout.readline().rpartition("/")[2].strip()
        while not marked(name):
            assert process.poll() is None
            time.sleep(0.01)
        # One every 5 ms, until it says that it has cleaned up.
        while not select.select([process.stdout], [], [], 0.005)[0]:
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert err == ""
    assert out.startswith("interrupted; so far:\n")
    assert re.search(r"^ *all +0 ", out, re.MULTILINE)
    assert process.returncode == INTERRUPTED
    assert marked(name) == {}
    assert list(tmp_path.iterdir()) == []


SHORT = (
    "kill-random",
    "kill-at-file-operation",
    "failing-disk",
    "kill-tune",
    "clock-jump",
    "suspension",
    "mutated-prototxt",
    "damaged-run",
    "damaged-database",
    "damaged-export",
    "damaged-log",
    "damaged-lmdb",
    "old-database",
    "hostile-names",
)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_short_part(tmp_path: Path, caffe_python) -> None:
    """``tools/chaos --minutes 30`` is for releases; these trials are always the same."""
    done = chaos(
        *SHORT, "--seed", "1", "--folder", str(tmp_path), "--json", "table.json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads((tmp_path / "table.json").read_text())["scenarios"]
    for name in SHORT:
        good = counts[name]["equal"] + counts[name]["refused"] + counts[name]["skipped"]
        assert counts[name]["tried"] == good == 1, name
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]
