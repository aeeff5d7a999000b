"""The writes of one transaction. Everything here is idempotent."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from sqlalchemy import Select, and_, bindparam, delete, exists, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Connection, RowMapping

from lrbench_caffe.database import schema, stamps
from lrbench_caffe.database.completing import completed, differing
from lrbench_caffe.database.errors import ConflictError, RecordError, UnknownRun
from lrbench_caffe.database.rows import (
    ATTEMPTS,
    MEASURED,
    OWN,
    AnyRow,
    Ids,
    Known,
    LostRow,
    insert_new,
    read_measurements,
    run_from_row,
    select_runs,
    start_from_row,
    start_values,
    store_contribution,
    store_parts,
)
from lrbench_caffe.database.summaries import RunGroup, refresh
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.records import NotShown, RunRecord, Start

# A resumed run may be given another length, on another machine with another Caffe; the rest is what
# it is.
_FIXED = ("task_id", "policy_id", "solver_id", "source", "seed")
_RESULTS = ("status", "max_iter", "repeats", "top1_sd")  # as it ended
_KNOWN = ("test_interval", "layers", "head")  # the same, where they are known
_FILLED = ("epoch", "layers", "head")  # what older versions did not record
_PARTS = ("task", "framework", "dataset", "network", "policy", "solver")
_CHUNK = 1000  # rows in one statement


def begin(connection: Connection, record: RunRecord) -> None:
    """Store a run that begins, or one that continues."""
    values = _run_values(connection, record, {})
    made, stored = _claim(connection, values)
    _check_same(stored, values)
    _settle(stored, values)
    connection.execute(update(schema.run).where(schema.run.c.id == stored["id"]).values(**values))
    _remove_beyond_end(connection, stored["id"], record.max_iter)
    _write_measurements(
        connection, [(stored["id"], m) for m in record.measurements], overwrite=True
    )
    if not made:
        refresh(
            connection, {_group(stored), _group(values)}
        )  # it counted there, and no longer does
    stamps.renew(connection, {stored["task_id"], values["task_id"]})


def add(connection: Connection, uid: str, measurements: Sequence[Measurement]) -> None:
    """Store measurements of a run; one of the same iteration and net is replaced.

    Raises:
        UnknownRun: no such run is stored.
    """
    run = schema.run
    names = ("id", "status", *RunGroup._fields)
    stored = (
        connection.execute(select(*(run.c[n] for n in names)).where(run.c.uid == uid))
        .mappings()
        .first()
    )
    if stored is None:
        raise UnknownRun(f"the database has no run {uid!r}")
    _write_measurements(connection, [(stored["id"], m) for m in measurements], overwrite=True)
    if stored["status"] != "running":
        refresh(connection, {_group(stored)}, [stored["id"]])
        stamps.renew(connection, [stored["task_id"]])


def end(connection: Connection, uid: str, status: str, reason: str | None, ended: float) -> None:
    """Store how a run ended, and its group's new summary.

    Raises:
        UnknownRun: no such run is stored.
    """
    stored = _find(connection, uid)
    if stored is None:
        raise UnknownRun(f"the database has no run {uid!r}")
    change = update(schema.run).where(schema.run.c.id == stored["id"])
    connection.execute(change.values(status=status, reason=reason, ended=ended))
    refresh(connection, {_group(stored)}, [stored["id"]])
    stamps.renew(connection, [stored["task_id"]])


def put(
    connection: Connection,
    records: Sequence[RunRecord],
    contributor: str | None = None,
    not_shown: Mapping[str, NotShown] | None = None,
) -> list[bool]:
    """Store whole records.

    Args:
        contributor: whose they are, who may change no run of others; None for one who may change any.
        not_shown: by uid, the standing of a run that is new or changes and is not to count.

    Returns:
        For each whether anything of it was new.

    Raises:
        RecordError: another run has the uid of one of them, or a run of others would be changed.
        ConflictError: one of them is there with other content.
    """
    pending = _Pending(contributor, not_shown or {})
    new = [_put(connection, record, pending) for record in records]
    for overwrite, measurements in pending.measurements.items():
        _write_measurements(connection, measurements, overwrite)
    refresh(connection, pending.groups, pending.changed)
    _remove_unused(connection, pending.replaced)
    # Of an upload all of which was there already.
    sent = {number for (table, _), number in pending.known.items() if table == "batch"}
    _remove_unless_used(connection, "batch", sent, ("run",))
    if pending.groups:
        stamps.renew(connection, {group.task_id for group in pending.groups})
    return new


@dataclass
class _Pending:
    """The work that stored records leave for the end.

    Attributes:
        contributor, not_shown: see ``put``.
        known: the ids of parts that were looked up.
        replaced: runs as they were stored and as they were sent, whose parts may be left unused.
        groups: whose summaries change; changed: the runs that are the reason.
        measurements: to be stored, with their runs' ids: those that replace others, and those that
            do not.
    """

    contributor: str | None = None
    not_shown: Mapping[str, NotShown] = field(default_factory=dict)
    known: Known = field(default_factory=dict)
    replaced: list[AnyRow] = field(default_factory=list)
    groups: set[RunGroup] = field(default_factory=set)
    changed: set[int] = field(default_factory=set)
    measurements: dict[bool, list[tuple[int, Measurement]]] = field(
        default_factory=lambda: {False: [], True: []}
    )


def _put(connection: Connection, record: RunRecord, pending: _Pending) -> bool:
    values = _run_values(connection, record, pending.known)
    fresh, stored = _claim(connection, {**values, **_standing(record.uid, pending)})
    if _parts(stored) != _parts(values):  # what is merged may need only some of both
        pending.replaced += (stored, values)
    if not fresh and record.source == stored["source"] == "imported":
        return _complete(connection, stored, record, pending)
    _check_same(stored, values)
    told = _settle(stored, values) and not fresh
    later = not fresh and _is_later(stored, values)
    same = not fresh and not later and _is_same_ending(stored, values)
    have = (
        {} if fresh else {(m.net, m.iteration): m for m in _measurements(connection, stored["id"])}
    )
    if same:
        _check_no_conflict(stored, values, have, record.measurements)
    filled = _filled(stored, values) if same else {}
    missing = [
        m
        for m in record.measurements
        if (known := have.get((m.net, m.iteration))) is None
        or (later and known != m)
        or (same and m.outputs and not known.outputs)
    ]
    if not (fresh or later or told or filled or missing):
        return False
    if not fresh:
        start = {name: values[name] for name in values if name.startswith("start_")}
        changed = values if later else {**filled, **(start if told else {})}
        _change(connection, stored, changed, pending)
    if later:
        _remove_beyond_end(connection, stored["id"], record.max_iter)
    pending.measurements[later or same] += [(stored["id"], m) for m in missing]
    pending.groups.update((_group(stored), _group(values)))
    pending.changed.add(stored["id"])
    return True


def _standing(uid: str, pending: _Pending) -> dict[str, Any]:
    """The standing of a run that is not to count."""
    standing = pending.not_shown.get(uid)
    return {} if standing is None else standing._asdict()


def _change(
    connection: Connection, stored: RowMapping, values: dict[str, Any], pending: _Pending
) -> None:
    """Change a stored run. It is not shown any more where it is doubted; a hidden one stays hidden.

    Raises:
        RecordError: it is not the contributor's.
    """
    _check_owner(connection, stored, pending.contributor)
    if stored["standing"] != "hidden":
        values = {**values, **_standing(stored["uid"], pending)}
    if values:
        row = schema.run.c.id == stored["id"]
        connection.execute(update(schema.run).where(row).values(**values))


def _check_owner(connection: Connection, stored: RowMapping, contributor: str | None) -> None:
    """Check that a contributor may change a stored run.

    Raises:
        RecordError: it is not the contributor's.
    """
    batch = schema.batch
    owner = select(batch.c.contributor).where(batch.c.id == stored["batch_id"])
    if contributor is not None and connection.execute(owner).scalar() != contributor:
        raise RecordError(
            f"uid: {stored['uid']!r} is not a run of {contributor!r}; allowed: own runs"
        )


def _complete(
    connection: Connection, stored: RowMapping, record: RunRecord, pending: _Pending
) -> bool:
    """Store what a log that is imported again adds to its run; returns whether anything was new.

    Everything may be known better this time: the task, if the data is available, and the
    policy, where the log has grown.

    Raises:
        ConflictError: it is the log of something else; what is stored stays.
    """
    row = connection.execute(select_runs().where(schema.run.c.id == stored["id"])).mappings().one()
    before = run_from_row(row, _measurements(connection, stored["id"]))
    other = differing(before, record)
    if other:
        raise ConflictError(
            f"uid: {before.uid!r} is in the database with other content: its {other} differs"
        )
    after = completed(before, record)
    values = _run_values(connection, after, pending.known)
    old = {_row(m) for m in before.measurements}
    tests = [m for m in after.measurements if _row(m) not in old]
    values["batch_id"] = stored["batch_id"]
    if not tests and all(
        stored[name] == value for name, value in values.items() if name != "origin"
    ):
        return False
    _change(connection, stored, values, pending)
    pending.measurements[True] += [(stored["id"], m) for m in tests]
    pending.groups.update((_group(stored), _group(values)))
    pending.changed.add(stored["id"])
    return True


def _row(measurement: Measurement) -> str:
    """What is stored of a measurement, to compare it with another one."""
    return repr([getattr(measurement, name) for name in MEASURED])


def _is_later(stored: RowMapping, values: dict[str, Any]) -> bool:
    """Whether the new record covers more of the run than the stored one.

    A stored run without an end may have been resumed since the record was made, with a later end.
    """
    if values["status"] == "running":
        return False
    if stored["status"] == "running":
        return bool(values["max_iter"] >= stored["max_iter"])
    return (values["ended"] or 0.0) > (stored["ended"] or 0.0)


def _is_same_ending(stored: RowMapping, values: dict[str, Any]) -> bool:
    """Whether both are of the same state of the run; one that continued may differ from an earlier one."""
    return values["status"] != "running" and bool(values["ended"] == stored["ended"])


def _filled(stored: RowMapping, values: dict[str, Any]) -> dict[str, Any]:
    """What the stored run, of an older version, lacks."""
    names = (name for name in _FILLED if stored[name] is None and values[name] is not None)
    return {name: values[name] for name in names}


def _run_values(connection: Connection, record: RunRecord, known: Known) -> dict[str, Any]:
    ids: Ids = store_parts(connection, record, known)
    return {
        **{name: getattr(record, name) for name in OWN},
        **{f"{name}_id": ids[name] for name in _PARTS},
        **start_values(record.start, record.uid),
        "batch_id": _batch(connection, record, known),
    }


def _batch(connection: Connection, record: RunRecord, known: Known) -> int | None:
    sent = record.contribution
    if sent is None:
        return None
    place = ("batch", repr(sent))
    if place not in known:
        known[place] = store_contribution(connection, sent)
    return known[place]


def _claim(connection: Connection, values: dict[str, Any]) -> tuple[bool, RowMapping]:
    """Whether the run was made now, and its row, which is this transaction's until it is over."""
    make = insert_new(connection.dialect.name, schema.run, "uid")
    for _ in range(ATTEMPTS):
        made = connection.execute(make, values).rowcount == 1
        stored = _find(connection, values["uid"])
        if stored is not None:  # else another process has just deleted it
            return made, stored
    raise LostRow("run: an existing row was not found")


def _find(connection: Connection, uid: str) -> RowMapping | None:
    """The run's row, and no other transaction changes it before this one is over."""
    return connection.execute(_find_run(), {"wanted": uid}).mappings().first()


@cache  # as ``insert_new``
def _find_run() -> Select[Any]:
    return select(schema.run).where(schema.run.c.uid == bindparam("wanted")).with_for_update()


def _parts(row: AnyRow) -> list[int]:
    return [row[f"{name}_id"] for name in _PARTS]


def _group(row: AnyRow) -> RunGroup:
    return RunGroup(*(row[name] for name in RunGroup._fields))


def _check_same(stored: RowMapping, values: dict[str, Any]) -> None:
    other = [name.removesuffix("_id") for name in _FIXED if stored[name] != values[name]]
    if other:
        raise RecordError(
            f"uid: {stored['uid']!r} is another run in the database: its {other[0]} differs"
        )


def _settle(stored: RowMapping, values: dict[str, Any]) -> bool:
    """Keep whose run it is, and the more complete of two accounts of its start.

    Returns:
        True for the new one; otherwise ``values`` is given the stored one.

    Raises:
        RecordError: both are certain, and differ.
    """
    values["batch_id"] = stored["batch_id"]
    old, new = start_from_row(stored), start_from_row(values)
    if old.known and new.known and not old.same(new):
        raise RecordError(
            f"uid: {stored['uid']!r} is another run in the database: its start differs"
        )
    if _certainty(new) > _certainty(old):
        return True
    if _certainty(new) < _certainty(old):
        values.update(start_values(old, stored["uid"]))
    return False


def _certainty(start: Start) -> int:
    return 2 if start.known else 0 if start.kind == "unknown" else 1


def _check_no_conflict(
    stored: RowMapping,
    values: dict[str, Any],
    have: dict[tuple[int, int], Measurement],
    measurements: Sequence[Measurement],
) -> None:
    """Two records of the same ending must agree in what both know.

    Seconds may differ, too: a resumed run measures again what came after its snapshot. Its directory
    keeps the first of two equal tests, the database the second one.
    """
    other = [name for name in _RESULTS if stored[name] != values[name]]
    other += [name for name in _KNOWN if len({stored[name], values[name]} - {None}) > 1]
    for m in measurements:
        known = have.get((m.net, m.iteration), m)
        if not known.outputs or not m.outputs:  # records of schema 1 have none
            known, m = replace(known, outputs={}), replace(m, outputs={})
        if replace(known, seconds=m.seconds) != m:
            other.append(f"measurement at iteration {m.iteration}")
    if other:
        raise ConflictError(
            f"uid: {stored['uid']!r} is in the database with other content: its {other[0]} differs"
        )


def _measurements(connection: Connection, run_id: int) -> list[Measurement]:
    return read_measurements(connection, [run_id])[run_id]


def _write_measurements(
    connection: Connection, measurements: Iterable[tuple[int, Measurement]], overwrite: bool
) -> None:
    """Store measurements, each given with its run's id."""
    # A statement may not meet a row twice: of two, the later one is valid.
    latest = {(run_id, m.net, m.iteration): m for run_id, m in measurements}
    rows = [measurement_row(place[0], m) for place, m in latest.items()]
    statement = _measurement_sql(connection.dialect.name, overwrite)
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        if connection.dialect.name == "postgresql":
            # One statement with an array for each column: the server plans it once, whatever it
            # brings.
            connection.exec_driver_sql(statement, tuple(map(list, zip(*chunk))))
        else:
            connection.exec_driver_sql(statement, chunk)


def _remove_beyond_end(connection: Connection, run_id: int, max_iter: int) -> None:
    """Delete the tests of a run that was longer before it was resumed."""
    measured = schema.measurement
    beyond = and_(measured.c.run_id == run_id, measured.c.iteration > max_iter)
    connection.execute(delete(measured).where(beyond))


def measurement_row(run_id: int, m: Measurement) -> tuple[Any, ...]:
    """The values of ``run_id`` and of the columns ``MEASURED``."""
    outputs = json.dumps(m.outputs, allow_nan=False) if m.outputs else None
    return (run_id, *(getattr(m, name) for name in MEASURED[:-1]), outputs)


@cache
def _measurement_sql(dialect: str, overwrite: bool) -> str:
    """INSERT of measurements, past SQLAlchemy, which takes longer to put it together than it takes to run."""
    names = ["run_id", *MEASURED]
    place = ("run_id", "net", "iteration")
    changes = ", ".join(f"{name} = excluded.{name}" for name in names if name not in place)
    conflict = f"DO UPDATE SET {changes}" if overwrite else "DO NOTHING"
    if dialect == "postgresql":
        types = [
            schema.measurement.c[name].type.compile(postgresql.dialect())  # type: ignore[no-untyped-call]
            for name in names
        ]
        values = f"SELECT * FROM unnest({', '.join(f'%s::{kind}[]' for kind in types)})"
    else:
        values = f"VALUES ({', '.join('?' * len(names))})"
    columns = ", ".join(names)
    return (
        f"INSERT INTO measurement ({columns}) {values} ON CONFLICT ({', '.join(place)}) {conflict}"
    )


# -- deleting --------------------------------------------------------------------------------------


def remove(connection: Connection, uids: Sequence[str]) -> int:
    """Delete runs with their measurements, and tasks, policies and other parts that are left unused.

    Returns:
        How many runs there were.
    """
    run = schema.run
    removed = (
        connection.execute(select(run).where(run.c.uid.in_(uids)).with_for_update())
        .mappings()
        .all()
    )
    connection.execute(delete(run).where(run.c.id.in_([row["id"] for row in removed])))
    refresh(connection, {_group(row) for row in removed})
    _remove_unused(connection, removed)
    stamps.renew(connection, {row["task_id"] for row in removed})
    return len(removed)


def _remove_unused(connection: Connection, runs: Sequence[AnyRow]) -> None:
    if not runs:
        return
    task = schema.task
    tasks = {row["task_id"] for row in runs}
    kinds = connection.execute(select(task).where(task.c.id.in_(tasks))).mappings().all()
    _remove_unless_used(connection, "task", tasks, ("run",))
    batches = {row["batch_id"] for row in runs} - {None}
    _remove_unless_used(connection, "batch", batches, ("run",))
    for name in ("policy", "solver"):
        _remove_unless_used(connection, name, {row[f"{name}_id"] for row in runs}, ("run",))
    for name in ("framework", "dataset", "network"):
        ids = {row[f"{name}_id"] for row in (*runs, *kinds)}
        _remove_unless_used(connection, name, ids, ("run", "task"))
    _remove_unless_used(connection, "task_type", {row["task_type_id"] for row in kinds}, ("task",))


def _remove_unless_used(
    connection: Connection, name: str, ids: set[int], users: tuple[str, ...]
) -> None:
    if not ids:
        return
    table = schema.metadata.tables[name]
    unused = [
        ~exists().where(schema.metadata.tables[user].c[f"{name}_id"] == table.c.id)
        for user in users
    ]
    connection.execute(delete(table).where(table.c.id.in_(sorted(ids)), and_(*unused)))
