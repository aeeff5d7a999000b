"""The subcommands of db that write the whole database to a file: export, backup."""

from __future__ import annotations

import argparse
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING

from lrbench_caffe import installation
from lrbench_caffe.progress import track
from lrbench_caffe.terminal import cli
from lrbench_caffe.terminal.progress import Bars
from lrbench_caffe.terminal.streams import has_unicode

if TYPE_CHECKING:
    from lrbench_caffe.database.store import Database


def export_flags(p: cli.Parser) -> None:
    p.add_argument("file", metavar="FILE", help="the file, or - for the standard output")
    p.add_argument("--force", action="store_true", help="replace the file if it exists")


def export(args: argparse.Namespace, database: Database) -> None:
    from lrbench_caffe.database.exchange import check_target, writing_text

    if args.file != "-":
        check_target(database, Path(args.file), force=args.force)
    with nullcontext(sys.stdout) if args.file == "-" else writing_text(Path(args.file)) as file:
        count = _write_lines(database, file)
    if args.file != "-":
        print(f"{args.file}: {count} runs")
    _tell_not_shown(database)


def backup_flags(p: cli.Parser) -> None:
    p.add_argument("file", type=Path, metavar="FILE", help="the file")
    p.add_argument("--force", action="store_true", help="replace the file if it exists")


def backup(args: argparse.Namespace, database: Database) -> None:
    from lrbench_caffe.database.exchange import backup_sqlite, check_target, writing_text

    check_target(database, args.file, force=args.force, copy=database.path is not None)
    if database.path is not None:
        backup_sqlite(database, args.file)
        print(
            f"{args.file}: a copy of {database.url}; to use it: --db {shlex.quote(str(args.file))}"
        )
        return
    with writing_text(args.file) as file:
        count = _write_lines(database, file)
    restore = f"{installation.command('db')} import {shlex.quote(str(args.file))}"
    print(f"{args.file}: all {count} runs; to restore: {restore}")
    _tell_not_shown(database)


def _tell_not_shown(database: Database) -> None:
    from lrbench_caffe.database.platform import Platform

    count = sum(Platform(database).not_shown().values())
    if count:
        print(
            f"note: {count} of the runs are hidden or unverified here, which an export does not say; "
            "where it is imported they count",
            file=sys.stderr,
        )


def _write_lines(database: Database, file: IO[str]) -> int:
    from lrbench_caffe.database.exchange import export_lines

    count = 0
    lines = export_lines(database, ascii_only=not has_unicode(file))
    for line in track(lines, Bars(), "exporting runs", database.counts()["run"]):
        file.write(line)
        count += 1
    return count
