"""Snapshots: written by Caffe, verified by reading them back, published where users expect them."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import math
import os
import re
import shutil
import stat
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lrbench_caffe.errors import InputError, ParameterError, TrainingError
from lrbench_caffe.files import remove_leftovers, replace_by, sync, temporary_of
from lrbench_caffe.prototxt.messages import Messages, file_path
from lrbench_caffe.prototxt.solver import Solver
from lrbench_caffe.runs.caffefiles import HDF5, copy_state, file_sha256, read_model, read_state
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.runs.layout import MEASUREMENTS, SNAPSHOTS
from lrbench_caffe.runs.rows import digest_at, digest_before, sealed

SUFFIXES = (("caffemodel", "solverstate"), ("caffemodel.h5", "solverstate.h5"))
_COPY = "resume"  # the name of the copy that Caffe restores from
_FICLONE = 0x40049409  # Linux' ioctl that lets two files share their blocks until one is written


@dataclass(frozen=True)
class Snapshot:
    """A complete snapshot.

    Attributes:
        iteration: updates done.
        model: the .caffemodel (or .caffemodel.h5); a name in the run's snapshots folder, so that
            the run can be moved.
        state: the .solverstate (or .solverstate.h5), likewise.
        model_sha256, state_sha256: of the files when they were found complete.
        seconds: wall time of the run up to it.
        automatic: True where it was not asked for but made against a kill, or for other runs to
            branch from; the next one replaces it, unless it is kept.
        tests, losses: SHA-256 of the rows of measurements.jsonl and iterations.csv before it; None
            in a run of a former version.
        tested: SHA-256 of the measurements at its iteration, None where there were none yet.
    """

    iteration: int
    model: str
    state: str
    model_sha256: str
    state_sha256: str
    seconds: float
    automatic: bool = False
    tests: str | None = None
    tested: str | None = None
    losses: str | None = None


class Snapshots:
    """A run's snapshots.

    Args:
        run: the run directory; Caffe writes into its ``snapshots`` folder.
        messages: this Caffe's messages.
        prefix: where ``caffe train`` would write them (see ``public_prefix``).
        publish: also put a copy of each snapshot there.
        keep: iterations whose automatic snapshots are not replaced.
    """

    def __init__(
        self,
        run: RunDirectory,
        messages: Messages,
        prefix: Path,
        publish: bool,
        keep: Collection[int] = (),
    ) -> None:
        self._run = run
        self._folder = run.snapshots
        self._messages = messages
        self._public = prefix.parent if publish else None
        self._keep = frozenset(keep)
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
        self._unshare(iteration)
        try:
            iteration = write()
            model, state = self._written(iteration)
            self._check(model, state, iteration)
        except (InputError, TrainingError) as error:
            room = shutil.disk_usage(self._run.path).free / 1e6
            # On a full disk the remains would hold the room that the run's record needs.
            for path in self._files(iteration):
                path.unlink(missing_ok=True)
            raise TrainingError(
                f"the snapshot of iteration {iteration} could not be written "
                f"({room:.1f} MB free on the disk): {error}"
            ) from error
        snapshot = Snapshot(
            iteration, model.name, state.name, file_sha256(model), file_sha256(state), seconds, automatic,
            **self._digests(iteration),
        )  # fmt: skip
        replaced = [
            old
            for old in self.all()
            if old.automatic and old.iteration < iteration and old.iteration not in self._keep
        ]
        row, id = asdict(snapshot), self._run.id
        self._run.append(SNAPSHOTS, sealed(row, id) if id else row)
        if replaced:  # by one that a power cut must not take, too
            for path in (model, state, self._run.path / SNAPSHOTS, self._folder):
                sync(path)
        for old in replaced:
            for name in (old.model, old.state):
                (self._folder / name).unlink(missing_ok=True)
        if self._public and not automatic:
            self._publish(self._public, model, state)
        return snapshot

    def adopt(self, folder: Path, snapshot: Snapshot) -> Snapshot:
        """Take another run's snapshot as this run's, whose records before it are written already.

        The caffemodel is stored only once where the file system can do that.

        Args:
            folder: where its files are.

        Raises:
            TrainingError, OSError: a file is missing, or is not what was recorded.
        """

        def write() -> int:
            if not is_intact(folder, snapshot):
                raise InputError(f"{folder / snapshot.state} is not as it was recorded")
            model, state = self._own(snapshot.model), self._own(snapshot.state)
            replace_by(model, lambda path: share(folder / snapshot.model, path))
            replace_by(
                state,
                lambda path: copy_state(folder / snapshot.state, path, self._messages, model=model),
            )
            return snapshot.iteration

        return self.take(write, snapshot.iteration, snapshot.seconds, automatic=True)

    def _own(self, name: str) -> Path:
        """Where this run has the snapshot's file that another run has under this name."""
        return self.prefix.with_name(self.prefix.name + name[name.rindex("_iter_") :])

    def _digests(self, iteration: int) -> dict[str, str | None]:
        """Digests of the records before the snapshot, which a resumed run needs as well."""
        if self._run.id is None:
            return {}
        tests = self._run.recovered(MEASUREMENTS).rows
        return {
            "tests": digest_before(tests, iteration),
            "tested": digest_at(tests, iteration),
            "losses": self._run.losses_digest(iteration),
        }

    def _files(self, iteration: int) -> list[Path]:
        return list(self._folder.glob(f"{glob.escape(self.prefix.name)}_iter_{iteration}.*"))

    def _unshare(self, iteration: int) -> None:
        """Let Caffe write new files: over a link it would write over what was published, or is elsewhere."""
        for path in self._files(iteration):
            if path.lstat().st_nlink > 1 or not _is_regular(path):
                path.unlink()

    def _written(self, iteration: int) -> tuple[Path, Path]:
        for suffixes in SUFFIXES:
            model, state = (Path(f"{self.prefix}_iter_{iteration}.{suffix}") for suffix in suffixes)
            if _is_regular(state):
                return model, state
        raise TrainingError(f"Caffe left no solver state at {self.prefix}_iter_{iteration}.*")

    def _check(self, model: Path, state: Path, iteration: int) -> None:
        """Read both files back."""
        stored = read_state(state, self._messages)
        if stored.iteration != iteration:
            raise InputError(f"{state} is of iteration {stored.iteration}")
        read_model(model, self._messages)

    def publish_last(self) -> None:
        """Publish the last snapshot where an earlier session could not, or was killed before it did.

        Raises:
            TrainingError: it cannot be written there.
        """
        last = self.all()[-1:]
        if not self._public or not last or last[0].automatic or not self._intact(last[0]):
            return
        names = (last[0].model, last[0].state)
        if not all((self._public / name).exists() for name in names):
            self._publish(self._public, *(self._folder / name for name in names))

    def _publish(self, folder: Path, model: Path, state: Path) -> None:
        """Put both files at the user's prefix, each whole or not at all."""
        target = folder / model.name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            replace_by(target, lambda path: share(model, path))
            # A solver state names the file with its weights: the user's the user's, the run's the
            # run's.
            replace_by(
                folder / state.name,
                lambda path: copy_state(state, path, self._messages, model=target),
            )
        except OSError as error:
            raise TrainingError(
                f"cannot write the snapshot to {folder}: {error.strerror}; it is in {model}"
            ) from error

    # -- reading --------------------------------------------------------------------------------

    @property
    def published(self) -> bool:
        """Whether they are also put where Caffe would write them."""
        return self._public is not None

    def all(self) -> list[Snapshot]:
        """The recorded snapshots, by iteration, intact or not, without automatic ones that were replaced."""
        return recorded(self._run)

    def unrecorded(self) -> list[Path]:
        """Files of snapshots that are in no record: a kill left them, or the record is lost."""
        named = {name for snapshot in self.all() for name in (snapshot.model, snapshot.state)}
        pattern = re.compile(
            rf"{re.escape(self.prefix.name)}_iter_\d+\.(caffemodel|solverstate)(\.h5)?"
        )
        return [
            p for p in self._folder.iterdir() if pattern.fullmatch(p.name) and p.name not in named
        ]

    def remove_unrecorded(self, after: int = -1) -> None:
        """Remove what a kill left of incomplete snapshots, of those after an iteration."""
        for path in self.unrecorded():
            number = path.name.removeprefix(f"{self.prefix.name}_iter_").partition(".")[0]
            if int(number) > after:
                with contextlib.suppress(OSError):
                    path.unlink()

    def newest(
        self, usable: Callable[[Snapshot], bool] = lambda snapshot: True
    ) -> tuple[Snapshot | None, list[str]]:
        """The newest snapshot that is intact, None for a run that has none yet.

        Args:
            usable: whether one that is intact can be continued from; the next older one is tried
                where not.

        Returns:
            It, and the names of newer ones that are not intact.
        """
        damaged: list[str] = []
        for snapshot in reversed(self.all()):
            if not self._intact(snapshot):
                damaged.append(snapshot.state)
            elif usable(snapshot):
                return snapshot, damaged
        return None, damaged

    def _intact(self, snapshot: Snapshot) -> bool:
        return is_intact(self._folder, snapshot)

    def restorable(self, snapshot: Snapshot, current_step: int) -> Path:
        """The solver state that Caffe can restore, wherever the run directory is now.

        A solver state names the file with its weights, which may have been moved: this is a copy
        with the right name. ``forget_copies`` removes it.
        """
        state = self._folder / snapshot.state
        return self.copy(state, self._folder / snapshot.model, current_step)

    def copy(self, state: Path, model: Path | None, current_step: int) -> Path:
        """A copy of any solver state that names ``model``, for Caffe to restore."""
        target = self._folder / (f"{_COPY}.solverstate" + (HDF5 if state.suffix == HDF5 else ""))
        replace_by(
            target,
            lambda path: copy_state(
                state, path, self._messages, model=model, current_step=current_step
            ),
        )
        return target

    def forget_copies(self) -> None:
        """Remove the copies that Caffe has restored from."""
        for path in self._folder.glob(f"{_COPY}.*"):
            path.unlink(missing_ok=True)


def public_prefix(snapshot_prefix: str, solver: Path) -> Path:
    """Where Caffe would write a solver's snapshots: beside the solver where it says nothing, and with the
    solver's name where it names a folder."""
    if not snapshot_prefix:
        return solver.with_suffix("")
    prefix = file_path(snapshot_prefix)
    is_folder = prefix.is_dir() or snapshot_prefix.endswith("/")
    return prefix / solver.stem if is_folder else prefix


def ready_prefix(solver: Solver) -> list[str]:
    """Find out before a training whether its snapshots can be written to the solver's snapshot_prefix.

    Returns:
        A remark where the folder was missing and has been created.

    Raises:
        InputError: nothing can be written there.
    """
    message = solver.message
    if not (message.snapshot or message.snapshot_after_train):
        return []
    prefix = public_prefix(message.snapshot_prefix, solver.path)
    folder, where = prefix.parent, f"{solver.path}: snapshot_prefix"
    missing = not folder.exists()
    probe = temporary_of(prefix)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
        remove_leftovers(folder, rf"{re.escape(prefix.name)}(?:_iter_\d+\.[a-z0-9.]+)?")
    except OSError as error:
        raise ParameterError(
            "{0}: cannot write to snapshot prefix {1!r}: {2}; allowed: a "
            "folder that can be written, or {out} DIR, which keeps the snapshots in DIR",
            where,
            str(prefix),
            error.strerror,
        ) from error
    return [f"{where}: the folder {folder} was missing and has been created"] if missing else []


def share(source: Path, target: Path) -> None:
    """Give a file a second place that takes no further room where the disk allows it, else copy it.

    Blocks that are shared until one file is written over are the safer way; few file systems have
    them.
    """
    with contextlib.suppress(OSError):
        with source.open("rb") as old, target.open("xb") as new:
            fcntl.ioctl(new, _FICLONE, old.fileno())
        return
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def is_intact(folder: Path, snapshot: Snapshot) -> bool:
    """Whether a snapshot's files in a folder are as they were when it was recorded."""
    model, state = folder / snapshot.model, folder / snapshot.state
    try:
        return (
            _is_regular(model)
            and _is_regular(state)
            and file_sha256(model) == snapshot.model_sha256
            and file_sha256(state) == snapshot.state_sha256
        )
    except OSError:
        return False


def recorded(run: RunDirectory) -> list[Snapshot]:
    """A run's recorded snapshots, by iteration, intact or not, without automatic ones that were replaced."""
    rows = [_snapshot(row) for row in run.rows(SNAPSHOTS)]
    latest = {snapshot.iteration: snapshot for snapshot in rows if snapshot}
    return [
        s
        for _, s in sorted(latest.items())
        if not s.automatic or (run.snapshots / s.state).exists()
    ]


def drop_branch_points(run: RunDirectory) -> None:
    """Remove a run's automatic snapshots but the newest one, from which it can be resumed.

    Raises:
        InputError: a process trains in it, or it cannot be written to.
    """
    run.lock()
    try:
        for snapshot in recorded(run)[:-1]:
            if snapshot.automatic:
                for name in (snapshot.model, snapshot.state):
                    (run.snapshots / name).unlink(missing_ok=True)
    finally:
        run.release()


def _snapshot(row: dict[str, Any]) -> Snapshot | None:
    """A snapshot from a row of the file; None for one that is damaged, or of another version."""
    try:
        snapshot = Snapshot(**{name: value for name, value in row.items() if name != "check"})
    except TypeError:
        return None
    names = all(
        isinstance(name, str) and Path(name).name == name
        for name in (snapshot.model, snapshot.state)
    )
    digests = (snapshot.model_sha256, snapshot.state_sha256)
    seconds = isinstance(snapshot.seconds, (int, float)) and math.isfinite(snapshot.seconds)
    return (
        snapshot if names and seconds and all(isinstance(text, str) for text in digests) else None
    )


def _is_regular(path: Path) -> bool:
    """Whether it is a file, and no link to one elsewhere."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):
        return False
