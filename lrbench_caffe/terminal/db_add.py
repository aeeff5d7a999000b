"""The subcommands of db that add runs: import, merge, sync, import-log.

Each takes a function that opens the database, for a new one is made only when there is something to write.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING

from lrbench_caffe import installation
from lrbench_caffe.database.patience import AT_TERMINAL
from lrbench_caffe.database.urls import scrub_text
from lrbench_caffe.errors import InputError
from lrbench_caffe.plaintext import one_line
from lrbench_caffe.progress import track
from lrbench_caffe.records import RunRecord
from lrbench_caffe.runs.layout import RUNS
from lrbench_caffe.terminal import cli
from lrbench_caffe.terminal.progress import Bars

if TYPE_CHECKING:
    from lrbench_caffe.database.exchange import ImportCount
    from lrbench_caffe.database.store import Database

Opened = Callable[[], "Database"]


def import_flags(p: cli.Parser) -> None:
    p.add_argument(
        "files", nargs="+", metavar="FILE", help="the files, or - for the standard input"
    )


def import_files(args: argparse.Namespace, opened: Opened) -> int:
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
                    f"{installation.command('db')} import-log {shlex.quote(scrub_text(shown))}"
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


def merge_flags(p: cli.Parser) -> None:
    p.add_argument("url", metavar="URL", help="the other database: a URL, or a SQLite file")


def merge(args: argparse.Namespace, opened: Opened) -> int:
    from lrbench_caffe.database import Database
    from lrbench_caffe.database.exchange import ImportCount, store_records
    from lrbench_caffe.database.platform import Platform

    with Database.open(args.url, patience=AT_TERMINAL, read_only=True) as other:
        records = ((f"run {record.uid}", record) for record in other.export())
        counted = track(records, Bars(), "merging runs", other.counts()["run"])
        result = ImportCount(_say)
        store_records(opened, counted, result, Platform(other).standings())
        return _verdict(f"from {other.url}", result)


def sync_flags(p: cli.Parser) -> None:
    p.add_argument(
        "directories", nargs="*", type=Path, metavar="DIR",
        help=f"run directories, or directories that contain some (default: {RUNS}/)",
    )  # fmt: skip


def sync(args: argparse.Namespace, opened: Opened) -> int:
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


def import_log_flags(p: cli.Parser) -> None:
    p.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="the logs; .gz, .bz2 and .xz too"
    )
    p.add_argument(
        "--solver",
        type=Path,
        metavar="FILE",
        help="the solver.prototxt of logs whose beginning is missing",
    )


def import_logs(args: argparse.Namespace, opened: Opened) -> int:
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
        database, records = opened(), [record for _, record in read]
        stored = database.runs(source="imported")
        for remark in parts_of_one_training(records, stored, database.get):
            _note(remark)
    return _verdict("logs", result)


def _verdict(what: str, result: ImportCount) -> int:
    """Print what became of the records; the exit code."""
    print(f"{one_line(scrub_text(what))}: {result}", file=sys.stderr if result.bad else sys.stdout)
    return 1 if result.bad else 0


def _say(message: str) -> None:
    print(f"error: {one_line(scrub_text(message))}", file=sys.stderr)


def _note(message: str) -> None:
    print(f"note: {one_line(scrub_text(message))}", file=sys.stderr)


SUBCOMMANDS = (import_files, merge, sync, import_logs)
