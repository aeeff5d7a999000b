"""Show the LR database, and the trainings of this machine, in a browser; let others share runs.

  python -m lrbench_caffe.web                                       (http://127.0.0.1:8080)
  python -m lrbench_caffe.web --db postgresql://ada@example.org/lr --host 0.0.0.0 --workers 2
  python -m lrbench_caffe.web token add grace --days 365            (prints a secret, once)

Reading is open to everybody who reaches the address; uploads need a token. See docs/platform.md.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from lrbench_caffe.errors import InputError, LRBenchError
from lrbench_caffe.runs.layout import RUNS
from lrbench_caffe.terminal import cli, web_flags, web_tokens
from lrbench_caffe.terminal.database import open_at_terminal


def parser() -> cli.Parser:
    p = cli.Parser(prog="python -m lrbench_caffe.web", description=__doc__)
    web_flags.add_flags(p)
    return p


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
    while os.read(0, 1024):  # not by sys.stdin: a thread that waits there would disturb the exit
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(cli.run(main))
