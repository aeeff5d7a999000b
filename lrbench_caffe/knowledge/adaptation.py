"""Adapts an LR policy from one training to another: other batch, epoch, length or net.

What is kept, and why:

- LRs (k0, k1) of the same net under the same optimizer and momentum are multiplied by the ratio of
  the samples per iteration (batch x iter_size): the linear scaling rule of Goyal et al. 2017, the
  paper's reference [27]. For another net, optimizer or momentum they are multiplied by the ratio of
  the solvers' base_lr: that is what is known about the LRs that the other net tolerates, and the
  paper, too, scales its ranges from the fixed LR (section V-A).
- Cycles and steps (l of the cyclic functions and of STEP) are kept in epochs (section IV: a
  multiple of the iterations per epoch), as is the decay per epoch (gamma of EXP, the *EXP functions
  and INV). Where an epoch is not known, the ratio of the lengths takes its place. A cycle of 2l
  that would no longer fit into the training is shortened to it.
- What is placed relative to the end (the boundaries of NSTEP, l of POLY, SIG, the segments of a
  composition) is kept as a share of max_iter.
- A plateau's n is counted in tests and stays; what it decided is left out.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from lrbench_caffe.lr import Composition, FunctionPolicy, Policy, PolicyError, Trigger
from lrbench_caffe.records import SolverSettings

_DECAY_PER_ITERATION = ("EXP",)  # the end of the names with gamma^t
_AT_SHARES = ("NSTEP", "POLY", "SIG")
_SMALL = 1e-4  # a gamma below it has its own five digits, one above those of 1 - gamma
_FARTHEST = 1e9  # a ratio of two trainings beyond it is a mistake in a record, not a training


class CannotAdapt(ValueError):
    """Two trainings are too different to adapt a policy from one to the other."""


@dataclass(frozen=True)
class TrainingContext:
    """The properties of a training that its policy depends on.

    Attributes:
        network: digest of the net.
        solver: the settings besides the LR.
        max_iter, epoch: iterations; epoch is None where unknown.
    """

    network: str
    solver: SolverSettings
    max_iter: int
    epoch: float | None

    @property
    def samples(self) -> int | None:
        """Samples per iteration."""
        return self.solver.batch * self.solver.iter_size if self.solver.batch else None


@dataclass(frozen=True)
class Change:
    """The change from one training to another.

    Attributes:
        lr: factor of the LRs, with ``lr_reason`` for people.
        epoch: ratio of the iterations in an epoch; ``by_epoch`` is False if the lengths are used
            for it.
        length: ratio of max_iter.
        old, new: the trainings.
    """

    lr: float
    lr_reason: str
    epoch: float
    by_epoch: bool
    length: float
    old: TrainingContext
    new: TrainingContext


def change_between(old: TrainingContext, new: TrainingContext) -> Change:
    """The change by which a policy of ``old`` has to be adapted for ``new``.

    Raises:
        CannotAdapt: a training without iterations, or an implausible ratio.
    """
    if old.max_iter < 1 or new.max_iter < 1:
        raise CannotAdapt(f"max_iter {old.max_iter} and {new.max_iter}; both must be 1 or more")
    factor, reason = _lr_factor(old, new)
    length = new.max_iter / old.max_iter
    by_epoch = bool(old.epoch and new.epoch)
    epoch = new.epoch / old.epoch if old.epoch and new.epoch else length
    if any(not 1 / _FARTHEST <= ratio <= _FARTHEST for ratio in (factor, epoch, length)):
        raise CannotAdapt(
            f"LRs x {factor:g}, epoch x {epoch:g}, length x {length:g}: too far apart"
        )
    return Change(factor, reason, epoch, by_epoch, length, old, new)


def _lr_factor(old: TrainingContext, new: TrainingContext) -> tuple[float, str]:
    same = (old.network, old.solver.type, old.solver.momentum)
    if same == (new.network, new.solver.type, new.solver.momentum):
        if not old.samples or not new.samples:
            return 1.0, "kept: the samples per iteration are unknown"
        reason = f"{new.samples} instead of {old.samples} samples per iteration (linear, Goyal et al. 2017)"
        return new.samples / old.samples, reason
    if not old.solver.base_lr or not new.solver.base_lr:
        return 1.0, "kept: base_lr is unknown"
    what = "another net" if old.network != new.network else "another optimizer or momentum"
    reason = f"base_lr {new.solver.base_lr:g} instead of {old.solver.base_lr:g} ({what})"
    return new.solver.base_lr / old.solver.base_lr, reason


def adapt(policy: Policy, change: Change) -> Policy:
    """The policy for the new training; unchanged to the last digit if nothing relevant differs.

    Numbers that change have five significant digits.

    Raises:
        CannotAdapt: a number would leave what floating point or the function's parameters can hold.
    """
    try:
        return _adapted(policy, change)
    except (PolicyError, ArithmeticError) as error:
        raise CannotAdapt(f"{policy}: {error}") from error


def _adapted(policy: Policy, change: Change) -> Policy:
    if isinstance(policy, Composition):
        segments: list[tuple[int | Trigger, Policy]] = []
        for start, segment in policy.segments:
            moved = _iterations(start, change.length) if isinstance(start, int) and start else start
            # Two boundaries that fall on one iteration stay apart, as their order is part of the
            # policy.
            if isinstance(moved, int) and segments and isinstance(segments[-1][0], int):
                moved = max(moved, segments[-1][0] + 1)
            segments.append((moved, _adapt_one(segment, change)))
        return Composition(segments)
    assert isinstance(policy, FunctionPolicy)
    return _adapt_one(policy, change)


def _adapt_one(policy: FunctionPolicy, change: Change) -> FunctionPolicy:
    values = dict(policy.params)
    values.pop("decided", None)
    for name in ("k0", "k1"):
        if name in values and change.lr != 1:
            values[name] = _digits(values[name] * change.lr)  # type: ignore[operator]
    time = change.length if policy.name in _AT_SHARES else change.epoch
    if "l" in values:
        values["l"] = _steps(policy, values["l"], time, change)
    if "gamma" in values and time != 1:
        values["gamma"] = _gamma(policy.name, values["gamma"], time)  # type: ignore[arg-type]
    return FunctionPolicy(policy.name, values, strict=False)


def _steps(
    policy: FunctionPolicy, value: object, time: float, change: Change
) -> int | tuple[int, ...]:
    if isinstance(value, tuple):
        return tuple(sorted({_iterations(step, time) for step in value}))
    assert isinstance(value, int)
    steps = _iterations(value, time)
    return min(steps, _longest(change)) if _must_fit(policy, value, change) else steps


def _must_fit(policy: FunctionPolicy, value: int, change: Change) -> bool:
    """Whether a cycle fitted into the old training."""
    return policy.kind == "cyclic" and 2 * value <= change.old.max_iter


def _longest(change: Change) -> int:
    """Half of a cycle that fits into the new training."""
    return max(1, change.new.max_iter // 2)


def _gamma(name: str, gamma: float, time: float) -> float:
    if name.endswith(_DECAY_PER_ITERATION):  # gamma^t
        share = gamma ** (1 / time)
        if share < _SMALL:
            return max(_digits(share), sys.float_info.min) if gamma else 0.0
        return float(f"{1 - _digits(1 - share):.15g}")
    if name in ("INV", "SIG"):  # gamma * t
        return _digits(gamma / time)
    return gamma  # for each step


def _iterations(value: int, factor: float) -> int:
    return max(1, round(value * factor))


def _digits(value: float) -> float:
    return float(f"{value:.5g}")


def explain(policy: Policy, change: Change) -> list[str]:
    """What ``adapt`` changed in this policy, as lines of text, one for each reason."""
    pairs = list(zip(_parts(policy), _parts(adapt(policy, change))))
    changed = {
        name
        for old, new in pairs
        for name in old.params
        if new.params.get(name) not in (None, old.params[name])
    }
    lines = []
    lrs = sorted(changed & {"k0", "k1"})
    if lrs:
        lines.append(f"{', '.join(lrs)} x {change.lr:.4g}: {change.lr_reason}")
    times = sorted(changed - {"k0", "k1"})
    shares = isinstance(policy, Composition) or policy.functions[0] in _AT_SHARES
    if (
        times
        and change.epoch != 1
        and change.by_epoch
        and not all(old.name in _AT_SHARES for old, _ in pairs)
    ):
        epochs = f"{change.new.epoch:.4g} iterations in each instead of {change.old.epoch:.4g}"
        lines.append(f"{', '.join(times)} kept in epochs: {epochs}")
    elif (times and not change.by_epoch) or (shares and change.length != 1):
        lines.append(
            f"kept as shares of {change.new.max_iter} instead of {change.old.max_iter} iterations"
        )
    if any(_shortened(old, change) for old, _ in pairs):
        lines.append(
            f"l shortened to {_longest(change)}, so that a cycle fits into {change.new.max_iter} iterations"
        )
    return lines


def _parts(policy: Policy) -> list[FunctionPolicy]:
    if isinstance(policy, Composition):
        return [segment.policy for segment in policy.segments]
    assert isinstance(policy, FunctionPolicy)
    return [policy]


def _shortened(policy: FunctionPolicy, change: Change) -> bool:
    steps = policy.params.get("l")
    if not isinstance(steps, int) or not _must_fit(policy, steps, change):
        return False
    return _iterations(steps, change.epoch) > _longest(change)
