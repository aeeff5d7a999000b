"""A training in a process of its own: whatever becomes of it is one result, and the others go on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from lrbench_caffe.database import Database
from lrbench_caffe.errors import InputError
from lrbench_caffe.jobs import Job, JobResult, LocalPool, RetryingPool, child
from lrbench_caffe.jobs.child import Stopped, run_child
from lrbench_caffe.jobs.forkserver import ForkServer
from lrbench_caffe.runtime.info import caffe_info
from lrbench_caffe.runtime.locate import find_caffe_python
from tests.caffe import nets
from tests.caffe.harness import (
    ENVIRONMENT,
    ROOT,
    Run,
    Workspace,
    assert_same_weights,
    children,
    descendants,
    drivers,
    is_alive,
    workers,
)
from tests.caffe.test_faults import write_images

LONG = 200_000  # iterations: longer than any test waits


@pytest.fixture
def here(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The workspace as the working directory; its children import this checkout."""
    monkeypatch.chdir(workspace.path)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{workspace.path}")
    caffe_info(find_caffe_python(None))  # only of a Caffe that is known there is a server
    return workspace


def training(out: str, **more: object) -> Job:
    options = {"policy": "FIX(k0=0.05)", "db": "", "flags": ("--layers", "stock"), **more}
    return Job("solver.prototxt", seed=3, out=out, **options)  # type: ignore[arg-type]


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


class Started:
    """A training under way in a thread: its processes, and its result."""

    def __init__(self, wanted: Job, server: ForkServer | None) -> None:
        self.training = wanted
        self.stop = threading.Event()
        self._thread = ThreadPoolExecutor(1)
        self._future = self._thread.submit(run_child, wanted, self.stop, server=server)
        wait_for(lambda: len(self._tests()) > 1 or self._future.done())
        assert not self._future.done(), self._future.result()
        (self.driver,) = drivers(Path(wanted.out))
        (self.worker,) = workers(Path(wanted.out))
        assert (server is not None) == (self.driver not in children(os.getpid()))
        own_layers = "python_param" not in Path("net.prototxt").read_text()
        assert (server is not None and own_layers) == (self.worker not in children(self.driver))

    def _tests(self) -> list[dict[str, object]]:
        return Run(Path(self.training.out)).measurements()

    def result(self) -> JobResult:
        return self._future.result(timeout=120)

    def close(self) -> None:
        self.stop.set()
        self._thread.shutdown()


@pytest.fixture(params=["started", "forked"])
def server(request: pytest.FixtureRequest) -> Iterator[ForkServer | None]:
    """Whatever becomes of a training means the same, however its process begins."""
    server = ForkServer() if request.param == "forked" else None
    yield server
    if server is not None:
        server.close()


@pytest.fixture
def start(here: Workspace, server: ForkServer | None) -> Iterator[Callable[..., Started]]:
    started: list[Started] = []

    def begin(**more: object) -> Started:
        wanted = training("run", max_iter=LONG, test_interval=200, **more)
        started.append(Started(wanted, server))
        return started[-1]

    yield begin
    for one in started:
        one.close()


@pytest.mark.ci
def test_in_parts_as_at_once(here: Workspace) -> None:
    whole = run_child(training("whole"))
    assert (whole.status, whole.reason, whole.iteration) == ("finished", None, 100)
    assert [m.iteration for m in whole.measurements] == [0, 50, 100]
    part = run_child(training("parts", until=50))
    assert (part.status, part.iteration) == ("stopped", 50)
    assert part.seconds > 0
    assert run_child(training("parts", until=50)).seconds == 0.0  # it is there: nothing is started
    rest = run_child(training("parts"))
    assert (rest.status, rest.iteration) == ("finished", 100)
    assert [m.top1 for m in rest.measurements] == [m.top1 for m in whole.measurements]
    assert_same_weights(here.run("parts").model(100), here.run("whole").model(100))


def test_a_part_that_a_signal_stopped_before_its_last_test_is_not_whole(here: Workspace) -> None:
    wanted = training("run", until=50)
    whole = run_child(wanted)
    run = wanted.run
    run.update(reason="stopped by a signal", paused=False)
    first_test = (run.path / "measurements.jsonl").read_text().splitlines()[0]
    (run.path / "measurements.jsonl").write_text(first_test + "\n")
    again = run_child(wanted)
    assert [(m.iteration, m.top1) for m in again.measurements] == [
        (m.iteration, m.top1) for m in whole.measurements
    ]
    assert (again.status, again.reason) == ("stopped", "paused at iteration 50 as asked")


def test_two_parts_that_are_begun_at_the_same_time(here: Workspace) -> None:
    wanted = [training("parts", until=50), training("parts")]
    with LocalPool(2) as pool:
        for part in wanted:
            pool.submit(part)
        found = {result.training: result for result in (pool.next(60), pool.next(60)) if result}
    assert [(found[part].status, found[part].iteration) for part in wanted] == [
        ("stopped", 50), ("finished", 100),
    ]  # fmt: skip


def test_a_caffe_that_aborts(here: Workspace) -> None:
    """A record of another shape, in batch 45."""
    write_images(here.path / "images_lmdb", odd=907)
    here.write(
        "net.prototxt", nets.net(train=nets.data_layer("TRAIN", source="images_lmdb", batch=20))
    )
    wanted = training("run", db="sqlite:///lr.sqlite", flags=("--layers", "stock", "--trust-data"))
    result = run_child(wanted)
    assert result.status == "failed"
    assert "Check failed" in str(result.reason)
    assert run_child(wanted).seconds == 0.0  # a failure is a result: it is not repeated


@pytest.mark.ci
def test_a_worker_that_crashes(start: Callable[..., Started]) -> None:
    running = start()
    os.kill(running.worker, signal.SIGSEGV)
    result = running.result()
    assert result.status == "failed"
    assert "SIGSEGV" in str(result.reason)
    assert not result.memory
    assert len(result.measurements) > 1  # what was measured is there


@pytest.mark.ci
def test_a_worker_that_is_killed_may_have_lacked_memory(start: Callable[..., Started]) -> None:
    running = start()
    os.kill(running.worker, signal.SIGKILL)
    result = running.result()
    assert (result.status, result.refused, result.memory) == ("failed", False, True)
    assert "SIGKILL" in str(result.reason)


@pytest.mark.ci
def test_a_failure_is_tried_again_where_that_is_wanted(start: Callable[..., Started]) -> None:
    running = start()
    os.kill(running.worker, signal.SIGSEGV)
    assert running.result().lost
    assert run_child(running.training).seconds == 0.0
    again = run_child(replace(running.training, until=400, retry=True))
    assert (again.status, again.iteration) == ("stopped", 400)


@pytest.mark.ci
def test_a_caffe_that_hangs(here: Workspace, start: Callable[..., Started]) -> None:
    here.write("hanging.py", nets.HANG_MODULE)
    here.write("net.prototxt", nets.hanging_net())
    running = start(hang_seconds=8.0)
    here.write("hang", "")
    result = running.result()
    assert result.status == "failed"
    assert "no sign of life for 8 s" in str(result.reason)
    wait_for(lambda: not is_alive(running.worker))


# SIGUSR1 makes a Python hang.
HANGS = "import signal, time\nsignal.signal(signal.SIGUSR1, lambda *_: time.sleep(1e6))\n"


@pytest.mark.ci
def test_a_driver_that_hangs(
    here: Workspace, start: Callable[..., Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "GRACE", -15.0)  # 5 s for ``train``, 20 s for Caffe
    here.write("sitecustomize.py", HANGS)
    running = start(hang_seconds=20.0)
    os.kill(running.driver, signal.SIGUSR1)
    result = running.result()
    assert (result.status, result.reason) == ("failed", "no sign of life for 5 seconds")
    wait_for(lambda: not is_alive(running.worker))


@pytest.mark.ci
def test_a_suspended_training_is_waited_for(
    start: Callable[..., Started],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """As by SLURM's suspend of a job step; whoever waits for it goes on."""
    monkeypatch.setattr(child, "GRACE", -16.0)
    running = start(hang_seconds=20.0)
    for pid in (running.worker, running.driver):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(6)
    for pid in (running.driver, running.worker):
        os.kill(pid, signal.SIGCONT)
    known = len(running._tests())
    wait_for(lambda: len(running._tests()) > known + 1)
    words = f"note: run: the training is stopped (process {running.driver}): waiting until it continues\n"
    assert capfd.readouterr().err == words


@pytest.mark.ci
def test_a_driver_that_is_killed_is_a_failed_run_in_the_database(
    start: Callable[..., Started], tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'lr.sqlite'}"
    running = start(db=url)
    os.kill(running.driver, signal.SIGKILL)
    result = running.result()
    assert result.status == "failed"
    assert result.reason == "killed by SIGKILL, perhaps for lack of memory"
    wait_for(lambda: not is_alive(running.worker))
    with Database.open(url) as database:
        (run,) = database.runs(source="measured", measurements=True)
    assert (run.status, run.reason) == ("failed", result.reason)
    assert [m.top1 for m in run.measurements] == [m.top1 for m in result.measurements]


@pytest.mark.ci
def test_stopped_and_gone_on_with(here: Workspace, start: Callable[..., Started]) -> None:
    running = start()
    running.stop.set()
    with pytest.raises(Stopped):
        running.result()
    record = here.run("run").record
    assert record["status"] == "stopped"
    assert here.run("run").state(record["iteration"]).is_file()
    further = run_child(training("run", until=record["iteration"] + 100))
    assert further.iteration == record["iteration"] + 100


CALLERS = {
    "started": "from lrbench_caffe.jobs.child import run_child\nrun_child({})",
    "forked": """
from lrbench_caffe.jobs import LocalPool
with LocalPool() as pool:
    pool.submit({})
    pool.next()
""",
}


@pytest.mark.ci
@pytest.mark.parametrize("how", CALLERS)
def test_the_training_stops_with_a_snapshot_when_its_caller_is_killed(
    here: Workspace, how: str
) -> None:
    wanted = "training('run', max_iter=LONG, test_interval=200)"
    code = "from tests.caffe.test_jobs import training, LONG\n" + CALLERS[how].format(wanted)
    caller = subprocess.Popen([sys.executable, "-c", code], env=ENVIRONMENT)
    run = here.run("run")
    wait_for(lambda: len(run.measurements()) > 1)
    (driver,) = drivers(run.path, caller.pid)
    below = descendants(caller.pid)  # with the servers of forks, and the worker
    assert (driver in children(caller.pid)) == (how == "started")
    assert len(below) == (2 if how == "started" else 4)
    caller.kill()
    caller.wait()
    wait_for(lambda: not any(is_alive(one) for one in below))
    assert run.record["status"] == "stopped"
    assert run.state(run.record["iteration"]).is_file()


@pytest.mark.ci
def test_trainings_whose_server_is_killed_are_lost_with_a_snapshot(here: Workspace) -> None:
    """The next ones do without it."""
    said: list[str] = []
    with LocalPool() as local:
        pool = RetryingPool(local, said.append)
        pool.submit(training("run", max_iter=5000, test_interval=200, retry=True))
        run = here.run("run")
        wait_for(lambda: len(run.measurements()) > 1)
        (driver,) = drivers(run.path)
        (server,) = (one for one in children(os.getpid()) if driver in children(one))
        os.kill(server, signal.SIGKILL)
        while (result := pool.next(timeout=60)) is None:
            pass
    assert (result.status, result.losses) == ("finished", 1)
    (line,) = said
    assert "killed by SIGTERM; it is tried again" in line
    first, second = run.record["sessions"]
    assert first["iteration"] == 0
    assert second["iteration"] > 200  # from the snapshot
    assert "repeated" not in run.record


def test_a_pool_whose_server_is_suspended_can_be_closed(here: Workspace) -> None:
    with LocalPool() as pool:
        pool.submit(training("run", max_iter=LONG, test_interval=200))
        run = here.run("run")
        wait_for(lambda: len(run.measurements()) > 1)
        (driver,) = drivers(run.path)
        (server,) = (one for one in children(os.getpid()) if driver in children(one))
        os.kill(server, signal.SIGSTOP)
    assert run.record["status"] == "stopped"
    assert not is_alive(driver) and not is_alive(server)


@pytest.mark.ci
def test_a_forked_training_leaves_what_a_started_one_does(here: Workspace) -> None:
    """But for the times: the command, what it printed, the measurements, the weights, the picture."""
    server, found = ForkServer(), []
    for how in (None, server, server):
        shutil.rmtree(here.path / "run", ignore_errors=True)
        assert run_child(training("run"), server=how).status == "finished"
        run = here.run("run")
        found.append(
            [
                sorted(str(path.relative_to(run.path)) for path in run.path.rglob("*")),
                run.record["command"],
                run.last_measurements(),
                run.iterations(),
                (run.path / "output.log").read_text(),
                (run.path / "training.png").read_bytes(),
                run.model(100).read_bytes(),
            ]
        )
    server.close()
    assert found[1] == found[0]
    assert found[2] == found[0]


def test_a_pool_goes_on_after_a_failure(here: Workspace) -> None:
    here.write("broken.prototxt", nets.solver(net='"missing.prototxt"'))
    wanted = [training(f"run{number}", policy=f"FIX(k0=0.0{number})") for number in (1, 2)]
    broken = Job("broken.prototxt", seed=3, out="broken", db="")
    with LocalPool(jobs=2) as pool:
        for one in (broken, *wanted):
            pool.submit(one)
        results = [pool.next(timeout=120) for _ in range(3)]
    by_out = {result.training.out: result for result in results if result}
    assert {out: result.status for out, result in by_out.items()} == {
        "broken": "failed", "run1": "finished", "run2": "finished",
    }  # fmt: skip
    assert "missing.prototxt" in str(by_out["broken"].reason)


def test_a_pool_that_is_closed_stops_its_trainings(here: Workspace) -> None:
    with LocalPool(jobs=1) as pool:
        for out in ("first", "second"):
            pool.submit(training(out, max_iter=LONG, test_interval=200))
        wait_for(lambda: len(here.run("first").measurements()) > 1)
        assert pool.next(timeout=0.1) is None
    assert here.run("first").record["status"] == "stopped"
    assert not (here.path / "second").exists()


def test_a_folder_that_cannot_be_made_is_bad_input_not_a_training_to_wait_for(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write to .*file/run: Not a directory"):
        run_child(training(str(tmp_path / "file" / "run")))
