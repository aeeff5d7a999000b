"""The newest run of a solver in a folder of runs, and the link ``latest`` to it."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from lrbench_caffe.errors import InputError, ParameterError
from lrbench_caffe.files import remove_leftovers, replace_by
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.runs.layout import LATEST, MARKS

CLOCK_STEP = (
    60.0  # seconds; a file from further in the future is older than a step back of the clock
)


def find_newest(root: Path, solver: Path) -> RunDirectory:
    """The run of this solver in ``root`` that was written to last.

    One that is being trained at this moment is only returned if there is no other. Where the clock
    was set back since, it is the run that was begun or continued last.

    Raises:
        InputError: there is none, or nothing tells which it is.
    """
    wanted = solver.resolve()
    runs: list[tuple[bool, float, RunDirectory]] = []
    for folder in sorted({path.parent for name in MARKS for path in root.glob(f"*/{name}")}):
        if folder.is_symlink():  # LATEST
            continue
        run = RunDirectory(folder)
        try:
            if Path(run.read()["solver"]).resolve() == wanted:
                runs.append((not run.running, _last_written(run.path), run))
        except (
            InputError,
            OSError,
            ValueError,
            RuntimeError,
        ):  # the latter two: a path that is none, a loop
            continue
    if not runs:
        raise ParameterError(
            "{resume}: no run of {0} in {1}/ ({out} DIR names another directory)", solver, root
        )
    free = [entry for entry in runs if entry[0]] or runs
    _, newest, run = max(free, key=lambda entry: entry[1])
    if len(free) == 1 or newest <= time.time() + CLOCK_STEP:
        return run
    latest = (root / LATEST).resolve()
    for _, _, other in free:
        if other.path.resolve() == latest:
            return other
    raise ParameterError(
        "{resume}: the clock was set back since {0} was written, so the newest run of {1} in "
        "{2}/ is not known; allowed: {out} DIR, which names it",
        run.path,
        solver,
        root,
    )


def mark_latest(root: Path, run: RunDirectory) -> None:
    """Let ``root``/latest point to a run in there, where the file system has symbolic links."""
    path = run.path.resolve()
    if path.parent != root.resolve():
        return
    link = root / LATEST
    if link.exists() and not link.is_symlink():  # not ours
        return
    with contextlib.suppress(OSError):
        remove_leftovers(root, LATEST)
        replace_by(link, lambda new: new.symlink_to(path.name))


def _last_written(folder: Path) -> float:
    return max(file.lstat().st_mtime for file in folder.iterdir())
