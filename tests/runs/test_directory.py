"""A run's files: what a kill leaves behind, what a resumed run repeats, and who may write."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lrbench_caffe.errors import InputError, PassingError
from lrbench_caffe.files import remove_leftovers, temporary_of
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.runs.newest import find_newest, mark_latest
from lrbench_caffe.training.settings import RunSettings

ROW = Measurement(
    iteration=100, lr=0.01, top1=90.5, top5=99.0, ac=0.9, cd=0.1, cdac=0.05, test_loss=0.3, train_loss=0.25,
    ld=0.05, seconds=1.5, samples=200, silent_classes=1, net=0,
)  # fmt: skip


@pytest.fixture
def run(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    directory.lock()
    yield directory
    directory.release()


def at(iteration: int, top1: float | None, net: int = 0) -> Measurement:
    return dataclasses.replace(ROW, iteration=iteration, top1=top1, net=net)


# -- measurements ----------------------------------------------------------------------------------


def test_measurements_round_trip_and_have_the_promised_keys(run):
    run.add_measurement(ROW)
    assert run.measurements() == [ROW]
    (line,) = (run.path / "measurements.jsonl").read_text().splitlines()
    assert list(json.loads(line)) == [
        "iteration", "lr", "top1", "top5", "ac", "cd", "cdac", "test_loss", "train_loss", "ld", "seconds",
        "samples", "silent_classes", "net", "outputs",
    ]  # fmt: skip


def test_a_measurement_is_in_the_file_at_once(run):
    run.add_measurement(ROW)
    assert RunDirectory(run.path).measurements() == [ROW]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_say_becomes_null(run, value):
    run.add_measurement(dataclasses.replace(ROW, ac=value, test_loss=value))
    text = (run.path / "measurements.jsonl").read_text()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    row = json.loads(text, parse_constant=refuse)
    assert (row["ac"], row["test_loss"], row["top1"]) == (None, None, 90.5)
    assert run.measurements()[0].ac is None


def test_the_later_measurement_of_an_iteration_is_valid(run):
    for row in (at(0, 10), at(100, 50), at(200, 60)):
        run.add_measurement(row)
    resumed = RunDirectory(run.path)
    for row in (at(100, 51), at(200, 60), at(300, 70)):
        resumed.add_measurement(row)
    assert [(m.iteration, m.top1) for m in run.measurements()] == [
        (0, 10),
        (100, 51),
        (200, 60),
        (300, 70),
    ]
    # Each stands there once, and one that was measured again with the same result was not touched.
    assert [row["iteration"] for row in run.rows("measurements.jsonl")] == [0, 200, 100, 300]


def test_a_file_of_a_former_version_may_hold_a_test_twice(run):
    for row in (at(0, 10), at(100, 50), at(200, 60), at(100, 51), at(200, 61)):
        run.append("measurements.jsonl", dataclasses.asdict(row))
    assert [(m.iteration, m.top1) for m in run.measurements()] == [(0, 10), (100, 51), (200, 61)]


def test_every_test_net_has_its_own(run):
    for row in (at(100, 1, net=1), at(0, 2, net=1), at(0, 3, net=0), at(100, 4, net=0)):
        run.add_measurement(row)
    assert [(m.iteration, m.net, m.top1) for m in run.measurements()] == [
        (0, 0, 3),
        (0, 1, 2),
        (100, 0, 4),
        (100, 1, 1),
    ]


# -- iterations ------------------------------------------------------------------------------------


def test_iterations_round_trip_exactly(run):
    lrs = np.array([0.1, 0.1 / 3, 1e-7])
    losses = np.array([2.302585, 1 / 3, 0.1], dtype=np.float32)
    run.add_iterations(5, lrs, losses.astype(np.float64))
    found = RunDirectory(run.path).iterations()
    assert found[:, 0].tolist() == [5, 6, 7]
    assert found[:, 1].tolist() == lrs.tolist()
    assert found[:, 2].astype(np.float32).tolist() == losses.tolist()  # Caffe's losses are float32
    assert (run.path / "iterations.csv").read_text().startswith("iteration,lr,loss\n5,0.1,2.3025")


def test_repeated_iterations(run):
    run.add_iterations(0, np.full(4, 0.1), np.array([1.0, 2, 3, 4]))
    run.release()
    run.lock()
    run.add_iterations(2, np.full(3, 0.2), np.array([30.0, 40, 50]))
    assert run.iterations().tolist() == [
        [0, 0.1, 1],
        [1, 0.1, 2],
        [2, 0.2, 30],
        [3, 0.2, 40],
        [4, 0.2, 50],
    ]
    lines = (run.path / "iterations.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["iteration", "0", "1", "2", "3", "4"]


def test_a_former_file_with_an_iteration_twice(run):
    (run.path / "iterations.csv").write_text("iteration,lr,loss\n0,0.1,1.0\n1,0.1,2.0\n1,0.2,3.0\n")
    assert run.iterations().tolist() == [[0, 0.1, 1], [1, 0.2, 3]]
    run.add_iterations(2, np.full(1, 0.3), np.array([4.0]))
    text = (run.path / "iterations.csv").read_text()
    assert text == "iteration,lr,loss\n0,0.1,1.0\n1,0.2,3.0\n2,0.3,4.0\n"


def test_losses_that_are_no_numbers(run):
    run.add_iterations(0, np.full(2, 0.1), np.array([math.nan, math.inf]))
    assert np.isnan(run.iterations()[0, 2])
    assert run.iterations()[1, 2] == math.inf


def test_nothing_yet(tmp_path):
    run = RunDirectory(tmp_path / "none")
    assert run.iterations().shape == (0, 3)
    assert run.measurements() == list(run.rows("decisions.jsonl")) == []
    assert not run.exists
    assert not run.running


# -- what a kill leaves ----------------------------------------------------------------------------


def test_torn_last_lines(run):
    run.add_measurement(at(0, 10))
    run.add_measurement(at(100, 20))
    run.add_iterations(0, np.full(2, 0.1), np.array([1.0, 2.0]))
    run.release()
    for name in ("measurements.jsonl", "iterations.csv"):
        path = run.path / name
        path.write_bytes(path.read_bytes()[:-3])  # the last line lost its end
    # Reading leaves the torn line out ...
    assert [m.iteration for m in run.measurements()] == [0]
    assert run.iterations().tolist() == [[0, 0.1, 1]]
    # ... and a new line does not grow onto it.
    run.lock()
    run.add_measurement(at(200, 30))
    run.add_iterations(1, np.full(1, 0.1), np.array([5.0]))
    assert [m.iteration for m in run.measurements()] == [0, 200]
    assert run.iterations().tolist() == [[0, 0.1, 1], [1, 0.1, 5]]


def test_a_torn_heading(run):
    (run.path / "iterations.csv").write_text("iterat")
    run.release()
    assert run.iterations().shape == (0, 3)
    run.lock()
    run.add_iterations(0, np.full(1, 0.1), np.array([5.0]))
    assert run.iterations().tolist() == [[0, 0.1, 5]]


# -- what a power loss leaves ----------------------------------------------------------------------

NULS = b"\0" * 50
GARBAGE = [NULS, b'{"iteration": 7, "lr', b"null", b"[1]", b"{}", b'"text"', b"\xff\xfe", b"", b"5"]


def test_damaged_lines_of_measurements_are_left_out(run):
    path = run.path / "measurements.jsonl"
    odd = [{"iteration": 1}, {**dataclasses.asdict(ROW), "iteration": "1"}]
    odd += [{**dataclasses.asdict(ROW), name: "x"} for name in ("net", "top1", "seconds")]
    for iteration, line in enumerate([*GARBAGE, *(json.dumps(row).encode() for row in odd)]):
        run.add_measurement(at(iteration, 50))
        with path.open("ab") as file:
            file.write(line + b"\n")
    assert [m.iteration for m in run.measurements()] == list(range(len(GARBAGE) + len(odd)))
    assert all(m.top1 == 50 for m in run.measurements())


def test_damaged_lines_of_iterations_are_left_out(run):
    lines = [
        NULS + b"3,0.1,1.0",
        b"1,0.1",
        b"1,2,3,4",
        b"a,b,c",
        b"nan,0.1,1",
        b"1.5,0.1,1",
        b"-1,0.1,1",
    ]
    for number, line in enumerate([*GARBAGE, *lines]):
        run.add_iterations(number, np.full(1, 0.1), np.array([2.0]))
        with (run.path / "iterations.csv").open("ab") as file:
            file.write(line + b"\n")
    assert run.iterations().tolist() == [[i, 0.1, 2] for i in range(len(GARBAGE) + len(lines))]


def test_iterations_without_their_heading(run):
    (run.path / "iterations.csv").write_bytes(NULS + b"\n1,0.1,2\n")
    assert run.iterations().tolist() == [[1, 0.1, 2]]


@pytest.mark.parametrize("name", ["snapshots.jsonl", "decisions.jsonl"])
def test_rows_are_objects_with_an_iteration(run, name):
    content = b"\n".join([*GARBAGE, b'{"iteration": null}', b'{"iteration": 5, "more": 1}', NULS])
    (run.path / name).write_bytes(content)
    assert list(run.rows(name)) == [{"iteration": 5, "more": 1}]


# -- the lock --------------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from lrbench_caffe.runs.directory import RunDirectory
run = RunDirectory(Path(sys.argv[1]))
run.lock()
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused(tmp_path):
    run = RunDirectory(tmp_path / "run")
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", HOLD, str(run.path)]
    with subprocess.Popen(
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        assert run.running
        with pytest.raises(
            PassingError,
            match=re.escape(f"{run.path} is in use by a training that is still running"),
        ):
            run.lock()
        other.kill()  # however it ends, the lock goes with it
    assert not run.running
    run.lock()
    assert run.running
    run.release()
    assert not run.running


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        InputError, match=re.escape(f"cannot write to {tmp_path / 'file' / 'run'}: Not a directory")
    ):
        RunDirectory(tmp_path / "file" / "run").lock()


# -- run.json --------------------------------------------------------------------------------------


def test_record(run):
    assert not run.exists
    run.write({"solver": "a", "status": "running"})
    run.update(status="finished", iteration=5)
    assert run.exists
    assert RunDirectory(run.path).read() == {"solver": "a", "status": "finished", "iteration": 5}


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        '{"solver": ',
        "null",
        "[]",
        '"solver"',
        "{}",
        '{"solver": null}',
        '{"solver": ""}',
        "\0\0",
    ],
)
def test_no_record(run, content):
    expected = f"{run.path} is not a run directory: it has no run.json"
    if content is not None:
        (run.path / "run.json").write_text(content)
        expected = f"{run.path} holds no run: {run.path / 'run.json'}: "
    with pytest.raises(InputError, match=re.escape(expected)):
        run.read()


# -- the newest run --------------------------------------------------------------------------------


def make(path: Path, solver: str, age: float) -> None:
    run = RunDirectory(path)
    path.mkdir(parents=True)
    run.write({"solver": solver})
    (path / "iterations.csv").touch()
    for file in path.iterdir():
        os.utime(file, (1e9 - age, 1e9 - age))


def test_find_newest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "runs"
    make(root / "old", "solvers/a.prototxt", age=300)
    make(
        root / "new", str(tmp_path / "solvers" / "a.prototxt"), age=200
    )  # the same file, by another name
    make(root / "other", "solvers/b.prototxt", age=100)
    (root / "damaged").mkdir()
    (root / "damaged" / "run.json").write_text("{")
    assert find_newest(root, Path("solvers/a.prototxt")).path == root / "new"
    # What counts is the last sign of life, not how the run is called or when it began.
    os.utime(root / "old" / "iterations.csv", (1e9 - 1, 1e9 - 1))
    assert find_newest(root, Path("solvers/a.prototxt")).path == root / "old"


def test_one_broken_run_does_not_hide_the_others(tmp_path):
    root, solver = tmp_path / "runs", tmp_path / "a.prototxt"
    make(root / "good", str(solver), age=100)
    for number, content in enumerate(
        ["null", "[]", "{}", '{"solver": 5}', '{"solver": "a\\u0000b"}', "\0"]
    ):
        (root / f"broken{number}").mkdir()
        (root / f"broken{number}" / "run.json").write_text(content)
    (root / "loop").symlink_to("loop")
    (root / "dangling").mkdir()
    (root / "dangling" / "run.json").symlink_to("nowhere")
    (root / "directory" / "run.json").mkdir(parents=True)
    make(root / "circle", str(root / "loop"), age=0)
    (root / "good" / "gone.caffemodel").symlink_to("nowhere")
    assert find_newest(root, solver).path == root / "good"


def test_a_run_that_goes_on_now_is_not_the_one_to_resume(tmp_path):
    root, solver = tmp_path / "runs", tmp_path / "a.prototxt"
    make(root / "now", str(solver), age=100)
    now = RunDirectory(root / "now")
    now.lock()
    assert find_newest(root, solver).path == root / "now"  # there is no other
    make(root / "interrupted", str(solver), age=200)
    assert find_newest(root, solver).path == root / "interrupted"
    now.release()
    assert find_newest(root, solver).path == root / "now"


def test_latest_points_to_the_run_that_was_begun_last(tmp_path):
    root = tmp_path / "runs"
    for name in ("one", "two"):
        run = RunDirectory(root / name)
        run.lock()
        run.write({"solver": str(tmp_path / "solver.prototxt")})
        run.release()
        mark_latest(root, run)
        assert (root / "latest").readlink() == Path(name)
    mark_latest(root, RunDirectory(root / "latest"))  # one that is continued under that name
    assert (root / "latest").readlink() == Path("two")
    mark_latest(root, RunDirectory(tmp_path / "elsewhere"))
    assert (root / "latest").readlink() == Path("two")
    assert find_newest(root, tmp_path / "solver.prototxt").path.name == "two"
    assert sorted(path.name for path in root.iterdir()) == ["latest", "one", "two"]


def test_a_folder_of_that_name_is_left_alone(tmp_path):
    (tmp_path / "latest").mkdir()
    (tmp_path / "run").mkdir()
    mark_latest(tmp_path, RunDirectory(tmp_path / "run"))
    assert (tmp_path / "latest").is_dir()
    assert not (tmp_path / "latest").is_symlink()


def test_a_run_that_never_trained_leaves_its_place_free(tmp_path):
    run = RunDirectory(tmp_path / "out")
    run.lock()
    run.write({"solver": "s"})
    run.prototxt.mkdir()
    (run.prototxt / "solver.prototxt").touch()
    run.log.touch()
    run.discard()
    run.release()
    assert not run.path.exists()
    run.lock()
    (run.path / "mine.txt").touch()
    run.write({"solver": "s"})
    run.discard()
    run.release()
    assert [path.name for path in run.path.iterdir()] == ["mine.txt"]


def test_no_run_to_resume(tmp_path):
    with pytest.raises(
        InputError, match=r"^resume: no run of x.prototxt in .*/ \(out DIR names another"
    ):
        find_newest(tmp_path, Path("x.prototxt"))


# -- the clock -------------------------------------------------------------------------------------


def test_a_later_session_ends_later_whatever_was_done_to_the_clock(run, monkeypatch):
    for name in ("run.json", "iterations.csv"):
        path = run.path / name
        path.write_text('{"solver": "a.prototxt", "ended": 5000, "sessions": [{"began": 7000}, 3]}')
        os.utime(path, (6000, 6000))
    monkeypatch.setattr("time.time", lambda: 8000.0)
    assert (run.last_seen(), run.now()) == (7000.0, 8000.0)
    monkeypatch.setattr("time.time", lambda: 1000.0)
    assert run.now() == pytest.approx(7000.001, abs=1e-6)
    os.utime(run.path / "iterations.csv", (9000, 9000))  # of a session that was killed
    assert run.now() == pytest.approx(9000.001, abs=1e-6)


def test_where_the_clock_was_set_back_the_run_that_was_begun_last_is_the_newest(
    tmp_path, monkeypatch
):
    """One run is of a year ahead: of before the step."""
    root, solver = tmp_path / "runs", tmp_path / "a.prototxt"
    make(root / "before", str(solver), age=0)
    make(root / "after", str(solver), age=100)
    monkeypatch.setattr("time.time", lambda: 1e9)
    assert find_newest(root, solver).path == root / "before"
    monkeypatch.setattr("time.time", lambda: 1e9 - 365 * 86400)
    with pytest.raises(
        InputError,
        match=r"^resume: the clock was set back since .*before was written, .* out DIR",
    ):
        find_newest(root, solver)
    mark_latest(root, RunDirectory(root / "after"))
    assert find_newest(root, solver).path == root / "after"
    shutil.rmtree(root / "after")
    assert find_newest(root, solver).path == root / "before"  # there is no other


# -- run.json that was damaged or deleted ----------------------------------------------------------

WHOLE = {
    "solver": "s", "policy": "FIX(k0=0.1)", "policy_from": "given", "seed": 1, "max_iter": 10,
    "test_interval": 5, "snapshot_interval": 0, "gpu": None, "level": 0, "stages": [], "snapshot": None,
    "weights": [], "lr_by": "base_lr", "fingerprint": {}, "layers": "stock", "threads": 1, "head": None,
    "start": None, "status": "stopped", "reason": None, "iteration": 5, "ended": 1.0, "record": None,
    "own_policy": False,
    "sessions": [{"began": 1.0, "iteration": 0}],
}  # fmt: skip


def test_a_whole_record_is_taken(run):
    run.write(WHOLE)
    assert RunSettings.from_json(run.read()).policy == "FIX(k0=0.1)"


@pytest.mark.parametrize(
    "value", [True, -1.5, 1e400, -(10**30), "x", "a\0b", [1], {"a": {}}, [[]], {"a": 1}]
)
@pytest.mark.parametrize("name", WHOLE)
def test_values_of_the_wrong_kind_are_refused_in_one_line(run, name, value):
    """Where they change nothing that is read they may stay."""
    run.write({**WHOLE, name: value})
    try:
        settings = RunSettings.from_json(run.read())
    except InputError as error:
        assert "run.json" in str(error)
        assert "\n" not in str(error)
    else:
        harmless = {"solver": "x", "policy_from": "x", "snapshot": "x", "head": "x", "reason": "x"}
        harmless |= {"ended": -1.5, "record": {"a": {}}, "user": "x", "own_policy": True}
        assert name in ("record", "fingerprint") or harmless.get(name) == value, settings


def test_run_json_that_is_deleted_under_way_comes_back(run):
    run.begin({**WHOLE, "id": "0123456789abcdef"})
    (run.path / "run.json").unlink()
    assert RunDirectory(run.path).exists  # by its journal
    assert RunDirectory(run.path).read()["policy"] == "FIX(k0=0.1)"
    run.update(status="finished")
    (run.path / "records.log").unlink()
    assert RunDirectory(run.path).read() == {
        **WHOLE,
        "id": "0123456789abcdef",
        "status": "finished",
    }


def test_a_record_that_was_changed_is_that_of_the_journal(run):
    run.begin({**WHOLE, "id": "0123456789abcdef"})
    path = run.path / "run.json"
    path.write_text(path.read_text().replace('"seed": 1', '"seed": 2'))
    assert RunDirectory(run.path).read()["seed"] == 1
    (run.path / "records.log").unlink()
    with pytest.raises(InputError, match="its content does not fit its checksum"):
        RunDirectory(run.path).read()


# -- links and names -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["run.json", "measurements.jsonl", "iterations.csv", "records.log", "caffe.log", ".lock"],
)
@pytest.mark.parametrize("kind", ["a link", "a pipe"])
def test_what_is_no_file_of_the_runs_own_is_refused(tmp_path, name, kind):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    if kind == "a link":
        (run.path / name).symlink_to(elsewhere)
    else:
        os.mkfifo(run.path / name)
    with pytest.raises(
        InputError, match=rf"{re.escape(name)}: a symbolic link or not a regular file"
    ):
        run.lock()
    assert elsewhere.read_text() == "mine"
    assert run.measurements() == []  # nor does a reader wait for the pipe's other end
    assert run.iterations().shape == (0, 3)


def test_a_folder_that_is_a_link_is_refused(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    run.snapshots.symlink_to(tmp_path)
    with pytest.raises(InputError, match="snapshots is a symbolic link"):
        run.lock()


def test_a_link_in_the_place_of_a_temporary_file_is_not_written_to(run, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    temporary_of(run.path / "run.json").symlink_to(elsewhere)
    run.write({"solver": "s"})
    assert (elsewhere.read_text(), run.read()) == ("mine", {"solver": "s"})


def test_temporary_files_of_killed_processes_are_removed_and_no_others(tmp_path):
    own = temporary_of(tmp_path / "tiny_iter_20.solverstate")
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()  # its number is free now
    dead = own.with_name(own.name.replace(f".{os.getpid()}", f".{child.pid}"))
    elsewhere = dead.with_name(dead.name.replace(own.name.split(".")[-2], "0123abcd"))
    former = dead.with_name(f".tiny_iter_20.solverstate.{child.pid}")
    other = former.with_name(f".other.{child.pid}")
    for path in (own, dead, elsewhere, former, other):
        path.touch()
    remove_leftovers(tmp_path, r"tiny(?:_iter_\d+\.[a-z0-9.]+)?")
    assert set(tmp_path.iterdir()) == {own, elsewhere, other}


TAKE = """
import sys
from pathlib import Path
from lrbench_caffe.files import make_folder
sys.stdin.read()
for _ in range(20):
    print(make_folder(Path(sys.argv[1]) / "runs", "lenet-20261128-120000").name)
"""


def test_many_processes_that_begin_at_once_have_a_folder_each(tmp_path):
    command = [sys.executable, "-c", TAKE, str(tmp_path)]
    root = Path(__file__).parents[2]
    began = [
        subprocess.Popen(
            command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(8)
    ]
    for process in began:
        process.stdin.close()  # now they go
    names = [name for process in began for name in process.stdout.read().split()]
    for process in began:
        process.stdout.close()
        assert process.wait(60) == 0
    assert len(names) == len(set(names)) == 160
    assert set(names) == {
        "lenet-20261128-120000",
        *(f"lenet-20261128-120000-{n}" for n in range(2, 161)),
    }
