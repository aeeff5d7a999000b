"""Snapshots: written by Caffe, believed only when they read back, published where the user expects them."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lrbench_caffe.errors import InputError, TrainingError
from lrbench_caffe.prototxt.messages import Messages
from lrbench_caffe.training.rundir import RunDirectory

SUFFIXES = (("caffemodel", "solverstate"), ("caffemodel.h5", "solverstate.h5"))
HDF5 = ".h5"


@dataclass(frozen=True)
class Snapshot:
    """A complete snapshot.

    Attributes:
        iteration: updates done.
        model: the .caffemodel (or .caffemodel.h5); a name in the run's snapshots folder, so that the run
            can be moved.
        state: the .solverstate (or .solverstate.h5), likewise.
        model_sha256, state_sha256: of the files when they were found complete.
        seconds: wall time of the run up to it.
        automatic: True where it was not asked for but made against a kill; the next one replaces it.
    """

    iteration: int
    model: str
    state: str
    model_sha256: str
    state_sha256: str
    seconds: float
    automatic: bool = False


class Snapshots:
    """A run's snapshots.

    Args:
        run: the run directory; Caffe writes into its ``snapshots`` folder.
        messages: this Caffe's messages.
        prefix: where ``caffe train`` would write them (see ``public_prefix``).
        publish: also put a copy of each snapshot there.
    """

    def __init__(self, run: RunDirectory, messages: Messages, prefix: Path, publish: bool) -> None:
        self._run = run
        self._folder = run.snapshots
        self._messages = messages
        self._public = prefix.parent if publish else None
        self.prefix = run.snapshots / prefix.name

    # -- writing --------------------------------------------------------------------------------

    def take(
        self, write: Callable[[], int], iteration: int, seconds: float, automatic: bool = False
    ) -> Snapshot:
        """Let Caffe write a snapshot, check it, record it and publish it.

        Args:
            write: makes Caffe write; returns the iteration.
            iteration: the iteration that is expected.

        Raises:
            TrainingError: the files are incomplete; earlier snapshots are untouched.
        """
        try:
            iteration = write()
            model, state = self._written(iteration)
            self._check(model, state, iteration)
        except (InputError, TrainingError) as error:
            room = shutil.disk_usage(self._run.path).free / 1e6
            # On a full disk the remains would hold the room that the run's record needs.
            for path in self._folder.glob(f"{glob.escape(self.prefix.name)}_iter_{iteration}.*"):
                path.unlink(missing_ok=True)
            raise TrainingError(
                f"the snapshot of iteration {iteration} could not be written "
                f"({room:.1f} MB free on the disk): {error}"
            ) from error
        snapshot = Snapshot(
            iteration, model.name, state.name, _sha256(model), _sha256(state), seconds, automatic
        )
        replaced = [old for old in self.all() if old.automatic and old.iteration < iteration]
        self._run.append("snapshots.jsonl", asdict(snapshot))
        for old in replaced:
            for name in (old.model, old.state):
                (self._folder / name).unlink(missing_ok=True)
        if self._public and not automatic:
            self._publish(self._public, model, state)
        return snapshot

    def _written(self, iteration: int) -> tuple[Path, Path]:
        for suffixes in SUFFIXES:
            model, state = (Path(f"{self.prefix}_iter_{iteration}.{suffix}") for suffix in suffixes)
            if state.exists():
                return model, state
        raise TrainingError(f"Caffe left no solver state at {self.prefix}_iter_{iteration}.*")

    def _check(self, model: Path, state: Path, iteration: int) -> None:
        """Read both files back, as far as that is possible without Caffe."""
        if state.suffix == HDF5:
            for path in (model, state):
                if path.stat().st_size == 0:
                    raise InputError(f"{path} is empty")
            return
        message = self._messages.read_binary("SolverState", state)
        if message.iter != iteration or not message.history:
            raise InputError(f"{state} is of iteration {message.iter} with {len(message.history)} histories")
        if not self._messages.read_binary("NetParameter", model).layer:
            raise InputError(f"{model} holds no layers")

    def _publish(self, folder: Path, model: Path, state: Path) -> None:
        """Copy both files to the user's prefix, each whole or not at all.

        Copies, not links: ``caffe train`` may write over them, and the run must keep its own.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _replace(folder / model.name, lambda path: shutil.copyfile(model, path))
            if state.suffix == HDF5:
                _replace(folder / state.name, lambda path: shutil.copyfile(state, path))
            else:
                _replace(folder / state.name, lambda path: self._copy_state(state, folder / model.name, path))
        except OSError as error:
            raise TrainingError(
                f"cannot write the snapshot to {folder}: {error.strerror}; it is in {model}"
            ) from error

    def _copy_state(self, state: Path, model: Path, target: Path) -> None:
        """Copy a solver state, so that it names ``model`` as the file with its weights."""
        message = self._messages.read_binary("SolverState", state)
        message.learned_net = str(model)
        target.write_bytes(message.SerializeToString())

    # -- reading --------------------------------------------------------------------------------

    def all(self) -> list[Snapshot]:
        """The recorded snapshots, by iteration, intact or not, without automatic ones that were replaced."""
        rows = [_snapshot(row) for row in self._run.rows("snapshots.jsonl")]
        latest = {snapshot.iteration: snapshot for snapshot in rows if snapshot}
        return [s for _, s in sorted(latest.items()) if not s.automatic or (self._folder / s.state).exists()]

    def newest(self) -> tuple[Snapshot | None, list[str]]:
        """The newest snapshot that is intact, None for a run that has none yet.

        Returns:
            It, and the names of newer ones that are not intact.

        Raises:
            InputError: the run has snapshots, but none is intact. To start again from nothing is not
                what ``--resume`` asks for.
        """
        damaged: list[str] = []
        for snapshot in reversed(self.all()):
            if self._intact(snapshot):
                return snapshot, damaged
            damaged.append(snapshot.state)
        if damaged:
            raise InputError(
                f"--resume: none of the snapshots in {self._folder} is intact ({', '.join(damaged)}); "
                "allowed: bring them back, or train anew with another --out"
            )
        return None, []

    def _intact(self, snapshot: Snapshot) -> bool:
        try:
            return (
                _sha256(self._folder / snapshot.model) == snapshot.model_sha256
                and _sha256(self._folder / snapshot.state) == snapshot.state_sha256
            )
        except OSError:
            return False

    def restorable(self, snapshot: Snapshot) -> tuple[Path, list[str]]:
        """What Caffe needs to restore a snapshot, wherever the run directory is now.

        Returns:
            The solver state, and caffemodels to load behind it. A solver state names the file with its
            weights, which may have been moved: a protobuf one is copied with the right name, an HDF5 one
            cannot be changed here, and so its weights are loaded once more.
        """
        model, state = self._folder / snapshot.model, self._folder / snapshot.state
        if state.suffix == HDF5:
            return state, [str(model)]
        copy = self._folder / "resume.solverstate"
        _replace(copy, lambda path: self._copy_state(state, model, path))
        return copy, []


def public_prefix(snapshot_prefix: str, solver: Path) -> Path:
    """Where Caffe would write a solver's snapshots: beside the solver where it says nothing, and with the
    solver's name where it names a folder."""
    if not snapshot_prefix:
        return solver.with_suffix("")
    prefix = Path(snapshot_prefix)
    return prefix / solver.stem if prefix.is_dir() else prefix


def _snapshot(row: dict[str, Any]) -> Snapshot | None:
    try:
        return Snapshot(**row)
    except TypeError:  # written by another version, or damaged
        return None


def _sha256(path: Path) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            hasher.update(part)
    return hasher.hexdigest()


def _replace(target: Path, write: Callable[[Path], object]) -> None:
    """Write a file under another name and rename it when it is whole."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        write(temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


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
