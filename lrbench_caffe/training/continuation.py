"""Checks what a resumed run is given against the original run; only max_iter may grow.

Parameters may be repeated or left out. run.json has a fingerprint of the solver file and its nets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import text_format

from lrbench_caffe.errors import ParameterError
from lrbench_caffe.lr import parse
from lrbench_caffe.prototxt.messages import to_text
from lrbench_caffe.prototxt.patch import POLICY_FIELDS
from lrbench_caffe.prototxt.solver import Solver
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.runs.snapshots import recorded
from lrbench_caffe.runtime.replies import CaffeInfo
from lrbench_caffe.training.choosing import repeats_policy
from lrbench_caffe.training.request import TrainingRequest
from lrbench_caffe.training.settings import RunSettings
from lrbench_caffe.training.ways import resumed_way

# Fields that the run has its own values of, whatever the file says later, and fields that change no
# result.
_POLICY = ("base_lr", "lr_policy", *POLICY_FIELDS)
KEPT = frozenset(["max_iter", "test_interval", "snapshot", *_POLICY])
FREE = frozenset(["display", "snapshot_prefix"])


def fingerprint(solver: Solver) -> dict[str, str]:
    """The solver's fields as text, and a digest of each of its nets, by field."""
    fields: dict[str, str] = {}
    for descriptor, _ in solver.message.ListFields():
        if "net" in descriptor.name.split("_"):  # net, train_net_param, ...
            continue
        alone = type(solver.message)()
        alone.CopyFrom(solver.message)
        for other, _ in solver.message.ListFields():
            if other.name != descriptor.name:
                alone.ClearField(other.name)
        fields[descriptor.name] = " ".join(to_text(alone).split())
    for name, net in solver.nets.items():
        fields[name] = hashlib.sha256(net.SerializeToString(deterministic=True)).hexdigest()
    return fields


def resumed_settings(
    request: TrainingRequest,
    old: RunSettings,
    solver: Solver,
    info: CaffeInfo,
    run: RunDirectory,
) -> tuple[RunSettings, list[str]]:
    """The run's own settings, perhaps with a larger max_iter.

    Args:
        request: what was asked for.
        old: the run's settings.
        solver: its solver and nets as they are now.
        info: what this Caffe can do.
        run: where it is.

    Returns:
        The settings, and remarks: on edits of the solver that have no effect, on another way to set
        the LR.

    Raises:
        InputError: a flag, the solver or a net that is not as it was.
    """
    _check_flags(request, old, solver, info, run)
    now = fingerprint(solver)
    _restore_policy(solver, old)
    old.lr_by, note = resumed_way(request.set_lr_by, old.lr_by, old.own_policy, solver, info)
    notes = [note] if note else []
    changed = [
        name for name in {**old.fingerprint, **now} if old.fingerprint.get(name) != now.get(name)
    ]
    _check_files(
        solver, old.fingerprint, now, [name for name in changed if name not in KEPT | FREE]
    )
    ignored = [name for name in changed if name in KEPT]
    longer = (
        "max_iter" in changed
        and request.max_iter is None
        and solver.message.max_iter > old.max_iter
    )
    if longer:
        ignored.remove("max_iter")
        old.fingerprint["max_iter"] = now["max_iter"]
    wanted = solver.message.max_iter if longer else request.max_iter
    if wanted is not None and wanted != old.max_iter:
        _check_length(wanted, solver if longer else None, old, run)
        old.max_iter = wanted
    return old, notes + [
        f"{solver.path}: {_change(old.fingerprint, now, name)}: has no effect on a resumed run"
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
    request: TrainingRequest,
    old: RunSettings,
    solver: Solver,
    info: CaffeInfo,
    run: RunDirectory,
) -> None:
    def check(name: str, given: Any, own: Any) -> None:
        if given is not None and given != own:
            spelled = "{" + name + "}"
            raise ParameterError(
                "{resume}: "
                + spelled
                + ": {0}; the run's own is {1}; allowed: the same, or no "
                + spelled,
                given,
                own,
            )

    if not repeats_policy(request.policy, request.parameters, old, solver):
        raise _other_policy(request, old, solver, run)
    check("seed", request.seed, old.seed)
    if solver.tests:
        check("test_interval", request.test_interval, old.test_interval)
    check("level", request.level, old.level)
    own = solver.tests[0].head if solver.tests else None
    check("head", request.head, own.name if own else None)
    stages = None if request.stages is None else _listed(request.stages)
    check("stages", stages, _listed(old.stages))
    gpu = "0" if request.gpu == "all" and info.gpus == 1 else request.gpu
    check("gpu", gpu, "none" if old.gpu is None else str(old.gpu))


def _other_policy(
    request: TrainingRequest, old: RunSettings, solver: Solver, run: RunDirectory
) -> ParameterError:
    """The error where another policy is asked for than the run has."""
    given = {name: value for name, value in request.parameters.items() if value is not None}
    asked = ["{4}"] if request.policy is not None else []
    asked += [f"{{{name}}} {{{number}}}" for number, name in enumerate(given, start=5)]
    parameters = " ".join(asked) if request.policy is not None else "{3}"
    return ParameterError(
        f"{{resume}}: the run's policy is {{0}}, not {' '.join(asked)}; allowed: the same, or no "
        "{policy} and no parameters; to continue with another policy, begin a new run: "
        f"{{1}} {{snapshot}} {{2}} {{policy}} {parameters}",
        old.recorded_policy(),
        solver.path,
        _newest_state(run),
        "POLICY",
        request.policy,
        *given.values(),
    )


def _newest_state(run: RunDirectory) -> str:
    """The file of a run's newest snapshot."""
    states = [run.snapshots / snapshot.state for snapshot in recorded(run)]
    there = [state for state in states if state.is_file()]
    return str(there[-1]) if there else "FILE.solverstate"


def _listed(names: Iterable[str]) -> str:
    return ",".join(sorted(names)) or "none"


def _check_files(
    solver: Solver, then: Mapping[str, str], now: Mapping[str, str], changed: list[str]
) -> None:
    """Raise an InputError for the fields and nets that differ, if there are any."""
    if not changed:
        return
    nets = [name for name in changed if name.partition("[")[0].endswith(("net", "net_param"))]
    fields = [_change(then, now, name) for name in changed if name not in nets]
    differing = [*fields, *(f"the net of {name}" for name in nets)]
    raise ParameterError(
        "{resume}: {0} has changed since the run began: {1}; allowed: the original solver "
        "(train with {snapshot} for a new run with other settings)",
        solver.path,
        "; ".join(differing),
    )


def _check_length(wanted: int, solver: Solver | None, old: RunSettings, run: RunDirectory) -> None:
    """Check the new max_iter, which the solver file asks for, or where there is none the request."""
    where = "{resume}: " + ("{max_iter}" if solver is None else "{3}: max_iter") + ": {0}; the run"
    policy = parse(old.policy, strict=False)
    if policy.needs_max_iter:
        text = where + "'s policy {1:.7g} ends at its max_iter, {2}"
        raise ParameterError(text, wanted, policy, old.max_iter, solver and solver.path)
    snapshots = [snapshot.iteration for snapshot in recorded(run)]
    reached = max([run.read().get("iteration") or 0, *snapshots])
    if wanted < reached:
        text = where + " has reached iteration {1}; allowed: {1} or more"
        raise ParameterError(text, wanted, reached, None, solver and solver.path)
