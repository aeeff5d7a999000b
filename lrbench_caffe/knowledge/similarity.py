"""The similarity of two tasks, from 0 to 1: may a policy of one be tried on the other?

similarity(a, b) = (data(a, b) + network(a, b)) / 2, 0 where the task types differ.

Two numbers are as alike as q(x, y) = 1 / (1 + |log10(x / y)|): 1 where they are equal, 1/2 where
one is ten times the other, 1/3 where it is a hundred times. One that is not known counts 1/2.

data     1 for the same data, else 0.9 * mean(q(channels), q(pixels), q(classes), q(training samples))
network  1 for the same net, else 0.9 * mean(family, q(parameters), q(depth)); family = sum over the layer
         types of min(count) / sum of max(count), 1 for the same layers

Data is the same where digest, shape, classes and numbers of samples are equal; where one has no
digest (the paper's), the name takes its place. Nets are the same where their digests are equal. The
framework does not count: an LR policy does the same on a CPU and a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from lrbench_caffe.records import Dataset, Network, Task

SAME = 1.0  # similarity of a task to itself
OTHER = 0.9  # at most, for data or nets of the same form that are not the same
UNKNOWN = 0.5
HELD_OUT = (
    "_holdout"  # how names of data sets end whose test records were held out of a training set
)


def similarity(a: Task, b: Task) -> float:
    """How alike two tasks are: symmetric, in [0, 1], 1 for the same data and net (see the module)."""
    if a.task_type != b.task_type:
        return 0.0
    if replace(a, id=None) == replace(b, id=None):
        return 1.0  # even if too little is known of the data to distinguish it from other data
    return (data_similarity(a.dataset, b.dataset) + network_similarity(a.network, b.network)) / 2


def comparable(a: Task, b: Task) -> bool:
    """Whether what was measured on one task holds for the other, as in a ranking of both.

    This is wider than the identity under which a database stores tasks
    (``database.rows.task_key``), which keeps apart what may differ: the framework does not
    count here, and the data is taken to be the same where only its name and form are known.
    """
    return similarity(a, b) == SAME


def is_held_out(a: Task, of: Task) -> bool:
    """Whether one task is another one trained on a part of its training records and tested on the
    others, as ``tune`` does to choose."""
    data, whole = a.dataset, of.dataset
    parts = (data.train_samples, data.test_samples, whole.train_samples)
    return (
        a.task_type == of.task_type
        and a.network.digest == of.network.digest
        and data.name == whole.name + HELD_OUT
        and (data.channels, data.height, data.width, data.classes)
        == (whole.channels, whole.height, whole.width, whole.classes)
        and (None in parts or sum(parts[:2]) == parts[2])  # type: ignore[arg-type]
    )


def data_similarity(a: Dataset, b: Dataset) -> float:
    if same_data(a, b):
        return 1.0
    alike = (
        closeness(a.channels, b.channels),
        closeness(_pixels(a), _pixels(b)),
        closeness(a.classes, b.classes),
        closeness(a.train_samples, b.train_samples),
    )
    return OTHER * math.fsum(alike) / len(alike)


def network_similarity(a: Network, b: Network) -> float:
    if a.digest == b.digest:
        return 1.0
    alike = (
        family(a.layers, b.layers),
        closeness(a.parameters, b.parameters),
        closeness(a.depth, b.depth),
    )
    return OTHER * math.fsum(alike) / len(alike)


def same_data(a: Dataset, b: Dataset) -> bool:
    form_a, form_b = (replace(d, digest=None, name="") for d in (a, b))
    if form_a != form_b:
        return False
    if a.digest is not None and b.digest is not None:
        return a.digest == b.digest
    return _plain(a.name) == _plain(b.name) and a.train_samples is not None


def closeness(x: float | None, y: float | None) -> float:
    """q(x, y) = 1 / (1 + |log10(x / y)|).

    >>> closeness(60000, 60000), closeness(100, 10), closeness(None, 10)
    (1.0, 0.5, 0.5)
    """
    if not x or not y:
        return UNKNOWN
    return 1 / (1 + abs(math.log10(x) - math.log10(y)))


def family(a: Mapping[str, int], b: Mapping[str, int]) -> float:
    """sum of min(count) / sum of max(count) over the layer types of two nets.

    >>> family({"Convolution": 2, "ReLU": 1}, {"Convolution": 3, "LRN": 1})
    0.4
    """
    types = sorted({*a, *b})
    most = sum(max(a.get(kind, 0), b.get(kind, 0)) for kind in types)
    return sum(min(a.get(kind, 0), b.get(kind, 0)) for kind in types) / most if most else 1.0


def _pixels(data: Dataset) -> int | None:
    return data.height * data.width if data.height and data.width else None


def _plain(name: str) -> str:
    """CIFAR-10, cifar_10 and cifar10 are one name."""
    return "".join(letter for letter in name.lower() if letter.isalnum())
