"""Data of the same name and form is told apart by what is in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from google.protobuf import text_format

from lrbench_caffe.datasets.identity import data_digest, data_samples
from lrbench_caffe.datasets.lmdb_writer import write_lmdb
from lrbench_caffe.prototxt.messages import Messages
from lrbench_caffe.records import AT_PLACE

Layer = Callable[[str], Any]


@pytest.fixture
def layer(messages: Messages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layer:
    """``layer(text)``: a LayerParameter; the test works in its own folder."""
    monkeypatch.chdir(tmp_path)
    return lambda text: text_format.Parse(text, messages.new("LayerParameter"))


def write_hdf5(path: str, labels: np.ndarray) -> None:
    rows = np.arange(len(labels) * 3, dtype=np.float32).reshape(-1, 3)
    with h5py.File(path, "w") as file:
        file["data"], file["label"] = rows, labels.astype(np.float32)


def write_images(folder: Path, shade: int) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "list.txt").write_text("a.png 0\nb c.png 1\n")
    for name in ("a.png", "b c.png"):
        (folder / name).write_bytes(bytes([shade] * 10))


HDF5 = 'type: "HDF5Data" top: "data" top: "label" hdf5_data_param { source: "%s" batch_size: 2 }'


def test_hdf5_files_with_other_labels_are_other_data(layer):
    for name, labels in (("a", [0, 1, 0, 1]), ("b", [1, 1, 0, 0]), ("c", [0, 1, 0, 1])):
        write_hdf5(f"{name}.h5", np.array(labels))
        Path(f"{name}.txt").write_text(f"{name}.h5\n")
    a, b, c = (data_digest([layer(HDF5 % f"{name}.txt")], []) for name in "abc")
    assert a and b and a != b
    assert a == c, "the same rows in a file of another name"
    Path("both.txt").write_text("a.h5\nb.h5\n")
    assert data_samples(layer(HDF5 % "both.txt")) == 8


def test_images_with_other_labels_or_pixels_are_other_data(layer, tmp_path):
    text = 'type: "ImageData" image_data_param { source: "%s/list.txt" root_folder: "%s/" batch_size: 1 }'
    for name, shade in (("one", 1), ("two", 2), ("same", 1), ("relabelled", 1)):
        write_images(tmp_path / name, shade)
    (tmp_path / "relabelled" / "list.txt").write_text("a.png 1\nb c.png 1\n")
    one, two, same, relabelled = (
        data_digest([layer(text % (name, name))], [])
        for name in ("one", "two", "same", "relabelled")
    )
    assert one != two
    assert one != relabelled
    assert data_samples(layer(text % ("one", "one"))) == 2
    # The folder's name is in root_folder, which is where the files are, not what they are.
    assert one == same


def test_windows_are_told_apart_by_their_file(layer, tmp_path):
    head = "# 0\na.png\n3\n10\n10\n2\n"
    (tmp_path / "w1.txt").write_text(f"{head}1 0.9 0 0 5 5\n0 0.1 2 2 8 8\n")
    (tmp_path / "w2.txt").write_text(f"{head}1 0.9 0 0 5 5\n1 0.8 2 2 8 8\n")
    text = 'type: "WindowData" top: "data" window_data_param { source: "%s" }'
    one, two = (layer(text % name) for name in ("w1.txt", "w2.txt"))
    assert data_digest([one], []) != data_digest([two], [])
    assert data_samples(one) == 1


def test_layers_that_read_no_file_are_told_apart_by_their_parameters(layer):
    dummy = 'type: "DummyData" name: "%s" top: "data" dummy_data_param { shape { dim: %d } }'
    assert data_digest([layer(dummy % ("a", 3))], []) == data_digest([layer(dummy % ("b", 3))], [])
    assert data_digest([layer(dummy % ("a", 3))], []) != data_digest([layer(dummy % ("a", 4))], [])
    python = 'type: "Python" top: "data" python_param { module: "m" layer: "L" param_str: "{\'seed\': %d}" }'
    assert data_digest([layer(python % 1)], []) != data_digest([layer(python % 2)], [])


def test_a_python_layer_is_told_by_the_files_it_names_as_well(layer, tmp_path):
    text = 'type: "Python" python_param { module: "m" layer: "L" param_str: "{\'list\': \'train.txt\'}" }'
    digests = set()
    for content in ("a 0\n", "a 1\n"):
        (tmp_path / "train.txt").write_text(content)
        digests.add(data_digest([layer(text)], []))
    assert len(digests) == 2


def test_one_lmdb_for_each_phase_has_the_digest_of_earlier_versions(layer, tmp_path):
    """Runs that were recorded before stay on their task: the value is that of the first release."""
    for name, count in (("train", 200), ("test", 3)):
        images = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1)
        write_lmdb(tmp_path / name, images, np.arange(count) % 2, (1, 1, 1))
    text = 'type: "Data" top: "data" data_param { source: "%s" batch_size: 1 backend: LMDB }'
    found = data_digest([layer(text % "train")], [layer(text % "test")])
    assert found == "4a164c96f5122ea42545dfd058fa3099"


def test_the_labels_in_an_lmdb_of_their_own_count(layer, tmp_path):
    """As fully convolutional nets have it: images and labels in an LMDB each, in any order."""
    text = (
        'type: "Data" name: "%s" top: "%s" data_param { source: "%s" batch_size: 1 backend: LMDB }'
    )
    for name, value in (("images", 1), ("labels", 2), ("others", 3)):
        write_lmdb(tmp_path / name, [np.full((1, 2, 2), value, np.uint8)] * 2, [0, 0], (1, 2, 2))
    images, labels, others = (
        layer(text % (name, name, name)) for name in ("images", "labels", "others")
    )
    assert data_digest([images, labels], []) != data_digest([images, others], [])
    assert data_digest([images, labels], []) == data_digest([labels, images], [])


def test_a_leveldb_is_known_by_its_place_alone(layer, tmp_path):
    text = 'type: "Data" top: "data" data_param { source: "%s" batch_size: 1 }'
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    os.symlink("one", "link")
    one, two, link = (data_digest([layer(text % name)], []) for name in ("one", "two", "link"))
    assert one and one.startswith(AT_PLACE)
    assert one != two
    assert one == link


def test_data_that_is_not_at_hand_has_no_digest(layer):
    assert data_digest([], []) is None
    assert data_digest([layer(HDF5 % "nowhere.txt")], []) is None
    assert (
        data_digest([layer('type: "Data" data_param { source: "nowhere" backend: LMDB }')], [])
        is None
    )
