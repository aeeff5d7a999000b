"""The real MNIST and CIFAR-10, where LRBENCH_TEST_DATA names a folder with ``mnist/`` and ``cifar10/``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lrbench_caffe.datasets.catalogue import DATASETS
from lrbench_caffe.datasets.datum import BlobProto
from lrbench_caffe.datasets.lmdb_info import inspect, read_summary
from lrbench_caffe.datasets.making import make

FOLDER = os.environ.get("LRBENCH_TEST_DATA")
pytestmark = pytest.mark.skipif(
    FOLDER is None, reason="LRBENCH_TEST_DATA does not name the real data"
)


def test_mnist(tmp_path, capsys):
    make(DATASETS["mnist"], tmp_path, Path(FOLDER or "") / "mnist")
    assert "note" not in capsys.readouterr().out
    for target in DATASETS["mnist"].targets:
        assert read_summary(tmp_path / target.name).digest == target.digest
    train = read_summary(tmp_path / "mnist_train_lmdb")
    # Images per digit as published.
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert train.class_counts == dict(enumerate(counts))


@pytest.mark.slow
def test_cifar10(tmp_path):
    make(DATASETS["cifar10"], tmp_path, Path(FOLDER or "") / "cifar10")
    assert read_summary(tmp_path / "cifar10_train_lmdb").class_counts == dict.fromkeys(
        range(10), 5000
    )
    assert read_summary(tmp_path / "cifar10_test_lmdb").class_counts == dict.fromkeys(
        range(10), 1000
    )
    assert inspect(tmp_path / "cifar10_pad4_train_lmdb").shape == (3, 40, 40)
    blob = BlobProto.FromString((tmp_path / "cifar10_mean.binaryproto").read_bytes())
    means = [sum(blob.data[start : start + 1024]) / 1024 for start in (0, 1024, 2048)]
    assert means == pytest.approx([125.307, 122.950, 113.865], abs=0.001)
