"""The solvers and nets in ``solvers/`` and ``prototxt/`` against the paper's tables and Caffe's examples."""

from __future__ import annotations

import base64
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from lrbench_caffe.errors import InputError
from lrbench_caffe.runtime.locate import find_caffe_python

ROOT = Path(__file__).parents[1]
NAMES = ["lenet_mnist", "cnn3_cifar10", "resnet32_cifar10", "lenet_digits"]

# Table II of the paper; the digits are this project's own.
MAX_ITER = {
    "lenet_mnist": 10_000,
    "cnn3_cifar10": 70_000,
    "resnet32_cifar10": 64_000,
    "lenet_digits": 2_000,
}
BATCH = {"lenet_mnist": 100, "cnn3_cifar10": 100, "resnet32_cifar10": 128, "lenet_digits": 50}
OPTIMIZER = {
    "lenet_mnist": "SGD",
    "cnn3_cifar10": "SGD",
    "resnet32_cifar10": "Nesterov",
    "lenet_digits": "SGD",
}
FILLER = {
    "lenet_mnist": "xavier",
    "cnn3_cifar10": "gaussian",
    "resnet32_cifar10": "msra",
    "lenet_digits": "xavier",
}
WEIGHT_DECAY = {
    "lenet_mnist": 0.0005,
    "cnn3_cifar10": 0.004,
    "resnet32_cifar10": 0.0001,
    "lenet_digits": 0.0005,
}

TEST_IMAGES = {
    "lenet_mnist": 10_000,
    "cnn3_cifar10": 10_000,
    "resnet32_cifar10": 10_000,
    "lenet_digits": 500,
}
IMAGE = {
    "lenet_mnist": (1, 28, 28),
    "cnn3_cifar10": (3, 32, 32),
    "resnet32_cifar10": (3, 32, 32),
    "lenet_digits": (1, 8, 8),
}
# Learnable parameters, worked out by hand: weights + biases, layer by layer.
PARAMETERS = {
    # conv 20x1x5x5, conv 50x20x5x5, 800 -> 500, 500 -> 10
    "lenet_mnist": (500 + 20) + (25_000 + 50) + (400_000 + 500) + (5_000 + 10),
    # the same, with 50 maps of 2x2 = 200 -> 500
    "lenet_digits": (500 + 20) + (25_000 + 50) + (100_000 + 500) + (5_000 + 10),
    # conv 32x3x5x5, conv 32x32x5x5, conv 64x32x5x5, 64 maps of 4x4 = 1,024 -> 10
    "cnn3_cifar10": (2_400 + 32) + (25_600 + 32) + (51_200 + 64) + (10_240 + 10),
    # 3x3 convolutions: 3 -> 16; 10 of 16 -> 16; 16 -> 32, 9 of 32 -> 32; 32 -> 64, 9 of 64 -> 64.
    # Scales: 2 per channel of the 11 + 10 + 10 convolutions. 64 -> 10.
    "resnet32_cifar10": 432
    + 10 * 2_304
    + (4_608 + 9 * 9_216)
    + (18_432 + 9 * 36_864)
    + 2 * (11 * 16 + 10 * 32 + 10 * 64)
    + (640 + 10),
}


@pytest.fixture(scope="module")
def messages() -> Any:
    """Caffe's own message classes by name, from the descriptor of the Caffe on this machine."""
    try:
        command = find_caffe_python(None).command
    except InputError as error:
        pytest.skip(str(error))
    code = (
        "import base64; from caffe.proto import caffe_pb2;"
        "print(base64.b64encode(caffe_pb2.DESCRIPTOR.serialized_pb).decode())"
    )
    done = subprocess.run([*command, "-c", code], capture_output=True, text=True, check=True)
    packed = done.stdout.strip().splitlines()[-1]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(packed)))
    return lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}"))


@pytest.fixture
def solver(messages, request):
    path = ROOT / "solvers" / f"{request.param}_solver.prototxt"
    return request.param, text_format.Parse(path.read_text(), messages("SolverParameter")())


@pytest.fixture
def net(messages, request):
    path = ROOT / "prototxt" / f"{request.param}_train_test.prototxt"
    return request.param, text_format.Parse(path.read_text(), messages("NetParameter")())


def load(messages, name: str):
    path = ROOT / "prototxt" / f"{name}_train_test.prototxt"
    return text_format.Parse(path.read_text(), messages("NetParameter")())


def phase(layer) -> str:
    """TRAIN, TEST, or nothing for both."""
    if not layer.include:
        return ""
    field = layer.include[0].DESCRIPTOR.fields_by_name["phase"]
    return field.enum_type.values_by_number[layer.include[0].phase].name


def data_layers(net) -> dict[str, Any]:
    return {phase(layer): layer for layer in net.layer if layer.type == "Data"}


def of_type(net, kind: str) -> list[Any]:
    return [layer for layer in net.layer if layer.type == kind]


@pytest.mark.parametrize("solver", NAMES, indirect=True)
def test_solver_is_table_2(solver):
    name, parameter = solver
    assert parameter.max_iter == MAX_ITER[name]
    assert parameter.type == OPTIMIZER[name]
    assert parameter.momentum == pytest.approx(0.9)
    assert parameter.weight_decay == pytest.approx(WEIGHT_DECAY[name])
    assert parameter.net == f"prototxt/{name}_train_test.prototxt"
    assert parameter.snapshot_prefix == f"snapshots/{name}"
    assert parameter.max_iter % parameter.snapshot == 0
    assert parameter.max_iter % parameter.test_interval == 0
    assert not parameter.HasField("solver_mode")  # so that --gpu decides
    assert not parameter.HasField("random_seed")  # the paper averages over five runs


@pytest.mark.parametrize(
    ("solver", "policy"),
    [
        ("lenet_mnist", ("inv", 0.01, 0.0001, 0.75, [])),
        ("lenet_digits", ("inv", 0.01, 0.0001, 0.75, [])),
        ("cnn3_cifar10", ("multistep", 0.001, 0.1, 0.0, [60_000, 65_000])),
        ("resnet32_cifar10", ("multistep", 0.1, 0.1, 0.0, [32_000, 48_000])),
    ],
    indirect=["solver"],
)
def test_default_policies_are_tables_7_to_9(solver, policy):
    _, parameter = solver
    kind, base_lr, gamma, power, steps = policy
    assert parameter.lr_policy == kind
    assert parameter.base_lr == pytest.approx(base_lr)
    assert parameter.gamma == pytest.approx(gamma)
    assert parameter.power == pytest.approx(power)
    assert list(parameter.stepvalue) == steps


@pytest.mark.parametrize(
    ("solver", "interval"),
    [
        ("lenet_mnist", 500),
        ("cnn3_cifar10", 250),
        ("resnet32_cifar10", 1000),
        ("lenet_digits", 100),
    ],
    indirect=["solver"],
)
def test_test_interval_divides_the_papers_iterations(solver, interval):
    # Their best iterations are multiples: 4,000 and 8,000; 62,250; 53,000.
    assert solver[1].test_interval == interval


@pytest.mark.parametrize("net", NAMES, indirect=True)
def test_batches_and_the_test_set_exactly_once(net, messages):
    name, parameter = net
    path = ROOT / "solvers" / f"{name}_solver.prototxt"
    solver = text_format.Parse(path.read_text(), messages("SolverParameter")())
    data = data_layers(parameter)
    assert data["TRAIN"].data_param.batch_size == BATCH[name]
    assert data["TEST"].data_param.batch_size * solver.test_iter[0] == TEST_IMAGES[name]
    data_set = name.split("_")[1]
    train = "cifar10_pad4" if name == "resnet32_cifar10" else data_set
    assert data["TRAIN"].data_param.source == f"data/{train}_train_lmdb"
    assert data["TEST"].data_param.source == f"data/{data_set}_test_lmdb"


@pytest.mark.parametrize("net", NAMES, indirect=True)
def test_weights_start_as_in_table_2(net):
    name, parameter = net
    layers = of_type(parameter, "Convolution") + of_type(parameter, "InnerProduct")
    settings = [
        layer.convolution_param if layer.type == "Convolution" else layer.inner_product_param
        for layer in layers
    ]
    assert {setting.weight_filler.type for setting in settings} == {FILLER[name]}
    assert {setting.bias_filler.type for setting in settings if setting.bias_term} == {"constant"}


@pytest.mark.parametrize("net", NAMES, indirect=True)
def test_measures(net):
    _, parameter = net
    top1, top5 = of_type(parameter, "Accuracy")
    (loss,) = of_type(parameter, "SoftmaxWithLoss")
    assert (top1.accuracy_param.top_k, top5.accuracy_param.top_k) == (1, 5)
    assert list(top1.bottom) == list(top5.bottom) == list(loss.bottom)
    assert loss.bottom[1] == "label"
    assert phase(top1) == phase(top5) == "TEST"
    assert phase(loss) == ""


def test_cnn3_is_caffes_cifar10_full(messages):
    net = load(messages, "cnn3_cifar10")
    kinds = [
        layer.type
        for layer in net.layer
        if layer.type not in ("Data", "Accuracy", "SoftmaxWithLoss")
    ]
    first = ["Convolution", "Pooling", "ReLU", "LRN"]
    other = ["Convolution", "ReLU", "Pooling"]
    assert kinds == [*first, *other, "LRN", *other, "InnerProduct"]
    convolutions = of_type(net, "Convolution")
    stds = [layer.convolution_param.weight_filler.std for layer in convolutions]
    assert stds == pytest.approx([0.0001, 0.01, 0.01])
    assert [[param.lr_mult for param in layer.param] for layer in convolutions] == [
        [1, 2],
        [1, 2],
        [],
    ]
    (product,) = of_type(net, "InnerProduct")
    assert [(param.lr_mult, param.decay_mult) for param in product.param] == [(1, 250), (2, 0)]
    methods = [layer.pooling_param.pool for layer in of_type(net, "Pooling")]
    assert methods == [0, 1, 1]  # MAX, AVE, AVE
    for layer in of_type(net, "LRN"):
        lrn = layer.lrn_param
        assert (lrn.local_size, lrn.beta, lrn.norm_region) == (3, 0.75, 1)  # 1 is WITHIN_CHANNEL
        assert lrn.alpha == pytest.approx(5e-5)
    for layer in data_layers(net).values():
        assert layer.transform_param.mean_file == "data/cifar10_mean.binaryproto"


def test_resnet_augmentation_and_mean(messages):
    data = data_layers(load(messages, "resnet32_cifar10"))
    train, test = data["TRAIN"].transform_param, data["TEST"].transform_param
    assert (train.crop_size, train.mirror) == (32, True)
    assert (test.crop_size, test.mirror) == (0, False)
    assert (
        list(train.mean_value)
        == list(test.mean_value)
        == pytest.approx([125.307, 122.950, 113.865])
    )


def test_resnet_layers(messages):
    net = load(messages, "resnet32_cifar10")
    convolutions = of_type(net, "Convolution")
    assert len(convolutions) + len(of_type(net, "InnerProduct")) == 32
    assert not any(layer.convolution_param.bias_term for layer in convolutions)
    assert len(of_type(net, "Eltwise")) == 15
    norms, scales = of_type(net, "BatchNorm"), of_type(net, "Scale")
    tops = [layer.top[0] for layer in convolutions]
    # A BatchNorm and a Scale in place behind every convolution.
    assert [layer.bottom[0] for layer in norms] == [layer.bottom[0] for layer in scales] == tops
    assert all(layer.bottom == layer.top for layer in norms + scales)
    assert {tuple((p.lr_mult, p.decay_mult) for p in layer.param) for layer in norms} == {
        ((0, 0),) * 3
    }
    assert all(layer.scale_param.bias_term for layer in scales)
    learnt = {(p.lr_mult, p.decay_mult) for layer in [*convolutions, *scales] for p in layer.param}
    assert learnt == {(1, 1)}


@pytest.mark.parametrize("net", NAMES, indirect=True)
def test_parameter_count(net):
    name, parameter = net
    assert count_parameters(parameter, IMAGE[name]) == PARAMETERS[name]


def test_counts_that_the_files_state(messages):
    assert PARAMETERS["resnet32_cifar10"] == 464_154
    for name in NAMES:
        content = (ROOT / "prototxt" / f"{name}_train_test.prototxt").read_text()
        assert f"{PARAMETERS[name]:,} learnable parameters" in content


def window(size: int, setting, rounding) -> int:
    kernel = setting.kernel_size if isinstance(setting.kernel_size, int) else setting.kernel_size[0]
    stride = setting.stride if isinstance(setting.stride, int) else (setting.stride or [1])[0]
    pad = setting.pad if isinstance(setting.pad, int) else (setting.pad or [0])[0]
    return rounding((size + 2 * pad - kernel) / stride) + 1


def count_parameters(net, image: tuple[int, int, int]) -> int:
    """Learnable parameters of a net: walks its layers with the shape (channels, side) of every blob.

    Caffe rounds the size of a convolution's output down and that of a pooling's up.
    """
    shapes = {"data": (image[0], image[1])}
    total = 0
    for layer in net.layer:
        if layer.type in ("Data", "Accuracy", "SoftmaxWithLoss"):
            continue
        bottoms = [shapes[name] for name in layer.bottom]
        channels, side = bottoms[0]
        if layer.type == "Convolution":
            setting = layer.convolution_param
            kernel = setting.kernel_size[0]
            total += setting.num_output * (channels * kernel * kernel + setting.bias_term)
            shape = setting.num_output, window(side, setting, math.floor)
        elif layer.type == "InnerProduct":
            outputs = layer.inner_product_param.num_output
            total += outputs * (channels * side * side + 1)
            shape = outputs, 1
        elif layer.type == "Pooling":
            whole = layer.pooling_param.global_pooling
            shape = channels, 1 if whole else window(side, layer.pooling_param, math.ceil)
        elif layer.type == "Concat":
            shape = sum(count for count, _ in bottoms), side
        else:
            assert layer.type in ("ReLU", "LRN", "BatchNorm", "Scale", "Eltwise", "Power")
            assert len(set(bottoms)) == 1, f"{layer.name}: {bottoms}"
            total += 2 * channels if layer.type == "Scale" else 0
            shape = channels, side
        shapes[layer.top[0]] = shape
    return total


def make_resnet(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "tools" / "make_resnet"), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_resnet_file_is_current():
    path = ROOT / "prototxt" / "resnet32_cifar10_train_test.prototxt"
    done = make_resnet("--depth", "32", "--check", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert make_resnet("--depth", "32").stdout == path.read_text()


def test_check_finds_an_outdated_file(tmp_path):
    (tmp_path / "old").write_text("old")
    done = make_resnet("--depth", "32", "--check", str(tmp_path / "old"))
    assert done.returncode == 1
    assert "is not what tools/make_resnet writes" in done.stderr


@pytest.mark.parametrize(
    ("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)]
)
def test_other_depths_have_the_parameters_of_he_et_al(messages, depth, millions):
    # He et al. (2015), Table 6: millions with two digits, 1.7 for 110.
    net = text_format.Parse(make_resnet("--depth", str(depth)).stdout, messages("NetParameter")())
    assert round(count_parameters(net, (3, 32, 32)) / 1e6, 1 if depth == 110 else 2) == millions
    assert len(of_type(net, "Convolution")) + 1 == depth


def test_classes(messages):
    net = text_format.Parse(
        make_resnet("--depth", "20", "--classes", "100").stdout, messages("NetParameter")()
    )
    assert of_type(net, "InnerProduct")[0].inner_product_param.num_output == 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--depth", "33"], r"33 is not 6n \+ 2"),
        (["--depth", "2"], r"2 is not 6n \+ 2"),
        (["--depth", "deep"], r"deep is not 6n \+ 2"),
        (["--depth", "20", "--classes", "3"], "3 is not a whole number of at least 5"),
        (["--depth", "20", "--check", "nowhere"], "--check nowhere: No such file"),
    ],
)
def test_generator_errors(arguments, message):
    done = make_resnet(*arguments)
    assert done.returncode == 2
    assert re.search(message, done.stderr)
