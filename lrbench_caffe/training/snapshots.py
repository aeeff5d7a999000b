"""Snapshots: written by Caffe, believed only when they read back, published where the user expects them."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from lrbench_caffe.errors import InputError, TrainingError
from lrbench_caffe.prototxt.messages import Messages
from lrbench_caffe.training.rundir import RunDirectory

SUFFIXES = (("caffemodel", "solverstate"), ("caffemodel.h5", "solverstate.h5"))


@dataclass(frozen=True)
class Snapshot:
    """A complete snapshot.

    Attributes:
        iteration: updates done.
        model: the .caffemodel (or .caffemodel.h5).
        state: the .solverstate (or .solverstate.h5).
        model_bytes, state_bytes: their sizes when they were found complete.
        seconds: wall time of the run up to it.
        automatic: True where it was not asked for but made against a kill; the next one replaces it.
    """

    iteration: int
    model: str
    state: str
    model_bytes: int
    state_bytes: int
    seconds: float
    automatic: bool = False

    @property
    def intact(self) -> bool:
        """Whether both files are there with the sizes they had."""
        try:
            return (
                os.path.getsize(self.model) == self.model_bytes
                and os.path.getsize(self.state) == self.state_bytes
            )
        except OSError:
            return False


class Snapshots:
    """A run's snapshots.

    Args:
        run: the run directory; Caffe writes into its ``snapshots`` folder.
        messages: this Caffe's messages.
        prefix: the solver's snapshot_prefix.
        publish: also put each snapshot at ``prefix``, where ``caffe train`` would have written it.
    """

    def __init__(self, run: RunDirectory, messages: Messages, prefix: str, publish: bool) -> None:
        self._run = run
        self._messages = messages
        self._public = Path(prefix) if publish and prefix else None
        self.prefix = run.snapshots / (Path(prefix).name or "snapshot")

    def take(self, write: Callable[[], int], seconds: float, automatic: bool = False) -> Snapshot:
        """Let Caffe write a snapshot, check it, record it and publish it.

        Args:
            write: makes Caffe write; returns the iteration.

        Raises:
            TrainingError: the files are incomplete; earlier snapshots are untouched.
        """
        try:
            iteration = write()
        except TrainingError as error:
            room = self._room()
            self._drop_incomplete()
            raise TrainingError(f"a snapshot could not be written ({room}): {error}") from error
        model, state = self._written(iteration)
        try:
            self._check(model, state, iteration)
        except InputError as error:
            room = self._room()
            self._drop_incomplete()
            raise TrainingError(
                f"the snapshot of iteration {iteration} is incomplete: {error} ({room})"
            ) from error
        snapshot = Snapshot(
            iteration, str(model), str(state), model.stat().st_size, state.stat().st_size, seconds, automatic
        )
        replaced = [old for old in self.all() if old.automatic and old.iteration < iteration]
        self._run.append("snapshots.jsonl", asdict(snapshot))
        for old in replaced:
            for name in (old.model, old.state):
                Path(name).unlink(missing_ok=True)
        if self._public and not automatic:
            self._publish(model, state)
        return snapshot

    def all(self) -> list[Snapshot]:
        """The intact snapshots, by iteration."""
        rows = {row["iteration"]: Snapshot(**row) for row in self._run.rows("snapshots.jsonl")}
        return [rows[i] for i in sorted(rows) if rows[i].intact]

    def newest(self) -> Snapshot | None:
        return max(self.all(), key=lambda snapshot: snapshot.iteration, default=None)

    def _room(self) -> str:
        return f"{shutil.disk_usage(self._run.path).free / 1e6:.1f} MB free on the disk"

    def _drop_incomplete(self) -> None:
        """Remove the files of a snapshot that failed: on a full disk they hold the room for the rest."""
        complete = {Path(name) for snapshot in self.all() for name in (snapshot.model, snapshot.state)}
        for path in self.prefix.parent.glob(f"{glob.escape(self.prefix.name)}_iter_*"):
            if path not in complete:
                path.unlink(missing_ok=True)

    def _written(self, iteration: int) -> tuple[Path, Path]:
        for suffixes in SUFFIXES:
            model, state = (Path(f"{self.prefix}_iter_{iteration}.{suffix}") for suffix in suffixes)
            if state.exists():
                return model, state
        raise TrainingError(f"Caffe left no solver state at {self.prefix}_iter_{iteration}.*")

    def _check(self, model: Path, state: Path, iteration: int) -> None:
        if state.suffix == ".h5":
            for path in (model, state):
                if path.stat().st_size == 0:
                    raise InputError(f"{path} is empty")
            return
        message = self._messages.read_binary("SolverState", state)
        if message.iter != iteration or not message.history:
            raise InputError(f"{state} is of iteration {message.iter} with {len(message.history)} histories")
        if not self._messages.read_binary("NetParameter", model).layer:
            raise InputError(f"{model} holds no layers")

    def _publish(self, model: Path, state: Path) -> None:
        """Put both files at the user's prefix, each at once or not at all."""
        assert self._public is not None
        public = self._public.parent
        try:
            public.mkdir(parents=True, exist_ok=True)
            _link(model, public / model.name)
            if state.suffix == ".h5":
                _link(state, public / state.name)
                return
            message = self._messages.read_binary("SolverState", state)
            message.learned_net = str(public / model.name)
            temporary = public / f".{state.name}.{os.getpid()}"
            temporary.write_bytes(message.SerializeToString())
            os.replace(temporary, public / state.name)
        except OSError as error:
            raise TrainingError(
                f"cannot write the snapshot to {public}: {error.strerror}; it is in {model}"
            ) from error


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, as a copy where the disks differ."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)


def state_iteration(state: Path, messages: Messages) -> int | None:
    """The iteration of a .solverstate that a user names; None for HDF5, which only Caffe can read.

    Raises:
        InputError: the file or its caffemodel is missing or incomplete.
    """
    if not state.is_file():
        raise InputError(f"--snapshot: no such file: {state}")
    if state.suffix == ".h5":
        return None
    message = messages.read_binary("SolverState", state)
    if not message.history:
        raise InputError(f"--snapshot: {state} is not a solver state (a .solverstate file is needed)")
    if message.learned_net and not Path(message.learned_net).is_file():
        raise InputError(f"--snapshot: {state} belongs to {message.learned_net}, which does not exist")
    return int(message.iter)
