"""Caffe's protobuf messages, built from the descriptor that the worker's own Caffe hands over.

So the prototxt of a fork with fields of its own parses too, and the driver needs no caffe.proto.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import DecodeError

from lrbench_caffe.errors import InputError, did_you_mean

_UNKNOWN_FIELD = re.compile(r'(\d+):\d+ : .*Message type "([\w.]+)" (?:has|contains) no field named "(\w+)"')
_OTHER_ERROR = re.compile(r"(\d+):(\d+) : (.*)", re.DOTALL)


class Messages:
    """Message classes of one Caffe.

    Args:
        descriptor: the serialized FileDescriptorProto of its caffe.proto.
    """

    def __init__(self, descriptor: bytes) -> None:
        self._pool = descriptor_pool.DescriptorPool()
        self._package = descriptor_pb2.FileDescriptorProto.FromString(descriptor).package
        self._pool.AddSerializedFile(descriptor)

    def new(self, name: str) -> Any:
        """An empty message, e.g. ``new("SolverParameter")``."""
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(f"{self._package}.{name}"))()

    def read_text(self, name: str, path: Path) -> Any:
        """Read a prototxt file.

        Raises:
            InputError: the file is missing, is no text, or has a field that does not exist (with the
                nearest right name), a value of another type, or broken syntax.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
        message = self.new(name)
        try:
            text_format.Parse(text, message)
        except text_format.ParseError as error:
            raise InputError(self._explain(path, str(error))) from error
        return message

    def read_binary(self, name: str, path: Path) -> Any:
        """Read a binary protobuf file (a .caffemodel, .solverstate or .binaryproto)."""
        message = self.new(name)
        try:
            message.ParseFromString(path.read_bytes())
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from error
        except DecodeError as error:
            raise InputError(f"{path} is not a complete {name}: {error}") from error
        return message

    def _explain(self, path: Path, error: str) -> str:
        match = _UNKNOWN_FIELD.search(error)
        if match:
            line, owner, field = match.groups()
            known = [f.name for f in self._pool.FindMessageTypeByName(owner).fields]
            hint = did_you_mean(field, known)
            return f"{path}:{line}: unknown field {field!r} in {owner.rsplit('.', 1)[-1]}{hint}"
        match = _OTHER_ERROR.search(error)
        return f"{path}:{match.group(1)}: {match.group(3)}" if match else f"{path}: {error}"


def shortest(value: float) -> float:
    """A float32 field as the decimal number that was written in the prototxt."""
    return float(str(np.float32(value)))


def to_text(message: Any) -> str:
    """A message as prototxt, with numbers as short as they can be."""
    return text_format.MessageToString(message)
