"""CIFAR-10: 50,000 training and 10,000 test colour images of 32 x 32 in 10 classes, from its binary batches.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009). A batch file
holds 10,000 records of one label byte and 3,072 pixel bytes: the planes R, G, B. The records keep
the files' order and get keys of five digits, as with Caffe's ``convert_cifar_data``.

Besides the two LMDBs, it writes what the nets need:

- ``cifar10_mean.binaryproto`` (CNN3): the per-pixel mean of the training set, as
  ``compute_image_mean`` writes it.
- ``cifar10_pad4_train_lmdb`` (ResNet): the training images with a border of 4 pixels (40 x 40), of
  which the net crops 32 x 32 at random. The border holds each channel's training mean, rounded
  (125, 123, 114): about zero once the mean is subtracted, and He et al. (2015) pad with zeros after
  subtracting it. Test images stay 32 x 32.
"""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lrbench_caffe.datasets.download import fetch, md5_of
from lrbench_caffe.datasets.products import (
    DatasetRecipe,
    ImageSet,
    Loaded,
    MeanImage,
    Product,
    ProductTarget,
)
from lrbench_caffe.errors import InputError, named
from lrbench_caffe.progress import Progress

Pixels = NDArray[np.uint8]

SIZE = 32
PAD = 4
CLASSES = 10
KEY_DIGITS = 5
RECORDS_PER_BATCH = 10_000
_BLOCK = 1 << 20
_SHAPE = (3, SIZE, SIZE)
_PADDED_SHAPE = (3, SIZE + 2 * PAD, SIZE + 2 * PAD)
_RECORD = 1 + 3 * SIZE * SIZE
_TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_TEST_FILE = "test_batch.bin"
_FILES = (*_TRAIN_FILES, _TEST_FILE)
_FOLDER = "cifar-10-batches-bin"
_ARCHIVE = "cifar-10-binary.tar.gz"
_ARCHIVE_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
_MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
# The first labels of data_batch_1.bin as published: frog, truck, truck, deer, automobile, ...
_PUBLISHED_FIRST_LABELS = (6, 9, 9, 4, 1, 1, 2, 7, 8, 3)


def parse_batch(name: str, content: bytes, records: int) -> tuple[Pixels, Pixels]:
    """The images (records, 3, 32, 32) and labels (records) of a batch file called ``name`` in messages.

    Raises:
        InputError: a length that is not records x 3,073 bytes, or a label above 9.
    """
    if len(content) != records * _RECORD:
        problem = "truncated" if len(content) < records * _RECORD else "too long"
        raise InputError(
            f"{name}: {problem}, {len(content):,} bytes; expected {records * _RECORD:,} "
            f"({records:,} records of {_RECORD:,})"
        )
    table = np.frombuffer(content, np.uint8).reshape(records, _RECORD)
    labels = table[:, 0].copy()
    wrong = np.flatnonzero(labels >= CLASSES)
    if wrong.size:
        raise InputError(
            f"{name}: the label of record {wrong[0]} is {labels[wrong[0]]}; allowed are 0 to 9"
        )
    return table[:, 1:].reshape(records, *_SHAPE), labels


def mean_image(images: Pixels) -> NDArray[np.float32]:
    """The per-pixel mean (channels, height, width) of images (number, channels, height, width).

    Rounded as in Caffe's ``compute_image_mean``: it sums in single precision, which is exact here
    (50,000 x 255 is below 2^24), and divides in single precision.
    """
    total = np.zeros(images.shape[1:], np.int64)
    for start in range(0, len(images), 1000):
        total += images[start : start + 1000].sum(axis=0, dtype=np.int64)
    return np.asarray(total.astype(np.float32) / np.float32(len(images)))


def padded(images: Pixels, border: Pixels, pad: int = PAD) -> Iterator[Pixels]:
    """Each image with ``pad`` pixels around it; ``border`` holds their value, one per channel."""
    _, channels, height, width = images.shape
    canvas = np.empty((channels, height + 2 * pad, width + 2 * pad), np.uint8)
    canvas[:] = border[:, None, None]
    for image in images:
        canvas[:, pad : pad + height, pad : pad + width] = image
        yield canvas.copy()


def find_source(source: Path) -> Path:
    """The folder with the six batch files, or the archive of them, that ``source`` stands for.

    Raises:
        InputError: there is neither.
    """
    if not source.exists():
        raise InputError(
            f"{named('source')} {source}: no such file or folder; expected {_ARCHIVE} or {_FOLDER}"
        )
    if source.is_file():
        return source
    for folder in (source, source / _FOLDER):
        if any((folder / name).is_file() for name in _FILES):
            return folder
    archives = sorted(source.glob("cifar-10-binary.tar*"))
    if archives:
        return archives[0]
    raise InputError(
        f"{named('source')} {source}: there are neither the batches ({_TRAIN_FILES[0]}, ...) "
        "nor cifar-10-binary.tar* in it"
    )


def _read_folder(folder: Path) -> dict[str, bytes]:
    try:
        return {name: (folder / name).read_bytes() for name in _FILES}
    except FileNotFoundError as error:
        raise InputError(
            f"{error.filename}: missing; the six batches of CIFAR-10 are needed"
        ) from error
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error


def _read_archive(path: Path, progress: Progress) -> dict[str, bytes]:
    try:
        contents = dict(_batches_in(path, progress))
    except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise InputError(f"{path}: truncated or damaged archive ({error})") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    missing = [name for name in _FILES if name not in contents]
    if missing:
        raise InputError(f"{path}: {missing[0]} is missing; the six batches of CIFAR-10 are needed")
    return contents


def _batches_in(path: Path, progress: Progress) -> Iterator[tuple[str, bytes]]:
    """The names and contents of the batch files in an archive, as they come."""
    bar = progress.bar(f"reading {path.name}", path.stat().st_size, in_bytes=True)
    # A stream: the archive is unpacked once, and nothing of it reaches the disk.
    with open(path, "rb") as file, bar as moved, tarfile.open(fileobj=file, mode="r|*") as archive:
        for member in archive:
            name = Path(member.name).name
            unpacked = archive.extractfile(member) if name in _FILES else None
            if unpacked is None:
                continue
            blocks = []
            for block in iter(partial(unpacked.read, _BLOCK), b""):
                blocks.append(block)
                moved(file.tell())
            yield name, b"".join(blocks)


def build(contents: dict[str, bytes], records: int = RECORDS_PER_BATCH) -> Loaded:
    """The products of the six batch files, each of ``records`` records (fewer than 10,000 in tests only).

    Raises:
        InputError: a wrong length or label, or classes of unequal size.
    """
    batches = [parse_batch(name, contents[name], records) for name in _FILES]
    images = np.concatenate([images for images, _ in batches[:-1]])
    labels = np.concatenate([labels for _, labels in batches[:-1]])
    test_images, test_labels = batches[-1]
    _check_classes("the training batches", labels)
    _check_classes(_TEST_FILE, test_labels)
    notes = []
    if tuple(labels[: len(_PUBLISHED_FIRST_LABELS)]) != _PUBLISHED_FIRST_LABELS:
        notes.append("the training records are in another order than in the published files")
    mean = mean_image(images)
    border = np.rint(mean.mean(axis=(1, 2), dtype=np.float64)).astype(np.uint8)
    products: list[Product] = [
        ImageSet("cifar10_train_lmdb", images, labels, _SHAPE, KEY_DIGITS),
        ImageSet("cifar10_test_lmdb", test_images, test_labels, _SHAPE, KEY_DIGITS),
        MeanImage("cifar10_mean.binaryproto", mean),
        ImageSet(
            "cifar10_pad4_train_lmdb", padded(images, border), labels, _PADDED_SHAPE, KEY_DIGITS
        ),
    ]
    return Loaded(products, notes)


def _check_classes(where: str, labels: Pixels) -> None:
    expected = len(labels) // CLASSES
    for label, count in enumerate(np.bincount(labels, minlength=CLASSES)):
        if count != expected:
            raise InputError(
                f"{where}: class {label} has {count:,} images; expected {expected:,} of each"
            )


def _load(source: Path | None, downloads: Path, mirror: str | None, progress: Progress) -> Loaded:
    if source is None:
        path = fetch(_ARCHIVE, _ARCHIVE_MD5, downloads, _MIRRORS, mirror, progress)
        return build(_read_archive(path, progress))
    path = find_source(source)
    if path.is_dir():
        return build(_read_folder(path))
    loaded = build(_read_archive(path, progress))
    checksum = md5_of(path)
    if checksum == _ARCHIVE_MD5:
        return loaded
    note = f"not the published archive (MD5 {checksum}, published {_ARCHIVE_MD5}), but its structure is right"
    return Loaded(loaded.products, [f"{path}: {note}", *loaded.notes])


CIFAR10 = DatasetRecipe(
    name="cifar10",
    title="60,000 colour images of 32x32 (CNN3, ResNet-32)",
    download="170 MB",
    targets=[
        ProductTarget("cifar10_train_lmdb", _SHAPE),
        ProductTarget("cifar10_test_lmdb", _SHAPE),
        ProductTarget("cifar10_mean.binaryproto", _SHAPE),
        ProductTarget("cifar10_pad4_train_lmdb", _PADDED_SHAPE),
    ],
    load=_load,
)
