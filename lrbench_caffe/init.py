"""Write the example solvers and their nets into a folder.

  python -m lrbench_caffe.init .
  python -m lrbench_caffe.init experiments/lenet

Existing files are left alone. Paths in a solver are relative to the current folder, so run the other
commands in DIR.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lrbench_caffe.errors import InputError
from lrbench_caffe.prototxt import examples
from lrbench_caffe.terminal import cli


def parser() -> cli.Parser:
    p = cli.Parser(prog="python -m lrbench_caffe.init", description=__doc__)
    p.add_argument("folder", type=Path, metavar="DIR", help="the folder; created if missing")
    p.add_argument(
        "--force", action="store_true", help="replace files that differ from the examples"
    )
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    target: Path = args.folder
    names = examples.all_names()
    changed = examples.differing(target, names)
    if changed and not args.force:
        listed = ", ".join(str(target / name) for name in changed)
        raise InputError(f"not the examples of this version: {listed}; --force replaces them")
    written = examples.write(target, names)
    for name in written:
        print(target / name)
    print(f"{len(written)} of {len(names)} files written" if written else "all files exist already")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
