"""Where the scores and labels of a TEST net are, and which of its heads counts."""

from __future__ import annotations

import pytest

from lrbench_caffe.errors import InputError
from lrbench_caffe.prototxt.heads import (
    Head,
    accuracies_of,
    channels,
    check_head,
    choose_head,
    find_heads,
    misused_accuracies,
)

DATA = 'layer { name: "d" type: "Data" top: "x" top: "y" top: "z" }\n'
PRODUCT = 'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "s" }\n'
SOFTMAX = 'layer { name: "p" type: "Softmax" bottom: "s" top: "prob" }\n'
ONE = (
    'layer { type: "InnerProduct" bottom: "x" top: "one" inner_product_param { num_output: 1 } }\n'
)


def loss(scores: str, labels: str = "y", more: str = "", kind: str = "SoftmaxWithLoss") -> str:
    return f'layer {{ type: "{kind}" bottom: "{scores}" bottom: "{labels}" top: "l" {more} }}\n'


def accuracy(scores: str, labels: str = "y", more: str = "") -> str:
    return f'layer {{ type: "Accuracy" bottom: "{scores}" bottom: "{labels}" accuracy_param {{ {more} }} }}\n'


@pytest.fixture
def heads(net_of):
    """``heads(text)``: those of a net with this text behind its data and products."""
    return lambda text: find_heads(net_of(DATA + PRODUCT + ONE + text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (loss("s"), Head("s", "s", "y")),
        (
            loss("s", more="softmax_param { axis: 2 } loss_param { ignore_label: 255 }"),
            Head("s", "s", "y", axis=2, ignore_label=255),
        ),
        (loss("s", more="loss_param { ignore_label: 0 }"), Head("s", "s", "y", ignore_label=0)),
        (
            accuracy("s", more="top_k: 5 axis: 3") + accuracy("s", more="axis: 2 ignore_label: 9"),
            Head("s", "s", "y", axis=2, ignore_label=9),
        ),
        (loss("s", kind="HingeLoss"), Head("s", "s", "y")),
        (
            loss("s", kind="InfogainLoss", more="infogain_loss_param { axis: 2 }"),
            Head("s", "s", "y", axis=2),
        ),
        # Probabilities, unless the softmax that made them can be looked behind.
        (loss("s", kind="MultinomialLogisticLoss"), Head("s", "s", "y", "probabilities")),
        (SOFTMAX + loss("prob", kind="MultinomialLogisticLoss"), Head("s", "s", "y")),
        (
            SOFTMAX + 'layer { type: "ReLU" bottom: "s" top: "s" }' + loss("prob"),
            Head("prob", "prob", "y", "probabilities"),
        ),
        (
            'layer { type: "Softmax" bottom: "s" top: "s" }' + loss("s"),
            Head("s", "s", "y", "probabilities"),
        ),
        # An Accuracy layer is followed to the letter, so that Top-1 is what Caffe prints.
        (SOFTMAX + accuracy("prob"), Head("prob", "prob", "y", "probabilities")),
        (SOFTMAX + loss("s") + accuracy("prob"), Head("prob", "prob", "y", "probabilities")),
        (loss("s") + accuracy("s", more="ignore_label: 3"), Head("s", "s", "y", ignore_label=3)),
        (
            loss("s", more="loss_param { ignore_label: 255 }") + accuracy("s"),
            Head("s", "s", "y", ignore_outside=255),
        ),
        (
            loss("s", more="loss_param { ignore_label: 255 }")
            + accuracy("s", more="ignore_label: 3"),
            Head("s", "s", "y", ignore_label=3),
        ),
        # A sigmoid's loss on one score tells two classes apart.
        (loss("one", kind="SigmoidCrossEntropyLoss"), Head("one", "one", "y", "sigmoid")),
        (
            loss("one", kind="SigmoidCrossEntropyLoss", more="loss_param { ignore_label: -1 }")
            + accuracy("one"),
            Head("one", "one", "y", "sigmoid", ignore_label=-1),
        ),
    ],
)
def test_one_head(heads, text, expected):
    assert heads(text) == (expected,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        loss("s", kind="EuclideanLoss"),
        loss("s", kind="SigmoidCrossEntropyLoss"),  # how many scores that has is not known here
        accuracy("one"),
        loss("one", "x", kind="SigmoidCrossEntropyLoss"),  # an autoencoder
        'layer { type: "Flatten" bottom: "x" top: "f" }'
        + loss("one", "f", kind="SigmoidCrossEntropyLoss"),
    ],
)
def test_nets_that_do_not_classify(heads, text):
    assert heads(text) == ()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        # As in GoogLeNet: auxiliary classifiers of weight 0.3 and the main one, of weight 1 by
        # default.
        (
            loss("a", more="loss_weight: 0.3") + loss("s") + loss("b", more="loss_weight: 0.3"),
            "s b a",
        ),
        # Among equals the last one.
        (loss("a") + loss("b"), "b a"),
        # The loss that shares its bottoms with an Accuracy layer, whatever its weight.
        (loss("s", more="loss_weight: 0.1") + loss("a") + accuracy("s"), "s a"),
        (loss("s") + accuracy("s") + loss("a"), "s a"),
        # What an Accuracy layer reads, even where no loss does.
        (loss("a") + accuracy("s"), "s a"),
        (accuracy("s") + loss("a") + loss("b") + accuracy("b"), "b s a"),
        # One blob with two kinds of labels.
        (loss("s", "y") + loss("s", "z") + accuracy("s", "y"), "s/y s/z"),
    ],
)
def test_which_head_counts(heads, text, names):
    assert " ".join(head.name for head in heads(text)) == names


def test_a_head_that_is_chosen(heads):
    found = heads(loss("a") + loss("b") + loss("c"))
    assert [head.name for head in choose_head(found, "a")] == ["a", "c", "b"]
    check_head(found, "a", "test net #0")
    with pytest.raises(InputError, match="^head: 'd'.*; heads of the test net #0: c, b, a$"):
        check_head(found, "d", "test net #0")
    with pytest.raises(
        InputError, match="heads of the test net #0: none, as it does not classify$"
    ):
        check_head((), "d", "test net #0")


def test_any_blob_names(net_of):
    (found,) = find_heads(net_of(loss("Straße/7", "label-3")))
    assert found == Head("Straße/7", "Straße/7", "label-3")


def test_the_accuracies_of_a_head(net_of):
    """Behind a Softmax, too; those of other scores or labels are none of its."""
    own = [accuracy("s"), accuracy("prob", more="top_k: 5")]
    others = [accuracy("s", "z"), accuracy("one")]
    net = net_of(DATA + PRODUCT + ONE + SOFTMAX + "".join([own[0], *others, own[1]]))
    first, _, _, second = net.of_type("Accuracy")
    for scores in ("s", "prob"):
        assert accuracies_of(net, Head(scores, scores, "y")) == [first, second]


def test_an_accuracy_on_one_score_is_a_misuse(net_of):
    net = net_of(DATA + PRODUCT + ONE + accuracy("one") + accuracy("s"))
    (text,) = misused_accuracies(net)
    assert "reads 'one', which has one score" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'layer { type: "Convolution" bottom: "x" top: "t" convolution_param { num_output: 7 } }',
            7,
        ),
        (
            'layer { type: "Deconvolution" bottom: "x" top: "t" convolution_param { num_output: 7 } }',
            7,
        ),
        (
            'layer { type: "Scale" bottom: "one" top: "t" } layer { type: "ReLU" bottom: "t" top: "t" }',
            1,
        ),
        ('layer { type: "Reshape" bottom: "one" top: "t" }', None),
        ("", None),
    ],
)
def test_channels(net_of, text, expected):
    net = net_of(DATA + ONE + text + accuracy("t"))
    assert channels(net, "t", net.layers[-1]) == expected


def test_number_of_classes():
    assert Head("s", "s", "y").classes([2, 10, 3, 3]) == 10
    assert Head("s", "s", "y", axis=-1).classes([2, 10, 3]) == 3
    assert Head("s", "s", "y", axis=2).classes([2, 10]) is None
    assert Head("s", "s", "y", "sigmoid").classes([2, 1]) == 2
