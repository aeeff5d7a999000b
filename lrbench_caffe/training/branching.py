"""Branching: a run takes over the beginning that it shares with another run, and continues from there.

On the CPU, two trainings with the same settings, seed and start are the same to the bit for as long
as they get the same LRs. So what one has trained until then need not be trained again: its
iterations, its tests and its snapshot are the other's, too. What is compared is what the first run
has recorded: the settings that it had, and the LR of every iteration, bit by bit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from lrbench_caffe.errors import LRBenchError
from lrbench_caffe.records import Start
from lrbench_caffe.runs.caffefiles import models_digest
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.runs.layout import MEASUREMENTS
from lrbench_caffe.runs.rows import digest_at, digest_before, iteration_row
from lrbench_caffe.runs.runjson import branch_json
from lrbench_caffe.runs.snapshots import Snapshot, Snapshots, is_intact, recorded
from lrbench_caffe.training.continuation import FREE, KEPT
from lrbench_caffe.training.monitor import ScheduleMonitor
from lrbench_caffe.training.settings import RunSettings

# Settings that may differ: which LRs there are is compared itself, the others change no bit.
_MAY_DIFFER = frozenset(
    ("solver", "policy", "policy_from", "own_policy", "max_iter", "snapshot_interval")
)
_BY_ITSELF = frozenset(("fingerprint", "start", "weights"))  # compared in another way
_TRAINED_BY = ("layers", "width", "blas_kernels")  # of each session


class NotShared(Exception):
    """Two runs share no beginning that one could take over; the message says why."""


@dataclass(frozen=True)
class Beginning:
    """The beginning of another run that a run can take over.

    Attributes:
        origin: the other run.
        settings: its settings.
        sessions: its sessions up to there, as run.json has them.
        uid: its uid in the LR database, None where it has none.
        snapshot: its snapshot at the end of the beginning.
        losses: its rows of iterations.csv, by iteration; tests: those of measurements.jsonl.
    """

    origin: RunDirectory
    settings: RunSettings
    sessions: list[dict[str, Any]]
    uid: str | None
    snapshot: Snapshot
    losses: Sequence[str]
    tests: Sequence[dict[str, Any]]

    @property
    def iteration(self) -> int:
        """The iteration at which it ends."""
        return self.snapshot.iteration

    def as_json(self, own: Snapshot | None) -> dict[str, Any]:
        """As in run.json.

        Args:
            own: the snapshot that the run itself had.
        """
        after, before = (own.iteration, own.seconds) if own else (0, 0.0)
        seconds = self.snapshot.seconds - before
        return branch_json(
            self.origin.path, self.uid, after=after, at=self.iteration, seconds=seconds
        )

    def settle(self, settings: RunSettings) -> None:
        """Give a run's settings what was open in them until it has Caffe, as the other run had it."""
        settings.start = self.settings.start
        for name in _TRAINED_BY:
            setattr(settings, name, getattr(self.settings, name))

    def take_over(
        self, run: RunDirectory, snapshots: Snapshots, monitor: ScheduleMonitor
    ) -> Snapshot:
        """Write the beginning into a run, as if it had been trained there.

        A kill leaves a run that continues from its own last snapshot, or takes it over again.

        Args:
            run: locked by the caller; its own iterations and tests up to there stay.

        Returns:
            The run's snapshot to continue from.

        Raises:
            TrainingError, OSError: the other run's snapshot is gone, or there is no room for it. The
                run has the iterations that it had before.
        """
        there = _leading(run.losses().rows)
        if there != list(self.losses[: len(there)]):
            there = []
        rows = np.array([iteration_row(text) for text in self.losses[len(there) :]]).reshape(-1, 3)
        if len(rows):
            run.add_iterations(len(there), rows[:, 1], rows[:, 2])
        for row in self.tests:
            run.add_measured({**row, "lr": monitor.lr(row["iteration"])})
        try:
            return snapshots.adopt(self.origin.snapshots, self.snapshot)
        except (LRBenchError, OSError):
            run.withdraw_iterations(len(there))
            raise


def shared_beginning(
    origin: RunDirectory,
    settings: RunSettings,
    monitor: ScheduleMonitor,
    caffe_python: Sequence[str],
    data: str | None,
    *,
    after: int = 0,
    at: int | None = None,
) -> Beginning:
    """The longest beginning of another run that a run can take over.

    Args:
        origin: the other run; it may be training.
        settings, monitor: of the run; ``caffe_python``: the command of its interpreter.
        data: the digest of its data as it is now, None where that is unknown.
        after: the iteration that the run itself has a snapshot of.
        at: the last iteration at which it may end, None for any.

    Raises:
        NotShared: there is none.
        InputError: the other directory holds no run.
    """
    record = origin.read()
    theirs = RunSettings.from_json(record)
    _check_settings(settings, theirs)
    if record.get("caffe_python") != list(caffe_python):
        raise NotShared("it has another Caffe")
    if not _same_data(record.get("sessions", [])[:1] or [{}], record, data):
        raise NotShared("it has other data, or the data has changed since")
    losses = _leading(origin.losses().rows)
    # At its end a training does more than in its middle.
    same = _shared(losses, monitor)
    most = min(same, monitor.until, settings.max_iter - 1, theirs.max_iter - 1, at or same)
    tests = origin.recovered(MEASUREMENTS).rows
    for snapshot in reversed(recorded(origin)):
        end = snapshot.iteration
        if not after < end <= most or not _has_records(snapshot, tests, losses):
            continue
        sessions = [s for s in record.get("sessions", []) if s["iteration"] < end]
        if not _as_settings(sessions, theirs) or not _same_data(sessions, record, data):
            continue
        if not is_intact(origin.snapshots, snapshot):
            continue
        rows = [json.loads(text) for place, text in sorted(tests.items()) if place[0] <= end]
        if snapshot.tested is None:
            rows = [row for row in rows if row["iteration"] < end]
        if not _by_schedule(rows, snapshot, monitor):
            continue
        uid = (record.get("record") or {}).get("uid")
        return Beginning(origin, theirs, sessions, uid, snapshot, losses[:end], rows)
    words = f"the LRs are the same for {same} iterations"
    if most > after:
        words += f", but no snapshot from {after + 1} to {most} can be used"
    raise NotShared(words)


def _leading(rows: Mapping[int, str]) -> list[str]:
    """The rows of iterations.csv from iteration 0 to the first one that is missing."""
    leading: list[str] = []
    while (text := rows.get(len(leading))) is not None:
        leading.append(text)
    return leading


def _shared(losses: Sequence[str], monitor: ScheduleMonitor) -> int:
    """For how many iterations a run would get the LRs that another one got."""
    if monitor.policy.pending:  # its LRs follow from its tests
        return 0
    theirs = np.array([iteration_row(text) for text in losses]).reshape(-1, 3)[:, 1]
    ours = np.asarray(monitor.policy(np.arange(len(losses))), dtype=np.float64)
    differing = np.flatnonzero(theirs != ours)
    return int(differing[0]) if len(differing) else len(losses)


def _has_records(snapshot: Snapshot, tests: Mapping[Any, str], losses: Sequence[str]) -> bool:
    """Whether the other run's rows are those that it had when it made a snapshot."""
    end = snapshot.iteration
    return (
        snapshot.tests == digest_before(tests, end)
        and snapshot.tested in (None, digest_at(tests, end))
        and snapshot.losses == digest_before(dict(enumerate(losses)), end)
    )


def _as_settings(sessions: Sequence[Mapping[str, Any]], settings: RunSettings) -> bool:
    """Whether all sessions trained with the layers and kernels that the run has now."""
    return all(
        session[name] == getattr(settings, name)
        for session in sessions
        for name in _TRAINED_BY
        if name in session
    )


def _same_data(
    sessions: Sequence[Mapping[str, Any]], record: Mapping[str, Any], data: str | None
) -> bool:
    """Whether sessions had this data, as far as that is known; earlier versions recorded the last one's."""
    last = ((record.get("record") or {}).get("dataset") or {}).get("digest")
    digests = (session.get("data_digest", last) for session in sessions)
    return data is None or all(digest in (None, data) for digest in digests)


def _by_schedule(
    tests: Sequence[Mapping[str, Any]], snapshot: Snapshot, monitor: ScheduleMonitor
) -> bool:
    """Whether the other run was tested when this one would have been."""
    end = snapshot.iteration
    due = [*monitor.tests_before(end), *([end] if snapshot.tested else [])]
    return sorted({row["iteration"] for row in tests}) == due


def _check_settings(ours: RunSettings, theirs: RunSettings) -> None:
    """Raise NotShared for what makes two trainings different from their beginning on."""
    for item in fields(RunSettings):
        name = item.name
        own, other = getattr(ours, name), getattr(theirs, name)
        if name in _MAY_DIFFER | _BY_ITSELF or own == other:
            continue
        if name in _TRAINED_BY and own is None:  # not known before Caffe is there
            continue
        raise NotShared(f"its {name} is {other!r}, not {own!r}")
    changed = {
        name
        for name in {*ours.fingerprint, *theirs.fingerprint} - KEPT - FREE
        if ours.fingerprint.get(name) != theirs.fingerprint.get(name)
    }
    if changed:
        raise NotShared(f"its solver or net has another {', '.join(sorted(changed))}")
    if not _same_start(ours, theirs.start):
        raise NotShared(f"it began with {theirs.start}")


def _same_start(ours: RunSettings, theirs: Start) -> bool:
    if ours.snapshot or theirs.kind == "snapshot" or not theirs.known:
        return False
    if ours.start.known:
        return ours.start.same(theirs)
    return theirs.kind == "weights" and models_digest(map(Path, ours.weights)) == theirs.digest
