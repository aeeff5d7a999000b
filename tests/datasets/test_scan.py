"""What is said of all records of a data set, against protobuf's own parser, Pillow, and sums by hand."""

from __future__ import annotations

import io
from pathlib import Path

import h5py
import lmdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lrbench_caffe.datasets.datum import Datum
from lrbench_caffe.datasets.datumform import read_form
from lrbench_caffe.datasets.imageheader import ImageSize, image_size, is_image
from lrbench_caffe.datasets.list_scan import Hdf5Rows, ImageList
from lrbench_caffe.datasets.lmdb_reader import LmdbReader
from lrbench_caffe.datasets.lmdb_scan import LmdbRecords
from lrbench_caffe.datasets.scan import Scan, Values, no_progress
from lrbench_caffe.errors import InputError


def put(folder: Path, values: list[bytes]) -> LmdbRecords:
    """An LMDB with the keys 0, 1, 2, ... of three digits."""
    with (
        lmdb.open(str(folder), map_size=1 << 26) as environment,
        environment.begin(write=True) as transaction,
    ):
        for number, value in enumerate(values):
            transaction.put(b"%03d" % number, value)
    return LmdbRecords(folder)


def scan(folder: Path, *datums: Datum) -> Scan:
    return put(folder, [datum.SerializeToString() for datum in datums]).scan(no_progress)


def raw(label: int = 0, shape: tuple[int, int, int] = (1, 2, 2), **fields: object) -> Datum:
    channels, height, width = shape
    fields = {"data": bytes(channels * height * width), **fields}
    return Datum(channels=channels, height=height, width=width, label=label, **fields)


def encoded(
    size: tuple[int, int], mode: str = "RGB", form: str = "JPEG", **options: object
) -> bytes:
    """An image of (width, height)."""
    file = io.BytesIO()
    Image.new(mode, size).save(file, form, **options)
    return file.getvalue()


# -- one record ------------------------------------------------------------------------------------

_int32 = st.integers(-(2**31), 2**31 - 1)


@settings(deadline=None, max_examples=60)
@given(
    fields=st.fixed_dictionaries(
        {},
        optional={
            "channels": _int32,
            "height": _int32,
            "width": _int32,
            "label": _int32,
            "encoded": st.booleans(),
            "data": st.binary(max_size=300),
            "float_data": st.lists(st.floats(width=32), max_size=30),
        },
    ),
    junk=st.binary(max_size=12),
)
def test_a_form_is_what_protobuf_reads(tmp_path_factory, fields, junk):
    """Also where something stands behind the message, which may make it another one, or none."""
    content = Datum(**fields).SerializeToString() + junk
    folder = tmp_path_factory.mktemp("lmdb") / "x"
    put(folder, [content])
    try:
        wanted = Datum.FromString(content)
    except Exception:
        wanted = None
    with LmdbReader(folder) as reader:
        (record,) = reader.records()
        found = read_form(record)
        assert (found is None) == (wanted is None)
        if found is None or wanted is None:
            return
        for name in ("channels", "height", "width", "label", "encoded"):
            assert getattr(found, name) == getattr(wanted, name)
        assert found.floats == len(wanted.float_data)
        assert record.read(*found.data) == wanted.data


def reading(content: bytes) -> ImageSize | None:
    return image_size(lambda start, count: content[start : start + count])


@pytest.mark.parametrize(
    ("mode", "form", "options", "channels"),
    [
        ("RGB", "JPEG", {}, 3),
        ("L", "JPEG", {}, 1),
        ("CMYK", "JPEG", {}, 3),  # OpenCV makes BGR of it
        ("RGB", "JPEG", {"progressive": True}, 3),
        ("RGB", "JPEG", {"icc_profile": bytes(150_000)}, 3),
        ("RGB", "PNG", {}, 3),
        ("L", "PNG", {}, 1),
        ("P", "PNG", {}, 3),
        ("RGBA", "PNG", {}, 4),
        ("P", "PNG", {"transparency": 0}, 0),  # depends on OpenCV's version
        ("RGB", "BMP", {}, 3),
        ("L", "BMP", {}, 0),  # depends on its palette
        ("RGB", "PPM", {}, 3),
        ("L", "PPM", {}, 1),
        ("1", "PPM", {}, 1),
    ],
)
def test_the_size_of_an_image_by_its_header(mode, form, options, channels):
    content = encoded((37, 21), mode, form, **options)
    assert reading(content) == ImageSize(channels, height=21, width=37)
    for end in range(0, 40):
        reading(content[:end])  # a cut header is no error


def test_an_image_with_exif_data_may_be_turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert reading(encoded((37, 21), exif=exif)) == ImageSize(3, 21, 37, turned=True)


def test_comments_in_a_pnm_header():
    assert reading(b"P3 # a picture\n# of 4 x 2\n4\t# wide\n2 255\n" + b"0 " * 24) == ImageSize(
        3, 2, 4
    )


@pytest.mark.parametrize(
    "form", ["JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP", "GIF", "JPEG2000", "AVIF"]
)
def test_a_format_that_some_opencv_decodes(form):
    try:
        content = encoded((37, 21), form=form)
    except (KeyError, OSError):
        pytest.skip("Pillow does not write it here")
    assert is_image(lambda start, count: content[start : start + count])


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xd8", bytes(200), b"PK\x03\x04" * 50, b"P8 3 3 ", b"jpeg" * 50]
)
def test_what_no_opencv_decodes(content):
    assert not is_image(lambda start, count: content[start : start + count])


@pytest.mark.parametrize(
    "content", [b"", b"GIF89a", b"\xff\xd8", b"\xff\xd8" + b"\xff" * 5000, bytes(100)]
)
def test_what_has_no_known_header(content):
    assert reading(content) is None


# -- an LMDB ---------------------------------------------------------------------------------------


def test_labels_and_shapes_of_raw_images(tmp_path):
    found = scan(tmp_path / "x", *(raw(label) for label in (3, -1, 4, 3, 7)))
    assert (found.records, found.labels) == (5, [(-1, -1), (3, 4), (7, 7)])
    assert [(s.channels, s.height, s.width, s.kind, s.record) for s in found.shapes] == [
        (1, 2, 2, "raw", "000")
    ]
    assert (found.size_step, found.channel_step) == (0, 0)
    assert Scan.from_json(found.as_json()) == found


def test_float_data(tmp_path):
    floats = {"data": b"", "float_data": [0.5] * 4}
    assert scan(tmp_path / "x", raw(1, **floats), raw(2, **floats)).labels == [(1, 2)]


@pytest.mark.parametrize(
    ("datums", "message"),
    [
        (
            [raw(), raw(data=bytes(3))],
            r"record 001 is 1 x 2 x 2 in 3 bytes; allowed: channels x height x width, which is 4",
        ),
        ([raw(data=bytes(5))], r"record 000 is 1 x 2 x 2 in 5 bytes; .* which is 4"),
        ([raw(), raw(shape=(0, 2, 2), data=bytes(4))], r"record 001 is 0 x 2 x 2 in 4 bytes"),
        ([raw(), raw(shape=(-1, 2, -2), data=bytes(4))], r"record 001 is -1 x 2 x -2 in 4 bytes"),
        (
            [raw(data=b"", float_data=[1.0] * 3)],
            r"record 000 is 1 x 2 x 2 in 3 values of float_data; .* 4",
        ),
        ([raw(), raw(data=b"")], r"record 001 has no data"),
        ([raw(encoded=True, data=b"", float_data=[1.0] * 4)], r"record 000 has no data"),
        (
            [Datum(data=encoded((9, 9)), encoded=True), Datum(data=b"nonsense" * 9, encoded=True)],
            r"record 001 is marked as an encoded image, and begins with b'nonsense'; allowed: what Caffe's",
        ),
        (
            [raw(data=encoded((9, 9)))],
            r"record 000 .*; it is an encoded image, but not marked as encoded",
        ),
    ],
)
def test_records_of_which_caffe_would_read_beyond_the_end(tmp_path, datums, message):
    with pytest.raises(InputError, match=rf"^{tmp_path / 'x'}: {message}"):
        scan(tmp_path / "x", *datums)


def test_a_record_that_is_no_datum(tmp_path):
    records = put(tmp_path / "x", [raw().SerializeToString(), b"\x0a\xff"])
    with pytest.raises(InputError, match="record 001 is not a Caffe Datum"):
        records.scan(no_progress)


def test_where_the_size_changes(tmp_path):
    """Three of one size, three of another, six of the first; at the place 12 it begins anew."""
    sizes = [(2, 2)] * 3 + [(2, 3)] * 3 + [(2, 2)] * 6
    found = scan(tmp_path / "x", *(raw(0, (1, *size)) for size in sizes))
    assert (found.size_step, found.channel_step) == (3, 0)
    assert [(s.height, s.width, s.record) for s in found.shapes] == [(2, 2, "000"), (2, 3, "003")]


def test_encoded_images(tmp_path):
    images = [
        encoded((9, 5)),
        encoded((9, 5), "L"),
        encoded((4, 5), form="PNG"),
        b"GIF89a of some kind",
    ]
    found = scan(tmp_path / "x", *(Datum(data=image, encoded=True, label=2) for image in images))
    assert [(s.channels, s.height, s.width, s.kind) for s in found.shapes] == [
        (3, 5, 9, "encoded"), (1, 5, 9, "encoded"), (3, 5, 4, "encoded"),
    ]  # fmt: skip
    assert (found.records, found.size_step, found.channel_step) == (4, 2, 1)


def test_the_smallest_of_very_many_sizes_is_kept(tmp_path):
    sizes = [(1, 300 - number, 300) for number in range(299)] + [(2, 300, 300)]
    found = scan(tmp_path / "x", *(raw(0, size) for size in sizes))
    assert len(found.shapes) == 300
    assert min(shape.height for shape in found.shapes) == 2


def test_finding_a_label(tmp_path):
    records = put(tmp_path / "x", [raw(label).SerializeToString() for label in (1, 2, 5, 6)])
    assert records.find(lambda label: label > 4) == ("record 002", 5)
    assert records.find(lambda label: label > 6) is None


def test_very_many_different_labels():
    values = Values()
    for value in range(0, 500_000, 2):
        values.add(value)
    assert values.ranges() == [(0, 499_998)]


# -- lists -----------------------------------------------------------------------------------------


def test_labels_of_a_list_of_images(tmp_path):
    """As Caffe reads them: what atoi makes of what is behind the last space."""
    path = tmp_path / "list.txt"
    path.write_bytes(b"a.png 3\n\nb c.png 12abc\r\nd.png -1\n\xff.png +4")
    found = ImageList(path).scan(no_progress)
    assert (found.records, found.labels, found.unlabelled) == (
        4,
        [(-1, -1), (3, 4), (12, 12)],
        None,
    )
    assert ImageList(path).find(lambda label: label == 12) == ("line 3", 12)
    path.write_bytes(b"a.png 3\nb.png cat\nc.png\n")
    assert ImageList(path).scan(no_progress).unlabelled == "line 2"


def test_labels_of_hdf5_files(tmp_path):
    files = [tmp_path / "a.h5", tmp_path / "b.h5"]
    for path, labels in zip(files, ([[0.0, 1.9], [2.0, 3.0]], [[9.0, -0.5], [4.0, 5.0]])):
        with h5py.File(path, "w") as file:
            file["label"] = np.array(labels, np.float32)
    rows = Hdf5Rows(tmp_path / "list.txt", "label", files)
    found = rows.scan(no_progress)
    assert (found.records, found.labels, found.unlabelled) == (4, [(0, 5), (9, 9)], None)
    assert rows.find(lambda label: label == 9) == (f"row 0 of {files[1]}", 9)
    assert Hdf5Rows(tmp_path / "list.txt", "other", files).scan(no_progress).records == 0
    with h5py.File(files[1], "a") as file:
        file["label"][1, 1] = np.nan
    assert rows.scan(no_progress).unlabelled == f"row 1 of {files[1]}"
