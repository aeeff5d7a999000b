"""What a resumed run may be told: what it was told when it began, and to become longer.

Flags may be repeated or left out. Of the solver file and its nets, run.json has a fingerprint.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping
from typing import Any

from google.protobuf import text_format

from lrbench_caffe.errors import InputError
from lrbench_caffe.lr import parse
from lrbench_caffe.prototxt.messages import to_text
from lrbench_caffe.prototxt.solver import Solver
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.runs.snapshots import recorded
from lrbench_caffe.runtime.client import CaffeInfo
from lrbench_caffe.training.choosing import repeats_policy
from lrbench_caffe.training.settings import NATIVE, RunSettings
from lrbench_caffe.training.ways import resumed_way

# Fields that the run has its own values of, whatever the file says later, and fields that change no result.
_POLICY = ("base_lr", "lr_policy", "gamma", "power", "stepsize", "stepvalue")
_KEPT = frozenset(["max_iter", "test_interval", "snapshot", *_POLICY])
_FREE = frozenset(["display", "snapshot_prefix"])


def fingerprint(solver: Solver) -> dict[str, str]:
    """The solver's fields as text, and a digest of each of its nets, by field."""
    found: dict[str, str] = {}
    for descriptor, _ in solver.message.ListFields():
        if "net" in descriptor.name.split("_"):  # net, train_net_param, ...
            continue
        alone = type(solver.message)()
        alone.CopyFrom(solver.message)
        for other, _ in solver.message.ListFields():
            if other.name != descriptor.name:
                alone.ClearField(other.name)
        found[descriptor.name] = " ".join(to_text(alone).split())
    for name, net in solver.nets.items():
        found[name] = hashlib.sha256(net.SerializeToString(deterministic=True)).hexdigest()
    return found


def resumed_settings(
    args: argparse.Namespace,
    parameters: Mapping[str, str | None],
    old: RunSettings,
    solver: Solver,
    info: CaffeInfo,
    run: RunDirectory,
) -> tuple[RunSettings, list[str]]:
    """The run's own settings, perhaps longer.

    Args:
        args: the flags.
        parameters: those among them that belong to the policy: k0, k1, gamma, p, l.
        old: the run's settings.
        solver: its solver and nets as they are now.
        info: what this Caffe can do.
        run: where it is.

    Returns:
        The settings, and remarks: on edits of the solver that have no effect, on another way to set the LR.

    Raises:
        InputError: a flag, the solver or a net that is not as it was.
    """
    _check_flags(args, parameters, old, solver, info, run)
    now = fingerprint(solver)
    _restore_policy(solver, old)
    old.lr_by, note = resumed_way(args.set_lr_by, old.lr_by, old.policy_from == NATIVE, solver, info)
    notes = [note] if note else []
    changed = [name for name in {**old.fingerprint, **now} if old.fingerprint.get(name) != now.get(name)]
    _check_files(solver, old.fingerprint, now, [name for name in changed if name not in _KEPT | _FREE])
    ignored = [name for name in changed if name in _KEPT]
    longer = "max_iter" in changed and args.max_iter is None and solver.message.max_iter > old.max_iter
    if longer:
        ignored.remove("max_iter")
        old.fingerprint["max_iter"] = now["max_iter"]
    wanted = solver.message.max_iter if longer else args.max_iter
    if wanted is not None and wanted != old.max_iter:
        _check_length(wanted, f"{solver.path}: max_iter" if longer else "--max-iter", old, run)
        old.max_iter = wanted
    return old, notes + [
        f"{solver.path}: {_change(old.fingerprint, now, name)}: without effect on a run that is resumed"
        for name in ignored
    ]


def _restore_policy(solver: Solver, settings: RunSettings) -> None:
    """Give the solver the lr_policy that the run began with, with which Caffe may compute the LR."""
    if not settings.fingerprint:  # of a run from before there were any
        return
    for name in _POLICY:
        solver.message.ClearField(name)
        text_format.Merge(settings.fingerprint.get(name, ""), solver.message)


def _change(then: Mapping[str, str], now: Mapping[str, str], name: str) -> str:
    """'momentum: 0.9, was momentum: 0.5'."""
    return f"{now.get(name, f'no {name}')}, was {then.get(name, f'no {name}')}"


def _check_flags(
    args: argparse.Namespace,
    parameters: Mapping[str, str | None],
    old: RunSettings,
    solver: Solver,
    info: CaffeInfo,
    run: RunDirectory,
) -> None:
    def check(flag: str, given: Any, own: Any) -> None:
        if given is not None and given != own:
            raise InputError(
                f"--resume: {flag}: {given}; the run's own is {own}; allowed: the same, or no {flag}"
            )

    if not repeats_policy(args.lr, parameters, old, solver):
        flags = [args.lr, *(f"--{name} {value}" for name, value in parameters.items() if value is not None)]
        given = " ".join(flag for flag in flags if flag is not None)
        raise InputError(
            f"--resume: the run's policy is {old.bound_policy():.7g}, not {given}; allowed: the same, or no "
            "--lr and no parameters; to continue with another policy, begin a new run: "
            f"{_new_run(solver, run)} --lr {args.lr or 'POLICY'}"
        )
    check("--seed", args.seed, old.seed)
    if solver.tests:
        check("--test-interval", args.test_interval, old.test_interval)
    check("--level", args.level, old.level)
    own = solver.tests[0].head if solver.tests else None
    check("--head", args.head, own.name if own else None)
    stages = None if args.stage is None else _listed(args.stage)
    check("--stage", stages, _listed(old.stages))
    gpu = "0" if args.gpu == "all" and info.gpus == 1 else args.gpu
    check("--gpu", gpu, "none" if old.gpu is None else str(old.gpu))


def _new_run(solver: Solver, run: RunDirectory) -> str:
    """The flags that begin a new run from a run's newest snapshot."""
    states = [run.snapshots / snapshot.state for snapshot in recorded(run)]
    there = [state for state in states if state.is_file()]
    return f"{solver.path} --snapshot {there[-1] if there else 'FILE.solverstate'}"


def _listed(names: list[str]) -> str:
    return ",".join(sorted(names)) or "none"


def _check_files(solver: Solver, then: Mapping[str, str], now: Mapping[str, str], changed: list[str]) -> None:
    """Raise an InputError for the fields and nets that differ, if there are any."""
    if not changed:
        return
    nets = [name for name in changed if name.partition("[")[0].endswith(("net", "net_param"))]
    fields = [_change(then, now, name) for name in changed if name not in nets]
    differing = [*fields, *(f"the net of {name}" for name in nets)]
    raise InputError(
        f"--resume: {solver.path} is not as it was when the run began: {'; '.join(differing)}; "
        "allowed: the solver as it was (train with --snapshot for a new run with other settings)"
    )


def _check_length(wanted: int, where: str, old: RunSettings, run: RunDirectory) -> None:
    policy = parse(old.policy, strict=False)
    if policy.needs_max_iter:
        raise InputError(
            f"--resume: {where}: {wanted}; the run's policy {policy:.7g} ends at its max_iter, {old.max_iter}"
        )
    snapshots = [snapshot.iteration for snapshot in recorded(run)]
    reached = max([run.read().get("iteration") or 0, *snapshots])
    if wanted < reached:
        raise InputError(
            f"--resume: {where}: {wanted}; the run has reached iteration {reached}; "
            f"allowed: {reached} or more"
        )
