"""Which layers a phase has, and what is wrong with a net."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

from lrbench_caffe.errors import InputError
from lrbench_caffe.prototxt.messages import lacks
from lrbench_caffe.prototxt.nets import (
    PhaseNet,
    check_layers,
    decay_multipliers,
    has_plain_softmax_loss,
    random_layers,
)

# -- phases ----------------------------------------------------------------------------------------

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


DATA = 'layer { name: "d" type: "Data" top: "x" top: "y" }\n'
PRODUCT = 'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "s" }\n'


# -- mistakes --------------------------------------------------------------------------------------

TYPES = ["Data", "InnerProduct", "Convolution", "ReLU", "SoftmaxWithLoss"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'layer { name: "c" type: "Convolusion" }',
            "layer 'c': unknown layer type 'Convolusion'; did you mean 'Convolution'?",
        ),
        (
            'layer { name: "r" type: "RELU" }',
            "layer 'r': unknown layer type 'RELU'; did you mean 'ReLU'?",
        ),
        (
            'layer { name: "c" type: "Zzz" }',
            "layer 'c': unknown layer type 'Zzz'" + lacks("Zzz", []),
        ),
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
            "layer 'i': the top 'y' is already the top of layer 'd'",
        ),
        (
            'layer { name: "i" type: "InnerProduct" bottom: "x" top: "new" top: "new" }',
            "layer 'i': the top 'new' is given twice; allowed: once",
        ),
        (
            'layer { name: "i" type: "InnerProduct" bottom: "x" bottom: "y" top: "y" }',
            "layer 'i': the top 'y' is top number 1, but not bottom number 1; allowed: the same place, where "
            "a layer computes in place",
        ),
        # Caffe splits what has two readers, and a layer in place reads a copy of another name.
        (
            'layer { name: "r" type: "ReLU" bottom: "x" top: "x" }'
            'layer { name: "i" type: "InnerProduct" bottom: "y" top: "i" }'
            'layer { name: "q" type: "ReLU" bottom: "y" top: "y" }',
            "layer 'q': the top 'y' is already the top of layer 'd', and 2 bottoms or loss weights read it; "
            "allowed: another name, or no other reader, for a layer that computes in place",
        ),
        (
            'layer { name: "i" type: "InnerProduct" bottom: "x" top: "i" loss_weight: 1 }'
            'layer { name: "q" type: "ReLU" bottom: "i" top: "i" }',
            "layer 'q': the top 'i' is already the top of layer 'i', and 2 bottoms or loss weights read it; "
            "allowed: another name, or no other reader, for a layer that computes in place",
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
    # In place, and then read by two; a loss_weight of 0 reads nothing.
    product = 'layer { type: "InnerProduct" bottom: "s" top: "NAME" loss_weight: 0 }'
    readers = product.replace("NAME", "one") + product.replace("NAME", "other")
    check_layers(net_of(DATA + PRODUCT + relu + readers + relu.replace("s", "one")), TYPES)
    # A layer of the other phase may be what it likes.
    check_layers(
        net_of(DATA + 'layer { type: "Mine" bottom: "none" include { phase: TRAIN } }'), TYPES
    )


@pytest.mark.parametrize("ratio", [-0.25, 1, 1.5, "nan", "inf"])
def test_a_dropout_ratio_that_is_not_a_share(net_of, ratio):
    """Caffe draws with 1 - dropout_ratio in training alone, and aborts there: `p >= 0`, `p <= 1`.

    It divides by it, too, so that with 1 its first loss is 0 * inf.
    """
    parameter = f"dropout_param {{ dropout_ratio: {ratio} }}"
    dropout = f'layer {{ name: "d" type: "Dropout" bottom: "x" top: "x" {parameter} }}'
    with pytest.raises(InputError) as caught:
        check_layers(net_of(DATA + dropout, "TRAIN"), [*TYPES, "Dropout"])
    words = f"dropout_param.dropout_ratio is {ratio}; allowed: 0 or more, below 1"
    assert str(caught.value) == f"net.prototxt: layer 'd' (Dropout): {words}"
    check_layers(net_of(DATA + dropout, "TEST"), [*TYPES, "Dropout"])
    check_layers(
        net_of(DATA + dropout.replace("bottom", "phase: TEST bottom"), "TRAIN"), [*TYPES, "Dropout"]
    )


@pytest.mark.parametrize("ratio", [0, 0.5, 0.999999])
def test_a_dropout_ratio_that_is_a_share(net_of, ratio):
    dropout = f'layer {{ type: "Dropout" bottom: "x" top: "x" dropout_param {{ dropout_ratio: {ratio} }} }}'
    check_layers(net_of(DATA + dropout, "TRAIN"), [*TYPES, "Dropout"])


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
        (
            'type: "SoftmaxWithLoss" } layer { name: "penalty" type: "Reduction" loss_weight: 0.1',
            False,
        ),
    ],
)
def test_which_losses_have_caffes_ceiling(messages, loss, plain):
    net = text_format.Parse(f'layer {{ name: "loss" {loss} }}', messages.new("NetParameter"))
    assert has_plain_softmax_loss(PhaseNet("net", "file", "TRAIN", "", tuple(net.layer))) is plain
