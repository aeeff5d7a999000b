"""What a solver and its net would train, out of their texts, without opening what they name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lrbench_caffe.errors import InputError
from lrbench_caffe.prototxt.messages import Messages
from lrbench_caffe.prototxt.shapes import blob_shapes
from lrbench_caffe.prototxt.uploads import MOST_LAYERS, SolverTexts, told_training
from lrbench_caffe.records import SCRATCH, Dataset, SolverSettings
from lrbench_caffe.runtime.known import known_caffe

ROOT = Path(__file__).parents[2]
INFO = known_caffe()
MESSAGES = Messages(INFO.descriptor)
MNIST = Dataset("mnist", 1, 28, 28, 10, 60000, 10000, "m")
CIFAR = Dataset("cifar10", 3, 32, 32, 10, 50000, 10000, "c")

SOLVER = """
net: "some/net.prototxt" test_iter: 100 test_interval: 500 base_lr: 0.01 momentum: 0.9 weight_decay: 0.0005
lr_policy: "fixed" max_iter: 5000 iter_size: 2
"""
DATA = """
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  data_param { source: "/nowhere/train" batch_size: 50 backend: LMDB }
  transform_param { mean_file: "/nowhere/mean" } }
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST }
  data_param { source: "/nowhere/test" batch_size: 100 backend: LMDB } }
"""
LAYERS = """
layer { name: "c" type: "Convolution" bottom: "data" top: "c"
  convolution_param { num_output: 20 kernel_size: 5 } }
layer { name: "p" type: "Pooling" bottom: "c" top: "p" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "i" type: "InnerProduct" bottom: "p" top: "i" inner_product_param { num_output: 500 } }
layer { name: "r" type: "ReLU" bottom: "i" top: "i" }
layer { name: "o" type: "InnerProduct" bottom: "i" top: "o" inner_product_param { num_output: 7 } }
"""
LOSS = """
layer { name: "a" type: "Accuracy" bottom: "o" bottom: "label" top: "a" include { phase: TEST } }
layer { name: "l" type: "SoftmaxWithLoss" bottom: "o" bottom: "label" top: "l" }
"""
NET = f'name: "Small" {DATA} {LAYERS} {LOSS}'


def told(solver=SOLVER, net=NET, data=MNIST, test_net=None, **others):
    texts = (text if text is None else text.encode() for text in (solver, net, test_net))
    return told_training(SolverTexts(*texts), data, MESSAGES, INFO, **others)


def test_the_task_follows_from_the_texts_and_what_the_data_is_like():
    found = told()
    assert found.solver == SolverSettings("SGD", 50, 2, 0.01, 0.9, 0.0005)
    assert (found.max_iter, found.epoch) == (5000, 600.0)  # 60,000 / (50 x 2)
    assert found.start == SCRATCH and found.notes == ()
    task = found.task
    assert task.title == "mnist / Small" and task.task_type == "classification"
    assert (task.framework.name, task.framework.device) == ("Caffe", "CPU")
    # The net has 7 scores, whatever the data was said to have.
    assert task.dataset == Dataset("mnist", 1, 28, 28, 7, 60000, 10000, "m")
    # 20 x (25 + 1); 28 - 5 + 1 = 24, pooled 12; 500 x (20 x 144 + 1); 7 x 501
    assert task.network.parameters == 520 + 1_440_500 + 3507
    assert task.network.depth == 3
    assert task.network.layers["InnerProduct"] == 2


@pytest.mark.parametrize("key", ["lenet_mnist", "cnn3_cifar10", "resnet32_cifar10"])
def test_the_example_nets_are_what_caffe_makes_of_them(key):
    """paper/networks.json was written by Caffe (tools/make_paper_tasks)."""
    expected = json.loads((ROOT / "lrbench_caffe/paper/networks.json").read_text())[key]
    texts = (ROOT / f"solvers/{key}_solver.prototxt", ROOT / f"prototxt/{key}_train_test.prototxt")
    data = MNIST if "mnist" in key else CIFAR
    found = told(*(path.read_text(encoding="utf-8") for path in texts), data=data)
    network = found.task.network
    assert (
        network.name,
        network.digest,
        network.layers,
        network.parameters,
        network.depth,
    ) == tuple(expected.values())
    assert found.task.dataset.classes == 10


def test_the_length_that_is_asked_for_counts():
    assert told(max_iter=700).max_iter == 700
    without = SOLVER.replace("max_iter: 5000", "")
    assert told(without, max_iter=700).max_iter == 700
    with pytest.raises(InputError, match="solver.prototxt: max_iter is 0; allowed: 1 or more"):
        told(without)


def test_little_may_be_known_of_the_data():
    found = told(data=Dataset("mine", None, None, None, 10, None, None))
    assert found.task.network.parameters is None and found.epoch is None
    assert found.task.dataset.classes == 7
    (note,) = found.notes
    assert "the number of parameters of the net does not follow" in note


def test_weights_that_nobody_has_seen_are_an_unknown_start():
    found = told(SOLVER + 'weights: "/home/ada/x.caffemodel"')
    assert (found.start.kind, found.start.known, found.start.name) == (
        "weights",
        False,
        "x.caffemodel",
    )


def test_what_the_command_would_say_of_the_solver_is_said():
    found = told(SOLVER.replace("test_iter: 100", "test_iter: 99"))
    assert any(
        "leaves some of its data out: test_iter 99 x batch 100" in note for note in found.notes
    )


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ({"net": None}, "solver.prototxt: net is 'some/net.prototxt', whose text is missing"),
        ({"net": NET.replace("Pooling", "Poolin")}, "net.prototxt: layer 'p': unknown layer type 'Poolin'"),
        ({"net": NET.replace("num_output: 7", "num_outpt: 7")}, "did you mean 'num_output'"),
        ({"net": NET.replace("batch_size: 50", "batch_size: 0")}, "data_param.batch_size: is 0; allowed: 1"),
        ({"net": NET.replace("kernel_size: 5", "kernel_size: 29")}, "does not fit its input of 28 x 28"),
        ({"net": ""}, "the training net has no layers"),
        ({"net": "layer {" * 100_000}, "some/net.prototxt:1: 'layer' in LayerParameter"),
        ({"net": "layers { type: RELU }"}, "convert it with Caffe's tool upgrade_net_proto_text"),
        ({"net": "layer {}" * (MOST_LAYERS + 1)}, f"layer is given {MOST_LAYERS + 1} times"),
        ({"solver": SOLVER + "momentun: 1"}, "solver.prototxt:4: unknown field 'momentun'"),
        ({"solver": "\0"}, "solver.prototxt:1"),
        ({"solver": SOLVER + 'type: "sgd"'}, "type is 'sgd'; did you mean 'SGD'"),
        (
            {"solver": SOLVER.replace("net:", "train_net:") + 'test_net: "a" test_net: "b" test_iter: 1'},
            r"test_net\[1\] is 'b'; allowed: one test_net",
        ),
        ({"solver": "net_param { layers { type: RELU } } max_iter: 1"}, "no layers"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(texts, words):
    with pytest.raises(InputError, match=words) as caught:
        told(**texts)
    assert "\n" not in str(caught.value)


def test_a_number_of_many_digits_is_refused_at_once():
    with pytest.raises(InputError, match="Couldn't parse integer: 9{40}[.]{3}|too many digits"):
        told(net=NET + f"layer {{ reshape_param {{ shape {{ dim: {'9' * 100_000} }} }} }}")


def test_a_net_of_its_own_for_the_test():
    solver = SOLVER.replace("net:", "train_net:") + 'test_net: "t"'
    plain = DATA + LAYERS
    found = told(
        solver, plain + LOSS, test_net=plain.replace("num_output: 7", "num_output: 3") + LOSS
    )
    assert found.task.dataset.classes == 3 and found.task.network.parameters == 1_444_527
    assert told(solver, NET).task.dataset.classes == 7  # the same text for both


def test_a_net_within_the_solver_needs_no_text():
    solver = SOLVER.replace('net: "some/net.prototxt"', f"net_param {{ {NET} }}")
    assert told(solver, None).task == told().task


def test_shapes_of_blobs(net_of):
    net = net_of(
        DATA
        + """
        layer { name: "x" type: "Pooling" bottom: "data" top: "x" pooling_param { kernel_size: 3 stride: 2 } }
        layer { name: "y" type: "Concat" bottom: "x" bottom: "x" top: "y" }
        layer { name: "f" type: "Flatten" bottom: "y" top: "f" }
        layer { name: "e" type: "Eltwise" bottom: "f" bottom: "f" top: "e" }
        layer { name: "u" type: "Crop" bottom: "x" bottom: "data" top: "u" }
        layer { name: "v" type: "ReLU" bottom: "u" top: "v" }
        layer { name: "w" type: "Pooling" bottom: "data" top: "w" pooling_param { global_pooling: true } }
        """
    )
    # Caffe's pooling rounds up: ceil((9 - 3) / 2) + 1 = 4, ceil((8 - 3) / 2) + 1 = 4
    assert blob_shapes(net, [5, 3, 9, 8]) == {
        "data": [5, 3, 9, 8],
        "label": [5],
        "x": [5, 3, 4, 4],
        "y": [5, 6, 4, 4],
        "f": [5, 96],
        "e": [5, 96],
        "w": [5, 3, 1, 1],
    }


def test_nothing_that_the_texts_name_is_opened(tmp_path):
    """Python reports each file that is opened to an audit hook."""
    named = ["net", "train", "test", "mean", "model", "shot", "list", "table", "test_net"]
    for name in named:
        (tmp_path / name).write_text("", encoding="utf-8")
    place = {name: str(tmp_path / name) for name in named}
    solver = SOLVER.replace("some/net.prototxt", place["net"])
    solver += f'weights: "{place["model"]}" snapshot_prefix: "{place["shot"]}"'
    net = (
        NET.replace("/nowhere/", f"{tmp_path}/")
        + f"""
    layer {{ name: "h" type: "HDF5Data" top: "h"
      hdf5_data_param {{ source: "{place["list"]}" batch_size: 1 }} }}
    layer {{ name: "g" type: "ImageData" top: "g"
      image_data_param {{ source: "{place["table"]}" batch_size: 1 }} }}
    layer {{ name: "s" type: "Silence" bottom: "h" bottom: "g" }}
    """
    )
    code = """
import json, sys
from tests.prototxt.test_uploads import told
solver, net, folder = json.load(sys.stdin)
opened = []
sys.addaudithook(lambda event, args: opened.append((event, str(args))))
found = told(solver, net)
open(folder + "/net").close()
touched = [(event, args) for event, args in opened if folder in args]
print(len(touched), found.task.title)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([solver, net, str(tmp_path)]),
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    # The hook saw the file that the test opened itself, and no other.
    assert (done.stdout, done.returncode) == ("1 mnist / Small\n", 0), done.stderr


def test_parameters_of_a_net_with_layers_that_have_none():
    """20 x (1 x 5 x 5 + 1), and 7 x (20 x 12 x 12 + 1)."""
    layers = """
layer { name: "c" type: "Convolution" bottom: "data" top: "c"
  convolution_param { num_output: 20 kernel_size: 5 } }
layer { name: "s" type: "Swish" bottom: "c" top: "s" }
layer { name: "k" type: "Clip" bottom: "s" top: "k" clip_param { min: 0 max: 6 } }
layer { name: "p" type: "Pooling" bottom: "k" top: "p" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "o" type: "InnerProduct" bottom: "p" top: "o" inner_product_param { num_output: 7 } }
layer { name: "q" type: "SPP" bottom: "p" top: "q" spp_param { pyramid_height: 2 } }
"""
    found = told(net=f"{DATA} {layers} {LOSS}")
    assert found.task.network.parameters == 20 * 26 + 7 * (20 * 12 * 12 + 1)
