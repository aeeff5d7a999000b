"""Make the LMDBs that the solvers in ``solvers/`` read."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lrbench_caffe.datasets.catalogue import DATASETS
from lrbench_caffe.datasets.lmdb_info import read_summary
from lrbench_caffe.datasets.lmdb_writer import locked
from lrbench_caffe.datasets.products import DatasetRecipe, ProductTarget
from lrbench_caffe.errors import InputError
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
        type=Path,
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
    make(dataset, arguments.out, arguments.source, arguments.mirror, arguments.force)
    if arguments.verify:
        verify(dataset, arguments.out)
    return 0


def make(
    dataset: DatasetRecipe,
    out: Path,
    source: Path | None = None,
    mirror: str | None = None,
    force: bool = False,
) -> None:
    """Write the products of a data set that are missing in the folder ``out``, all of them with ``force``.

    Raises:
        InputError: anything wrong with the source, the download or the folder.
    """
    with locked(out):
        missing = [
            target for target in dataset.targets if force or not _report_present(target, out)
        ]
        if not missing:
            return
        progress = Bars()
        loaded = dataset.load(source, out / "downloads", mirror, progress)
        for note in loaded.notes:
            print(f"note: {note}")
        names = {target.name for target in missing}
        for product in loaded.products:
            if product.name in names:
                print(
                    f"{out / product.name}: {product.write(out / product.name, progress)}",
                    flush=True,
                )


def verify(dataset: DatasetRecipe, out: Path) -> None:
    """Read every record of a data set back; print its digest and whether it is that of the published data."""
    for target in dataset.targets:
        if target.is_mean:
            continue
        summary = read_summary(out / target.name)
        verdict = "every record reads back"
        if target.digest is not None:
            same = summary.digest == target.digest
            verdict += (
                ", identical to the published data" if same else ", differs from the published data"
            )
        print(f"{out / target.name}: {summary}; {verdict}")


def _report_present(target: ProductTarget, out: Path) -> bool:
    line = target.present(out / target.name)
    if line is not None:
        print(f"{out / target.name}: already there ({line})")
    return line is not None


if __name__ == "__main__":
    sys.exit(run(main))
