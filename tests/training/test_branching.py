"""Taking over the beginning of another run: what is the same, and how it is written, without Caffe."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lrbench_caffe.lr import parse
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.prototxt.messages import Messages
from lrbench_caffe.records import Start
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.runs.mending import take_up
from lrbench_caffe.runs.snapshots import Snapshots, recorded
from lrbench_caffe.training.branching import Beginning, NotShared, shared_beginning
from lrbench_caffe.training.monitor import ScheduleMonitor
from lrbench_caffe.training.settings import RunSettings

MAX_ITER, INTERVAL = 100, 20
PYTHON = ["python"]
FIX = "FIX(k0=0.1)"


def settings(policy: str = FIX, **more: Any) -> RunSettings:
    options = {"fingerprint": {"momentum": "momentum: 0.9", "net": "abc"}, **more}
    return RunSettings("s.prototxt", policy, "given", 1, MAX_ITER, INTERVAL, 0, **options)


def monitor(policy: str, **more: Any) -> ScheduleMonitor:
    bound = parse(policy).bind(MAX_ITER)
    return ScheduleMonitor(bound, max_iter=MAX_ITER, test_interval=INTERVAL, **more)


def loss(iteration: int) -> float:
    return 2.0 / (1 + iteration)


class Disk:
    """Run directories; Caffe's files in them are real, and written without Caffe."""

    def __init__(self, folder: Path, messages: Messages) -> None:
        self.folder, self._messages = folder, messages

    def run(self, name: str) -> RunDirectory:
        return RunDirectory(self.folder / name)

    def snapshots(self, run: RunDirectory) -> Snapshots:
        return Snapshots(run, self._messages, Path("lenet"), publish=False, keep=(30, 40))

    def caffe_writes(self, snapshots: Snapshots, iteration: int) -> int:
        model = self._messages.new("NetParameter")
        model.layer.add(name="ip").blobs.add().data.extend([iteration / 7] * 9)
        state = self._messages.new("SolverState")
        state.iter, state.learned_net = iteration, f"{snapshots.prefix}_iter_{iteration}.caffemodel"
        state.history.add().data.extend([0.25] * 9)
        Path(state.learned_net).write_bytes(model.SerializeToString())
        Path(f"{snapshots.prefix}_iter_{iteration}.solverstate").write_bytes(
            state.SerializeToString()
        )
        return iteration

    def begun(self, name: str, settled: RunSettings, **more: Any) -> RunDirectory:
        run = self.run(name)
        run.lock()
        record = {
            "id": f"id-of-{name}", **settled.as_json(), "status": "running", "caffe_python": PYTHON,
            "sessions": [{"began": 1.0, "iteration": 0, "layers": "stock"}], **more,
        }  # fmt: skip
        run.begin(record)
        return run

    def trained(self, name: str = "origin", policy: str = FIX, **more: Any) -> RunDirectory:
        """A run of 70 iterations with snapshots of 30, 40, 50 and 70."""
        run = self.begun(name, settings(policy), **more)
        self.train(run, policy, 0, 70, also_at=(30, 40, 50))
        run.update(status="stopped", iteration=70)
        run.release()
        return run

    def train(
        self, run: RunDirectory, policy: str, begin: int, end: int, also_at: Collection[int] = ()
    ) -> None:
        """Train from one iteration to another, with a snapshot at the end, and at others."""
        plan, snapshots = monitor(policy), self.snapshots(run)
        for start in range(begin, end, 10):
            if start % INTERVAL == 0:
                values = dict.fromkeys(("top1", "test_loss"), float(start))
                measured = Measurement(start, plan.lr(start), **values, seconds=start / 10)
                run.add_measurement(measured)
            if start in also_at:
                self.take(snapshots, start)
            lrs = np.asarray(plan.policy(np.arange(start, start + 10)))
            run.add_iterations(start, lrs, np.array([loss(i) for i in range(start, start + 10)]))
        self.take(snapshots, end)

    def take(self, snapshots: Snapshots, iteration: int) -> None:
        write = lambda: self.caffe_writes(snapshots, iteration)  # noqa: E731
        snapshots.take(write, iteration, iteration / 10, iteration != 50)


@pytest.fixture
def disk(tmp_path: Path, messages: Messages) -> Disk:
    return Disk(tmp_path, messages)


def found(
    disk: Disk, policy: str, after: int = 0, until: int | None = None, at: int | None = None
) -> Beginning:
    plan = monitor(policy, until=until)
    origin = disk.run("origin")
    return shared_beginning(origin, settings(policy), plan, PYTHON, None, after=after, at=at)


@pytest.mark.parametrize(
    ("policy", "after", "until", "iteration", "tests"),
    [
        ("STEP(k0=0.1, gamma=0.5, l=50)", 0, None, 50, [0, 20, 40]),
        ("STEP(k0=0.1, gamma=0.5, l=49)", 0, None, 40, [0, 20, 40]),  # that of 40 was tested
        ("STEP(k0=0.1, gamma=0.5, l=39)", 0, None, 30, [0, 20]),
        ("STEP(k0=0.1, gamma=0.5, l=90)", 0, 69, 50, [0, 20, 40]),
        ("STEP(k0=0.1, gamma=0.5, l=90)", 50, None, 70, [0, 20, 40, 60]),
    ],
)
def test_the_newest_snapshot_before_the_lrs_differ(
    disk: Disk, policy: str, after: int, until: int | None, iteration: int, tests: list[int]
) -> None:
    disk.trained()
    beginning = found(disk, policy, after, until)
    assert beginning.iteration == iteration
    assert [row["iteration"] for row in beginning.tests] == tests
    assert [json.loads(f"[{row}]")[0] for row in beginning.losses] == list(range(iteration))


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("STEP(k0=0.1, gamma=0.5, l=29)", "same for 29 iterations, but no snapshot from 1 to 29"),
        ("FIX(k0=0.2)", "same for 0 iterations"),
        ("FIX(k0=0.10000000000000002)", "same for 0 iterations"),  # the next float64
        ("FIX(k0=0.1) ; plateau(n=1): FIX(k0=0.1)", "same for 0 iterations"),
    ],
)
def test_other_lrs(disk: Disk, policy: str, words: str) -> None:
    disk.trained()
    with pytest.raises(NotShared, match=words):
        found(disk, policy)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"layers": "fast", "width": 512}, "its layers is 'stock', not 'fast'"),
        ({"blas_kernels": "Haswell"}, "its blas_kernels is None, not 'Haswell'"),
        ({"threads": 2}, "its threads is 1, not 2"),
        ({"lr_by": "gradients"}, "its lr_by is 'base_lr', not 'gradients'"),
        ({"fingerprint": {"momentum": "momentum: 0.9", "net": "abd"}}, "has another net"),
        ({"fingerprint": {"net": "abc"}}, "has another momentum"),
        ({"start": Start("weights", "0123")}, "it began with scratch"),
        ({"snapshot": "x.solverstate", "start": Start("snapshot", "0")}, "its snapshot is None"),
    ],
)
def test_another_training(disk: Disk, more: Any, words: str) -> None:
    disk.trained()
    policy = "STEP(k0=0.1, gamma=0.5, l=50)"
    with pytest.raises(NotShared, match=words):
        shared_beginning(
            disk.run("origin"), settings(policy, **more), monitor(policy), PYTHON, None
        )
    other = settings(policy)
    other.seed = 2
    with pytest.raises(NotShared, match="its seed is 1, not 2"):
        shared_beginning(disk.run("origin"), other, monitor(policy), PYTHON, None)
    with pytest.raises(NotShared, match="another Caffe"):
        shared_beginning(disk.run("origin"), settings(policy), monitor(policy), ["python3"], None)


STEP = "STEP(k0=0.1, gamma=0.5, l=90)"


def with_data(disk: Disk, data: str | None) -> int:
    return shared_beginning(
        disk.run("origin"), settings(STEP), monitor(STEP), PYTHON, data
    ).iteration


def test_other_data(disk: Disk) -> None:
    """By each session's data; a run of an earlier version has that of the last one alone."""
    origin = disk.trained(record={"uid": "1", "dataset": {"digest": "a"}})
    assert with_data(disk, "a") == with_data(disk, None) == 70
    with pytest.raises(NotShared, match="it has other data, or the data has changed since"):
        with_data(disk, "b")
    begun = {"began": 1.0, "layers": "stock"}
    sessions = [{"iteration": 0, "data_digest": "b"}, {"iteration": 45, "data_digest": "a"}]
    origin.lock()
    origin.update(sessions=[{**begun, **session} for session in sessions])
    origin.release()
    assert with_data(disk, "b") == 40
    with pytest.raises(NotShared, match="other data"):
        with_data(disk, "a")


def test_no_later_than_asked_for(disk: Disk) -> None:
    disk.trained()
    assert found(disk, "STEP(k0=0.1, gamma=0.5, l=50)", at=49).iteration == 40


def test_what_may_differ(disk: Disk) -> None:
    """The solver file's own lr_policy is not trained with, and display changes no bit."""
    disk.trained()
    policy = "STEP(k0=0.1, gamma=0.5, l=50)"
    ours = settings(policy)
    ours.fingerprint |= {"lr_policy": 'lr_policy: "step"', "display": "display: 7"}
    assert shared_beginning(disk.run("origin"), ours, monitor(policy), PYTHON, None).iteration == 50


def test_sessions_with_other_layers(disk: Disk) -> None:
    """The run was resumed at 35 with other layers: only its beginning before that is Caffe's own."""
    sessions = [
        {"began": 1.0, "iteration": 0, "layers": "stock"},
        {"began": 2.0, "iteration": 35, "layers": "fast"},
    ]
    disk.trained(sessions=sessions)
    assert found(disk, "STEP(k0=0.1, gamma=0.5, l=50)").iteration == 30


def test_a_damaged_snapshot_and_damaged_records(disk: Disk) -> None:
    origin = disk.trained()
    policy = "STEP(k0=0.1, gamma=0.5, l=50)"
    (origin.snapshots / "lenet_iter_50.caffemodel").write_bytes(b"")
    assert found(disk, policy).iteration == 40
    for name in ("iterations.csv", "losses.log"):
        path = origin.path / name
        path.write_text(path.read_text().replace("35,0.1,", "35,0.1,1"))
    assert found(disk, policy).iteration == 30


def test_the_end_of_a_training_is_not_taken_over(disk: Disk) -> None:
    """Caffe does more there than in the middle of a longer one."""
    origin = disk.trained()
    record = {**origin.read(), "max_iter": 50}
    origin.lock()
    origin.write(record)
    origin.release()
    assert found(disk, "STEP(k0=0.1, gamma=0.5, l=50)").iteration == 40


def contents(run: RunDirectory) -> dict[str, Any]:
    """What a run directory has, but for its own name."""
    snapshots = [(s.iteration, s.automatic, s.model_sha256) for s in recorded(run)]
    return {
        "csv": (run.path / "iterations.csv").read_text(),
        "losses": run.losses(),
        "tests": [{**row, "seconds": 0} for row in run.rows("measurements.jsonl")],
        "snapshots": snapshots,
        "damage": run.damage(),
        "repeated": run.repeated,
    }


def took_over(disk: Disk, name: str, policy: str) -> RunDirectory:
    run = disk.begun(name, settings(policy))
    found(disk, policy).take_over(run, disk.snapshots(run), monitor(policy))
    run.release()
    return run


def test_it_is_as_if_it_had_been_trained_there(disk: Disk) -> None:
    """Also the LR of the test at its end, which is that of the next update."""
    disk.trained()
    policy = "STEP(k0=0.1, gamma=0.5, l=40)"
    run = took_over(disk, "branched", policy)
    lines = (run.path / "iterations.csv").read_text().splitlines()
    assert lines[1:] == [f"{i},0.1,{loss(i)!r}" for i in range(40)]
    lrs = [(row["iteration"], row["lr"]) for row in run.rows("measurements.jsonl")]
    assert lrs == [(0, 0.1), (20, 0.1), (40, 0.05)]
    (snapshot,) = recorded(run)
    assert (snapshot.iteration, snapshot.automatic, snapshot.seconds) == (40, True, 4.0)
    run.lock()
    taken_up = take_up(run, disk.snapshots(run), lambda iteration: (), 0, MAX_ITER)
    assert taken_up.start == snapshot and taken_up.notes == []
    run.release()


@pytest.mark.parametrize("own", [0, 20])
def test_what_cannot_be_taken_over_is_trained(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, own: int
) -> None:
    """The run begins where it would have, and can be resumed like any other."""
    disk.trained()
    policy = "STEP(k0=0.1, gamma=0.5, l=40)"
    whole = disk.begun("whole", settings(policy))
    run = disk.begun("run", settings(policy))
    for one in (whole, run):
        if own:
            disk.train(one, policy, 0, own)
    found(disk, policy)
    with monkeypatch.context() as patch:
        patch.setattr(Snapshots, "adopt", full_disk)
        with pytest.raises(OSError, match="No space left"):
            found(disk, policy).take_over(run, disk.snapshots(run), monitor(policy))
    for one in (whole, run):
        disk.train(one, policy, own, 60)
        one.release()
    assert contents(run) == contents(whole)
    run.lock()
    taken_up = take_up(run, disk.snapshots(run), lambda iteration: (), 0, MAX_ITER)
    assert taken_up.start is not None and taken_up.start.iteration == 60
    assert taken_up.notes == []
    run.release()


def full_disk(*args: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_the_caffemodel_is_stored_once(disk: Disk) -> None:
    origin = disk.trained()
    run = took_over(disk, "branched", "STEP(k0=0.1, gamma=0.5, l=50)")
    name = "lenet_iter_50.caffemodel"
    same = (origin.snapshots / name).samefile(run.snapshots / name)
    assert same or (origin.snapshots / name).read_bytes() == (run.snapshots / name).read_bytes()
    state = (run.snapshots / "lenet_iter_50.solverstate").read_bytes()
    assert str(run.snapshots / name).encode() in state


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", range(9))
def test_killed_at_any_write(disk: Disk, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """What was written until then does no harm, and counts as nothing that was lost."""
    disk.trained()
    policy = "STEP(k0=0.1, gamma=0.5, l=50)"
    whole = contents(took_over(disk, "whole", policy))
    writes = 0

    def killing(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal writes
            writes += 1
            if writes > at:
                raise Killed
            return method(*args, **options)

        return call

    run = disk.begun("killed", settings(policy))
    beginning = found(disk, policy)
    with monkeypatch.context() as patch:
        for kind, name in (
            (RunDirectory, "append"), (RunDirectory, "add_iterations"), (Snapshots, "take"),
            (Snapshots, "_check"), (Path, "unlink"),
        ):  # fmt: skip
            patch.setattr(kind, name, killing(getattr(kind, name)))
        try:
            beginning.take_over(run, disk.snapshots(run), monitor(policy))
            assert writes <= at
        except Killed:
            pass
        run.release()
    run = disk.run("killed")
    run.lock()
    start = take_up(run, disk.snapshots(run), lambda iteration: (), 0, MAX_ITER).start
    if start is None:
        beginning.take_over(run, disk.snapshots(run), monitor(policy))
    run.release()
    assert contents(run) == whole
