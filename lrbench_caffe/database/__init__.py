"""The LR database: every run and its measurements, in SQLite or PostgreSQL.

>>> from lrbench_caffe.database import Database
>>> with Database.open(None) as database:
...     for task in database.tasks():
...         print(database.summaries(task.id, limit=5))

SQLAlchemy is loaded when ``Database`` is first used, so that a command without a database does not
wait for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lrbench_caffe.database.errors import (
    DatabaseError,
    DatabaseUnavailable,
    RecordError,
    UnknownRun,
)
from lrbench_caffe.database.urls import safe_arguments, safe_url

if TYPE_CHECKING:
    from lrbench_caffe.database.store import Database

__all__ = [
    "Database",
    "DatabaseError",
    "DatabaseUnavailable",
    "RecordError",
    "UnknownRun",
    "safe_arguments",
    "safe_url",
]


def __getattr__(name: str) -> Any:
    if name == "Database":
        from lrbench_caffe.database.store import Database

        return Database
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
