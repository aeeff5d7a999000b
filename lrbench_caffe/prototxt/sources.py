"""The data sources of a net: whether they exist, their form, and their number of samples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrbench_caffe.datasets import lmdb_info
from lrbench_caffe.datasets.identity import LMDB, data_samples
from lrbench_caffe.errors import InputError
from lrbench_caffe.prototxt.messages import Messages, file_path
from lrbench_caffe.prototxt.nets import PhaseNet
from lrbench_caffe.runtime import worker as protocol


@dataclass(frozen=True)
class Source:
    """The data layer that feeds a net.

    Attributes:
        layer: its name.
        path: where the samples are.
        batch: samples in a batch.
        samples: number of samples, None where it cannot be told without reading all of them.
        shape: (channels, height, width) that the layer puts out, None where it cannot be told.
        random: True where crops, flips or shuffling make one pass over the data unlike the next.
    """

    layer: str
    path: str
    batch: int
    samples: int | None
    shape: tuple[int, int, int] | None
    random: bool


def find_sources(net: PhaseNet, messages: Messages) -> list[tuple[Any, Source]]:
    """Check the data layers of a net that we know, and describe them.

    Returns:
        Each layer with what it reads, in the net's order.

    Raises:
        InputError: a source, list or mean file that is missing or does not fit.
    """
    known = [layer for layer in net.layers if layer.type in _READERS]
    return [(layer, _READERS[layer.type](net, layer, messages)) for layer in known]


def told_sources(
    net: PhaseNet, samples: int | None, shape: tuple[int, int, int] | None
) -> list[tuple[Any, Source]]:
    """The data layers of a net that we know, where somebody tells what the first of them reads.

    Nothing is opened.

    Args:
        samples: number of samples; None where it is not known.
        shape: (channels, height, width) that the layer puts out.

    Raises:
        InputError: a batch of no samples.
    """
    told: list[tuple[Any, Source]] = []
    for layer in net.layers:
        field = _PARAMETERS.get(layer.type)
        if field is None:
            continue
        parameter = getattr(layer, field)
        batch = _batch(net, layer, parameter.batch_size, f"{field}.batch_size")
        shuffled = bool(getattr(parameter, "shuffle", False))
        random = shuffled or _augments(net, layer)
        first = not told
        told.append(
            (
                layer,
                Source(
                    layer.name,
                    parameter.source,
                    batch,
                    samples if first else None,
                    shape if first else None,
                    random,
                ),
            )
        )
    return told


def find_source(net: PhaseNet, messages: Messages) -> Source | None:
    """The source of a net's first data layer; None without a known one. See ``find_sources``."""
    sources = find_sources(net, messages)
    return sources[0][1] if sources else None


def free_dead_readers(nets: Iterable[PhaseNet]) -> None:
    """Before Caffe opens nets: free the places of dead readers in their LMDBs."""
    layers = [layer for net in nets for layer in net.layers if layer.type == "Data"]
    paths = [layer.data_param.source for layer in layers if layer.data_param.backend == LMDB]
    for path in dict.fromkeys(paths):
        lmdb_info.free_dead_readers(path)


def _remedy(path: Path) -> str:
    """The end of a message about missing data that the ``data`` command makes."""
    from lrbench_caffe.datasets.catalogue import command_for

    command = None if path.exists() else command_for(path)
    return f" (make it: {command})" if command else ""


def where(net: PhaseNet, layer: Any, field: str) -> str:
    """A layer's field, for messages."""
    return f"{net.origin}: layer {layer.name!r} of the {net.title}: {field}"


def _data(net: PhaseNet, layer: Any, messages: Messages) -> Source:
    parameter = layer.data_param
    place = where(net, layer, "data_param.source")
    batch = _batch(net, layer, parameter.batch_size, "data_param.batch_size")
    if not parameter.source:
        raise InputError(f"{place}: is missing")
    path = file_path(parameter.source)
    if parameter.backend != LMDB:
        if not (path / "CURRENT").is_file():
            raise InputError(
                f"{place}: {path} is not a LevelDB folder"
                + (" (it is an LMDB: set backend: LMDB)" if (path / "data.mdb").is_file() else "")
            )
        return Source(layer.name, str(path), batch, None, None, _augments(net, layer))
    try:
        info = lmdb_info.inspect(path)
        lmdb_info.check_lock(path)
    except InputError as error:
        raise InputError(f"{place}: {error}{_remedy(path)}") from error
    shape = None if info.encoded else info.shape
    shape = check_transform(net, layer, shape, messages)
    return Source(layer.name, str(path), batch, info.entries, shape, _augments(net, layer))


def _image_data(net: PhaseNet, layer: Any, messages: Messages) -> Source:
    parameter = layer.image_data_param
    batch = _batch(net, layer, parameter.batch_size, "image_data_param.batch_size")
    lines = _list_file(where(net, layer, "image_data_param.source"), parameter.source)
    sized = parameter.new_height and parameter.new_width
    shape = (
        (3 if parameter.is_color else 1, parameter.new_height, parameter.new_width)
        if sized
        else None
    )
    shape = check_transform(net, layer, shape, messages)
    random = bool(parameter.shuffle or parameter.rand_skip) or _augments(net, layer)
    return Source(layer.name, parameter.source, batch, len(lines), shape, random)


def _hdf5_data(net: PhaseNet, layer: Any, messages: Messages) -> Source:
    parameter = layer.hdf5_data_param
    batch = _batch(net, layer, parameter.batch_size, "hdf5_data_param.batch_size")
    listed_files(net, layer)
    return Source(
        layer.name, parameter.source, batch, data_samples(layer), None, bool(parameter.shuffle)
    )


def listed_files(net: PhaseNet, layer: Any) -> list[Path]:
    """The files of an HDF5Data layer.

    Raises:
        InputError: its list cannot be read or is empty, or a file is missing.
    """
    place = where(net, layer, "hdf5_data_param.source")
    source = layer.hdf5_data_param.source
    # As Caffe reads it: names have no spaces.
    names = [name for line in _list_file(place, source) for name in line.split()]
    for name in names:
        if not file_path(name).is_file():
            raise InputError(f"{place}: {source} names {name}, which does not exist")
    return [file_path(name) for name in names]


_PARAMETERS = {"Data": "data_param", "ImageData": "image_data_param", "HDF5Data": "hdf5_data_param"}
_READERS = {"Data": _data, "ImageData": _image_data, "HDF5Data": _hdf5_data}


def _batch(net: PhaseNet, layer: Any, size: int, field: str) -> int:
    if size <= 0:
        raise InputError(f"{where(net, layer, field)}: is {size}; allowed: 1 or more")
    return int(size)


def _list_file(place: str, source: str) -> list[str]:
    try:
        lines = [
            line.strip() for line in protocol.decode(file_path(source).read_bytes()).splitlines()
        ]
    except OSError as error:
        raise InputError(f"{place}: cannot read {source!r}: {error.strerror}") from error
    lines = [line for line in lines if line]
    if not lines:
        raise InputError(f"{place}: {source} lists no files")
    return lines


def _augments(net: PhaseNet, layer: Any) -> bool:
    """Whether records are changed at random: Caffe flips in both phases, and crops at random in training."""
    return bool(
        layer.transform_param.mirror or (layer.transform_param.crop_size and net.phase == "TRAIN")
    )


def check_transform(
    net: PhaseNet, layer: Any, shape: tuple[int, int, int] | None, messages: Messages
) -> tuple[int, int, int] | None:
    """Check transform_param against a record's shape; returns the shape after it.

    Args:
        shape: (channels, height, width), None where it is not known.

    Raises:
        InputError: a crop, a mean file or mean values that do not fit.
    """
    transform = layer.transform_param
    if transform.mean_file:
        _check_mean(
            where(net, layer, "transform_param.mean_file"), transform.mean_file, shape, messages
        )
        if transform.mean_value:
            raise InputError(
                f"{where(net, layer, 'transform_param')}: has mean_file and mean_value; allowed: one of them"
            )
    if shape is None:
        return None
    channels, height, width = shape
    if len(transform.mean_value) not in (0, 1, channels):
        records, allowed = (
            ("1 channel", "1") if channels == 1 else (f"{channels} channels", f"1 or {channels}")
        )
        raise InputError(
            f"{where(net, layer, 'transform_param.mean_value')}: {len(transform.mean_value)} values "
            f"for records of {records}; allowed: {allowed}"
        )
    crop = transform.crop_size
    if crop > min(height, width):
        raise InputError(
            f"{where(net, layer, 'transform_param.crop_size')}: is {crop}, larger than the records "
            f"({channels} x {height} x {width})"
        )
    return (channels, crop, crop) if crop else shape


def _check_mean(
    place: str, file: str, shape: tuple[int, int, int] | None, messages: Messages
) -> None:
    if not file_path(file).is_file():
        raise InputError(f"{place}: no such file: {file}{_remedy(file_path(file))}")
    mean = messages.read_binary("BlobProto", file_path(file))
    dims = (
        tuple(mean.shape.dim)
        if mean.shape.dim
        else (mean.num, mean.channels, mean.height, mean.width)
    )
    if shape is not None and tuple(dims[-3:]) != shape:
        raise InputError(
            f"{place}: {file} is a mean of {by(dims[-3:])}; the records are {by(shape)}"
        )


def by(shape: tuple[int, ...]) -> str:
    """ "1 x 28 x 28"."""
    return " x ".join(map(str, shape))
