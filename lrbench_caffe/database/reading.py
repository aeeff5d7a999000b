"""Queries for whole runs and tasks."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.engine import Connection, RowMapping

from lrbench_caffe.database import schema
from lrbench_caffe.database.rows import (
    part,
    part_columns,
    read_measurements,
    run_from_row,
    select_runs,
)
from lrbench_caffe.records import RunRecord, Task


def read_page(
    connection: Connection, query: Select[Any], measurements: bool
) -> list[tuple[int, RunRecord]]:
    """The runs whose numbers a query gives, in its order, each with its number.

    Args:
        measurements: True to read their measurements too.
    """
    ids = connection.execute(query).scalars().all()
    if not ids:
        return []
    if connection.dialect.name == "postgresql":
        # Runs by their numbers come first in the query: to look for a better order of its nine
        # tables takes PostgreSQL far longer than the query itself.
        connection.exec_driver_sql("SET LOCAL join_collapse_limit = 1")
    whole = select_runs().where(schema.run.c.id.in_(ids))
    rows = {row["id"]: row for row in connection.execute(whole).mappings()}
    measured = read_measurements(connection, list(ids)) if measurements else {}
    return [(number, run_from_row(rows[number], measured.get(number, []))) for number in ids]


def select_some(
    *,
    task_id: int | None = None,
    function: str | None = None,
    policy: str | None = None,
    status: str | None = None,
    source: str | None = None,
    contributor: str | None = None,
) -> Select[Any]:
    """The numbers of the runs that fit what is given."""
    run, policies, batch = schema.run, schema.policy, schema.batch
    query = select(run.c.id)
    if function is not None or policy is not None:
        query = query.join(policies, run.c.policy_id == policies.c.id)
    if contributor is not None:
        query = query.join(batch, run.c.batch_id == batch.c.id)
    for column, value in (
        (run.c.task_id, task_id),
        (run.c.status, status),
        (run.c.source, source),
        (policies.c.function, function and function.upper()),
        (policies.c.text, policy),
        (batch.c.contributor, contributor),
    ):
        if value is not None:
            query = query.where(column == value)
    return query


def select_tasks() -> Select[Any]:
    """All tasks, by id."""
    task = schema.task
    joined = task.join(schema.task_type, schema.task_type.c.id == task.c.task_type_id)
    names = ("framework", "dataset", "network")
    for name in names:
        table = schema.metadata.tables[name]
        joined = joined.join(table, table.c.id == task.c[f"{name}_id"])
    kind = schema.task_type.c.name.label("task_type")
    return select(task.c.id, kind, *part_columns(*names)).select_from(joined).order_by(task.c.id)


def task_from_row(row: RowMapping) -> Task:
    """A task from a row of ``select_tasks``."""
    parts = {name: part(row, name) for name in ("framework", "dataset", "network")}
    return Task(**parts, task_type=row["task_type"], id=row["id"])
