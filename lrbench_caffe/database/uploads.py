"""Runs that others send: stored line by line, with an answer for each, none of it trusted.

A record may be sent again, after a break for instance: what is there already is answered so. It
gets the contribution of the token it came with, whatever it says of itself. A result that is far
above all others of its task is stored, but does not count until somebody has looked at it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from lrbench_caffe.database.errors import RecordError
from lrbench_caffe.database.exchange import BATCH, from_line
from lrbench_caffe.database.rows import task_key
from lrbench_caffe.database.store import Database
from lrbench_caffe.errors import InputError
from lrbench_caffe.records import Contribution, RunRecord, Task

NEW, PRESENT, REFUSED = "new", "present", "refused"
FAR = 0.5  # of the lowest error of the task; a lower one is doubted
NEAR = 0.25  # percent; a Top-1 that is better by less is not
MOST_LINES = 100_000  # of an upload, empty ones among them
LONGEST_LINE = 64 * 2**20  # bytes: 100,000 measurements are a tenth of that


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
        answers += _store(database, records, contribution.contributor)
        yield from sorted(answers, key=lambda answer: answer.line)


def _own(record: RunRecord) -> RunRecord:
    """The record, if it can be a contributor's.

    Raises:
        RecordError: it is the paper's, or the training goes on.
    """
    if record.source == "paper":
        raise RecordError("source: 'paper'; allowed: measured, imported")
    if record.status == "running":
        raise RecordError("status: 'running'; allowed: a training that has ended")
    return record


def _store(
    database: Database, records: list[tuple[int, RunRecord]], contributor: str
) -> list[Answer]:
    """All of them in one transaction; where one is refused, each by itself."""
    if not records:
        return []
    doubts = _doubts(database, [record for _, record in records])
    try:
        new = database.put_many([record for _, record in records], contributor, doubts)
    except RecordError as error:
        if len(records) == 1:
            number, record = records[0]
            return [Answer(number, record.uid, REFUSED, str(error))]
        return [answer for item in records for answer in _store(database, [item], contributor)]
    return [
        Answer(number, record.uid, NEW, doubts.get(record.uid))
        if fresh
        else Answer(number, record.uid, PRESENT)
        for (number, record), fresh in zip(records, new)
    ]


def _doubts(database: Database, records: list[RunRecord]) -> dict[str, str]:
    """By uid, why a result is not believed at once."""
    best: dict[str, float | None] = {}  # by the task's key
    doubts = {}
    for record in records:
        task = Task(record.framework, record.task_type, record.dataset, record.network)
        top1 = max((m.top1 for m in record.measurements if m.top1 is not None), default=None)
        if top1 is None:
            continue
        key = task_key(task)
        if key not in best:
            best[key] = _best_top1(database, task)
        known = best[key]
        if known is not None and 100 - top1 < FAR * (100 - known) and top1 - known >= NEAR:
            doubts[record.uid] = (
                f"Top-1 {top1:.2f} % is far above {known:.2f} %, the best of all others on this task"
            )
    return doubts


def _best_top1(database: Database, task: Task) -> float | None:
    stored = database.find_task(task)
    if stored is None or stored.id is None:
        return None
    best = database.summaries(stored.id, order_by="top1", limit=1)
    return best[0].top1.mean if best and best[0].top1 else None
