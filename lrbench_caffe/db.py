"""Show, share, import, back up and delete the runs in the LR database.

  python -m lrbench_caffe.db info
  python -m lrbench_caffe.db runs --function sin2 --limit 5
  python -m lrbench_caffe.db export runs.jsonl
  python -m lrbench_caffe.db import runs.jsonl
  python -m lrbench_caffe.db merge postgresql://ada@example.org/lr
  python -m lrbench_caffe.db sync                              (adds results that wait in run directories)

The database is --db, else the environment variable LRBENCH_DB, else lr.sqlite in your data directory. Put a
password in ~/.pgpass or PGPASSWORD rather than in the URL: other users can see command lines.
"""

from __future__ import annotations

import argparse
import codecs
import json
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from functools import cache
from io import BufferedReader
from pathlib import Path
from typing import IO, TYPE_CHECKING

from lrbench_caffe import installation
from lrbench_caffe.database.errors import DatabaseError
from lrbench_caffe.database.patience import AT_TERMINAL
from lrbench_caffe.database.urls import VARIABLE, default_path, scrub_text
from lrbench_caffe.errors import InputError
from lrbench_caffe.lr import PolicyError
from lrbench_caffe.plaintext import one_line
from lrbench_caffe.progress import track
from lrbench_caffe.records import SOURCES, STATUSES, RunRecord
from lrbench_caffe.runs.layout import RUNS
from lrbench_caffe.terminal import cli, tables
from lrbench_caffe.terminal.console import Console
from lrbench_caffe.terminal.progress import Bars

if TYPE_CHECKING:
    from lrbench_caffe.database.exchange import ImportCount
    from lrbench_caffe.database.store import Database

Opened = Callable[[], "Database"]

LIMIT = 20  # runs in a table


def parser() -> cli.Parser:
    p = cli.Parser(prog="python -m lrbench_caffe.db", description=__doc__)
    _add_db(p, None)
    commands = p.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=cli.Parser
    )

    def add(name: str, work: Callable[..., int | None], text: str) -> cli.Parser:
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.set_defaults(work=work)
        _add_db(command, argparse.SUPPRESS)
        return command

    for name, work, text in (
        ("info", _info, "which database is used, and how much is in it"),
        ("tasks", _tasks, "the tasks, each with its best policy (from scratch, if one is)"),
    ):
        command = add(name, work, text)
        command.add_argument("--json", action="store_true", help="print JSON")
        if name == "tasks":
            tables.add_flag(command)
    runs = add("runs", _runs, "the runs, the last stored first")
    _add_filters(runs)
    runs.add_argument(
        "--limit", type=int, default=LIMIT, metavar="N", help=f"at most N runs (default: {LIMIT})"
    )
    runs.add_argument("--json", action="store_true", help="print JSON Lines, as export writes them")
    tables.add_flag(runs)
    show = add("show", _show, "everything about one run")
    show.add_argument("uid", metavar="UID", help="the run's uid, or its beginning")
    show.add_argument("--json", action="store_true", help="print JSON")
    tables.add_flag(show)
    delete = add("delete", _delete, "delete runs, and tasks and policies that are left without any")
    delete.add_argument(
        "uids", nargs="*", metavar="UID", help="the runs' uids, or their beginnings"
    )
    _add_filters(delete)
    delete.add_argument("--yes", action="store_true", help="do not ask")
    export = add("export", _export, "write all runs to a file of JSON Lines")
    export.add_argument("file", metavar="FILE", help="the file, or - for the standard output")
    export.add_argument("--force", action="store_true", help="replace the file if it exists")
    load = add("import", _import, "add the runs in files written by export")
    load.add_argument(
        "files", nargs="+", metavar="FILE", help="the files, or - for the standard input"
    )
    merge = add("merge", _merge, "add the runs of another database")
    merge.add_argument("url", metavar="URL", help="the other database: a URL, or a SQLite file")
    backup = add(
        "backup", _backup, "write everything to a file: a copy for SQLite, an export for PostgreSQL"
    )
    backup.add_argument("file", type=Path, metavar="FILE", help="the file")
    backup.add_argument("--force", action="store_true", help="replace the file if it exists")
    add("check", _check, "read the whole database and report damage")
    sync = add("sync", _sync, "add results that are in run directories but not in the database")
    sync.add_argument(
        "directories", nargs="*", type=Path, metavar="DIR",
        help=f"run directories, or directories that contain some (default: {RUNS}/)",
    )  # fmt: skip
    logs = add("import-log", _import_log, "add runs from logs of caffe train and of DIGITS jobs")
    logs.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="the logs; .gz, .bz2 and .xz too"
    )
    logs.add_argument(
        "--solver",
        type=Path,
        metavar="FILE",
        help="the solver.prototxt of logs whose beginning is missing",
    )
    return p


def _add_db(p: argparse.ArgumentParser, default: str | None) -> None:
    kinds = "a SQLite file, or postgresql://USER@HOST/DATABASE"
    where = f"{kinds} (default: ${VARIABLE}, else {default_path()})".replace("%", "%%")
    p.add_argument("--db", metavar="URL", default=default, help=where)


def _add_filters(p: argparse.ArgumentParser) -> None:
    p.add_argument("--task", type=int, metavar="ID", help="only runs of this task (see: tasks)")
    p.add_argument("--function", metavar="NAME", help="only runs of this LR function")
    p.add_argument("--status", choices=STATUSES, help="only runs with this status")
    p.add_argument("--source", choices=SOURCES, help="only runs from this source")


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    from lrbench_caffe.runs.opening import check_folder, is_new
    from lrbench_caffe.terminal.database import open_at_terminal

    work: Callable[..., int | None] = args.work
    if work is _check:
        return work(args) or 0
    if work not in (_import, _merge, _sync, _import_log):
        with open_at_terminal(args.db) as database:
            return work(args, database) or 0
    check_folder(args.db)
    with ExitStack() as stack:

        @cache
        def opened() -> Database:
            return stack.enter_context(open_at_terminal(args.db, to_write=True))

        if not is_new(args.db):  # a new one is made when there is something to write
            opened()
        return work(args, opened) or 0


# -- looking ---------------------------------------------------------------------------------------


def _info(args: argparse.Namespace, database: Database) -> None:
    values = {"database": database.url, "revision": database.revision(), **database.counts()}
    if args.json:
        print(json.dumps(values))
        return
    for name, value in values.items():
        print(f"{name + ':':<13} {value}")


def _tasks(args: argparse.Namespace, database: Database) -> None:
    from dataclasses import asdict

    from lrbench_caffe.terminal.run_tables import best_of_task, task_layout, task_rows

    tasks = database.tasks()
    if args.json:
        print(json.dumps([asdict(task) for task in tasks]))
        return
    tops = {task.id: top for task in tasks if task.id and (top := best_of_task(database, task))}
    rows = task_rows(tasks, database.runs_of_tasks(), tops)
    tables.print_table(rows, task_layout(rows), columns=args.columns)


def _select(
    args: argparse.Namespace, database: Database, limit: int | None, measurements: bool
) -> Iterator[RunRecord]:
    return database.runs(
        task_id=args.task,
        function=args.function and _function(args.function),
        status=args.status,
        source=args.source,
        measurements=measurements,
        limit=limit,
    )


def _function(name: str) -> str:
    """An LR function's name, or those of a composition, as the database has them."""
    from lrbench_caffe.lr.functions import find_function

    try:
        for part in name.split(";"):
            find_function(part.strip())
    except PolicyError as error:
        raise InputError(f"--function: {error}") from None
    return " ; ".join(part.strip().upper() for part in name.split(";"))


def _runs(args: argparse.Namespace, database: Database) -> None:
    from lrbench_caffe.database.exchange import to_line
    from lrbench_caffe.terminal.run_tables import run_layout, run_rows, start_labels, start_notes

    if args.limit < 1:
        raise InputError(f"--limit: {args.limit}; allowed: 1 or more")
    records = _select(args, database, args.limit, measurements=True)
    if args.json:
        sys.stdout.writelines(to_line(record, not _has_unicode(sys.stdout)) for record in records)
    else:
        shown = list(records)
        rows = run_rows(shown)
        notes = start_notes(start_labels(record.start for record in shown))
        tables.print_table(rows, run_layout(rows), columns=args.columns, notes=notes)


def _full_uid(database: Database, beginning: str) -> str:
    uids = database.uids(beginning)
    if not uids:
        raise InputError(f"the database has no run {beginning!r}")
    if len(uids) > 1:
        raise InputError(f"several runs begin with {beginning!r}, among them {' and '.join(uids)}")
    return uids[0]


def _show(args: argparse.Namespace, database: Database) -> None:
    from lrbench_caffe.terminal.run_tables import detail_rows, measurement_layout, measurement_rows

    record = database.get(_full_uid(database, args.uid))
    if args.json:
        print(json.dumps(record.to_json(), indent=2, ensure_ascii=not _has_unicode(sys.stdout)))
        return
    for name, value in detail_rows(record):
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


def _check(args: argparse.Namespace) -> int:
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


# -- deleting --------------------------------------------------------------------------------------


def _delete(args: argparse.Namespace, database: Database) -> int:
    filters = [args.task, args.function, args.status, args.source]
    given = any(value is not None for value in filters)
    if bool(args.uids) == given:
        raise InputError("delete: allowed: either uids, or --task, --function, --status, --source")
    if args.uids:
        records = [database.get(_full_uid(database, uid)) for uid in args.uids]
    else:
        records = list(_select(args, database, None, measurements=False))
    if not records:
        print("no such run")
        return 0
    if not args.yes and not _agreed(records, database):
        print("nothing deleted")
        return 1
    count = database.delete([record.uid for record in records])
    print(f"deleted: {count} run{'s' * (count != 1)} from {database.url}")
    return 0


def _agreed(records: Sequence[RunRecord], database: Database) -> bool:
    if not sys.stdin.isatty():
        raise InputError(
            f"delete: {len(records)} run(s), but no terminal to ask on; --yes deletes without asking"
        )
    for record in records[:LIMIT]:
        print(f"  {record.uid}  {record.dataset.name}, {record.network.name}: {record.policy.text}")
    if len(records) > LIMIT:
        print(f"  and {len(records) - LIMIT} more")
    answer = input(
        f"delete {len(records)} run{'s' * (len(records) != 1)} from {database.url}? [y/N] "
    )
    return answer.strip().lower() in ("y", "yes")


# -- sharing ---------------------------------------------------------------------------------------


def _say(message: str) -> None:
    print(f"error: {one_line(scrub_text(message))}", file=sys.stderr)


def _note(message: str) -> None:
    print(f"note: {one_line(scrub_text(message))}", file=sys.stderr)


def _verdict(what: str, result: ImportCount) -> int:
    """Print what became of the records; the exit code."""
    print(f"{one_line(scrub_text(what))}: {result}", file=sys.stderr if result.bad else sys.stdout)
    return 1 if result.bad else 0


def _export(args: argparse.Namespace, database: Database) -> None:
    from lrbench_caffe.database.exchange import check_target, writing_text

    if args.file != "-":
        check_target(database, Path(args.file), force=args.force)
    with nullcontext(sys.stdout) if args.file == "-" else writing_text(Path(args.file)) as file:
        count = _write(database, file)
    if args.file != "-":
        print(f"{args.file}: {count} runs")


def _write(database: Database, file: IO[str]) -> int:
    from lrbench_caffe.database.exchange import export_lines

    count = 0
    lines = export_lines(database, ascii_only=not _has_unicode(file))
    for line in track(lines, Bars(), "exporting runs", database.counts()["run"]):
        file.write(line)
        count += 1
    return count


def _has_unicode(file: IO[str]) -> bool:
    """Whether a stream takes every character; another one would print ? for some, and change names so."""
    return codecs.lookup(getattr(file, "encoding", None) or "ascii").name in (
        "utf-8",
        "utf-16",
        "utf-32",
    )


def _import(args: argparse.Namespace, opened: Opened) -> int:
    from lrbench_caffe.database.exchange import ImportCount, import_lines
    from lrbench_caffe.importing.text import looks_like_a_log

    code = 0
    for name in args.files:
        try:
            source = nullcontext(sys.stdin.buffer) if name == "-" else open(name, "rb")  # noqa: SIM115
        except OSError as error:
            raise InputError(f"cannot read {scrub_text(name)}: {error.strerror}") from None
        shown = "standard input" if name == "-" else name
        with source as file:
            if isinstance(file, BufferedReader) and looks_like_a_log(file.peek(1 << 16)):
                raise InputError(
                    f"{scrub_text(shown)} is a log of Caffe; import it with: "
                    f"python -m lrbench_caffe.db import-log {shlex.quote(scrub_text(shown))}"
                )
            size = Path(name).stat().st_size if name != "-" else None
            lines = _with_bar(file, f"importing {shown}", size)
            result = ImportCount(_say)
            import_lines(opened, lines, shown, result)
            code = _verdict(shown, result) or code
    return code


def _with_bar(lines: Iterable[bytes], description: str, size: int | None) -> Iterator[bytes]:
    """The lines unchanged, with a progress bar over bytes while they are taken."""
    done = 0
    with Bars().bar(description, size, in_bytes=True) as moved:
        for line in lines:
            yield line
            done += len(line)
            moved(done)


def _merge(args: argparse.Namespace, opened: Opened) -> int:
    from lrbench_caffe.database import Database
    from lrbench_caffe.database.exchange import ImportCount, store_records

    with Database.open(args.url, patience=AT_TERMINAL, read_only=True) as other:
        records = ((f"run {record.uid}", record) for record in other.export())
        counted = track(records, Bars(), "merging runs", other.counts()["run"])
        result = ImportCount(_say)
        store_records(opened, counted, result)
        return _verdict(f"from {other.url}", result)


def _backup(args: argparse.Namespace, database: Database) -> None:
    from lrbench_caffe.database.exchange import backup_sqlite, check_target, writing_text

    check_target(database, args.file, force=args.force, copy=database.path is not None)
    if database.path is not None:
        backup_sqlite(database, args.file)
        print(
            f"{args.file}: a copy of {database.url}; to use it: --db {shlex.quote(str(args.file))}"
        )
        return
    with writing_text(args.file) as file:
        count = _write(database, file)
    restore = f"{installation.command('db')} import {shlex.quote(str(args.file))}"
    print(f"{args.file}: all {count} runs; to restore: {restore}")


def _sync(args: argparse.Namespace, opened: Opened) -> int:
    from lrbench_caffe.database.exchange import ImportCount, store_records
    from lrbench_caffe.runs.syncing import NotForDatabase, StillRunning, read_run, run_directories

    result = ImportCount(_say)

    def records() -> Iterator[tuple[str, RunRecord]]:
        paths = list(run_directories(args.directories or [RUNS]))
        for path in track(paths, Bars(), "reading run directories", len(paths)):
            try:
                yield str(path), read_run(path)
            except StillRunning:
                print(f"{path}: still running, left alone")
            except NotForDatabase:
                print(f"{path}: not recorded for the database (--no-db), left alone")
            except InputError as error:
                result.refuse(str(error))
            except OSError as error:
                result.refuse(f"{path}: cannot be read: {error.strerror}")

    store_records(opened, records(), result)
    return _verdict("run directories", result)


def _import_log(args: argparse.Namespace, opened: Opened) -> int:
    from lrbench_caffe.database.completing import parts_of_one_training
    from lrbench_caffe.database.exchange import ImportCount, store_records
    from lrbench_caffe.importing.caffelog import records_from_logs

    result = ImportCount(_say)

    read = records_from_logs(
        args.files,
        solver_file=args.solver,
        note=_note,
        refuse=lambda error: result.refuse(str(error)),
    )
    store_records(
        opened, ((f"{files}: run {record.uid}", record) for files, record in read), result
    )
    if read:
        stored = opened().runs(source="imported")
        for remark in parts_of_one_training([record for _, record in read], stored):
            _note(remark)
    return _verdict("logs", result)


if __name__ == "__main__":
    sys.exit(cli.run(main))
