"""Show, share, import, back up and delete the runs in the LR database.

  python -m lrbench_caffe.db info
  python -m lrbench_caffe.db runs --function sin2 --limit 5
  python -m lrbench_caffe.db export runs.jsonl
  python -m lrbench_caffe.db import runs.jsonl
  python -m lrbench_caffe.db merge postgresql://ada@example.org/lr
  python -m lrbench_caffe.db push https://lr.example.org             (shares own runs; see docs/platform.md)
  python -m lrbench_caffe.db sync                              (adds results that wait in run directories)

The database is --db, else the environment variable LRBENCH_DB, else lr.sqlite in your data directory. Put a
password in ~/.pgpass or PGPASSWORD rather than in the URL: other users can see command lines.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING

from lrbench_caffe.database.urls import VARIABLE, default_path
from lrbench_caffe.terminal import cli, db_add, db_delete, db_export, db_share, db_show

if TYPE_CHECKING:
    from lrbench_caffe.database.store import Database

AddFlags = Callable[[cli.Parser], None]
Work = Callable[..., "int | None"]


# Name, flags, work and help of the subcommands.
SUBCOMMANDS: tuple[tuple[str, AddFlags, Work, str], ...] = (
    ("info", db_show.info_flags, db_show.print_info,
     "which database is used, and how much is in it"),
    ("tasks", db_show.tasks_flags, db_show.print_tasks,
     "the tasks, each with its best policy (from scratch, if one is)"),
    ("runs", db_show.runs_flags, db_show.print_runs, "the runs, the last stored first"),
    ("show", db_show.show_flags, db_show.print_run, "everything about one run"),
    ("delete", db_delete.delete_flags, db_delete.delete,
     "delete runs, and tasks and policies that are left without any"),
    ("export", db_export.export_flags, db_export.export,
     "write all runs to a file of JSON Lines"),
    ("import", db_add.import_flags, db_add.import_files,
     "add the runs in files written by export"),
    ("merge", db_add.merge_flags, db_add.merge, "add the runs of another database"),
    ("push", db_share.push_flags, db_share.push, "send own runs to a platform"),
    ("pull", db_share.pull_flags, db_share.pull, "add the runs of a platform"),
    ("backup", db_export.backup_flags, db_export.backup,
     "write everything to a file: a copy for SQLite, an export for PostgreSQL"),
    ("check", db_show.check_flags, db_show.check,
     "read the whole database and report damage"),
    ("sync", db_add.sync_flags, db_add.sync,
     "add results that are in run directories but not in the database"),
    ("import-log", db_add.import_log_flags, db_add.import_logs,
     "add runs from logs of caffe train and of DIGITS jobs"),
)  # fmt: skip


def parser() -> cli.Parser:
    p = cli.Parser(prog="python -m lrbench_caffe.db", description=__doc__)
    _add_db(p, None)
    commands = p.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=cli.Parser
    )
    for name, add_flags, work, text in SUBCOMMANDS:
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.set_defaults(work=work)
        _add_db(command, argparse.SUPPRESS)
        add_flags(command)
    return p


def _add_db(p: argparse.ArgumentParser, default: str | None) -> None:
    kinds = "a SQLite file, or postgresql://USER@HOST/DATABASE"
    where = f"{kinds} (default: ${VARIABLE}, else {default_path()})".replace("%", "%%")
    p.add_argument("--db", metavar="URL", default=default, help=where)


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    work: Work = args.work
    if work is db_show.check:  # opens a damaged one, too
        return work(args) or 0
    if work in (*db_add.SUBCOMMANDS, db_share.pull):
        return _add_runs(args, work)
    from lrbench_caffe.terminal.database import open_at_terminal

    with open_at_terminal(args.db) as database:
        return work(args, database) or 0


def _add_runs(args: argparse.Namespace, work: Work) -> int:
    from lrbench_caffe.runs.opening import check_folder, is_new
    from lrbench_caffe.terminal.database import open_at_terminal

    check_folder(args.db)
    with ExitStack() as stack:

        @cache
        def opened() -> Database:
            return stack.enter_context(open_at_terminal(args.db, to_write=True))

        if not is_new(args.db):  # a new one is made when there is something to write
            opened()
        return work(args, opened) or 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
