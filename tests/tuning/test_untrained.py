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
    return untrained._criterion(solver, test, name, None).higher


@pytest.mark.parametrize(
    ("name", "kind", "higher"),
    [
        ("loss_branch", "Accuracy", True),
        ("terrain", "Accuracy", True),
        ("accuracy", "SoftmaxWithLoss", False),
        ("mape", "Reduction", False),
        ("map", "Reduction", True),
        ("accuracy_terrain", "Reduction", True),
        ("loss1_classifier.top1", "InnerProduct", True),  # our metric of a further head
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


def test_an_output_with_the_name_of_a_metric_is_not_mistaken_for_it() -> None:
    """A Chamfer distance is often called cd, which is our confidence deviation."""
    solver: Any = SimpleNamespace(path="s.prototxt", tests=[SimpleNamespace(net=None)])
    test = Measurement(0, 0.1, top1=10.0, ac=0.5, cd=0.2, outputs={"cd": 4715.0, "AC": 0.9})
    with pytest.raises(
        InputError, match="cd: an output of the test net of s.prototxt has the name"
    ):
        untrained._criterion(solver, test, "cd", False)
    assert untrained._criterion(solver, test, "AC", True).name == "AC"
    assert untrained._criterion(solver, test, "ac", None).name == "ac"
    same = Measurement(0, 0.1, top1=10.0, outputs={"top1": 0.1})
    assert untrained._criterion(solver, same, "top1", None).name == "top1"
