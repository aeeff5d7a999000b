"""Resumes an interrupted run: finds a snapshot to continue from and repairs the records before it.

A resumed run needs more than Caffe's snapshot: the tests before it decide which images later tests
see and what a plateau policy does, the losses since the last test are that test's training loss. So
each snapshot keeps digests of the rows before it, and it is used only if these rows can be read:
from the run's files, from its journals, or from the intact parts of both. Otherwise the snapshot
before it is used, and the iterations after that are trained again. A run that has snapshots is
started over only on request; else, if none can be used, resuming is refused.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from lrbench_caffe.errors import ParameterError
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.runs.layout import DECISIONS, LOSSES, MEASUREMENTS, RECORDS, RUN, SNAPSHOTS
from lrbench_caffe.runs.rows import Recovered, digest_at, digest_before, sealed
from lrbench_caffe.runs.snapshots import Snapshot, Snapshots

Texts = Mapping[Any, str]
Due = Callable[[int], Collection[tuple[int, int]]]


@dataclass
class TakenUp:
    """Where a run continues.

    Attributes:
        start: its newest snapshot that can be continued from, None for a run that had none yet.
        notes: what a person should know, a sentence each.
    """

    start: Snapshot | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Before:
    """The records that belong to a snapshot: what was measured before it."""

    tests: Texts
    losses: Texts


def take_up(
    run: RunDirectory,
    snapshots: Snapshots,
    due: Due,
    first: int | None,
    end: int,
    *,
    start_over: bool = False,
) -> TakenUp:
    """Find where a run continues, and repair its files.

    What was measured beyond its end goes: the run was longer before.

    Args:
        run: locked by the caller.
        due: the tests before an iteration, as (iteration, net), by the schedule.
        first: the iteration that the run began at; None where that is not known.
        end: the iteration that it ends at now; no snapshot is later.
        start_over: whether a run none of whose snapshots can be used begins again.

    Raises:
        InputError: the run has snapshots, but none with all that a resumed run needs, and is not to
            begin again; or its files are of two runs.
    """
    run.believe(_own_record(run))
    return _Mending(run, snapshots, due, first, end).take_up(start_over)


def _own_record(run: RunDirectory) -> dict[str, Any]:
    """run.json, or the journal's copy where another run's file was put in its place."""
    record = run.read()
    ids = [record.get("id"), *(run.journal(name).id for name in (RECORDS, LOSSES))]
    if ids[1] in (None, ids[0]):
        return record
    copy = run.journaled_record()
    if copy is not None and (ids[0] is None or ids[2] == ids[1]):
        return copy
    if ids[0] == ids[2]:
        return record
    raise ParameterError(
        "{resume}: {0} and {1} there belong to different runs; allowed: the files of one run",
        run.path / RUN,
        RECORDS,
    )


class _Mending:
    def __init__(
        self, run: RunDirectory, snapshots: Snapshots, due: Due, first: int | None, end: int
    ) -> None:
        self._run = run
        self._snapshots = snapshots
        self._due = due
        self._end = end
        self._record = run.read()
        self._tests = run.recovered(MEASUREMENTS)
        self._saved = run.recovered(SNAPSHOTS)
        self._losses = run.losses()
        self._first = min(self._losses.rows, default=0) if first is None else first
        damage = run.record_damage(self._record)
        of_rows = [*self._saved.damage, *self._tests.damage, *self._losses.damage]
        self._damage = list(dict.fromkeys([f"{RUN}: {damage}"] * bool(damage) + of_rows))
        self._incomplete: list[str] = []  # snapshots whose records are not whole

    def take_up(self, start_over: bool) -> TakenUp:
        start, damaged = self._snapshots.newest(self._has_records)
        none_left = start is None and bool(
            damaged or self._incomplete or self._may_have_lost_snapshots()
        )
        if none_left and not start_over:
            raise self._refusal(damaged)
        notes = [f"the snapshot {name} is damaged, overwritten or missing" for name in damaged]
        notes += ["the run begins again: no snapshot can be continued from"] * none_left
        if self._damage or self._incomplete or none_left:
            notes = [*self._notes(), *notes]
            self._mend(start)
            notes += [
                f"{path}: the record of this snapshot is lost; the snapshot is not used"
                for path in self._snapshots.unrecorded()
                if path.name.endswith((".solverstate", ".solverstate.h5"))
            ]
        elif "id" not in self._record:
            notes += self._give_journals()
        elif self._goes_beyond_end():
            self._shorten()
        else:
            self._run.put_rows(MEASUREMENTS, self._tests.rows.values())
            self._run.put_rows(SNAPSHOTS, self._saved.rows.values())
            self._snapshots.remove_unrecorded()
        return TakenUp(start, notes)

    def _notes(self) -> Iterator[str]:
        if self._damage:
            # A former version has no copies.
            what = "repaired" if "id" in self._record else "left out"
            yield f"damaged records were {what}: {'; '.join(self._damage)}"
        for name in self._incomplete:
            yield (
                f"some measurements before snapshot {name} are lost; "
                "those iterations are trained again"
            )

    # -- which snapshot -------------------------------------------------------------------------

    def _has_records(self, snapshot: Snapshot) -> bool:
        """Whether what was measured before a snapshot is known."""
        if self._before(snapshot) is None:
            self._incomplete.append(snapshot.state)
            return False
        return True

    def _before(self, snapshot: Snapshot) -> _Before | None:
        tests = next(
            (rows for rows in _readings(self._tests) if self._tests_fit(snapshot, rows)), None
        )
        losses = next(
            (rows for rows in _readings(self._losses) if self._losses_fit(snapshot, rows)), None
        )
        return None if tests is None or losses is None else _Before(tests, losses)

    def _tests_fit(self, snapshot: Snapshot, rows: Texts) -> bool:
        if snapshot.tests is not None:
            return digest_before(rows, snapshot.iteration) == snapshot.tests
        return set(self._due(snapshot.iteration)) <= rows.keys()  # of a former version

    def _losses_fit(self, snapshot: Snapshot, rows: Texts) -> bool:
        if snapshot.losses is not None:
            return digest_before(rows, snapshot.iteration) == snapshot.losses
        return rows.keys() >= set(range(self._first, snapshot.iteration))

    def _may_have_lost_snapshots(self) -> bool:
        """Whether there may have been snapshots that nothing tells of any more."""
        return bool(self._saved.damage or self._tests.damage) and bool(self._snapshots.unrecorded())

    def _refusal(self, damaged: list[str]) -> ParameterError:
        if damaged and not self._incomplete:
            return ParameterError(
                "{resume}: none of the snapshots in {0} is intact ({1}); allowed: restore them, begin "
                "this run again with {start_over}, or another one with another {out}",
                self._run.snapshots,
                ", ".join(damaged),
            )
        words = "; ".join(self._damage) or "tests or losses of the schedule are missing"
        return ParameterError(
            "{resume}: {0}: {1}; and no snapshot has complete records before it; allowed: restore "
            "these files, begin this run again with {start_over}, or another one with another {out}",
            self._run.path,
            words,
        )

    # -- putting it in order --------------------------------------------------------------------

    def _to_end(self) -> tuple[Texts, Texts]:
        """The tests and losses up to the run's end; the last test is after the last update."""
        tests = {place: text for place, text in self._tests.rows.items() if place[0] <= self._end}
        losses = {i: text for i, text in self._losses.rows.items() if i < self._end}
        return tests, losses

    def _goes_beyond_end(self) -> bool:
        """Whether anything was measured beyond the run's end."""
        last_test = max((iteration for iteration, _ in self._tests.rows), default=-1)
        return last_test > self._end or max(self._losses.rows, default=-1) >= self._end

    def _mend(self, start: Snapshot | None) -> None:
        """Write the files and their journals anew, with what is known to be right: what was measured up to
        the snapshot, as everything after it is done again."""
        end = start.iteration if start else self._first
        before = self._before(start) if start else None
        tests, losses = (before.tests, before.losses) if before else ({}, {})
        at_end = start is not None and digest_at(tests, end) == start.tested
        kept_tests = {place: text for place, text in tests.items() if place[0] < end + at_end}
        kept_losses = {iteration: text for iteration, text in losses.items() if iteration < end}
        snapshots = [one for one in self._snapshots.all() if one.iteration <= end]
        self._write(kept_tests, kept_losses, snapshots)
        self._snapshots.remove_unrecorded(after=end)

    def _shorten(self) -> None:
        """Take out what was measured and decided beyond the run's end."""
        self._write(*self._to_end(), self._snapshots.all())
        decisions = self._run.rows(DECISIONS)
        self._run.put_decisions(row for row in decisions if row["iteration"] <= self._end)
        self._snapshots.remove_unrecorded()

    def _give_journals(self) -> list[str]:
        """Begin the journals of a run of a former version; returns what to say of it.

        A test that no snapshot needs may be missing. It and those after it are measured again, in
        the order of the schedule.
        """
        tests, losses = self._to_end()
        last = max((iteration for iteration, _ in tests), default=0)
        lost = min((place for place in self._due(last) if place not in tests), default=None)
        kept = {place: text for place, text in tests.items() if lost is None or place < lost}
        self._write(kept, losses, self._snapshots.all())
        if lost is None:
            return []
        return [f"{MEASUREMENTS}: the test at iteration {lost[0]} is missing: it is measured again"]

    def _write(self, tests: Texts, losses: Texts, snapshots: Collection[Snapshot]) -> None:
        id = self._record.get("id") or secrets.token_hex(8)
        rows = []
        for snapshot in snapshots:
            before = self._before(snapshot)
            if before:
                rows.append(sealed(asdict(_with_digests(snapshot, before)), id))
        record = {**self._record, "id": id}
        gone = len(self._losses.rows) - len(losses)
        if gone:
            record["repeated"] = self._run.repeated + gone
        self._run.put_iterations([losses[i] for i in sorted(losses)], id)
        self._run.put_records(
            record, [tests[place] for place in sorted(tests)], map(json.dumps, rows)
        )


def _with_digests(snapshot: Snapshot, before: _Before) -> Snapshot:
    return replace(
        snapshot,
        tests=digest_before(before.tests, snapshot.iteration),
        tested=digest_at(before.tests, snapshot.iteration)
        if snapshot.tests is None
        else snapshot.tested,
        losses=digest_before(before.losses, snapshot.iteration),
    )


def _readings(recovered: Recovered) -> Iterator[Texts]:
    yield recovered.rows
    yield from recovered.other
