"""Completes a policy, such as a bare `sin2`, by simple stated rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from . import parameters as par
from .errors import NoBaseLR, PolicyError
from .functions import LRFunction, find_function
from .parameters import Value
from .policy import FunctionPolicy, Policy
from .text import RawSegment, build, read, read_value

FLAGS = ("k0", "k1", "gamma", "p", "l")
_FINAL = 0.1  # the envelope at the end of training
_NSTEP_AT = (
    0.50,
    0.70,
    0.80,
    0.90,
    0.95,
)  # of max_iter: Caffe's multistep for LeNet, the paper's Table VII


class Filled(NamedTuple):
    """A parameter that was not given.

    Attributes:
        parameter, value: its name and its value.
        rule: where the value comes from, in words.
        chosen: whether another value could have been chosen; POLY's l is the training's length.
    """

    parameter: str
    value: Value
    rule: str
    chosen: bool = True


class Completed(NamedTuple):
    """A complete policy and what was filled in to make it."""

    policy: Policy
    filled: tuple[Filled, ...]


class _Known(NamedTuple):
    """The input of the rules: the training, the function, and the values so far."""

    base_lr: float
    max_iter: int
    epoch: float | None
    function: LRFunction
    values: dict[str, Any]


def complete(
    name: str,
    given: Mapping[str, object],
    *,
    base_lr: float,
    max_iter: int,
    epoch: float | None = None,
) -> Completed:
    """A policy of the named function from some of its parameters.

    The rules, for a parameter that is not given:

        k0     base_lr
        k1     6 x the larger of base_lr and k0 (cyclic functions; decaying ones keep their lower bound of 0)
        l      cyclic: 2 epochs rounded to 100 iterations, at least 100, at most max_iter/2
               (max_iter/10 where the epoch is not known); STEP: max_iter/10; NSTEP: 50, 70, 80, 90
               and 95 % of max_iter; POLY: max_iter; SIG: max_iter/2
        gamma  EXP, *EXP: the envelope is 0.1 at max_iter; STEP, NSTEP: it is 0.1 at the last iteration;
               INV: 1/max_iter; SIG: -ln(9)/l, a fall from 0.9 at 0 over 0.5 at l to 0.1 at 2l;
               PLATEAU: 0.1
        p      INV: 0.75 (Caffe's LeNet); POLY: 1.2 (the paper's Table VII)
        n      3 tests

    Arguments:
        name: an LR function.
        given: the parameters that are known, checked like those of any policy.
        base_lr: the solver's LR.
        max_iter: iterations of the training.
        epoch: iterations per epoch, None where not known.

    Raises:
        PolicyError: as for any policy, the filled-in values included.

    >>> done = complete("sin2", {}, base_lr=0.01, max_iter=10000, epoch=600)
    >>> str(done.policy)
    'SIN2(k0=0.01, k1=0.06, l=1200)'
    >>> done.filled[1]
    Filled(parameter='k1', value=0.06, rule='6 x base_lr', chosen=True)
    """
    function = find_function(name)
    end = par.check_whole("max_iter", max_iter)
    known = {
        p.name: p.accept(function.name, given[p.name])
        for p in function.parameters
        if p.name in given
    }
    for other in given:
        if other not in function.parameter_names:
            raise PolicyError(par.unknown_parameter(function.name, other, function.parameter_names))
    task = _Known(base_lr, end, epoch, function, dict(known))
    filled: list[Filled] = []
    for parameter_name in _ORDER:
        rule = _rule(function, parameter_name)
        if rule is None or parameter_name in known:
            continue
        value, words = rule(task)
        task.values[parameter_name] = value
        chosen = parameter_name != "l" or par.L_MAX_ITER not in function.parameters
        filled.append(Filled(parameter_name, value, words, chosen))
    if par.L_MAX_ITER in function.parameters and "l" not in known:
        del task.values["l"]  # bound below, so that it is not counted as a choice
    return Completed(FunctionPolicy(function.name, task.values).bind(end), tuple(filled))


def complete_text(
    text: str,
    given: Mapping[str, object],
    *,
    base_lr: float,
    max_iter: int,
    epoch: float | None = None,
    named: Callable[[str], str] = str,
) -> Completed:
    """The policy for what a person wrote, and its parameters that were given separately.

    Arguments:
        text: a bare name, a call with some or all of its parameters, or a complete composition.
        given: k0, k1, gamma, p and l, as numbers, lists or text; None is not given.
        base_lr: see `complete`.
        max_iter: see `complete`.
        epoch: see `complete`.
        named: how messages write a parameter that was given separately.

    Raises:
        PolicyError: the text cannot be read; a parameter is given in both ways; one that the
            function does not have, or any beside a composition; or as for any policy.

    >>> done = complete_text("SIN2(l=500)", {"k1": 0.05}, base_lr=0.01, max_iter=10000, epoch=600)
    >>> str(done.policy), done.filled
    ('SIN2(k0=0.01, k1=0.05, l=500)', (Filled(parameter='k0', value=0.01, rule='base_lr', chosen=True),))
    """
    separate = {
        name: read_value(value, named(name)) if isinstance(value, str) else value
        for name, value in given.items()
        if value is not None
    }
    segments = read(text)
    if len(segments) > 1 or segments[0].start not in (None, 0):
        if separate:
            names = ", ".join(map(named, separate))
            raise PolicyError(
                f"{names} cannot be combined with a composition: write it in its segments"
            )
        return Completed(build(segments).bind(par.check_whole("max_iter", max_iter)), ())
    return complete(
        segments[0].call.name,
        _merged(segments[0], separate, named),
        base_lr=base_lr,
        max_iter=max_iter,
        epoch=epoch,
    )


def _merged(
    segment: RawSegment, separate: Mapping[str, object], named: Callable[[str], str]
) -> dict[str, object]:
    written: dict[str, object] = dict(segment.call.arguments)
    function = find_function(segment.call.name)
    for name in separate:
        if name in written:
            raise PolicyError(
                f"{function.name}: {name} is given in the policy and again as {named(name)}"
            )
        if name not in function.parameter_names:
            names = ", ".join(function.parameter_names)
            raise PolicyError(
                f"{named(name)} does not go with {function.name}; its parameters: {names}"
            )
    return {**written, **separate}


# ---- the rules: each returns a value and the words for it

_Made = tuple[Value, str]
_Filler = Callable[[_Known], _Made]


def _k0(task: _Known) -> _Made:
    if not task.base_lr > 0:
        raise NoBaseLR(
            f"{task.function.name}: k0 is missing, and base_lr={task.base_lr} cannot replace it"
        )
    return float(task.base_lr), "base_lr"


def _k1(task: _Known) -> _Made:
    if task.values["k0"] > task.base_lr:
        return _digits(6 * task.values["k0"]), "6 x k0"
    return _digits(6 * task.base_lr), "6 x base_lr"


def _l_cyclic(task: _Known) -> _Made:
    if task.epoch is None:
        return max(task.max_iter // 10, 1), "a tenth of max_iter (epoch not known)"
    rounded = max(100, 100 * math.floor(2 * task.epoch / 100 + 0.5))
    if rounded > max(task.max_iter // 2, 1):
        return max(task.max_iter // 2, 1), "half of max_iter (2 epochs, rounded, would be more)"
    if 2 * task.epoch < 50:
        return rounded, "100 iterations (2 epochs would be fewer)"
    return rounded, "2 epochs, rounded to 100 iterations"


def _l_step(task: _Known) -> _Made:
    return max(task.max_iter // 10, 1), "a tenth of max_iter"


def _l_nstep(task: _Known) -> _Made:
    places = sorted({max(round(task.max_iter * part), 1) for part in _NSTEP_AT})
    return tuple(places), "50, 70, 80, 90 and 95 % of max_iter"


def _l_poly(task: _Known) -> _Made:
    return task.max_iter, "max_iter"


def _l_sig(task: _Known) -> _Made:
    return max(task.max_iter // 2, 1), "half of max_iter"


def _gamma_exp(task: _Known) -> _Made:
    return _decay(task.max_iter), f"the envelope is {_FINAL} at max_iter"


def _gamma_step(task: _Known) -> _Made:
    return _decay_in_steps((task.max_iter - 1) // task.values["l"])


def _gamma_nstep(task: _Known) -> _Made:
    passed = sum(boundary < task.max_iter for boundary in task.values["l"])
    return _decay_in_steps(passed)


def _gamma_inv(task: _Known) -> _Made:
    return _digits(1 / task.max_iter), "1/max_iter"


def _gamma_sig(task: _Known) -> _Made:
    gamma = _digits(-math.log(9) / task.values["l"])
    return gamma, "-ln(9)/l: falls from 0.9 at 0 over 0.5 at l to 0.1 at 2l"


def _fixed(value: Value, words: str) -> _Filler:
    return lambda task: (value, words)


def _decay_in_steps(steps: int) -> _Made:
    if steps < 1:
        return _FINAL, "a tenth; no step falls within max_iter"
    return _decay(steps), f"the envelope is {_FINAL} at the last iteration"


def _decay(times: int) -> float:
    """gamma with gamma^times = 0.1, and 1 - gamma of five digits."""
    return float(f"{1 - _digits(1 - _FINAL ** (1 / times)):.15g}")


def _digits(value: float) -> float:
    return float(f"{value:.5g}")


_ORDER = ("k0", "k1", "l", "gamma", "p", "n")  # gamma's rules need l, k1's needs k0
_RULES: dict[str, Mapping[str, _Filler]] = {
    "STEP": {"l": _l_step, "gamma": _gamma_step},
    "NSTEP": {"l": _l_nstep, "gamma": _gamma_nstep},
    "EXP": {"gamma": _gamma_exp},
    "INV": {"gamma": _gamma_inv, "p": _fixed(0.75, "Caffe's LeNet")},
    "POLY": {"l": _l_poly, "p": _fixed(1.2, "the paper's Table VII")},
    "SIG": {"l": _l_sig, "gamma": _gamma_sig},
    "PLATEAU": {
        "gamma": _fixed(0.1, "a tenth at each plateau"),
        "n": _fixed(3, "3 tests without improvement"),
    },
}
_CYCLIC_RULES: Mapping[str, _Filler] = {"k1": _k1, "l": _l_cyclic, "gamma": _gamma_exp}


def _rule(function: LRFunction, name: str) -> _Filler | None:
    """The rule for a parameter, or None where the function lacks it or its default stands."""
    if name not in function.parameter_names:
        return None
    if name == "k0":
        return _k0
    return (
        _CYCLIC_RULES.get(name)
        if function.kind == "cyclic"
        else _RULES.get(function.name, {}).get(name)
    )
