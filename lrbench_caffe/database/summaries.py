"""The answers that ranking reads: one row for each group of runs, recomputed whenever one of them ends.

A group is what may be averaged: the same task, policy, source, length, start and other solver
settings. Runs of a group with the same seed and layers are one training, made again, and count
once. Reading the best policies of a task then costs what the answer has rows, however many runs
there are.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    Text,
    and_,
    bindparam,
    exists,
    false,
    func,
    not_,
    or_,
    select,
    text,
    type_coerce,
    update,
)
from sqlalchemy.engine import Connection, RowMapping

from lrbench_caffe.database import schema
from lrbench_caffe.database.rows import (
    START_COLUMNS,
    UNKNOWN_KEYS,
    AnyRow,
    insert,
    part,
    part_columns,
    start_from_row,
    start_key,
)
from lrbench_caffe.errors import InputError
from lrbench_caffe.metrics import RANKED
from lrbench_caffe.records import OWN, PAPER, PolicySummary, Spread, Start

COUNTED = ("finished", "diverged", "failed")
_CHUNK = 1000  # rows in one statement
ORDERS = (*schema.SPREADS, "num_params")


class RunGroup(NamedTuple):
    """The key of runs that may be averaged."""

    task_id: int
    policy_id: int
    source: str
    max_iter: int
    solver_id: int
    start_key: str


@dataclass(frozen=True)
class Sample:
    """One value of a group: a training's, or the mean of several.

    Attributes:
        mean: the value.
        trainings: how many it is the mean of.
        sd: their population standard deviation; None where unknown.
    """

    mean: float
    trainings: int = 1
    sd: float | None = None


def pooled(samples: Sequence[Sample]) -> Spread | None:
    """Mean and population standard deviation over all trainings behind the samples.

    mean = sum(n_i m_i) / sum(n_i), variance = sum(n_i (sd_i^2 + (m_i - mean)^2)) / sum(n_i). The
    deviation is None for a single training, and where that within a sample of several is unknown.
    """
    if not samples:
        return None
    total = sum(s.trainings for s in samples)
    mean = math.fsum(s.trainings * s.mean for s in samples) / total
    within = [0.0 if s.trainings == 1 else s.sd for s in samples]
    if total == 1 or any(sd is None for sd in within):
        return Spread(mean, None, total)
    variance = math.fsum(
        s.trainings * ((sd or 0.0) ** 2 + (s.mean - mean) ** 2) for s, sd in zip(samples, within)
    )
    return Spread(mean, math.sqrt(variance / total), total)


# -- writing ---------------------------------------------------------------------------------------


def refresh(
    connection: Connection, groups: Iterable[RunGroup], run_ids: Iterable[int] = ()
) -> None:
    """Recompute the summaries of groups from their runs, in the connection's transaction.

    Args:
        run_ids: runs of them whose measurements have changed. Only rows that this transaction holds
            already may be written to: those who hold others wait for the group, and would be waited
            for.
    """
    _refresh_best(connection, run_ids)
    for group in sorted(set(groups)):
        _lock(connection, group)
        _refresh(connection, group)


def _lock(connection: Connection, group: RunGroup) -> None:
    """Let transactions that end runs of one group take turns: each must see the runs that ended before."""
    if connection.dialect.name == "postgresql":
        key = int.from_bytes(
            hashlib.sha256(repr(tuple(group)).encode()).digest()[:8], "big", signed=True
        )
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})


def _in(group: RunGroup, table: Any) -> Any:
    return and_(*(table.c[name] == value for name, value in group._asdict().items()))


def rebuild(connection: Connection) -> None:
    """Recompute all summaries, after a migration; the connection's transaction is the only one."""
    connection.execute(schema.summary.delete())
    rows = ({**group._asdict(), **values} for group, values in computed(connection))
    while chunk := list(islice(rows, _CHUNK)):
        connection.execute(schema.summary.insert(), chunk)


def computed(connection: Connection) -> Iterator[tuple[RunGroup, dict[str, Any]]]:
    """The values of each group's summary, computed from its runs."""
    run = schema.run
    tasks = (
        connection.execute(select(run.c.task_id).distinct().order_by(run.c.task_id)).scalars().all()
    )
    for task_id in tasks:
        for group, counted in _by_group(connection, _counted_runs(run.c.task_id == task_id)):
            yield group, _summarise(counted)


def _by_group(
    connection: Connection, query: Select[Any]
) -> Iterable[tuple[RunGroup, list[RowMapping]]]:
    """The rows of a query that has the columns of ``RunGroup``, by group."""
    groups: dict[RunGroup, list[RowMapping]] = {}
    for row in connection.execute(query).mappings():
        groups.setdefault(_group(row), []).append(row)
    return groups.items()


def _group(row: AnyRow) -> RunGroup:
    return RunGroup(*(row[name] for name in RunGroup._fields))


def _refresh_best(connection: Connection, run_ids: Iterable[int]) -> None:
    run, measured = schema.run, schema.measurement

    def of_first_net(value: Any) -> Any:
        return (
            select(value)
            .where(measured.c.run_id == run.c.id, measured.c.net == 0)
            .scalar_subquery()
        )

    ids = sorted(run_ids)
    if ids:
        best = {
            "best_top1": of_first_net(func.max(measured.c.top1)),
            "best_loss": of_first_net(func.min(measured.c.test_loss)),
        }
        connection.execute(update(run).where(run.c.id.in_(ids)).values(**best))


def _refresh(connection: Connection, group: RunGroup) -> None:
    key = group._asdict()
    counted = connection.execute(_counted_in_group(), key).mappings().all()
    if not counted:
        table = schema.summary
        connection.execute(table.delete().where(_in(group, table)))
        return
    values = _summarise(counted)
    connection.execute(_replace(connection.dialect.name, tuple(values)), {**key, **values})


@cache  # putting it together takes longer than executing it
def _counted_in_group() -> Select[Any]:
    """``_counted_runs`` of a group, whose key is to be bound."""
    return _counted_runs(
        and_(*(schema.run.c[name] == bindparam(name) for name in RunGroup._fields))
    )


@cache
def _replace(dialect: str, names: tuple[str, ...]) -> Any:
    """INSERT of a group's summary with these columns, or UPDATE where there is one."""
    statement = insert(dialect, schema.summary)
    return statement.on_conflict_do_update(
        index_elements=list(RunGroup._fields),
        set_={name: statement.excluded[name] for name in names},
    )


def _summarise(counted: Sequence[RowMapping]) -> dict[str, Any]:
    """The row of a group, without its identity, out of the rows of ``_counted_runs``."""
    runs = _trainings(counted)
    finished = [row for row in runs if row["status"] == "finished"]
    newest = max(finished or runs, key=lambda row: (row["started"] or 0.0, row["id"]))
    values = {
        "function": newest["function"],
        "epoch": newest["epoch"],
        "origin": _origin(newest, finished),
        "runs": len(finished),
        "repeats": sum(row["repeats"] for row in finished),
        "failed": sum(row["status"] == "failed" for row in runs),
        "diverged": sum(row["status"] == "diverged" for row in runs),
        **{name: newest[name] for name in START_COLUMNS},
    }
    for name in schema.SPREADS:
        spread = _pooled_column(name, finished)
        values[name] = spread and spread.mean
        values[f"{name}_sd"] = spread and spread.sd
        values[f"{name}_n"] = spread and spread.n
    values["outputs"] = _pooled_outputs(finished) or None
    return values


def _trainings(rows: Sequence[RowMapping]) -> list[RowMapping]:
    """One row for each training, out of rows by run and iteration.

    For a run it is the first of its best measurements. Of runs that are the same training made
    again, it is the first that finished, else the first that diverged, else the first that failed.
    """
    runs: dict[int, RowMapping] = {}
    for row in rows:
        runs.setdefault(row["id"], row)
    trainings: dict[Any, RowMapping] = {}
    for row in sorted(runs.values(), key=lambda row: COUNTED.index(row["status"])):
        trainings.setdefault(_same_training(row), row)
    return sorted(trainings.values(), key=lambda row: row["id"])


def _same_training(row: RowMapping) -> tuple[Any, ...]:
    """What the runs of one training agree in; a run without a seed is a training of its own."""
    return ("run", row["id"]) if row["seed"] is None else ("seed", row["seed"], row["layers"])


def _pooled_column(name: str, rows: Iterable[RowMapping]) -> Spread | None:
    return pooled(
        [
            Sample(row[name], row["repeats"], row["top1_sd"] if name == "top1" else None)
            for row in rows
            if row[name] is not None
        ]
    )


def _pooled_outputs(rows: Sequence[RowMapping]) -> dict[str, list[float | int | None]]:
    """Mean, deviation and number of trainings of each output of the test net, by name."""
    names = dict.fromkeys(name for row in rows for name in row["outputs"] or ())
    spreads = {
        name: pooled(
            [
                Sample(row["outputs"][name], row["repeats"])
                for row in rows
                if row["outputs"] and name in row["outputs"]
            ]
        )
        for name in names
    }
    return {name: [spread.mean, spread.sd, spread.n] for name, spread in spreads.items() if spread}


def _origin(newest: RowMapping, finished: Iterable[RowMapping]) -> str:
    """The newest run's origin; of the paper's runs, which have no time, all origins."""
    origins = {row["origin"]: None for row in finished if row["source"] == "paper"}
    return "; ".join(origins) or newest["origin"]


def _counted_runs(condition: ColumnElement[bool]) -> Select[Any]:
    """The runs that meet a condition and may count, each with its best measurements, first ones first.

    Those are at the highest Top-1 or, in a run without Top-1, at the lowest test loss; in one with
    neither, at the last test that has outputs (see ``metrics.best``).
    """
    run, measured, policy = schema.run, schema.measurement, schema.policy
    own = ("id", "status", "seed", "layers", "repeats", "top1_sd", "started", "epoch", "origin")
    names = dict.fromkeys((*own, *RunGroup._fields, *START_COLUMNS))
    lowest = and_(run.c.best_top1.is_(None), measured.c.test_loss == run.c.best_loss)
    others = schema.measurement.alias()
    last = select(func.max(others.c.iteration)).where(
        others.c.run_id == run.c.id, others.c.net == 0, others.c.outputs.is_not(None)
    )
    outputs_only = and_(
        run.c.best_top1.is_(None),
        run.c.best_loss.is_(None),
        measured.c.iteration == last.scalar_subquery(),
    )
    at_best = and_(
        measured.c.run_id == run.c.id,
        measured.c.net == 0,
        or_(measured.c.top1 == run.c.best_top1, lowest, outputs_only),
    )
    return (
        select(
            *(run.c[name] for name in names),
            policy.c.function,
            type_coerce(measured.c.iteration, BigInteger).label(
                "iterations"
            ),  # NULL without a test
            *(measured.c[name] for name in (*RANKED, "outputs")),
        )
        .select_from(run.join(policy, policy.c.id == run.c.policy_id).outerjoin(measured, at_best))
        .where(condition, _counts())
        .order_by(run.c.id, measured.c.iteration)
    )


def tried_by(contributors: Sequence[str]) -> ColumnElement[bool]:
    """Whether a task has runs of these contributors that count."""
    run = schema.run
    return exists().where(run.c.task_id == schema.task.c.id, _counts(), _from(contributors))


def _counts() -> ColumnElement[bool]:
    """Whether a run may count at all."""
    return and_(schema.run.c.status.in_(COUNTED), schema.run.c.standing == "shown")


# -- reading ---------------------------------------------------------------------------------------


def read(
    connection: Connection,
    task_id: int,
    *,
    functions: Sequence[str] | None,
    sources: Sequence[str] | None,
    start: Start | None = None,
    order_by: str,
    limit: int | None,
    unfinished: bool = False,
    contributors: Sequence[str] | None = None,
) -> list[PolicySummary]:
    """See ``Database.summaries``."""
    if order_by not in ORDERS:
        raise InputError(f"order_by: {order_by!r}; allowed: {', '.join(ORDERS)}")
    wanted = [None] if functions is None else sorted({name.upper() for name in functions})
    # A query for each function: an index keeps one function's policies in order, not those of
    # several.
    best = [_best(task_id, name, sources, start, order_by) for name in wanted]
    shared: list[AnyRow] = []
    if contributors is not None:
        tried, mixed = _tried_by(connection, task_id, contributors)
        if mixed:
            shared = _of_contributors(connection, best, mixed, contributors)
        best = [query.where(tried, schema.summary.c.id.not_in(mixed)) for query in best]
    if unfinished:  # by Top-1 for the index
        table = schema.summary
        best = [query.where(table.c.top1.is_(None), table.c.runs == 0) for query in best]
        shared = [row for row in shared if row["top1"] is None and row["runs"] == 0]
    rows: list[AnyRow] = [
        row for query in best for row in connection.execute(query.limit(limit)).mappings()
    ]
    rows += shared
    if len(wanted) > 1 or shared:
        rows.sort(key=lambda row: _place(row, order_by))
    return [_summary(row) for row in rows[:limit]]


def _tried_by(
    connection: Connection, task_id: int, contributors: Sequence[str]
) -> tuple[ColumnElement[bool], list[int]]:
    """Whether a summary is of these contributors' runs, and the numbers of those that are of others', too."""
    run, table = schema.run, schema.summary
    theirs = _from(contributors)
    same = [run.c[name] == table.c[name] for name in RunGroup._fields]
    tried = exists().where(*same, _counts(), theirs)
    # Where there is no batch, SQL does not know whether it is theirs.
    others = exists().where(*same, _counts(), not_(func.coalesce(theirs, false())))
    shared = select(table.c.id).where(table.c.task_id == task_id, tried, others)
    return tried, list(connection.execute(shared).scalars())


def _of_contributors(
    connection: Connection,
    queries: Sequence[Select[Any]],
    mixed: Sequence[int],
    contributors: Sequence[str],
) -> list[AnyRow]:
    """The rows of some summaries, each by the runs of these contributors alone.

    Args:
        mixed: the summaries' numbers.
    """
    run, table = schema.run, schema.summary
    same = [run.c[name] == table.c[name] for name in RunGroup._fields]
    chosen = table.c.id.in_(mixed)
    theirs = _counted_runs(and_(exists().where(*same, chosen), _from(contributors)))
    values = {group: _summarise(counted) for group, counted in _by_group(connection, theirs)}
    return [
        {**{str(name): value for name, value in row.items()}, **values[_group(row)]}
        for query in queries
        for row in connection.execute(query.where(chosen)).mappings()
    ]


def _from(contributors: Sequence[str]) -> ColumnElement[bool]:
    """Whether a run is from one of these contributors (see ``Database.contributors``)."""
    run, batch = schema.run, schema.batch
    batches = select(batch.c.id).where(batch.c.contributor.in_(contributors))
    named = [run.c.batch_id.in_(batches)]
    if OWN in contributors:
        named.append(run.c.batch_id.is_(None))
    theirs = and_(run.c.source != PAPER, or_(*named))
    return or_(run.c.source == PAPER, theirs) if PAPER in contributors else theirs


def _best(
    task_id: int,
    function: str | None,
    sources: Sequence[str] | None,
    start: Start | None,
    order_by: str,
) -> Select[Any]:
    table, policy, solver = schema.summary, schema.policy, schema.solver
    column = policy.c.num_params if order_by == "num_params" else table.c[order_by]
    order = column.desc() if order_by in schema.DESCENDING else column.asc()
    query = (
        select(table, *part_columns("policy", "solver"))
        .select_from(
            table.join(policy, policy.c.id == table.c.policy_id).join(
                solver, solver.c.id == table.c.solver_id
            )
        )
        .where(table.c.task_id == task_id)
        .order_by(order.nulls_last(), table.c.id)
    )
    if function is not None:
        query = query.where(table.c.function == function)
    if start is not None:
        same = table.c.start_key == start_key(start)
        query = query.where(same if start.known else table.c.start_key.like(UNKNOWN_KEYS))
    return query if sources is None else query.where(table.c.source.in_(sources))


def _place(row: AnyRow, order_by: str) -> tuple[bool, float, int]:
    value = row["policy__num_params" if order_by == "num_params" else order_by]
    sign = -1 if order_by in schema.DESCENDING else 1
    return value is None, sign * (value or 0.0), row["id"]


def _summary(row: AnyRow) -> PolicySummary:
    values: dict[str, Any] = {
        name: None if row[name] is None else Spread(row[name], row[f"{name}_sd"], row[f"{name}_n"])
        for name in schema.SPREADS
    }
    values.update({name: row[name] for name in ("runs", "repeats", "failed", "diverged")})
    values.update(
        {name: row[name] for name in ("id", "task_id", "source", "max_iter", "epoch", "origin")}
    )
    outputs = {name: Spread(*spread) for name, spread in (row["outputs"] or {}).items()}
    return PolicySummary(
        **values,
        policy=part(row, "policy"),
        solver=part(row, "solver"),
        start=start_from_row(row),
        outputs=outputs,
    )


@dataclass(frozen=True)
class Reached:
    """When the trainings of a group reached a Top-1 or a test loss.

    Attributes:
        iterations: mean over those that did, of the first test at which they had.
        runs: how many did; of: how many finished.
    """

    iterations: float
    runs: int
    of: int


def iterations_to_top1(
    connection: Connection, task_id: int, top1: float, summary_ids: Sequence[int] | None
) -> dict[int, Reached]:
    """See ``Database.iterations_to_top1``."""
    # best_top1 is in an index: runs that never came near are not even looked at.
    reached = schema.measurement.c.top1 >= top1, schema.run.c.best_top1 >= top1
    return _iterations_to(connection, task_id, *reached, summary_ids)


def iterations_to_loss(
    connection: Connection, task_id: int, loss: float, summary_ids: Sequence[int] | None
) -> dict[int, Reached]:
    """See ``Database.iterations_to_loss``."""
    reached = schema.measurement.c.test_loss <= loss, schema.run.c.best_loss <= loss
    return _iterations_to(connection, task_id, *reached, summary_ids)


def _iterations_to(
    connection: Connection,
    task_id: int,
    test_reached: ColumnElement[bool],
    run_reached: ColumnElement[bool],
    summary_ids: Sequence[int] | None,
) -> dict[int, Reached]:
    table, run, measured = schema.summary, schema.run, schema.measurement
    first = (
        select(func.min(measured.c.iteration))
        .where(measured.c.run_id == run.c.id, measured.c.net == 0, test_reached)
        .scalar_subquery()
    )
    same_group = and_(*(run.c[name] == table.c[name] for name in RunGroup._fields))
    query = (
        select(table.c.id, table.c.runs, first)
        .select_from(table.join(run, same_group))
        .where(table.c.task_id == task_id, run.c.task_id == task_id)
        .where(run.c.status == "finished", run.c.standing == "shown", run_reached, ~_made_again())
    )
    if summary_ids is not None:
        query = query.where(table.c.id.in_(summary_ids))
    reached: dict[int, list[Any]] = {}  # rows by summary
    for row in connection.execute(query):
        reached.setdefault(row[0], []).append(row)
    return {
        summary_id: Reached(sum(row[2] for row in rows) / len(rows), len(rows), rows[0][1])
        for summary_id, rows in reached.items()
    }


def untrained(
    connection: Connection,
    task_id: int,
    start: Start,
    metric: str,
    contributors: Sequence[str] | None = None,
) -> float | None:
    """The mean of a metric before the first update: see ``Database.untrained_loss``."""
    run, measured = schema.run, schema.measurement
    query = (
        select(func.avg(measured.c[metric]))
        .select_from(run.join(measured, measured.c.run_id == run.c.id))
        .where(run.c.task_id == task_id, measured.c.net == 0)
        .where(measured.c.iteration == func.coalesce(run.c.start_iteration, 0))
        .where(run.c.start_key == start_key(start), run.c.standing == "shown")
    )
    if contributors is not None:
        query = query.where(_from(contributors))
    value: float | None = connection.execute(query).scalar()
    return value


def _made_again() -> ColumnElement[bool]:
    """Whether an earlier run of the group that finished is the same training (see ``_same_training``)."""
    run, other = schema.run, schema.run.alias("earlier")
    return exists().where(
        *(other.c[name] == run.c[name] for name in RunGroup._fields),
        other.c.status == "finished",
        other.c.standing == "shown",
        other.c.seed == run.c.seed,
        other.c.layers.is_not_distinct_from(run.c.layers),
        other.c.id < run.c.id,
    )


def starts(
    connection: Connection, task_id: int, contributors: Sequence[str] | None = None
) -> list[Start]:
    """See ``Database.starts``."""
    table = schema.summary if contributors is None else schema.run
    query = (
        select(*(table.c[name] for name in START_COLUMNS))
        .where(table.c.task_id == task_id)
        .distinct()
    )
    if contributors is not None:
        query = query.where(_counts(), _from(contributors))
    begun = map(start_from_row, connection.execute(query).mappings())
    return list(dict.fromkeys(begun))  # the same files under other names are one start


def contributors(connection: Connection) -> list[str]:
    """See ``Database.contributors``."""
    name = schema.batch.c.contributor
    return list(connection.execute(select(name).distinct().order_by(name)).scalars())


def contributions(
    connection: Connection, summary_ids: Sequence[int], among: Sequence[str] | None
) -> dict[int, dict[str, int]]:
    """See ``Database.contributions``."""
    table, run, batch = schema.summary, schema.run, schema.batch
    if not connection.execute(select(exists().select_from(batch))).scalar():
        return {}  # nothing was ever uploaded: the runs need not be looked at
    same_group = and_(*(run.c[name] == table.c[name] for name in RunGroup._fields))
    own = ("id", "status", "seed", "layers")
    query = (
        select(
            table.c.id.label("summary"),
            *(run.c[name] for name in (*own, *RunGroup._fields)),
            type_coerce(batch.c.contributor, Text).label("contributor"),  # NULL for an own run
        )
        .select_from(table.join(run, same_group).outerjoin(batch, batch.c.id == run.c.batch_id))
        .where(table.c.id.in_(summary_ids), _counts())
        .order_by(run.c.id)
    )
    if among is not None:
        query = query.where(_from(among))
    counted: dict[int, Counter[str]] = {}
    for _, rows in _by_group(connection, query):
        trainings = _trainings(rows)
        finished = [row for row in trainings if row["status"] == "finished"]
        told = finished or [row for row in trainings if row["status"] == "diverged"]
        names = Counter(row["contributor"] for row in told if row["contributor"] is not None)
        if names:
            counted[rows[0]["summary"]] = names
    return {summary_id: dict(names) for summary_id, names in counted.items()}
