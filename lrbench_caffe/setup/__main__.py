"""Set up a Caffe for your user; complete parts are left alone.

The Caffe is Debian 11's own package, the real BVLC Caffe built for CPUs, with its own Python and C
library, unpacked into your cache directory: nothing is installed system-wide, and no root is
needed. An existing Caffe is used instead (LRBENCH_CAFFE_PYTHON names its Python, or Python can
import caffe). With a C++ compiler, the fast layers for this Caffe are built.

An interrupted setup continues where it stopped when it is run again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lrbench_caffe.setup import caffe
from lrbench_caffe.setup.processes import run_jobs
from lrbench_caffe.terminal import cli


def parser() -> cli.Parser:
    p = cli.Parser(
        prog="python -m lrbench_caffe.setup", description=__doc__, epilog=caffe.ENVIRONMENT
    )
    p.add_argument("--force", action="store_true", help="make everything again")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    return run_jobs({"Caffe": lambda: caffe.make_caffe(arguments.force)})


if __name__ == "__main__":
    sys.exit(cli.run(main))
