"""The subcommand of db that deletes runs, once somebody has agreed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lrbench_caffe.errors import InputError
from lrbench_caffe.records import RunRecord
from lrbench_caffe.tabular import count_of
from lrbench_caffe.terminal import cli
from lrbench_caffe.terminal.run_filters import add_filters, full_uid, select_runs

if TYPE_CHECKING:
    from lrbench_caffe.database.store import Database

SHOWN = 20  # runs that are listed before the question


def delete_flags(p: cli.Parser) -> None:
    p.add_argument("uids", nargs="*", metavar="UID", help="the runs' uids, or their beginnings")
    add_filters(p)
    p.add_argument("--yes", action="store_true", help="do not ask")


def delete(args: argparse.Namespace, database: Database) -> int:
    filters = [args.task, args.function, args.status, args.source]
    given = any(value is not None for value in filters)
    if bool(args.uids) == given:
        raise InputError("delete: allowed: either uids, or --task, --function, --status, --source")
    if args.uids:
        records = [database.get(full_uid(database, uid)) for uid in args.uids]
    else:
        records = list(select_runs(args, database, None, measurements=False))
    if not records:
        print("no such run")
        return 0
    if not args.yes and not _agreed(records, database):
        print("nothing deleted")
        return 1
    count = database.delete([record.uid for record in records])
    print(f"deleted: {count_of(count, 'run')} from {database.url}")
    return 0


def _agreed(records: Sequence[RunRecord], database: Database) -> bool:
    if not sys.stdin.isatty():
        raise InputError(
            f"delete: {len(records)} run(s), but no terminal to ask on; --yes deletes without asking"
        )
    for record in records[:SHOWN]:
        print(f"  {record.uid}  {record.dataset.name}, {record.network.name}: {record.policy.text}")
    if len(records) > SHOWN:
        print(f"  and {len(records) - SHOWN} more")
    answer = input(f"delete {count_of(len(records), 'run')} from {database.url}? [y/N] ")
    return answer.strip().lower() in ("y", "yes")
