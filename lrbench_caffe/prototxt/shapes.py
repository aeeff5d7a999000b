"""The shapes of a net's blobs, and its number of parameters, worked out without Caffe.

Both go as far as the layers are of the kinds that image nets commonly have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lrbench_caffe.prototxt.geometry import SAME_SIZE, top_size
from lrbench_caffe.prototxt.nets import PhaseNet

Shape = list[int]

# Layers without anything to learn that nets commonly have; another type makes the number unknown.
_NOTHING_TO_LEARN = (
    "Accuracy", "ArgMax", "AbsVal", "BatchNorm", "BatchReindex", "BNLL", "Clip", "Concat",
    "ContrastiveLoss", "Crop", "Data", "Dropout", "DummyData", "ELU", "Eltwise", "EuclideanLoss", "Exp",
    "Filter", "Flatten", "HDF5Data", "HDF5Output", "HingeLoss", "Im2col", "ImageData", "InfogainLoss",
    "Input", "LRN", "Log", "MemoryData", "MVN", "MultinomialLogisticLoss", "Pooling", "Power", "ReLU",
    "Reduction", "Reshape", "SPP", "Sigmoid", "SigmoidCrossEntropyLoss", "Silence", "Slice", "Softmax",
    "SoftmaxWithLoss", "Split", "Swish", "TanH", "Threshold", "Tile", "WindowData",
)  # fmt: skip
_LEARNING = ("Convolution", "Deconvolution", "InnerProduct", "Scale")


def blob_shapes(net: PhaseNet, data: Sequence[int]) -> dict[str, Shape]:
    """The shape of each blob that follows from the data's; blobs of other shapes are left out.

    Args:
        data: the shape of the first top of the net's first data layer.
    """
    shapes: dict[str, Shape] = {}
    fed = False
    for layer in net.layers:
        if not layer.bottom:
            tops = [] if fed else [list(data), [data[0]]]
            fed = True
        else:
            known = [shapes.get(blob) for blob in layer.bottom]
            bottoms = [shape for shape in known if shape is not None]
            top = _top(layer, bottoms) if len(bottoms) == len(known) else None
            tops = [] if top is None else [top] * len(layer.top)
        for place, blob in enumerate(layer.top):
            shapes.pop(blob, None)
            if place < len(tops):
                shapes[blob] = tops[place]
    return shapes


def _top(layer: Any, bottoms: Sequence[Shape]) -> Shape | None:
    first = bottoms[0]
    if layer.type in SAME_SIZE:
        return first
    if layer.type in ("Convolution", "Pooling") and len(first) == 4:
        size = top_size(layer, (first[2], first[3]))
        if size is None:
            return None
        pooled = layer.type == "Pooling"
        return [first[0], first[1] if pooled else layer.convolution_param.num_output, *size]
    if layer.type == "InnerProduct" and 0 < layer.inner_product_param.axis < len(first):
        parameter = layer.inner_product_param
        return [*first[: parameter.axis], parameter.num_output]
    if layer.type == "Flatten" and (layer.flatten_param.axis, layer.flatten_param.end_axis) == (
        1,
        -1,
    ):
        return [first[0], math.prod(first[1:])]
    if layer.type == "Concat" and layer.concat_param.axis == layer.concat_param.concat_dim == 1:
        alike = {(*shape[:1], *shape[2:]) for shape in bottoms if len(shape) > 1}
        if len(alike) == 1 and all(len(shape) > 1 for shape in bottoms):
            return [first[0], sum(shape[1] for shape in bottoms), *first[2:]]
    return None


def count_parameters(layers: Sequence[Any], shapes: Mapping[str, Sequence[int]]) -> int | None:
    """The number of learnable parameters of layers; None if the shapes of their blobs do not tell it."""
    total = 0
    for layer in layers:
        if layer.type in _NOTHING_TO_LEARN:
            continue
        bottom = shapes.get(layer.bottom[0]) if layer.bottom else None
        shared = any(spec.name for spec in layer.param)
        if bottom is None or shared or layer.type not in _LEARNING:
            return None
        count = _layer_parameters(layer, bottom)
        if count is None:
            return None
        total += count
    return total


def _layer_parameters(layer: Any, bottom: Sequence[int]) -> int | None:
    """The parameters of a layer with this input shape; None if it is another layer's (damaged log)."""
    if layer.type == "InnerProduct":
        p = layer.inner_product_param
        return int(p.num_output * (math.prod(bottom[p.axis :]) + p.bias_term))
    if layer.type == "Scale":
        p = layer.scale_param
        if len(layer.bottom) > 1:
            return 0
        end = len(bottom) if p.num_axes == -1 else p.axis + p.num_axes
        return math.prod(bottom[p.axis : end]) * (1 + int(p.bias_term))
    p = layer.convolution_param
    if len(bottom) < 2 or not p.group:
        return None
    sizes = list(p.kernel_size) or [p.kernel_h, p.kernel_w]
    kernel = math.prod(sizes if len(sizes) > 1 else sizes * (len(bottom) - 2))
    return int(p.num_output * bottom[1] // p.group * kernel + p.num_output * p.bias_term)
