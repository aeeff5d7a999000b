"""The subcommands of db that share runs with a platform: push and pull."""

from __future__ import annotations

import argparse
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from lrbench_caffe.errors import InputError
from lrbench_caffe.plaintext import one_line
from lrbench_caffe.progress import track
from lrbench_caffe.records import SOURCES, Contribution, RunRecord
from lrbench_caffe.sharing.client import TOKEN, Client
from lrbench_caffe.sharing.outgoing import without_places
from lrbench_caffe.terminal.progress import Bars
from lrbench_caffe.terminal.run_filters import add_filters, known_function, task_id

if TYPE_CHECKING:
    from lrbench_caffe.database.store import Database

Opened = Callable[[], "Database"]
PAGE = 100  # runs in a request
SHOWN = 20  # reasons that are printed


def push_flags(p: argparse.ArgumentParser) -> None:
    p.add_argument("url", metavar="URL", help="the platform: http://HOST or https://HOST")
    add_filters(p, statuses=False)
    p.add_argument("--note", metavar="TEXT", help="what others should know of these runs")
    p.add_argument("--link", metavar="URL", help="a page about them")
    p.add_argument(
        "--keep-places", action="store_true",
        help="also send the folders of run directories and logs, and the machine's name",
    )  # fmt: skip
    _add_token(p, "which must have the scope write")


def push(args: argparse.Namespace, database: Database) -> int:
    """Send own runs that have ended; sent again, they are there already."""
    client = Client(args.url, _token(args))
    records = list(_own(args, database))
    if not records:
        print("nothing to send: no own run that has ended fits")
        return 0
    from lrbench_caffe.database.exchange import to_line

    batch = uuid.uuid4().hex
    new = present = refused = 0
    reasons: list[str] = []
    runs = iter(track(records, Bars(), f"sending runs to {client.url}", len(records)))
    while page := list(islice(runs, PAGE)):
        whole = (database.get(record.uid) for record in page)
        lines = [to_line(r if args.keep_places else without_places(r)).encode() for r in whole]
        sent = client.send(lines, batch, args.note, args.link)
        new, present, refused = new + sent.new, present + sent.present, refused + sent.refused
        reasons += sent.reasons
    for reason in reasons[:SHOWN]:
        print(f"note: {one_line(reason)}", file=sys.stderr)
    if len(reasons) > SHOWN:
        print(f"note: and {len(reasons) - SHOWN} more", file=sys.stderr)
    print(f"{client.url}: {new} new, {present} already there, {refused} refused; upload {batch}")
    return 1 if refused else 0


def _own(args: argparse.Namespace, database: Database) -> Iterator[RunRecord]:
    """Runs of this database that came from no platform, without their measurements."""
    runs = database.runs(
        task_id=args.task,
        function=args.function and known_function(args.function),
        source=args.source,
    )
    for record in runs:
        if record.contribution is None and record.source != "paper" and record.status != "running":
            yield record


def pull_flags(p: argparse.ArgumentParser) -> None:
    p.add_argument("url", metavar="URL", help="the platform: http://HOST or https://HOST")
    text = "only runs of this task of the platform"
    p.add_argument("--task", type=task_id, metavar="ID", help=text)
    p.add_argument("--function", metavar="NAME", help="only runs of this LR function")
    p.add_argument("--source", choices=SOURCES, help="only runs from this source")
    p.add_argument("--contributor", metavar="NAME", help="only runs of this contributor")
    _add_token(p, "for a platform that is not open")


def pull(args: argparse.Namespace, opened: Opened) -> int:
    """Add the runs of a platform, each with its contributor; again, only what is new comes in."""
    from lrbench_caffe.database.checks import LONGEST_NAME
    from lrbench_caffe.database.exchange import ImportCount, import_lines

    client = Client(args.url, _token(args, needed=False))
    result = ImportCount(lambda message: print(f"error: {one_line(message)}", file=sys.stderr))
    pages = client.pages(
        task=args.task,
        function=args.function and known_function(args.function),
        source=args.source,
        contributor=args.contributor,
    )
    # What was never uploaded there is not one's own here: it is the platform's.
    name = client.url.replace(",", "%2C")[:LONGEST_NAME]
    of_platform = Contribution(uuid.uuid4().hex, name, None, None, round(time.time(), 3))
    with Bars().bar(f"receiving runs from {client.url}", None) as moved:
        done = 0
        for lines in pages:
            import_lines(opened, lines, client.url, result, of_platform)
            done += len(lines)
            moved(done)
    print(f"from {client.url}: {result}", file=sys.stderr if result.bad else sys.stdout)
    return 1 if result.bad else 0


def _add_token(p: argparse.ArgumentParser, what: str) -> None:
    p.add_argument(
        "--token-file", metavar="FILE",
        help=f"a file with the token, {what} (default: the environment variable {TOKEN})",
    )  # fmt: skip


def _token(args: argparse.Namespace, needed: bool = True) -> str | None:
    """The token's secret. It is no flag: other users can see command lines."""
    if args.token_file:
        try:
            with open(args.token_file, encoding="utf-8") as file:
                secret = file.read(1000).strip()
        except (OSError, ValueError) as error:
            raise InputError(f"--token-file: cannot read {args.token_file}: {error}") from None
    else:
        secret = os.environ.get(TOKEN, "").strip()
    if needed and not secret:
        raise InputError(f"a token is missing: allowed: --token-file FILE, or {TOKEN}")
    if secret and not (secret.isascii() and secret.isprintable() and " " not in secret):
        raise InputError("the token has characters that no token has")
    return secret or None
