"""Prototxts that are unlike most: taken, refused and upgraded as Caffe's own reader does it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lrbench_caffe.errors import InputError
from lrbench_caffe.prototxt.messages import Messages, to_bytes
from lrbench_caffe.runtime import worker as protocol
from lrbench_caffe.runtime.client import Worker
from lrbench_caffe.runtime.locate import CaffePython
from lrbench_caffe.runtime.replies import CaffeInfo


class OneReader:
    """Caffe's own reader, with one process for all files and a count of the calls."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.calls = 0

    def __call__(self, message: str, path: Path) -> bytes | None:
        self.calls += 1
        parsed, data = self._worker.read(message, path)
        if not parsed:
            raise InputError("refused by Caffe")
        return data


@pytest.fixture(scope="module")
def worker(caffe_python: CaffePython, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with Worker(caffe_python, tmp_path_factory.mktemp("reader") / "caffe.log") as worker:
        yield worker


@pytest.fixture
def messages(caffe_info: CaffeInfo, worker: Worker) -> Messages:
    return Messages(caffe_info.descriptor, OneReader(worker))


@pytest.fixture
def both(caffe_info: CaffeInfo, worker: Worker, tmp_path: Path):
    """``both(text)``: what our reader and Caffe's make of a solver: a message, or None where it is refused.

    And whether ours asked Caffe.
    """

    def read(text: str | bytes) -> tuple[object, object, bool]:
        path = tmp_path / "solver.prototxt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        reader = OneReader(worker)
        messages = Messages(caffe_info.descriptor, reader)
        try:
            ours = messages.read_text("SolverParameter", path)
        except InputError:
            ours = None
        asked = reader.calls > 0
        try:
            theirs = messages.new("SolverParameter")
            theirs.MergeFromString(reader("SolverParameter", path))
        except InputError:
            theirs = None
        return ours, theirs, asked

    return read


# What C++ and Python read differently, and what they do not.
UNUSUAL = {
    "max_iter: 4_0": False,
    "max_iter: +5": False,
    "max_iter: 0b1": False,
    "max_iter: 0o17": False,
    "max_iter: 017": True,  # octal: 15
    "max_iter: 0x1F": True,
    "max_iter: - 5": True,
    "base_lr: - 5": True,
    "base_lr: 1.f": True,
    "base_lr: .5": True,
    "base_lr: 5.": True,
    "base_lr: 1e-5f": True,
    "base_lr: 1e39": True,
    "base_lr: inf": True,
    "base_lr: -nan": True,
    "base_lr: 0x10": False,
    "base_lr: 1_0.5": False,
    "debug_info: 01": True,
    "debug_info: t": True,
    "debug_info: False": True,
    "debug_info: yes": False,
    "max_iter: 2147483648": False,
    "solver_mode: 1": True,
    "solver_mode: 7": False,
    "net: \"a\" 'b'": True,
    'net: "a\\x41\\n\\101"': True,
    'net: "a\nb"': False,
    "net: u8'a'": False,
    "max_iter: 5; base_lr: 1, gamma: 2": True,
    "train_state < level: 1 >": True,
    "train_state: { stage: [ 'a', 'b' ] }": True,
    "stepvalue: [1, 2,]": False,
    "train_state { level: 1 } train_state { level: 2 }": False,
    "max_iter: 5base_lr: 1": False,
    "max_iter: 5 # \u4e2d": True,
}


@pytest.mark.parametrize("text", UNUSUAL)
def test_what_is_taken_is_what_caffe_takes(both, text):
    ours, theirs, _ = both(text)
    assert (theirs is not None) == UNUSUAL[text]  # what was seen of protobuf 3.12
    assert str(ours) == str(theirs)


def test_values_as_caffe_reads_them(both):
    assert both("max_iter: 017")[0].max_iter == 15
    assert both("base_lr: - 5")[0].base_lr == -5
    assert both("debug_info: 01")[0].debug_info is True


def test_a_usual_file_is_read_without_caffe(both):
    text = (
        'net: "a/b.prototxt"\nbase_lr: 0.01 gamma: 1e-4 # decay\ntest_iter: [2, 3]\nmomentum: 0.9\n'
    )
    assert both(text.replace("[2, 3]", "2"))[2] is False
    # GBK: in comments and in names, bytes are bytes.
    gbk = text.replace("decay", "\u5b66\u4e60").replace("[2, 3]", "2").encode("gbk")
    ours, theirs, asked = both(gbk)
    assert (ours, asked) == (theirs, False)


def test_bytes_of_names_survive(messages, tmp_path):
    """Latin-1, GBK whose second byte is a backslash, and characters that the driver itself makes use of."""
    names = [
        b"caf\xe9",
        "\u6570\u636e".encode("gbk"),
        b"\xd5\\\\n",
        "\uefb5 \u6570".encode(),
        b"\xff\xfe",
    ]
    path = tmp_path / "net.prototxt"
    path.write_bytes(b"".join(b'layer { name: "%s" }\n' % name for name in names))
    net = messages.read_text("NetParameter", path)
    again = tmp_path / "again.prototxt"
    again.write_bytes(to_bytes(net))
    assert messages.read_text("NetParameter", again) == net
    expected = [name.replace(b"\\\\", b"\\") for name in names]
    assert [protocol.encode(layer.name) for layer in net.layer] == expected
    assert again.read_bytes().count(b'name: "caf\xe9"') == 1


@pytest.mark.parametrize(("mark", "name"), [(b"\xef\xbb\xbf", "UTF-8"), (b"\xff\xfe", "UTF-16")])
def test_a_byte_order_mark_is_named(messages, tmp_path, mark, name):
    path = tmp_path / "solver.prototxt"
    path.write_bytes(mark + b"max_iter: 5")
    with pytest.raises(InputError, match=rf"begins with a byte order mark \({name}\)"):
        messages.read_text("SolverParameter", path)


OLD_NETS = {
    "the layers of 2014 (layers { type: NAME })": """
        layers { name: "d" type: DATA top: "x" top: "y"
          data_param { source: "a" batch_size: 2 scale: 0.5 mirror: true crop_size: 3 }
          include { phase: TRAIN } }
        layers { name: "ip" type: INNER_PRODUCT bottom: "x" top: "s" blobs_lr: 1 blobs_lr: 2
          weight_decay: 1 weight_decay: 0 inner_product_param { num_output: 2 } }""",
    "the layers of 2013 (layers { layer { ... } })": """
        layers { layer { name: "d" type: "data" source: "a" batchsize: 2 scale: 0.5 mirror: true cropsize: 3 }
          top: "x" top: "y" }
        layers { layer { name: "ip" type: "innerproduct" num_output: 2 blobs_lr: 1 blobs_lr: 2
          weight_decay: 1 weight_decay: 0 } bottom: "x" top: "s" }""",
}


@pytest.mark.parametrize("old", OLD_NETS)
def test_older_formats_are_upgraded(messages, tmp_path, old):
    path = tmp_path / "net.prototxt"
    path.write_text(OLD_NETS[old])
    net, found = messages.read_net(path)
    assert (found, len(net.layers)) == (old, 0)
    data, product = net.layer
    assert (data.type, data.data_param.source, data.data_param.batch_size) == ("Data", "a", 2)
    transform = data.transform_param
    assert (transform.scale, transform.mirror, transform.crop_size) == (0.5, True, 3)
    assert (product.type, product.inner_product_param.num_output) == ("InnerProduct", 2)
    assert [(spec.lr_mult, spec.decay_mult) for spec in product.param] == [(1, 1), (2, 0)]


def test_input_fields_become_a_layer(messages, tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text('input: "x" input: "y" input_dim: [4, 3, 1, 2, 4, 1, 1, 1]')
    net, _ = messages.read_net(path)
    (layer,) = net.layer
    assert (layer.type, list(layer.top)) == ("Input", ["x", "y"])
    assert [list(shape.dim) for shape in layer.input_param.shape] == [[4, 3, 1, 2], [4, 1, 1, 1]]


def test_without_caffes_functions_an_old_net_is_refused(caffe_info, tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text('layers { name: "x" type: RELU bottom: "x" top: "x" }')
    with pytest.raises(InputError, match="has the layers of 2014 .*convert it with"):
        Messages(caffe_info.descriptor).read_net(path)
