"""Reads a net's prototxt: for Caffe with its data in memory, and layer by layer for PyTorch.

So all contenders train one net, that of one file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from lrbench_caffe.errors import InputError
from lrbench_caffe.prototxt.messages import Messages, to_text

TEST = 1  # of Caffe's enum Phase
SOLVER = """\
type: "SGD" base_lr: 0.0001 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.0005
max_iter: 1000000000 random_seed: 1 snapshot_after_train: false
"""
DATA, LABEL = "data", "label"
Shape = tuple[int, int, int]  # channels, height, width
Translated = tuple[str, dict[str, Any], Shape]


@dataclass(frozen=True)
class Example:
    """A net and the shape of its images, for all contenders.

    Attributes:
        net: Caffe's NetParameter, for a training only, whose data is in memory.
        images: the shape of a batch.
        classes: how many labels there are.
    """

    net: Any
    images: list[int]
    classes: int

    def losses(self) -> list[Any]:
        """The layers that are losses, in their order."""
        return [layer for layer in self.net.layer if layer.type == "SoftmaxWithLoss"]

    def for_caffe(self) -> dict[str, Any]:
        """What caffe_side.py opens."""
        solver = SOLVER + "net_param {\n" + to_text(self.net) + "}\n"
        losses = [layer.top[0] for layer in self.losses()]
        return {"solver": solver, "losses": losses, "classes": self.classes}

    def for_torch(self) -> dict[str, Any]:
        """What torch_side.py opens."""
        losses = [[layer.bottom[0], _weight(layer)] for layer in self.losses()]
        layers = torch_layers(self.net, self.images)
        return {
            "layers": layers,
            "losses": losses,
            "images": self.images,
            "classes": self.classes,
        }


def _weight(loss: Any) -> float:
    return float(loss.loss_weight[0]) if loss.loss_weight else 1.0


def of_file(messages: Messages, path: Path, image: tuple[int, int, int], classes: int) -> Example:
    """A net that trains on an LMDB, with images and labels from memory instead.

    Args:
        messages: Caffe's messages.
        path: the net's file; its batch is that of its data layer for trainings.
        image: channels, height and width.
        classes: how many labels there are.
    """
    net = messages.read_text("NetParameter", path)
    layers = [layer for layer in net.layer if not any(i.phase == TEST for i in layer.include)]
    (data,) = [layer for layer in layers if layer.type == "Data"]
    shape = [data.data_param.batch_size, *image]
    made = type(net)(name=net.name)
    for name, dims in ((DATA, shape), (LABEL, shape[:1])):
        made.layer.add(name=name, type="Input", top=[name]).input_param.shape.add(dim=dims)
    for layer in layers:
        if layer is not data:
            made.layer.add().CopyFrom(layer)
    return Example(made, shape, classes)


def of_text(messages: Messages, text: str, classes: int) -> Example:
    """A net whose data and labels are in memory already."""
    net = text_format.Parse(text, messages.new("NetParameter"))
    shape = [int(dim) for dim in net.layer[0].input_param.shape[0].dim]
    return Example(net, shape, classes)


# -- for PyTorch -----------------------------------------------------------------------------------


def torch_layers(net: Any, images: list[int]) -> list[dict[str, Any]]:
    """The layers between the data and the losses, as torch_side.py makes them.

    Returns:
        for each: its kind there, the settings of that, the blobs it reads, and the one it makes.

    Raises:
        InputError: a layer or setting has no translation.
    """
    channels, height, width = images[1:]
    shapes = {DATA: (channels, height, width)}  # of each blob
    made: list[dict[str, Any]] = []
    for layer in net.layer:
        if layer.type in ("Input", "SoftmaxWithLoss"):
            continue
        if layer.type == "Scale" and made[-1]["kind"] == "norm":
            continue  # nn.BatchNorm2d has the factors and offsets
        bottoms = list(layer.bottom)
        (top,) = layer.top
        kind, settings, shape = _translated(layer, [shapes[bottom] for bottom in bottoms])
        shapes[top] = shape
        made.append({"kind": kind, "settings": settings, "bottoms": bottoms, "top": top})
    return made


def _translated(layer: Any, shapes: list[Shape]) -> Translated:
    translate = TRANSLATIONS.get(layer.type)
    if translate is None:
        raise InputError(f"{layer.name}: {layer.type} is not translated for PyTorch")
    return translate(layer, shapes)


def _pair(repeated: Any, height: int, width: int, default: int) -> list[int]:
    """A size as Caffe's prototxt has it: named for both directions, once for both, or not at all."""
    if height or width:
        return [int(height), int(width)]
    values = [int(value) for value in (repeated if hasattr(repeated, "__len__") else [repeated])]
    return (values * 2)[:2] if values else [default] * 2


def convolution_settings(parameter: Any, channels: int) -> dict[str, Any]:
    """The arguments of nn.Conv2d.

    Args:
        parameter: Caffe's ConvolutionParameter.
        channels: those of its input.
    """
    p = parameter
    return {
        "in_channels": channels,
        "out_channels": p.num_output,
        "kernel_size": _pair(p.kernel_size, p.kernel_h, p.kernel_w, 1),
        "stride": _pair(p.stride, p.stride_h, p.stride_w, 1),
        "padding": _pair(p.pad, p.pad_h, p.pad_w, 0),
        "dilation": _pair(p.dilation, 0, 0, 1),
        "groups": p.group,
        "bias": p.bias_term,
    }


def _convolution(layer: Any, shapes: list[Shape]) -> Translated:
    (channels, *sizes) = shapes[0]
    settings = convolution_settings(layer.convolution_param, channels)
    height, width = (
        (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
        for size, pad, dilation, kernel, stride in zip(
            sizes, settings["padding"], settings["dilation"], settings["kernel_size"], settings["stride"]
        )
    )  # fmt: skip
    return "convolution", settings, (settings["out_channels"], height, width)


def _pooling(layer: Any, shapes: list[Shape]) -> Translated:
    p = layer.pooling_param
    method = p.DESCRIPTOR.fields_by_name["pool"].enum_type.values_by_number[p.pool].name
    channels, *sizes = shapes[0]
    if p.global_pooling:
        if method != "AVE":
            raise InputError(f"{layer.name}: global {method} pooling is not translated for PyTorch")
        return "mean", {}, (channels, 1, 1)
    kernels = _pair(p.kernel_size, p.kernel_h, p.kernel_w, 1)
    strides = _pair(p.stride, p.stride_h, p.stride_w, 1)
    pads = _pair(p.pad, p.pad_h, p.pad_w, 0)
    height, width = (_pooled(*numbers) for numbers in zip(sizes, kernels, strides, pads))
    settings = {"method": method, "kernel": kernels, "stride": strides, "pad": pads}
    return "pooling", settings, (channels, height, width)


def _pooled(size: int, kernel: int, stride: int, pad: int) -> int:
    """Caffe rounds up, but no window begins outside of the image."""
    count = -(-(size + 2 * pad - kernel) // stride) + 1
    return count - 1 if pad and (count - 1) * stride >= size + pad else count


def _linear(layer: Any, shapes: list[Shape]) -> Translated:
    p = layer.inner_product_param
    channels, height, width = shapes[0]
    inputs = channels * height * width
    settings = {"in_features": inputs, "out_features": p.num_output, "bias": p.bias_term}
    return "linear", settings, (p.num_output, 1, 1)


def _lrn(layer: Any, shapes: list[Shape]) -> Translated:
    p = layer.lrn_param
    settings = {"size": p.local_size, "alpha": p.alpha, "beta": p.beta}
    if p.norm_region == p.WITHIN_CHANNEL:
        return "lrn within", settings, shapes[0]
    return "lrn", {**settings, "k": p.k}, shapes[0]


def _sum(layer: Any, shapes: list[Shape]) -> Translated:
    p = layer.eltwise_param
    if p.operation != p.SUM or p.coeff:
        raise InputError(f"{layer.name}: only sums without coefficients are translated for PyTorch")
    return "sum", {}, shapes[0]


def _concatenation(layer: Any, shapes: list[Shape]) -> Translated:
    _, height, width = shapes[0]
    return "concatenation", {}, (sum(shape[0] for shape in shapes), height, width)


def _zeros(layer: Any, shapes: list[Shape]) -> Translated:
    p = layer.power_param
    if (p.power, p.scale, p.shift) != (1, 0, 0):
        raise InputError(f"{layer.name}: of Power, only zeros are translated for PyTorch")
    return "zeros", {}, shapes[0]


def _in_place(layer: Any) -> bool:
    return bool(layer.bottom[0] == layer.top[0])


TRANSLATIONS: dict[str, Callable[[Any, list[Shape]], Translated]] = {
    "Convolution": _convolution,
    "Pooling": _pooling,
    "InnerProduct": _linear,
    "LRN": _lrn,
    "Eltwise": _sum,
    "Concat": _concatenation,
    "Power": _zeros,
    "ReLU": lambda layer, shapes: ("relu", {"inplace": _in_place(layer)}, shapes[0]),
    "Dropout": lambda layer, shapes: (
        "dropout",
        {"ratio": layer.dropout_param.dropout_ratio},
        shapes[0],
    ),
    "BatchNorm": lambda layer, shapes: (
        "norm",
        {"channels": shapes[0][0], "eps": layer.batch_norm_param.eps},
        shapes[0],
    ),
}
