"""Make the LMDBs that the solvers in ``solvers/`` read."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lrbench_caffe.datasets.catalogue import DATASETS
from lrbench_caffe.datasets.making import make, verify
from lrbench_caffe.datasets.products import DatasetRecipe
from lrbench_caffe.errors import InputError
from lrbench_caffe.terminal import flags
from lrbench_caffe.terminal.cli import Parser, run
from lrbench_caffe.terminal.progress import Bars


def parser() -> Parser:
    sets = "\n".join(f"  {dataset.name:8} {_described(dataset)}" for dataset in DATASETS.values())
    command = Parser(
        prog="python -m lrbench_caffe.data",
        description=f"Make the Caffe LMDBs of a data set.\n\n{sets}",
        epilog="Existing data is left alone, so the command can be repeated at any time.",
    )
    command.add_argument("dataset", choices=list(DATASETS), help="the data set to make")
    command.add_argument(
        "--out",
        type=flags.path,
        default=Path("data"),
        metavar="DIR",
        help="folder of the data (default: data)",
    )
    command.add_argument(
        "--source",
        type=Path,
        metavar="PATH",
        help="a folder with the published files, or CIFAR-10's archive",
    )
    command.add_argument("--mirror", metavar="URL", help="base URL to try first when downloading")
    command.add_argument(
        "--force", action="store_true", help="make everything again and replace existing data"
    )
    command.add_argument(
        "--verify", action="store_true", help="read every record back and show the digest"
    )
    return command


def _described(dataset: DatasetRecipe) -> str:
    if dataset.download is None:
        return dataset.title
    return f"{dataset.title}; downloads {dataset.download} unless --source is given"


def main(argv: Sequence[str]) -> int:
    arguments = parser().parse_args(argv)
    dataset = DATASETS[arguments.dataset]
    if dataset.download is None and (arguments.source or arguments.mirror):
        raise InputError(
            f"--source and --mirror do not apply to {dataset.name}: it comes with the package"
        )
    progress = Bars(partial(print, flush=True))
    make(dataset, arguments.out, arguments.source, arguments.mirror, arguments.force, progress)
    if arguments.verify:
        verify(dataset, arguments.out, progress)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
