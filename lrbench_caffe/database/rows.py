"""Records as rows: what identifies the parts of a record, and how they are stored once and read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cache
from typing import Any, Union

from sqlalchemy import ColumnElement, Double, Select, Table, Text, bindparam, select, type_coerce
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, RowMapping

from lrbench_caffe.database import schema
from lrbench_caffe.database.checks import PARTS
from lrbench_caffe.database.errors import RecordError
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.records import Contribution, RunRecord, Start, Task, digest

MEASURED = [f.name for f in fields(Measurement)]  # their last column, the outputs, is JSON
# The fields of a run that are its own, not those of a part or of its start.
OWN = [f.name for f in fields(RunRecord) if f.name in schema.run.c]

START_COLUMNS = tuple(f"start_{f.name}" for f in fields(Start))
_SENT = ("contributor", "note", "link", "sent")  # columns of a batch, beside its uid

UNKNOWN = "run "  # begins the key of a start that is not known
UNKNOWN_KEYS = f"{UNKNOWN}%"

ATTEMPTS = 100  # to make a row that others delete

Ids = dict[str, int]
Known = dict[tuple[str, str], int]
AnyRow = Union[RowMapping, dict[str, Any]]


class LostRow(Exception):
    """A row that exists when it is inserted but is not found: an index is broken."""


def insert(dialect: str, table: Table) -> Any:
    """INSERT of a dialect: PostgreSQL and SQLite both have ON CONFLICT, standard SQL has not."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


@cache  # putting statements together takes longer than executing them
def insert_new(dialect: str, table: Table, unique: str) -> Any:
    """INSERT of a row unless there is one with this value of a unique column."""
    return insert(dialect, table).on_conflict_do_nothing(index_elements=[unique])


def task_key(task: Task) -> str:
    """The key of a task: equal for tasks that are one row of the database.

    The kind of task; the data set by its digest and form, or, if the data was not available, by
    name and form; the network by its digest; the framework by its name. Its version and device are
    not part of it: they change the time that a training takes, not what its LR policy is worth, and
    experience from the CPU or an older Caffe is to count. Every run keeps its own framework all the
    same. Which stored tasks are looked at together is another question:
    ``knowledge.similarity.comparable``.
    """
    form = {k: v for k, v in asdict(task.dataset).items() if k not in ("name", "digest")}
    data = task.dataset.digest or task.dataset.name.lower()
    known = task.dataset.digest is not None
    return digest(
        [task.task_type, [known, data, form], task.network.digest, task.framework.name.lower()]
    )


def start_key(start: Start, uid: str = "") -> str:
    """The key of a start: equal for the same start; an unknown start has the run's own key.

    Args:
        uid: the run's; without it, the key of a start that is not known is that of no run.
    """
    if start.kind == "scratch":
        return "scratch"
    if not start.known:
        return f"{UNKNOWN}{uid}"
    return digest([start.kind, start.digest, start.filled, start.layers, start.iteration])


def start_values(start: Start, uid: str) -> dict[str, Any]:
    """The columns of a run's start."""
    columns = {f"start_{name}": value for name, value in asdict(start).items()}
    return {**columns, "start_key": start_key(start, uid)}


def store_contribution(connection: Connection, sent: Contribution) -> int:
    """The number of a contribution's batch, which is created if missing.

    Raises:
        RecordError: a batch of this uid is there with other content.
    """
    table = schema.batch
    values = {"uid": sent.batch, **{name: getattr(sent, name) for name in _SENT}}
    find = select(table).where(table.c.uid == sent.batch)
    for _ in range(ATTEMPTS):
        stored = connection.execute(find).mappings().first()
        if stored is None:
            connection.execute(insert_new(connection.dialect.name, table, "uid"), values)
            continue
        other = [name for name in _SENT if stored[name] != values[name]]
        if other:
            raise RecordError(
                f"contribution.batch: {sent.batch!r} is another one in the database: "
                f"its {other[0]} differs"
            )
        return int(stored["id"])
    raise LostRow("batch: an existing row was not found")


def contribution_from_row(row: RowMapping) -> Contribution | None:
    """The contribution of a row of ``select_runs``."""
    if row["batch__uid"] is None:
        return None
    return Contribution(row["batch__uid"], **{name: row[f"batch__{name}"] for name in _SENT})


def start_from_row(row: AnyRow) -> Start:
    """The start that a row of a run or summary has."""
    return Start(*(row[name] for name in START_COLUMNS))


def store_parts(connection: Connection, record: RunRecord, known: Known) -> Ids:
    """The ids of a record's parts, its task among them, which are created if missing.

    Args:
        known: what this transaction has looked up already.
    """
    ids = {
        name: _store(connection, schema.metadata.tables[name], asdict(getattr(record, name)), known)
        for name in sorted(PARTS)
    }
    kind = {"name": record.task_type, "classes": record.dataset.classes}
    ids["task_type"] = _store(connection, schema.task_type, kind, known)
    task = Task(record.framework, record.task_type, record.dataset, record.network)
    references = {
        f"{name}_id": ids[name] for name in ("task_type", "framework", "dataset", "network")
    }
    ids["task"] = _store(connection, schema.task, references, known, key=task_key(task))
    return ids


def _store(
    connection: Connection,
    table: Table,
    values: Mapping[str, Any],
    known: Known,
    key: str | None = None,
) -> int:
    key = key or digest(values)
    if (table.name, key) not in known:
        find, make = _find_by_key(table), insert_new(connection.dialect.name, table, "key")
        # Another process may insert the same row right now, or delete it: repeat until it exists.
        for _ in range(ATTEMPTS):
            if (row_id := connection.execute(find, {"wanted": key}).scalar()) is not None:
                known[table.name, key] = row_id
                return int(row_id)
            connection.execute(make, {"key": key, **values})
        raise LostRow(f"{table.name}: an existing row was not found")
    return known[table.name, key]


@cache
def _find_by_key(table: Table) -> Select[Any]:
    return select(table.c.id).where(table.c.key == bindparam("wanted"))


def part_columns(*names: str) -> list[ColumnElement[Any]]:
    """The columns of parts, labelled so that ``part`` finds them in a joined row."""
    return [
        schema.metadata.tables[name].c[column].label(f"{name}__{column}")
        for name in names
        for column in part_fields(name)
    ]


@cache
def part_fields(name: str) -> tuple[str, ...]:
    """The columns that are a part's own."""
    return tuple(f.name for f in fields(PARTS[name]))


def part(row: AnyRow, name: str) -> Any:
    """A part, from a row that has its columns."""
    return PARTS[name](*(row[f"{name}__{column}"] for column in part_fields(name)))


def select_runs() -> Select[Any]:
    """Runs with all of their parts."""
    run, task = schema.run, schema.task
    joined = run.join(task, run.c.task_id == task.c.id).join(
        schema.task_type, task.c.task_type_id == schema.task_type.c.id
    )
    for name in sorted(PARTS):
        table = schema.metadata.tables[name]
        joined = joined.join(table, run.c[f"{name}_id"] == table.c.id)
    batch = schema.batch
    joined = joined.outerjoin(batch, run.c.batch_id == batch.c.id)
    kind = schema.task_type.c.name.label("task_type")
    # Without the checks of their columns: NULL for a run that was not uploaded.
    sent = [
        type_coerce(batch.c[name], Double if name == "sent" else Text).label(f"batch__{name}")
        for name in ("uid", *_SENT)
    ]
    return select(run, kind, *part_columns(*sorted(PARTS)), *sent).select_from(joined)


def run_from_row(row: RowMapping, measurements: list[Measurement]) -> RunRecord:
    """The record of a row of ``select_runs``."""
    parts: dict[str, Any] = {name: part(row, name) for name in PARTS}
    own = {name: row[name] for name in OWN}
    return RunRecord(
        **own,
        **parts,
        start=start_from_row(row),
        contribution=contribution_from_row(row),
        task_type=row["task_type"],
        measurements=measurements,
    )


def read_measurements(connection: Connection, run_ids: list[int]) -> dict[int, list[Measurement]]:
    """The measurements of each run, by iteration and net."""
    table = schema.measurement
    by_run: dict[int, list[Measurement]] = {run_id: [] for run_id in run_ids}
    query = select(table.c.run_id, *(table.c[name] for name in MEASURED)).where(
        table.c.run_id.in_(run_ids)
    )
    for row in connection.execute(query.order_by(table.c.run_id, table.c.iteration, table.c.net)):
        run_id, *values = row
        values[-1] = values[-1] or {}
        by_run[run_id].append(Measurement(*values))
    return by_run
