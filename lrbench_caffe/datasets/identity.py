"""A digest of the data that a net reads: it tells data sets of one name and form apart.

Reading all of a large data set would take minutes before each training, so the digest covers both
ends of it: 64 records of an LMDB, rows of an HDF5 file, or files of a list of images, and the
number of records. Layers that make data from their parameters (DummyData, Python layers, layers of
forks) are told apart by these parameters, and by the files and folders that they name.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lrbench_caffe.datasets.lmdb_info import ends
from lrbench_caffe.records import AT_PLACE

ENDS = 64  # records from each end of a data set
LMDB = 1  # caffe.proto's DataParameter.DB

_WORD = re.compile(r"[^\s'\",;:={}()\[\]]+")
_HEAD = 1 << 20  # bytes of a file that a parameter names


def data_digest(train: Sequence[Any], test: Sequence[Any]) -> str | None:
    """The digest of these layers' data: 32 hexadecimal digits.

    Args:
        train, test: LayerParameter messages of the layers that produce data in each phase.

    Returns:
        None where a layer names files that are not there, or nothing is read at all. Where
        something can only be known by its place (a LevelDB), the digest begins with ``AT_PLACE``:
        equal digests then do not promise equal data.

    Raises:
        InputError: an LMDB that cannot be read.
    """
    layers = [*train, *test]
    if not layers:
        return None
    if len(train) <= 1 and len(test) <= 1 and all(map(_is_lmdb, layers)):
        # As it has always been made, so that runs of earlier versions stay on their task.
        parts = [_lmdb_content(Path(layer.data_param.source)) for layer in layers]
        return None if None in parts else _hex(b"".join(part for part in parts if part is not None))
    try:
        contents = [[_layer_content(layer) for layer in phase] for phase in (train, test)]
    except FileNotFoundError:
        return None
    # The order of the layers in the prototxt says nothing about the data.
    digest = _hex(b"|".join(b"".join(sorted(phase)) for phase in contents))
    place = any(map(_is_leveldb, layers))
    return f"{AT_PLACE}{digest}" if place else digest


def reads_content(layer: Any) -> bool:
    """Whether what the digest has of a layer is the content of its data alone."""
    return layer.type in _READERS and not _is_leveldb(layer)


def data_samples(layer: Any) -> int | None:
    """The number of records of a data layer; None if its files do not tell it."""
    with contextlib.suppress(OSError, KeyError, ValueError, IndexError):
        if layer.type == "HDF5Data":
            return hdf5_rows(layer)
        if layer.type == "WindowData":
            lines = Path(layer.window_data_param.source).read_bytes().splitlines()
            return sum(line.startswith(b"#") for line in lines) or None
        if layer.type == "ImageData":
            lines = Path(layer.image_data_param.source).read_bytes().splitlines()
            return sum(bool(line.strip()) for line in lines) or None
    return None


def hdf5_rows(layer: Any) -> int:
    """Rows in all files of an HDF5Data layer.

    Raises:
        OSError, KeyError: a file that cannot be read, or lacks the layer's first top.
    """
    import h5py  # which takes its time

    total = 0
    for path in _listed(layer.hdf5_data_param.source):
        with h5py.File(path, "r") as file:
            total += int(file[layer.top[0]].shape[0])
    return total


def _hex(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _is_lmdb(layer: Any) -> bool:
    return bool(layer.type == "Data" and layer.data_param.backend == LMDB)


def _is_leveldb(layer: Any) -> bool:
    return bool(layer.type == "Data" and layer.data_param.backend != LMDB)


def _layer_content(layer: Any) -> bytes:
    """What a layer reads, as bytes that differ where the data does."""
    read = _READERS.get(layer.type, _by_parameters)
    return hashlib.sha256(layer.type.encode() + b"".join(read(layer))).digest()


# -- LMDB and LevelDB ------------------------------------------------------------------------------


def _lmdb_content(folder: Path) -> bytes | None:
    """Number of records, and those at both ends; None where it is not there."""
    if not (folder / "data.mdb").is_file():
        return None
    entries, records = ends(folder, ENDS)
    return b"".join([str(entries).encode(), *records])


def _database(layer: Any) -> Iterator[bytes]:
    folder = Path(layer.data_param.source)
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    content = _lmdb_content(folder) if _is_lmdb(layer) else str(folder.resolve()).encode()
    if content is None:
        raise FileNotFoundError(folder)
    yield content


# -- lists of files --------------------------------------------------------------------------------


def _listed(source: str) -> list[str]:
    lines = Path(source).read_bytes().decode(errors="surrogateescape").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _both_ends(items: Sequence[Any]) -> list[Any]:
    """The first and last ``ENDS`` items, each once."""
    return list(items) if len(items) <= 2 * ENDS else [*items[:ENDS], *items[-ENDS:]]


def _hdf5(layer: Any) -> Iterator[bytes]:
    """Shape and rows at both ends of each data set, the files at both ends of the list."""
    import h5py

    files = _listed(layer.hdf5_data_param.source)
    yield str(len(files)).encode()
    for path in _both_ends(files):
        try:
            with h5py.File(path, "r") as file:
                for name in layer.top:
                    data = file[name]
                    yield repr(data.shape).encode()
                    yield data[:ENDS].tobytes()
                    yield data[-ENDS:].tobytes()
        except FileNotFoundError:
            raise
        except (OSError, KeyError, TypeError):  # not for us to say that: Caffe will
            yield _file_content(Path(path))


def _images(layer: Any) -> Iterator[bytes]:
    """The list with its labels, and the image files at both ends of it."""
    parameter = layer.image_data_param
    lines = _listed(parameter.source)
    yield "\n".join(lines).encode(errors="surrogateescape")
    for line in _both_ends(lines):
        yield _file_content(Path(parameter.root_folder + line.rpartition(" ")[0]))


def _windows(layer: Any) -> Iterator[bytes]:
    """The window file, and the images at both ends of it: "# index", then the image's path."""
    parameter = layer.window_data_param
    lines = _listed(parameter.source)
    yield "\n".join(lines).encode(errors="surrogateescape")
    heads = [number for number, line in enumerate(lines[:-1]) if line.startswith("#")]
    for number in _both_ends(heads):
        yield _file_content(Path(parameter.root_folder + lines[number + 1]))


def _file_content(path: Path) -> bytes:
    """The beginning of a file, and its size. One that is missing is Caffe's to complain about."""
    try:
        with path.open("rb") as file:
            return str(path.stat().st_size).encode() + hashlib.sha256(file.read(_HEAD)).digest()
    except OSError:
        return b"missing"


# -- by parameters ---------------------------------------------------------------------------------


def _by_parameters(layer: Any) -> Iterator[bytes]:
    """A layer's parameters without its names, and the files and folders that these name."""
    rest = type(layer)()
    rest.CopyFrom(layer)
    for name in ("name", "top", "include", "exclude", "phase"):
        rest.ClearField(name)
    yield rest.SerializeToString(deterministic=True)
    for word in dict.fromkeys(_words(rest)):
        with contextlib.suppress(OSError, ValueError):
            path = Path(word)
            if path.is_file():
                yield _file_content(path)
            elif (path / "data.mdb").is_file():
                yield _lmdb_content(path) or b""
            elif path.is_dir():
                names = sorted(entry.name for entry in path.iterdir())
                yield "\n".join(names).encode(errors="surrogateescape")


def _words(message: Any) -> Iterator[str]:
    """The words of all texts in a message, and the texts themselves."""
    for field, value in message.ListFields():
        values = value if _repeated(field) else [value]
        for item in values:
            if field.message_type is not None:
                yield from _words(item)
            elif isinstance(item, str):
                yield item
                yield from _WORD.findall(item)


def _repeated(field: Any) -> bool:
    """Whether a field holds several values: newer protobufs lack ``label``, older ones ``is_repeated``."""
    known = getattr(field, "is_repeated", None)
    return bool(field.label == field.LABEL_REPEATED) if known is None else bool(known)


_READERS: dict[str, Callable[[Any], Iterator[bytes]]] = {
    "Data": _database,
    "HDF5Data": _hdf5,
    "ImageData": _images,
    "WindowData": _windows,
}
