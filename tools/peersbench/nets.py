"""The wide nets, written from their papers: prototxts whose data and labels come from memory.

Images are 3 x 224 x 224 (CaffeNet: 227 x 227), classes 1,000. Weights start as random numbers that
keep the size of the signals, because only the time of a training matters here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from netwriter import Literal, Setting, layer

CLASSES = 1000
MAX, AVE = Literal("MAX"), Literal("AVE")

# Of a GoogLeNet module (Szegedy et al., 2014, Table 1): 1 x 1; 3 x 3 reduced, 3 x 3; 5 x 5 reduced,
# 5 x 5; 1 x 1 behind the pooling.
INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
POOLED_AFTER = ("3b", "4e")
AUXILIARY_AFTER = ("4a", "4d")


@dataclass(frozen=True)
class Net:
    """A net of this module.

    Attributes:
        title: its name in tables.
        layers: yields its layers for a batch size.
        batch: images of an iteration: few, so that a round takes seconds.
        parameters: its learnable parameters, as published or as the sum of its paper's table.
        about: what they count, and where the net is from.
    """

    title: str
    layers: Callable[[int], Iterator[str]]
    batch: int
    parameters: int
    about: str

    def prototxt(self, batch: int | None = None) -> str:
        """The net's file, for a training only."""
        return "\n".join([f'name: "{self.title}"', *self.layers(batch or self.batch)]) + "\n"


# -- layers ----------------------------------------------------------------------------------------


def inputs(batch: int, size: int) -> Iterator[str]:
    """Images and labels, which whoever opens the net fills in."""
    for name, shape in (("data", [batch, 3, size, size]), ("label", [batch])):
        yield layer(name, "Input", [], name, input_param={"shape": {"dim": list(shape)}})


def convolution(
    name: str,
    bottom: str,
    channels: int,
    kernel: int,
    *,
    pad: int = 0,
    stride: int = 1,
    group: int = 1,
    bias: bool = True,
) -> str:
    settings: dict[str, Setting] = {
        "num_output": channels,
        "kernel_size": kernel,
        "pad": pad,
        "stride": stride,
        "group": group,
        "bias_term": bias,
        "weight_filler": {"type": "msra"},
    }
    return layer(name, "Convolution", [bottom], name, convolution_param=settings)


def relu(blob: str) -> str:
    return layer(f"{blob}_relu", "ReLU", [blob], blob)


def pool(
    name: str, bottom: str, method: Literal, kernel: int, stride: int = 1, pad: int = 0
) -> str:
    settings: dict[str, Setting] = {
        "pool": method,
        "kernel_size": kernel,
        "stride": stride,
        "pad": pad,
    }
    return layer(name, "Pooling", [bottom], name, pooling_param=settings)


def norm(name: str, bottom: str) -> str:
    """Local response normalization, as in AlexNet."""
    settings: dict[str, Setting] = {"local_size": 5, "alpha": 0.0001, "beta": 0.75}
    return layer(name, "LRN", [bottom], name, lrn_param=settings)


def product(name: str, bottom: str, outputs: int) -> str:
    settings: dict[str, Setting] = {"num_output": outputs, "weight_filler": {"type": "msra"}}
    return layer(name, "InnerProduct", [bottom], name, inner_product_param=settings)


def dropout(blob: str, ratio: float) -> str:
    settings: dict[str, Setting] = {"dropout_ratio": ratio}
    return layer(f"{blob}_dropout", "Dropout", [blob], blob, dropout_param=settings)


def rectified(
    name: str,
    bottom: str,
    channels: int,
    kernel: int,
    *,
    pad: int = 0,
    stride: int = 1,
    group: int = 1,
) -> Iterator[str]:
    """A convolution and its ReLU."""
    yield convolution(name, bottom, channels, kernel, pad=pad, stride=stride, group=group)
    yield relu(name)


def hidden(name: str, bottom: str, outputs: int, ratio: float) -> Iterator[str]:
    """A fully connected layer with ReLU and dropout."""
    yield product(name, bottom, outputs)
    yield relu(name)
    yield dropout(name, ratio)


def normalized(
    name: str,
    bottom: str,
    channels: int,
    kernel: int,
    *,
    pad: int = 0,
    stride: int = 1,
    group: int = 1,
    rectify: bool = True,
) -> Iterator[str]:
    """A convolution without bias, BatchNorm with its Scale, and ReLU, all in place."""
    yield convolution(
        name, bottom, channels, kernel, pad=pad, stride=stride, group=group, bias=False
    )
    yield layer(f"{name}_bn", "BatchNorm", [name], name)
    yield layer(f"{name}_scale", "Scale", [name], name, scale_param={"bias_term": True})
    if rectify:
        yield relu(name)


def loss(bottom: str, name: str = "loss", weight: float = 1) -> str:
    return layer(name, "SoftmaxWithLoss", [bottom, "label"], name, loss_weight=weight)


# -- nets ------------------------------------------------------------------------------------------


def caffenet(batch: int) -> Iterator[str]:
    """AlexNet for one GPU, with the pooling before the normalization."""
    yield from inputs(batch, 227)
    yield from rectified("conv1", "data", 96, 11, stride=4)
    yield pool("pool1", "conv1", MAX, 3, 2)
    yield norm("norm1", "pool1")
    yield from rectified("conv2", "norm1", 256, 5, pad=2, group=2)
    yield pool("pool2", "conv2", MAX, 3, 2)
    yield norm("norm2", "pool2")
    yield from rectified("conv3", "norm2", 384, 3, pad=1)
    yield from rectified("conv4", "conv3", 384, 3, pad=1, group=2)
    yield from rectified("conv5", "conv4", 256, 3, pad=1, group=2)
    yield pool("pool5", "conv5", MAX, 3, 2)
    yield from hidden("fc6", "pool5", 4096, 0.5)
    yield from hidden("fc7", "fc6", 4096, 0.5)
    yield product("fc8", "fc7", CLASSES)
    yield loss("fc8")


def googlenet(batch: int) -> Iterator[str]:
    yield from inputs(batch, 224)
    yield from rectified("conv1", "data", 64, 7, pad=3, stride=2)
    yield pool("pool1", "conv1", MAX, 3, 2)
    yield norm("norm1", "pool1")
    yield from rectified("conv2_reduce", "norm1", 64, 1)
    yield from rectified("conv2", "conv2_reduce", 192, 3, pad=1)
    yield norm("norm2", "conv2")
    yield pool("pool2", "norm2", MAX, 3, 2)
    bottom = "pool2"
    for module, channels in INCEPTIONS.items():
        yield from inception(module, bottom, channels)
        bottom = module
        if module in AUXILIARY_AFTER:
            yield from auxiliary(module)
        if module in POOLED_AFTER:
            bottom = f"{module}_pooled"
            yield pool(bottom, module, MAX, 3, 2)
    yield pool("pool5", bottom, AVE, 7)
    yield dropout("pool5", 0.4)
    yield product("fc", "pool5", CLASSES)
    yield loss("fc")


def inception(name: str, bottom: str, channels: tuple[int, ...]) -> Iterator[str]:
    """A module of four branches, whose channels are put behind each other."""
    ones, reduced3, threes, reduced5, fives, pooled = channels
    yield from rectified(f"{name}_1x1", bottom, ones, 1)
    yield from rectified(f"{name}_3x3_reduce", bottom, reduced3, 1)
    yield from rectified(f"{name}_3x3", f"{name}_3x3_reduce", threes, 3, pad=1)
    yield from rectified(f"{name}_5x5_reduce", bottom, reduced5, 1)
    yield from rectified(f"{name}_5x5", f"{name}_5x5_reduce", fives, 5, pad=2)
    yield pool(f"{name}_pool", bottom, MAX, 3, pad=1)
    yield from rectified(f"{name}_projection", f"{name}_pool", pooled, 1)
    branches = [f"{name}_{branch}" for branch in ("1x1", "3x3", "5x5", "projection")]
    yield layer(name, "Concat", branches, name)


def auxiliary(bottom: str) -> Iterator[str]:
    """A classifier on the way, whose loss counts 0.3."""
    name = f"{bottom}_auxiliary"
    yield pool(f"{name}_pool", bottom, AVE, 5, 3)
    yield from rectified(f"{name}_conv", f"{name}_pool", 128, 1)
    yield from hidden(f"{name}_hidden", f"{name}_conv", 1024, 0.7)
    yield product(f"{name}_fc", f"{name}_hidden", CLASSES)
    yield loss(f"{name}_fc", f"{name}_loss", 0.3)


def vgg16(batch: int) -> Iterator[str]:
    yield from inputs(batch, 224)
    bottom = "data"
    for stage, (count, channels) in enumerate(
        [(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], start=1
    ):
        for number in range(1, count + 1):
            name = f"conv{stage}_{number}"
            yield from rectified(name, bottom, channels, 3, pad=1)
            bottom = name
        yield pool(f"pool{stage}", bottom, MAX, 2, 2)
        bottom = f"pool{stage}"
    yield from hidden("fc6", bottom, 4096, 0.5)
    yield from hidden("fc7", "fc6", 4096, 0.5)
    yield product("fc8", "fc7", CLASSES)
    yield loss("fc8")


def resnet50(batch: int) -> Iterator[str]:
    yield from inputs(batch, 224)
    yield from normalized("conv1", "data", 64, 7, pad=3, stride=2)
    yield pool("pool1", "conv1", MAX, 3, 2)
    bottom = "pool1"
    for stage, (count, channels) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)], start=2):
        for number in range(1, count + 1):
            name = f"res{stage}_{number}"
            stride = 2 if stage > 2 and number == 1 else 1
            yield from bottleneck(name, bottom, channels, stride, project=number == 1)
            bottom = name
    yield pool("pool5", bottom, AVE, 7)
    yield product("fc", "pool5", CLASSES)
    yield loss("fc")


def bottleneck(
    name: str, bottom: str, channels: int, stride: int, *, project: bool
) -> Iterator[str]:
    """A residual block: 1 x 1, 3 x 3, 1 x 1 with four times the channels; the first one has the stride."""
    shortcut = bottom
    if project:
        shortcut = f"{name}_shortcut"
        yield from normalized(shortcut, bottom, 4 * channels, 1, stride=stride, rectify=False)
    yield from normalized(f"{name}_a", bottom, channels, 1, stride=stride)
    yield from normalized(f"{name}_b", f"{name}_a", channels, 3, pad=1)
    yield from normalized(f"{name}_c", f"{name}_b", 4 * channels, 1, rectify=False)
    yield layer(name, "Eltwise", [shortcut, f"{name}_c"], name)
    yield relu(name)


def mobilenet(batch: int) -> Iterator[str]:
    """Of full width: each 3 x 3 convolution has a group for every channel."""
    yield from inputs(batch, 224)
    yield from normalized("conv1", "data", 32, 3, pad=1, stride=2)
    before, bottom = 32, "conv1"
    blocks = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
    blocks += [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
    for number, (channels, stride) in enumerate(blocks, start=2):
        depthwise, pointwise = f"conv{number}_depthwise", f"conv{number}"
        yield from normalized(depthwise, bottom, before, 3, pad=1, stride=stride, group=before)
        yield from normalized(pointwise, depthwise, channels, 1)
        before, bottom = channels, pointwise
    yield pool("pool", bottom, AVE, 7)
    yield product("fc", "pool", CLASSES)
    yield loss("fc")


NETS = {
    "caffenet": Net("CaffeNet", caffenet, 16, 60_965_224, "Krizhevsky et al., 2012; two groups"),
    "googlenet": Net(
        "GoogLeNet", googlenet, 8, 13_378_280,
        "Szegedy et al., 2014; 6,998,552 and two auxiliary classifiers of 3,188,840 and 3,190,888",
    ),
    "vgg16": Net("VGG-16", vgg16, 2, 138_357_544, "Simonyan and Zisserman, 2014, net D"),
    "resnet50": Net(
        "ResNet-50", resnet50, 4, 25_557_032,
        "He et al., 2015; with the factors and offsets of the normalizations, not their statistics",
    ),
    "mobilenet": Net(
        "MobileNet v1", mobilenet, 8, 4_231_976,
        "Howard et al., 2017, width 1; with factors and offsets, not statistics",
    ),
}  # fmt: skip
