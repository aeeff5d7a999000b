"""What a solver trains, as the LR database knows it: data set, network, framework."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import lmdb

from lrbench_caffe.errors import InputError
from lrbench_caffe.prototxt.nets import PhaseNet
from lrbench_caffe.prototxt.solver import Solver
from lrbench_caffe.prototxt.sources import Source
from lrbench_caffe.records import Dataset, Framework, Network, SolverSettings, digest
from lrbench_caffe.runtime.client import CaffeInfo, Opened

WEIGHTED = ("Convolution", "Deconvolution", "InnerProduct")
DIGEST_RECORDS = 64  # from each end of an LMDB
_NO_PART_OF_A_NET = ("Accuracy", "Silence")


def framework(info: CaffeInfo, gpu: int | None) -> Framework:
    return Framework("Caffe", info.caffe, "CPU" if gpu is None else "GPU")


def solver_settings(solver: Solver) -> SolverSettings:
    message = solver.message
    return SolverSettings(
        type=solver.type,
        batch=solver.source.batch if solver.source else None,
        iter_size=solver.iter_size,
        base_lr=_decimal(message.base_lr),
        momentum=_decimal(message.momentum),
        weight_decay=_decimal(message.weight_decay),
    )


def _decimal(value: float) -> float:
    """A float32 as the decimal that was written."""
    return float(f"{value:.7g}")


def network(solver: Solver, opened: Opened) -> Network:
    """The training net. Two files with other names for the same layers are the same network."""
    layers = [layer for layer in solver.train.layers if _is_net(layer)]
    counts = Counter(layer.type for layer in layers)
    return Network(
        name=solver.train.name or solver.path.stem,
        digest=digest(canonical_net(solver.train)),
        layers=dict(sorted(counts.items())),
        parameters=opened.parameters,
        depth=sum(counts[kind] for kind in WEIGHTED),
    )


def _is_net(layer: Any) -> bool:
    return bool(layer.bottom) and layer.type not in _NO_PART_OF_A_NET


def canonical_net(net: PhaseNet) -> list[list[Any]]:
    """The net as data: each layer's type, wiring by numbers, and what else is set of it, without names."""
    numbers: dict[str, int] = {}
    rows = []
    for layer in net.layers:
        if _is_net(layer):
            rest = type(layer)()
            rest.CopyFrom(layer)
            for name in ("name", "type", "bottom", "top", "include", "exclude", "phase"):
                rest.ClearField(name)
            for spec in rest.param:
                spec.ClearField("name")
            bottoms = [numbers.get(blob, -1) for blob in layer.bottom]
            rows.append(
                [layer.type, bottoms, len(layer.top), rest.SerializeToString(deterministic=True).hex()]
            )
        for blob in layer.top:
            numbers[blob] = len(numbers)
    return rows


def dataset(solver: Solver, opened: Opened) -> Dataset:
    """The data of the training net and of the first test net."""
    source = solver.source
    test = solver.tests[0] if solver.tests else None
    shape = (source.shape if source else None) or (None, None, None)
    classes = None
    if test and test.scores and opened.test_shapes:
        classes = opened.test_shapes[0][test.scores.scores][test.scores.axis]
    sources = [s for s in (source, test.source if test else None) if s]
    return Dataset(
        name=_name(source),
        channels=shape[0],
        height=shape[1],
        width=shape[2],
        classes=classes,
        train_samples=source.samples if source else None,
        test_samples=test.source.samples if test and test.source else None,
        digest=_digest(sources),
    )


def _name(source: Source | None) -> str:
    """ "mnist" of data/mnist_train_lmdb."""
    if source is None:
        return "unknown"
    parts = [
        part for part in Path(source.path).stem.split("_") if part not in ("train", "training", "lmdb", "db")
    ]
    return "_".join(parts) or Path(source.path).stem


def _digest(sources: list[Source]) -> str | None:
    """Tells data sets apart by the records at both ends of their LMDBs; None for other sources."""
    hasher = hashlib.sha256()
    for source in sources:
        if not (Path(source.path) / "data.mdb").is_file():
            return None
        try:
            environment = lmdb.open(source.path, readonly=True, lock=False, readahead=False, create=False)
        except lmdb.Error as error:
            raise InputError(f"cannot read {source.path}: {error}") from error
        with environment, environment.begin() as transaction, transaction.cursor() as cursor:
            hasher.update(str(environment.stat()["entries"]).encode())
            for move, go_on in ((cursor.first, cursor.next), (cursor.last, cursor.prev)):
                there = move()
                for _ in range(DIGEST_RECORDS):
                    if there:
                        hasher.update(cursor.value())
                        there = go_on()
    return hasher.hexdigest()[:32]
