"""Caffe's two data messages, ``Datum`` and ``BlobProto``, without Caffe.

The field numbers are those of ``caffe.proto``; they have been the same since Caffe's first release,
because every LMDB and mean file in the world depends on them. The classes live in a descriptor pool
of their own, so that they never meet the full ``caffe.proto`` which other parts of the program
load.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from numpy.typing import NDArray

_FIELD = descriptor_pb2.FieldDescriptorProto
_INT32, _FLOAT = _FIELD.TYPE_INT32, _FIELD.TYPE_FLOAT
_ONE, _MANY = _FIELD.LABEL_OPTIONAL, _FIELD.LABEL_REPEATED

# message -> (name, number, type, label) of the fields that LMDBs and mean images use
_FIELDS: dict[str, tuple[tuple[str, int, Any, Any], ...]] = {
    "Datum": (
        ("channels", 1, _INT32, _ONE),
        ("height", 2, _INT32, _ONE),
        ("width", 3, _INT32, _ONE),
        ("data", 4, _FIELD.TYPE_BYTES, _ONE),
        ("label", 5, _INT32, _ONE),
        ("float_data", 6, _FLOAT, _MANY),
        ("encoded", 7, _FIELD.TYPE_BOOL, _ONE),
    ),
    "BlobProto": (
        ("num", 1, _INT32, _ONE),
        ("channels", 2, _INT32, _ONE),
        ("height", 3, _INT32, _ONE),
        ("width", 4, _INT32, _ONE),
        ("data", 5, _FLOAT, _MANY),
        ("diff", 6, _FLOAT, _MANY),
    ),
}
_PACKED = {("BlobProto", "data"), ("BlobProto", "diff")}


def _build_pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(
        name="caffe_data.proto", package="caffe", syntax="proto2"
    )
    for message_name, fields in _FIELDS.items():
        message = file.message_type.add(name=message_name)
        for name, number, kind, label in fields:
            field = message.field.add(name=name, number=number, type=kind, label=label)
            if (message_name, name) in _PACKED:
                field.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


_POOL = _build_pool()

Datum: Any = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("caffe.Datum"))
"""One image and its label, a record of a Caffe LMDB: ``data`` holds channels x height x width bytes."""

BlobProto: Any = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("caffe.BlobProto"))
"""An array of floats; a mean image is one with num = 1."""


def datum_bytes(image: NDArray[np.uint8], label: int) -> bytes:
    """The serialized Datum of an image of shape (channels, height, width) and its label."""
    channels, height, width = image.shape
    datum = Datum(channels=channels, height=height, width=width, data=image.tobytes(), label=label)
    return bytes(datum.SerializeToString())


def mean_bytes(mean: NDArray[np.float32]) -> bytes:
    """The serialized BlobProto of a mean image of shape (channels, height, width).

    The fields are those that Caffe's ``compute_image_mean`` writes: num, channels, height, width,
    data.
    """
    channels, height, width = mean.shape
    blob = BlobProto(num=1, channels=channels, height=height, width=width)
    blob.data.extend(mean.ravel().tolist())
    return bytes(blob.SerializeToString())
