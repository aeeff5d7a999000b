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
    """The runs of a query, each with its number; with their measurements where these are asked for."""
    rows = connection.execute(query).mappings().all()
    ids = [row["id"] for row in rows]
    measured = read_measurements(connection, ids) if measurements and ids else {}
    return [(row["id"], run_from_row(row, measured.get(row["id"], []))) for row in rows]


def select_some(
    *,
    task_id: int | None = None,
    function: str | None = None,
    status: str | None = None,
    source: str | None = None,
    contributor: str | None = None,
) -> Select[Any]:
    """Runs with all of their parts, those that fit what is given."""
    run = schema.run
    query = select_runs()
    for column, value in (
        (run.c.task_id, task_id),
        (run.c.status, status),
        (run.c.source, source),
        (schema.policy.c.function, function and function.upper()),
        (schema.batch.c.contributor, contributor),
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
