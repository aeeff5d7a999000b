"""What can go wrong under a training: one clear message, nothing measured lost, and a resume that works."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import numpy as np
import pytest

from lrbench_caffe.datasets.datum import datum_bytes
from tests.caffe import nets
from tests.caffe.conftest import make_workspace
from tests.caffe.harness import (
    ROOT,
    Done,
    Run,
    Running,
    Workspace,
    assert_same_weights,
    is_alive,
    wait_until_gone,
)

ITERATIONS = 4000
KNOWN = 1500  # the test after which something happens; there is a snapshot before it
ENDLESS = 100_000_000

# Small tests, so that most of the time is training.
SOLVER = nets.solver(max_iter=ITERATIONS, snapshot=1000, test_interval=500, display=0)


def assert_failed(run: Run, done: Done, *words: str, code: int = 1) -> None:
    """One line on stderr, exit code 1 or ``code``, and the reason in run.json."""
    done.failed(code, "error: ", "--resume", *words)
    assert run.record["status"] == "failed"
    assert run.record["reason"]
    assert run.record["reason"] in done.err


def resume(workspace: Workspace, run: Run, *flags: str) -> None:
    """Go on; what was measured before is still there."""
    before = run.measurements()
    assert before
    workspace.train("--resume", "--out", run.path.name, *flags).succeeded()
    assert run.measurements()[: len(before)] == before
    assert run.record["status"] == "finished"


# -- the data's readers ----------------------------------------------------------------------------

PLACES = 126  # of an LMDB, for readers
DIE_READING = """
import os, sys, lmdb
for _ in range(int(sys.argv[2])):
    if os.fork() == 0:
        reading = lmdb.open(sys.argv[1], readonly=True).begin()
        os._exit(0)  # as a process ends that is killed
    os.wait()
"""


def test_places_of_dead_readers_are_free(workspace: Workspace) -> None:
    """While one process has the data open, those that died with it open keep their places in lock.mdb."""
    data = workspace.path / "data" / "digits_train_lmdb"
    workspace.write("solver.prototxt", nets.solver(max_iter=20))
    with lmdb.open(str(data), readonly=True) as holder:
        subprocess.run([sys.executable, "-c", DIE_READING, str(data), str(PLACES - 1)], check=True)
        assert len(holder.readers().splitlines()) == PLACES  # one of them a heading
        workspace.train("solver.prototxt", "--out", "run").succeeded()
    assert workspace.run("run").record["status"] == "finished"


# -- the driver dies -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "busy",
    [
        {"iter_size": ENDLESS},
        {"test_iter": ENDLESS},
        pytest.param({"max_iter": ENDLESS}, marks=pytest.mark.slow),
    ],
    ids=["a long iteration", "a long test pass", "training"],
)
def test_kill_9_of_the_driver_leaves_no_worker(
    workspace: Workspace, busy: dict[str, object]
) -> None:
    workspace.write("solver.prototxt", nets.solver(**busy))
    with workspace.training("solver.prototxt", out="out") as training:
        if "test_iter" in busy:
            training.wait_for(lambda: "Testing net" in log_of(training), "the test pass")
        else:
            training.wait_for_test(0)
        training.wait_until_busy()
        worker = training.worker
        assert is_alive(worker)
        training.send(signal.SIGKILL)
        training.finish()
        assert wait_until_gone(worker, 5)


def log_of(training: Running) -> str:
    return training.run.log.read_text() if training.run.log.exists() else ""


def test_ctrl_c_twice_ends_at_once_and_leaves_no_worker(workspace: Workspace) -> None:
    workspace.write("solver.prototxt", nets.solver(iter_size=ENDLESS))
    with workspace.training("solver.prototxt", out="out") as training:
        training.wait_for_test(0)
        training.wait_until_busy()
        worker = training.worker
        training.send(signal.SIGINT)
        time.sleep(0.5)
        assert training.process.poll() is None  # it waits for the end of the iteration
        training.send(signal.SIGINT)
        done = training.finish()
        assert done.failed(130).err == "interrupted\n"
        assert wait_until_gone(worker, 5)
    assert workspace.run("out").record["status"] == "stopped"


# -- the worker dies -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, digits: Path, caffe_program: str
) -> tuple[Workspace, Run]:
    """A training that nothing happens to."""
    workspace = make_workspace(tmp_path_factory.mktemp("faults"), digits, caffe_program)
    workspace.write("solver.prototxt", SOLVER)
    workspace.train("solver.prototxt", "--out", "whole").succeeded()
    return workspace, workspace.run("whole")


@pytest.mark.ci
@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGKILL, ("Caffe was killed by SIGKILL",)),
        pytest.param(signal.SIGSEGV, ("Caffe was killed by SIGSEGV",), marks=pytest.mark.slow),
    ],
)
def test_a_worker_that_is_killed_or_crashes(
    whole: tuple[Workspace, Run], number: signal.Signals, words: tuple[str, ...]
) -> None:
    workspace, undisturbed = whole
    with workspace.training("solver.prototxt", out=number.name) as training:
        training.wait_for_test(KNOWN)
        worker = training.worker
        os.kill(worker, number)
        done = training.finish()
        assert not is_alive(worker)
    run = workspace.run(number.name)
    assert_failed(run, done, *words)
    assert max(run.iterations()) >= KNOWN - 1
    resume(workspace, run)
    assert_same_weights(run.model(ITERATIONS), undisturbed.model(ITERATIONS))
    assert run.last_measurements() == undisturbed.last_measurements()


@pytest.mark.ci
def test_a_caffe_that_hangs(workspace: Workspace) -> None:
    """A layer that sleeps for ever."""
    workspace.write("hanging.py", nets.HANG_MODULE)
    workspace.write("net.prototxt", nets.hanging_net())
    workspace.write("solver.prototxt", nets.solver(max_iter=400, snapshot=100))
    workspace.environment["PYTHONPATH"] += f":{workspace.path}"
    with workspace.training("solver.prototxt", "--hang-timeout", "8", out="out") as training:
        training.wait_for_snapshot(100)
        worker = training.worker
        workspace.write("hang", "")
        done = training.finish()
        assert not is_alive(worker)
    run = workspace.run("out")
    assert_failed(run, done, "no sign of life for 8 s", "--hang-timeout")
    (workspace.path / "hang").unlink()
    resume(workspace, run)


# -- suspended -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_suspension_is_no_hang(whole: tuple[Workspace, Run]) -> None:
    """Of the worker, of the driver, and of both as by SLURM's suspend, each for longer than the limit."""
    workspace, undisturbed = whole
    with workspace.training("solver.prototxt", "--hang-timeout", "8", out="suspended") as training:
        training.wait_for_test(500)
        driver, worker = training.process.pid, training.worker
        for pids in ([worker], [driver], [worker, driver]):
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            time.sleep(10)
            for pid in reversed(pids):
                os.kill(pid, signal.SIGCONT)
        done = training.finish().succeeded()
    assert done.out.count("waiting until it continues") == 1  # of the worker alone
    run = workspace.run("suspended")
    assert_same_weights(run.model(ITERATIONS), undisturbed.model(ITERATIONS))
    assert run.last_measurements() == undisturbed.last_measurements()


# -- Caffe aborts ----------------------------------------------------------------------------------


def write_images(path: Path, odd: int | None) -> None:
    """1,000 random images of 8 x 8; number ``odd`` is of 9 x 9."""
    draw = np.random.default_rng(1)
    shutil.rmtree(path, ignore_errors=True)
    environment = lmdb.open(str(path), map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        for number in range(1000):
            pixels = draw.integers(0, 256, (1, 8, 8), dtype=np.uint8)
            if number == odd:
                pixels = np.zeros((1, 9, 9), dtype=np.uint8)
            transaction.put(b"%08d" % number, datum_bytes(pixels, number % 10))
    environment.close()


def test_a_caffe_that_aborts_in_the_middle(workspace: Workspace) -> None:
    """A record of another shape, which is not looked for: in batch 45."""
    data = nets.data_layer("TRAIN", source="images_lmdb", batch=20)
    workspace.write("net.prototxt", nets.net(train=data))
    workspace.write("solver.prototxt", nets.solver(max_iter=100, test_interval=10, snapshot=20))
    write_images(workspace.path / "images_lmdb", odd=907)
    run = workspace.run("out")
    workspace.train("solver.prototxt", "--out", "out").failed(
        2,
        "images_lmdb: record 00000907 is 1 x 9 x 9, record 00000000 1 x 8 x 8; allowed: records of one size",
    )
    assert not run.path.exists()
    done = workspace.train("solver.prototxt", "--out", "out", "--trust-data")
    words = (
        "Caffe refuses the data: data_transformer.cpp:",
        "Check failed:",
        "no damage was found in images_lmdb and ",
    )
    assert_failed(run, done, *words, code=2)
    assert [row["iteration"] for row in run.measurements()][:5] == [0, 10, 20, 30, 40]

    write_images(workspace.path / "images_lmdb", odd=None)
    resume(workspace, run)
    workspace.train("solver.prototxt", "--out", "whole").succeeded()
    assert_same_weights(run.model(100), workspace.run("whole").model(100))
    assert run.last_measurements() == workspace.run("whole").last_measurements()


def test_a_net_that_only_caffe_can_refuse(workspace: Workspace) -> None:
    middle = (
        nets.inner_product("ip1", "data", 16)
        + nets.inner_product("ip3", "data", 15)
        + '\nlayer { name: "sum" type: "Eltwise" bottom: "ip1" bottom: "ip3" top: "sum" }'
        + nets.inner_product("ip2", "sum", 10)
    )
    workspace.write("net.prototxt", nets.net(middle=middle))
    done = workspace.train("solver.prototxt", "--out", "out")
    done.failed(
        2, "error: net.prototxt: layer 'sum' (Eltwise) of the training net: ", "eltwise_layer.cpp"
    )
    assert "--resume" not in done.err  # it would fail in the same way
    assert not (workspace.path / "out").exists()


# -- the disk is full ------------------------------------------------------------------------------

# 75,000 weights: 300 kB for each of a snapshot's two files.
BIG_NET = nets.net(
    middle=nets.inner_product("ip1", "data", 1000)
    + nets.relu("ip1")
    + nets.inner_product("ip2", "ip1", 10)
)


@pytest.fixture(scope="module")
def big_whole(tmp_path_factory: pytest.TempPathFactory, digits: Path, caffe_program: str) -> Run:
    """The training of ``big`` with room for its snapshots."""
    workspace = with_big_net(make_workspace(tmp_path_factory.mktemp("big"), digits, caffe_program))
    workspace.train("solver.prototxt", "--out", "whole").succeeded()
    return workspace.run("whole")


@pytest.fixture
def big(workspace: Workspace) -> Workspace:
    return with_big_net(workspace)


def with_big_net(workspace: Workspace) -> Workspace:
    """Snapshots at 20, 40 and 60 of 60 iterations."""
    workspace.write("net.prototxt", BIG_NET)
    workspace.write("solver.prototxt", nets.solver(max_iter=60, test_interval=10, snapshot=20))
    return workspace


@pytest.fixture
def small_disk(big: Workspace) -> Iterator[Callable[[str], None]]:
    """Mounts ``out`` as a disk of 1 MB; call it to make the disk larger."""
    path = big.path / "out"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1000k", "lrbench-test", str(path)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield (
            lambda size: (
                subprocess.run(["mount", "-o", f"remount,size={size}", str(path)], check=True)
                and None
            )
        )
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_a_disk_that_is_full_when_a_snapshot_is_written(
    big: Workspace, big_whole: Run, small_disk: Callable[[str], None]
) -> None:
    run = big.run("out")
    done = big.train("solver.prototxt", "--out", "out")
    assert_failed(run, done, "could not be written", "MB free on the disk")
    assert [row["iteration"] for row in run.rows("snapshots.jsonl")] == [20]
    assert [row["iteration"] for row in run.measurements()] == [0, 10, 20, 30, 40]
    assert not list(run.path.glob("snapshots/*_40.*"))  # it gives back what it took of the disk
    small_disk("16m")
    resume(big, run)
    assert_same_weights(run.model(60), big_whole.model(60))


def test_a_disk_that_is_full_without_a_snapshot(
    big: Workspace, small_disk: Callable[[str], None]
) -> None:
    """Something else takes the last of the room: the rows of iterations.csv cannot be written."""
    small_disk("4m")
    big.write("solver.prototxt", nets.solver(max_iter=ENDLESS, test_interval=10))
    run = big.run("out")
    filler = run.path / "filler"
    with big.training("solver.prototxt", out="out") as training:
        training.wait_for_test(50)
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1024))
        done = training.finish()
    done.failed(1, "error: out: No space left on device", "--resume")
    measured = run.measurements()
    assert measured
    filler.unlink()
    small_disk("64m")
    resume(big, run, "--max-iter", str(measured[-1]["iteration"] + 10))
    assert run.last_measurements()[measured[-1]["iteration"], 0]["top1"] == measured[-1]["top1"]


def test_a_snapshot_that_may_not_grow(big: Workspace, big_whole: Run) -> None:
    """The same without being root: files of more than 200 kB cannot be written."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    with big.training("solver.prototxt", out="out", limits=limit) as training:
        done = training.finish()
    run = big.run("out")
    assert_failed(run, done, "could not be written", "Caffe was killed by SIGABRT")
    assert run.rows("snapshots.jsonl") == []
    assert [row["iteration"] for row in run.measurements()] == [0, 10, 20]
    resume(big, run)
    assert_same_weights(run.model(60), big_whole.model(60))
    assert run.last_measurements() == big_whole.last_measurements()


def test_a_link_in_the_place_of_a_file_is_not_followed(whole: tuple[Workspace, Run]) -> None:
    workspace, undisturbed = whole
    with workspace.training("solver.prototxt", out="linked") as training:
        training.wait_for_test(KNOWN)
        run = training.run
        file = run.path / "measurements.jsonl"
        kept, elsewhere = run.path / "kept", workspace.path / "elsewhere"
        elsewhere.write_text("mine")
        (run.path / "link").symlink_to(elsewhere)
        os.link(file, kept)
        os.replace(run.path / "link", file)
        done = training.finish()
    assert elsewhere.read_text() == "mine"
    assert_failed(run, done, "linked/measurements.jsonl: a symbolic link")
    workspace.train("--resume", "--out", "linked").failed(
        2, "linked/measurements.jsonl: a symbolic link"
    )
    os.replace(kept, file)
    resume(workspace, run)
    assert_same_weights(run.model(ITERATIONS), undisturbed.model(ITERATIONS))
    assert run.last_measurements() == undisturbed.last_measurements()


def test_a_snapshot_prefix_that_cannot_be_written(workspace: Workspace) -> None:
    """It is known before the training, as to caffe train."""
    workspace.write("a_file", "")
    prefix = '"a_file/tiny"'
    for fields in ({"snapshot": 50}, {}):  # at the end there is one as well
        workspace.write("solver.prototxt", nets.solver(snapshot_prefix=prefix, **fields))
        workspace.train("solver.prototxt").failed(
            2, "solver.prototxt: snapshot_prefix: cannot write to snapshot prefix 'a_file/tiny'"
        )
        workspace.train("solver.prototxt", "--out", "out", "--publish").failed(2, "'a_file/tiny'")
    assert not (workspace.path / "runs").exists()
    workspace.train("solver.prototxt", "--out", "out", "--max-iter", "1").succeeded()


def replace_by_a_file(folder: Path) -> None:
    """The next snapshot may make the folder again between the two steps."""
    for _ in range(100):
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(IsADirectoryError):
            folder.write_text("")
            return
    raise AssertionError(f"{folder} is made again and again")


def test_a_snapshot_prefix_that_goes_away(workspace: Workspace) -> None:
    workspace.write(
        "solver.prototxt", nets.solver(snapshot=50, max_iter=ENDLESS, snapshot_prefix='"to/x"')
    )
    with workspace.training("solver.prototxt", "--publish", out="out") as training:
        training.wait_for_snapshot(50)
        replace_by_a_file(workspace.path / "to")
        done = training.finish()
    assert_failed(training.run, done, "cannot write the snapshot to to", "continue from iteration")


def test_no_room_for_the_picture_of_a_run_that_is_finished(workspace: Workspace) -> None:
    workspace.pictures = True
    (workspace.path / "out" / "training.png").mkdir(parents=True)
    done = workspace.train("solver.prototxt", "--out", "out")
    done.failed(1, "error: cannot write out/training.png: Is a directory; the run is finished")
    assert workspace.run("out").record["status"] == "finished"


def test_a_command_in_a_folder_that_is_gone_says_so_in_one_line(workspace: Workspace) -> None:
    gone = workspace.path / "gone"
    gone.mkdir()
    script = f"rmdir {gone} && exec {sys.executable} -m lrbench_caffe.train solver.prototxt --no-db"
    done = subprocess.run(
        ["sh", "-c", script], cwd=gone, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    # Which file it misses first depends on what it remembers of the Caffe.
    line, rest = done.stderr.split("\n", 1)
    assert line.startswith("error: ") and line.endswith(": No such file or directory")
    assert (done.returncode, rest) == (2, "")
