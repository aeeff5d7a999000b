"""Which direction of an output is better, by its layer and its name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lrbench_caffe.errors import InputError
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.tuning import untrained


def direction(name: str, kind: str, value: float = 0.25) -> bool:
    layers = [SimpleNamespace(type=kind, top=[name])]
    solver: Any = SimpleNamespace(tests=[SimpleNamespace(net=SimpleNamespace(layers=layers))])
    test = Measurement(0, 0.1, test_loss=2.0, outputs={name: value})
    return untrained._direction(solver, test, name)


@pytest.mark.parametrize(
    ("name", "kind", "higher"),
    [
        ("loss_branch", "Accuracy", True),
        ("terrain", "Accuracy", True),
        ("accuracy", "SoftmaxWithLoss", False),
        ("mape", "Reduction", False),
        ("map", "Reduction", True),
        ("accuracy_terrain", "Reduction", True),
    ],
)
def test_an_accuracy_layer_tells_first_then_a_loss_layer_then_the_name(
    name: str, kind: str, higher: bool
) -> None:
    assert direction(name, kind) == higher


def test_what_equals_the_test_loss_is_better_if_lower() -> None:
    assert not direction("y", "Reduction", 2.0)


@pytest.mark.parametrize("name", ["aperture", "mapping", "y"])
def test_in_doubt_it_is_asked(name: str) -> None:
    with pytest.raises(InputError, match="is more of it better, or less"):
        direction(name, "Reduction")
