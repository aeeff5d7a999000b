"""Making a data set's LMDBs in a folder, and reading them back."""

from __future__ import annotations

from pathlib import Path

from lrbench_caffe.datasets.lmdb_info import read_summary
from lrbench_caffe.datasets.lmdb_writer import locked
from lrbench_caffe.datasets.products import DatasetRecipe, ProductTarget
from lrbench_caffe.progress import SILENT, Progress


def make(
    dataset: DatasetRecipe,
    out: Path,
    source: Path | None = None,
    mirror: str | None = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> None:
    """Write the products of a data set that are missing in the folder ``out``, all of them with ``force``.

    Raises:
        InputError: anything wrong with the source, the download or the folder.
    """
    with locked(out):
        missing = [
            target for target in dataset.targets if force or not _is_there(target, out, progress)
        ]
        if not missing:
            return
        loaded = dataset.load(source, out / "downloads", mirror, progress)
        for note in loaded.notes:
            progress.say(f"note: {note}")
        names = {target.name for target in missing}
        for product in loaded.products:
            if product.name in names:
                made = product.write(out / product.name, progress)
                progress.say(f"{out / product.name}: {made}")


def verify(dataset: DatasetRecipe, out: Path, progress: Progress = SILENT) -> None:
    """Read every record of a data set back; tell its digest and whether it is that of the published data."""
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
        progress.say(f"{out / target.name}: {summary}; {verdict}")


def _is_there(target: ProductTarget, out: Path, progress: Progress) -> bool:
    line = target.present(out / target.name)
    if line is not None:
        progress.say(f"{out / target.name}: already there ({line})")
    return line is not None
