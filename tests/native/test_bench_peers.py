"""The benchmark against peers: its nets, what it makes of turns, and processes that fail."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format

from lrbench_caffe.errors import InputError
from peersbench import nets, reading, results
from peersbench.contenders import Command, Contender, ContenderError
from peersbench.results import Measured
from peersbench.torch_python import installed_python

ROOT = Path(__file__).parents[2]

# As published: Krizhevsky et al. count 60 million, Simonyan and Zisserman 138 million, Howard et al.
# 4.2 million. Digit by digit: the weight files that the authors published (CaffeNet, VGG-16), and
# sums of the papers' tables.
PARAMETERS = {
    "caffenet": 60_965_224,
    # 6,998,552 without the auxiliary classifiers; each is a convolution of 128 channels, 2048 -> 1024
    # and 1024 -> 1000 with biases, on 512 and on 528 channels.
    "googlenet": 6_998_552
    + (512 * 128 + 128) + (528 * 128 + 128) + 2 * (2048 * 1024 + 1024 + 1024 * 1000 + 1000),
    "vgg16": 138_357_544,
    "resnet50": 25_557_032,
    "mobilenet": 4_231_976,
}  # fmt: skip
# Channels, height and width from the papers' tables.
BLOBS = {
    "caffenet": {
        "conv1": [96, 55, 55], "pool1": [96, 27, 27], "conv2": [256, 27, 27], "pool2": [256, 13, 13],
        "conv5": [256, 13, 13], "pool5": [256, 6, 6],
    },
    "googlenet": {
        "conv1": [64, 112, 112], "pool1": [64, 56, 56], "conv2": [192, 56, 56], "pool2": [192, 28, 28],
        "3a": [256, 28, 28], "3b": [480, 28, 28], "4a": [512, 14, 14], "4e": [832, 14, 14],
        "5b": [1024, 7, 7], "pool5": [1024, 1, 1], "4a_auxiliary_pool": [512, 4, 4],
    },
    "vgg16": {"conv1_2": [64, 224, 224], "conv3_3": [256, 56, 56], "pool5": [512, 7, 7]},
    "resnet50": {
        "conv1": [64, 112, 112], "res2_3": [256, 56, 56], "res3_4": [512, 28, 28],
        "res4_6": [1024, 14, 14], "res5_3": [2048, 7, 7],
    },
    "mobilenet": {
        "conv1": [32, 112, 112], "conv3": [128, 56, 56], "conv5": [256, 28, 28], "conv7": [512, 14, 14],
        "conv13": [1024, 7, 7], "conv14": [1024, 7, 7],
    },
}  # fmt: skip

# In Caffe's Python: opens a net and tells its blobs' shapes and its parameters, statistics apart.
OPEN = """
import json, sys
import caffe
net = caffe.Net(sys.argv[1], caffe.TRAIN)
loss = float(sum(net.forward().values()))
learnt = [layer for layer in net.layers if layer.type != "BatchNorm"]
print(json.dumps({
    "blobs": {name: list(blob.data.shape) for name, blob in net.blobs.items()},
    "parameters": sum(blob.count for layer in learnt for blob in layer.blobs),
}))
"""


@pytest.mark.parametrize("name", nets.NETS)
def test_the_nets_are_those_of_the_papers(name, messages, caffe_python, tmp_path):
    net = text_format.Parse(nets.NETS[name].prototxt(batch=1), messages.new("NetParameter"))
    for layer in net.layer:  # a hundred million random numbers take seconds
        layer.convolution_param.weight_filler.type = "constant"
        layer.inner_product_param.weight_filler.type = "constant"
    path = tmp_path / "net.prototxt"
    path.write_text(text_format.MessageToString(net))
    environment = {**os.environ, "GLOG_minloglevel": "2", "OPENBLAS_NUM_THREADS": "1"}
    command = [*caffe_python.command, "-c", OPEN, str(path)]
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True, cwd=tmp_path
    )
    opened = json.loads(done.stdout)
    assert opened["parameters"] == PARAMETERS[name] == nets.NETS[name].parameters
    shapes = {blob: opened["blobs"][blob] for blob in BLOBS[name]}
    assert shapes == {blob: [1, *shape] for blob, shape in BLOBS[name].items()}


# -- the nets in PyTorch ---------------------------------------------------------------------------


def parameters(layer: dict[str, Any]) -> int:
    """Of a layer of PyTorch, from its arguments."""
    s = layer["settings"]
    if layer["kind"] == "convolution":
        height, width = s["kernel_size"]
        weights = s["in_channels"] // s["groups"] * height * width
        return s["out_channels"] * (weights + (1 if s["bias"] else 0))
    if layer["kind"] == "linear":
        return s["out_features"] * (s["in_features"] + (1 if s["bias"] else 0))
    return 2 * s["channels"] if layer["kind"] == "norm" else 0


@pytest.mark.parametrize("name", nets.NETS)
def test_pytorch_has_the_same_layers(name, messages):
    example = reading.of_text(messages, nets.NETS[name].prototxt(), nets.CLASSES)
    told = example.for_torch()
    assert sum(map(parameters, told["layers"])) == PARAMETERS[name]
    assert told["images"] == [nets.NETS[name].batch, *told["images"][1:]]
    weights = [weight for _, weight in told["losses"]]
    assert weights == pytest.approx([0.3, 0.3, 1] if name == "googlenet" else [1])


@pytest.mark.parametrize(
    ("name", "image", "images", "expected"),
    [
        ("lenet_mnist", (1, 28, 28), [100, 1, 28, 28], 431_080),
        ("cnn3_cifar10", (3, 32, 32), [100, 3, 32, 32], 89_578),
        ("resnet32_cifar10", (3, 32, 32), [128, 3, 32, 32], 464_154),
    ],
)
def test_the_papers_nets_have_their_data_in_memory(name, image, images, expected, messages):
    path = ROOT / "prototxt" / f"{name}_train_test.prototxt"
    example = reading.of_file(messages, path, image, 10)
    kinds = [layer.type for layer in example.net.layer]
    assert kinds[:2] == ["Input", "Input"]
    assert not {"Data", "Accuracy"} & set(kinds)
    assert example.images == images
    assert sum(map(parameters, example.for_torch()["layers"])) == expected


def test_a_layer_without_translation_is_named(messages):
    text = """
        layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [1, 3, 8, 8] } } }
        layer { name: "odd" type: "SPP" bottom: "data" top: "odd" }
    """
    example = reading.of_text(messages, text, 10)
    with pytest.raises(InputError, match="odd: SPP is not translated for PyTorch"):
        example.for_torch()


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pad", "expected"),
    [
        (55, 3, 2, 0, 27),  # windows at 0, 2, ... 52
        (112, 3, 2, 0, 56),  # the last, at 110, has two pixels
        (14, 5, 3, 0, 4),  # at 0, 3, 6, 9
        (4, 2, 2, 1, 3),  # at -1, 1, 3
        (5, 2, 2, 1, 3),  # at -1, 1, 3; one at 5 would begin outside of the image
        (28, 3, 1, 1, 28),
    ],
)
def test_pooled_sizes_are_caffes(size, kernel, stride, pad, expected):
    assert reading._pooled(size, kernel, stride, pad) == expected


# -- figures ---------------------------------------------------------------------------------------

TIMES = {"fast": [1.0, 2.0, 2.0], "stock": [4.0, 4.0, 6.0], "torch": [3.0, 3.0, 3.0]}


def test_ratios_are_those_within_a_round():
    # 4/1, 4/2, 6/2
    assert results.ratios(TIMES, "fast", "stock") == results.Spread(3.0, 2.0, 4.0)
    # 3/1, 3/2, 3/2
    assert results.ratios(TIMES, "fast", "torch") == results.Spread(1.5, 1.5, 3.0)
    assert results.better_ratio(TIMES, "fast", ["stock", "torch"]) == 1.5


def test_means_of_ratios_are_geometric():
    assert results.mean_ratio([0.5, 2.0]) == pytest.approx(1.0)
    assert results.mean_ratio([2.0, 8.0, 4.0]) == pytest.approx(4.0)


def measured(title: str, times: dict[str, list[float]]) -> Measured:
    made = Measured(title, "1 x 3", peaks=dict.fromkeys(times, 5_000_000))
    for name, values in times.items():
        for value in values:
            made.add(name, {"cpu": {"iteration": value}, "wall": {"iteration": 2 * value}})
    return made


def test_a_nets_table():
    assert results.net_rows(measured("Net", TIMES), "fast") == [
        ["Net", "CPU ms", "wall ms", "fast is faster by", "peak MB"],
        ["fast", "2000.0 (1000.0 to 2000.0)", "4000.0", "-", "5"],
        ["stock", "4000.0 (4000.0 to 6000.0)", "8000.0", "3.00 (2.00 to 4.00)", "5"],
        ["torch", "3000.0 (3000.0 to 3000.0)", "6000.0", "1.50 (1.50 to 3.00)", "5"],
    ]


def test_the_summary_takes_the_best_of_each_net():
    other = {"fast": [1.0], "stock": [2.0], "torch": [6.0]}
    lines = results.summary([measured("Net", TIMES), measured("Other", other)], "fast")
    best = math.sqrt(1.5 * 2.0)
    assert lines == [
        f"iteration: fast / stock: {math.sqrt(3.0 * 2.0):.2f}",
        f"iteration: fast / torch: {math.sqrt(1.5 * 6.0):.2f}",
        f"iteration: fast / the best of stock, torch: {best:.2f} (smallest 1.50)",
    ]


def test_other_fast_layers_are_no_peers():
    assert results.peers_of("fast", ["stock", "fast", "fast-avx2", "torch"]) == ["stock", "torch"]


# -- processes -------------------------------------------------------------------------------------


def python(code: str) -> Command:
    serve = f"import sys; sys.path.insert(0, {str(ROOT / 'tools' / 'peersbench')!r})\n"
    return Command("someone", [sys.executable, "-c", serve + code], {})


def contender(code: str, timeout: float = 60.0) -> Contender:
    return Contender(python(code), memory=2 * 10**9, timeout=timeout)


COUNTS = """
import serving
class Work:
    about = {"parameters": 3}
    def run(self, passes, watch):
        for _ in range(passes):
            watch.time("iteration", lambda: sum(range(10**5)))
serving.serve(lambda: ({"version": "1"}, lambda request: Work()))
"""


def test_a_contender_answers_until_the_block_ends():
    with contender(COUNTS) as running:
        assert running.about["version"] == "1"
        assert running.open({"what": "ever"}) == {"parameters": 3}
        told = running.turn(3)
        assert 0 < told["cpu"]["iteration"] < 60
        assert running.peak > running.about["memory"] / 2 > 0
        process = running._process
    assert process.poll() is not None


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("sys.exit('no such luck')", "exit code 1: no such luck"),
        ("import os; os.abort()", "ended by SIGABRT"),
        ("import serving; serving.serve(lambda: 1 / 0)", "ZeroDivisionError: division by zero"),
        ("x = bytearray(3 * 10**9)", "exit code 1: MemoryError"),
    ],
)
def test_what_a_contender_dies_of_is_told(code, words):
    with pytest.raises(ContenderError, match=words):
        contender(code)


def test_a_silent_contender_is_ended():
    with pytest.raises(ContenderError, match=r"no answer within 0.2 s"):
        contender("import time; time.sleep(600)", timeout=0.2)


# -- the tool --------------------------------------------------------------------------------------


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "bench_peers"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_run(library, tmp_path):
    path = tmp_path / "figures.json"
    done = bench(
        *("--nets", "lenet", "--contenders", "stock", "fast", "--rounds", "2"),
        *("--seconds", "0.05", "--json", str(path)),
    )
    assert done.returncode == 0, done.stderr
    assert "iteration: fast / stock: " in done.stdout
    figures = json.loads(path.read_text())
    (net,) = figures["measured"]
    for name in ("stock", "fast"):
        assert len(net["cpu"]["iteration"][name]) == 2
        assert net["peaks"][name] > figures["contenders"][name]["memory"]


def test_a_net_that_does_not_fit_is_skipped(caffe_python):
    done = bench("--nets", "vgg16", "--contenders", "stock", "--memory", "0.5")
    assert done.returncode == 1
    assert "VGG-16, batch 2: skipped: stock: " in done.stderr


@pytest.mark.skipif(
    installed_python() is None, reason="tools/bench_peers has not installed PyTorch"
)
def test_pytorch_runs_the_same(library):
    done = bench("--nets", "cnn3", "--rounds", "1", "--seconds", "0.05")
    assert done.returncode == 0, done.stderr
    done = bench("--shapes", "GoogLeNet 3a 1 x 1", "--rounds", "1")
    assert done.returncode == 0, done.stderr
