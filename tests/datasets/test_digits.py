"""The digits that come with the package."""

from __future__ import annotations

import numpy as np

from lrbench_caffe.datasets.digits import DIGITS, TRAINING, read_digits
from lrbench_caffe.datasets.lmdb_info import inspect, read_summary
from lrbench_caffe.progress import SILENT

# The published test set of UCI's Optical Recognition of Handwritten Digits: images per digit, 0 to
# 9.
PER_DIGIT = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_counts_per_digit():
    images, labels = read_digits()
    assert images.shape == (1797, 1, 8, 8)
    assert images.dtype == np.uint8
    assert np.bincount(labels).tolist() == PER_DIGIT


def test_first_image_by_hand():
    images, labels = read_digits()
    # The file's first line begins 0,0,5,13,9,1,0,0 and is a 0. 255/16 = 15.9375; 5 -> 79.69, 13 ->
    # 207.19, 9 -> 143.44, 1 -> 15.94.
    assert labels[0] == 0
    assert images[0, 0, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]


def test_scale_covers_the_bytes():
    images, _ = read_digits()
    values = np.unique(images)
    assert values.min() == 0 and values.max() == 255
    assert len(values) == 17
    assert 128 in values  # 8 of 16: 127.5, rounded up


def test_lmdbs(tmp_path):
    train, test = DIGITS.load(None, tmp_path, None, SILENT).products
    train.write(tmp_path / "train_lmdb")
    test.write(tmp_path / "test_lmdb")
    _, labels = read_digits()
    assert inspect(tmp_path / "train_lmdb").entries == TRAINING == 1297
    assert inspect(tmp_path / "test_lmdb").entries == 500
    assert inspect(tmp_path / "test_lmdb").first_label == labels[1297]
    together = [read_summary(tmp_path / name).class_counts for name in ("train_lmdb", "test_lmdb")]
    assert [together[0][digit] + together[1][digit] for digit in range(10)] == PER_DIGIT
    digests = [read_summary(tmp_path / name).digest for name in ("train_lmdb", "test_lmdb")]
    assert digests == [target.digest for target in DIGITS.targets]
