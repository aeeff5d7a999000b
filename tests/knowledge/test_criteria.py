"""The direction in which an output of the net is better."""

from __future__ import annotations

import pytest

from lrbench_caffe.errors import ParameterError
from lrbench_caffe.knowledge.criteria import direction, first_output, output


@pytest.mark.parametrize(
    ("name", "higher"),
    [
        ("loss1_classifier.top1", True),  # our metrics of a further head, whatever it is called
        ("loss3/classifier.top5", True),
        ("loss1/classifier.ac", True),
        ("fc8.cd", False),
        ("accuracy.cdac", False),
        ("top1", True),
        ("loss/top-5", True),
        ("detection_eval", True),
        ("bbox_loss", False),
        ("y", None),
    ],
)
def test_direction(name, higher):
    assert direction(name) is higher


def test_what_equals_the_test_loss_is_a_loss():
    assert direction("y", [(0.5, 0.5), (0.25, 0.2500001)]) is False
    assert direction("accuracy", [(0.5, 0.5)]) is False
    assert direction("y", [(0.5, 0.5), (0.25, 0.3)]) is None
    assert direction("fc8.top1", [(0.5, 0.5)]) is True


def test_a_metric_of_a_further_head_has_its_own_direction_and_digits():
    found = output("fc8.top1")
    assert (found.higher, found.guessed, found.digits) == (True, False, 2)
    with pytest.raises(ParameterError, match="higher: Top-1 is better if it is higher; allowed"):
        output("fc8.top1", higher=False)


def test_what_stands_for_a_net_without_top1_and_loss():
    assert first_output({"b", "map", "a"}).name == "map"
    found = first_output({"b", "a"})
    assert (found.name, found.higher, found.guessed) == ("a", True, True)
