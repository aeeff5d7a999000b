"""Which layers a phase has, where scores and labels are, and what is wrong with a net."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

from lrbench_caffe.errors import InputError
from lrbench_caffe.prototxt.nets import (
    PhaseNet,
    Scores,
    check_layers,
    decay_multipliers,
    find_scores,
    has_plain_softmax_loss,
    random_layers,
)

# -- phases -----------------------------------------------------------------------------------------

RULES = """
layer { name: "always" }
layer { name: "train" include { phase: TRAIN } }
layer { name: "test" include { phase: TEST } }
layer { name: "not test" exclude { phase: TEST } }
layer { name: "level 1" include { min_level: 1 } }
layer { name: "up to 1" include { max_level: 1 } }
layer { name: "deploy" include { stage: "deploy" } }
layer { name: "deploy, fast" include { stage: "deploy" stage: "fast" } }
layer { name: "not deploy" include { not_stage: "deploy" } }
layer { name: "either" include { phase: TRAIN } include { stage: "deploy" } }
layer { name: "neither" exclude { phase: TRAIN } exclude { stage: "deploy" } }
layer { name: "test, level 1" include { phase: TEST min_level: 1 } }
"""


@pytest.mark.parametrize(
    ("phase", "level", "stages", "expected"),
    [
        ("TRAIN", 0, (), "always, train, not test, up to 1, not deploy, either"),
        ("TEST", 0, (), "always, test, up to 1, not deploy, neither"),
        ("TEST", 1, (), "always, test, level 1, up to 1, not deploy, neither, test, level 1"),
        ("TEST", 2, (), "always, test, level 1, not deploy, neither, test, level 1"),
        ("TEST", 0, ("deploy",), "always, test, up to 1, deploy, either"),
        ("TEST", 0, ("deploy", "fast"), "always, test, up to 1, deploy, deploy, fast, either"),
        ("TRAIN", 0, ("other",), "always, train, not test, up to 1, not deploy, either"),
    ],
)
def test_layers_of_a_phase(net_of, phase, level, stages, expected):
    layers = net_of(RULES, phase, level, stages).layers
    assert ", ".join(layer.name for layer in layers) == expected


# -- scores -----------------------------------------------------------------------------------------

DATA = 'layer { name: "d" type: "Data" top: "x" top: "y" }\n'
PRODUCT = 'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "s" }\n'
SOFTMAX = 'layer { name: "p" type: "Softmax" bottom: "s" top: "prob" }\n'


def scores(net_of, text: str) -> Scores | None:
    return find_scores(net_of(DATA + PRODUCT + text))


def test_softmax_with_loss(net_of):
    found = scores(net_of, 'layer { type: "SoftmaxWithLoss" bottom: "s" bottom: "y" top: "l" }')
    assert found == Scores("s", "y", probabilities=False, axis=1, ignore_label=None)


def test_axis_and_ignored_label(net_of):
    found = scores(
        net_of,
        'layer { type: "SoftmaxWithLoss" bottom: "s" bottom: "y" '
        "softmax_param { axis: 2 } loss_param { ignore_label: 255 } }",
    )
    assert found == Scores("s", "y", probabilities=False, axis=2, ignore_label=255)


def test_ignored_label_0_is_one(net_of):
    found = scores(
        net_of, 'layer { type: "SoftmaxWithLoss" bottom: "s" bottom: "y" loss_param { ignore_label: 0 } }'
    )
    assert found is not None
    assert found.ignore_label == 0


def test_accuracy_alone(net_of):
    found = scores(
        net_of,
        'layer { type: "Accuracy" bottom: "s" bottom: "y" top: "a5" accuracy_param { top_k: 5 axis: 3 } }'
        'layer { type: "Accuracy" bottom: "s" bottom: "other" accuracy_param { axis: 2 ignore_label: 9 } }',
    )
    assert found == Scores("s", "other", probabilities=False, axis=2, ignore_label=9)


def test_accuracy_on_a_softmax_leads_to_the_logits(net_of):
    found = scores(net_of, SOFTMAX + 'layer { type: "Accuracy" bottom: "prob" bottom: "y" top: "a" }')
    assert found == Scores("s", "y", probabilities=False, axis=1, ignore_label=None)


def test_softmax_in_place_leaves_probabilities(net_of):
    found = scores(
        net_of,
        'layer { type: "Softmax" bottom: "s" top: "s" softmax_param { axis: 2 } }'
        'layer { type: "Accuracy" bottom: "s" bottom: "y" top: "a" }',
    )
    assert found == Scores("s", "y", probabilities=True, axis=2, ignore_label=None)


def test_logits_that_are_overwritten_after_the_softmax(net_of):
    found = scores(
        net_of,
        SOFTMAX
        + 'layer { type: "ReLU" bottom: "s" top: "s" }'
        + 'layer { type: "Accuracy" bottom: "prob" bottom: "y" top: "a" }',
    )
    assert found == Scores("prob", "y", probabilities=True, axis=1, ignore_label=None)


def test_multinomial_loss_reads_probabilities(net_of):
    loss = 'layer { type: "MultinomialLogisticLoss" bottom: "%s" bottom: "y" top: "l" }'
    assert scores(net_of, loss % "s") == Scores("s", "y", probabilities=True, axis=1, ignore_label=None)
    # ... unless the softmax that made them can be looked behind.
    found = scores(net_of, SOFTMAX + loss % "prob")
    assert found == Scores("s", "y", probabilities=False, axis=1, ignore_label=None)


def test_infogain_loss_reads_logits(net_of):
    found = scores(
        net_of,
        'layer { type: "InfogainLoss" bottom: "s" bottom: "y" top: "l" infogain_loss_param { axis: 2 } }',
    )
    assert found == Scores("s", "y", probabilities=False, axis=2, ignore_label=None)


def test_auxiliary_losses(net_of):
    # As in GoogLeNet: two auxiliary classifiers of weight 0.3 and the main one.
    loss = 'layer { type: "SoftmaxWithLoss" bottom: "%s" bottom: "y" loss_weight: %s }'
    found = scores(net_of, loss % ("aux1", 0.3) + loss % ("s", 1) + loss % ("aux2", 0.3))
    assert found is not None
    assert found.scores == "s"
    found = scores(net_of, loss % ("aux1", 1) + loss % ("main", 1))
    assert found is not None
    assert found.scores == "main"  # among equals the last one
    found = scores(net_of, loss % ("aux", 0.3) + 'layer { type: "SoftmaxWithLoss" bottom: "s" bottom: "y" }')
    assert found is not None
    assert found.scores == "s"  # the default weight is 1


def test_a_loss_comes_before_accuracy(net_of):
    found = scores(
        net_of,
        'layer { type: "Accuracy" bottom: "coarse" bottom: "y" }'
        'layer { type: "SoftmaxWithLoss" bottom: "s" bottom: "y" }',
    )
    assert found is not None
    assert found.scores == "s"


def test_any_blob_names(net_of):
    found = find_scores(
        net_of(
            'layer { name: "eins" type: "SoftmaxWithLoss" bottom: "Straße/7" bottom: "label-3" top: "loss" }'
        )
    )
    assert found == Scores("Straße/7", "label-3", probabilities=False, axis=1, ignore_label=None)


@pytest.mark.parametrize(
    "text",
    [
        'layer { type: "EuclideanLoss" bottom: "s" bottom: "y" }',
        'layer { type: "SigmoidCrossEntropyLoss" bottom: "s" bottom: "y" }',
        "",
    ],
)
def test_nets_that_do_not_classify(net_of, text):
    assert scores(net_of, text) is None


# -- mistakes ---------------------------------------------------------------------------------------

TYPES = ["Data", "InnerProduct", "Convolution", "ReLU", "SoftmaxWithLoss"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'layer { name: "c" type: "Convolusion" }',
            "layer 'c': unknown layer type 'Convolusion'; did you mean 'Convolution'?",
        ),
        ('layer { name: "r" type: "RELU" }', "layer 'r': unknown layer type 'RELU'; did you mean 'ReLU'?"),
        ('layer { name: "c" type: "Zzz" }', "layer 'c': unknown layer type 'Zzz'"),
        (
            'layer { name: "r" type: "ReLU" bottom: "xx" top: "r" }',
            "layer 'r': no layer of the test net #0 before it has the top 'xx'; did you mean 'x'?",
        ),
        (
            'layer { name: "r" type: "ReLU" bottom: "r" top: "r" }',
            "layer 'r': no layer of the test net #0 before it has the top 'r'",
        ),
        (
            'layer { name: "i" type: "InnerProduct" bottom: "x" top: "y" }',
            "layer 'i': the top 'y' is already the top of another layer",
        ),
    ],
)
def test_mistakes(net_of, text, message):
    with pytest.raises(InputError) as caught:
        check_layers(net_of(DATA + text), TYPES)
    assert str(caught.value) == f"net.prototxt: {message}"


def test_layers_without_mistakes(net_of):
    relu = 'layer { type: "ReLU" bottom: "s" top: "s" }'  # in place
    check_layers(net_of(DATA + PRODUCT + relu + relu), TYPES)
    # A layer of the other phase may be what it likes.
    check_layers(net_of(DATA + 'layer { type: "Mine" bottom: "none" include { phase: TRAIN } }'), TYPES)


def test_layers_with_chance(net_of):
    net = net_of(
        DATA
        + PRODUCT
        + 'layer { name: "drop" type: "Dropout" bottom: "s" top: "s" }'
        + 'layer { name: "max" type: "Pooling" bottom: "s" top: "m" pooling_param { pool: MAX } }'
        + 'layer { name: "any" type: "Pooling" bottom: "s" top: "a" pooling_param { pool: STOCHASTIC } }'
        + 'layer { name: "noise" type: "DummyData" top: "n" }'
    )
    assert random_layers(net) == [("d", 0), ("drop", 0), ("any", 0), ("noise", 0)]


def test_layers_of_one_name_are_told_apart(net_of):
    net = net_of(DATA + DATA + PRODUCT + 'layer { name: "d" type: "Dropout" bottom: "s" top: "s" }')
    assert random_layers(net) == [("d", 0), ("d", 1), ("d", 2)]


def test_decay_multipliers(net_of):
    net = net_of(
        'layer { name: "a" param { decay_mult: 0.5 } param { lr_mult: 2 } }'
        'layer { name: "b" }'
        'layer { name: "a" param { decay_mult: 0 } }'
    )
    assert decay_multipliers(net) == {"a": [[0.5, 1.0], [0.0]], "b": [[]]}


@pytest.mark.parametrize(
    ("loss", "plain"),
    [
        ('type: "SoftmaxWithLoss"', True),
        ('type: "SoftmaxWithLoss" loss_param { normalization: VALID }', True),
        ('type: "SoftmaxWithLoss" loss_weight: 1', True),
        ('type: "SoftmaxWithLoss" loss_weight: 100', False),
        ('type: "SoftmaxWithLoss" loss_param { normalization: NONE }', False),
        ('type: "SoftmaxWithLoss" loss_param { normalize: false }', False),
        ('type: "EuclideanLoss"', False),
        ('type: "SoftmaxWithLoss" } layer { name: "other" type: "EuclideanLoss"', False),
        ('type: "SoftmaxWithLoss" } layer { name: "penalty" type: "Reduction" loss_weight: 0.1', False),
    ],
)
def test_which_losses_have_caffes_ceiling(messages, loss, plain):
    net = text_format.Parse(f'layer {{ name: "loss" {loss} }}', messages.new("NetParameter"))
    assert has_plain_softmax_loss(PhaseNet("net", "file", "TRAIN", "", tuple(net.layer))) is plain
