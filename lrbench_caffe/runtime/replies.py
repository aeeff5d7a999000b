"""The driver's requests to a worker, and the worker's replies (see worker.py for the protocol)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lrbench_caffe.errors import TrainingError
from lrbench_caffe.metrics import Counts
from lrbench_caffe.runtime import counting

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class HeadRequest:
    """A head to count in a test pass.

    Attributes:
        scores, labels: the blobs.
        how: the arguments of ``counting.Counter``.
    """

    scores: str
    labels: str
    how: dict[str, Any]


@dataclass(frozen=True)
class TestPass:
    """The results of a test pass.

    Attributes:
        outputs: the means of the net's own outputs by name; empty where there is no mean.
        loss: the mean of its loss, None where it has none.
        heads: what was counted of each head that was asked for, or why it could not be counted.
    """

    __test__ = False  # not a test class, whatever pytest thinks of the name

    outputs: dict[str, list[float]]
    loss: float | None
    heads: list[Counts | str] = field(default_factory=list)

    @classmethod
    def of(cls, fields: Mapping[str, Any], arrays: Arrays) -> TestPass:
        """From a "tested" message."""
        counted = [_counts(head, arrays, place) for place, head in enumerate(fields["heads"])]
        return cls(fields["outputs"], fields["loss"], counted)


@dataclass(frozen=True)
class OpenRequest:
    """How a solver is opened in the worker.

    Attributes:
        solver: the patched solver.prototxt.
        stop: the iteration at which the training ends.
        iter_size: the solver's iter_size.
        gpu: the GPU's id, None for the CPU.
        own_policy: whether Caffe computes the LR by the solver's own lr_policy.
        gradients: the options of the Caffe 1.0 way; None where base_lr is written, or own_policy.
        layers: the library of fast layers, which was checked; None for Caffe's own.
        threads: how many threads fast layers work on.
    """

    solver: str
    stop: int
    iter_size: int = 1
    gpu: int | None = None
    own_policy: bool = False
    gradients: dict[str, Any] | None = None
    layers: str | None = None
    threads: int = 1


@dataclass(frozen=True)
class Check:
    """What the comparison with plain sums and Caffe's own layers found.

    Attributes:
        products: what is wrong with the BLAS's products, None where they are right.
        layers: what is wrong with the fast layers.
        slow: whether the CPU is no faster with the library's vectors than with those of 256 bits.
    """

    products: str | None
    layers: str | None
    slow: bool


@dataclass(frozen=True)
class LayerParameters:
    """The parameters of one layer of a net.

    Attributes:
        name: the layer's.
        numbers: of each of its parameters in the net, which counts from 0; shared ones have one
            number.
        shapes: of each.
    """

    name: str
    numbers: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Opened:
    """The worker's description of an opened solver.

    Attributes:
        parameters: learnable parameters of the training net; shared ones count once.
        nets: all layers of the training net and of each test net, in their order.
        test_shapes: the shape of each blob, for each test net.
        train_shapes: the shape of each blob of the training net.
        layers: "fast" or "stock", whichever it trains with.
        width: bits of the fast layers' vectors; None for Caffe's own layers.
    """

    parameters: int
    nets: list[list[LayerParameters]]
    test_shapes: list[dict[str, list[int]]]
    layers: str = "stock"
    width: int | None = None
    train_shapes: dict[str, list[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Opened:
        """From the fields of an "opened" message."""
        return cls(
            int(fields["parameters"]),
            [[_layer_parameters(*layer) for layer in net] for net in fields["nets"]],
            fields["test_shapes"],
            fields["layers"],
            fields["width"],
            fields["train_shapes"],
        )


@dataclass
class CaffeInfo:
    """A worker's description of its Caffe when it starts.

    Attributes:
        python, executable: version and path of the interpreter.
        caffe, path: version and folder of pycaffe.
        layers: the layer types it knows.
        writable_base_lr: whether the LR can be set directly (else by the gradients, as for Caffe
            1.0).
        callbacks: whether solvers take callbacks.
        layer_callbacks: whether nets do, so that the loss of every sub-batch (iter_size) can be
            read.
        cuda, gpus: whether it is a CUDA build, and how many devices it sees.
        blas: paths of its BLAS libraries.
        blas_kernels: the kernels that OpenBLAS has chosen for the CPU; None for another BLAS.
        files: Caffe's shared libraries.
        descriptor: caffe.proto's serialized FileDescriptorProto.
    """

    python: str
    executable: str
    caffe: str
    path: str
    layers: list[str]
    writable_base_lr: bool
    callbacks: bool
    layer_callbacks: bool
    cuda: bool
    gpus: int
    blas: list[str]
    files: list[str]
    protocol: int
    descriptor: bytes = field(repr=False)
    blas_kernels: str | None = None


def _layer_parameters(name: str, blobs: list[Any]) -> LayerParameters:
    return LayerParameters(
        name, tuple(number for number, _ in blobs), tuple(tuple(shape) for _, shape in blobs)
    )


def _counts(head: dict[str, Any], arrays: Arrays, place: int) -> Counts | str:
    """The counts of a head in a "tested" message."""
    if head["problem"]:
        return str(head["problem"])
    none = np.zeros(0)
    counted = {name: head[name] for name in counting.NUMBERS}
    counted.update({name: arrays.get(f"{name}{place}", none) for name in counting.BY_CLASS})
    return Counts(**counted)


def invalid_message(error: Exception) -> TrainingError:
    """The error for bytes that the worker's protocol does not know."""
    return TrainingError(f"sent an invalid message ({type(error).__name__}: {error})")
