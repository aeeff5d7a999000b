"""The data sets that the ``data`` command makes."""

from __future__ import annotations

import shlex
from pathlib import Path

from lrbench_caffe import installation
from lrbench_caffe.datasets.cifar10 import CIFAR10
from lrbench_caffe.datasets.digits import DIGITS
from lrbench_caffe.datasets.mnist import MNIST

DATASETS = {dataset.name: dataset for dataset in (DIGITS, MNIST, CIFAR10)}


def command_for(path: Path) -> str | None:
    """The command that makes the file or folder ``path``, None where there is none.

    >>> command_for(Path("data/mnist_train_lmdb"))
    'python -m lrbench_caffe.data mnist'
    """
    for dataset in DATASETS.values():
        if any(target.name == path.name for target in dataset.targets):
            out = "" if path.parent == Path("data") else f" --out {shlex.quote(str(path.parent))}"
            return f"{installation.command('data')} {dataset.name}{out}"
    return None
