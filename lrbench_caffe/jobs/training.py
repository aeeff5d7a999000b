"""One training as a job: its arguments, and the result that its run directory contains."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from lrbench_caffe.database import Database
from lrbench_caffe.database.patience import BESIDE_TRAINING
from lrbench_caffe.errors import LRBenchError
from lrbench_caffe.files import open_own
from lrbench_caffe.metrics import Measurement, of_first_net
from lrbench_caffe.records import UNSUCCESSFUL
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.runs.layout import MEASUREMENTS
from lrbench_caffe.runs.runjson import is_paused
from lrbench_caffe.runs.syncing import NotForDatabase, StillRunning, read_run
from lrbench_caffe.runtime.client import HANG_SECONDS
from lrbench_caffe.training.trainer import as_asked


@dataclass(frozen=True)
class Job:
    """A training, or the next part of one.

    Attributes:
        solver: the solver file.
        seed: Caffe's random seed.
        out: the run directory; where it holds a run, that run continues.
        policy: the LR policy, complete; None for the solver's own lr_policy.
        max_iter: its length, None for the solver's.
        until: the iteration at which this part of it ends, None for all of it.
        test_interval: None for the solver's.
        branch: the directory of a run that has the same beginning, to take it over; None for none.
            It changes how a training is made, not which one it is.
        branch_at: the last iteration to branch at.
        branch_points: iterations after which other runs may branch from this one.
        db: URL of the LR database, None for the user's own; "" for none. It may hold a password, so
            it is not printed with a training: Dask's workers log the arguments of what
            fails.
        hang_seconds: without a sign of life for this long it is considered hung; 0 for never.
        flags: more flags for ``train``, such as ("--layers", "fast"); beginning: those of a new
            training alone, about its start.
        retry: whether one that failed in an earlier command continues, or begins again where its
            snapshots are damaged or gone; else its failure is the result.
    """

    solver: str
    seed: int
    out: str
    policy: str | None = None
    max_iter: int | None = None
    until: int | None = None
    test_interval: int | None = None
    branch: str | None = field(default=None, compare=False, repr=False)
    branch_at: int | None = field(default=None, compare=False, repr=False)
    branch_points: tuple[int, ...] = field(default=(), compare=False, repr=False)
    db: str | None = field(default=None, repr=False)
    hang_seconds: float = HANG_SECONDS
    flags: tuple[str, ...] = ()
    beginning: tuple[str, ...] = ()
    retry: bool = False

    @property
    def run(self) -> RunDirectory:
        return RunDirectory(Path(self.out))

    @property
    def reached(self) -> int:
        """Iterations so far, by the last line of iterations.csv, which is written continuously."""
        path = Path(self.out) / "iterations.csv"
        with contextlib.suppress(OSError, ValueError), open_own(path, "rb") as file:
            file.seek(max(0, file.seek(0, 2) - 200))
            last = file.read().rsplit(b"\n", 2)
            return int(last[-2].split(b",")[0]) + 1 if len(last) > 1 else 0
        return 0

    def arguments(self, gpu: str | None = None) -> list[str]:
        """The arguments of ``train``; on the GPU ``gpu``, if one is named.

        The database is not among them: its URL may hold a password, and who can see the processes
        can see their arguments (see ``environment``).
        """
        arguments = ["--out", self.out, "--hang-timeout", f"{self.hang_seconds:g}"]
        if self.run.exists:
            arguments += ["--resume", *(["--start-over"] if self.retry else [])]
        else:
            arguments += ["--solver", self.solver, "--seed", str(self.seed)]
            arguments += [*self.beginning, *(["--lr", self.policy] if self.policy else [])]
            for flag, value in (
                ("--max-iter", self.max_iter),
                ("--test-interval", self.test_interval),
            ):
                arguments += [flag, str(value)] if value is not None else []
        if self.until is not None:
            arguments += ["--until", str(self.until)]
        if self.branch is not None and RunDirectory(Path(self.branch)).exists:
            arguments += ["--branch", self.branch]
            arguments += [] if self.branch_at is None else ["--branch-at", str(self.branch_at)]
        if self.branch_points:
            arguments += ["--branch-points", ",".join(map(str, self.branch_points))]
        if gpu is not None:
            arguments += ["--gpu", "0"]  # the only one that it sees
        if self.db == "":
            arguments.append("--no-db")
        return [*arguments, *self.flags]

    def environment(self, gpu: str | None = None) -> dict[str, str]:
        """The environment: one BLAS thread, because parallel trainings share the cores.

        A GPU is chosen here, not by --gpu, so that a run can continue on another one.
        """
        variables = {
            **os.environ,
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }
        if self.db:
            variables["LRBENCH_DB"] = self.db
        if gpu is not None:
            variables["CUDA_VISIBLE_DEVICES"] = gpu
        return variables


@dataclass(frozen=True)
class JobResult:
    """The result of a training, or of the requested part of it.

    Attributes:
        training: what was asked for.
        status: one of records.STATUSES; "stopped" where it is whole up to ``until`` but no further.
        reason: why, unless it finished.
        iteration: how far it got.
        seconds: wall time of the sessions that this call needed; 0.0 for what was there already.
        measurements: all tests of the first test net so far.
        refused: whether what it was given is to blame, so that trying again is useless.
        losses: how often it was lost in this command.
        memory: whether a lack of memory ended it, or perhaps did.
    """

    training: Job
    status: str
    reason: str | None
    iteration: int
    seconds: float = 0.0
    measurements: list[Measurement] = field(default_factory=list)
    refused: bool = False
    losses: int = 0
    memory: bool = False

    @property
    def lost(self) -> bool:
        """Whether it ended early for a reason other than its policy."""
        return self.status == "failed"

    @property
    def loss(self) -> str:
        """A line for people: which training was lost, how often, and why."""
        training = self.training
        what = training.policy or Path(training.solver).stem  # a pass of the ramp has no policy
        often = f"{self.losses} times, the last time: " if self.losses > 1 else ""
        return f"{what}, seed {training.seed}: lost at iteration {self.iteration} ({often}{self.reason})"


def read_result(training: Job, seconds: float = 0.0) -> JobResult | None:
    """The result of a complete training, None for one that has to continue or to begin.

    One whose tests are damaged has to continue: resumed, it is repaired or says why it cannot be.

    A part that ended earlier comes out as it did then, however far the run has gone since.
    """
    run = training.run
    if not run.exists or run.running:
        return None
    record = run.read()
    if run.recovered(MEASUREMENTS).lost:
        return None
    status, reached = record.get("status", "running"), int(record.get("iteration") or 0)
    measurements = of_first_net(run.measurements())
    until = training.until
    if until is not None and reached >= until:
        # A kill may have left tests beyond it, of a later part that goes on from here.
        measurements = [m for m in measurements if m.iteration <= until]
    if until is not None and reached > until:
        return JobResult(training, "stopped", as_asked(until), until, seconds, measurements)
    # One that a signal stopped there may lack the test that is due there.
    if until is not None and reached >= until and is_paused(record):
        pass
    elif status not in ("finished", *UNSUCCESSFUL):
        return None
    return JobResult(training, status, record.get("reason"), reached, seconds, measurements)


def failed_result(training: Job, reason: str, seconds: float = 0.0) -> JobResult:
    """The result of a training that could record none itself; it is recorded here."""
    reached = training.reached
    if training.run.exists:
        mark_failed(training, reason)
    measurements = of_first_net(training.run.measurements())
    return JobResult(training, "failed", reason, reached, seconds, measurements)


def mark_failed(training: Job, reason: str) -> None:
    """Record the failure of a training that could not do so itself, and tell the LR database."""
    run = training.run
    run.lock()
    try:
        run.update(status="failed", reason=reason, iteration=training.reached, ended=run.now())
    finally:
        run.release()
    if training.db == "":
        return
    # ``db sync`` adds what the database cannot store now.
    with contextlib.suppress(LRBenchError, StillRunning, NotForDatabase):
        record = read_run(run.path)
        with Database.open(training.db, patience=BESIDE_TRAINING) as database:
            database.put(record)
