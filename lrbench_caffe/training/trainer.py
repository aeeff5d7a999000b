"""The training loop. It owns the iteration; everything periodic is called with it."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import NoReturn

import numpy as np

from lrbench_caffe.errors import InputError, LRBenchError, TrainingError, named
from lrbench_caffe.metrics import of_first_net
from lrbench_caffe.prototxt.nets import has_plain_softmax_loss
from lrbench_caffe.prototxt.refusal import DamagedData, open_solver, with_data, with_layers
from lrbench_caffe.prototxt.solver import Solver
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.runs.snapshots import Snapshot, Snapshots
from lrbench_caffe.runtime.client import Worker
from lrbench_caffe.runtime.replies import Opened, OpenRequest
from lrbench_caffe.training.divergence import DivergenceWatch
from lrbench_caffe.training.evaluator import measure, measuring_notes
from lrbench_caffe.training.monitor import ScheduleMonitor
from lrbench_caffe.training.observer import Audience, Observer
from lrbench_caffe.training.replay import replay_plan
from lrbench_caffe.training.settings import check_measured
from lrbench_caffe.training.signals import Signals

Load = Callable[[Worker, Opened, Callable[[str], None]], int]


def as_asked(iteration: int) -> str:
    """The recorded reason of a part that ended at its requested iteration."""
    return f"paused at iteration {iteration} as asked"


@dataclass(frozen=True)
class TrainingOutcome:
    """How a session ended.

    Attributes:
        status: one of records.STATUSES.
        reason: why, unless it finished.
        iteration: how far it came.
        paused: whether it is where the session was to end, with everything done that is due there.
    """

    status: str
    reason: str | None
    iteration: int
    paused: bool = False


class Trainer:
    """One session of one run.

    Args:
        worker: a running worker without a solver yet.
        solver: what is trained.
        monitor: what is due when.
        run: where it is written; locked by the caller.
        snapshots: the run's snapshots.
        observers: who watches.
        signals: entered by the caller.
        checkpoint_seconds: an automatic snapshot is made when the last one is older than this; 0
            for never.
        first: the iteration that the run began at: that of a foreign snapshot, or 0.
    """

    def __init__(
        self,
        worker: Worker,
        solver: Solver,
        monitor: ScheduleMonitor,
        run: RunDirectory,
        snapshots: Snapshots,
        observers: Sequence[Observer],
        signals: Signals,
        *,
        checkpoint_seconds: float = 600.0,
        first: int = 0,
    ) -> None:
        self._worker = worker
        self._solver = solver
        self._monitor = monitor
        self._run = run
        self._snapshots = snapshots
        self._audience = Audience(observers)
        self._signals = signals
        self._checkpoint_seconds = checkpoint_seconds
        self._run_first = first
        self._divergence = DivergenceWatch(has_plain_softmax_loss(solver.train))
        # Whether a pass without an update changes what a snapshot holds.
        self._statistics = any(
            layer.type in ("BatchNorm", "Python") for layer in solver.train.layers
        )
        self._iteration = self._first = 0  # the first is where this session begins
        self._verdict: str | None = None
        self._tested = False  # whether the run was ever tested
        self._measured = False  # whether the test due at this iteration is done
        self._since_test: list[np.ndarray] = []  # training losses since the previous test
        self._began = self._saved = time.monotonic()
        self._last_snapshot: tuple[int, bool] | None = (
            None  # its iteration, and whether it is automatic
        )
        self._noted: set[str] = set()  # remarks on tests, each made once

    def train(
        self, request: OpenRequest, load: Load, resumed: Snapshot | None = None
    ) -> TrainingOutcome:
        """Train until max_iter, the end of the session, a stop or divergence.

        Args:
            request: how the worker opens the solver.
            load: gives the opened nets what they start from.
            resumed: this run's own snapshot that ``load`` restores, None for a new run.

        Raises:
            InputError: Caffe refuses the solver or its nets, or they do not fit what they are to
                start from.
            DamagedData: Caffe died of its data, which is recorded like what follows.
            TrainingError: Caffe died or hung, or a file could not be written. What was measured is
                on disk, and the run's record says why it failed.
        """
        try:
            self._open(request, load)
            self._prepare(resumed)
            outcome = self._loop()
        except (LRBenchError, OSError) as error:
            self._fail(error)
        except KeyboardInterrupt:
            self._record("stopped", "interrupted twice, without a snapshot")
            self._audience.note(
                f"ended without a snapshot of iteration {self._iteration}{self._way_on()}"
            )
            raise
        except BaseException as error:
            self._record("failed", f"{type(error).__name__}: {error}")
            raise
        self._record(outcome.status, outcome.reason, paused=outcome.paused)
        return outcome

    def _open(self, request: OpenRequest, load: Load) -> None:
        """Open the solver, load what it starts from, and record with which layers it trains."""
        opened = open_solver(self._worker, self._solver, request)
        self._iteration = self._first = load(self._worker, opened, self._audience.note)
        trained_by = {
            "layers": opened.layers,
            "width": opened.width,
            "blas_kernels": self._worker.info.blas_kernels,
        }
        sessions = self._run.read().get("sessions", [])
        for session in sessions[-1:]:
            session.update(trained_by)
        self._run.update(**trained_by, sessions=sessions)
        if opened.layers == "stock":
            self._run.update(threads=1)
        self._audience.opened(opened)
        for note in measuring_notes(self._solver, opened):
            self._audience.note(note)

    def _fail(self, error: LRBenchError | OSError) -> NoReturn:
        """Record why the training failed, and raise an error that says so."""
        reason, of_data = with_data(self._solver, error)
        reason = with_layers(self._solver, reason)
        if isinstance(error, OSError):
            reason = f"{error.filename or self._run.path}: {error.strerror}"
        self._record("failed", reason)
        if isinstance(error, InputError):
            raise error
        raise (DamagedData if of_data else TrainingError)(
            f"{reason} (Caffe's log: {self._run.log}{self._way_on(failed=True)})"
        ) from error

    def _way_on(self, failed: bool = False) -> str:
        """How to resume; empty if that would fail in the same way."""
        # An iteration's loss is known before its update, in which Caffe checks the LR.
        if self._iteration <= self._first + failed:
            return ""
        resume = f"{named('resume')} {named('out')} {shlex.quote(str(self._run.path))}"
        saved = self._snapshots.all()
        if saved:
            return f"; continue from iteration {saved[-1].iteration} with: {resume}"
        return f"; there is no snapshot yet: {resume} starts from the beginning"

    def _record(self, status: str, reason: str | None, *, paused: bool = False) -> None:
        with contextlib.suppress(OSError):  # on a full disk the message on the screen has to do
            self._run.update(
                status=status,
                reason=reason,
                paused=paused,
                iteration=self._iteration,
                ended=self._run.now(),
            )
        self._audience.ended(status, reason)

    # -- before ---------------------------------------------------------------------------------

    def _prepare(self, resumed: Snapshot | None) -> None:
        # A foreign snapshot does not say when it was tested: when it would be here.
        tests = self._recall(resumed) if resumed else self._monitor.tests_before(self._iteration)
        # One that is only tested is tested with the first records of the data, as by Caffe.
        if self._iteration and (resumed or self._iteration < self._monitor.max_iter):
            self._worker.replay(
                replay_plan(self._solver, self._iteration, tests),
                self._audience.replaying,
                lambda: self._signals.stop,
            )
        self._audience.begin(self._iteration)
        self._worker.write_log(f"Solving {self._solver.train.name}")
        self._worker.write_log(f"Learning Rate Policy: {self._monitor.policy}")

    def _recall(self, resumed: Snapshot) -> list[int]:
        """Take up what this run had measured before the snapshot; returns the iterations of its tests."""
        past = [m for m in self._run.measurements() if m.iteration <= self._iteration]
        # The monitor decides again what it decided then.
        decisions = [self._monitor.observe(measurement) for measurement in past]
        self._run.put_decisions(asdict(decision) for decision in decisions if decision)
        last_test = past[-1].iteration if past else 0
        self._tested = bool(past)
        self._measured = bool(past) and last_test == self._iteration
        rows = self._run.iterations()
        rows = rows[rows[:, 0] < self._iteration]
        self._since_test = [rows[rows[:, 0] >= last_test, 2]]
        self._divergence.look(
            int(self._iteration) - len(rows), rows[:, 2]
        )  # it counts losses in a row
        self._began -= resumed.seconds
        self._last_snapshot = (resumed.iteration, resumed.automatic)
        self._snapshots.publish_last()
        return sorted({*self._monitor.tests_before(self._run_first), *(m.iteration for m in past)})

    # -- the loop -------------------------------------------------------------------------------

    def _loop(self) -> TrainingOutcome:
        while True:
            if self._signals.stop:
                return self._stop()
            if self._monitor.test_due(self._iteration) and not self._measured:
                if self._iteration >= self._monitor.max_iter:
                    self._after_last_update()
                self._test()
                continue
            self._save_if_due()
            if self._iteration >= self._monitor.max_iter:
                return self._finish()
            if self._iteration >= self._monitor.until:
                return self._halt()
            self._step()
            if self._verdict:
                self._audience.note(self._verdict)
                return TrainingOutcome("diverged", self._verdict, self._iteration)

    def _step(self) -> None:
        stretch = self._monitor.next_stretch(self._iteration)

        def on_losses(start: int, losses: np.ndarray) -> None:
            if self._verdict:
                return
            self._verdict = self._divergence.look(start, losses)
            if self._verdict:
                # How far the worker came until it heard of it depends on the machine's speed.
                losses = losses[: self._divergence.iteration + 1 - start]
            lrs = stretch.lrs[start - stretch.start :][: len(losses)]
            self._run.add_iterations(start, lrs, losses)
            self._since_test.append(losses)
            self._iteration = start + len(losses)
            self._audience.trained(self._iteration, float(lrs[-1]), float(losses[-1]))

        reached = self._worker.run(stretch.lrs, on_losses, self._wants_pause)
        if not self._verdict:
            self._iteration = reached
        self._measured = False

    def _wants_pause(self) -> bool:
        return self._signals.pending() or self._verdict is not None or self._checkpoint_due()

    def _test(self) -> None:
        losses = np.concatenate(self._since_test) if self._since_test else np.empty(0)
        test = measure(
            self._worker,
            self._solver,
            iteration=self._iteration,
            lr=self._monitor.lr(self._iteration),
            train_loss=float(losses.mean()) if len(losses) else None,
            elapsed=lambda: time.monotonic() - self._began,
            wants_stop=lambda: self._signals.stop,
        )
        if test is None:
            return  # stopped in the middle: the resumed run tests again
        if not self._tested:  # in later tests, what is not there may be infinite
            self._tested = True
            for measurement in of_first_net(test.measurements):
                check_measured(self._monitor.policy, self._solver, measurement)
        self._since_test = []
        self._measured = True
        for measurement in test.measurements:
            self._run.add_measurement(measurement)
        self._audience.tested(test.measurements)
        for note in test.notes:
            if note not in self._noted:
                self._noted.add(note)
                self._audience.note(note)
        for measurement in test.measurements:
            decision = self._monitor.observe(measurement)
            if decision:
                self._run.add_decision(asdict(decision))
                self._audience.note(
                    f"iteration {decision.iteration}: {decision.metric} stopped improving, the LR is now "
                    f"{self._monitor.lr(self._iteration):g}"
                )

    def _after_last_update(self) -> None:
        """What ``caffe train`` does after its last update, and before a last test.

        The further training pass is there for the loss that it prints. It changes the statistics of
        BatchNorm layers, which the test nets share, and the random numbers that tests draw.
        """
        self._save_if_due()
        if self._solver.message.snapshot_after_train and not self._snapshot_due:
            self._save()
        display = self._solver.message.display
        if display and self._iteration % display == 0:
            if self._statistics:  # a stop during the last test continues before this pass
                self._save(automatic=True)
            loss = self._worker.forward()
            others = self._solver.message.average_loss - 1
            losses = [*self._run.iterations()[-others:, 2], loss] if others else [loss]
            self._worker.write_log(f"Iteration {self._iteration}, loss = {np.mean(losses):g}")

    # -- snapshots and the end ------------------------------------------------------------------

    def _save(self, automatic: bool = False) -> None:
        # An automatic snapshot does not replace one that is wanted.
        if self._last_snapshot not in ((self._iteration, False), (self._iteration, automatic)):
            seconds = round(time.monotonic() - self._began, 3)
            self._snapshots.take(self._worker.snapshot, self._iteration, seconds, automatic)
            self._last_snapshot = (self._iteration, automatic)
        self._saved = time.monotonic()

    def _save_if_due(self) -> None:
        # What the run began with was not trained by it.
        trained = self._iteration > self._run_first
        if self._signals.take_snapshot_request() or (self._snapshot_due and trained):
            self._save()
        elif self._checkpoint_due() or self._iteration in self._monitor.branch_points:
            self._save(automatic=True)

    @property
    def _snapshot_due(self) -> bool:
        return self._monitor.snapshot_due(self._iteration)

    def _checkpoint_due(self) -> bool:
        return 0 < self._checkpoint_seconds < time.monotonic() - self._saved

    def _stop(self) -> TrainingOutcome:
        # There is always one to continue from. Where the solver wants none, or none is published
        # and the run was to pause anyway, it is the run's own.
        pauses = self._monitor.pauses and not self._snapshots.published
        self._save(automatic=pauses or not self._solver.message.snapshot_after_train)
        self._worker.write_log("Optimization stopped early.")
        return TrainingOutcome("stopped", "stopped by a signal", self._iteration)

    def _halt(self) -> TrainingOutcome:
        # Always with a snapshot to continue from; the next one takes its place.
        self._save(automatic=True)
        self._worker.write_log("Optimization stopped early.")
        reason = as_asked(self._iteration)
        return TrainingOutcome("stopped", reason, self._iteration, paused=True)

    def _finish(self) -> TrainingOutcome:
        if not self._monitor.test_due(self._iteration):  # else it was done before the test
            self._after_last_update()
        self._worker.write_log("Optimization Done.")
        return TrainingOutcome("finished", None, self._iteration)
