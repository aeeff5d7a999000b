"""Where a net's data comes from, and what is said when it is not there or does not fit."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

import pytest

from lrbench_caffe.errors import InputError
from lrbench_caffe.prototxt.sources import Source, find_source


def data(source: object, batch: int = 10, more: str = "") -> str:
    return (
        'layer { name: "d" type: "Data" top: "x" top: "y" '
        f'data_param {{ source: "{source}" batch_size: {batch} backend: LMDB }} {more} }}'
    )


def transform(text: str) -> str:
    return f"transform_param {{ {text} }}"


@pytest.fixture
def find(net_of, messages):
    return lambda text, phase="TEST": find_source(net_of(text, phase), messages)


def test_lmdb(find, write_images):
    path = write_images("lmdb", 25, (3, 8, 6))
    assert find(data(path)) == Source("d", str(path), 10, 25, (3, 8, 6), random=False)


@pytest.mark.parametrize(
    ("phase", "options", "shape", "random"),
    [
        ("TRAIN", "crop_size: 4", (3, 4, 4), True),
        ("TEST", "crop_size: 4", (3, 4, 4), False),  # in the middle
        ("TRAIN", "mirror: true", (3, 8, 6), True),
        ("TEST", "mirror: true", (3, 8, 6), True),  # Caffe flips there too
        ("TRAIN", "scale: 0.1 mean_value: 128", (3, 8, 6), False),
        ("TRAIN", "mean_value: [1, 2, 3] crop_size: 6", (3, 6, 6), True),
    ],
)
def test_transformations(find, write_images, phase, options, shape, random):
    found = find(data(write_images("lmdb", 1, (3, 8, 6)), more=transform(options)), phase)
    assert (found.shape, found.random) == (shape, random)


def test_mean_file(find, write_images, write_mean):
    lmdb = write_images("lmdb", 1, (3, 8, 6))
    mean = write_mean("mean.binaryproto", (3, 8, 6))
    assert find(data(lmdb, more=transform(f'mean_file: "{mean}" crop_size: 5'))).shape == (3, 5, 5)


def test_the_first_data_layer_counts_and_all_are_checked(find, write_images):
    first, second = write_images("a", 5, (1, 4, 4)), write_images("b", 7, (1, 4, 4))
    assert find(data(first) + data(second)).samples == 5
    with pytest.raises(InputError, match="no such LMDB folder"):
        find(data(first) + data("nowhere"))


def test_nets_without_data_of_ours(find):
    assert (
        find('layer { type: "DummyData" top: "x" } layer { type: "MemoryData" top: "z" }') is None
    )


WHERE = "net.prototxt: layer 'd' of the test net #0: "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (data("nowhere"), "data_param.source: nowhere: no such LMDB folder"),
        (
            data("data/mnist_train_lmdb"),
            "data_param.source: data/mnist_train_lmdb: no such LMDB folder "
            "(make it: python -m lrbench_caffe.data mnist)",
        ),
        (
            data("/x/cifar10_pad4_train_lmdb"),
            "data_param.source: /x/cifar10_pad4_train_lmdb: no such LMDB folder "
            "(make it: python -m lrbench_caffe.data cifar10 --out /x)",
        ),
        (
            data("{lmdb}", more=transform('mean_file: "data/cifar10_mean.binaryproto"')),
            "transform_param.mean_file: no such file: data/cifar10_mean.binaryproto "
            "(make it: python -m lrbench_caffe.data cifar10)",
        ),
        (data(""), "data_param.source: is missing"),
        (data("{lmdb}", batch=0), "data_param.batch_size: is 0; allowed: 1 or more"),
        (
            data("{lmdb}", more=transform("crop_size: 9")),
            "transform_param.crop_size: is 9, larger than the records (3 x 8 x 12)",
        ),
        (
            data("{lmdb}", more=transform("mean_value: [1, 2]")),
            "transform_param.mean_value: 2 values for records of 3 channels; allowed: 1 or 3",
        ),
        (
            data("{lmdb}", more=transform('mean_file: "{mean}"')),
            "transform_param.mean_file: {mean} is a mean of 3 x 8 x 8; the records are 3 x 8 x 12",
        ),
        (
            data("{lmdb}", more=transform('mean_file: "none.binaryproto"')),
            "transform_param.mean_file: no such file: none.binaryproto",
        ),
        (
            data("{lmdb}", more=transform('mean_file: "{mean}" mean_value: 3')),
            "transform_param: has mean_file and mean_value; allowed: one of them",
        ),
    ],
)
def test_mistakes(find, write_images, write_mean, text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no data set is, whatever this clone has
    names = {"{lmdb}": write_images("lmdb", 1, (3, 8, 12)), "{mean}": write_mean("mean", (3, 8, 8))}
    for name, path in names.items():
        text, message = text.replace(name, str(path)), message.replace(name, str(path))
    if "mean_value: 3" in text:
        shutil.copy(write_mean("fits", (3, 8, 12)), names["{mean}"])
    with pytest.raises(InputError) as caught:
        find(text)
    assert str(caught.value) == WHERE + message


def test_an_lmdb_that_may_not_be_locked(find, write_images, monkeypatch):
    """Caffe aborts with "Permission denied" alone. To root everything is permitted, so the system refuses."""
    lmdb = write_images("lmdb", 1, (3, 8, 12))
    (lmdb / "lock.mdb").touch()
    answer = [errno.EACCES]

    def refuse(path, flags, *more, **options):
        if Path(path) == lmdb / "lock.mdb":
            raise OSError(answer[0], os.strerror(answer[0]))
        return opened(path, flags, *more, **options)

    opened = os.open
    monkeypatch.setattr(os, "open", refuse)
    message = f"{lmdb}/lock.mdb: cannot be written (Permission denied); Caffe locks what it reads"
    with pytest.raises(InputError, match=re.escape(f"{WHERE}data_param.source: {message}")):
        find(data(lmdb))
    answer[0] = errno.EROFS  # there LMDB does without
    assert find(data(lmdb)).samples == 1


def test_a_folder_that_is_no_lmdb(find, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        InputError, match=re.escape(f"{WHERE}data_param.source: {tmp_path / 'empty'}: not an LMDB")
    ):
        find(data(tmp_path / "empty"))


def test_leveldb(find, tmp_path, write_images):
    text = data("{}").replace("backend: LMDB", "")  # LevelDB is Caffe's default
    lmdb = write_images("lmdb", 1, (1, 2, 2))
    with pytest.raises(
        InputError, match=r"is not a LevelDB folder \(it is an LMDB: set backend: LMDB\)$"
    ):
        find(text.replace("{}", str(lmdb)))
    with pytest.raises(InputError, match=r"is not a LevelDB folder$"):
        find(text.replace("{}", str(tmp_path)))
    (tmp_path / "CURRENT").touch()
    assert find(text.replace("{}", str(tmp_path))) == Source(
        "d", str(tmp_path), 10, None, None, False
    )


def test_image_lists(find, tmp_path):
    listing = tmp_path / "images.txt"
    listing.write_text("a.png 0\nb.png 1\n\n")
    text = 'layer {{ name: "d" type: "ImageData" image_data_param {{ source: "{}" batch_size: 2 {} }} }}'
    assert find(text.format(listing, "")) == Source("d", str(listing), 2, 2, None, False)
    sized = find(text.format(listing, "new_height: 4 new_width: 6 shuffle: true"))
    assert (sized.shape, sized.random) == ((3, 4, 6), True)
    assert find(text.format(listing, "new_height: 4 new_width: 6 is_color: false")).shape == (
        1,
        4,
        6,
    )
    listing.write_text("\n")
    with pytest.raises(
        InputError, match=f"image_data_param.source: {re.escape(str(listing))} lists no files"
    ):
        find(text.format(listing, ""))
    with pytest.raises(InputError, match="cannot read 'none': No such file or directory"):
        find(text.format("none", ""))


def test_hdf5_lists(find, tmp_path):
    listing, part = tmp_path / "parts.txt", tmp_path / "part.h5"
    listing.write_text(f"{part}\n")
    text = f'layer {{ name: "d" type: "HDF5Data" hdf5_data_param {{ source: "{listing}" batch_size: 2 }} }}'
    with pytest.raises(
        InputError, match=re.escape(f"{listing} names {part}, which does not exist")
    ):
        find(text)
    part.touch()
    assert find(text) == Source("d", str(listing), 2, None, None, False)
