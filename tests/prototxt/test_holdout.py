"""A solver that trains on a part of its training records and tests on the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lmdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrbench_caffe.datasets.datum import datum_bytes
from lrbench_caffe.progress import SILENT
from lrbench_caffe.prototxt.holdout import CannotSplit, Splittable, splittable, write_holdout
from lrbench_caffe.prototxt.messages import Messages
from lrbench_caffe.prototxt.solver import Solver, load_solver
from lrbench_caffe.runtime.replies import CaffeInfo
from tests.prototxt.conftest import Write
from tests.prototxt.test_datacheck import encoded, write

SOLVER = """
net: "net.prototxt" test_iter: 2 test_interval: 100
base_lr: 0.01 lr_policy: "fixed" max_iter: 1000 momentum: 0.9
"""
NET = """
name: "tiny"
layer { name: "train" type: "Data" top: "x" top: "y" include { phase: TRAIN } TRAIN_TRANSFORM
        data_param { source: "train_lmdb" batch_size: 4 rand_skip: 3 backend: LMDB } }
layer { name: "test" type: "Data" top: "x" top: "y" include { phase: TEST } TEST_TRANSFORM
        data_param { source: "test_lmdb" batch_size: 5 backend: LMDB } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "s" inner_product_param { num_output: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "s" bottom: "y" top: "loss" }
"""
Load = Callable[..., Solver]
HeldOut = Callable[[Splittable], Solver]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_images: Write) -> Path:
    """200 training and 10 test images of 1 x 4 x 4; the working directory."""
    monkeypatch.chdir(tmp_path)
    write_images("train_lmdb", 200, (1, 4, 4))
    write_images("test_lmdb", 10, (1, 4, 4))
    return tmp_path


@pytest.fixture
def load(messages: Messages, caffe_info: CaffeInfo) -> Load:
    """``load(net, solver)``: a solver from its text, its data checked."""

    def load(net: str = NET, solver: str = SOLVER, *, train: str = "", test: str = "") -> Solver:
        net = net.replace("TRAIN_TRANSFORM", train).replace("TEST_TRANSFORM", test)
        Path("net.prototxt").write_text(net)
        Path("solver.prototxt").write_text(solver)
        return load_solver(Path("solver.prototxt"), messages, caffe_info, check_data=SILENT)

    return load


@pytest.fixture
def held_out(write_images: Write, messages: Messages, caffe_info: CaffeInfo) -> HeldOut:
    """``held_out(split)``: the solver as written for a tenth of the records, with parts of black images."""

    def write(split: Splittable) -> Solver:
        passes, batch = split.passes(0.1)
        rest, held = {}, {}
        for source in split.sources:
            shape = (1, 8, 8) if source.name == "padded_lmdb" else (1, 4, 4)
            rest[source] = write_images(
                f"rest_{source.name}", split.records - passes * batch, shape
            )
            held[source] = write_images(f"held_{source.name}", passes * batch, shape)
        path = write_holdout(split, 0.1, Path("out"), rest, held)
        return load_solver(path, messages, caffe_info, check_data=SILENT)

    return write


def test_the_nets_read_the_two_parts(load: Load, held_out: HeldOut) -> None:
    solver = load()
    split = splittable(solver)
    assert (split.records, split.sources, split.labels) == (
        200,
        (Path("train_lmdb"),),
        Path("train_lmdb"),
    )
    assert split.passes(0.1) == (4, 5)
    found = held_out(split)
    assert found.path == Path("out/solver.prototxt") and found.remarks == []
    assert found.source is not None and Path(found.source.path).name == "rest_train_lmdb"
    assert (found.source.samples, found.source.batch) == (180, 4)
    assert found.train.layers[0].data_param.rand_skip == 3
    (test,) = found.tests
    assert test.source is not None and Path(test.source.path).name == "held_train_lmdb"
    assert (test.passes, test.source.batch, test.source.samples) == (4, 5, 20)
    # All else is as it was.
    for net, original in ((found.train, solver.train), (test.net, solver.tests[0].net)):
        assert [(one.name, one.type) for one in net.layers] == [
            (one.name, one.type) for one in original.layers
        ]
        assert net.layers[1:] == original.layers[1:]
    fields = {d.name for d, _ in solver.message.ListFields()} - {"net", "test_iter"}
    assert all(getattr(found.message, n) == getattr(solver.message, n) for n in fields)


def test_stages_and_several_test_nets(load: Load, held_out: HeldOut) -> None:
    """Only the first test net is kept, with its own state."""
    ip = 'layer { name: "ip"'
    more = 'layer { name: "one" type: "ReLU" bottom: "x" top: "x" include { stage: "one" } }'
    solver = load(
        NET.replace(ip, more + ip),
        SOLVER + 'test_iter: 7 test_state { stage: "one" } test_state { }',
    )
    assert [len(test.net.layers) for test in solver.tests] == [4, 3]
    found = held_out(splittable(solver))
    assert [len(test.net.layers) for test in found.tests] == [4]
    assert len(found.train.layers) == 3


def test_a_net_of_the_tests_own(load: Load, held_out: HeldOut) -> None:
    Path("test.prototxt").write_text(
        NET.replace("tiny", "other").replace("TRAIN_TRANSFORM", "").replace("TEST_TRANSFORM", "")
    )
    solver = load(solver=SOLVER.replace("net:", "train_net:") + 'test_net: "test.prototxt"')
    found = held_out(splittable(solver))
    assert (found.train.name, found.tests[0].net.name) == ("tiny", "other")


def test_images_and_labels_in_two_lmdbs(load: Load, held_out: HeldOut, write_images: Write) -> None:
    write_images("labels_lmdb", 200, (1, 4, 4))
    layer = """layer {{ name: "{0}" type: "Data" top: "{0}" include {{ phase: {1} }}
               data_param {{ source: "{2}_lmdb" batch_size: {3} backend: LMDB }} }}"""
    net = "".join(
        layer.format(*words)
        for words in (("x", "TRAIN", "train", 4), ("y", "TRAIN", "labels", 4),
                      ("y", "TEST", "test", 5), ("x", "TEST", "test", 5))
    ) + NET[NET.index('layer { name: "ip"') :]  # fmt: skip
    split = splittable(load(net))
    assert split.sources == (Path("train_lmdb"), Path("labels_lmdb"))
    assert split.labels is None  # no layer has labels of its own
    found = held_out(split)
    sources = [
        [Path(one.data_param.source).name for one in net.layers[:2]] for net in found.phase_nets
    ]
    assert sources == [
        ["rest_train_lmdb", "rest_labels_lmdb"],
        ["held_labels_lmdb", "held_train_lmdb"],
    ]


def test_padded_training_records_are_cropped_in_the_middle(
    load: Load, held_out: HeldOut, write_images: Write, write_mean: Write
) -> None:
    write_images("padded_lmdb", 200, (1, 8, 8))
    write_mean("mean8", (1, 8, 8))
    write_mean("mean4", (1, 4, 4))
    solver = load(
        NET.replace('"train_lmdb"', '"padded_lmdb"'),
        train='transform_param { crop_size: 4 mirror: true mean_file: "mean8" }',
        test='transform_param { mean_file: "mean4" scale: 0.5 }',
    )
    found = held_out(splittable(solver))
    transform = found.tests[0].net.layers[0].transform_param
    assert (transform.crop_size, transform.mean_file, transform.scale) == (4, "mean8", 0.5)
    assert not transform.mirror
    assert found.tests[0].source is not None and found.tests[0].source.shape == (1, 4, 4)


def test_encoded_training_images_are_cropped_in_the_middle_too(load: Load) -> None:
    """Caffe learns their size by decoding them; the check of the data has read it."""
    write("padded_lmdb", *[encoded("L", (10, 10))] * 20)
    write("own_lmdb", *[encoded("L", (8, 8))] * 10)
    net = NET.replace('"train_lmdb"', '"padded_lmdb"').replace('"test_lmdb"', '"own_lmdb"')
    solver = load(net, train="transform_param { crop_size: 8 }")
    assert [one.crop_size for one in splittable(solver).transforms.values()] == [8]
    with pytest.raises(CannotSplit, match="records of 8 x 8 of the test set and 10 x 10 of"):
        splittable(load(net))
    write(
        "grey_lmdb", *[encoded("L", (10, 10))] * 20
    )  # the first of a set that is forced to colour
    write("colour_lmdb", *[encoded("RGB", (8, 8))] * 10)
    net = NET.replace('"train_lmdb"', '"grey_lmdb"').replace('"test_lmdb"', '"colour_lmdb"')
    forced = load(
        net, train="transform_param { crop_size: 8 force_color: true }",
        test="transform_param { force_color: true }",
    )  # fmt: skip
    assert [one.crop_size for one in splittable(forced).transforms.values()] == [8]
    unknown = replace(solver, checked=None)  # trusted data, of which nobody knows the sizes
    assert [one.crop_size for one in splittable(unknown).transforms.values()] == [0]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"train_lmdb"', '"train_level"', "layer 'train' of the training net is a LevelDB, not an LMDB"),
        ('type: "Data" top: "x" top: "y" include { phase: TEST }',
         'type: "DummyData" top: "x" top: "y" include { phase: TEST } dummy_data_param { num: 5 channels: 1 '
         'height: 4 width: 4 num: 5 channels: 1 height: 1 width: 1 }', "the test net #0 reads no LMDB"),
        ('name: "test" type: "Data" top: "x" top: "y"', 'name: "test" type: "Data" top: "z" top: "y"',
         "no data layer of the training net has the top 'z'"),
        ('"train_lmdb"', '"padded_lmdb"', "records of 1 x 4 x 4 of the test set and 1 x 8 x 8"),
        ('"train_lmdb"', '"one_lmdb"', "1 training record"),
        ("layer { name: \"ip\"", 'layer { name: "more" type: "Data" top: "m" include { phase: TRAIN } '
         'data_param { source: "test_lmdb" batch_size: 4 backend: LMDB } } layer { name: "ip"',
         "differ in their records: 200 in train_lmdb, 10 in test_lmdb"),
        ("layer { name: \"ip\"", 'layer { name: "more" type: "Data" top: "m" include { phase: TRAIN } '
         'data_param { source: "train_lmdb" batch_size: 2 backend: LMDB } } layer { name: "ip"',
         "the data layers of the training net differ in batch_size"),
    ],
)  # fmt: skip
def test_what_cannot_be_split(
    load: Load, write_images: Write, old: str, new: str, words: str
) -> None:
    write_images("padded_lmdb", 200, (1, 8, 8))
    write_images("one_lmdb", 1, (1, 4, 4))
    Path("train_level").mkdir()
    Path("train_level/CURRENT").touch()
    net = NET.replace(old, new)
    if "train_level" in new:
        net = net.replace("rand_skip: 3 backend: LMDB", "")
    if '"z"' in new:
        net = net.replace('bottom: "x"', 'bottom: "y"')
    with pytest.raises(CannotSplit, match=words):
        splittable(load(net))


def test_without_a_test_net(load: Load) -> None:
    solver = load(solver=SOLVER.replace("test_iter: 2 test_interval: 100", ""))
    with pytest.raises(CannotSplit, match="there is no test net"):
        splittable(solver)


def test_records_of_several_sizes_in_order(load: Load) -> None:
    """Batches of one size each: a split would mix them."""
    environment = lmdb.open("train_lmdb")
    with environment.begin(write=True) as transaction:
        for number in range(100, 200):
            image = np.zeros((1, 4, 6), np.uint8)
            transaction.put(b"%08d" % number, datum_bytes(image, 0))
    environment.close()
    with pytest.raises(CannotSplit, match="train_lmdb has records of several sizes"):
        splittable(load())
    single = NET.replace("batch_size: 4", "batch_size: 1")
    assert splittable(load(single)).records == 200


@given(st.integers(2, 100_000), st.floats(0.01, 0.5), st.integers(1, 500))
def test_a_test_pass_has_each_record_once(records: int, share: float, batch: int) -> None:
    none: dict[str, object] = {}
    split = Splittable(None, records, (), None, batch, none)  # type: ignore[arg-type]
    passes, size = split.passes(share)
    assert 1 <= size <= batch and 1 <= passes * size < records
    assert abs(passes * size - max(1, round(share * records))) <= passes / 2
