"""Records and labels that a net cannot be trained on; what is allowed although it is unusual; the cache."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import lmdb
import numpy as np
import pytest

from lrbench_caffe.datasets.datum import Datum
from lrbench_caffe.datasets.list_scan import ImageList
from lrbench_caffe.datasets.lmdb_scan import LmdbRecords
from lrbench_caffe.errors import InputError
from lrbench_caffe.progress import SILENT, Progress
from lrbench_caffe.prototxt import datacheck
from lrbench_caffe.prototxt.datacheck import (
    LmdbState,
    check_labels,
    check_records,
    scan_once,
    state_of_lmdbs,
)
from lrbench_caffe.prototxt.labels import label_readers

Check = Callable[..., None]
SHAPES = {"scores": [10, 8, 1, 1], "map": [10, 5, 8, 2], "single": [10, 1]}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datacheck, "cache_dir", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "data-checks"


@pytest.fixture
def check(net_of, messages) -> Check:
    """``check(text)``: all checks of the net, as of one whose blobs have ``SHAPES``."""

    def run(text: str) -> None:
        net = net_of(text)
        check_labels(check_records([net], messages, SILENT), {net.title: SHAPES})

    return run


def write(path: Path, *records: Datum) -> Path:
    with (
        lmdb.open(str(path), map_size=1 << 24) as environment,
        environment.begin(write=True) as transaction,
    ):
        for number, record in enumerate(records):
            transaction.put(b"%03d" % number, record.SerializeToString())
    return path


def image(label: int = 0, shape: tuple[int, int, int] = (1, 4, 4)) -> Datum:
    channels, height, width = shape
    return Datum(
        channels=channels, height=height, width=width, label=label, data=bytes(np.prod(shape))
    )


def data(path: Path, batch: int = 2, transform: str = "") -> str:
    return f"""layer {{ name: "d" type: "Data" top: "data" top: "label"
      data_param {{ source: "{path}" batch_size: {batch} backend: LMDB }}
      transform_param {{ {transform} }} }}"""


def reader(kind: str, scores: str = "scores", label: str = "label", more: str = "") -> str:
    return (
        f'layer {{ name: "l" type: "{kind}" bottom: "{scores}" bottom: "{label}" top: "l" {more} }}'
    )


# -- labels ----------------------------------------------------------------------------------------

LOSS = "SoftmaxWithLoss"


@pytest.mark.parametrize(
    ("labels", "layers", "problem"),
    [
        ([0, 7], reader(LOSS), None),
        ([0, 8, 9], reader(LOSS), "record 001 of .* has the label 8; allowed: 0 to 7 "),
        ([0, -1], reader(LOSS), "record 001 of .* has the label -1; allowed: 0 to 7 "),
        ([0, 8], reader("Accuracy"), "label 8"),
        ([0, 8], reader("HingeLoss"), "label 8"),
        ([0, 8], reader("MultinomialLogisticLoss"), "label 8"),
        ([0, 8], reader("InfogainLoss"), "label 8"),
        # All that is behind the first axis, or one axis.
        ([0, 79], reader("HingeLoss", "map"), None),
        ([0, 80], reader("HingeLoss", "map"), "label 80; allowed: 0 to 79 "),
        ([0, 5], reader(LOSS, "map"), "label 5; allowed: 0 to 4 "),
        (
            [0, 1, 2],
            reader(LOSS, "map", more="softmax_param { axis: -1 }"),
            "label 2; allowed: 0 to 1 ",
        ),
        ([5], reader("Accuracy", "map", more="accuracy_param { axis: 2 }"), None),
        # Ignored labels, by the layers that heed them.
        ([0, 255], reader(LOSS, more="loss_param { ignore_label: 255 }"), None),
        ([-1], reader("InfogainLoss", more="loss_param { ignore_label: -1 }"), None),
        (
            [254, 255],
            reader(LOSS, more="loss_param { ignore_label: 255 }"),
            r"254; .* or 255 \(ignored\)",
        ),
        ([0, 255], reader("HingeLoss", more="loss_param { ignore_label: 255 }"), "label 255"),
        ([0, 255], reader("Accuracy", more="accuracy_param { ignore_label: 255 }"), None),
        ([255], reader(LOSS, more="loss_param { ignore_label: 255 }") + reader("Accuracy"), None),
        # Through Split, and not where something else is made of them.
        (
            [9],
            'layer { type: "Split" bottom: "label" top: "a" top: "b" }' + reader(LOSS, label="b"),
            "9;",
        ),
        ([9], 'layer { type: "Power" bottom: "label" top: "label" }' + reader(LOSS), None),
        (
            [9],
            'layer { type: "Power" bottom: "label" top: "half" }' + reader(LOSS, label="half"),
            None,
        ),
        # No index, or nothing known of it.
        ([9], reader("EuclideanLoss") + reader("SigmoidCrossEntropyLoss"), None),
        ([9], reader("Accuracy", "single"), None),
        ([9], reader(LOSS, "unknown"), None),
        (
            [3],
            'layer { name: "l" type: "Embed" bottom: "label" embed_param { input_dim: 3 } }',
            "label 3; allowed: 0 to 2 ",
        ),
    ],
)
def test_labels(check, tmp_path, labels, layers, problem):
    path = write(tmp_path / "x", *map(image, labels))
    if problem is None:
        check(data(path) + layers)
        return
    with pytest.raises(InputError, match=problem) as caught:
        check(data(path) + layers)
    assert str(caught.value).startswith("net.prototxt: layer 'l' (")
    assert "trust_data" in str(caught.value)


def test_the_layers_behind_another_data_layer(net_of, tmp_path):
    """Two data layers whose labels have one name in turn: each reader belongs to the one before it."""
    text = data(tmp_path / "a") + reader(LOSS) + data(tmp_path / "b") + reader("Accuracy")
    net = net_of(text)
    first, _, second, _ = net.layers
    assert [r.layer.type for r in label_readers(net, first, "label")] == [LOSS]
    assert [r.layer.type for r in label_readers(net, second, "label")] == ["Accuracy"]


def test_pixels_that_are_labels(check, tmp_path):
    """As of nets that segment: a data layer whose images are the labels."""
    pixels = Datum(channels=1, height=2, width=2, data=bytes([0, 7, 255, 3]))
    path = write(tmp_path / "x", image(), pixels)
    ignoring = reader(LOSS, label="data", more="loss_param { ignore_label: 255 }")
    check(data(path, 1) + ignoring)
    check(data(path, 1, "scale: 0.01") + reader(LOSS, label="data"))
    with pytest.raises(
        InputError, match=r"record 001 of .*/x \(pixels\) has the label 255; allowed: 0 to 7 "
    ):
        check(data(path, 1) + reader(LOSS, label="data"))
    floats = Datum(channels=1, height=1, width=2, float_data=[1.0, -3.0])
    path = write(tmp_path / "y", floats)
    with pytest.raises(InputError, match=r"record 000 of .*/y \(pixels\) has the label -3; "):
        check(data(path, 1) + reader(LOSS, label="data"))


def test_labels_in_lists_and_hdf5_files(check, tmp_path):
    (tmp_path / "list.txt").write_text("a.png 7\nb.png 8\n")
    images = (
        'layer { type: "ImageData" top: "data" top: "label" '
        f'image_data_param {{ source: "{tmp_path / "list.txt"}" }} }}'
    )
    with pytest.raises(
        InputError, match=r"line 2 of .*/list.txt has the label 8; allowed: 0 to 7 "
    ):
        check(images + reader(LOSS))
    (tmp_path / "list.txt").write_text("a.png\n")
    check(images + reader("EuclideanLoss"))  # where nobody needs them
    with pytest.raises(
        InputError, match=r"line 1 in .*/list.txt has no numeric label; allowed: 0 to 7 "
    ):
        check(images + reader(LOSS))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"], file["label"] = np.full((3, 4), 99.0), np.array([1.0, 2.0, 8.0])
    (tmp_path / "h5.txt").write_text(str(tmp_path / "a.h5"))
    rows = (
        'layer { type: "HDF5Data" top: "data" top: "label" '
        f'hdf5_data_param {{ source: "{tmp_path / "h5.txt"}" batch_size: 1 }} }}'
    )
    with pytest.raises(
        InputError, match=r"row 2 of .*/a.h5 of .*/h5.txt \(label\) has the label 8; "
    ):
        check(rows + reader(LOSS))


# -- shapes ----------------------------------------------------------------------------------------

SMALL, LARGE, COLOUR = (1, 4, 4), (1, 6, 5), (3, 4, 4)


@pytest.mark.parametrize(
    ("shapes", "batch", "transform", "problem"),
    [
        ([SMALL, LARGE], 1, "", None),
        (
            [SMALL, LARGE],
            2,
            "",
            "record 001 is 1 x 6 x 5, record 000 1 x 4 x 4; allowed: records of one size",
        ),
        ([SMALL, SMALL, LARGE, LARGE], 2, "", None),  # each batch has one size
        ([SMALL, SMALL, LARGE], 2, "", "record 002"),  # but the second time round they have not
        ([SMALL, LARGE], 2, "crop_size: 4", None),
        ([SMALL, LARGE], 2, "crop_size: 5", r"crop_size: is 5, larger .*; record 000 of "),
        ([LARGE, SMALL], 1, "crop_size: 5", r"crop_size: is 5, larger .*; record 001 of "),
        ([SMALL, COLOUR], 2, "crop_size: 4", "record 001 is 3 x 4 x 4"),
        (
            [SMALL, COLOUR],
            1,
            "mean_value: 1 mean_value: 2 mean_value: 3",
            "mean_value: 3 values .* record 000",
        ),
        (
            [COLOUR, SMALL],
            1,
            "mean_value: 1 mean_value: 2 mean_value: 3",
            "mean_value: 3 values .* record 001",
        ),
    ],
)
def test_shapes(check, tmp_path, shapes, batch, transform, problem):
    path = write(tmp_path / "x", *(image(shape=shape) for shape in shapes))
    if problem is None:
        check(data(path, batch, transform))
        return
    with pytest.raises(InputError, match=problem):
        check(data(path, batch, transform))


def test_a_mean_file_that_fits_only_some_records(check, tmp_path, write_mean):
    path = write(tmp_path / "x", image(shape=SMALL), image(shape=LARGE))
    mean = f'mean_file: "{write_mean("mean", SMALL)}"'
    with pytest.raises(
        InputError, match=r"mean of 1 x 4 x 4; the records are 1 x 6 x 5; record 001 of "
    ):
        check(data(path, 1, mean))


def encoded(mode: str, size: tuple[int, int], **options: object) -> Datum:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new(mode, size).save(file, "JPEG", **options)
    return Datum(data=file.getvalue(), encoded=True)


def test_encoded_images_of_several_kinds(check, tmp_path):
    """Caffe decodes to the image's own channels, unless force_color or force_gray says otherwise."""
    mixed = write(tmp_path / "mixed", encoded("RGB", (8, 8)), encoded("L", (8, 8)))
    with pytest.raises(InputError, match="record 001 is 1 x 8 x 8, record 000 3 x 8 x 8"):
        check(data(mixed))
    for transform in ("force_color: true", "force_gray: true"):
        check(data(mixed, transform=transform))
    with pytest.raises(
        InputError, match=r"crop_size: is 9, larger than the records \(3 x 8 x 8\); record 000"
    ):
        check(data(mixed, transform="force_color: true crop_size: 9"))
    sizes = write(tmp_path / "sizes", encoded("L", (8, 8)), encoded("L", (8, 9)))
    with pytest.raises(InputError, match="record 001 is 1 x 9 x 8"):
        check(data(sizes))


def test_images_that_may_be_turned_are_left_to_caffe(check, tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    path = write(tmp_path / "x", encoded("RGB", (8, 9)), encoded("RGB", (9, 8), exif=exif))
    check(data(path, transform="force_color: true"))
    with pytest.raises(InputError, match="record 001"):  # as they are, nothing turns them
        check(data(path))


# -- once ------------------------------------------------------------------------------------------


class Counted(LmdbRecords):
    """Counts how often it is looked at."""

    looks = 0

    def scan(self, progress):
        self.looks += 1
        return super().scan(progress)


def test_data_is_looked_at_again_only_when_it_changed(tmp_path, own_cache):
    path = write(tmp_path / "x", image(3))
    records = Counted(path)
    for _ in range(3):
        assert scan_once(records, SILENT).labels == [(3, 3)]
    assert records.looks == 1
    before = os.stat(path / "data.mdb")
    write(path, image(5))  # in place, with the size and the time that it had
    os.utime(path / "data.mdb", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert scan_once(records, SILENT).labels == [(5, 5)]
    for content in ("", "[]", '{"version": 1}', json.dumps({"version": 1, "stamp": 3, "scan": []})):
        (kept,) = own_cache.glob("*.json")
        kept.write_text(content)
        assert scan_once(records, SILENT).labels == [(5, 5)]
    assert records.looks == 6


def test_a_list_that_changed(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a.png 1\n")
    assert scan_once(ImageList(path), SILENT).labels == [(1, 1)]
    path.write_text("a.png 2\n")
    assert scan_once(ImageList(path), SILENT).labels == [(2, 2)]


def test_what_is_kept_of_damaged_data(tmp_path, own_cache):
    """Nothing: the next look finds it again. What was kept while it was whole does not count."""
    path = write(tmp_path / "x", *(image(n % 8) for n in range(200)))
    assert scan_once(LmdbRecords(path), SILENT).records == 200
    with (path / "data.mdb").open("r+b") as file:
        file.seek(3 * 4096)
        file.write(bytes(4096))
    for _ in range(2):
        with pytest.raises(InputError, match="damaged LMDB"):
            scan_once(LmdbRecords(path), SILENT)


def test_a_cache_that_cannot_be_written(tmp_path, own_cache):
    own_cache.parent.write_text("a file")
    path = write(tmp_path / "x", image(3))
    assert scan_once(LmdbRecords(path), SILENT).labels == [(3, 3)]


def test_only_so_many_are_kept(tmp_path, own_cache, monkeypatch):
    monkeypatch.setattr(datacheck, "_MOST_KEPT", 3)
    for number in range(6):
        scan_once(LmdbRecords(write(tmp_path / str(number), image(number))), SILENT)
    assert len(list(own_cache.glob("*.json"))) == 3


def test_a_check_that_takes_longer_is_announced(tmp_path, monkeypatch):
    monkeypatch.setattr(datacheck, "_PATIENCE", 0.0)
    said: list[str] = []
    path = write(tmp_path / "x", image(3))
    scan_once(LmdbRecords(path), Progress(said.append))
    scan_once(LmdbRecords(path), Progress(said.append))
    assert said == [f"all records of {path} are checked, once; trust_data skips this"]


def test_the_lmdbs_after_a_crash(net_of, tmp_path):
    whole = write(tmp_path / "whole", image(3))
    broken = write(tmp_path / "broken", *(image(n) for n in range(200)))
    assert state_of_lmdbs([net_of(reader(LOSS))]) is None
    nets = [net_of(data(whole), "TRAIN"), net_of(data(broken))]
    unharmed = f"no damage was found in {whole} and {broken}"
    assert state_of_lmdbs(nets) == LmdbState(unharmed, None)
    os.truncate(broken / "data.mdb", 3 * 4096)
    state = state_of_lmdbs(nets)
    assert state.text.startswith(f"it read {broken}: truncated, data.mdb has 12,288 bytes; ")
    assert state.reader == (nets[1], nets[1].layers[0])
