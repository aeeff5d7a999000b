"""The settings of a training: from parameters, the solver file or the record of a resumed run."""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any

from lrbench_caffe.errors import InputError, ParameterError, TrainingError, named, verbatim
from lrbench_caffe.lr import (
    Completed,
    Filled,
    NoBaseLR,
    Policy,
    PolicyError,
    Trigger,
    complete_text,
    parse,
)
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.native.library import NARROW, WIDTHS, find_library
from lrbench_caffe.prototxt.messages import Messages, shortest
from lrbench_caffe.prototxt.patch import BASE_LR, GRADIENTS, LR_WAYS
from lrbench_caffe.prototxt.solver import Solver, as_written, fork_lr_fields
from lrbench_caffe.records import SCRATCH, STARTS, UNKNOWN_START, Start, caffe_seed
from lrbench_caffe.runs.caffefiles import read_model
from lrbench_caffe.runtime.replies import CaffeInfo

_SESSION = ("began", "iteration")  # what run.json says of each session at least
_WITH_GAMMA = ("step", "exp", "inv", "multistep", "sigmoid")


class Origin(Enum):
    """Where a policy comes from; the values are the words of run.json."""

    GIVEN = "given"
    COMPLETED = "given, completed from the LR database"
    DATABASE = "the LR database"
    SOLVER = "the solver's lr_policy"

    def __str__(self) -> str:
        """The origin in a message, which names the parameter."""
        if self is Origin.GIVEN:
            return named("policy")
        if self is Origin.COMPLETED:
            return f"{named('policy')} and the LR database"
        return str(self.value)


@dataclass
class RunSettings:
    """The settings of a run, as run.json keeps them.

    Attributes:
        solver: the solver file.
        policy: the LR policy, to the last digit.
        policy_from: where the policy comes from, in words.
        seed: Caffe's random_seed.
        max_iter, test_interval, snapshot_interval: iterations.
        gpu: the GPU's id, None for the CPU.
        level, stages: of the training net, as caffe train's flags.
        snapshot: a solver state to start from.
        weights: caffemodels to start from.
        lr_by: how Caffe gets the LR; one of LR_WAYS.
        fingerprint: of the solver file and its nets when the run began (see continuation).
        layers: "fast" or "stock", as the run was trained; see ``lrbench_caffe.native``.
        threads: that the fast layers work on; weights depend on how many, in rounding.
        width: bits of the fast layers' vectors, which decide about rounding; None for Caffe's own
            layers, and before it is known.
        blas_kernels: the name of OpenBLAS's kernels that the run is trained with, which decide
            about rounding; None for another BLAS, and in runs from before they were recorded,
            which had OpenBLAS's own choice.
        start: what the run began with; complete once Caffe has the nets.
        head: the head that Top-1 is of, None for the net's default one.
        own_policy: whether the policy is the solver's own lr_policy.
    """

    solver: str
    policy: str
    policy_from: str
    seed: int
    max_iter: int
    test_interval: int
    snapshot_interval: int
    gpu: int | None = None
    level: int = 0
    stages: list[str] = field(default_factory=list)
    snapshot: str | None = None
    weights: list[str] = field(default_factory=list)
    lr_by: str = BASE_LR
    fingerprint: dict[str, str] = field(default_factory=dict)
    layers: str = "stock"
    threads: int = 1
    width: int | None = None
    blas_kernels: str | None = None
    start: Start = SCRATCH
    head: str | None = None
    own_policy: bool = False

    @property
    def trains(self) -> bool:
        """False if the run begins at its end: then Caffe tests and makes no update."""
        return self.max_iter > (self.start.iteration or 0)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> RunSettings:
        # For runs from before there were others.
        former = GRADIENTS if record.get("gradients") else BASE_LR
        own = record.get("policy_from") == Origin.SOLVER.value
        defaults = {"layers": "stock", "threads": 1, "lr_by": former, "start": None, "head": None}
        record = {**defaults, "own_policy": own, "blas_kernels": None, **record}
        record.setdefault("width", NARROW if record["layers"] == "fast" else None)
        try:
            settings = cls(**{f.name: record[f.name] for f in fields(cls)})
            settings.start = _start(record["start"], settings)
        except KeyError as error:
            raise InputError(f"run.json has no field {error}") from error
        except TypeError as error:
            raise InputError(f"run.json: start: {error}") from error
        settings._check(record.get("sessions", []))
        return settings

    def _check(self, sessions: Sequence[Any]) -> None:
        """Raise an InputError for values that no run has: run.json was damaged, or edited."""
        largest = 2**31 - 1
        for name, fits, allowed in (
            ("max_iter", 0 <= self.max_iter <= largest, f"0 to {largest}"),
            ("seed", isinstance(self.seed, int) and 0 <= self.seed < 2**32, f"0 to {2**32 - 1}"),
            ("test_interval", 0 <= self.test_interval <= largest, f"0 to {largest}"),
            ("snapshot_interval", 0 <= self.snapshot_interval <= 2**31, f"0 to {2**31}"),
            ("level", -largest - 1 <= self.level <= largest, f"{-largest - 1} to {largest}"),
            ("gpu", self.gpu is None or 0 <= self.gpu <= largest, f"0 to {largest}, or null"),
            ("threads", 1 <= self.threads <= largest, f"1 to {largest}"),
            ("lr_by", self.lr_by in LR_WAYS, ", ".join(LR_WAYS)),
            ("layers", self.layers in ("fast", "stock"), "fast, stock"),
            ("width", self.width in (None, *WIDTHS), f"null, {', '.join(map(str, WIDTHS))}"),
            ("start", _is_start(self.start), "what the run began with"),
        ):
            if not fits:
                raise InputError(f"run.json: {name} is {getattr(self, name)!r}; allowed: {allowed}")
        try:
            self.bound_policy()
        except (PolicyError, RecursionError) as error:
            raise InputError(f"run.json: policy: {error}") from error
        for session in sessions:
            began, iteration = (
                session.get(n) if isinstance(session, dict) else "" for n in _SESSION
            )
            is_time = isinstance(began, (int, float)) and math.isfinite(began)
            if not (
                is_time
                and isinstance(iteration, int)
                and isinstance(session.get("layers", ""), str)
            ):
                raise InputError(
                    f"run.json: sessions has {session!r}; allowed: began and iteration, numbers"
                )

    def recorded_policy(self, former: str | None = None) -> Policy:
        """The policy as a person would write it: Caffe's own with the decimals of the prototxt.

        Trained is with the float32 numbers that Caffe reads there, 0.009999999776482582 for 0.01.

        Args:
            former: what an earlier session recorded. Version 0.1 rounded to seven digits; a run
                that it began keeps the policy that it has in the LR database.
        """
        policy = self.bound_policy()
        if not self.own_policy:
            return policy
        rounded = parse(f"{policy:.7g}", strict=False).bind(max(1, self.max_iter))
        return rounded if str(rounded) == former else as_written(policy).bind(max(1, self.max_iter))

    def bound_policy(self) -> Policy:
        """The policy, ready to be evaluated. Caffe's own policies may hold values that ours do not allow."""
        return parse(self.policy, strict=False).bind(max(1, self.max_iter))


def _start(record: Mapping[str, Any] | None, settings: RunSettings) -> Start:
    """The start in run.json; for older runs, only starts from scratch are known."""
    if record is not None:
        return Start(**record)
    return unopened_start(settings.snapshot, settings.weights)


def _is_start(start: Start) -> bool:
    numbers = (start.filled, start.layers, start.iteration)
    are_counts = all(n is None or (type(n) is int and 0 <= n < 2**31) for n in numbers)
    are_texts = all(t is None or isinstance(t, str) for t in (start.digest, start.name))
    return start.kind in STARTS and are_counts and are_texts


def unopened_start(snapshot: str | None, weights: Sequence[str]) -> Start:
    """The known part of a run's start, before Caffe has the nets."""
    return UNKNOWN_START if snapshot or weights else SCRATCH


@dataclass(frozen=True)
class ChosenPolicy:
    """A policy, where it comes from, and the parameters that rules filled in."""

    policy: Policy
    origin: Origin
    filled: tuple[Filled, ...] = ()

    @property
    def own(self) -> bool:
        """Whether it is the solver's own lr_policy."""
        return self.origin is Origin.SOLVER


def choose_policy(
    text: str | None, flags: Mapping[str, Any], solver: Solver, max_iter: int
) -> ChosenPolicy:
    """The policy to train with.

    Args:
        text: what was given, None for the solver's own lr_policy.
        flags: k0, k1, gamma, p, l; None where not given.
        solver: the solver.
        max_iter: iterations of the training.

    Raises:
        PolicyError: the policy cannot be understood or completed.
        InputError: parameters without a policy, or a solver whose own policy is unusable.
    """
    if text is None:
        given = [f"{{{name}}}" for name, value in flags.items() if value is not None]
        if given:
            raise ParameterError(f"{', '.join(given)} require{'s' * (len(given) == 1)} {{policy}}")
        return ChosenPolicy(_native(solver, max_iter), Origin.SOLVER)
    done = complete_policy(text, flags, solver, max_iter)
    return ChosenPolicy(done.policy, Origin.GIVEN, done.filled)


def complete_policy(
    text: str, flags: Mapping[str, Any], solver: Solver, max_iter: int
) -> Completed:
    """The given policy with what was left out filled in by simple rules.

    Raises:
        PolicyError: the policy cannot be understood or completed.
        InputError: the solver's base_lr is what it cannot be completed with.
    """
    base_lr = shortest(solver.message.base_lr)
    try:
        return complete_text(
            text, flags, base_lr=base_lr, max_iter=max_iter, epoch=solver.epoch, named=named
        )
    except PolicyError as error:
        if not math.isfinite(base_lr):
            raise InputError(
                f"{solver.path}: base_lr is {base_lr:g}; allowed: a finite number"
            ) from error
        if isinstance(error, NoBaseLR):
            raise InputError(f"{solver.path}: {error}") from error
        raise


def check_triggers(policy: Policy, solver: Solver) -> None:
    """Raise an InputError if a policy depends on a metric that the solver's tests do not measure.

    Whether they have a loss, only the first test tells (see ``check_measured``).
    """
    for trigger in _triggers(policy):
        if not solver.tests:
            raise ParameterError(
                "{policy}: {0:.7g} decides by tests, but {1} has no test nets (no test_iter)",
                policy,
                solver.path,
            )
        if trigger.metric == "top1" and solver.tests[0].head is None:
            raise ParameterError(
                "{policy}: {0:.7g} decides by top1, but the {1} of {2} does not classify; "
                "allowed: metric=test_loss",
                policy,
                solver.tests[0].net.title,
                solver.path,
            )


def check_measured(policy: Policy, solver: Solver, test: Measurement) -> None:
    """Raise a TrainingError if a policy depends on a metric that a test of the first net has not got."""
    for trigger in _triggers(policy):
        if getattr(test, trigger.metric) is None:
            raise TrainingError(
                f"{named('policy')}: {policy:.7g} decides by {trigger.metric}, which a test of the "
                f"{solver.tests[0].net.title} of {solver.path} does not give"
            )


def _triggers(policy: Policy) -> set[Trigger]:
    """What a policy may have to watch for, now or later."""
    starts = [segment.start for segment in getattr(policy, "segments", ())]
    later = [segment.policy.pending for segment in getattr(policy, "segments", ())]
    return {one for one in (*starts, *later, policy.pending) if isinstance(one, Trigger)}


def _native(solver: Solver, max_iter: int) -> Policy:
    message = solver.message
    if not message.HasField("lr_policy"):
        raise ParameterError(
            "{0}: lr_policy is missing; give one there or a policy with {policy}", solver.path
        )
    _check_native(solver)
    try:
        return solver.exact_lr_policy(max_iter)
    except PolicyError as error:
        raise InputError(f"{solver.path}: {error}") from error


def _check_native(solver: Solver) -> None:
    """Raise an InputError for an LR of a fork's own, which could be trained with but not be told."""
    message = solver.message
    if message.lr_policy == "plateau":
        raise ParameterError(
            '{0}: lr_policy: "plateau" is a fork\'s own; the same is done by {policy} "PLATEAU(k0={1:g}, '
            'gamma={2:g}, n=N, metric=test_loss)", whose n counts tests without improvement',
            solver.path,
            shortest(message.base_lr),
            shortest(message.gamma),
        )
    # What Caffe's GetLearningRate checks, as it does: multistep's gamma without a stepvalue, too.
    policy = message.lr_policy
    for name, policies, ok, allowed in (
        ("base_lr", (policy,), math.isfinite(message.base_lr), "a finite number"),
        ("gamma", _WITH_GAMMA, 0 <= message.gamma < math.inf, "0 or more"),
        ("stepsize", ("step", "sigmoid"), message.stepsize > 0, "1 or more"),
    ):
        if policy in policies and not ok:
            value = shortest(getattr(message, name)) if name != "stepsize" else message.stepsize
            is_what = f"is {value:g}" if message.HasField(name) else "is missing"
            raise InputError(
                f'{solver.path}: lr_policy: "{policy}": {name} {is_what}; allowed: {allowed}'
            )
    fields = fork_lr_fields(message)
    if fields:
        raise ParameterError(
            "{0}: {1}: specific to a fork, its effect on the LR is unknown here; allowed: a policy with "
            "{policy} (POLY(k0=.., k1=.., p=..) falls to k1, like poly with min_lr), or a solver without",
            solver.path,
            ", ".join(fields),
        )


def choose_gpu(flag: str | None, solver: Solver, info: CaffeInfo) -> int | None:
    """The GPU's id, None for the CPU, by ``caffe train``'s rule: as given, else an explicit solver_mode: GPU.

    Raises:
        InputError: not a GPU that this Caffe has, or more than one.
    """
    message = solver.message
    if flag is None:
        explicit = message.HasField("solver_mode") and message.solver_mode == message.GPU
        return (
            check_gpu(message.device_id, f"{verbatim(solver.path)}: solver_mode: GPU", info)
            if explicit
            else None
        )
    if flag == "none":
        return None
    if flag == "all":
        ids = list(range(info.gpus)) or [0]
    else:
        try:
            ids = [int(part) for part in flag.split(",")]
        except ValueError:
            raise ParameterError(
                "{gpu}: {0!r}; allowed: a GPU's number, all, or none for the CPU", flag
            ) from None
    if len(ids) > 1:
        raise ParameterError(
            "{gpu} {0}: {1} GPUs; allowed: one for each training (start one training per GPU)",
            flag,
            len(ids),
        )
    return check_gpu(ids[0], f"{{gpu}} {flag}", info)


def check_gpu(
    gpu: int, where: str, info: CaffeInfo, hint: str = " ({gpu} none trains on the CPU)"
) -> int:
    """The GPU's id; ``where`` says who asks for it, as part of a ``ParameterError``.

    Raises:
        InputError: this Caffe has no such GPU.
    """
    if not info.cuda:
        raise ParameterError(where + ": the Caffe in {0} is CPU-only" + hint, info.path)
    if not 0 <= gpu < info.gpus:
        raise ParameterError(where + ": no such GPU; this machine has {0}", info.gpus)
    return gpu


def choose_layers(flag: str, gpu: int | None, info: CaffeInfo) -> str:
    """ "fast" if the fast layers are wanted and available, else "stock".

    Args:
        flag: one of ``training.request.LAYERS``.
        gpu: the GPU's id, None for the CPU.
        info: the Caffe.

    Raises:
        InputError: fast ones were asked for and there are none.
    """
    if flag == "stock" or (flag == "auto" and gpu is not None):
        return "stock"
    if gpu is not None:
        raise ParameterError(
            "{layers} {0}: only for the CPU; the training is on GPU {1}", flag, gpu
        )
    library = find_library(info.path)
    if flag != "auto" and library.path is None:
        remedy = f" ({library.remedy})" if library.remedy else ""
        raise ParameterError("{layers} {0}: {1}{2}", flag, library.why, remedy)
    return "fast" if library.path else "stock"


def width_of(flag: str) -> int | None:
    """The most bits of a vector that a choice of layers allows; None for what the CPU has."""
    return NARROW if flag == "fast-avx2" else None


def choose_threads(flag: int, layers: str) -> int:
    """The number of threads, checked against the layers and this machine.

    Raises:
        InputError: there are not so many cores, or Caffe's own layers are used, which have one
            thread.
    """
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    if not 1 <= flag <= cores:
        raise ParameterError(
            "{threads}: {0}; allowed: 1 to {1}, the cores that this process may use", flag, cores
        )
    if flag > 1 and layers == "stock":
        raise ParameterError(
            "{threads} {0}: only the fast layers use several cores; this training uses Caffe's own",
            flag,
        )
    return flag


def choose_seed(flag: int | None, solver: Solver) -> int:
    """The given seed, else the solver's random_seed as Caffe takes it (modulo 2^32), else a random one."""
    if flag is not None:
        if not 0 <= flag < 2**31:
            raise ParameterError("{seed}: {0}; allowed: 0 to {1}", flag, 2**31 - 1)
        return flag
    if solver.message.random_seed >= 0:
        return caffe_seed(int(solver.message.random_seed))
    return secrets.randbelow(2**31)


def check_weights(flag: str | None, solver: Solver, messages: Messages) -> list[str]:
    """The given caffemodels, else of the solver's own weights field (Caffe of 2018 has one).

    Raises:
        InputError: a file that is missing or is not a caffemodel.
    """
    entries = [flag] if flag else solver.weights
    where = "{weights}" if flag else f"{verbatim(solver.path)}: weights"
    names = [name.strip() for entry in entries for name in entry.split(",")]
    for name in names:
        if not name:
            raise ParameterError(
                where + ": the name of a file is empty; allowed: comma-separated caffemodels"
            )
        if not Path(name).is_file():
            raise ParameterError(where + ": no such file: {0}", name)
        try:
            read_model(Path(name), messages)
        except InputError as error:
            raise ParameterError(where + ": {0}", error) from error
    return names
