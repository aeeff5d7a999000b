"""The layers that use a number from the data as an index, and the range it may have.

Caffe does not check such a number: it reads, and HingeLoss writes, unrelated memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lrbench_caffe.prototxt.heads import LOSS_LAYERS
from lrbench_caffe.prototxt.nets import PhaseNet

# Layers whose second bottom is the class of each sample, which they index the first one with.
_BY_CLASS = (*LOSS_LAYERS, "Accuracy")
_IGNORING = ("SoftmaxWithLoss", "InfogainLoss")  # the losses that heed ignore_label
_WHOLE = (
    "MultinomialLogisticLoss",
    "HingeLoss",
)  # their classes are all that is behind the first axis


@dataclass(frozen=True)
class LabelReader:
    """A layer that uses labels of a data layer as indices.

    Attributes:
        layer: its LayerParameter.
        ignored: labels that it does not use.
    """

    layer: Any
    ignored: frozenset[int] = frozenset()

    def classes(self, shapes: Mapping[str, Sequence[int]]) -> int | None:
        """The number of indices, from 0 on; None if it is unknown.

        Args:
            shapes: of the net's blobs, as Caffe has them.
        """
        layer = self.layer
        if layer.type == "Embed":
            return int(layer.embed_param.input_dim)
        shape = shapes.get(layer.bottom[0])
        if not shape:
            return None
        if layer.type in _WHOLE:
            return math.prod(shape[1:])
        axis = _axis(layer)
        classes = shape[axis] if -len(shape) <= axis < len(shape) else None
        if (
            layer.type == "Accuracy" and classes == 1
        ):  # no accuracy, whatever the labels are (see heads)
            return None
        return classes

    def outside(self, label: int, classes: int) -> bool:
        """Whether Caffe would use this label as an index out of range."""
        return not 0 <= label < classes and label not in self.ignored

    def allowed(self, classes: int) -> str:
        """The allowed labels, in words."""
        known = f"0 to {classes - 1}"
        return " or ".join([known, *(f"{label} (ignored)" for label in sorted(self.ignored))])


def label_readers(net: PhaseNet, source: Any, blob: str) -> list[LabelReader]:
    """The layers that get the labels in ``blob`` of the data layer ``source`` as they are."""
    readers = list(_readers(net, source, blob))
    # What the loss ignores does not count in what Caffe's Accuracy is compared with (see heads).
    by_losses: set[int] = set()
    for layer in readers:
        by_losses |= _ignored_by_loss(layer)
    read = []
    for layer in readers:
        if layer.type == "Accuracy":
            ignored = by_losses | _ignored(layer.accuracy_param)
        else:
            ignored = _ignored_by_loss(layer)
        read.append(LabelReader(layer, frozenset(ignored)))
    return read


def _ignored_by_loss(layer: Any) -> set[int]:
    return _ignored(layer.loss_param) if layer.type in _IGNORING else set()


def _readers(net: PhaseNet, source: Any, blob: str) -> Iterator[Any]:
    names: set[str] = set()  # that the labels have, through Split layers
    for layer in net.layers:
        if layer is source:
            names = {blob}
            continue
        read = [number for number, name in enumerate(layer.bottom) if name in names]
        if (layer.type in _BY_CLASS and 1 in read) or (layer.type == "Embed" and 0 in read):
            yield layer
        if layer.type == "Split" and read:
            names.update(layer.top)
        else:
            names.difference_update(layer.top)


def _axis(layer: Any) -> int:
    if layer.type == "Accuracy":
        return int(layer.accuracy_param.axis)
    parameter = layer.infogain_loss_param if layer.type == "InfogainLoss" else layer.softmax_param
    return int(parameter.axis)


def _ignored(options: Any) -> set[int]:
    return {int(options.ignore_label)} if options.HasField("ignore_label") else set()
