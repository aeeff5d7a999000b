"""CIFAR-10's binary batches: tiny ones made here, mean and padding by hand, and the errors of bad ones."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import lmdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lrbench_caffe.datasets.cifar10 import (
    _read_archive,
    _read_folder,
    build,
    find_source,
    mean_image,
    padded,
    parse_batch,
)
from lrbench_caffe.datasets.datum import BlobProto, Datum
from lrbench_caffe.datasets.lmdb_info import inspect, read_summary
from lrbench_caffe.errors import InputError
from lrbench_caffe.progress import SILENT

NAMES = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
RECORDS = 10


def batch(number: int, labels: list[int]) -> bytes:
    """A record per label; its red plane holds 40 * number, its green plane the label, its blue plane 200."""
    planes = lambda label: bytes([40 * number]) * 1024 + bytes([label]) * 1024 + bytes([200]) * 1024  # noqa: E731
    return b"".join(bytes([label]) + planes(label) for label in labels)


def tiny() -> dict[str, bytes]:
    """Six batches of ten records, one of each class, in another order in each."""
    return {
        name: batch(i, [(label + i) % 10 for label in range(10)]) for i, name in enumerate(NAMES)
    }


def write_all(folder: Path) -> Path:
    for product in build(tiny(), RECORDS).products:
        product.write(folder / product.name)
    return folder


def test_lmdbs(tmp_path):
    write_all(tmp_path)
    train = inspect(tmp_path / "cifar10_train_lmdb")
    assert (train.entries, train.shape, train.first_label, train.first_key) == (
        50,
        (3, 32, 32),
        0,
        b"00000",
    )
    assert inspect(tmp_path / "cifar10_test_lmdb").entries == 10
    assert inspect(tmp_path / "cifar10_test_lmdb").first_label == 5
    assert read_summary(tmp_path / "cifar10_train_lmdb").class_counts == dict.fromkeys(range(10), 5)


def test_order_is_the_files():
    train = build(tiny(), RECORDS).products[0]
    assert train.labels[:20].tolist() == [
        0,
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        8,
        9,
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        8,
        9,
        0,
    ]
    assert [int(image[0, 0, 0]) for image in list(train.images)[::10]] == [0, 40, 80, 120, 160]


def test_mean_by_hand(tmp_path):
    write_all(tmp_path)
    blob = BlobProto.FromString((tmp_path / "cifar10_mean.binaryproto").read_bytes())
    assert (blob.num, blob.channels, blob.height, blob.width) == (1, 3, 32, 32)
    # Red: (0 + 40 + 80 + 120 + 160) / 5 = 80. Green: labels 0 to 9 equally often, 4.5. Blue: 200.
    assert list(blob.data) == [80.0] * 1024 + [4.5] * 1024 + [200.0] * 1024


def test_mean_of_two_images():
    images = np.array([[[[0, 255]]], [[[1, 255]]], [[[1, 255]]]], np.uint8)
    # 2/3 rounded to single precision, 255 exactly.
    assert mean_image(images).tolist() == [[[float(np.float32(2 / 3)), 255.0]]]


@settings(deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 40), st.just(2), st.just(3), st.just(3))))
def test_mean_against_numpy(images):
    np.testing.assert_allclose(
        mean_image(images), images.astype(np.float64).mean(axis=0), rtol=1e-6
    )


def test_padding_by_hand():
    image = np.array([[[1, 2], [3, 4]], [[5, 6], [7, 8]]], np.uint8)
    (result,) = padded(image[None], np.array([9, 0], np.uint8), pad=1)
    assert result[0].tolist() == [[9, 9, 9, 9], [9, 1, 2, 9], [9, 3, 4, 9], [9, 9, 9, 9]]
    assert result[1].tolist() == [[0, 0, 0, 0], [0, 5, 6, 0], [0, 7, 8, 0], [0, 0, 0, 0]]


@given(arrays(np.uint8, (3, 2, 3, 4)), st.integers(0, 3))
def test_padding_against_numpy(images, pad):
    border = np.array([11, 22], np.uint8)
    sides = ((0, 0), (pad, pad), (pad, pad))
    for image, result in zip(images, padded(images, border, pad)):
        for channel in range(2):
            expected = np.pad(image, sides, constant_values=border[channel])[channel]
            assert np.array_equal(result[channel], expected)


def test_padded_lmdb(tmp_path):
    write_all(tmp_path)
    info = inspect(tmp_path / "cifar10_pad4_train_lmdb")
    assert (info.entries, info.shape) == (50, (3, 40, 40))
    environment = lmdb.open(str(tmp_path / "cifar10_pad4_train_lmdb"), readonly=True, lock=False)
    with environment, environment.begin() as transaction:
        datum = Datum.FromString(transaction.get(b"00011"))
    image = np.frombuffer(datum.data, np.uint8).reshape(3, 40, 40)
    # Record 11 is the second of batch 2: label 2, red 40. The border is the mean: 80, 4.5 (to
    # even), 200.
    assert datum.label == 2
    assert (
        image[:, 0, 0].tolist()
        == image[:, 39, 20].tolist()
        == image[:, 20, 3].tolist()
        == [80, 4, 200]
    )
    assert image[:, 4, 4].tolist() == image[:, 35, 35].tolist() == [40, 2, 200]


def test_another_order_is_remarked_and_the_published_is_not():
    assert build(tiny(), RECORDS).notes == [
        "the training records are in another order than in the published files"
    ]
    published = tiny()
    # The ten first labels as published; batch 2 makes up for what they have too much and too little
    # of.
    published[NAMES[0]] = batch(0, [6, 9, 9, 4, 1, 1, 2, 7, 8, 3])
    published[NAMES[1]] = batch(1, [0, 0, 5, 5, 2, 3, 4, 6, 7, 8])
    assert build(published, RECORDS).notes == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            NAMES[2],
            b"",
            r"data_batch_3.bin: truncated, 0 bytes; expected 30,730 \(10 records of 3,073\)",
        ),
        (NAMES[2], batch(2, [*range(10), 0]), "too long, 33,803 bytes; expected 30,730"),
        (NAMES[0], batch(0, [*range(9), 10]), "the label of record 9 is 10; allowed are 0 to 9"),
        (
            NAMES[0],
            batch(0, [*range(9), 8]),
            "the training batches: class 8 has 6 images; expected 5 of each",
        ),
        (
            NAMES[5],
            batch(0, [*range(9), 0]),
            "test_batch.bin: class 0 has 2 images; expected 1 of each",
        ),
    ],
)
def test_bad_batches(name, content, message):
    with pytest.raises(InputError, match=message):
        build({**tiny(), name: content}, RECORDS)


@given(st.integers(0, 2 * 3073 - 1))
def test_every_truncation_is_found(length):
    with pytest.raises(InputError, match="truncated"):
        parse_batch("b", batch(1, [1, 2])[:length], 2)


def make_tar(path: Path, mode: str, leave_out: str = "") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in tiny().items():
            if name != leave_out:
                member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("kind", ["", "gz", "xz", "bz2"])
def test_archives(tmp_path, kind):
    path = make_tar(tmp_path / f"cifar-10-binary.tar.{kind}".rstrip("."), f"w:{kind}")
    assert find_source(path) == path
    assert find_source(tmp_path) == path
    assert _read_archive(path, SILENT) == tiny()


def test_folders(tmp_path):
    inner = tmp_path / "cifar-10-batches-bin"
    inner.mkdir()
    for name, content in tiny().items():
        (inner / name).write_bytes(content)
    assert find_source(tmp_path) == inner
    assert find_source(inner) == inner
    assert _read_folder(inner) == tiny()
    (inner / NAMES[3]).unlink()
    with pytest.raises(
        InputError, match=r"data_batch_4\.bin: missing; the six batches of CIFAR-10 are needed"
    ):
        _read_folder(inner)


@pytest.mark.parametrize("kind", ["gz", "xz"])
def test_truncated_archive(tmp_path, kind):
    path = make_tar(tmp_path / f"c.tar.{kind}", f"w:{kind}")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(
        InputError, match=r"c\.tar\.\w+: (truncated or damaged archive|data_batch_)"
    ):
        _read_archive(path, SILENT)


def test_other_bad_sources(tmp_path):
    with pytest.raises(
        InputError, match=r"no such file or folder; expected cifar-10-binary\.tar\.gz"
    ):
        find_source(tmp_path / "nowhere")
    with pytest.raises(InputError, match="there are neither the batches"):
        find_source(tmp_path)
    (tmp_path / "junk").write_bytes(b"junk" * 1000)
    with pytest.raises(InputError, match="junk: truncated or damaged archive"):
        _read_archive(tmp_path / "junk", SILENT)
    with pytest.raises(InputError, match=r"test_batch\.bin is missing;"):
        _read_archive(make_tar(tmp_path / "part.tar", "w:", leave_out="test_batch.bin"), SILENT)
