"""The subcommand token of web: who may upload."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from lrbench_caffe.database.platform import SCOPES, AccessToken, Platform
from lrbench_caffe.database.store import Database
from lrbench_caffe.errors import InputError
from lrbench_caffe.terminal import cli
from lrbench_caffe.terminal.tables import Layout, print_table

DAY = 24 * 3600.0
MOST_DAYS = 1_000_000


def add_flags(
    p: argparse.ArgumentParser, add_db: Callable[[argparse.ArgumentParser], None]
) -> None:
    actions = p.add_subparsers(
        dest="action", metavar="ACTION", required=True, parser_class=cli.Parser
    )
    make = actions.add_parser("add", help="make a token, and print its secret, once")
    make.add_argument(
        "--scope", choices=SCOPES, default="write",
        help="what it may do; each includes those before it (default: write)",
    )  # fmt: skip
    renew = actions.add_parser(
        "renew", help="give a contributor another secret, and print it, once; the one before ends"
    )
    for action in (make, renew):
        action.add_argument(
            "--days", type=float, metavar="N", help="how long it is valid (default: for ever)"
        )
    listing = actions.add_parser("list", help="list the tokens")
    revoke = actions.add_parser("revoke", help="make a token invalid until it is renewed")
    for action in (make, renew, revoke):
        action.add_argument("name", metavar="NAME", help="the contributor's name")
    for action in (make, renew, listing, revoke):
        add_db(action)


def manage(args: argparse.Namespace, database: Database) -> int:
    platform = Platform(database)
    if args.action == "add":
        print(platform.add_token(args.name, args.scope, _seconds(args.days)))
    elif args.action == "renew":
        print(platform.renew_token(args.name, _seconds(args.days)))
    elif args.action == "revoke":
        platform.revoke(args.name)
        print(f"the token of {args.name!r} is not valid any more")
    else:
        rows = [["name", "scope", "made", "valid until"]]
        rows += [[t.name, t.scope, _day(t.made), _until(t)] for t in platform.tokens()]
        print_table(rows, Layout(tuple(rows[0]), text=("name",), words=tuple(rows[0][1:])))
    return 0


def _seconds(days: float | None) -> float | None:
    if days is not None and not 0 < days <= MOST_DAYS:
        raise InputError(f"--days: {days:.15g}; allowed: more than 0, up to {MOST_DAYS}")
    return None if days is None else days * DAY


def _until(token: AccessToken) -> str:
    if token.revoked is not None:
        return f"revoked {_day(token.revoked)}"
    return "for ever" if token.expires is None else _day(token.expires)


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
