"""The studies beside that of the solver itself: one for each combination of other settings.

also/batch64-momentum0.8/solver.prototxt   the solver with these settings, with its nets
also/batch64-momentum0.8/holdout/          the same, for held-out records
also/batch64-momentum0.8/trainings/        its trainings
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lrbench_caffe.errors import InputError, LRBenchError, ParameterError, verbatim
from lrbench_caffe.knowledge.adaptation import (
    CannotAdapt,
    Change,
    TrainingContext,
    adapt,
    change_between,
)
from lrbench_caffe.lr import Policy, PolicyError, caffe_fields
from lrbench_caffe.prototxt.holdout import splittable
from lrbench_caffe.prototxt.messages import shortest
from lrbench_caffe.prototxt.solver import Solver
from lrbench_caffe.prototxt.task import open_worker, read_with_caffe, solver_settings
from lrbench_caffe.prototxt.variant import (
    WITHOUT_MOMENTUM,
    Variant,
    lr_factor,
    training_batch,
    write_variant,
)
from lrbench_caffe.records import digest
from lrbench_caffe.training.continuation import fingerprint
from lrbench_caffe.tuning.also import BATCH, MOMENTUM, WEIGHT_DECAY, Combination, Combinations
from lrbench_caffe.tuning.plan import TESTS, TuningPlan
from lrbench_caffe.tuning.study import Study
from lrbench_caffe.tuning.trainings import ALSO

_FLOATS = 2 * 4  # bytes of a number of a blob: its value and its gradient


@dataclass(frozen=True)
class SideStudy:
    """The study of a combination.

    Attributes:
        combination: its settings.
        study: its trainings.
        change: from the solver itself to it.
    """

    combination: Combination
    study: Study
    change: Change

    def moved(self, policy: Policy) -> Policy | None:
        """A policy of the solver itself for these settings; None where none results."""
        try:
            return adapt(policy, self.change).bind(self.study.plan.max_iter)
        except (CannotAdapt, PolicyError):
            return None


class SideStudies:
    """Makes the studies of combinations.

    Args:
        solver: the solver itself.
        caffe_python: the Python that can import caffe.
    """

    def __init__(self, solver: Solver, caffe_python: str | None) -> None:
        self._solver, self._caffe_python = solver, caffe_python

    def open(self, main: Study, combination: Combination) -> SideStudy:
        """The study of a combination, beside that of the solver itself. Its solver is written."""
        plan, change = main.plan, change_to(self._solver, combination, main.plan)
        folder = main.folder / ALSO / combination.folder
        max_iter = change.new.max_iter
        interval = max(1, round(plan.test_interval * change.length))
        path = write_variant(
            self._solver,
            variant(combination),
            folder,
            lr=_own_fields(self._solver, change),
            max_iter=max_iter,
            test_interval=interval,
        )
        solver = read_with_caffe(
            path, self._caffe_python, head=self._solver.head, level=plan.level, stages=plan.stages
        ).solver
        holdout = main.holdout
        if holdout is not None:
            holdout = replace(holdout, split=splittable(solver), place=folder / "holdout")
        side_plan = replace(
            plan, solver=str(path), epoch=change.new.epoch, also=(),
            files=digest(fingerprint(solver)), max_iter=max_iter, test_interval=interval,
        )  # fmt: skip
        batch = combination.get(BATCH)
        study = Study(
            folder,
            side_plan,
            main.pool,
            db=main.db,
            hang_seconds=main.hang_seconds,
            trust_data=main.trusts_data,
            holdout=holdout,
            beside=main,
            settings=str(combination),
            scale=1.0 if batch is None else batch / training_batch(self._solver),
        )
        return SideStudy(combination, study, change)


def variant(combination: Combination) -> Variant:
    """What a combination changes in a solver."""
    batch = combination.get(BATCH)
    return Variant(
        None if batch is None else int(batch),
        combination.get(MOMENTUM),
        combination.get(WEIGHT_DECAY),
    )


def change_to(solver: Solver, combination: Combination, plan: TuningPlan) -> Change:
    """The change from a solver itself to a combination, by which its policies are adapted."""
    own, wanted = solver_settings(solver), variant(combination)
    if wanted.batch is not None:
        own = replace(own, batch=training_batch(solver))
    new = own
    for name in ("batch", "momentum", "weight_decay"):
        value = getattr(wanted, name)
        new = new if value is None else replace(new, **{name: value})
    if own.base_lr:
        new = replace(new, base_lr=own.base_lr * lr_factor(solver, wanted))
    ratio = own.batch / new.batch if own.batch and new.batch else 1.0
    return change_between(
        TrainingContext("", own, plan.max_iter, plan.epoch),
        TrainingContext("", new, _length(plan.max_iter, ratio), plan.epoch and plan.epoch * ratio),
    )


def _length(max_iter: int, ratio: float) -> int:
    return max(1, round(max_iter * ratio))


def _own_fields(solver: Solver, change: Change) -> dict[str, Any] | None:
    """The solver's own lr_policy after a change, as fields; None where Caffe has none for it."""
    try:
        own = solver.lr_policy(change.old.max_iter)
        return caffe_fields(adapt(own, change).bind(change.new.max_iter), change.new.max_iter)
    except (PolicyError, CannotAdapt):
        return None


# -- before the first training ---------------------------------------------------------------------


def combinations_of(solver: Solver, also: Mapping[str, Sequence[float]]) -> Combinations:
    """The combinations of what was asked for, with the solver's own values.

    Raises:
        InputError: a solver or net for which they cannot be chosen.
    """
    own: dict[str, float] = {
        MOMENTUM: shortest(solver.message.momentum),
        WEIGHT_DECAY: shortest(solver.message.weight_decay),
    }
    if BATCH in also:
        try:
            own[BATCH] = training_batch(solver)
        except InputError as error:
            raise ParameterError("{also} batch: {0}", error) from error
    if any(also.get(MOMENTUM, ())) and solver.type in WITHOUT_MOMENTUM:
        raise ParameterError(
            "{also}: momentum={0:g}; allowed: 0 with {1}", max(also[MOMENTUM]), solver.type
        )
    return Combinations.of(also, own)


def check_batches(
    solver: Solver,
    combinations: Combinations,
    plan: TuningPlan,
    caffe_python: str | None,
    scratch: Path,
) -> None:
    """Check that Caffe opens the solver with each batch size, and that memory suffices.

    Args:
        scratch: a temporary folder.

    Raises:
        InputError: it does not, or a training of the same length would have too few iterations.
    """
    own, *others = combinations.values.get(BATCH, (0,))
    samples = solver.source.samples if solver.source else None
    for batch in map(int, others):
        if samples is not None and batch > samples:
            raise ParameterError(
                "{also}: batch={0}; allowed: 1 to {1}, the training records", batch, samples
            )
        length = _length(plan.max_iter, own / batch)
        if length < TESTS:
            raise ParameterError(
                "{also}: batch={0}: a training of as many epochs has {1} iterations; allowed: a batch "
                "with which it has {2} or more",
                batch,
                length,
                TESTS,
            )
        _check_batch(solver, batch, plan, caffe_python, scratch / str(batch))


def _check_batch(
    solver: Solver, batch: int, plan: TuningPlan, caffe_python: str | None, folder: Path
) -> None:
    level, stages = plan.level, plan.stages
    try:
        path = write_variant(solver, Variant(batch), folder, max_iter=TESTS, test_interval=TESTS)
        read = read_with_caffe(path, caffe_python, level=level, stages=stages, head=solver.head)
        worker = open_worker(read.solver, read.info, read.python, level=level, stages=stages)
        with worker as (_, opened):
            shapes = opened.train_shapes.values()
    except LRBenchError as error:
        text = verbatim(str(error).replace(str(folder), str(solver.path)))
        raise ParameterError(f"{{also}}: batch={batch}: {text}") from error
    needed, there = _FLOATS * sum(map(math.prod, shapes)), available_memory()
    if there is not None and needed > there:
        raise ParameterError(
            "{also}: batch={0}: the training net takes {1:,.1f} GB of memory, {2:,.1f} GB are available; "
            "allowed: a smaller batch",
            batch,
            needed / 1e9,
            there / 1e9,
        )


def available_memory() -> int | None:
    """Bytes of memory that are available on this machine; None where that is unknown."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError, IndexError):
        return None


# -- after the last training -----------------------------------------------------------------------


def write_recommended(
    solver: Solver,
    combination: Combination,
    policy: Policy,
    plan: TuningPlan,
    folder: Path,
) -> Path:
    """Write the solver to train with, with its nets; returns its path.

    It has the policy as its lr_policy where Caffe has that; else the solver's own one, moved to the
    settings. Comments say what is still to be given: a policy that Caffe does not have, weights
    where this Caffe has no field for them, and a level, which ``caffe train`` does not take from a
    solver.

    Args:
        plan: of the trainings with these settings.
    """
    fields = caffe_fields(policy, plan.max_iter)
    names = (name.strip() for name in (plan.weights or "").split(","))
    weights = [str(Path(name).absolute()) for name in names if name]
    path = write_variant(
        solver, variant(combination), folder, max_iter=plan.max_iter,
        test_interval=plan.test_interval, lr=fields,
        weights=weights, stages=plan.stages,
    )  # fmt: skip
    notes = []
    if fields is None:
        notes.append(f"The LR policy that was found, {policy}, is none of Caffe's")
    if weights and "weights" not in solver.message.DESCRIPTOR.fields_by_name:
        notes.append(f"The weights to begin with: {', '.join(weights)}")
    if plan.level:
        notes.append(f"The level {plan.level}")
    lines = "".join(f"# {note}: it has to be given.\n" for note in notes)
    path.write_bytes(lines.encode() + path.read_bytes())
    return path


def remove_recommended(folder: Path) -> None:
    """Remove what ``write_recommended`` wrote; whatever else is there stays."""
    for pattern in ("solver.prototxt", "train.prototxt", "test.prototxt", "test_[0-9]*.prototxt"):
        for path in folder.glob(pattern):
            path.unlink()
    with contextlib.suppress(OSError):  # it is not there, or holds other files
        folder.rmdir()


def texts(also: Mapping[str, Sequence[float]] | None) -> tuple[str, ...]:
    """What was asked for, as texts for study.json."""
    found = (also or {}).items()
    return tuple(f"{name}={','.join(map(repr, values))}" for name, values in found)
