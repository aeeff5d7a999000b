"""Begins a prepared training's session: takes its run directory, and releases it at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lrbench_caffe.errors import ParameterError
from lrbench_caffe.files import make_folder
from lrbench_caffe.prototxt.messages import utf8_stem
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.runs.layout import RUNS
from lrbench_caffe.runs.snapshots import ready_prefix
from lrbench_caffe.training.preparing import Prepared, Say
from lrbench_caffe.training.session import Session


@contextmanager
def begin(prepared: Prepared, say: Say) -> Iterator[Session]:
    """The session that trains, in a run directory that is locked inside the ``with`` block.

    Raises:
        InputError: the directory has another run, or is in use; snapshot_prefix cannot be written
            to.
    """
    request = prepared.request
    branch = RunDirectory(request.branch) if request.branch else None
    if branch and not branch.exists:
        raise ParameterError("{branch}: {0} holds no run; allowed: a run directory", branch.path)
    publishes = _publishes(prepared)
    if publishes:
        for remark in ready_prefix(prepared.solver):
            say(f"note: {remark}")
    run = prepared.resumed or _new_run(prepared)
    run.lock()
    try:
        if not prepared.resumed:
            _check_free(run)  # again: now nobody else can begin one there
        session = Session(
            prepared.python,
            prepared.info,
            prepared.messages,
            prepared.solver,
            prepared.settings,
            run,
            publish=publishes,
            until=request.until,
            branch=branch,
            branch_at=request.branch_at,
            branch_points=request.branch_points,
            start_over=request.start_over,
            recheck=request.layers in ("fast", "fast-avx2"),
        )
        yield session
    finally:
        run.release()


def _publishes(prepared: Prepared) -> bool:
    """Whether snapshots are put at the solver's snapshot_prefix: a resumed run goes on as it began."""
    request, run = prepared.request, prepared.resumed
    before = run.read().get("publishes") if run and not request.publish else None
    return before if isinstance(before, bool) else request.publishes


def _new_run(prepared: Prepared) -> RunDirectory:
    if prepared.request.out:
        run = RunDirectory(prepared.request.out)
        _check_free(run)
        return run
    policy = prepared.settings.bound_policy().functions[0].lower()
    stem = utf8_stem(Path(prepared.settings.solver))
    return RunDirectory(make_folder(RUNS, f"{stem}-{policy}-{time.strftime('%Y%m%d-%H%M%S')}"))


def _check_free(run: RunDirectory) -> None:
    """Raise an InputError where a run directory is another run's."""
    if run.exists:
        raise ParameterError("{out}: {0} already contains a run; {resume} continues it", run.path)
    if run.remains:
        raise ParameterError(
            "{out}: {0} contains {1} of a run whose run.json is missing or damaged; allowed: "
            "a new directory, or restore run.json and {resume}",
            run.path,
            run.remains,
        )
    if run.foreign:
        raise ParameterError(
            "{out}: {0} is there already, and the run would write over it; allowed: a new directory",
            run.foreign,
        )
