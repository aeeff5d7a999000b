"""Which runs of the database a subcommand is about: its flags, and the runs that they select."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lrbench_caffe.database.ranges import LAST_ID
from lrbench_caffe.errors import InputError
from lrbench_caffe.lr import PolicyError
from lrbench_caffe.records import SOURCES, STATUSES, RunRecord

if TYPE_CHECKING:
    from lrbench_caffe.database.store import Database


def add_filters(p: argparse.ArgumentParser, *, statuses: bool = True) -> None:
    p.add_argument("--task", type=task_id, metavar="ID", help="only runs of this task (see: tasks)")
    p.add_argument("--function", metavar="NAME", help="only runs of this LR function")
    if statuses:
        p.add_argument("--status", choices=STATUSES, help="only runs with this status")
    p.add_argument("--source", choices=SOURCES, help="only runs from this source")


def task_id(text: str) -> int:
    """The number of a task on the command line."""
    number = int(text) if text.isdecimal() and len(text) <= len(str(LAST_ID)) else 0
    if not 1 <= number <= LAST_ID:
        raise argparse.ArgumentTypeError(f"{text}; allowed: 1 to {LAST_ID}")
    return number


def select_runs(
    args: argparse.Namespace, database: Database, limit: int | None, measurements: bool
) -> Iterator[RunRecord]:
    return database.runs(
        task_id=args.task,
        function=args.function and known_function(args.function),
        status=args.status,
        source=args.source,
        measurements=measurements,
        limit=limit,
    )


def known_function(name: str) -> str:
    """An LR function's name, or those of a composition, as the database has them."""
    from lrbench_caffe.lr.functions import find_function

    try:
        for part in name.split(";"):
            find_function(part.strip())
    except PolicyError as error:
        raise InputError(f"--function: {error}") from None
    return " ; ".join(part.strip().upper() for part in name.split(";"))


def full_uid(database: Database, beginning: str) -> str:
    uids = database.uids(beginning)
    if not uids:
        raise InputError(f"the database has no run {beginning!r}")
    if len(uids) > 1:
        raise InputError(f"several runs begin with {beginning!r}, among them {' and '.join(uids)}")
    return uids[0]
