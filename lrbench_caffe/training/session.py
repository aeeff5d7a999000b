"""One session of a run, from its settings to its outcome."""

from __future__ import annotations

import getpass
import os
import platform
import secrets
import sys
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lrbench_caffe import __version__, installation
from lrbench_caffe.database import safe_arguments
from lrbench_caffe.errors import InputError, LRBenchError, ParameterError, TrainingError, named
from lrbench_caffe.lr import current_step
from lrbench_caffe.native.library import NARROW, WIDE, library_path, usable_libraries
from lrbench_caffe.prototxt.messages import Messages
from lrbench_caffe.prototxt.patch import GRADIENTS, LR_POLICY, gradient_options, write_prototxts
from lrbench_caffe.prototxt.refusal import DamagedData
from lrbench_caffe.prototxt.solver import Solver
from lrbench_caffe.prototxt.sources import free_dead_readers
from lrbench_caffe.prototxt.task import solver_settings, task_of, title
from lrbench_caffe.records import PolicyRecord, RunRecord, SolverSettings
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.runs.layout import RUNS
from lrbench_caffe.runs.newest import mark_latest
from lrbench_caffe.runs.runjson import first_base_lr, recorded_text
from lrbench_caffe.runs.snapshots import Snapshot, Snapshots, public_prefix
from lrbench_caffe.runtime.blas import kernels_to_try
from lrbench_caffe.runtime.client import HANG_SECONDS, Worker
from lrbench_caffe.runtime.cpu import this_cpu
from lrbench_caffe.runtime.info import check_described
from lrbench_caffe.runtime.locate import CaffePython
from lrbench_caffe.runtime.processes import ProcessSource
from lrbench_caffe.runtime.replies import CaffeInfo, Opened, OpenRequest
from lrbench_caffe.runtime.starting import FastLayers, Started, start_checked
from lrbench_caffe.training.beginning import given_start, other_steps
from lrbench_caffe.training.branching import Beginning, NotShared, shared_beginning
from lrbench_caffe.training.monitor import ScheduleMonitor
from lrbench_caffe.training.observer import Audience, Observer
from lrbench_caffe.training.settings import RunSettings
from lrbench_caffe.training.signals import Signals
from lrbench_caffe.training.trainer import Trainer, TrainingOutcome


@dataclass
class Session:
    """A run that is about to begin, or to continue.

    Attributes:
        python: the interpreter that pycaffe lives in.
        info, messages: its Caffe and that Caffe's messages.
        solver: what is trained.
        settings: how.
        run: where it is written; locked by the caller.
        publish: also put snapshots at the solver's snapshot_prefix.
        until: the iteration to pause at, with a snapshot; None for the run's end.
        branch: a run whose beginning is taken over, as far as it is the same; None for none.
        branch_at: the last iteration to branch at; None for the last that is possible.
        branch_points: iterations after which other runs may branch from this one.
        start_over: whether a run without a snapshot that can be used begins again.
        recheck: check the fast layers even where a check is remembered.
        source: has processes for the worker that have loaded Caffe, None for nothing.
        start: the snapshot that the run continues from, None where it begins.
        beginning: what it takes over from ``branch`` before that; None for nothing.
        notes: what a person should know of what was found damaged.
    """

    python: CaffePython
    info: CaffeInfo
    messages: Messages
    solver: Solver
    settings: RunSettings
    run: RunDirectory
    publish: bool = True
    until: int | None = None
    branch: RunDirectory | None = None
    branch_at: int | None = None
    branch_points: Collection[int] = ()
    start_over: bool = False
    recheck: bool = False
    source: ProcessSource | None = None

    def __post_init__(self) -> None:
        prefix = public_prefix(self.solver.message.snapshot_prefix, self.solver.path)
        self.snapshots = Snapshots(
            self.run, self.messages, prefix, self.publish, self.branch_points
        )
        self.start: Snapshot | None = None
        self.notes: list[str] = []
        self.monitor = ScheduleMonitor(
            self.settings.bound_policy(),
            max_iter=self.settings.max_iter,
            test_interval=self.settings.test_interval,
            snapshot_interval=self.settings.snapshot_interval,
            test_initialization=self.solver.message.test_initialization,
            until=self.until,
            branch_points=self.branch_points,
        )
        self._new = not self.run.exists
        if not self._new:
            from lrbench_caffe.runs.mending import take_up

            taken_up = take_up(
                self.run,
                self.snapshots,
                self._tests_before,
                self._first,
                self.settings.max_iter,
                start_over=self.start_over,
            )
            self.start, self.notes = taken_up.start, taken_up.notes
        self.beginning = self._shared_beginning()

    def _shared_beginning(self) -> Beginning | None:
        """What can be taken over from the run to branch from."""
        if self.branch is None:
            return None
        after = self.start.iteration if self.start else 0
        try:
            beginning = shared_beginning(
                self.branch,
                self.settings,
                self.monitor,
                self.python.command,
                self._data_digest,
                after=after,
                at=self.branch_at,
            )
        except NotShared as reason:
            self.notes.append(f"nothing is taken over from {self.branch.path}: {reason}")
            return None
        beginning.settle(self.settings)
        return beginning

    @property
    def first_iteration(self) -> int:
        """The iteration that this session begins at."""
        if self.beginning:
            return self.beginning.iteration
        return self.start.iteration if self.start else 0

    @property
    def _first(self) -> int | None:
        """The iteration that the run began at, None where that is not known."""
        start = self.settings.start
        return None if start.kind == "unknown" else start.iteration or 0

    def _tests_before(self, iteration: int) -> list[tuple[int, int]]:
        """Iteration and net of the tests that this run has done before an iteration, by the schedule."""
        nets = [number for number, test in enumerate(self.solver.tests) if test.passes > 0]
        tested = [t for t in self.monitor.tests_before(iteration) if t >= (self._first or 0)]
        return [(t, net) for t in tested for net in nets] if self._first is not None else []

    def train(
        self,
        observers: Sequence[Observer],
        signals: Signals,
        *,
        hang_seconds: float = HANG_SECONDS,
        checkpoint_seconds: float = 600.0,
    ) -> TrainingOutcome:
        """Train to the end, a stop or divergence.

        Args:
            observers: who watches.
            signals: what signals do.
            hang_seconds, checkpoint_seconds: see ``Worker`` and ``Trainer``.

        Raises:
            InputError: Caffe refuses what it is given, or, in the middle of the training, its data.
            TrainingError: Caffe died or hung, or a file could not be written.
        """
        try:
            return self._train(observers, signals, hang_seconds, checkpoint_seconds)
        except InputError as error:
            # It never trained: the same command, put right, may have the same --out.
            if self._new and self.start is None and not isinstance(error, DamagedData):
                self.run.discard()
            raise

    def _train(
        self,
        observers: Sequence[Observer],
        signals: Signals,
        hang_seconds: float,
        checkpoint_seconds: float,
    ) -> TrainingOutcome:
        note = Audience(observers).note
        # Signals first: one that comes before the training can begin stops it once it can.
        with signals:
            patched = self._write()
            self._take_over(note)
            free_dead_readers(self.solver.phase_nets)
            started = self._started(hang_seconds, note)
            request = self._request(patched, started.library)
            with started.worker as worker:
                trainer = Trainer(
                    worker,
                    self.solver,
                    self.monitor,
                    self.run,
                    self.snapshots,
                    observers,
                    signals,
                    checkpoint_seconds=checkpoint_seconds,
                    first=self.settings.start.iteration or 0,
                )
                try:
                    return trainer.train(request, self._begin_at, self.start)
                finally:
                    self.snapshots.forget_copies()

    def _started(self, hang_seconds: float, note: Callable[[str], None]) -> Started:
        """A worker with the run's kernels, whose layers were checked; else with Caffe's own layers."""
        source = self.source
        if source is not None and source.forks and not self._may_be_forked:
            source = None

        def start(blas_kernels: str | None) -> Worker:
            worker = Worker(
                self.python,
                self.run.log,
                hang_seconds=hang_seconds,
                known=True,
                blas_kernels=blas_kernels,
                note=note,
                source=source,
            )
            try:
                check_described(self.python, self.info, worker.info)
            except InputError:
                worker.close()
                raise
            return worker

        settings = self.settings
        try:
            if settings.layers == "stock":
                started = Started(start(None), None)
            else:
                kernels = kernels_to_try(self.info.blas_kernels, settings.blas_kernels, this_cpu())
                libraries = usable_libraries(settings.width)
                wanted = FastLayers(
                    libraries,
                    kernels,
                    settings.threads,
                    measure=settings.width is None,
                    recheck=self.recheck,
                )
                started = start_checked(start, wanted, note)
                if started.problem:
                    note(
                        f"WARNING: Caffe's own layers instead of the fast ones: {started.problem} "
                        f"(run {installation.setup_command()}; when resumed, this run keeps Caffe's own "
                        f"unless {named('layers')} fast is given)"
                    )
        except LRBenchError as error:
            self.run.update(status="failed", reason=str(error), ended=self.run.now())
            raise
        except KeyboardInterrupt:
            reason = "interrupted before the training began"
            self.run.update(status="stopped", reason=reason, ended=self.run.now())
            raise
        self._tell_changes(started, note)
        return started

    @property
    def _may_be_forked(self) -> bool:
        """Whether a fork does what a process of its own would: a GPU's driver and modules may not."""
        types = {layer.type for net in self.solver.phase_nets for layer in net.layers}
        return self.settings.gpu is None and "Python" not in types

    def _tell_changes(self, started: Started, note: Callable[[str], None]) -> None:
        """Say that a resumed run continues with other kernels or narrower vectors than it had."""
        if self.start is None:
            return
        former, kernels = self.settings.blas_kernels, started.worker.info.blas_kernels
        if former not in (None, kernels):
            note(
                f"note: the run was trained with OpenBLAS's {former} kernels and continues with "
                f"{kernels or 'another BLAS'}: weights differ in rounding"
            )
        if self.settings.width == WIDE and started.library == library_path(NARROW):
            note(
                f"note: the run was trained with vectors of {WIDE} bits and continues with {NARROW}: "
                "weights differ in rounding"
            )

    def describe(self, opened: Opened) -> RunRecord:
        """The run's record for the LR database, with the measurements of earlier sessions."""
        written = self.run.read()
        task = task_of(self.solver, self.info, opened, self.settings.gpu)
        head = self.solver.tests[0].head if self.solver.tests else None
        return RunRecord(
            uid=(written.get("record") or {}).get("uid") or uuid.uuid4().hex,
            source="measured",
            origin=self._origin(written),
            framework=task.framework,
            task_type=task.task_type,
            dataset=task.dataset,
            network=task.network,
            policy=PolicyRecord.of(self.settings.recorded_policy(recorded_text(written))),
            solver=self._solver_settings(),
            seed=self.settings.seed,
            max_iter=self.settings.max_iter,
            test_interval=self.settings.test_interval or None,
            epoch=self.solver.epoch,
            machine=written["machine"],
            started=written["sessions"][0]["began"],
            ended=None,
            status="running",
            head=head.name if head else None,
            measurements=self.run.measurements(),
            start=self.settings.start,
            layers=self._layers(written["sessions"]),
        )

    def _origin(self, written: dict[str, Any]) -> str:
        """The run directory, and from which run it was branched."""
        path = str(self.run.path.resolve())
        for branch in written.get("branches", [])[-1:]:
            other = f"run {branch['uid']}" if branch["uid"] else branch["run"]
            path += f" (branched at iteration {branch['at']} from {other})"
        return path

    def _layers(self, sessions: list[dict[str, Any]]) -> str:
        """The layers that trained the run, in their order: "stock", "fast", "stock, then fast"."""
        trained = [s for s in sessions if s["iteration"] < self.settings.max_iter] or sessions[-1:]
        return ", then ".join(dict.fromkeys(s.get("layers", "stock") for s in trained))

    def _solver_settings(self) -> SolverSettings:
        """The solver's settings as they were when the run began: base_lr may have been edited since."""
        base_lr = first_base_lr(self.settings.fingerprint)
        now = solver_settings(self.solver)
        return now if base_lr is None else replace(now, base_lr=base_lr)

    def _write(self) -> Path:
        """Write run.json and the patched prototxts; returns the solver's path."""
        record = self.run.read() if self.run.exists else self._inherited()
        sessions = [*record.get("sessions", []), self._begun(self.first_iteration)]
        self.run.begin(
            {
                "id": secrets.token_hex(8),
                **record,
                **self.settings.as_json(),
                "publishes": self.publish,
                "policy_short": f"{self.settings.bound_policy():.7g}",
                "task": title(self.solver),
                "status": "running",
                "reason": None,
                "paused": False,
                "source": "measured",
                "sessions": sessions,
                "command": safe_arguments(sys.argv),
                "version": __version__,
                "machine": platform.node(),
                "user": _user(),
                "caffe_python": self.python.command,
            }
        )
        return write_prototxts(
            self.solver,
            self.run.prototxt,
            snapshot_prefix=self.snapshots.prefix,
            max_iter=self.settings.max_iter,
            seed=self.settings.seed,
            gpu=self.settings.gpu,
            level=self.settings.level,
            stages=self.settings.stages,
            lr_by=self.settings.lr_by,
        )

    def _inherited(self) -> dict[str, Any]:
        """What a new run's record has from the run that it branches from."""
        return {"sessions": self.beginning.sessions} if self.beginning else {}

    def _take_over(self, note: Callable[[str], None]) -> None:
        """Take the beginning over, and record from where; without it, the run begins where it would have."""
        own = self.start.iteration if self.start else 0
        before = self.run.read().get("branches", [])
        # What was taken over, and lost again, counts no more.
        left = [branch for branch in before if branch["at"] <= own]
        if left != before:
            self.run.update(branches=left)
        if self.beginning is None:
            return
        self.run.update(branches=[*left, self.beginning.as_json(self.start)])
        try:
            self.start = self.beginning.take_over(self.run, self.snapshots, self.monitor)
        except (TrainingError, OSError) as error:
            note(f"nothing is taken over from {self.beginning.origin.path}: {error}")
            sessions = self.run.read()["sessions"]
            theirs = len(self.beginning.sessions) if self._new else 0
            sessions = [*sessions[theirs:-1], {**sessions[-1], "iteration": own}]
            self.beginning = None
            self.run.update(branches=left, sessions=sessions)

    def _begun(self, iteration: int) -> dict[str, Any]:
        """The record of this session."""
        data = "trusted" if self.solver.checked is None else "checked"
        return {
            "began": self.run.now(),
            "iteration": iteration,
            "data": data,
            "data_digest": self._data_digest,
        }

    @property
    def _data_digest(self) -> str | None:
        try:
            return self.solver.data_digest
        except (LRBenchError, OSError):  # Caffe will say it, if it matters
            return None

    def _request(self, patched: Path, library: Path | None) -> OpenRequest:
        return OpenRequest(
            solver=str(patched),
            stop=self.settings.max_iter,
            iter_size=self.solver.iter_size,
            gpu=self.settings.gpu,
            own_policy=self.settings.lr_by == LR_POLICY,
            gradients=gradient_options(self.solver) if self.settings.lr_by == GRADIENTS else None,
            layers=str(library) if library else None,
            threads=self.settings.threads,
        )

    def _begin_at(self, worker: Worker, opened: Opened, note: Callable[[str], None]) -> int:
        """Load what the run starts or continues from, which makes it the latest; returns the iteration."""
        iteration = self._load(worker, opened, note)
        mark_latest(RUNS, self.run)
        return iteration

    def _load(self, worker: Worker, opened: Opened, note: Callable[[str], None]) -> int:
        """Give the opened nets what the run starts or continues from; returns the iteration."""
        if self.start:
            path = self.snapshots.restorable(self.start, self._step(self.start.iteration))
            return worker.load(str(path), own=True)
        settings = self.settings
        start, remarks, state = given_start(
            opened.nets, self.solver, self.messages, settings.snapshot, settings.weights
        )
        if settings.start.digest not in (
            None,
            start.digest,
        ):  # of a run without its own snapshot
            raise ParameterError("{resume}: {0} has changed since the run began", start.name)
        for remark in remarks:
            note(remark)
        settings.start = start
        self.run.update(start=asdict(start))
        if state is None:
            return worker.load(weights=settings.weights)
        stored = state.stored
        step = self._step(stored.iteration)
        if settings.own_policy and self.solver.message.lr_policy == "multistep":
            for remark in other_steps(stored, step):
                note(remark)
        return worker.load(str(self.snapshots.copy(stored.path, state.model, step)))

    def _step(self, iteration: int) -> int:
        message = self.solver.message
        return current_step(
            message.lr_policy, iteration, stepsize=message.stepsize, stepvalue=message.stepvalue
        )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container, a number without a name
        return str(os.getuid())
