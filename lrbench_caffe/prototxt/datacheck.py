"""Checks all records of a solver's data, once for each data set: can Caffe train on them?

Caffe accepts labels outside the classes and records shorter than they claim, and then computes with
unrelated memory; it aborts in the middle of a training on a record of another size. The findings
about a data set are kept in the user's cache directory as long as its files stay the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrbench_caffe.datasets.identity import LMDB
from lrbench_caffe.datasets.scan import RAW, TURNED, Ranges, Records, Scan, Shape
from lrbench_caffe.errors import InputError, named
from lrbench_caffe.files import remove_leftovers, replace_own
from lrbench_caffe.progress import Moved, Progress
from lrbench_caffe.prototxt.labels import LabelReader, label_readers
from lrbench_caffe.prototxt.messages import Messages, file_path
from lrbench_caffe.prototxt.nets import PhaseNet
from lrbench_caffe.prototxt.sources import by, check_transform, listed_files, where
from lrbench_caffe.runtime.locate import cache_dir

_VERSION = 2  # of what is kept
_MOST_KEPT = 500
_PATIENCE = 2.0  # seconds before progress is shown
_SEARCH = 60.0  # seconds for which damage is looked for after a crash


@dataclass(frozen=True)
class CheckedData:
    """A data layer whose records were all checked.

    Attributes:
        net, layer: the data layer.
        field: the name of its field that names the data.
        blob: its top with labels or the like, None where it has none.
        records: the data.
        scan: what it is like.
    """

    net: PhaseNet
    layer: Any
    field: str
    blob: str | None
    records: Records
    scan: Scan


def check_records(
    nets: Sequence[PhaseNet], messages: Messages, progress: Progress
) -> list[CheckedData]:
    """Read all records of these nets and check their forms.

    LevelDBs, and data that layers make or get while they run, are not looked at.

    Args:
        messages: this Caffe's messages.
        progress: told of a check that takes longer.

    Raises:
        InputError: a record that Caffe cannot read, or that does not fit the data layer.
    """
    scans: dict[str, Scan] = {}
    checked = []
    for net in nets:
        for layer in net.layers:
            for field, blob, records in _records(net, layer):
                try:
                    if records.place not in scans:
                        scans[records.place] = scan_once(records, progress)
                except InputError as error:
                    raise InputError(f"{where(net, layer, field)}: {error}") from error
                looked_at = CheckedData(net, layer, field, blob, records, scans[records.place])
                _check_shapes(looked_at, messages)
                checked.append(looked_at)
    return checked


def check_labels(
    checked: Sequence[CheckedData], shapes: Mapping[str, Mapping[str, Sequence[int]]]
) -> None:
    """Check the labels of all records against the number of classes.

    Args:
        checked: what ``check_records`` found.
        shapes: of the blobs, by the title of their net.

    Raises:
        InputError: a label that a layer of the net cannot have.
    """
    for layer in checked:
        if layer.blob is None:
            continue
        for reader in label_readers(layer.net, layer.layer, layer.blob):
            classes = reader.classes(shapes.get(layer.net.title, {}))
            if classes is not None:
                _check_reader(layer, reader, classes)


def _check_reader(checked: CheckedData, reader: LabelReader, classes: int) -> None:
    layer = reader.layer
    begin = f"{checked.net.origin}: layer {layer.name!r} ({layer.type}) of the {checked.net.title}"
    end = f"allowed: {reader.allowed(classes)} ({named('trust_data')} trains without this check)"
    if checked.scan.unlabelled is not None:
        raise InputError(
            f"{begin}: {checked.scan.unlabelled} in {checked.records.place} has no numeric label; {end}"
        )
    if not _any_outside(checked.scan.labels, reader, classes):
        return
    culprit = checked.records.find(lambda label: reader.outside(label, classes))
    if culprit is not None:
        record, label = culprit
        raise InputError(
            f"{begin}: {record} of {checked.records.place} has the label {label}; {end}"
        )


def _any_outside(labels: Ranges, reader: LabelReader, classes: int) -> bool:
    for low, high in labels:
        for first, last in ((low, min(high, -1)), (max(low, classes), high)):
            ignored = sum(first <= label <= last for label in reader.ignored)
            if last - first + 1 > ignored:
                return True
    return False


@dataclass(frozen=True)
class LmdbState:
    """The LMDBs of a solver after Caffe has died.

    Attributes:
        text: which they are, and which is damaged.
        reader: the net and the layer that read the damaged one, None where none is.
    """

    text: str
    reader: tuple[PhaseNet, Any] | None


def state_of_lmdbs(nets: Sequence[PhaseNet]) -> LmdbState | None:
    """After a crash: the LMDBs that the nets read, and which is damaged; None without any."""
    readers: dict[str, tuple[PhaseNet, Any]] = {}
    for net in nets:
        for layer in net.layers:
            if layer.type == "Data" and layer.data_param.backend == LMDB:
                readers.setdefault(str(file_path(layer.data_param.source)), (net, layer))
    if not readers:
        return None
    from lrbench_caffe.datasets.lmdb_scan import LmdbRecords

    deadline = time.monotonic() + _SEARCH

    def stop_in_time(done: int, total: int) -> None:
        if time.monotonic() > deadline:
            raise TimeoutError

    for place, reader in readers.items():
        try:
            LmdbRecords(Path(place)).scan(stop_in_time)
        except InputError as error:
            return LmdbState(f"it read {error}", reader)
        except TimeoutError:
            break
    return LmdbState(f"no damage was found in {' and '.join(readers)}", None)


# -- what is read ----------------------------------------------------------------------------------


def _records(net: PhaseNet, layer: Any) -> list[tuple[str, str | None, Records]]:
    """A layer's data that can be checked: the field that names it, the top for labels, the data."""
    label = layer.top[1] if len(layer.top) > 1 else None
    # Each kind of data has a module of its own, loaded for a layer that reads it.
    if layer.type == "Data" and layer.data_param.backend == LMDB:
        from lrbench_caffe.datasets.lmdb_scan import LmdbPixels, LmdbRecords

        folder, field = file_path(layer.data_param.source), "data_param.source"
        records: list[tuple[str, str | None, Records]] = [(field, label, LmdbRecords(folder))]
        pixels = any(label_readers(net, layer, blob) for blob in layer.top[:1])
        if pixels and _keeps_values(layer.transform_param):
            records.append((field, layer.top[0], LmdbPixels(folder)))
        return records
    if layer.type == "ImageData" and label and label_readers(net, layer, label):
        from lrbench_caffe.datasets.list_scan import ImageList

        return [
            ("image_data_param.source", label, ImageList(file_path(layer.image_data_param.source)))
        ]
    if layer.type == "HDF5Data":
        from lrbench_caffe.datasets.list_scan import Hdf5Rows

        source = layer.hdf5_data_param.source
        files = listed_files(net, layer)
        return [
            ("hdf5_data_param.source", top, Hdf5Rows(file_path(source), top, files))
            for top in layer.top
            if label_readers(net, layer, top)
        ]
    return []


def _keeps_values(transform: Any) -> bool:
    """Whether a transformation leaves all pixels, and each as it is."""
    changes = transform.mean_file or transform.mean_value or transform.crop_size
    return transform.scale == 1 and not changes


# -- forms -----------------------------------------------------------------------------------------


def _check_shapes(checked: CheckedData, messages: Messages) -> None:
    """Check the records' sizes against the layer's transformation and batch."""
    if checked.layer.type != "Data":
        return
    transform = checked.layer.transform_param
    forced = 3 if _set(transform, "force_color") else 1 if _set(transform, "force_gray") else 0
    for shape in checked.scan.shapes:
        known = _as_decoded(shape, forced)
        if known is not None:
            try:
                check_transform(checked.net, checked.layer, known, messages)
            except InputError as error:
                raise InputError(
                    f"{error}; record {shape.record} of {checked.records.place}"
                ) from error
    batch = checked.layer.data_param.batch_size
    turned = forced and any(shape.kind == TURNED for shape in checked.scan.shapes)
    sizes = not transform.crop_size and not turned and checked.scan.size_step % batch
    all_known = all(shape.channels for shape in checked.scan.shapes)
    if sizes or (not forced and all_known and checked.scan.channel_step % batch):
        first = checked.scan.shapes[0]
        other = next(
            shape
            for shape in checked.scan.shapes
            if shape.channels != first.channels
            or (shape.height, shape.width) != (first.height, first.width)
        )
        raise InputError(
            f"{where(checked.net, checked.layer, checked.field)}: {checked.records.place}: "
            f"record {other.record} is {_shown(other)}, "
            f"record {first.record} {_shown(first)}; allowed: records of one size in a "
            f"batch of {batch}, else Caffe aborts"
        )


def _as_decoded(shape: Shape, forced: int) -> tuple[int, int, int] | None:
    """The shape that Caffe makes of a record, None where that is not known."""
    if shape.kind == RAW:
        return shape.channels, shape.height, shape.width
    channels = forced or shape.channels
    if not channels or (forced and shape.kind == TURNED):
        return None
    return channels, shape.height, shape.width


def _shown(shape: Shape) -> str:
    return (
        by((shape.channels, shape.height, shape.width))
        if shape.channels
        else by((shape.height, shape.width))
    )


def _set(transform: Any, name: str) -> bool:
    """Whether a field is there and true: not every Caffe has it."""
    return name in transform.DESCRIPTOR.fields_by_name and bool(getattr(transform, name))


# -- once for each data set ------------------------------------------------------------------------


def scan_once(records: Records, progress: Progress) -> Scan:
    """The scan of a data set; an earlier one is used if nothing has changed since."""
    stamp = hashlib.sha256(records.stamp().encode(errors="surrogateescape")).hexdigest()
    name = hashlib.sha256(
        os.path.realpath(records.place).encode(errors="surrogateescape")
    ).hexdigest()[:16]
    path = cache_dir() / "data-checks" / f"{name}.json"
    kept = _kept(path, stamp)
    if kept is not None:
        return kept
    with _Patient(records.place, progress) as patient:
        scan = records.scan(patient)
    if hashlib.sha256(records.stamp().encode(errors="surrogateescape")).hexdigest() == stamp:
        _keep(path, stamp, scan)
    return scan


def _kept(path: Path, stamp: str) -> Scan | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if (content["version"], content["stamp"]) != (_VERSION, stamp):
            return None
        return Scan.from_json(content["scan"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _keep(path: Path, stamp: str, scan: Scan) -> None:
    content = {"version": _VERSION, "stamp": stamp, "scan": scan.as_json()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, r"\w+\.json")
        replace_own(path, json.dumps(content).encode())
        kept = sorted(path.parent.glob("*.json"), key=lambda file: file.stat().st_mtime)
        for old in kept[:-_MOST_KEPT]:
            old.unlink(missing_ok=True)
    except OSError:
        pass  # the next command looks again


class _Patient:
    """Tells a progress of a check once it takes longer than ``_PATIENCE``; a context manager."""

    def __init__(self, place: str, progress: Progress) -> None:
        self._place, self._progress = place, progress
        self._stack = ExitStack()
        self._moved: Moved | None = None

    def __enter__(self) -> _Patient:
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __call__(self, done: int, total: int) -> None:
        if self._moved is None:
            if time.monotonic() - self._began < _PATIENCE:
                return
            skip = f"{named('trust_data')} skips this"
            self._progress.say(f"all records of {self._place} are checked, once; {skip}")
            self._moved = self._stack.enter_context(self._progress.bar(self._place, total))
        self._moved(done)
