"""Caffe's own files, read without Caffe: caffemodels and solver states, in both of their formats.

A file whose name ends with ".h5" is HDF5, any other one is binary protobuf: Caffe's own rule.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.any_pb2 import Any as AnyMessage

from lrbench_caffe.errors import InputError
from lrbench_caffe.prototxt.messages import Messages, file_path
from lrbench_caffe.runtime import worker as protocol

HDF5 = ".h5"

Shape = tuple[int, ...]


@dataclass(frozen=True)
class StoredBlob:
    """The shape of a blob in a file.

    Attributes:
        shape: its dimensions.
        legacy: True for the four dimensions that files from before 2014 give every blob.
    """

    shape: Shape
    legacy: bool = False

    def fits(self, shape: Shape) -> bool:
        """Whether Caffe accepts it for a blob of ``shape`` (Blob::ShapeEquals)."""
        if not self.legacy:
            return self.shape == shape
        return len(shape) <= 4 and self.shape == (1,) * (4 - len(shape)) + shape

    def __str__(self) -> str:
        return " x ".join(map(str, self.shape)) or "scalar"


@dataclass(frozen=True)
class StoredLayer:
    """A layer in a caffemodel, with its parameters by their number in the layer."""

    name: str
    blobs: dict[int, StoredBlob]


@dataclass(frozen=True)
class StoredState:
    """A solver state.

    Attributes:
        path: the file.
        iteration: updates done.
        learned_net: the name that it has for the file with its weights, None where it has none.
        history: the shapes of its history blobs: one for each parameter, or two (AdaDelta, Adam).
        current_step: the steps that lr_policy "step" or "multistep" has taken.
    """

    path: Path
    iteration: int
    learned_net: str | None
    history: tuple[StoredBlob, ...]
    current_step: int


# -- caffemodels -----------------------------------------------------------------------------------


def read_model(path: Path, messages: Messages) -> list[StoredLayer]:
    """The layers of a caffemodel.

    Raises:
        InputError: the file is missing, incomplete, or no caffemodel.
    """
    layers = _hdf5_layers(path) if path.suffix == HDF5 else _binary_layers(path, messages)
    if not layers:
        raise InputError(f"{path} holds no layers (a .caffemodel file is needed)")
    return layers


def _binary_layers(path: Path, messages: Messages) -> list[StoredLayer]:
    model = messages.read_binary("NetParameter", path)
    # Files of 2014 have "layers", those of 2013 these with a "layer" inside.
    old = [layer.layer if layer.HasField("layer") else layer for layer in model.layers]
    return [
        StoredLayer(layer.name, _numbered(map(_stored, layer.blobs)))
        for layer in [*model.layer, *old]
    ]


def _numbered(blobs: Iterable[StoredBlob]) -> dict[int, StoredBlob]:
    return dict(enumerate(blobs))


def _stored(blob: Any) -> StoredBlob:
    legacy = any(blob.HasField(name) for name in ("num", "channels", "height", "width"))
    if legacy:
        return StoredBlob((blob.num, blob.channels, blob.height, blob.width), legacy=True)
    return StoredBlob(tuple(blob.shape.dim))


def _hdf5_layers(path: Path) -> list[StoredLayer]:
    with _hdf5(path) as file:
        data = file.get("data")
        # A shared parameter is stored with its owner alone.
        return [
            StoredLayer(name, {int(i): StoredBlob(blob.shape) for i, blob in group.items()})
            for name, group in (data.items() if data is not None else ())
        ]


# -- solver states ---------------------------------------------------------------------------------


def read_state(path: Path, messages: Messages) -> StoredState:
    """A solver state.

    Raises:
        InputError: the file is missing, incomplete, or no solver state.
    """
    if path.suffix == HDF5:
        with _hdf5(path) as file:
            if "iter" not in file or "history" not in file:
                raise InputError(f"{path} is not a solver state (a .solverstate.h5 file is needed)")
            history = file["history"]
            return StoredState(
                path,
                _integer(file["iter"]),
                _text(file["learned_net"][()]) if "learned_net" in file else None,
                tuple(StoredBlob(history[str(i)].shape) for i in range(len(history))),
                _integer(file["current_step"]) if "current_step" in file else 0,
            )
    message = messages.read_binary("SolverState", path)
    if not message.HasField("iter"):  # a net without parameters has no history
        raise InputError(f"{path} is not a solver state (a .solverstate file is needed)")
    return StoredState(
        path,
        int(message.iter),
        message.learned_net or None,
        tuple(map(_stored, message.history)),
        int(message.current_step),
    )


def model_of(state: StoredState) -> Path | None:
    """The caffemodel of a solver state, None where it names none and none is beside it.

    One beside it comes first: by the name that the state has for it, then by the state's own.

    Raises:
        InputError: it is missing.
    """
    named = file_path(state.learned_net) if state.learned_net else None
    suffix = ".caffemodel.h5" if state.path.suffix == HDF5 else ".caffemodel"
    renamed = state.path.with_name(state.path.name.partition(".solverstate")[0] + suffix)
    beside = [state.path.with_name(named.name)] if named else []
    for model in (*beside, renamed, *([named] if named else [])):
        if model.is_file():
            return model
    if named is None:
        return None
    raise InputError(
        f"{state.path} belongs to {named}, which does not exist; allowed: that file, or {named.name} "
        f"beside {state.path.name}"
    )


def copy_state(
    state: Path,
    target: Path,
    messages: Messages,
    *,
    model: Path | None,
    current_step: int | None = None,
) -> None:
    """Copy a solver state, so that it names ``model`` as the file with its weights.

    Args:
        model: None leaves the name that it has.
        current_step: None leaves the number that it has.
    """
    if state.suffix != HDF5:
        message = messages.read_binary("SolverState", state)
        if current_step is not None:
            message.current_step = current_step
        name = os.fsencode(model) if model else protocol.encode(message.learned_net)
        message.ClearField("learned_net")
        # A string that is not UTF-8 cannot be set. Any's field 2 has any bytes, and so has a
        # state's field 2.
        named = AnyMessage(value=name).SerializeToString() if name else b""
        target.write_bytes(message.SerializeToString() + named)
        return
    shutil.copyfile(state, target)
    with _hdf5(target, "r+") as file:
        if model:
            name = os.fsencode(model) + b"\0"  # Caffe reads up to the NUL
            if "learned_net" in file:
                del file["learned_net"]
            file.create_dataset("learned_net", data=np.array(name, dtype=f"S{len(name)}"))
        if current_step is not None and "current_step" in file:
            file["current_step"][...] = current_step


def state_digest(state: Path, model: Path | None, messages: Messages) -> str:
    """SHA-256 of a snapshot's content without the path inside."""
    hasher = hashlib.sha256()
    if state.suffix == HDF5:
        with _hdf5(state) as file:
            history = file["history"]
            for values in [file["iter"], *(history[str(i)] for i in range(len(history)))]:
                hasher.update(np.ascontiguousarray(values[()]).tobytes())
    else:
        message = messages.read_binary("SolverState", state)
        message.ClearField("learned_net")
        message.ClearField("current_step")  # it is a function of the iteration
        hasher.update(message.SerializeToString(deterministic=True))
    if model:
        hasher.update(file_sha256(model).encode())
    return hasher.hexdigest()[:32]


def models_digest(models: Iterable[Path]) -> str:
    """SHA-256 of the content of caffemodels."""
    digests = [file_sha256(model) for model in models]
    joined = (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )
    return joined[:32]


def file_sha256(path: Path) -> str:
    """A file's SHA-256, hexadecimal."""
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            hasher.update(part)
    return hasher.hexdigest()


# -- HDF5 ------------------------------------------------------------------------------------------


@contextmanager
def _hdf5(path: Path, mode: str = "r") -> Iterator[Any]:
    import h5py  # which takes its time

    try:
        with h5py.File(path, mode) as file:
            yield file
    except (OSError, KeyError, AttributeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path} cannot be read as HDF5: {reason}") from error


def _integer(dataset: Any) -> int:
    return int(np.ravel(dataset[()])[0])


def _text(value: Any) -> str:
    """A string as HDF5 stores it: bytes, with or without a NUL at the end."""
    return (
        bytes(value).split(b"\0")[0].decode("utf-8", "replace")
        if not isinstance(value, str)
        else value
    )
