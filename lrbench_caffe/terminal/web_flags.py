"""The flags of the command web."""

from __future__ import annotations

import argparse

from lrbench_caffe.database.urls import VARIABLE
from lrbench_caffe.runs.layout import RUNS
from lrbench_caffe.terminal import cli, web_tokens


def add_flags(p: cli.Parser) -> None:
    _add_db(p, None)
    _add_place(p)
    _add_permissions(p)
    commands = p.add_subparsers(dest="command", metavar="COMMAND", parser_class=cli.Parser)
    text = "who may upload: add, renew, list and revoke tokens"
    token = commands.add_parser("token", help=text, description=text[0].upper() + text[1:] + ".")
    _add_db(token, argparse.SUPPRESS)
    web_tokens.add_flags(token, lambda action: _add_db(action, argparse.SUPPRESS))


def _add_place(p: cli.Parser) -> None:
    where = p.add_argument_group("where")
    where.add_argument(
        "--host", default="127.0.0.1", help="the address to listen at (default: this machine only)"
    )
    where.add_argument(
        "--port", type=int, default=8080, help="the port (default: 8080; 0: one that is free)"
    )
    where.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    where.add_argument(
        "--root-path", default="", metavar="PATH", help="under which a proxy serves it, such as /lr"
    )
    where.add_argument(
        "--https", dest="secure", action="store_true", help="browsers reach it by https only"
    )
    where.add_argument(
        "--runs", action="append", metavar="DIR",
        help=f"a folder of run directories to follow; can be repeated (default: {RUNS}/)",
    )  # fmt: skip
    where.add_argument("--with-parent", action="store_true", help=argparse.SUPPRESS)


def _add_permissions(p: cli.Parser) -> None:
    what = p.add_argument_group("what is allowed")
    what.add_argument("--private", action="store_true", help="reading needs a token, too")
    what.add_argument("--read-only", action="store_true", help="nothing can be uploaded or changed")
    what.add_argument(
        "--requests", type=int, default=1200, metavar="N",
        help="that one address may make in a minute, to each process (default: 1200)",
    )  # fmt: skip
    what.add_argument(
        "--writes", type=int, default=60, metavar="N",
        help="the same for uploads, sign-ins, recommendations and changes (default: 60)",
    )  # fmt: skip
    what.add_argument(
        "--terms", metavar="TEXT", default="as each contributor states",
        help="under which terms the data can be used, for the page About (default: %(default)s)",
    )  # fmt: skip


def _add_db(p: argparse.ArgumentParser, default: str | None) -> None:
    words = f"the LR database (default: ${VARIABLE}, else your own)"
    p.add_argument("--db", metavar="URL", default=default, help=words)
