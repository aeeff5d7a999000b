"""Makes settings from a training request, checked as far as possible before Caffe starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lrbench_caffe.database.urls import resolve_url
from lrbench_caffe.errors import ParameterError, named
from lrbench_caffe.native.library import NARROW
from lrbench_caffe.progress import Progress
from lrbench_caffe.prototxt.messages import Messages
from lrbench_caffe.prototxt.solver import Solver, check_length, load_solver
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.runs.layout import RUNS
from lrbench_caffe.runs.newest import find_newest
from lrbench_caffe.runtime.blas import kernels_to_try
from lrbench_caffe.runtime.cpu import this_cpu
from lrbench_caffe.runtime.info import caffe_info
from lrbench_caffe.runtime.locate import CaffePython, find_caffe_python
from lrbench_caffe.runtime.reader import CaffeReader
from lrbench_caffe.runtime.replies import CaffeInfo
from lrbench_caffe.training.beginning import check_one_start, find_state
from lrbench_caffe.training.choosing import (
    AUTO,
    describe_wanted,
    experienced_policy,
    wants_experience,
)
from lrbench_caffe.training.continuation import fingerprint, resumed_settings
from lrbench_caffe.training.policyfile import PolicyFile, is_policy_file
from lrbench_caffe.training.request import TrainingRequest
from lrbench_caffe.training.settings import (
    ChosenPolicy,
    RunSettings,
    check_triggers,
    check_weights,
    choose_gpu,
    choose_layers,
    choose_policy,
    choose_seed,
    choose_threads,
    unopened_start,
    width_of,
)
from lrbench_caffe.training.ways import choose_way

LARGEST = 2**31 - 1  # of an int32, what Caffe counts with

Say = Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """A training that was checked.

    Attributes:
        request: what was asked for.
        python, info: the interpreter that pycaffe lives in, and its Caffe.
        messages: that Caffe's messages.
        solver: what is trained.
        settings: how.
        resumed: the run that is continued, None for a new one.
    """

    request: TrainingRequest
    python: CaffePython
    info: CaffeInfo
    messages: Messages
    solver: Solver
    settings: RunSettings
    resumed: RunDirectory | None


def prepare(request: TrainingRequest, progress: Progress) -> Prepared:
    """Check everything that can be checked before Caffe starts, and say what will be done.

    Args:
        progress: is told the policy, where it comes from, what a person should know, and how far a
            look at all data is.

    Raises:
        InputError: something that was asked for, the solver, a net or the data cannot be trained
            with.
        DatabaseError: the policy is to come from the LR database, which is out of reach.
    """
    if request.publish and not request.out:
        raise ParameterError(
            "{publish}: belongs to {out}; without it snapshots are at snapshot_prefix anyway"
        )
    if not request.no_database:
        resolve_url(request.database)
    text = request.policy or ""
    file = PolicyFile.read(Path(text.strip())) if is_policy_file(text) else None
    if file is not None:
        request = replace(request, policy=file.policy)
        if file.note:
            progress.say(f"note: {file.note}")
    python = find_caffe_python(request.caffe_python)
    info = caffe_info(python)
    resumed = _run_to_resume(request)
    messages = Messages(info.descriptor, CaffeReader(python))
    settings, solver = _checked(request, python, info, messages, resumed, progress)
    if file is not None:
        file.check_settings(solver)
        start = "" if settings.snapshot else file.remark_on_start(settings.weights)
        own = list(solver.message.train_state.stage)
        net = file.remark_on_net(settings.level, settings.stages, own)
        for remark in filter(None, (start, net, file.remark_on_length(settings.max_iter))):
            progress.say(f"note: {remark}")
    return Prepared(request, python, info, messages, solver, settings, resumed)


def _run_to_resume(request: TrainingRequest) -> RunDirectory | None:
    if not request.resume:
        return None
    for name in ("snapshot", "weights"):
        if getattr(request, name):
            raise ParameterError(
                "{resume} continues from the run's own snapshot, {" + name + "} starts a new run; "
                "allowed: one of them"
            )
    if request.out:
        path = request.out
        if path.is_symlink():  # runs/latest: the run keeps its own name
            path = path.parent / path.readlink()
        run = RunDirectory(path)
        run.read()
        return run
    return find_newest(RUNS, _solver_path(request, None))


def _solver_path(request: TrainingRequest, resumed: RunDirectory | None) -> Path:
    if request.solver:
        return request.solver
    if resumed is None:
        raise ParameterError("{solver}: missing; allowed: a solver.prototxt")
    return Path(resumed.read()["solver"])


def _checked(
    request: TrainingRequest,
    python: CaffePython,
    info: CaffeInfo,
    messages: Messages,
    resumed: RunDirectory | None,
    progress: Progress,
) -> tuple[RunSettings, Solver]:
    check_one_start(request.snapshot, request.weights)
    _check_ranges(request)
    old = RunSettings.from_json(resumed.read()) if resumed else None
    level = old.level if old else request.level or 0
    stages = old.stages if old else list(request.stages or [])
    max_iter = request.max_iter or (old.max_iter if old else None)
    solver = load_solver(
        _solver_path(request, resumed),
        messages,
        info,
        level=level,
        stages=stages,
        max_iter=max_iter,
        test_interval=request.test_interval or (old.test_interval if old else None),
        head=old.head if old else request.head,
        check_data=None if request.trust_data or request.preview else progress,
    )
    remarks = list(solver.remarks)
    if resumed and old:
        settings, more = resumed_settings(request, old, solver, info, resumed)
        former = settings.layers
        settings.layers = _resumed_layers(request, settings, info, progress.say)
        if request.layers == "fast-avx2":
            settings.width = NARROW
        if settings.layers == "fast" and former == "stock":
            settings.width = width_of(request.layers or "auto")
            settings.blas_kernels = _best_kernels("fast", info)
        elif settings.blas_kernels is None:  # of a run from before they were recorded
            settings.blas_kernels = info.blas_kernels
        if request.threads is not None:
            settings.threads = choose_threads(request.threads, settings.layers)
        elif settings.layers == "stock":
            settings.threads = 1
        remarks += more
    else:
        settings = _new_settings(request, solver, info, messages, python, progress.say)
    remarks += _remarks(request, settings, solver, info)
    for remark in remarks:
        progress.say(f"note: {remark}")
    return settings, solver


def _remarks(
    request: TrainingRequest, settings: RunSettings, solver: Solver, info: CaffeInfo
) -> list[str]:
    """What a person may not expect of this training."""
    remarks = []
    if solver.iter_size > 1 and not info.layer_callbacks:
        remarks.append(
            f"{solver.path}: iter_size is {solver.iter_size}; this Caffe ({info.caffe}) reports only "
            "the loss of an iteration's last sub-batch, which is recorded instead of their mean"
        )
    if settings.max_iter and not settings.trains:
        remarks.append(
            f"the snapshot {settings.snapshot} is at iteration {settings.start.iteration}, max_iter is "
            f"{settings.max_iter}: Caffe trains nothing and only tests, so nothing is recorded"
        )
    if request.until and request.until > settings.max_iter:
        remarks.append(
            f"{named('until')} {request.until} has no effect: the training ends at max_iter, "
            f"{settings.max_iter}"
        )
    return remarks


def _check_ranges(request: TrainingRequest) -> None:
    for name, least in (
        ("max_iter", 1),
        ("until", 1),
        ("branch_at", 1),
        ("test_interval", 1),
        ("level", -LARGEST - 1),
    ):
        value = getattr(request, name)
        if value is not None and not least <= value <= LARGEST:
            raise ParameterError("{" + name + "}: {0}; allowed: {1} to {2}", value, least, LARGEST)


def _new_settings(
    request: TrainingRequest,
    solver: Solver,
    info: CaffeInfo,
    messages: Messages,
    python: CaffePython,
    say: Say,
) -> RunSettings:
    max_iter = request.max_iter or max(0, solver.message.max_iter)
    if request.policy or request.preview:
        check_length(solver, max_iter)
    gpu = choose_gpu(request.gpu, solver, info)
    test_interval = request.test_interval or solver.message.test_interval
    weights = check_weights(request.weights, solver, messages) if not request.snapshot else []
    start = unopened_start(request.snapshot, weights)
    if request.snapshot:
        start = replace(
            start, iteration=find_state(Path(request.snapshot), messages).stored.iteration
        )
    chosen = _choose(request, solver, messages, info, python, gpu, weights, say)
    check_triggers(chosen.policy, solver)
    layers = choose_layers(request.layers or "auto", gpu, info)
    return RunSettings(
        solver=str(solver.path),
        policy=str(chosen.policy),
        policy_from=chosen.origin.value,
        own_policy=chosen.own,
        seed=choose_seed(request.seed, solver),
        max_iter=max_iter,
        test_interval=test_interval if solver.tests else 0,
        snapshot_interval=abs(solver.message.snapshot),  # Caffe divides by it, whatever its sign
        gpu=gpu,
        level=request.level or 0,
        stages=list(request.stages or []),
        snapshot=request.snapshot or None,
        weights=weights,
        lr_by=choose_way(request.set_lr_by, chosen.own, solver, info),
        fingerprint=fingerprint(solver),
        head=solver.head,
        layers=layers,
        threads=choose_threads(1 if request.threads is None else request.threads, layers),
        width=width_of(request.layers or "auto"),
        blas_kernels=_best_kernels(layers, info),
        start=start,
    )


def _choose(
    request: TrainingRequest,
    solver: Solver,
    messages: Messages,
    info: CaffeInfo,
    python: CaffePython,
    gpu: int | None,
    weights: Sequence[str],
    say: Say,
) -> ChosenPolicy:
    """The policy, from what was given, what the LR database knows, and simple rules, in this order."""
    flags = request.parameters
    max_iter = request.max_iter or solver.message.max_iter
    chosen = None
    asks = wants_experience(request.policy, flags, solver, max_iter) and not request.no_database
    if request.policy is not None and asks:
        wanted = describe_wanted(
            solver, info, python, messages, snapshot=request.snapshot, weights=weights, gpu=gpu,
            level=request.level or 0, stages=request.stages or [],
        )  # fmt: skip
        chosen, why = experienced_policy(
            request.policy,
            flags,
            request.database,
            wanted,
            solver,
            max_iter,
            contributors=request.contributors,
            preview=request.preview,
        )
        for line in why:
            say(line)
    elif request.policy and request.policy.strip().lower() == AUTO:
        raise ParameterError(
            "{policy} auto asks the LR database; {no_database} cannot be combined with it"
        )
    elif request.contributors:
        raise ParameterError(
            "{contributors}: {0}: the LR database is not asked; allowed: with {policy} auto, or with a "
            "function without all its parameters, and without {no_database}",
            ", ".join(request.contributors),
        )
    chosen = chosen or choose_policy(request.policy, flags, solver, max_iter)
    say(f"LR policy: {chosen.policy:.7g} (from {chosen.origin})")
    for filled in chosen.filled:
        value = list(filled.value) if isinstance(filled.value, tuple) else filled.value
        say(f"  {filled.parameter} = {value}: {filled.rule}")
    return chosen


def _best_kernels(layers: str, info: CaffeInfo) -> str | None:
    """The kernels of OpenBLAS to begin with: fast layers have the best ones, Caffe's own those it chooses."""
    better = kernels_to_try(info.blas_kernels, None, this_cpu()) if layers == "fast" else []
    return better[0] if better else info.blas_kernels


def _resumed_layers(request: TrainingRequest, old: RunSettings, info: CaffeInfo, say: Say) -> str:
    """The run's layers, unless others are asked for or they are not here."""
    if request.layers:
        return choose_layers(request.layers, old.gpu, info)
    if old.layers == "fast" and choose_layers("auto", old.gpu, info) == "stock":
        say(
            "note: the run was trained with fast layers, which are not available here; "
            "it continues with Caffe's own"
        )
        return "stock"
    return old.layers
