"""The digits: 1,797 real handwritten digits of 8 x 8 pixels that come with the package.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository (1998), https://doi.org/10.24432/C50P49, CC BY 4.0; the 1,797 test images, as in
scikit-learn's ``load_digits``. See README.md in this folder.
"""

from __future__ import annotations

import gzip
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lrbench_caffe.datasets.products import DatasetRecipe, ImageSet, Loaded, ProductTarget
from lrbench_caffe.progress import Progress

SIZE = 8
TRAINING = 1297  # the first 1,297 images; the last 500 are the test set
_SHAPE = (1, SIZE, SIZE)


def read_digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The images (1797, 1, 8, 8), scaled to 0..255, and their labels (1797), in the published order.

    A pixel counts the ink dots of a 4 x 4 block, 0..16; it becomes 255/16 times that, rounded half
    up, so that Caffe's usual scale of 1/256 fits these images as it fits MNIST.
    """
    packed = files("lrbench_caffe.datasets").joinpath("digits.csv.gz").read_bytes()
    lines = gzip.decompress(packed).decode("ascii").splitlines()
    table = np.loadtxt(lines, delimiter=",", dtype=np.uint16)
    pixels, labels = table[:, :-1], table[:, -1]
    scaled = (pixels * 255 + 8) // 16
    return scaled.astype(np.uint8).reshape(-1, *_SHAPE), labels.astype(np.uint8)


def _load(_source: Path | None, _downloads: Path, _mirror: str | None, _: Progress) -> Loaded:
    images, labels = read_digits()
    train = ImageSet("digits_train_lmdb", images[:TRAINING], labels[:TRAINING], _SHAPE)
    test = ImageSet("digits_test_lmdb", images[TRAINING:], labels[TRAINING:], _SHAPE)
    return Loaded([train, test])


DIGITS = DatasetRecipe(
    name="digits",
    title="1,797 handwritten digits of 8x8 that come with the package, no download",
    targets=[
        ProductTarget(
            "digits_train_lmdb",
            _SHAPE,
            "30f31886c3b4752e4b00349b65cbc141e95e4594731a1a04474c0ad9104f2aaa",
        ),
        ProductTarget(
            "digits_test_lmdb",
            _SHAPE,
            "910dcfb96319a8a86dd8e62c7fb6469d5963d0164d2d514e72abf711e05257cc",
        ),
    ],
    load=_load,
)
