"""Trainings on a Dask cluster of this machine: workers and the command may die, no run is lost or doubled."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from lrbench_caffe.database import Database
from lrbench_caffe.errors import InputError, LRBenchError
from lrbench_caffe.jobs import Job, JobResult, attempts
from lrbench_caffe.jobs import cluster as jobs_cluster
from lrbench_caffe.jobs.attempts import RETRIED, LostAttempts
from lrbench_caffe.jobs.cluster import ClusterPool, open_cluster
from tests.caffe.harness import ENVIRONMENT, Workspace
from tests.database.server import NoServer, Server

pytest.importorskip("distributed")

RUNS = 8
COMMAND = f"""
import sys
from lrbench_caffe.jobs import Job
from lrbench_caffe.jobs.cluster import open_cluster
scheduler, database = sys.argv[1:]
pool = open_cluster(scheduler)
for number in range({RUNS}):
    pool.submit(Job(
        "solver.prototxt", seed=number, out=f"runs/{{number}}", policy="SIN2(k0=0.01, k1=0.05, l=700)",
        max_iter=9000, test_interval=1000, db=database, flags=("--checkpoint-minutes", "0.01"),
    ))
print("submitted", pool.slots, flush=True)
for _ in range({RUNS}):
    result = None
    while result is None:
        result = pool.next(timeout=1)
    print(result.training.out, result.status, result.iteration, flush=True)
pool.close()
"""


class Cluster:
    """A scheduler and workers, each a process."""

    def __init__(self, folder: Path, workspace: Workspace, workers: int) -> None:
        self._folder, self._cwd = folder, workspace.path
        self._log = (folder / "cluster.log").open("w")
        self._file = folder / "scheduler.json"
        self.processes = [self._start("scheduler", "--port", "0", "--dashboard-address", ":0")]
        deadline = time.monotonic() + 60
        while not self._file.exists():
            assert time.monotonic() < deadline, (folder / "cluster.log").read_text()
            time.sleep(0.1)
        self.url = str(self._file)
        for _ in range(workers):
            self.add_worker()

    def add_worker(self) -> subprocess.Popen[bytes]:
        options = (
            "--nthreads",
            "1",
            "--no-nanny",
            "--no-dashboard",
            "--local-directory",
            str(self._folder),
        )
        self.processes.append(self._start("worker", *options))
        return self.processes[-1]

    @property
    def workers(self) -> list[subprocess.Popen[bytes]]:
        """Those that live."""
        return [process for process in self.processes[1:] if process.poll() is None]

    def _start(self, what: str, *options: str) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            f"distributed.cli.dask_{what}",
            "--scheduler-file",
            str(self._file),
        ]
        return subprocess.Popen(
            [*command, *options],
            env=ENVIRONMENT,
            cwd=self._cwd,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    @property
    def address(self) -> str:
        import json

        return str(json.loads(self._file.read_text())["address"])

    def close(self) -> None:
        for process in reversed(self.processes):
            process.kill()
            process.wait()
        self._log.close()


@pytest.fixture
def database() -> Iterator[str]:
    try:
        server = Server()
    except NoServer as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    yield server.url(server.create())
    server.stop()


@pytest.fixture
def cluster(
    tmp_path: Path, workspace: Workspace, request: pytest.FixtureRequest
) -> Iterator[Cluster]:
    folder = tmp_path / "dask"
    folder.mkdir()
    started = Cluster(folder, workspace, getattr(request, "param", 4))
    yield started
    started.close()


def count_tests(workspace: Workspace) -> int:
    return sum(len(workspace.run(f"runs/{number}").measurements()) for number in range(RUNS))


def command(workspace: Workspace, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *args], cwd=workspace.path, env=ENVIRONMENT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def wait_until(workspace: Workspace, tests: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while count_tests(workspace) < tests:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.ci
def test_a_worker_and_the_command_are_killed(
    workspace: Workspace, cluster: Cluster, database: str
) -> None:
    first = command(workspace, cluster.address, database)
    wait_until(workspace, 6, first)
    cluster.processes[2].kill()  # the second worker
    wait_until(workspace, 12, first)
    first.kill()
    first.communicate()
    second = command(workspace, cluster.address, database)
    out, _ = second.communicate(timeout=240)
    assert second.returncode == 0, out
    ended = [line for line in out.splitlines() if line.startswith("runs/")]
    assert sorted(ended) == [f"runs/{number} finished 9000" for number in range(RUNS)]
    with Database.open(database) as opened:
        stored = list(opened.runs(source="measured", measurements=True))
    assert Counter(run.seed for run in stored) == Counter(range(RUNS))
    for run in stored:
        assert run.status == "finished"
        assert [m.iteration for m in run.measurements] == list(range(0, 9001, 1000))


# In the place of a Caffe: it takes the worker with it that the training runs in, as one does whose
# memory is not enough. Only what the test has started is ended.
TAKES_ITS_WORKER = """#!/bin/sh
read -r _ _ _ worker _ < /proc/$PPID/stat
for _ in $(seq 600); do  # a new worker may begin before the test has written its number down
    grep -qx "$worker" workers && kill -KILL "$worker"
    sleep 0.1
done
"""


def lost(workspace: Workspace, cluster: Cluster, *trainings: Job) -> list[JobResult]:
    """The results of trainings on a cluster whose dead workers are replaced."""
    pool = open_cluster(cluster.address)
    try:
        for training in trainings:
            pool.submit(training)
        found: list[JobResult] = []
        deadline = time.monotonic() + 200
        while len(found) < len(trainings):
            assert time.monotonic() < deadline
            while len(cluster.workers) < 2:
                cluster.add_worker()
            workspace.write("workers", "".join(f"{process.pid}\n" for process in cluster.workers))
            result = pool.next(timeout=0.2)
            found += [result] if result else []
        return found
    finally:
        pool.close()


@pytest.mark.ci
@pytest.mark.parametrize("cluster", [2], indirect=True)
def test_a_training_that_loses_worker_after_worker_fails_and_the_others_go_on(
    workspace: Workspace, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace.path)
    (workspace.path / workspace.write("caffe.sh", TAKES_ITS_WORKER)).chmod(0o755)
    bad = Job(
        "solver.prototxt", seed=1, out="runs/bad", db="", flags=("--caffe-python", "./caffe.sh")
    )
    good = [Job("solver.prototxt", seed=n, out=f"runs/{n}", db="") for n in range(3)]
    found = {result.training.out: result for result in lost(workspace, cluster, bad, *good)}
    assert [found[training.out].status for training in good] == ["finished"] * 3
    assert found["runs/bad"].status == "failed"
    assert (
        found["runs/bad"].reason
        == "its worker was lost 4 times without progress beyond iteration 0"
    )
    assert len(cluster.processes) - 1 - len(cluster.workers) == RETRIED + 1


@pytest.mark.slow
@pytest.mark.parametrize("cluster", [1], indirect=True)
def test_a_training_that_gets_further_each_time_is_not_given_up(
    workspace: Workspace, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven losses: Dask gives a task up at the fourth, and the count without progress is at most one."""
    monkeypatch.chdir(workspace.path)
    training = Job(
        "solver.prototxt", seed=1, out="runs/one", policy="FIX(k0=0.01)", max_iter=40000,
        test_interval=1000, db="", flags=("--checkpoint-minutes", "0.01"),
    )  # fmt: skip
    pool = open_cluster(cluster.address)
    pool.submit(training)
    for loss in range(1, 8):
        deadline = time.monotonic() + 60
        while training.reached < 2000 * loss:
            assert pool.next(timeout=0.05) is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
        cluster.workers[0].kill()
        cluster.processes[-1].wait()
        cluster.add_worker()
    result = None
    while result is None:
        result = pool.next(timeout=60)
    pool.close()
    assert (result.status, result.iteration) == ("finished", 40000)
    assert [m.iteration for m in result.measurements] == list(range(0, 40001, 1000))


def test_losses_in_a_row_without_progress_are_counted(tmp_path: Path) -> None:
    training = Job("solver.prototxt", seed=1, out=str(tmp_path / "run"))
    rows = tmp_path / "run" / "iterations.csv"

    def attempt(reached: int) -> LostAttempts:
        found = attempts.begin(training)
        rows.write_text("iteration,lr,loss\n" + f"{reached - 1},0.1,2.3\n" * bool(reached))
        return found

    counts = [attempt(reached).count for reached in (0, 0, 50, 50, 40, 60)]
    assert counts == [0, 1, 2, 1, 2, 3]  # each is of the attempts before it
    assert attempts.begin(training) == LostAttempts(1, 60)
    attempts.end(training)
    assert attempts.read(training) is None
    assert attempts.begin(training) == LostAttempts(0, 60)


def test_a_part_that_waits_behind_another_one_counts_no_loss(tmp_path: Path) -> None:
    first = Job("solver.prototxt", seed=1, out=str(tmp_path / "run"), until=50)
    second = replace(first, until=None)
    assert attempts.begin(first) == attempts.begin(second) == LostAttempts(0, 0)
    attempts.end(first)
    assert attempts.begin(second) == LostAttempts(1, 0)


def test_commands_of_two_folders_do_not_mix_their_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one worker with several threads, which have one working directory."""
    monkeypatch.chdir(tmp_path)
    folders = [tmp_path / name for name in ("a", "b")]
    found: list[tuple[str, str, str]] = []
    both, queued = threading.Barrier(3, timeout=60), threading.Event()

    def train(training: Job, gpu: str | None) -> None:
        began = os.getcwd()
        if training.seed <= 2:
            both.wait()  # two of one folder at a time, while others wait
            queued.wait(60)
        time.sleep(0.02)
        found.append((training.out[0], began, os.getcwd()))

    monkeypatch.setattr(jobs_cluster, "run_child", train)
    for folder in folders:
        folder.mkdir()
    with ThreadPoolExecutor(6) as threads:
        done = []
        for seed, folder in enumerate((*folders[:1] * 2, *folders[::-1] * 2), 1):
            job = Job("solver.prototxt", seed=seed, out=f"{folder.name}-{seed}")
            if seed == 3:  # else one of these may come between the first two
                both.wait()
            done.append(threads.submit(jobs_cluster._train_there, job, str(folder)))
        queued.set()
    for one in done:
        one.result()
    wanted = [(folder.name, str(folder), str(folder)) for folder in folders]
    assert sorted(found) == wanted[:1] * 4 + wanted[1:] * 2
    assert not [*tmp_path.rglob(".attempt*")]


def test_no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrbench_caffe.jobs.cluster.CONNECT_SECONDS", "1s")
    with pytest.raises(InputError, match=r"scheduler: no Dask scheduler at tcp://127\.0\.0\.1:9"):
        open_cluster("tcp://127.0.0.1:9")


def test_a_scheduler_that_is_gone_is_one_line() -> None:
    """The client gives up all futures then, some before it says so itself."""
    future = SimpleNamespace(
        key="training", cancelled=lambda: True, add_done_callback=lambda put: put(future)
    )
    client = SimpleNamespace(status="running", submit=lambda *_, **__: future)
    pool = ClusterPool(client)
    pool.submit(Job("solver.prototxt", seed=1, out="x"))
    with pytest.raises(LRBenchError, match="the Dask scheduler is gone"):
        pool.next(timeout=1)


def test_what_dask_logs_of_a_training_holds_no_password() -> None:
    one, other = (
        Job("s.prototxt", seed=1, out="x", db=f"postgresql://u:{pw}@h/x") for pw in ("a1", "b2")
    )
    assert "a1" not in repr(one)
    assert jobs_cluster._key(one) != jobs_cluster._key(other)


@pytest.mark.parametrize(("visible", "gpu"), [("3", "3"), ("", None), (None, None)])
def test_a_worker_trains_on_the_gpu_that_it_was_given(visible, gpu, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    seen = []
    monkeypatch.setattr(
        jobs_cluster, "run_child", lambda training, gpu: seen.append((training.out, gpu))
    )
    jobs_cluster._train_there(Job("solver.prototxt", seed=1, out="x"), str(tmp_path))
    assert seen == [("x", gpu)]
