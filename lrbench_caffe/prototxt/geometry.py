"""Do the records fit the net? Caffe aborts when a kernel is larger than what it is laid on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lrbench_caffe.errors import InputError
from lrbench_caffe.prototxt.nets import PhaseNet
from lrbench_caffe.prototxt.sources import Source

# Layers whose top has the height and width of their bottom.
SAME_SIZE = frozenset(
    [
        "ReLU",
        "PReLU",
        "ELU",
        "Sigmoid",
        "TanH",
        "BNLL",
        "Power",
        "Exp",
        "Log",
        "AbsVal",
        "Dropout",
        "LRN",
        "BatchNorm",
        "Scale",
        "Bias",
        "MVN",
        "Softmax",
        "Eltwise",
        "Split",
        "Threshold",
        "Clip",
        "Swish",
    ]
)

ROUND_FLOOR = 1  # caffe.proto's PoolingParameter.RoundMode

Size = tuple[int, int]


def check_geometry(net: PhaseNet, sources: Sequence[tuple[Any, Source]]) -> None:
    """Follow height and width through convolutions and poolings, as far as they are known.

    Args:
        net: the net.
        sources: its data layers with what they read.

    Raises:
        InputError: a layer whose kernel is larger than its padded input.
    """
    sizes: dict[str, Size] = {}
    data: dict[str, Source] = {}  # what each size comes from
    for layer in net.layers:
        source = next((source for owner, source in sources if owner is layer), None)
        above = layer.bottom[0] if layer.bottom else None
        top = None
        if source is not None:
            top = source.shape[1:] if source.shape else None
        elif above in sizes:
            source, top = data[above], top_size(layer, sizes[above])
        for blob in layer.top:
            sizes.pop(blob, None)
        if source is None or top is None or not layer.top:
            continue
        if above is not None and min(top) < 1:
            assert source.shape is not None
            (height, width), (_, rows, columns) = sizes[above], source.shape
            crop = next(owner.transform_param.crop_size for owner, one in sources if one is source)
            size = f"cropped to {rows} x {columns} (crop_size)" if crop else f"{rows} x {columns}"
            raise InputError(
                f"{net.origin}: layer {layer.name!r} ({layer.type}) {_kernel(layer)}does not fit "
                f"its input of {height} x {width}; the records in {source.path} are {size}: "
                "is this the data the net was made for?"
            )
        blobs = (
            layer.top if layer.bottom else layer.top[:1]
        )  # a data layer's second top has its labels
        sizes.update(dict.fromkeys(blobs, top))
        data.update(dict.fromkeys(blobs, source))


def _kernel(layer: Any) -> str:
    """The layer's kernel_size in words."""
    if layer.type == "Convolution":
        parameter = layer.convolution_param
        height, width = _pair(parameter.kernel_size, parameter, "kernel", 0)
    else:
        parameter = layer.pooling_param
        height, width = _pair([parameter.kernel_size], parameter, "kernel", 0)
    return f"of kernel_size {height} x {width} "


def top_size(layer: Any, bottom: Size) -> Size | None:
    """Height and width of what a layer makes of its bottom's; None where that is not known here."""
    if layer.type == "Convolution":
        return _convolution(layer.convolution_param, bottom)
    if layer.type == "Pooling":
        return _pooling(layer.pooling_param, bottom)
    if layer.type == "Concat":
        return (
            bottom if layer.concat_param.axis == 1 and layer.concat_param.concat_dim == 1 else None
        )
    return bottom if layer.type in SAME_SIZE else None


def _pair(repeated: Any, parameter: Any, name: str, default: int) -> Size:
    """A size given as name, once or per axis, or as name_h and name_w."""
    if parameter.HasField(f"{name}_h") or parameter.HasField(f"{name}_w"):
        return getattr(parameter, f"{name}_h"), getattr(parameter, f"{name}_w")
    values = list(repeated) or [default]
    return (values[0], values[-1])


def _convolution(parameter: Any, bottom: Size) -> Size | None:
    if parameter.axis != 1 or len(parameter.kernel_size) > 2:
        return None
    kernel = _pair(parameter.kernel_size, parameter, "kernel", 0)
    pad = _pair(parameter.pad, parameter, "pad", 0)
    stride = _pair(parameter.stride, parameter, "stride", 1)
    dilation = list(getattr(parameter, "dilation", [])) or [1]
    dilated = (dilation[0] * (kernel[0] - 1) + 1, dilation[-1] * (kernel[1] - 1) + 1)
    if min(kernel) < 1 or min(stride) < 1:
        return None
    height, width = ((bottom[i] + 2 * pad[i] - dilated[i]) // stride[i] + 1 for i in (0, 1))
    return height, width


def _pooling(parameter: Any, bottom: Size) -> Size | None:
    if parameter.global_pooling:
        return 1, 1
    kernel = _pair([parameter.kernel_size], parameter, "kernel", 0)
    pad = _pair([parameter.pad], parameter, "pad", 0)
    stride = _pair([parameter.stride], parameter, "stride", 1)
    if min(kernel) < 1 or min(stride) < 1:
        return None
    floor = (
        "round_mode" in parameter.DESCRIPTOR.fields_by_name and parameter.round_mode == ROUND_FLOOR
    )

    def side(i: int) -> int:
        room = bottom[i] + 2 * pad[i] - kernel[i]
        # Caffe rounds up here, and so accepts a kernel that hangs over the far edge.
        steps = room // stride[i] if floor else -(-room // stride[i])
        # With padding, a last window that would begin in the padding is dropped.
        beyond = max(pad) > 0 and steps * stride[i] >= bottom[i] + pad[i]
        return steps if beyond else steps + 1

    return side(0), side(1)
