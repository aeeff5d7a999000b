"""Nets and solvers for the comparison with ``caffe train``: every layer type, solver field and data layer.

A case is a solver and a net, as prototxt, in a folder with the digits' LMDBs and ``write_files``'s
files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import h5py
import lmdb
import numpy as np
from PIL import Image

from lrbench_caffe.datasets.datum import mean_bytes
from lrbench_caffe.datasets.lmdb_writer import write_lmdb
from tests.caffe import nets

SOLVER = {
    "net": '"net.prototxt"',
    "test_iter": 2,
    "test_interval": 3,
    "max_iter": 6,
    "base_lr": 0.01,
    "momentum": 0.9,
    "weight_decay": 0.0005,
    "lr_policy": '"fixed"',
    "random_seed": 7,
    "display": 1,
    "snapshot": 3,
    "snapshot_prefix": '"snap"',
}


@dataclass(frozen=True)
class Case:
    """What is trained, and how it ends on real Caffe.

    Attributes:
        net: the net's prototxt; None where the solver holds it.
        solver: fields over those of ``SOLVER``; None leaves one out.
        text: the whole solver's prototxt instead.
        refused: whether ``caffe train`` aborts.
        resumed: whether the training in two parts is compared with the whole one, too.
        flags: of both programs.
    """

    net: str | None = None
    solver: dict[str, object] = field(default_factory=dict)
    text: str | None = None
    refused: bool = False
    resumed: bool = False
    flags: tuple[str, ...] = ()

    @property
    def solver_text(self) -> str:
        if self.text is not None:
            return self.text
        lines = []
        for name, value in {**SOLVER, **self.solver}.items():
            values = value if isinstance(value, list) else [value]
            lines += [f"{name} {item}" if str(item).startswith("{") else f"{name}: {item}"
                      for item in values if item is not None]  # fmt: skip
        return "\n".join(lines) + "\n"


# -- files -----------------------------------------------------------------------------------------


def write_files(folder: Path) -> None:
    """Small data of every form that this Caffe reads. ``folder`` has the digits in data/."""
    random = np.random.default_rng(3)
    rows = random.normal(size=(30, 6)).astype(np.float32)
    labels = (np.arange(30) % 10).astype(np.float32)
    for name, half in (("a", slice(0, 14)), ("b", slice(14, 30))):
        with h5py.File(folder / f"{name}.h5", "w", libver="earliest") as file:
            file["data"], file["label"] = rows[half], labels[half]
    (folder / "hdf5.txt").write_text("a.h5\nb.h5\n")
    (folder / "images").mkdir()
    for number in range(12):
        pixels = random.integers(0, 256, (10, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    lines = [f"{number}.png {number % 10}\n" for number in range(12)]
    (folder / "images.txt").write_text("".join(f"images/{line}" for line in lines))
    (folder / "names.txt").write_text("".join(lines))
    windows = "".join(
        f"# {n}\nimages/{n}.png\n3\n10\n12\n2\n{n % 9 + 1} 0.9 0 0 8 8\n0 0.1 2 2 9 9\n"
        for n in range(12)
    )
    (folder / "windows.txt").write_text(windows)
    mean = np.full((1, 8, 8), 3, np.float32)
    (folder / "mean.binaryproto").write_bytes(mean_bytes(mean))
    (folder / "infogain.binaryproto").write_bytes(mean_bytes(np.eye(10, dtype=np.float32)[None]))
    small = random.integers(0, 256, (9, 1, 6, 6), dtype=np.uint8)
    write_lmdb(folder / "small_lmdb", small, np.arange(9) % 10, (1, 6, 6))
    maps = random.integers(0, 4, (9, 1, 6, 6), dtype=np.uint8)
    write_lmdb(folder / "maps_lmdb", maps, np.zeros(9, np.uint8), (1, 6, 6))
    (folder / "not_lmdb").mkdir()
    environment = lmdb.open(str(folder / "empty_lmdb"))
    environment.close()
    (folder / "mapped.py").write_text(PYTHON_LAYER)


PYTHON_LAYER = """
import caffe
import numpy as np


class Rows(caffe.Layer):
    def setup(self, bottom, top):
        self.count = 0

    def reshape(self, bottom, top):
        top[0].reshape(4, 6)
        top[1].reshape(4)

    def forward(self, bottom, top):
        self.count += 1
        top[0].data[...] = np.sin(self.count + np.arange(24)).reshape(4, 6)
        top[1].data[...] = (self.count + np.arange(4)) % 10

    def backward(self, top, propagate_down, bottom):
        pass


class Twice(caffe.Layer):
    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = 2 * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            bottom[0].diff[...] = 2 * top[0].diff
"""


# -- layers ----------------------------------------------------------------------------------------


def layer(kind: str, bottom: str, top: str, more: str = "") -> str:
    """A layer; its bottoms and tops are words."""
    bottoms = " ".join(f'bottom: "{name}"' for name in bottom.split())
    tops = " ".join(f'top: "{name}"' for name in top.split())
    name = (top or bottom).split()[0]
    return f'\nlayer {{ name: "{name}_{kind}" type: "{kind}" {bottoms} {tops} {more} }}'


def dummy(name: str, shape: str, filler: str) -> str:
    dims = " ".join(f"dim: {size}" for size in shape.split())
    return layer(
        "DummyData",
        "",
        name,
        f"dummy_data_param {{ shape {{ {dims} }} data_filler {{ {filler} }} }}",
    )


def constant(name: str, shape: str, value: float) -> str:
    return dummy(name, shape, f'type: "constant" value: {value}')


def noise(name: str, shape: str) -> str:
    """Random numbers, drawn anew for every batch."""
    return dummy(name, shape, 'type: "gaussian" std: 1')


def digits(transform: str = "") -> str:
    return nets.data_layer("TRAIN", batch=4, transform=transform) + nets.data_layer("TEST", batch=4)


def scores(bottom: str = "x") -> str:
    return nets.inner_product("ip2", bottom, 10)


CONV = layer(
    "Convolution", "data", "conv",
    'convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } }',
)  # fmt: skip
TEST_ONLY = "include { phase: TEST }"


def net(middle: str, last: str | None = None, data: str | None = None) -> str:
    """Digits, the middle, and loss and accuracies of the scores in ip2."""
    return f'name: "case"{data or digits()}{middle}{last or nets.ends()}'


def between(kind: str, more: str = "", bottom: str = "conv") -> str:
    """One layer of a type between a convolution and the scores."""
    return net(CONV + layer(kind, bottom, "x", more) + scores())


def rows(loss: str, more: str = "", target: str = "4 3") -> str:
    """A net without classes: random rows, three outputs, a loss."""
    data = noise("data", "4 6") + noise("target", target)
    return (
        'name: "rows"'
        + data
        + nets.inner_product("ip", "data", 3)
        + layer(loss, "ip target", "loss", more)
    )


def sequence(kind: str) -> str:
    fillers = 'weight_filler { type: "xavier" } bias_filler { type: "constant" }'
    data = noise("sequence", "3 4 5") + constant("cont", "3 4", 1) + noise("target", "3 4 4")
    recurrent = layer(kind, "sequence cont", "x", f"recurrent_param {{ num_output: 4 {fillers} }}")
    return 'name: "sequence"' + data + recurrent + layer("EuclideanLoss", "x target", "loss")


LSTM_UNIT = (
    'name: "unit"'
    + noise("c0", "1 4 3") + noise("g0", "1 4 12") + constant("cont", "1 4", 1) + noise("target", "4 2")
    + layer("LSTMUnit", "c0 g0 cont", "c1 h1")
    + layer("Reshape", "h1", "flat", "reshape_param { shape { dim: 4 dim: 3 } }")
    + nets.inner_product("ip", "flat", 2)
    + layer("EuclideanLoss", "ip target", "loss")
)  # fmt: skip
POOLED = layer("Pooling", "conv", "small", "pooling_param { kernel_size: 2 stride: 2 }")
PROBABILITIES = layer("Softmax", "ip2", "prob")
HINGE = layer("HingeLoss", "ip2 label", "loss", "hinge_loss_param { norm: L2 }")
ACCURACY = layer("Accuracy", "ip2 label", "accuracy", TEST_ONLY)

LAYERS = {
    "AbsVal": Case(between("AbsVal")),
    "ArgMax": Case(
        net(CONV + scores("conv"), nets.ends() + layer("ArgMax", "ip2", "best", TEST_ONLY))
    ),
    "BNLL": Case(between("BNLL")),
    "BatchNorm": Case(between("BatchNorm"), resumed=True),
    "BatchNorm, without display": Case(between("BatchNorm"), {"display": 0}),
    "BatchReindex": Case(
        net(CONV + constant("order", "4", 2) + layer("BatchReindex", "conv order", "x") + scores())
    ),
    "Bias": Case(between("Bias")),
    "Clip": Case(between("Clip", "clip_param { min: -0.5 max: 0.5 }")),
    "Concat": Case(net(CONV + layer("Concat", "conv conv", "x") + scores())),
    "Convolution, groups and dilation": Case(
        between(
            "Convolution",
            "convolution_param { num_output: 4 group: 2 kernel_h: 3 kernel_w: 1 pad: 2 dilation: 2 stride: 2 "
            "bias_term: false }",
        )
    ),
    "Crop": Case(
        net(
            CONV
            + POOLED
            + layer("Crop", "conv small", "x", "crop_param { axis: 2 offset: 1 }")
            + scores()
        )
    ),
    "Deconvolution": Case(
        between(
            "Deconvolution",
            'convolution_param { num_output: 2 kernel_size: 2 stride: 2 weight_filler { type: "bilinear" } }',
        )
    ),
    "Dropout": Case(between("Dropout", "dropout_param { dropout_ratio: 0.3 }"), resumed=True),
    "ELU": Case(between("ELU", "elu_param { alpha: 0.5 }")),
    "Eltwise": Case(
        net(
            CONV
            + layer("AbsVal", "conv", "other")
            + layer("Eltwise", "conv other", "x", "eltwise_param { coeff: 1 coeff: -0.5 }")
            + scores()
        )
    ),
    "Embed": Case(
        net(
            layer(
                "Embed",
                "label",
                "x",
                'embed_param { input_dim: 10 num_output: 3 weight_filler { type: "uniform" } }',
            )
            + scores(),
            nets.ends() + layer("Silence", "data", ""),
        )
    ),
    "Exp and Log": Case(
        net(
            CONV
            + layer("Exp", "conv", "e", "exp_param { base: 2 scale: 0.1 }")
            + layer("Log", "e", "x", "log_param { shift: 1 }")
            + scores()
        )
    ),
    "Filter": Case(
        net(
            CONV
            + constant("chosen", "4 1 1 1", 1)
            + layer("Filter", "conv label chosen", "x y")
            + scores(),
            layer("SoftmaxWithLoss", "ip2 y", "loss", "propagate_down: true propagate_down: false"),
        )
    ),
    "Flatten": Case(between("Flatten")),
    "HDF5Output": Case(
        net(
            CONV + scores("conv"),
            nets.ends()
            + layer(
                "HDF5Output",
                "ip2 label",
                "",
                TEST_ONLY + ' hdf5_output_param { file_name: "out.h5" }',
            ),
        ),
        {
            "test_iter": 1,
            "test_interval": 6,
            "test_initialization": "false",
        },  # it can be written once
    ),
    "Im2col": Case(between("Im2col", "convolution_param { kernel_size: 2 }")),
    "InnerProduct, transposed": Case(
        between(
            "InnerProduct",
            'inner_product_param { num_output: 5 transpose: true weight_filler { type: "msra" } }',
        )
    ),
    "LRN": Case(between("LRN", "lrn_param { local_size: 3 }")),
    "LRN, within channel": Case(
        between("LRN", "lrn_param { local_size: 3 norm_region: WITHIN_CHANNEL }")
    ),
    "LSTM": Case(sequence("LSTM"), {"test_iter": 1}),
    "LSTMUnit": Case(LSTM_UNIT),
    "MVN": Case(between("MVN", "mvn_param { normalize_variance: true }")),
    "PReLU": Case(between("PReLU")),
    "Parameter": Case(
        net(
            CONV
            + layer(
                "Parameter",
                "",
                "weights",
                "parameter_param { shape { dim: 4 dim: 4 dim: 6 dim: 6 } }",
            )
            + layer("Eltwise", "conv weights", "x")
            + scores()
        )
    ),
    "Pooling, average": Case(
        between("Pooling", "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }")
    ),
    "Pooling, global": Case(between("Pooling", "pooling_param { pool: MAX global_pooling: true }")),
    "Pooling, stochastic": Case(
        net(
            CONV
            + nets.relu("conv")
            + layer(
                "Pooling",
                "conv",
                "x",
                "pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }",
            )
            + scores()
        ),
        refused=True,  # on the CPU
    ),
    "Power": Case(between("Power", "power_param { power: 2 scale: 0.5 shift: 1 }")),
    "Python": Case(between("Python", 'python_param { module: "mapped" layer: "Twice" }')),
    "RNN": Case(sequence("RNN"), {"test_iter": 1}),
    "ReLU, leaky": Case(between("ReLU", "relu_param { negative_slope: 0.1 }")),
    "Reduction": Case(between("Reduction", "reduction_param { operation: MEAN axis: 2 }")),
    "Reshape": Case(between("Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: 1 dim: 1 } }")),
    "SPP": Case(between("SPP", "spp_param { pyramid_height: 2 }")),
    "Scale": Case(between("Scale", "scale_param { bias_term: true }")),
    "Sigmoid": Case(between("Sigmoid")),
    "Silence": Case(net(CONV + POOLED + layer("Silence", "small", "") + scores("conv"))),
    "Slice": Case(
        net(
            CONV
            + layer("Slice", "conv", "x y", "slice_param { slice_point: 1 }")
            + layer("Silence", "y", "")
            + scores()
        )
    ),
    "Softmax": Case(between("Softmax")),
    "Split": Case(
        net(CONV + layer("Split", "conv", "a b") + layer("Eltwise", "a b", "x") + scores())
    ),
    "Swish": Case(between("Swish", "swish_param { beta: 2 }")),
    "TanH": Case(between("TanH")),
    "Threshold": Case(
        net(layer("Threshold", "data", "x", "threshold_param { threshold: 0.1 }") + scores())
    ),
    "Tile": Case(between("Tile", "tile_param { axis: 1 tiles: 2 }")),
}

PAIRS = noise("one", "4 3") + noise("two", "4 3") + constant("same", "4", 1)
PAIR_ENDS = (
    nets.inner_product("ip1", "one", 2, 'param { name: "w" } param { name: "b" }')
    + nets.inner_product("ip2", "two", 2, 'param { name: "w" } param { name: "b" }')
)  # fmt: skip
LOSSES = {
    "ContrastiveLoss": Case(
        f'name: "siamese"{PAIRS}{PAIR_ENDS}' + layer("ContrastiveLoss", "ip1 ip2 same", "loss")
    ),
    "EuclideanLoss": Case(rows("EuclideanLoss"), resumed=True),
    "EuclideanLoss, a weight of 0.5": Case(rows("EuclideanLoss", "loss_weight: 0.5")),
    "HingeLoss": Case(net(CONV + scores("conv"), HINGE + ACCURACY)),
    "InfogainLoss": Case(
        net(
            CONV + scores("conv"),
            ACCURACY
            + layer(
                "InfogainLoss",
                "ip2 label",
                "loss",
                'infogain_loss_param { source: "infogain.binaryproto" }',
            ),
        )
    ),
    "MultinomialLogisticLoss": Case(
        net(
            CONV + scores("conv") + PROBABILITIES,
            layer("Accuracy", "prob label", "accuracy", TEST_ONLY)
            + layer("MultinomialLogisticLoss", "prob label", "loss"),
        )
    ),
    "SigmoidCrossEntropyLoss": Case(rows("SigmoidCrossEntropyLoss")),
    "SoftmaxWithLoss, two tops": Case(
        net(CONV + scores("conv"), ACCURACY + layer("SoftmaxWithLoss", "ip2 label", "loss prob")),
        refused=True,  # one loss weight for two tops, says Caffe; two are too many for the softmax inside
    ),
    "SoftmaxWithLoss, ignored label": Case(
        net(
            CONV + scores("conv"),
            layer(
                "Accuracy",
                "ip2 label",
                "accuracy",
                TEST_ONLY + " accuracy_param { ignore_label: 3 }",
            )
            + layer("SoftmaxWithLoss", "ip2 label", "loss", "loss_param { ignore_label: 3 }"),
        )
    ),
    "Accuracy, for each class": Case(
        net(
            CONV + scores("conv"),
            layer("Accuracy", "ip2 label", "accuracy each", TEST_ONLY)
            + layer("SoftmaxWithLoss", "ip2 label", "loss"),
        )
    ),
    "two heads": Case(
        net(
            CONV + scores("conv") + nets.inner_product("aux", "data", 10),
            layer("SoftmaxWithLoss", "aux label", "aux_loss", "loss_weight: 1")
            + layer("SoftmaxWithLoss", "ip2 label", "loss")
            + ACCURACY,
        )
    ),
    "per pixel": Case(
        net(
            CONV,
            layer("SoftmaxWithLoss", "conv map", "loss")
            + layer("Accuracy", "conv map", "accuracy", TEST_ONLY),
            data=noise("data", "2 1 6 6") + constant("map", "2 1 4 4", 2),
        )
    ),
    "no loss in the test net": Case(
        net(
            CONV + scores("conv"),
            ACCURACY + layer("SoftmaxWithLoss", "ip2 label", "loss", "include { phase: TRAIN }"),
        )
    ),
}

# -- data ------------------------------------------------------------------------------------------


def fed(data: str) -> str:
    """Any data of 10 classes, straight into the scores."""
    return net(scores("data"), data=data)


def source(kind: str, more: str) -> str:
    return layer(kind, "", "data label", more)


def hdf5(more: str) -> str:
    return source("HDF5Data", f"hdf5_data_param {{ batch_size: 4 {more} }}")


def python(module: str) -> str:
    return source("Python", f'python_param {{ module: "{module}" layer: "Rows" }}')


def lmdb_train(folder: str) -> str:
    """The training data in a folder, the tests on digits."""
    return nets.data_layer("TRAIN", source=folder) + nets.data_layer("TEST")


def images(more: str, transform: str = "") -> str:
    return source(
        "ImageData",
        f"image_data_param {{ batch_size: 5 {more} }} transform_param {{ {transform} }}",
    )


def lmdb_layer(name: str, folder: str, batch: int = 2, more: str = "") -> str:
    parameters = f'data_param {{ source: "{folder}" batch_size: {batch} backend: LMDB }}'
    return layer("Data", "", name, f"{parameters} {more}")


SCALED = "transform_param { scale: 0.01 }"
POINTWISE = CONV.replace("kernel_size: 3", "kernel_size: 1")
MAP_LOSS = layer("SoftmaxWithLoss", "conv map", "loss")
MAP_ENDS = MAP_LOSS + layer("Accuracy", "conv map", "accuracy", TEST_ONLY)
GLOBAL = layer("Pooling", "conv", "x", "pooling_param { pool: AVE global_pooling: true }")

DATA = {
    "Data": Case(fed(digits()), resumed=True),
    "Data, crop and mirror": Case(
        fed(nets.data_layer("TRAIN", batch=4, transform="crop_size: 6 mirror: true")
            + nets.data_layer("TEST", batch=4, transform="crop_size: 6")),
        resumed=True,
    ),
    "Data, mean file": Case(fed(digits('mean_file: "mean.binaryproto"'))),
    "Data, mean value": Case(fed(digits("mean_value: 3"))),
    "Data, other sizes in the test net": Case(
        net(
            CONV + GLOBAL + scores(),
            data=nets.data_layer("TRAIN", batch=4) + nets.data_layer("TEST", batch=4, source="small_lmdb"),
        )
    ),
    "Data, images and labels in two LMDBs": Case(
        net(
            POINTWISE, MAP_ENDS,
            data=lmdb_layer("map", "maps_lmdb") + lmdb_layer("data", "small_lmdb", more=SCALED),
        ),
        resumed=True,
    ),
    "Data, two layers of one name": Case(
        net(
            POINTWISE, MAP_LOSS,
            data=lmdb_layer("data", "small_lmdb", more=SCALED)
            + lmdb_layer("map", "maps_lmdb").replace("map_Data", "data_Data"),
        ),
        resumed=True,
    ),
    "DummyData": Case(fed(noise("data", "4 6") + constant("label", "4", 3)), resumed=True),
    "HDF5Data": Case(fed(hdf5('source: "hdf5.txt"')), resumed=True),
    "HDF5Data, shuffled": Case(
        fed(hdf5('source: "hdf5.txt" shuffle: true')),
        resumed=True,
    ),
    "ImageData": Case(fed(images('source: "images.txt"', "scale: 0.01")), resumed=True),
    "ImageData, shuffled, resized, grey": Case(
        fed(images('source: "names.txt" root_folder: "images/" shuffle: true new_height: 6 new_width: 7 '
                   "is_color: false", "scale: 0.01")),
        resumed=True,
    ),
    "Input": Case(
        'name: "input"'
        + layer("Input", "", "data label", "input_param { shape { dim: 4 dim: 6 } shape { dim: 4 } }")
        + scores("data") + nets.ends(),
    ),
    "Input, of the net": Case(
        'name: "input" input: "data" input_shape { dim: 4 dim: 6 } input: "label" input_shape { dim: 4 }'
        + scores("data") + nets.ends(),
    ),
    "MemoryData": Case(
        fed(source("MemoryData", "memory_data_param { batch_size: 4 channels: 1 height: 2 width: 3 }")),
        refused=True,
    ),
    "Python": Case(fed(python("mapped")), resumed=True),
    "WindowData": Case(
        fed(source("WindowData",
                   'window_data_param { source: "windows.txt" batch_size: 4 } '
                   "transform_param { crop_size: 5 scale: 0.01 }")),
    ),
}  # fmt: skip

# -- solver ----------------------------------------------------------------------------------------

SMALL = fed(digits())
TRAIN_PART, TEST_PART = (
    'name: "part"' + nets.data_layer(phase, batch=4) + scores("data") + nets.ends()
    for phase in ("TRAIN", "TEST")
)
STAGED = net(
    CONV + layer("TanH", "conv", "conv", 'include { stage: "tanh" }')
    + layer("Sigmoid", "conv", "conv", "include { min_level: 2 }")
    + scores("conv")
)  # fmt: skip

SHARED = 'param { name: "w" lr_mult: 2 decay_mult: 0 } param { name: "b" }'

FIELDS = {
    "net_param": Case(solver={"net": None, "net_param": "{ " + SMALL + " }"}),
    "train_net and test_net": Case(
        solver={"net": None, "train_net": '"train.prototxt"', "test_net": '"test.prototxt"'}
    ),
    "train_net_param and test_net_param": Case(
        solver={"net": None, "train_net_param": f"{{ {TRAIN_PART} }}", "test_net_param": f"{{ {TEST_PART} }}"}
    ),
    "a net and a test_net": Case(SMALL, {"test_net": '"test.prototxt"', "test_iter": [2, 1]}),
    "train_state and test_state": Case(
        STAGED, {"train_state": '{ stage: "tanh" level: 2 }', "test_state": '{ stage: "tanh" }'}
    ),
    "a stage without a name": Case(
        net(
            CONV + layer("TanH", "conv", "conv", 'include { stage: "" }')
            + layer("Sigmoid", "conv", "conv", 'exclude { stage: "" }')
            + scores("conv")
        )
    ),
    "a net with a state of its own": Case(
        STAGED + 'state { stage: "tanh" level: 2 }', {"train_state": '{ stage: "other" }'}
    ),
    "a training net in the phase TEST": Case(SMALL + "state { phase: TEST }"),
    "flags --stage and --level": Case(STAGED, flags=("--stage=tanh", "--level=2")),
    "test_compute_loss": Case(SMALL, {"test_compute_loss": "true"}),
    "test_initialization": Case(SMALL, {"test_initialization": "false"}),
    "average_loss": Case(SMALL, {"average_loss": 3}),
    "iter_size": Case(SMALL, {"iter_size": 2}, resumed=True),
    "display": Case(SMALL, {"display": 4}),
    "max_iter that no interval divides": Case(SMALL, {"max_iter": 7, "display": 2, "test_interval": 4}),
    "without max_iter": Case(SMALL, {"max_iter": None}),
    "without tests": Case(SMALL, {"test_iter": None, "test_interval": None}),
    "test_iter 0": Case(SMALL, {"test_iter": 0}),
    "step": Case(SMALL, {"lr_policy": '"step"', "gamma": 0.5, "stepsize": 2}, resumed=True),
    "exp": Case(SMALL, {"lr_policy": '"exp"', "gamma": 0.9}),
    "inv": Case(SMALL, {"lr_policy": '"inv"', "gamma": 0.1, "power": 0.75}),
    "multistep": Case(SMALL, {"lr_policy": '"multistep"', "gamma": 0.5, "stepvalue": [2, 4]}, resumed=True),
    "poly": Case(SMALL, {"lr_policy": '"poly"', "power": 0.9}),
    "sigmoid": Case(SMALL, {"lr_policy": '"sigmoid"', "gamma": 0.5, "stepsize": 3}),
    "negative base_lr": Case(SMALL, {"base_lr": -0.001}),
    "without base_lr": Case(SMALL, {"base_lr": None}),
    "momentum 1": Case(SMALL, {"momentum": 1}),
    "without momentum": Case(SMALL, {"momentum": None}),
    "L1": Case(SMALL, {"regularization_type": '"L1"'}),
    "clip_gradients": Case(SMALL, {"clip_gradients": 0.1}),
    "HDF5 snapshots": Case(SMALL, {"snapshot_format": "HDF5"}, resumed=True),
    "snapshot_diff": Case(SMALL, {"snapshot_diff": "true"}),
    "without snapshot_after_train": Case(SMALL, {"snapshot_after_train": "false", "snapshot": None}),
    "solver_mode": Case(SMALL, {"solver_mode": "CPU"}),
    "device_id": Case(SMALL, {"device_id": 0, "solver_mode": "CPU"}),
    "without random_seed": Case(net(scores("data").replace("xavier", "constant")), {"random_seed": None}),
    "a large random_seed": Case(SMALL, {"random_seed": 4294967297}),
    "debug_info": Case(SMALL, {"debug_info": "true"}),
    "layer_wise_reduce": Case(SMALL, {"layer_wise_reduce": "false"}),
    "weights": Case(SMALL, {"weights": '"start.caffemodel"'}),
    "solver_type": Case(SMALL, {"solver_type": "NESTEROV"}),
    "Nesterov": Case(SMALL, {"type": '"Nesterov"'}, resumed=True),
    "AdaGrad": Case(SMALL, {"type": '"AdaGrad"', "momentum": None, "delta": 0.001}),
    "RMSProp": Case(SMALL, {"type": '"RMSProp"', "momentum": None, "rms_decay": 0.9}),
    "AdaDelta": Case(SMALL, {"type": '"AdaDelta"', "delta": 1e-6}),
    "Adam": Case(SMALL, {"type": '"Adam"', "momentum2": 0.99}, resumed=True),
    "shared parameters and multipliers": Case(
        net(
            nets.inner_product("ip1", "data", 64, SHARED)
            + nets.inner_product("ip1b", "ip1", 64, 'param { name: "w" } param { name: "b" }')
            + scores("ip1b")
        )
    ),
    "a frozen layer": Case(
        net(CONV.replace("convolution_param", "param { lr_mult: 0 } convolution_param") + scores("conv"))
    ),
    "two tests of one net": Case(SMALL, {"test_iter": [2, 1]}),
}  # fmt: skip

# -- what the text format allows -------------------------------------------------------------------

PLAIN = Case(SMALL).solver_text


def text(**changes: str) -> Case:
    """The plain solver with fields written in another way."""
    lines = []
    for line in PLAIN.splitlines():
        name = line.partition(":")[0]
        lines.append(changes.get(name, line))
    return Case(SMALL, text="\n".join(lines) + "\n")


def refused(case: Case) -> Case:
    return Case(case.net, case.solver, case.text, refused=True)


TEXT = {
    "comments in another encoding": Case(SMALL, text="# \udcc4\udce3\udcba\udcc3\n" + PLAIN),
    "a sign apart": text(base_lr="base_lr: - 5e-3"),
    "a bool with a leading zero": text(display="display: 1 debug_info: 01"),
    "hexadecimal and octal": text(random_seed="random_seed: 0x7", max_iter="max_iter: 06"),
    "a float with f": text(base_lr="base_lr: 1e-2f"),
    "strings side by side": text(net="net: 'net.' \"prototxt\"; "),
    "angle brackets": text(display="display: 1 train_state < level: 0 >,"),
    "an underscore in a number": refused(text(max_iter="max_iter: 4_0")),
    "a plus sign": refused(text(max_iter="max_iter: +5")),
    "binary": refused(text(max_iter="max_iter: 0b101")),
    "Python's octal": refused(text(max_iter="max_iter: 0o5")),
    "a byte order mark": refused(Case(SMALL, text="\ufeff" + PLAIN)),
    "an unknown field": refused(text(display="dispaly: 1")),
    "a number that is too large": refused(text(max_iter="max_iter: 4294967296")),
    "a required string as a number": refused(text(lr_policy="lr_policy: 3")),
    "a field twice": refused(text(display="display: 1 display: 1")),
    "an end that is missing": refused(text(display="train_state { level: 0")),
}

REFUSED = {
    "an unknown layer type": Case(net(layer("Convolve", "data", "x") + scores())),
    "an unknown bottom": Case(net(scores("nothing"))),
    "a top twice": Case(net(CONV + layer("AbsVal", "data", "conv") + scores("conv"))),
    "a kernel that is too large": Case(net(CONV.replace("size: 3", "size: 9") + scores("conv"))),
    "an LMDB that is missing": Case(fed(lmdb_train("no_lmdb"))),
    "a folder without an LMDB": Case(fed(lmdb_train("not_lmdb"))),
    "a list that is missing": Case(fed(hdf5('source: "no.txt"'))),
    "a crop that is too large": Case(fed(digits("crop_size: 9"))),
    "a mean of another size": Case(
        fed(nets.data_layer("TRAIN", source="small_lmdb", batch=2, transform='mean_file: "mean.binaryproto"')
            + nets.data_layer("TEST"))
    ),
    "an unknown lr_policy": Case(SMALL, {"lr_policy": '"cosine"'}),
    "an unknown type": Case(SMALL, {"type": '"Adagrad"'}),
    "type and solver_type": Case(SMALL, {"type": '"Adam"', "solver_type": "ADAM"}),
    "two nets": Case(SMALL, {"train_net": '"train.prototxt"'}),
    "no net": Case(solver={"net": None}),
    "a net that is missing": Case(solver={"net": '"no.prototxt"'}),
    "test_iter without test_interval": Case(SMALL, {"test_interval": None}),
    "too few test_iter": Case(SMALL, {"test_net": '["test.prototxt", "test.prototxt"]'}),
    "a test_state too many": Case(SMALL, {"test_state": ["{ level: 0 }", "{ level: 1 }"]}),
    "an unknown regularization_type": Case(SMALL, {"regularization_type": '"L3"'}),
    "AdaGrad with momentum": Case(SMALL, {"type": '"AdaGrad"'}),
    "a prefix that cannot be written": Case(SMALL, {"snapshot_prefix": '"net.prototxt/snap"'}),
    "weights that are missing": Case(SMALL, {"weights": '"no.caffemodel"'}),
    "labels of another number": Case(
        net(scores("data"), data=noise("data", "4 6") + constant("label", "3", 1))
    ),
    "an Eltwise of two shapes": Case(net(CONV + layer("Eltwise", "conv data", "x") + scores())),
    "a module that is missing": Case(fed(python("absent"))),
}  # fmt: skip

CASES = {
    f"{group}: {name}": case
    for group, cases in (
        ("layer", LAYERS),
        ("loss", LOSSES),
        ("data", DATA),
        ("solver", FIELDS),
        ("text", TEXT),
        ("refused", {name: refused(case) for name, case in REFUSED.items()}),
    )
    for name, case in cases.items()
}
