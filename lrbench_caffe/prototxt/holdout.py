"""A solver that trains on a part of its training records and tests on the others.

Its training net reads the rest of each LMDB; its only test net is the solver's first one, which
reads the held-out records, each exactly once in a test pass. Everything else is as it was: both
nets have their own transformations, and a mean file stays that of all records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrbench_caffe.datasets.identity import LMDB
from lrbench_caffe.datasets.lmdb_info import inspect
from lrbench_caffe.errors import InputError
from lrbench_caffe.files import replace_own
from lrbench_caffe.prototxt.messages import file_path, path_name, to_bytes
from lrbench_caffe.prototxt.nets import PhaseNet, one_phase
from lrbench_caffe.prototxt.patch import NET_FIELDS
from lrbench_caffe.prototxt.solver import Solver
from lrbench_caffe.prototxt.sources import by

_NO_READERS = ("DummyData", "Parameter")  # layers without bottoms that read no records


_Shape = tuple[int, int, int]  # channels (0 where the decoder decides), height, width


class CannotSplit(Exception):
    """No records of a solver's training data can be held out; the text says why."""


@dataclass(frozen=True)
class Splittable:
    """A solver whose training records can be held out.

    Attributes:
        solver: the solver.
        records: in each LMDB of its training net.
        sources: these LMDBs, each once, in the net's order.
        labels: the one whose labels tell classes apart, None where no layer gives labels.
        batch: records in a batch of the first test net.
        transforms: transform_param of the test net's data layers for training records, by their
            first top.
    """

    solver: Solver
    records: int
    sources: tuple[Path, ...]
    labels: Path | None
    batch: int
    transforms: Mapping[str, Any]

    def passes(self, share: float) -> tuple[int, int]:
        """Batches of a test pass over this share of the records, and records in each.

        No batch is larger than the test net's own, so that memory suffices, and the number of
        records is rounded so that they fill the batches.
        """
        count = min(max(1, round(share * self.records)), self.records - 1)
        passes = -(-count // self.batch)
        return passes, max(1, round(count / passes))


def splittable(solver: Solver) -> Splittable:
    """Find out whether records of a solver's training data can be held out.

    Raises:
        CannotSplit: they cannot, with the reason.
    """
    if not solver.tests:
        raise CannotSplit("there is no test net")
    train, test = _lmdb_layers(solver.train), _lmdb_layers(solver.tests[0].net)
    sources = {_source(layer): None for layer in train.values()}
    sizes = {path: _records(path) for path in sources}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{size:,} in {path}" for path, size in sizes.items())
        raise CannotSplit(f"the LMDBs of the training net differ in their records: {listed}")
    for net, layers in ((solver.train, train), (solver.tests[0].net, test)):
        if len({layer.data_param.batch_size for layer in layers.values()}) > 1:
            raise CannotSplit(f"the data layers of the {net.title} differ in batch_size")
    records = next(iter(sizes.values()))
    if records < 2:
        raise CannotSplit(f"{records} training record")
    _check_sizes(solver)
    labelled = [layer for layer in train.values() if len(layer.top) > 1]
    return Splittable(
        solver=solver,
        records=records,
        sources=tuple(sources),
        labels=_source(labelled[0]) if labelled else None,
        batch=next(iter(test.values())).data_param.batch_size,
        transforms=_transforms(solver, train, test),
    )


def write_holdout(
    split: Splittable,
    share: float,
    folder: Path,
    rest: Mapping[Path, Path],
    held: Mapping[Path, Path],
) -> Path:
    """Write the solver and its nets to ``folder``; returns the solver's path, which has its name.

    Args:
        rest, held: the parts of each of ``split.sources``.
    """
    solver = split.solver
    train, test = solver.train, solver.tests[0].net
    origins = {top: _source(layer) for top, layer in _lmdb_layers(train).items()}
    passes, batch = split.passes(share)
    nets_of = list(solver.nets.values())
    training, testing = one_phase(nets_of[0], train), one_phase(nets_of[:2][-1], test)
    for layer in training.layer:
        if _reads(layer):
            layer.data_param.source = path_name(rest[origins[layer.top[0]]])
    for layer in testing.layer:
        if _reads(layer):
            layer.data_param.source = path_name(held[origins[layer.top[0]]])
            layer.data_param.batch_size = batch
            layer.transform_param.CopyFrom(split.transforms[layer.top[0]])
    message = type(solver.message)()
    message.CopyFrom(solver.message)
    for name in (*NET_FIELDS, "test_iter"):
        message.ClearField(name)
    del message.test_state[1:]
    nets = folder / "nets"  # the solver may have any name
    message.train_net = path_name(nets / "train.prototxt")
    message.test_net.append(path_name(nets / "test.prototxt"))
    message.test_iter.append(passes)
    nets.mkdir(parents=True, exist_ok=True)
    replace_own(nets / "train.prototxt", to_bytes(training))
    replace_own(nets / "test.prototxt", to_bytes(testing))
    path = folder / solver.path.name
    replace_own(path, to_bytes(message))
    return path


def _reads(layer: Any) -> bool:
    """Whether a layer reads records."""
    return not layer.bottom and layer.type not in _NO_READERS


def _source(layer: Any) -> Path:
    return file_path(layer.data_param.source)


# -- whether it can be split -----------------------------------------------------------------------


def _lmdb_layers(net: PhaseNet) -> dict[str, Any]:
    """The layers of a net that read LMDBs, by their first top; no other layer reads anything.

    Raises:
        CannotSplit: another one does, or none reads an LMDB.
    """
    found = {}
    for layer in filter(_reads, net.layers):
        if layer.type != "Data" or layer.data_param.backend != LMDB:
            kind = "a LevelDB" if layer.type == "Data" else f"a layer of type {layer.type}"
            raise CannotSplit(f"layer {layer.name!r} of the {net.title} is {kind}, not an LMDB")
        found[layer.top[0]] = layer
    if not found:
        raise CannotSplit(f"the {net.title} reads no LMDB")
    return found


def _records(path: Path) -> int:
    try:
        return inspect(path).entries
    except InputError as error:
        raise CannotSplit(str(error)) from error


def _check_sizes(solver: Solver) -> None:
    """Caffe wants records of one size in a batch; a split would mix what is in order by size."""
    for checked in solver.checked or ():
        layer, scan = checked.layer, checked.scan
        if checked.net is not solver.train or layer.type != "Data":
            continue
        sizes = scan.size_step and not layer.transform_param.crop_size
        if (sizes or scan.channel_step) and layer.data_param.batch_size > 1:
            raise CannotSplit(f"{checked.records.place} has records of several sizes")


def _transforms(
    solver: Solver, train: Mapping[str, Any], test: Mapping[str, Any]
) -> dict[str, Any]:
    """transform_param of each of the test net's data layers, as it has to be for training records."""
    for top in test:
        if top not in train:
            raise CannotSplit(f"no data layer of the training net has the top {top!r}")
    return {
        top: _transform(
            layer,
            train[top],
            _shape(solver, solver.tests[0].net, layer),
            _shape(solver, solver.train, train[top]),
        )
        for top, layer in test.items()
    }


def _shape(solver: Solver, net: PhaseNet, layer: Any) -> _Shape | None:
    """The shape of a data layer's first record; None of an image whose size nobody has looked at."""
    info = inspect(_source(layer))
    if not info.encoded:
        return info.shape
    for checked in solver.checked or ():
        if checked.net is net and checked.layer.name == layer.name and checked.scan.shapes:
            first = checked.scan.shapes[0]
            return 0, first.height, first.width  # in grey or in colour, perhaps by force_color
    return None


def _transform(test: Any, train: Any, own: _Shape | None, other: _Shape | None) -> Any:
    """The transformation for a test on training records.

    They may be padded, to be cropped at random. In a test, Caffe crops the middle.

    Args:
        own, other: of the records of the test net and the training net.
    """
    transform = type(test.transform_param)()
    transform.CopyFrom(test.transform_param)
    if own is None or other is None or (own[1:] == other[1:] and _as_many_channels(own, other)):
        return transform
    crop = transform.crop_size or train.transform_param.crop_size
    wanted = (transform.crop_size,) * 2 if transform.crop_size else own[1:]
    fits = wanted == (crop, crop) and crop <= min(other[1:]) and _as_many_channels(own, other)
    if not fits or (transform.mean_file and not train.transform_param.mean_file):
        raise CannotSplit(
            f"records of {_shown(own)} of the test set and {_shown(other)} of the training set do not "
            f"become the same {test.top[0]!r}"
        )
    transform.crop_size = crop
    if transform.mean_file:
        transform.mean_file = train.transform_param.mean_file
    return transform


def _shown(shape: _Shape) -> str:
    return by(shape if shape[0] else shape[1:])


def _as_many_channels(a: _Shape, b: _Shape) -> bool:
    return 0 in (a[0], b[0]) or a[0] == b[0]
