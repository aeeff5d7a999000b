"""The subcommands of db that look: info, tasks, runs, show, check."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from typing import TYPE_CHECKING

from lrbench_caffe.database.errors import DatabaseError
from lrbench_caffe.database.patience import AT_TERMINAL
from lrbench_caffe.errors import InputError
from lrbench_caffe.plaintext import one_line
from lrbench_caffe.terminal import cli, tables
from lrbench_caffe.terminal.console import Console
from lrbench_caffe.terminal.run_filters import add_filters, full_uid, select_runs
from lrbench_caffe.terminal.streams import has_unicode

if TYPE_CHECKING:
    from lrbench_caffe.database.store import Database

LIMIT = 20  # runs in a table


def info_flags(p: cli.Parser) -> None:
    p.add_argument("--json", action="store_true", help="print JSON")


def print_info(args: argparse.Namespace, database: Database) -> None:
    values = {"database": database.url, "revision": database.revision(), **database.counts()}
    if args.json:
        print(json.dumps(values))
        return
    for name, value in values.items():
        print(f"{name + ':':<13} {value}")


def tasks_flags(p: cli.Parser) -> None:
    p.add_argument("--json", action="store_true", help="print JSON")
    tables.add_flag(p)


def print_tasks(args: argparse.Namespace, database: Database) -> None:
    from dataclasses import asdict

    from lrbench_caffe.knowledge.selection import best_of_task
    from lrbench_caffe.terminal.run_tables import task_layout, task_rows

    tasks = database.tasks()
    if args.json:
        print(json.dumps([asdict(task) for task in tasks]))
        return
    tops = {task.id: top for task in tasks if task.id and (top := best_of_task(database, task))}
    rows = task_rows(tasks, database.runs_of_tasks(), tops)
    tables.print_table(rows, task_layout(rows), columns=args.columns)


def runs_flags(p: cli.Parser) -> None:
    add_filters(p)
    p.add_argument(
        "--limit", type=int, default=LIMIT, metavar="N", help=f"at most N runs (default: {LIMIT})"
    )
    p.add_argument("--json", action="store_true", help="print JSON Lines, as export writes them")
    tables.add_flag(p)


def print_runs(args: argparse.Namespace, database: Database) -> None:
    from lrbench_caffe.database.exchange import to_line
    from lrbench_caffe.terminal.run_tables import run_layout, run_rows, start_labels, start_notes

    if args.limit < 1:
        raise InputError(f"--limit: {args.limit}; allowed: 1 or more")
    records = select_runs(args, database, args.limit, measurements=True)
    if args.json:
        sys.stdout.writelines(to_line(record, not has_unicode(sys.stdout)) for record in records)
    else:
        shown = list(records)
        rows = run_rows(shown)
        notes = start_notes(start_labels(record.start for record in shown))
        tables.print_table(rows, run_layout(rows), columns=args.columns, notes=notes)


def show_flags(p: cli.Parser) -> None:
    p.add_argument("uid", metavar="UID", help="the run's uid, or its beginning")
    p.add_argument("--json", action="store_true", help="print JSON")
    tables.add_flag(p)


def print_run(args: argparse.Namespace, database: Database) -> None:
    from lrbench_caffe.tabular import detail_rows, measurement_rows
    from lrbench_caffe.terminal.run_tables import measurement_layout, moment

    record = database.get(full_uid(database, args.uid))
    if args.json:
        print(json.dumps(record.to_json(), indent=2, ensure_ascii=not has_unicode(sys.stdout)))
        return
    for name, value in detail_rows(record, moment):
        for line in _wrapped(f"{name + ':':<16} {one_line(value)}"):
            print(line)
    if record.measurements:
        rows = measurement_rows(record)
        tables.print_table(rows, measurement_layout(rows), columns=args.columns)


def _wrapped(line: str) -> list[str]:
    """A line of name and value, broken between words where a terminal has no room for it."""
    console = Console()
    if not console.is_terminal:
        return [line]
    return textwrap.wrap(
        line,
        console.width,
        subsequent_indent=" " * 17,
        break_long_words=False,
        break_on_hyphens=False,
    )


def check_flags(p: cli.Parser) -> None:
    """There are none."""


def check(args: argparse.Namespace) -> int:
    from lrbench_caffe.database import Database
    from lrbench_caffe.database.engine import how_to_restore, parse_url
    from lrbench_caffe.database.urls import resolve_url

    with Database.open(args.db, patience=AT_TERMINAL, must_exist=True, check=False) as database:
        damage = database.damage()
        for line in damage:
            print(one_line(line))
        if not damage:
            counts = database.counts()
            print(
                f"{database.url}: no damage in {counts['run']} runs, {counts['measurement']} measurements"
            )
            return 0
        remedy = how_to_restore(parse_url(resolve_url(args.db)))
        raise DatabaseError(f"database {database.url} is damaged; {remedy}")
