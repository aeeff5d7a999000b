"""Caffe's protobuf messages, built from the descriptor that the worker's own Caffe sends.

So the prototxt of a fork with fields of its own parses too, and the driver needs no caffe.proto.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import DecodeError

from lrbench_caffe.errors import InputError, did_you_mean, named
from lrbench_caffe.prototxt import examples
from lrbench_caffe.runtime import worker as protocol
from lrbench_caffe.runtime.locate import VARIABLE

_UNKNOWN_FIELD = re.compile(
    r'(\d+):\d+ : .*Message type "([\w.]+)" (?:has|contains) no field named "(\w+)"'
)
_UNKNOWN_VALUE = re.compile(r'Enum type "[\w.]+" has no value named')
_TOO_LONG_FOR_PYTHON = re.compile(r"Exceeds the limit .*for integer string conversion")
_LAYERS, _WITH_LAYERS = ("layer", "layers"), ("NetParameter", "SolverParameter")
# Python's parser puts the whole line before the cause, which begins with a capital letter.
_OTHER_ERROR = re.compile(r"(\d+):(\d+) : (?:'(.*)': (?=[A-Z]))?(.*)", re.DOTALL)
_EXCERPT = 40  # characters of a line that a message shows
_LONG_WORD = re.compile(
    r"([\w.+-]{40})[\w.+-]{40,}"
)  # such as a number of 5,000 digits: a message shows its beginning
_BEGINNING = r"\1..."
_IN_LAYER = re.compile(r"((?:\w+(?:\[\d+\])?\.)*?)layer\[(\d+)\]\.(.*)")
_BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "UTF-8", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
# The text in which Python's parser and the C++ one that Caffe has cannot differ. Beyond it they do:
# "4_0", "+5", "0b1" and "0o17" are numbers to Python, "- 5" is one to C++, and so is "01" for a
# bool.
_PLAIN_TOKEN = re.compile(
    r"""[ \t\n]+ | \r\n
    | \#[^\n\0]*
    | (?!(?i:inf|nan))[A-Za-z_][A-Za-z0-9_]*
    | "[^"\\\n\0]*" | '[^'\\\n\0]*'
    | (?: 0 | -?[1-9][0-9]{0,17} | -?0(?=\.) ) (?:\.[0-9]+)? (?:[eE][+-]?[0-2]?[0-9])? (?![A-Za-z0-9_.])
    | [{}<>:;,]
    """,
    re.VERBOSE | re.ASCII,
)

Reader = Callable[[str, Path], "bytes | None"]


class Messages:
    """Message classes of one Caffe.

    Args:
        descriptor: the serialized FileDescriptorProto of its caffe.proto.
        reader: reads a prototxt with that Caffe's own functions (see
            ``runtime.reader.CaffeReader``); None where only the driver's parser is there.
    """

    def __init__(self, descriptor: bytes, reader: Reader | None = None) -> None:
        self._reader = reader
        self._pool = descriptor_pool.DescriptorPool()
        self._package = descriptor_pb2.FileDescriptorProto.FromString(descriptor).package
        self._pool.AddSerializedFile(descriptor)

    def new(self, name: str) -> Any:
        """An empty message, e.g. ``new("SolverParameter")``."""
        return message_factory.GetMessageClass(
            self._pool.FindMessageTypeByName(f"{self._package}.{name}")
        )()

    def read_text(self, name: str, path: Path) -> Any:
        """Read a prototxt file as Caffe would, a net of an older format upgraded.

        Raises:
            InputError: the file is missing, or has a field that does not exist (with the nearest
                right name), a value of another type, or broken syntax.
        """
        return self._read(name, path)[0]

    def read_net(self, path: Path) -> tuple[Any, str | None]:
        """``read_text`` for a net, and the older format that it was upgraded from, in words."""
        return self._read("NetParameter", path)

    def _read(self, name: str, path: Path) -> tuple[Any, str | None]:
        try:
            data = path.read_bytes()
        except OSError as error:
            command = examples.command_for(path) if isinstance(error, FileNotFoundError) else None
            remedy = f"; {command} writes it" if command else ""
            raise InputError(f"cannot read {path}: {error.strerror}{remedy}") from error
        reader = self._reader
        return self.parse(name, path, data, None if reader is None else lambda: reader(name, path))

    def parse(
        self, name: str, path: Path, data: bytes, ask: Callable[[], bytes | None] | None = None
    ) -> tuple[Any, str | None]:
        """A message out of the bytes of a prototxt, as ``read_net`` gives it.

        Args:
            path: what messages call it; it is not opened.
            ask: reads the same bytes with Caffe's own functions, as a ``Reader`` does; None where
                only the driver's parser is there.

        Raises:
            InputError: as ``read_text``.
        """
        for mark, encoding in _BYTE_ORDER_MARKS.items():
            if data.startswith(mark):
                raise InputError(
                    f"{path}: begins with a byte order mark ({encoding}), which Caffe's parser refuses, too; "
                    "save it as plain UTF-8, without BOM"
                )
        text = protocol.decode(data)
        message, problem = self.new(name), None
        try:
            text_format.Parse(text, message)
        except (
            text_format.ParseError,
            ValueError,
        ) as error:  # ValueError: an escape of no character
            problem = f"{path}{_LONG_WORD.sub(_BEGINNING, self._explain(str(error)))}"
        problem = problem or _missing(path, message)
        old = old_format(message) if name == "NetParameter" else None
        if problem is None and old is None and not _PLAIN_TOKEN.sub("", text):
            return message, None
        return self._as_caffe_reads(name, path, message, problem, old, ask)

    def _as_caffe_reads(
        self,
        name: str,
        path: Path,
        message: Any,
        problem: str | None,
        old: str | None,
        ask: Callable[[], bytes | None] | None,
    ) -> tuple[Any, str | None]:
        """Let Caffe decide what the driver's parser is not enough for."""
        try:
            data = ask() if ask else None
        except InputError as error:
            raise InputError(problem or str(error)) from error
        if data is not None:
            read = self.new(name)
            read.MergeFromString(data)
            _decode_strings(read)
            return read, old
        if problem:
            raise InputError(problem)
        if old:
            raise InputError(
                f"{path}: has {old}, and this Caffe cannot be asked to upgrade it; "
                "convert it with Caffe's tool upgrade_net_proto_text"
            )
        return message, None

    def read_binary(self, name: str, path: Path) -> Any:
        """Read a binary protobuf file (a .caffemodel, .solverstate or .binaryproto)."""
        message = self.new(name)
        try:
            message.ParseFromString(path.read_bytes())
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from error
        except DecodeError as error:
            raise InputError(f"{path} is not a complete {name}: {error}") from error
        _decode_strings(message)
        return message

    def _explain(self, error: str) -> str:
        """The parser's complaint, as the rest of a message that begins with the file."""
        match = _UNKNOWN_FIELD.match(error)
        if match:
            line, owner, field = match.groups()
            known = [f.name for f in self._pool.FindMessageTypeByName(owner).fields]
            kind = owner.rsplit(".", 1)[-1]
            if field in _LAYERS and kind not in _WITH_LAYERS:
                return f":{line}: {field!r} in {kind}; allowed: in a net; is a '}}' missing before this line?"
            return f":{line}: unknown field {field!r} in {kind}{lacks(field, known)}"
        match = _OTHER_ERROR.match(error)
        if match is None:
            return f": {error}"
        line, column, text, cause = match.groups()
        cause = cause.rstrip(".")
        if _UNKNOWN_VALUE.search(cause):
            return f":{line}: {cause}{lacks('', [])}"
        if _TOO_LONG_FOR_PYTHON.search(cause):
            cause = "Number of too many digits"
        if cause.startswith("String missing ending quote"):  # the rest of the line is behind it
            cause = "String missing ending quote"
        return f":{line}: {cause} (column {column}{_excerpt(text or '', int(column))})"


def _missing(path: Path, message: Any) -> str | None:
    """What is wrong with a message that lacks fields without which it is none; None where it has them all."""
    missing = message.FindInitializationErrors()
    if not missing:
        return None
    place = _IN_LAYER.fullmatch(missing[0])
    if place is None:
        return f"{path}: {missing[0]} is missing"
    net, number, field = place.groups()
    for part in filter(None, net.split(".")):
        name, _, index = part.rstrip("]").partition("[")
        message = getattr(message, name)[int(index)] if index else getattr(message, name)
    layer = message.layer[int(number)]
    return f"{path}: layer {layer.name!r} ({layer.type}): {field} is missing"


def _excerpt(line: str, column: int) -> str:
    """The text of a line at a column, from 1, after ``: ``; empty for an empty line."""
    part = line[max(0, column - 1 - _EXCERPT // 2) :][:_EXCERPT].strip()
    return f": {part!r}" if part else ""


def lacks(name: str, known: Iterable[str]) -> str:
    """The end of a message about a field or layer that this Caffe does not have.

    A slip of the finger gets the right name. Anything else may well be a fork's:
    ``DepthwiseConvolution`` is not a slip for ``Convolution``, nor is ``Convolution3D``.
    """
    near = did_you_mean(name, known, least=0.85)
    extra = name.lower().replace(near.split("'")[1].lower(), "", 1) if near else ""
    if near and (extra == name.lower() or extra == "" or (len(extra) == 1 and extra.isalpha())):
        return near
    fork = f"{VARIABLE} or {named('caffe_python')} names the Python of a fork that has it"
    return f": this Caffe has none; {fork}"


def shortest(value: float) -> float:
    """A float32 field as the decimal number that was written in the prototxt."""
    return float(str(np.float32(value)))


def to_text(message: Any) -> str:
    """A message as prototxt, with numbers as short as they can be."""
    return text_format.MessageToString(message, as_utf8=True)


def to_bytes(message: Any) -> bytes:
    """A message as a prototxt file, with the bytes that its strings had where it was read."""
    return bytes(protocol.encode(to_text(message)))


def file_path(name: str) -> Path:
    """The file that a message names: to Caffe a name is bytes, whatever their encoding."""
    return Path(os.fsdecode(protocol.encode(name)))


def path_name(path: Path) -> str:
    """A path as a message names it; ``file_path`` is the inverse."""
    return str(protocol.decode(os.fsencode(path)))


def utf8_stem(path: Path) -> str:
    """A file's name without its suffix, as UTF-8: any other byte becomes an underscore."""
    return os.fsencode(path.stem).decode("utf-8", "replace").replace("\ufffd", "_")


def old_format(net: Any) -> str | None:
    """The old format of a NetParameter that Caffe would upgrade, in words; None for a current one."""
    if any(layer.HasField("layer") for layer in net.layers):
        return "the layers of 2013 (layers { layer { ... } })"
    if net.layers:
        return "the layers of 2014 (layers { type: NAME })"
    if net.input:
        return "inputs as fields of the net (input, input_dim)"
    return None


def _decode_strings(message: Any) -> None:
    """Make text of all strings of a message that was read from bytes (see ``worker.decode``)."""

    def text(value: Any) -> str:
        return str(protocol.decode(value if isinstance(value, bytes) else value.encode()))

    for field, value in message.ListFields():
        repeated = not isinstance(value, (str, bytes)) and hasattr(value, "append")
        if field.type == field.TYPE_MESSAGE:
            for part in value if repeated else [value]:
                _decode_strings(part)
        elif field.type == field.TYPE_STRING and repeated:
            value[:] = [text(part) for part in value]
        elif field.type == field.TYPE_STRING:
            setattr(message, field.name, text(value))
