"""MNIST: 60,000 training and 10,000 test images of handwritten digits, 28 x 28, from its IDX files.

Source: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits". The
records keep the files' order, as with Caffe's ``convert_mnist_data``.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lrbench_caffe.datasets.download import fetch
from lrbench_caffe.datasets.products import DatasetRecipe, ImageSet, Loaded, ProductTarget
from lrbench_caffe.errors import InputError, ParameterError, named
from lrbench_caffe.progress import Progress

SIZE = 28
CLASSES = 10
_SHAPE = (1, SIZE, SIZE)
_IMAGES_MAGIC, _LABELS_MAGIC = 2051, 2049
_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "http://yann.lecun.com/exdb/mnist/",
)

# file -> MD5 of the published file, uncompressed and as .gz
_PUBLISHED = {
    "train-images-idx3-ubyte": (
        "6bbc9ace898e44ae57da46a324031adb",
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    ),
    "train-labels-idx1-ubyte": (
        "a25bea736e30d166cdddb491f175f624",
        "d53e105ee54ea40749a09fcbcd1e9432",
    ),
    "t10k-images-idx3-ubyte": (
        "2646ac647ad5339dbf082846283269ea",
        "9fb629c4189551a2d022fa330f9573f3",
    ),
    "t10k-labels-idx1-ubyte": (
        "27ae3e4e09519cfbb04c329615203637",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
}


def read_images(path: Path, content: bytes) -> NDArray[np.uint8]:
    """The images (number, 1, 28, 28) of an IDX image file; ``path`` is for the error messages.

    Raises:
        InputError: another magic number, another image size, or a length that does not fit the
            header.
    """
    count, rows, columns = _header(path, content, _IMAGES_MAGIC, 3)
    if (rows, columns) != (SIZE, SIZE):
        raise InputError(f"{path}: images of {rows}x{columns} pixels; MNIST's are {SIZE}x{SIZE}")
    pixels = _body(path, content, 16, count * SIZE * SIZE)
    return pixels.reshape(count, *_SHAPE)


def read_labels(path: Path, content: bytes) -> NDArray[np.uint8]:
    """The labels (number) of an IDX label file; ``path`` is for the error messages.

    Raises:
        InputError: another magic number, a label above 9, or a length that does not fit the header.
    """
    (count,) = _header(path, content, _LABELS_MAGIC, 1)
    labels = _body(path, content, 8, count)
    wrong = np.flatnonzero(labels >= CLASSES)
    if wrong.size:
        raise InputError(
            f"{path}: label {wrong[0]} is {labels[wrong[0]]}; allowed are 0 to {CLASSES - 1}"
        )
    return labels


def _header(path: Path, content: bytes, magic: int, sizes: int) -> tuple[int, ...]:
    length = 4 * (sizes + 1)
    if len(content) < length:
        raise InputError(
            f"{path}: truncated, {len(content)} bytes; an IDX header alone has {length}"
        )
    number, *numbers = struct.unpack(f">{sizes + 1}I", content[:length])
    if number != magic:
        kind = "image" if magic == _IMAGES_MAGIC else "label"
        raise InputError(
            f"{path}: not an IDX {kind} file, its magic number is {number}; expected {magic}"
        )
    return tuple(numbers)


def _body(path: Path, content: bytes, start: int, length: int) -> NDArray[np.uint8]:
    size = len(content) - start
    if size != length:
        problem = "truncated" if size < length else "too long"
        raise InputError(
            f"{path}: {problem}, {size:,} bytes of data; its header announces {length:,}"
        )
    return np.frombuffer(content, np.uint8, offset=start)


def _find(source: Path, name: str) -> Path:
    if not source.is_dir():
        what = "is a file" if source.exists() else "no such folder"
        raise InputError(
            f"{named('source')} {source}: {what}; expected the folder with MNIST's four IDX files"
        )
    for candidate in (
        name,
        f"{name}.gz",
        name.replace("-idx", ".idx"),
        name.replace("-idx", ".idx") + ".gz",
    ):
        if (source / candidate).is_file():
            return source / candidate
    raise ParameterError("{source} {0}: it contains no {1} or {1}.gz", source, name)


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: truncated or damaged gzip file ({error})") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _load(source: Path | None, downloads: Path, mirror: str | None, progress: Progress) -> Loaded:
    contents: dict[str, tuple[Path, bytes]] = {}
    notes = []
    for name, (plain, packed) in _PUBLISHED.items():
        if source is None:
            path = fetch(f"{name}.gz", packed, downloads, _MIRRORS, mirror, progress)
        else:
            path = _find(source, name)
        content = _read(path)
        checksum = hashlib.md5(content).hexdigest()
        if checksum != plain:
            notes.append(
                f"{path}: not the published MNIST file (MD5 {checksum}, published {plain})"
            )
        contents[name] = path, content
    return Loaded(
        [_image_set("train", "train", contents), _image_set("test", "t10k", contents)], notes
    )


def _image_set(part: str, prefix: str, contents: dict[str, tuple[Path, bytes]]) -> ImageSet:
    images_path, images_content = contents[f"{prefix}-images-idx3-ubyte"]
    labels_path, labels_content = contents[f"{prefix}-labels-idx1-ubyte"]
    images = read_images(images_path, images_content)
    labels = read_labels(labels_path, labels_content)
    if len(images) != len(labels):
        images_found = f"{images_path.name} has {len(images):,} images"
        raise InputError(f"{labels_path}: {len(labels):,} labels; {images_found}")
    if not len(images):
        raise InputError(f"{images_path}: no images in it; expected at least one")
    return ImageSet(f"mnist_{part}_lmdb", images, labels, _SHAPE)


MNIST = DatasetRecipe(
    name="mnist",
    title="70,000 handwritten digits of 28x28 (LeNet)",
    download="11 MB",
    targets=[
        ProductTarget(
            "mnist_train_lmdb",
            _SHAPE,
            "62efbabeee844ff57549017d96603e76067e21bb372e06bfa77b9464536965ee",
        ),
        ProductTarget(
            "mnist_test_lmdb",
            _SHAPE,
            "35607cc0d0aa6f8a3b9f33264ecfee33d55a0511a0cf0e7bd0a2afbd320a4990",
        ),
    ],
    load=_load,
)
