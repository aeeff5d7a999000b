"""Runs that others send: stored line by line, with an answer for each, none of it trusted.

A record may be sent again, after a break for instance: what is there already is answered so. It
gets the contribution of the token it came with, whatever it says of itself. A result that is far
above all others of its task is stored, but does not count until somebody has looked at it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter

from lrbench_caffe.database.errors import RecordError
from lrbench_caffe.database.exchange import BATCH, from_line
from lrbench_caffe.database.platform import Platform
from lrbench_caffe.database.rows import task_key
from lrbench_caffe.database.store import Database
from lrbench_caffe.errors import InputError
from lrbench_caffe.records import Contribution, NotShown, RunRecord, Task

NEW, PRESENT, REFUSED = "new", "present", "refused"
FAR = 0.5  # of the lowest error of the task; a lower one is doubted
NEAR = 0.25  # percent; a Top-1 that is better by less is not
MOST_LINES = 100_000  # of an upload, empty ones among them
LONGEST_LINE = 64 * 2**20  # bytes: 100,000 measurements are a tenth of that

ROUNDING = 1e-6  # percent, between Top-1 and Top-5
CLOCK_SKEW = 24 * 3600.0  # seconds by which another machine's clock may be wrong
LONGEST_NAME, LONGEST_TEXT = 200, 10_000  # characters
_NAMES = (
    *("framework.name", "framework.version", "framework.device", "task_type", "solver.type"),
    *("dataset.name", "dataset.digest", "network.name", "network.digest", "layers", "head"),
)
_TEXTS = ("origin", "reason", "machine", "start.name", "policy.text")


@dataclass(frozen=True)
class Answer:
    """What became of a line.

    Attributes:
        line: its number, from 1.
        uid: the run's; None where the line has none.
        result: ``NEW`` (or completed), ``PRESENT`` or ``REFUSED``.
        reason: why it was refused, or is not counted; None otherwise.
    """

    line: int
    uid: str | None
    result: str
    reason: str | None = None


def receive(
    database: Database, lines: Iterable[bytes], contribution: Contribution
) -> Iterator[Answer]:
    """Store the runs of lines; an answer is given when its run is durable.

    Args:
        lines: runs as ``exchange.to_line`` writes them.
        contribution: from whom, for all of them.

    Raises:
        DatabaseError: the database is away or refuses; what was answered is stored.
    """
    numbered = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
    while page := list(islice(numbered, BATCH)):
        answers: list[Answer] = []
        records: list[tuple[int, RunRecord]] = []
        for number, line in page:
            uid = None
            try:
                record = from_line(line)
                uid = record.uid
                if record.source == "paper" and database.uids(uid, 1) == [uid]:
                    answers.append(Answer(number, uid, PRESENT))
                    continue
                record = dataclasses.replace(_own(record), contribution=contribution)
                records.append((number, record))
            except InputError as error:
                answers.append(Answer(number, uid, REFUSED, str(error)))
        doubts = _doubts(database, [record for _, record in records])
        answers += _store(database, records, contribution.contributor, doubts)
        yield from sorted(answers, key=lambda answer: answer.line)


def _own(record: RunRecord) -> RunRecord:
    """The record, if it can be a contributor's.

    Raises:
        RecordError: it is the paper's, the training goes on, or no training can be so.
    """
    if record.source == "paper":
        raise RecordError("source: 'paper'; allowed: measured, imported")
    if record.status == "running":
        raise RecordError("status: 'running'; allowed: a training that has ended")
    _check_lengths(record)
    _check_times(record)
    if record.repeats != 1 or record.top1_sd is not None:
        told = f"repeats: {record.repeats}, top1_sd: {record.top1_sd}"
        raise RecordError(f"{told}; allowed: 1 and null, as a run is one training")
    for m in record.measurements:
        if m.iteration > record.max_iter:
            raise RecordError(
                f"measurement.iteration: {m.iteration}; allowed: 0 to max_iter, {record.max_iter}"
            )
        if m.top1 is not None and m.top5 is not None and m.top5 < m.top1 - ROUNDING:
            raise RecordError(
                f"measurement.top5: {m.top5:.15g} at iteration {m.iteration}; "
                f"allowed: not below top1, {m.top1:.15g}"
            )
    return record


def _check_lengths(record: RunRecord) -> None:
    """Check that a page has room for the names."""
    for most, names in ((LONGEST_NAME, _NAMES), (LONGEST_TEXT, _TEXTS)):
        for name in names:
            text = attrgetter(name)(record)
            if text is not None and len(text) > most:
                raise RecordError(f"{name}: {len(text)} characters; allowed: {most}")


def _check_times(record: RunRecord) -> None:
    latest = time.time() + CLOCK_SKEW
    for name, moment in (("started", record.started), ("ended", record.ended)):
        if moment is not None and moment > latest:
            raise RecordError(f"{name}: {moment:.15g}; allowed: seconds since 1970, up to today's")
    if record.started is not None and record.ended is not None and record.ended < record.started:
        raise RecordError(
            f"ended: {record.ended:.15g}; allowed: not before started, {record.started:.15g}"
        )


def _store(
    database: Database,
    records: list[tuple[int, RunRecord]],
    contributor: str,
    doubts: dict[str, str],
) -> list[Answer]:
    """All of them in one transaction; where one is refused, each by itself."""
    if not records:
        return []
    try:
        unverified = {uid: NotShown("unverified", doubt) for uid, doubt in doubts.items()}
        new = database.put_many([record for _, record in records], contributor, unverified)
    except RecordError as error:
        if len(records) == 1:
            number, record = records[0]
            return [Answer(number, record.uid, REFUSED, str(error))]
        return [a for item in records for a in _store(database, [item], contributor, doubts)]
    return [
        Answer(number, record.uid, NEW, doubts.get(record.uid))
        if fresh
        else Answer(number, record.uid, PRESENT)
        for (number, record), fresh in zip(records, new)
    ]


def _doubts(database: Database, records: list[RunRecord]) -> dict[str, str]:
    """By uid, why a result is not believed at once.

    It is compared with the best run of its task that counts or, where there is none yet, with the
    runs that come with it.
    """
    doubts = {r.uid: reason for r in records if (reason := _untested(r)) is not None}
    for task, runs in _by_task(records).values():
        best = Platform(database).best_top1(task)
        for record, top1 in runs:
            known = best
            if known is None:
                others = (t for r, t in runs if r.uid != record.uid and r.status == "finished")
                known = max(others, default=None)
            if known is not None and 100 - top1 < FAR * (100 - known) and top1 - known >= NEAR:
                doubts[record.uid] = (
                    f"Top-1 {top1:.2f} % is far above {known:.2f} %, the best of all others on this task"
                )
    return doubts


def _untested(record: RunRecord) -> str | None:
    """What is wrong with a run that should have had a test, and has none."""
    every, began = record.test_interval, record.start.iteration or 0
    if record.status != "finished" or record.measurements or not every:
        return None
    if record.max_iter // every <= began // every:
        return None
    return f"it finished without a test, though there should be one every {every} iterations"


def _by_task(records: list[RunRecord]) -> dict[str, tuple[Task, list[tuple[RunRecord, float]]]]:
    """The records that have a Top-1, with their highest, by their task's key."""
    found: dict[str, tuple[Task, list[tuple[RunRecord, float]]]] = {}
    for record in records:
        top1 = max((m.top1 for m in record.measurements if m.top1 is not None), default=None)
        if top1 is not None:
            task = Task(record.framework, record.task_type, record.dataset, record.network)
            found.setdefault(task_key(task), (task, []))[1].append((record, top1))
    return found
