"""A solver with another batch size, momentum or weight decay, and what else changes with them.

The training is as many epochs long as before: with k times the batch it has 1/k of the iterations,
and as many tests and snapshots, which come after 1/k of the iterations. The LRs move with them (see
``lr_factor``), so that the solver's own lr_policy is the same one in epochs. The test nets stay as
they are, so a test pass reads the same records in the same batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrbench_caffe.errors import InputError
from lrbench_caffe.files import replace_own
from lrbench_caffe.prototxt.messages import path_name, shortest, to_bytes
from lrbench_caffe.prototxt.nets import one_phase
from lrbench_caffe.prototxt.patch import NET_FIELDS, POLICY_FIELDS
from lrbench_caffe.prototxt.solver import LINEAR, Solver, fork_lr_fields

WITHOUT_MOMENTUM = ("AdaGrad", "RMSProp")  # types with which Caffe takes a momentum of 0 alone


@dataclass(frozen=True)
class Variant:
    """What is different in a solver; None for what stays.

    Attributes:
        batch: records in a batch of the training net.
        momentum, weight_decay: the solver's fields.
    """

    batch: int | None = None
    momentum: float | None = None
    weight_decay: float | None = None


def training_batch(solver: Solver) -> int:
    """The records in a batch of a solver's training net.

    Raises:
        InputError: none of its data layers has a batch_size, or they differ in it.
    """
    sizes = {
        parameter.batch_size: layer.name
        for layer in solver.train.layers
        for parameter in _with_batch(layer)
    }
    if not sizes:
        raise InputError(
            f"{solver.train.origin}: no layer of the training net has a batch_size; allowed: a net "
            "whose data layers have one"
        )
    if len(sizes) > 1:
        listed = ", ".join(f"{size} in layer {name!r}" for size, name in sizes.items())
        raise InputError(
            f"{solver.train.origin}: the data layers of the training net differ in batch_size: "
            f"{listed}; allowed: the same in all"
        )
    return int(next(iter(sizes)))


def _with_batch(layer: Any) -> list[Any]:
    """The parameters of a layer that reads records which have a batch_size."""
    if layer.bottom:
        return []
    messages = [value for field, value in layer.ListFields() if field.name.endswith("_param")]
    return [one for one in messages if getattr(one, "batch_size", 0)]


def lr_factor(solver: Solver, variant: Variant) -> float:
    """By what the LRs of a variant are multiplied.

    - The batch, relative to the solver's own: the linear scaling rule of Goyal et al. 2017.
    - (1 - momentum), relative to the solver's own, with SGD and Nesterov, whose updates by one
      gradient add up to LR / (1 - momentum) times it: Smith et al. 2018 (Don't Decay the Learning
      Rate, Increase the Batch Size) keep LR / (batch x (1 - momentum)). With the other types the
      momentum does not add up to more, or has another meaning: they keep their LRs.
    """
    factor = 1.0
    if variant.batch is not None:
        factor *= variant.batch / training_batch(solver)
    own = shortest(solver.message.momentum)
    if variant.momentum is not None and solver.type in LINEAR and own < 1:
        factor *= (1 - variant.momentum) / (1 - own)
    return factor


def write_variant(
    solver: Solver,
    variant: Variant,
    folder: Path,
    *,
    max_iter: int,
    test_interval: int,
    lr: Mapping[str, Any] | None = None,
    weights: Sequence[str] = (),
    stages: Sequence[str] = (),
) -> Path:
    """Write a variant of a solver, with its nets, to ``folder``; returns the solver's path.

    Args:
        max_iter, test_interval: the variant's own.
        lr: fields of its lr_policy; None to keep the solver's own, its base_lr moved by
            ``lr_factor``.
        weights: caffemodels to begin with, instead of the solver's own; only where this Caffe has
            a field for them.
        stages: of the training net, beside the solver's own.
    """
    message = type(solver.message)()
    message.CopyFrom(solver.message)
    for name in NET_FIELDS:
        message.ClearField(name)
    folder.mkdir(parents=True, exist_ok=True)
    message.train_net = path_name(_write_net(solver, variant, folder))
    for index, test in enumerate(solver.tests):
        path = folder / ("test.prototxt" if len(solver.tests) == 1 else f"test_{index}.prototxt")
        replace_own(path, to_bytes(one_phase(_origin(solver, index), test.net)))
        message.test_net.append(path_name(path))
    message.max_iter = max_iter
    if solver.tests:
        message.test_interval = test_interval
    if message.snapshot and solver.message.max_iter:
        share = max_iter / solver.message.max_iter
        message.snapshot = max(1, round(abs(message.snapshot) * share))
    if variant.momentum is not None:
        message.momentum = variant.momentum
    if variant.weight_decay is not None:
        message.weight_decay = variant.weight_decay
    if weights and "weights" in message.DESCRIPTOR.fields_by_name:
        message.ClearField("weights")
        message.weights.extend(weights)
    own = set(message.train_state.stage)
    message.train_state.stage.extend(stage for stage in stages if stage not in own)
    _set_lr(message, lr or {"base_lr": shortest(message.base_lr) * lr_factor(solver, variant)})
    path = folder / "solver.prototxt"
    replace_own(path, to_bytes(message))
    return path


def _set_lr(message: Any, fields: Mapping[str, Any]) -> None:
    if "lr_policy" in fields:
        for name in (*POLICY_FIELDS, *fork_lr_fields(message)):
            message.ClearField(name)
    for name, value in fields.items():
        if isinstance(value, (list, tuple)):
            message.ClearField(name)
            getattr(message, name).extend(value)
        else:
            setattr(message, name, value)


def _write_net(solver: Solver, variant: Variant, folder: Path) -> Path:
    """Write the training net alone: a data layer of both phases keeps its batch in tests."""
    net = one_phase(next(iter(solver.nets.values())), solver.train)
    if variant.batch is not None:
        for layer in net.layer:
            for parameter in _with_batch(layer):
                parameter.batch_size = variant.batch
    path = folder / "train.prototxt"
    replace_own(path, to_bytes(net))
    return path


def _origin(solver: Solver, index: int) -> Any:
    """The net that a test net is the TEST phase of: the one of its own, or the generic one."""
    nets = list(solver.nets.values())
    return nets[index + 1] if index + 1 < len(nets) else nets[0]
