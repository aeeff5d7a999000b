"""Show the LR database, and the trainings of this machine, in a browser; let others share runs.

  python -m lrbench_caffe.web                                       (http://127.0.0.1:8080)
  python -m lrbench_caffe.web --db postgresql://ada@example.org/lr --host 0.0.0.0 --workers 2

Reading is open to everybody who reaches the address; uploads need a token. See docs/platform.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lrbench_caffe.database.urls import VARIABLE
from lrbench_caffe.errors import LRBenchError
from lrbench_caffe.terminal import cli


def parser() -> cli.Parser:
    p = cli.Parser(prog="python -m lrbench_caffe.web", description=__doc__)
    p.add_argument(
        "--db", metavar="URL", help=f"the LR database (default: ${VARIABLE}, else your own)"
    )
    p.add_argument(
        "--host", default="127.0.0.1", help="the address to listen at (default: this machine only)"
    )
    p.add_argument("--port", type=int, default=8080, help="the port (default: 8080; 0: a free one)")
    p.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    p.add_argument(
        "--root-path", default="", metavar="PATH", help="where a proxy serves it, such as /lr"
    )
    p.add_argument("--private", action="store_true", help="reading needs a token, too")
    p.add_argument("--read-only", action="store_true", help="nothing can be uploaded or changed")
    p.add_argument(
        "--https", dest="secure", action="store_true", help="browsers reach it by https only"
    )
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        from lrbench_caffe.web.serving import serve
        from lrbench_caffe.web.settings import WebSettings
    except ImportError as error:
        raise LRBenchError(
            f"the web server needs {error.name}: pip install 'lrbench-caffe[web]'"
        ) from None
    settings = WebSettings(
        db=args.db,
        private=args.private,
        read_only=args.read_only,
        root_path=args.root_path,
        secure=args.secure,
    )
    return serve(settings, args.host, args.port, args.workers)


if __name__ == "__main__":
    sys.exit(cli.run(main))
