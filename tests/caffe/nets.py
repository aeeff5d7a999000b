"""Small nets and solvers on the digits, as prototxt."""

from __future__ import annotations

# Fields that a solver has unless a test says otherwise.
SOLVER = {
    "net": '"net.prototxt"',
    "test_iter": "5",
    "test_interval": "50",
    "max_iter": "100",
    "base_lr": "0.05",
    "momentum": "0.9",
    "weight_decay": "0.0005",
    "lr_policy": '"inv"',
    "gamma": "0.01",
    "power": "0.75",
    "random_seed": "7",
    "display": "10",
    "snapshot_prefix": '"tiny"',
}


def solver(**fields: object) -> str:
    """A solver.prototxt; ``fields`` as prototxt values, a list for a repeated one, None to leave one out."""
    lines = []
    for name, value in {**SOLVER, **fields}.items():
        values = value if isinstance(value, list) else [value]
        lines += [f"{name}: {item}" for item in values if item is not None]
    return "\n".join(lines) + "\n"


def policy(name: str, **fields: object) -> str:
    """A solver.prototxt with this lr_policy and only the fields that belong to it."""
    return solver(**{"lr_policy": f'"{name}"', "gamma": None, "power": None, **fields})


def data_layer(
    phase: str, *, source: str | None = None, batch: int = 20, transform: str = ""
) -> str:
    folder = source or f"data/digits_{phase.lower()}_lmdb"
    return f"""
layer {{
  name: "digits" type: "Data" top: "data" top: "label"
  include {{ phase: {phase} }}
  transform_param {{ scale: 0.00390625 {transform} }}
  data_param {{ source: "{folder}" batch_size: {batch} backend: LMDB }}
}}"""


def inner_product(name: str, bottom: str, outputs: int, more: str = "") -> str:
    return f"""
layer {{
  name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {more}
  inner_product_param {{ num_output: {outputs} weight_filler {{ type: "xavier" }} }}
}}"""


def relu(blob: str) -> str:
    return f'\nlayer {{ name: "{blob}_relu" type: "ReLU" bottom: "{blob}" top: "{blob}" }}'


def dropout(blob: str) -> str:
    return f'\nlayer {{ name: "{blob}_drop" type: "Dropout" bottom: "{blob}" top: "{blob}" }}'


def ends(scores: str = "ip2", label: str = "label") -> str:
    """Loss, and Caffe's own accuracies in tests."""
    bottoms = f'bottom: "{scores}" bottom: "{label}"'
    test = "include { phase: TEST }"
    return f"""
layer {{ name: "accuracy" type: "Accuracy" {bottoms} top: "accuracy" {test} }}
layer {{ name: "top5" type: "Accuracy" {bottoms} top: "top5" accuracy_param {{ top_k: 5 }} {test} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" {bottoms} top: "loss" }}
"""


def net(
    *,
    train: str | None = None,
    test: str | None = None,
    middle: str | None = None,
    last: str | None = None,
) -> str:
    """64 - 16 - 10: data layers, the middle, loss and accuracies."""
    middle = middle or inner_product("ip1", "data", 16) + relu("ip1") + inner_product(
        "ip2", "ip1", 10
    )
    train = train or data_layer("TRAIN")
    test = test or data_layer("TEST", batch=100)
    return f'name: "tiny"{train}{test}{middle}{last or ends()}'


# A layer that gives on what it gets, and hangs while there is a file "hang" in the working
# directory.
HANG_MODULE = """
import os
import time

import caffe


class Hang(caffe.Layer):
    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        while os.path.exists("hang"):
            time.sleep(0.01)
        top[0].data[...] = bottom[0].data

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = top[0].diff
"""
HANG_LAYER = """
layer {
  name: "hang" type: "Python" bottom: "ip1" top: "hang"
  python_param { module: "hanging" layer: "Hang" }
}"""


def hanging_net() -> str:
    """The net of ``net`` with HANG_LAYER in it; HANG_MODULE is hanging.py on the PYTHONPATH."""
    middle = (
        inner_product("ip1", "data", 16)
        + relu("ip1")
        + HANG_LAYER
        + inner_product("ip2", "hang", 10)
    )
    return net(middle=middle)
