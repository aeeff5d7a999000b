"""The patched solver that Caffe gets: without what the driver does itself.

The driver decides tests and snapshots, so the patched solver has none of its own. It has the user's
lr_policy where nothing else asks for the LR, and otherwise one that leaves base_lr as it is. The
solver and its nets are written to the run directory, which is therefore self-contained.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lrbench_caffe.errors import InputError, ParameterError
from lrbench_caffe.files import replace_own
from lrbench_caffe.prototxt.messages import path_name, to_bytes
from lrbench_caffe.prototxt.nets import decay_multipliers
from lrbench_caffe.prototxt.solver import LINEAR, Solver, flag_stages, fork_lr_fields
from lrbench_caffe.runtime.replies import CaffeInfo

NEVER = 2**31 - 1  # an interval that no training reaches

# How Caffe gets the LR of an update.
LR_POLICY = "lr_policy"  # it computes the LR itself, by the solver's own lr_policy
BASE_LR = "base_lr"  # base_lr is set before the update
GRADIENTS = "gradients"  # the gradients are scaled, for a Caffe whose base_lr cannot be set
LR_WAYS = (LR_POLICY, BASE_LR, GRADIENTS)
NET_FIELDS = ("net", "net_param", "train_net", "train_net_param", "test_net", "test_net_param")
POLICY_FIELDS = ("gamma", "power", "stepsize", "stepvalue")


def patched_solver(
    solver: Solver,
    nets: dict[str, Path],
    *,
    snapshot_prefix: Path,
    max_iter: int,
    seed: int,
    gpu: int | None,
    level: int,
    stages: Sequence[str],
    lr_by: str,
) -> Any:
    """The SolverParameter to train with.

    Args:
        nets: where each of ``solver.nets`` was written.
        snapshot_prefix: where Caffe writes its snapshots.
        lr_by: one of LR_WAYS; with GRADIENTS (see worker.GradientUpdate) base_lr is 1, without
            decay.
    """
    message = type(solver.message)()
    message.CopyFrom(solver.message)
    _point_to_nets(message, nets)
    for name in ("snapshot", "device_id", "test_initialization"):
        message.ClearField(name)
    if "weights" in message.DESCRIPTOR.fields_by_name:
        message.ClearField("weights")
    if lr_by != LR_POLICY:
        _hold_base_lr(message, solver.message)
    message.max_iter = max_iter
    message.random_seed = seed
    message.test_interval = NEVER
    message.test_initialization = False
    message.snapshot_after_train = False
    message.snapshot_prefix = path_name(snapshot_prefix)
    if solver.not_in_hdf5 is not None:
        message.snapshot_format = message.BINARYPROTO
    message.solver_mode = message.CPU if gpu is None else message.GPU
    if gpu is not None:
        message.device_id = gpu
    message.train_state.level = level
    message.train_state.stage.extend(flag_stages(stages))
    if lr_by == GRADIENTS:
        message.base_lr = 1.0
        message.weight_decay = 0.0
        message.clip_gradients = -1.0
    return message


def check_settable(solver: Solver, info: CaffeInfo) -> None:
    """Raise an InputError where this Caffe cannot train the solver with an LR policy of the LR module."""
    if not info.writable_base_lr and solver.type not in LINEAR:
        raise ParameterError(
            "{0}: type is {1!r}, but this Caffe ({2} in {3}) cannot "
            "set base_lr from Python, and without that only SGD and Nesterov take an LR policy; allowed: the "
            "solver's own lr_policy (train without {policy}), or a Caffe from December 2017 or newer",
            solver.path,
            solver.type,
            info.caffe,
            info.path,
        )


def _hold_base_lr(message: Any, own: Any) -> None:
    """Give the patched solver a policy whose LR is base_lr at every iteration.

    Caffe's step and multistep count the steps in the solver states as current_step, and
    ``caffe train --snapshot`` continues multistep's count from there. With the solver's own steps
    and gamma 1 Caffe keeps that count itself, whatever LR the driver sets, and 1 to any power
    changes no bit of base_lr.
    """
    for name in (*POLICY_FIELDS, *fork_lr_fields(own)):
        message.ClearField(name)
    if own.lr_policy == "step" and own.stepsize > 0:
        message.lr_policy, message.gamma, message.stepsize = "step", 1.0, own.stepsize
    elif own.lr_policy == "multistep":
        message.lr_policy, message.gamma = "multistep", 1.0
        message.stepvalue.extend(own.stepvalue)
    else:
        message.lr_policy = "fixed"


def _point_to_nets(message: Any, nets: dict[str, Path]) -> None:
    """Let the solver read its nets from the run directory, whichever field they came from."""
    train_field = next(iter(nets))
    generic = train_field in ("net", "net_param")
    tests = [path for name, path in nets.items() if name != train_field]
    for name in NET_FIELDS:
        message.ClearField(name)
    setattr(message, "net" if generic else "train_net", path_name(nets[train_field]))
    message.test_net.extend(map(path_name, tests))


def gradient_options(solver: Solver) -> dict[str, Any]:
    """The original solver's settings that scaling gradients needs (see worker.GradientUpdate)."""
    return {
        "weight_decay": float(solver.message.weight_decay),
        "clip_gradients": float(solver.message.clip_gradients),
        "regularization_type": solver.message.regularization_type,
        "decay_mult": decay_multipliers(solver.train),
        "display": int(solver.message.display),
    }


def write_prototxts(solver: Solver, directory: Path, **options: Any) -> Path:
    """Write the patched solver and its nets to ``directory``; returns the solver's path.

    Raises:
        InputError: the directory's name is not UTF-8, and pycaffe takes no other.
    """
    try:
        str(directory).encode()
    except UnicodeEncodeError:
        raise InputError(f"{directory}: a name that is not UTF-8; allowed: one that is") from None
    directory.mkdir(parents=True, exist_ok=True)
    nets: dict[str, Path] = {}
    for name, net in solver.nets.items():
        nets[name] = directory / (name.replace("[", "_").replace("]", "") + ".prototxt")
        replace_own(nets[name], to_bytes(net))
    path = directory / "solver.prototxt"
    replace_own(path, to_bytes(patched_solver(solver, nets, **options)))
    return path
