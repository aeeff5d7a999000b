"""Caffe's own LR policies as policies of this module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

from .errors import PolicyError, nearest
from .policy import FunctionPolicy, Policy


class _SolverFields(NamedTuple):
    base_lr: float
    gamma: float
    power: float
    stepsize: int | None
    stepvalue: Sequence[int]
    max_iter: int


def from_caffe(
    lr_policy: str,
    *,
    base_lr: float,
    gamma: float | None = None,
    power: float | None = None,
    stepsize: int | None = None,
    stepvalue: Sequence[int] = (),
    max_iter: int,
) -> Policy:
    """The policy with the LR of Caffe's solver fields at every iteration (SGDSolver::GetLearningRate).

        fixed      base_lr                                          FIX
        step       base_lr * gamma^floor(t/stepsize)                STEP
        exp        base_lr * gamma^t                                EXP
        inv        base_lr * (1 + gamma*t)^(-power)                 INV
        multistep  base_lr * gamma^(number of stepvalues passed)    NSTEP; FIX where there are none
        poly       base_lr * (1 - t/max_iter)^power                 POLY, bound to max_iter
        sigmoid    base_lr / (1 + exp(-gamma*(t - stepsize)))       SIG

    What Caffe accepts is accepted (base_lr of 0 or below, gamma above 1, any power); such a policy
    is read back from its text by parse(text, strict=False). Equal, descending or repeated
    stepvalues behave as in Caffe, which moves on by one step per iteration at most.

    Arguments:
        lr_policy: Caffe's name.
        base_lr: the solver's field, as are the others. Caffe stores and computes in float32: pass
            the float32 values for the closest agreement.
        gamma: None is an unset field, which Caffe treats as 0.
        power: as gamma.
        stepsize: of step, in iterations.
        stepvalue: the boundaries of multistep, in iterations.
        max_iter: the last iteration, where poly reaches 0.

    Raises:
        PolicyError: an unknown lr_policy, or values with which Caffe stops or has no finite LR.

    >>> from_caffe("inv", base_lr=0.01, gamma=0.0001, power=0.75, max_iter=10000)
    parse('INV(k0=0.01, gamma=0.0001, p=0.75)')
    """
    make = _NATIVE.get(lr_policy)
    if make is None:
        raise PolicyError(
            f"unknown lr_policy {lr_policy!r};{nearest(lr_policy, _NATIVE)} known: {', '.join(_NATIVE)}"
        )
    return make(_SolverFields(base_lr, gamma or 0.0, power or 0.0, stepsize, stepvalue, max_iter))


def caffe_fields(policy: Policy, max_iter: int) -> dict[str, Any] | None:
    """Caffe's solver fields for a policy, the inverse of ``from_caffe``; None where Caffe has none.

    Arguments:
        max_iter: the length of the training, with which Caffe's poly ends.

    >>> caffe_fields(_relaxed("STEP", k0=0.1, gamma=0.5, l=100), 1000)
    {'lr_policy': 'step', 'base_lr': 0.1, 'gamma': 0.5, 'stepsize': 100}
    """
    if not isinstance(policy, FunctionPolicy) or policy.name not in _FIELDS:
        return None
    values = dict(policy.params)
    lr_policy, names = _FIELDS[policy.name]
    if values.get("k1") or (policy.name == "POLY" and values.get("l") not in (None, max_iter)):
        return None
    fields: dict[str, Any] = {"lr_policy": lr_policy, "base_lr": values["k0"]}
    for name, field in names.items():
        value = values[name]
        fields[field] = list(value) if isinstance(value, tuple) else value
    return fields


def _relaxed(function: str, **params: Any) -> FunctionPolicy:
    return FunctionPolicy(function, params, strict=False)


def _step(solver: _SolverFields) -> Policy:
    if not solver.stepsize:
        raise PolicyError('lr_policy "step" needs a stepsize above 0')
    return _relaxed("STEP", k0=solver.base_lr, gamma=solver.gamma, l=solver.stepsize)


def _boundaries(stepvalue: Sequence[int]) -> list[int]:
    """The iterations at which multistep takes its steps: one per iteration at most."""
    boundaries: list[int] = []
    for value in stepvalue:
        boundaries.append(max(value, boundaries[-1] + 1 if boundaries else 0))
    return boundaries


def _multistep(solver: _SolverFields) -> Policy:
    boundaries = _boundaries(solver.stepvalue)
    if not boundaries:
        return _relaxed("FIX", k0=solver.base_lr)
    return _relaxed("NSTEP", k0=solver.base_lr, gamma=solver.gamma, l=boundaries)


def current_step(
    lr_policy: str, iteration: int, *, stepsize: int = 0, stepvalue: Sequence[int] = ()
) -> int:
    """The steps that Caffe's solver state of ``iteration`` holds: those up to the last update's LR.

    >>> [current_step("multistep", iteration, stepvalue=[10, 50]) for iteration in (10, 11, 50, 51)]
    [0, 1, 1, 2]
    """
    last = iteration - 1
    if lr_policy == "step" and stepsize > 0:
        return max(0, last) // stepsize
    if lr_policy == "multistep":
        return sum(boundary <= last for boundary in _boundaries(stepvalue))
    return 0


_NATIVE: dict[str, Callable[[_SolverFields], Policy]] = {
    "fixed": lambda s: _relaxed("FIX", k0=s.base_lr),
    "step": _step,
    "exp": lambda s: _relaxed("EXP", k0=s.base_lr, gamma=s.gamma),
    "inv": lambda s: _relaxed("INV", k0=s.base_lr, gamma=s.gamma, p=s.power),
    "multistep": _multistep,
    "poly": lambda s: _relaxed("POLY", k0=s.base_lr, p=s.power).bind(s.max_iter),
    "sigmoid": lambda s: _relaxed("SIG", k0=s.base_lr, gamma=s.gamma, l=s.stepsize or 0),
}
# The fields of what Caffe has, by the policy's parameters.
_FIELDS: dict[str, tuple[str, dict[str, str]]] = {
    "FIX": ("fixed", {}),
    "STEP": ("step", {"gamma": "gamma", "l": "stepsize"}),
    "EXP": ("exp", {"gamma": "gamma"}),
    "INV": ("inv", {"gamma": "gamma", "p": "power"}),
    "NSTEP": ("multistep", {"gamma": "gamma", "l": "stepvalue"}),
    "POLY": ("poly", {"p": "power"}),
    "SIG": ("sigmoid", {"gamma": "gamma", "l": "stepsize"}),
}
