"""Show the LR database, and the trainings of this machine, in a browser; let others share runs.

  python -m lrbench_caffe.web                                       (http://127.0.0.1:8080)
  python -m lrbench_caffe.web --db postgresql://ada@example.org/lr --host 0.0.0.0 --workers 2
  python -m lrbench_caffe.web token add grace --days 365            (prints a secret, once)

Reading is open to everybody who reaches the address; uploads need a token. See docs/platform.md.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from lrbench_caffe.database.urls import VARIABLE
from lrbench_caffe.errors import InputError, LRBenchError
from lrbench_caffe.runs.layout import RUNS
from lrbench_caffe.terminal import cli, web_tokens
from lrbench_caffe.terminal.database import open_at_terminal


def parser() -> cli.Parser:
    p = cli.Parser(prog="python -m lrbench_caffe.web", description=__doc__)
    _add_db(p, None)
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
    what = p.add_argument_group("what is allowed")
    what.add_argument("--private", action="store_true", help="reading needs a token, too")
    what.add_argument("--read-only", action="store_true", help="nothing can be uploaded or changed")
    what.add_argument(
        "--requests", type=int, default=1200, metavar="N",
        help="that one address may make in a minute, to each process (default: 1200)",
    )  # fmt: skip
    what.add_argument(
        "--writes", type=int, default=60, metavar="N",
        help="of these, uploads, sign-ins and other changes (default: 60)",
    )  # fmt: skip
    what.add_argument(
        "--terms", metavar="TEXT", default="as each contributor states",
        help="under which terms the data can be used, for the page About (default: %(default)s)",
    )  # fmt: skip
    commands = p.add_subparsers(dest="command", metavar="COMMAND", parser_class=cli.Parser)
    text = "who may upload: add, list and revoke tokens"
    token = commands.add_parser("token", help=text, description=text[0].upper() + text[1:] + ".")
    _add_db(token, argparse.SUPPRESS)
    web_tokens.add_flags(token, lambda action: _add_db(action, argparse.SUPPRESS))
    return p


def _add_db(p: argparse.ArgumentParser, default: str | None) -> None:
    words = f"the LR database (default: ${VARIABLE}, else your own)"
    p.add_argument("--db", metavar="URL", default=default, help=words)


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.command == "token":
        with open_at_terminal(args.db, to_write=True) as database:
            return web_tokens.manage(args, database)
    if not 0 <= args.port <= 65535 or args.workers < 1:
        raise InputError(
            f"--port and --workers: {args.port}, {args.workers}; allowed: 0 to 65535, 1 or more"
        )
    try:
        from lrbench_caffe.web.serving import serve
        from lrbench_caffe.web.settings import WebSettings
    except ImportError as error:
        raise LRBenchError(
            f"the web server needs {error.name}: pip install 'lrbench-caffe[web]'"
        ) from None
    settings = WebSettings(
        db=args.db,
        runs=tuple(str(Path(folder).resolve()) for folder in args.runs or [RUNS]),
        private=args.private,
        read_only=args.read_only,
        root_path=args.root_path,
        secure=args.secure,
        requests=args.requests,
        writes=args.writes,
        terms=args.terms,
    )
    if args.with_parent:  # see terminal/viewer.py
        threading.Thread(target=_end_with_input, daemon=True).start()
    return serve(settings, args.host, args.port, args.workers)


def _end_with_input() -> None:
    """End this process when its standard input ends: the process that started it is gone."""
    while sys.stdin.buffer.read(1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(cli.run(main))
