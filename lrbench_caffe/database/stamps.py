"""Stamps of tasks: what tells a reader that what it remembers of a task is no longer so.

A stamp is a random number. Each transaction that could change what is shown of a task's runs gives
the task a new one. Who reads the stamp first, and then what it shows, may show the same again for
as long as the stamp is the same.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from sqlalchemy import select, update
from sqlalchemy.engine import Connection

from lrbench_caffe.database import schema

_BITS = 62


def renew(connection: Connection, task_ids: Iterable[int]) -> None:
    """Give tasks new stamps: the last statement of a transaction, which waits for nothing any more.

    So transactions that change runs of one task wait for each other only while they commit.
    """
    task = schema.task
    ids = sorted(set(task_ids))
    # Locked in one order by everybody. Runs that refer to the task can be stored meanwhile.
    locked = select(task.c.id).where(task.c.id.in_(ids)).order_by(task.c.id)
    connection.execute(locked.with_for_update(key_share=True))
    change = update(task).where(task.c.id.in_(ids))
    connection.execute(change.values(stamp=secrets.randbits(_BITS)))


def read(connection: Connection, task_id: int | None) -> dict[int, int]:
    """See ``Database.stamps``."""
    query = select(schema.task.c.id, schema.task.c.stamp).order_by(schema.task.c.id)
    if task_id is not None:
        query = query.where(schema.task.c.id == task_id)
    return {row[0]: row[1] for row in connection.execute(query)}
