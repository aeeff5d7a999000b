"""The files that a data set becomes: image sets (LMDBs) and mean images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Protocol

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from lrbench_caffe.datasets.datum import BlobProto, mean_bytes
from lrbench_caffe.datasets.lmdb_info import inspect
from lrbench_caffe.datasets.lmdb_writer import write_file, write_lmdb
from lrbench_caffe.errors import InputError, ParameterError
from lrbench_caffe.progress import SILENT, Progress

Shape = tuple[int, int, int]


class Product(Protocol):
    """One file or folder of a data set, ready to be written."""

    @property
    def name(self) -> str: ...

    def write(self, path: Path, progress: Progress = SILENT) -> str:
        """Write it under its final name, whole or not at all; returns a line about what was written."""
        ...


@dataclass(frozen=True)
class ImageSet:
    """Images (each channels x height x width, uint8) and labels that become one LMDB."""

    name: str
    images: Iterable[NDArray[np.uint8]]
    labels: NDArray[np.uint8]
    shape: Shape
    key_digits: int = 8

    def write(self, path: Path, progress: Progress = SILENT) -> str:
        return str(
            write_lmdb(path, self.images, self.labels, self.shape, self.key_digits, progress)
        )


@dataclass(frozen=True)
class MeanImage:
    """A mean image of shape (channels, height, width) that becomes a ``.binaryproto`` file."""

    name: str
    mean: NDArray[np.float32]

    def write(self, path: Path, progress: Progress = SILENT) -> str:
        write_file(path, mean_bytes(self.mean))
        channels = ", ".join(
            f"{value:.3f}" for value in self.mean.mean(axis=(1, 2), dtype=np.float64)
        )
        return f"mean image of {'x'.join(map(str, self.mean.shape))}, channel means {channels}"


@dataclass(frozen=True)
class Loaded:
    """A data set read from its source: the products to write and remarks for the user."""

    products: Sequence[Product]
    notes: Sequence[str] = ()


# Source (None to download), folder of downloads, mirror, and the receiver of the progress.
Load = Callable[[Optional[Path], Path, Optional[str], Progress], Loaded]


@dataclass(frozen=True)
class ProductTarget:
    """A product's name and shape, known before its source is read."""

    name: str
    shape: Shape
    digest: str | None = None  # of the published data, where its order is published too

    @property
    def is_mean(self) -> bool:
        return self.name.endswith(".binaryproto")

    def present(self, path: Path) -> str | None:
        """A line about the product that already exists at ``path``; None if there is none.

        Raises:
            InputError: something else is there.
        """
        if not path.exists():
            return None
        try:
            there, text = _mean_shape(path) if self.is_mean else _lmdb_shape(path)
        except InputError as error:
            raise ParameterError("{0}; {force} replaces it", error) from error
        if there != self.shape:
            have, want = ("x".join(map(str, shape)) for shape in (there, self.shape))
            raise ParameterError(
                "{0} exists, but contains {1} instead of {2}; {force} replaces it", path, have, want
            )
        return f"{text} of {'x'.join(map(str, there))}"


@dataclass(frozen=True)
class DatasetRecipe:
    """A data set: its name, what it becomes, and how it is read (see ``Load``).

    ``download`` says how much is downloaded where no source is given; None for nothing.
    """

    name: str
    title: str
    targets: Sequence[ProductTarget]
    load: Load
    download: str | None = None


def _lmdb_shape(path: Path) -> tuple[Shape, str]:
    info = inspect(path)
    return info.shape, f"{info.entries:,} images"


def _mean_shape(path: Path) -> tuple[Shape, str]:
    try:
        blob = BlobProto.FromString(path.read_bytes())
    except (DecodeError, OSError) as error:
        raise InputError(f"{path} exists, but is not a mean image") from error
    return (blob.channels, blob.height, blob.width), "mean image"
