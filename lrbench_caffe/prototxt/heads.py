"""The heads of a TEST net: which blobs are scores of classes, and which blobs are the true classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lrbench_caffe.errors import ParameterError, did_you_mean
from lrbench_caffe.prototxt.geometry import SAME_SIZE
from lrbench_caffe.prototxt.nets import PhaseNet, loss_weight
from lrbench_caffe.runtime.counting import LOGITS, PROBABILITIES, SIGMOID

LOSS_LAYERS = ("SoftmaxWithLoss", "InfogainLoss", "MultinomialLogisticLoss", "HingeLoss")
SIGMOID_LOSS = "SigmoidCrossEntropyLoss"

# Layers that have as many channels as their first bottom.
_SAME_CHANNELS = SAME_SIZE | {"Pooling"}


@dataclass(frozen=True)
class Head:
    """Scores of a TEST net that can be compared with true classes.

    Attributes:
        name: what it is called: the scores' blob, with the labels' blob where that does not tell.
        scores: the blob with the scores.
        labels: the blob with the true classes.
        form: what the scores are, one of ``runtime.counting.FORMS``.
        axis: the axis of the classes.
        ignore_label: label of samples that do not count, or None.
        ignore_outside: the same, but only where it is none of the classes.
    """

    name: str
    scores: str
    labels: str
    form: str = LOGITS
    axis: int = 1
    ignore_label: int | None = None
    ignore_outside: int | None = None

    def classes(self, shape: Sequence[int]) -> int | None:
        """The number of classes, where the scores have this shape."""
        if self.form == SIGMOID:
            return 2
        return shape[self.axis] if -len(shape) <= self.axis < len(shape) else None


@dataclass
class _Readers:
    """The layers that compare the same scores with the same labels, and where the first of them stands."""

    position: int
    losses: list[Any] = field(default_factory=list)
    accuracies: list[Any] = field(default_factory=list)

    @property
    def rank(self) -> tuple[int, float, int]:
        """A sort key: the net's main head has the smallest."""
        kind = (0 if self.losses else 1) if self.accuracies else 2
        return kind, -max(map(loss_weight, self.losses), default=0.0), -self.position


def find_heads(net: PhaseNet) -> tuple[Head, ...]:
    """All heads of a TEST net, whatever its blobs are called, the main one first.

    Scores and labels are the bottoms of the losses for classes and of the Accuracy layers. The main
    head is the one that a loss and an Accuracy layer share, else one that an Accuracy layer reads,
    else one that a loss reads; among equals that of the largest loss weight, and then the last one,
    since nets with auxiliary classifiers end with the main one.
    """
    heads: dict[tuple[str, str], _Readers] = {}
    for position, layer in enumerate(net.layers):
        if len(layer.bottom) < 2:
            continue
        loss = layer.type in LOSS_LAYERS or (layer.type == SIGMOID_LOSS and _is_binary(net, layer))
        accuracy = layer.type == "Accuracy" and channels(net, layer.bottom[0], layer) != 1
        if loss or accuracy:
            key = _origin(net, layer), layer.bottom[1]
            readers = heads.setdefault(key, _Readers(position))
            (readers.losses if loss else readers.accuracies).append(layer)
    ordered = sorted(heads.values(), key=lambda readers: readers.rank)
    return _named([_head(net, readers) for readers in ordered])


def choose_head(heads: tuple[Head, ...], name: str) -> tuple[Head, ...]:
    """The same heads, that called ``name`` first, where there is one."""
    return tuple(sorted(heads, key=lambda head: head.name != name))


def check_head(heads: tuple[Head, ...], name: str, where: str) -> None:
    """Raise an InputError where none of the heads of the net ``where`` is called ``name``."""
    names = [head.name for head in heads]
    if name not in names:
        allowed = ", ".join(names) or "none, as it does not classify"
        raise ParameterError(
            "{head}: {0!r}{1}; heads of the {2}: {3}",
            name,
            did_you_mean(name, names),
            where,
            allowed,
        )


def accuracies_of(net: PhaseNet, head: Head) -> list[Any]:
    """The Accuracy layers that compare a head's scores, also behind a Softmax, with its labels."""
    origin = _before_softmax(head.scores, net.producer(head.scores))
    return [
        layer
        for layer in net.of_type("Accuracy")
        if layer.bottom[1:2] == [head.labels] and _origin(net, layer) == origin
    ]


def misused_accuracies(net: PhaseNet) -> list[str]:
    """A warning for each Accuracy layer on a single score, where Caffe reads past it for any label but 0."""
    return [
        f"layer {layer.name!r} (Accuracy) of the {net.title} reads {layer.bottom[0]!r}, which has "
        "one score, not one for each class: the value that Caffe prints for it is not an accuracy"
        for layer in net.of_type("Accuracy")
        if len(layer.bottom) >= 2 and channels(net, layer.bottom[0], layer) == 1
    ]


def channels(net: PhaseNet, blob: str, reader: Any) -> int | None:
    """The length of axis 1 of a blob that layer ``reader`` reads; None where the net does not tell."""
    layer = net.producer(blob, before=reader)
    while layer is not None and layer.type in _SAME_CHANNELS and layer.bottom:
        layer = net.producer(layer.bottom[0], before=layer)
    if layer is None:
        return None
    if layer.type == "InnerProduct" and layer.inner_product_param.axis == 1:
        return int(layer.inner_product_param.num_output)
    if layer.type in ("Convolution", "Deconvolution") and layer.convolution_param.axis == 1:
        return int(layer.convolution_param.num_output)
    return None


def _is_binary(net: PhaseNet, loss: Any) -> bool:
    """Whether a sigmoid's loss tells two classes apart: one score, and a target that is not the input."""
    if channels(net, loss.bottom[0], loss) != 1:
        return False
    inputs = _ancestors(net, loss.bottom[0])
    target, layer = loss.bottom[1], loss
    while target not in inputs:
        layer = net.producer(target, before=layer)
        if layer is None or len(layer.bottom) != 1 or len(layer.top) != 1:
            return True
        target = layer.bottom[0]
    return False  # an autoencoder


def _ancestors(net: PhaseNet, blob: str) -> set[str]:
    """The blobs that a blob is computed from."""
    ancestors: set[str] = set()
    todo = [blob]
    for layer in reversed(net.layers):
        if any(top in todo for top in layer.top):
            todo += layer.bottom
            ancestors.update(layer.bottom)
    return ancestors


def _origin(net: PhaseNet, reader: Any) -> str:
    """The blob that the scores of ``reader`` come from: behind a softmax or a sigmoid, what that reads."""
    scores = reader.bottom[0]
    return _before_softmax(scores, net.producer(scores, before=reader))


def _before_softmax(scores: str, producer: Any) -> str:
    behind = producer is not None and producer.type in ("Softmax", "Sigmoid")
    return str(producer.bottom[0] if behind else scores)


def _head(net: PhaseNet, readers: _Readers) -> Head:
    """The head of an Accuracy layer is just what that layer reads, so that Top-1 is what Caffe prints."""
    loss = max(readers.losses, key=loss_weight) if readers.losses else None
    if not readers.accuracies:
        return _head_of_loss(net, loss)
    accuracy = min(readers.accuracies, key=lambda layer: layer.accuracy_param.top_k)
    scores, labels = accuracy.bottom[0], accuracy.bottom[1]
    options = accuracy.accuracy_param
    softmax = net.producer(scores, before=accuracy)
    probabilities = softmax is not None and softmax.type == "Softmax"
    ignore_label = _ignored(options)
    # A label that the loss alone ignores counts in Caffe's accuracy, unless it is none of the
    # classes.
    outside = _ignored(loss.loss_param) if loss is not None and ignore_label is None else None
    form = PROBABILITIES if probabilities else LOGITS
    return Head(scores, scores, labels, form, options.axis, ignore_label, outside)


def _head_of_loss(net: PhaseNet, loss: Any) -> Head:
    scores, labels = loss.bottom[0], loss.bottom[1]
    ignore_label = _ignored(loss.loss_param)
    if loss.type == SIGMOID_LOSS:
        return Head(scores, scores, labels, SIGMOID, 1, ignore_label)
    axis = loss.infogain_loss_param.axis if loss.type == "InfogainLoss" else loss.softmax_param.axis
    form = LOGITS
    softmax = net.producer(scores, before=loss)
    if softmax is not None and softmax.type == "Softmax":
        logits, axis = softmax.bottom[0], softmax.softmax_param.axis
        if logits != scores and net.producer(logits) is net.producer(logits, before=softmax):
            scores = logits  # they are more exact than what the softmax makes of them
        else:
            form = PROBABILITIES
    elif loss.type == "MultinomialLogisticLoss":
        form = PROBABILITIES
    return Head(scores, scores, labels, form, axis, ignore_label)


def _ignored(options: Any) -> int | None:
    return options.ignore_label if options.HasField("ignore_label") else None


def _named(heads: list[Head]) -> tuple[Head, ...]:
    """Heads that share their scores are told apart by their labels."""
    scores = [head.scores for head in heads]
    return tuple(
        replace(head, name=f"{head.scores}/{head.labels}")
        if scores.count(head.scores) > 1
        else head
        for head in heads
    )
