"""IDX files: tiny ones made here, and the errors of bad ones."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrbench_caffe.datasets.lmdb_info import inspect, read_summary
from lrbench_caffe.datasets.mnist import MNIST, read_images, read_labels
from lrbench_caffe.errors import InputError
from lrbench_caffe.progress import SILENT

FILE = Path("folder/file")


def image_file(count: int, magic: int = 2051, rows: int = 28, columns: int = 28) -> bytes:
    """Image i is filled with the value i."""
    body = b"".join(bytes([number]) * (rows * columns) for number in range(count))
    return struct.pack(">4I", magic, count, rows, columns) + body


def label_file(labels: list[int], magic: int = 2049) -> bytes:
    return struct.pack(">2I", magic, len(labels)) + bytes(labels)


def make_source(folder: Path, packed: bool = True, **changes: bytes) -> Path:
    """Four tiny IDX files; ``changes`` replaces the content of some (train_images=...)."""
    contents = {
        "train_images": ("train-images-idx3-ubyte", image_file(3)),
        "train_labels": ("train-labels-idx1-ubyte", label_file([5, 0, 4])),
        "test_images": ("t10k-images-idx3-ubyte", image_file(2)),
        "test_labels": ("t10k-labels-idx1-ubyte", label_file([7, 2])),
    }
    folder.mkdir()
    for key, (name, content) in contents.items():
        content = changes.get(key, content)
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("packed", [True, False])
def test_lmdbs_from_tiny_files(tmp_path, packed):
    loaded = MNIST.load(
        make_source(tmp_path / "source", packed), tmp_path / "downloads", None, SILENT
    )
    for product in loaded.products:
        product.write(tmp_path / product.name)
    train = inspect(tmp_path / "mnist_train_lmdb")
    assert (train.entries, train.shape, train.first_label) == (3, (1, 28, 28), 5)
    assert read_summary(tmp_path / "mnist_train_lmdb").class_counts == {0: 1, 4: 1, 5: 1}
    assert read_summary(tmp_path / "mnist_test_lmdb").class_counts == {2: 1, 7: 1}
    assert not (tmp_path / "downloads").exists()


def test_order_is_the_files(tmp_path):
    train = MNIST.load(make_source(tmp_path / "source"), tmp_path, None, SILENT).products[0]
    assert train.labels.tolist() == [5, 0, 4]
    assert [int(image[0, 0, 0]) for image in train.images] == [0, 1, 2]


def test_files_that_are_not_the_published_ones_are_remarked(tmp_path):
    notes = MNIST.load(make_source(tmp_path / "source"), tmp_path, None, SILENT).notes
    assert len(notes) == 4
    assert "train-images-idx3-ubyte.gz: not the published MNIST file (MD5 " in notes[0]
    assert "published 6bbc9ace898e44ae57da46a324031adb" in notes[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "folder/file: truncated, 0 bytes; an IDX header alone has 16"),
        (
            image_file(2, magic=2049),
            "not an IDX image file, its magic number is 2049; expected 2051",
        ),
        (image_file(2, rows=32), "images of 32x28 pixels; MNIST's are 28x28"),
        (image_file(2)[:-1], "truncated, 1,567 bytes of data; its header announces 1,568"),
        (image_file(2) + b"x", "too long, 1,569 bytes of data; its header announces 1,568"),
    ],
)
def test_bad_image_files(content, message):
    with pytest.raises(InputError, match=message):
        read_images(FILE, content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            label_file([1], magic=2051),
            "not an IDX label file, its magic number is 2051; expected 2049",
        ),
        (label_file([1, 10]), "label 1 is 10; allowed are 0 to 9"),
        (label_file([1, 2])[:-1], "truncated, 1 bytes of data; its header announces 2"),
    ],
)
def test_bad_label_files(content, message):
    with pytest.raises(InputError, match=message):
        read_labels(FILE, content)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(content):
    for read in (read_images, read_labels):
        try:
            read(FILE, content)
        except InputError as error:
            assert str(error).startswith("folder/file: ")


@given(st.integers(0, len(image_file(2)) - 1))
def test_every_truncation_is_found(length):
    with pytest.raises(InputError, match="truncated"):
        read_images(FILE, image_file(2)[:length])


@given(st.lists(st.integers(0, 9), max_size=50))
def test_labels_round_trip(labels):
    assert read_labels(FILE, label_file(labels)).tolist() == labels


def test_other_number_of_labels(tmp_path):
    source = make_source(tmp_path / "source", train_labels=label_file([1, 2]))
    with pytest.raises(InputError, match=r"2 labels; train-images-idx3-ubyte\.gz has 3 images"):
        MNIST.load(source, tmp_path, None, SILENT)


def test_no_images(tmp_path):
    empty = {"train_images": image_file(0), "train_labels": label_file([])}
    with pytest.raises(InputError, match="no images in it; expected at least one"):
        MNIST.load(make_source(tmp_path / "source", **empty), tmp_path, None, SILENT)


def test_truncated_gzip(tmp_path):
    source = make_source(tmp_path / "source")
    path = source / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(
        InputError, match=r"t10k-labels-idx1-ubyte\.gz: truncated or damaged gzip file"
    ):
        MNIST.load(source, tmp_path, None, SILENT)


def test_missing_sources(tmp_path):
    with pytest.raises(
        InputError, match="nowhere: no such folder; expected the folder with MNIST's four IDX"
    ):
        MNIST.load(tmp_path / "nowhere", tmp_path, None, SILENT)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: is a file; expected the folder"):
        MNIST.load(tmp_path / "file", tmp_path, None, SILENT)
    source = make_source(tmp_path / "source")
    (source / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(
        InputError, match=r"it contains no t10k-images-idx3-ubyte or t10k-images-idx3-ubyte\.gz"
    ):
        MNIST.load(source, tmp_path, None, SILENT)


def test_names_with_a_dot_are_found(tmp_path):
    source = make_source(tmp_path / "source", packed=False)
    (source / "train-images-idx3-ubyte").rename(source / "train-images.idx3-ubyte")
    assert len(MNIST.load(source, tmp_path, None, SILENT).products) == 2


def test_labels_are_bytes():
    assert read_labels(FILE, label_file([3])).dtype == np.uint8
