"""Data of the same name in two folders is two tasks, for sources other than LMDBs as well."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from lrbench_caffe.knowledge.similarity import similarity
from lrbench_caffe.prototxt.task import open_task
from lrbench_caffe.records import Task
from tests.caffe import nets
from tests.caffe.harness import Workspace


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def hdf5_layer(phase: str) -> str:
    return f"""
layer {{
  name: "data" type: "HDF5Data" top: "data" top: "label" include {{ phase: {phase} }}
  hdf5_data_param {{ source: "{phase.lower()}.txt" batch_size: 5 }}
}}"""


def hdf5_task(folder: Path, labels: np.ndarray) -> Task:
    """The task of a net on 40 records of 6 values with these labels."""
    folder.mkdir()
    rows = np.arange(240, dtype=np.float32).reshape(40, 6) / 240
    for phase in ("train", "test"):
        with h5py.File(folder / f"{phase}.h5", "w", libver="earliest") as file:
            file["data"], file["label"] = rows, labels.astype(np.float32)
        (folder / f"{phase}.txt").write_text(f"{phase}.h5\n")
    text = nets.net(train=hdf5_layer("TRAIN"), test=hdf5_layer("TEST"))
    (folder / "net.prototxt").write_text(text)
    (folder / "solver.prototxt").write_text(nets.solver())
    with inside(folder):
        return open_task(Path("solver.prototxt"))[1]


def test_hdf5_data_with_other_labels_is_another_task(tmp_path: Path, workspace: Workspace) -> None:
    labels = np.arange(40) % 10
    shuffled = np.random.default_rng(1).permutation(labels)
    one, same, other = (
        hdf5_task(tmp_path / name, values)
        for name, values in (("one", labels), ("same", labels), ("other", shuffled))
    )
    data = one.dataset
    assert (data.channels, data.height, data.width) == (6, 1, 1)
    assert (data.classes, data.train_samples, data.test_samples) == (10, 40, 40)
    assert one == same
    assert similarity(one, other) < 1
