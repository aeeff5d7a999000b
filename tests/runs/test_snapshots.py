"""Snapshots are believed when they read back; the files here are real protobuf, written without Caffe."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from lrbench_caffe.errors import InputError, TrainingError
from lrbench_caffe.prototxt.messages import file_path
from lrbench_caffe.runs.caffefiles import copy_state, read_state
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.runs.snapshots import Snapshots, public_prefix, ready_prefix
from lrbench_caffe.runtime import worker as protocol


@pytest.fixture
def run(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    directory.lock()
    yield directory
    directory.release()


@pytest.fixture
def files(messages):
    """``files(prefix, iteration)``: what Caffe would write."""

    def write(prefix: Path, iteration: int) -> int:
        model, state = messages.new("NetParameter"), messages.new("SolverState")
        layer = model.layer.add(name="ip")
        layer.blobs.add().data.extend([0.5] * 50)
        state.iter = iteration
        state.learned_net = f"{prefix}_iter_{iteration}.caffemodel"
        state.history.add().data.extend([0.25] * 50)
        Path(state.learned_net).write_bytes(model.SerializeToString())
        Path(f"{prefix}_iter_{iteration}.solverstate").write_bytes(state.SerializeToString())
        return iteration

    return write


@pytest.fixture
def snapshots(run, messages, files):
    """``snapshots(publish)``: a run's snapshots, and a function that takes one."""

    def make(public: Path | None = None):
        made = Snapshots(run, messages, public or Path("prefix/lenet"), publish=public is not None)

        def take(iteration: int, *, automatic: bool = False, break_it=lambda model, state: None):
            def write() -> int:
                files(made.prefix, iteration)
                stem = f"{made.prefix}_iter_{iteration}"
                break_it(Path(f"{stem}.caffemodel"), Path(f"{stem}.solverstate"))
                return iteration

            return made.take(write, iteration, 1.5, automatic)

        return made, take

    return make


def test_a_snapshot_is_found_again(snapshots, run):
    made, take = snapshots()
    assert made.newest() == (None, [])
    take(100)
    taken = take(200)
    assert made.newest() == (taken, [])
    assert (taken.iteration, taken.seconds, taken.automatic) == (200, 1.5, False)
    assert taken.state == "lenet_iter_200.solverstate"
    assert (run.snapshots / taken.state).is_file()
    assert [snapshot.iteration for snapshot in made.all()] == [100, 200]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    "break_it",
    [
        lambda model, state: cut(state),
        lambda model, state: cut(model),
        lambda model, state: state.write_bytes(b""),
        lambda model, state: model.write_bytes(b""),
    ],
    ids=["state cut short", "model cut short", "empty state", "empty model"],
)
def test_an_incomplete_snapshot(snapshots, run, break_it):
    made, take = snapshots()
    earlier = take(100)
    with pytest.raises(TrainingError, match=r"MB free on the disk.*lenet_iter_200"):
        take(200, break_it=break_it)
    assert made.newest() == (earlier, [])
    assert sorted(path.name for path in run.snapshots.iterdir()) == [
        "lenet_iter_100.caffemodel",
        "lenet_iter_100.solverstate",
    ]


def test_a_snapshot_that_was_never_written(snapshots):
    made, _ = snapshots()
    with pytest.raises(TrainingError, match=r"Caffe left no solver state at .*lenet_iter_7"):
        made.take(lambda: 7, 7, 1.0)


def test_caffe_dies_while_it_writes(snapshots, run):
    made, take = snapshots()
    earlier = take(100)

    def die() -> int:
        Path(f"{made.prefix}_iter_200.caffemodel").write_bytes(b"half")
        raise TrainingError("Caffe was killed by SIGABRT")

    with pytest.raises(TrainingError, match=r"MB free on the disk.*Caffe was killed by SIGABRT"):
        made.take(die, 200, 1.0)
    assert made.newest() == (earlier, [])
    # On a full disk the half file would hold the room for what is still to be written.
    assert not list(run.snapshots.glob("*_200*"))


def test_damaged_snapshots_are_passed_over(snapshots, run):
    made, take = snapshots()
    good, cut_short, other_bytes, gone = take(100), take(200), take(300), take(400)
    cut(run.snapshots / cut_short.state)
    model = run.snapshots / other_bytes.model
    model.write_bytes(bytes(model.stat().st_size))  # of the same size
    (run.snapshots / gone.model).unlink()
    assert made.newest() == (good, [gone.state, other_bytes.state, cut_short.state])


def test_snapshots_that_are_all_damaged_are_named(snapshots, run):
    made, take = snapshots()
    cut(run.snapshots / take(100).state)
    assert made.newest() == (None, ["lenet_iter_100.solverstate"])


def test_a_run_can_be_moved(snapshots, run, messages, tmp_path):
    _, take = snapshots()
    taken = take(100)
    moved = tmp_path / "moved"
    run.path.rename(moved)
    made = Snapshots(RunDirectory(moved), messages, Path("prefix/lenet"), publish=False)
    assert made.newest() == (taken, [])
    state = made.restorable(taken, current_step=7)
    message = messages.read_binary("SolverState", state)
    assert (message.iter, message.learned_net) == (100, str(moved / "snapshots" / taken.model))
    assert message.current_step == 7
    made.forget_copies()
    assert not state.exists()
    assert made.newest() == (taken, [])


def write_hdf5(stem: Path, iteration: int) -> int:
    """A snapshot as Caffe writes it in HDF5: a layer with two blobs of (5, 10) and (5)."""
    with h5py.File(f"{stem}_iter_{iteration}.caffemodel.h5", "w") as file:
        for number, shape in enumerate([(5, 10), (5,)]):
            file[f"data/ip/{number}"] = np.full(shape, 0.5, dtype="f4")
    with h5py.File(f"{stem}_iter_{iteration}.solverstate.h5", "w") as file:
        file["iter"], file["current_step"] = iteration, 0
        file["learned_net"] = np.array(f"gone/x_iter_{iteration}.caffemodel.h5".encode())
        for number, shape in enumerate([(5, 10), (5,)]):
            file[f"history/{number}"] = np.zeros(shape, dtype="f4")
    return iteration


def test_an_hdf5_snapshot_of_a_run_that_was_moved(snapshots, run):
    made, _ = snapshots()
    taken = made.take(lambda: write_hdf5(made.prefix, 5), 5, 1.0)
    assert taken.state == "lenet_iter_5.solverstate.h5"
    with h5py.File(made.restorable(taken, current_step=3)) as file:
        # To the NUL, which Caffe needs at the end.
        assert file["learned_net"][()] == str(run.snapshots / taken.model).encode()
        assert file["learned_net"].dtype.itemsize == len(str(run.snapshots / taken.model)) + 1
        assert (file["iter"][()], file["current_step"][()]) == (5, 3)


def test_an_hdf5_snapshot_that_is_cut_short(snapshots):
    made, _ = snapshots()

    def write() -> int:
        write_hdf5(made.prefix, 5)
        cut(Path(f"{made.prefix}_iter_5.solverstate.h5"))
        return 5

    with pytest.raises(TrainingError, match=r"lenet_iter_5.solverstate.h5 cannot be read as HDF5"):
        made.take(write, 5, 1.0)


def test_a_failed_snapshot_leaves_others_alone_however_the_folder_is_spelt(
    snapshots, run, messages, monkeypatch
):
    _, take = snapshots()
    taken = take(100)
    monkeypatch.chdir(run.path.parent)
    made = Snapshots(
        RunDirectory(Path(run.path.name)), messages, Path("prefix/lenet"), publish=False
    )
    with pytest.raises(TrainingError):
        made.take(lambda: 200, 200, 1.0)
    assert made.newest() == (taken, [])


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [("", "sub/mine"), ("snaps/lenet", "snaps/lenet"), ("folder", "folder/mine")],
)
def test_the_prefix_is_caffes(tmp_path, monkeypatch, prefix, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    assert public_prefix(prefix, Path("sub/mine.prototxt")) == Path(expected)


def test_an_automatic_snapshot_is_replaced_by_the_next(snapshots, run):
    made, take = snapshots()
    take(100)
    take(150, automatic=True)
    take(170, automatic=True)
    assert [snapshot.iteration for snapshot in made.all()] == [100, 170]
    assert not (run.snapshots / "lenet_iter_150.solverstate").exists()
    take(200)
    take(300)
    assert [snapshot.iteration for snapshot in made.all()] == [100, 200, 300]


def test_published_where_caffe_train_would_have_written(snapshots, run, messages, tmp_path):
    public = tmp_path / "user" / "snapshots" / "lenet"
    _, take = snapshots(public)
    taken = take(100)
    state = messages.read_binary("SolverState", Path(f"{public}_iter_100.solverstate"))
    # The user's state belongs to the user's model, the run's to the run's: either may be deleted.
    assert state.learned_net == f"{public}_iter_100.caffemodel"
    own = run.snapshots / taken.model
    assert Path(state.learned_net).read_bytes() == own.read_bytes()
    assert messages.read_binary("SolverState", run.snapshots / taken.state).learned_net == str(own)
    take(150, automatic=True)
    assert sorted(path.name for path in public.parent.iterdir()) == [
        "lenet_iter_100.caffemodel",
        "lenet_iter_100.solverstate",
    ]


def test_what_is_published_takes_no_second_room_and_is_never_half(
    snapshots, run, tmp_path, monkeypatch
):
    public = tmp_path / "user" / "lenet"
    _, take = snapshots(public)
    own, published = run.snapshots / take(100).model, Path(f"{public}_iter_100.caffemodel")
    if not can_share_blocks(tmp_path):
        assert published.samefile(own)
    whole = published.read_bytes()
    # Caffe writes the snapshot again, after a kill, and fails.
    with pytest.raises(TrainingError):
        take(100, break_it=lambda model, state: cut(model))
    assert published.read_bytes() == whole

    def no_links(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_links)
    own, published = run.snapshots / take(200).model, Path(f"{public}_iter_200.caffemodel")
    assert published.read_bytes() == own.read_bytes()
    assert not published.samefile(own)
    assert sorted(path.name for path in public.parent.iterdir() if path.name.startswith(".")) == []


def can_share_blocks(folder: Path) -> bool:
    """Whether this disk has files that share blocks until one is written."""
    (folder / "old").write_bytes(b"x" * 8192)
    command = ["cp", "--reflink=always", folder / "old", folder / "new"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def solver_with(messages, **fields):
    message = messages.new("SolverParameter")
    for name, value in fields.items():
        setattr(message, name, value)
    return SimpleNamespace(message=message, path=Path("mine.prototxt"))


def test_a_prefix_where_nothing_can_be_written_is_known_before_the_training(messages, tmp_path):
    (tmp_path / "file").touch()
    prefix = f"{tmp_path}/file/lenet"
    with pytest.raises(
        InputError, match=r"mine.prototxt: snapshot_prefix: cannot write to snapshot"
    ):
        ready_prefix(solver_with(messages, snapshot_prefix=prefix, snapshot=0))
    with pytest.raises(InputError, match=re.escape(repr(prefix))):
        ready_prefix(
            solver_with(messages, snapshot_prefix=prefix, snapshot=5, snapshot_after_train=False)
        )
    # As caffe train, which has nothing to write then.
    nothing = solver_with(messages, snapshot_prefix=prefix, snapshot=0, snapshot_after_train=False)
    assert ready_prefix(nothing) == []


def test_a_missing_folder_for_snapshots_is_made_before_the_training(messages, tmp_path):
    solver = solver_with(messages, snapshot_prefix=f"{tmp_path}/new/deep/lenet")
    (remark,) = ready_prefix(solver)
    assert f"the folder {tmp_path}/new/deep was missing and has been created" in remark
    assert list((tmp_path / "new" / "deep").iterdir()) == []
    assert ready_prefix(solver) == []


def test_nowhere_to_publish(snapshots, tmp_path):
    (tmp_path / "user").touch()
    made, take = snapshots(tmp_path / "user" / "lenet")
    with pytest.raises(
        TrainingError, match=r"^cannot write the snapshot to .*user: .*; it is in .*\.caffemodel$"
    ):
        take(100)
    assert made.newest()[0].iteration == 100


@pytest.mark.parametrize("name", [b"plain", b"caf\xe9", b"\xff\xfe", "\u540d".encode()])
def test_a_state_names_weights_of_any_bytes(tmp_path, messages, name):
    """Caffe's names are bytes, and no string of a protobuf message can be what is not UTF-8."""
    state = messages.new("SolverState")
    state.iter, state.learned_net = 7, "elsewhere"
    state.history.add().data.extend([1.5])
    (tmp_path / "a.solverstate").write_bytes(state.SerializeToString())
    model = tmp_path / os.fsdecode(name + b".caffemodel")
    copy_state(
        tmp_path / "a.solverstate",
        tmp_path / "b.solverstate",
        messages,
        model=model,
        current_step=3,
    )
    copy_state(tmp_path / "b.solverstate", tmp_path / "c.solverstate", messages, model=None)
    for copy in ("b", "c"):
        stored = read_state(tmp_path / f"{copy}.solverstate", messages)
        assert stored.iteration == 7
        assert file_path(stored.learned_net) == model
        assert name + b".caffemodel" in (tmp_path / f"{copy}.solverstate").read_bytes()
    state.learned_net, state.current_step = "", 3
    found = messages.read_binary("SolverState", tmp_path / "c.solverstate")
    found.learned_net = ""
    assert found == state


def test_prefixes_are_bytes_too():
    name = b"to/\xff\xfe"
    assert public_prefix(protocol.decode(name), Path("s.prototxt")) == Path(os.fsdecode(name))


def test_what_a_kill_left_at_the_snapshot_prefix_is_removed(messages, tmp_path):
    left = [
        ".lenet.4194399",
        ".lenet_iter_40.caffemodel.4194399",
        ".lenet_iter_40.solverstate.h5.4194399",
    ]
    others = [
        ".lenet2_iter_40.caffemodel.4194399",
        f".lenet_iter_40.caffemodel.{os.getppid()}",
        "lenet.4194399",
    ]
    for name in left + others:
        (tmp_path / name).touch()
    ready_prefix(solver_with(messages, snapshot_prefix=f"{tmp_path}/lenet"))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


def test_a_link_in_the_place_of_a_snapshot_is_not_written_to(snapshots, run, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    made, take = snapshots()
    for suffix in ("caffemodel", "solverstate"):
        (run.snapshots / f"lenet_iter_100.{suffix}").symlink_to(elsewhere)
    taken = take(100)
    assert elsewhere.read_text() == "mine"
    assert made.newest() == (taken, [])
    (run.snapshots / taken.model).rename(tmp_path / "moved")
    (run.snapshots / taken.model).symlink_to(tmp_path / "moved")  # of the same content
    assert made.newest() == (None, [taken.state])
