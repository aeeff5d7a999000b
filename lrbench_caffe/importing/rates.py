"""The LR policy of a training in a log: the solver's, checked against the LRs that Caffe printed.

Forks have fields that change the LR (NVCaffe: min_lr, rampup_interval, rampup_lr; Intel's Caffe:
warmup_iter, warmup_start_lr, multifixed), and policies of their own. Each way to read a solver
gives a candidate; the first that agrees with the printed LRs is the policy. Where none does, the
policy is made of straight pieces through the printed LRs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

import numpy as np

from lrbench_caffe.lr import Composition, FunctionPolicy, Policy, PolicyError
from lrbench_caffe.prototxt.messages import shortest
from lrbench_caffe.prototxt.solver import caffe_policy

Fields = Mapping[str, Sequence[str]]
Rates = Callable[[np.ndarray], np.ndarray]

NATIVE = ("fixed", "step", "exp", "inv", "multistep", "poly", "sigmoid")
_CLOSE = 3e-4  # relative; glog prints six digits, and Caffe computes in float32
_RAMPS = (
    ("rampup_interval", "rampup_lr"),
    ("warmup_iter", "warmup_start_lr"),
    ("warmup_iters", "warmup_lr"),
)
_PIECES = 8  # straight ones for a curved beginning
_ROUNDING = 1e-6  # relative; less is beyond the six digits that glog prints
_LONGEST = 40  # pieces of a policy that is made of the printed LRs
_TOLERANCES = (2e-3, 1e-2, 5e-2)  # relative, of its pieces


@dataclass(frozen=True)
class LoggedPolicy:
    """The policy of a training.

    Attributes:
        policy: the policy, bound to the training's length.
        remark: what a person should know of it, None where the solver's own words say all.
        wrong: iterations whose printed LR is damaged.
    """

    policy: Policy
    remark: str | None = None
    wrong: frozenset[int] = frozenset()


@dataclass(frozen=True)
class _PolicyGuess:
    """A policy, the fork's fields that it follows from, and the exact LRs where it approximates them."""

    policy: Policy
    because: tuple[str, ...] = ()
    exact: Rates | None = None


def find_policy(
    message: Any, fields: Fields, lrs: Mapping[int, float], lengths: Sequence[tuple[int, int]] = ()
) -> LoggedPolicy:
    """The policy of a training.

    Args:
        message: its SolverParameter.
        fields: the solver's fields as printed, also those that this Caffe does not know.
        lrs: the LR that was printed at each iteration; may be empty.
        lengths: the iteration at which each session began, and its max_iter.

    Raises:
        PolicyError: the solver's lr_policy is not known, or cannot be, and no LRs were printed.
    """
    max_iter = message.max_iter
    own = [*_of_lengths(message, lengths), *_candidates(message, fields, message.lr_policy)]
    if not lrs:
        if not own:
            _native(message, message.lr_policy)  # says what is wrong
        return LoggedPolicy(own[0].policy.bind(max_iter), _because(own[0]))
    for candidate in own:
        wrong = _disagreeing(candidate, lrs, max_iter)
        if wrong is not None:
            return LoggedPolicy(candidate.policy.bind(max_iter), _because(candidate), wrong)
    for candidate in _others(message, fields, lrs):
        if _disagreeing(candidate, lrs, max_iter) == frozenset():
            policy = candidate.policy.bind(max_iter)
            return LoggedPolicy(
                policy,
                f"the solver says {_said(message)}, but the printed LRs are those of {policy}",
            )
    return _of_printed(message, lrs, own)


def _of_lengths(message: Any, lengths: Sequence[tuple[int, int]]) -> Iterator[_PolicyGuess]:
    """Poly, whose LR max_iter decides, of a training that was resumed with another max_iter."""
    if message.lr_policy != "poly" or len({length for _, length in lengths}) < 2:
        return
    segments: list[tuple[int, FunctionPolicy]] = []
    for start, length in lengths:
        segments = [segment for segment in segments if segment[0] < start]
        try:
            plain = _native(message, "poly")
        except PolicyError:
            return
        plain = _relaxed("POLY", **{**plain.params, "l": length})
        if start >= length:
            return
        segments.append((start, shifted(plain, start, length)))
    if segments and segments[0][0] == 0:
        yield _PolicyGuess(_composed(segments))


def _others(message: Any, fields: Fields, lrs: Mapping[int, float]) -> Iterator[_PolicyGuess]:
    """The solver's fields under every other lr_policy, and with the LR that was printed first."""
    for name in NATIVE:
        if name != message.lr_policy:
            yield from _candidates(message, fields, name)
    first = min(lrs)
    scaled = type(message)()
    scaled.CopyFrom(message)
    for name in (message.lr_policy, *NATIVE):
        for plain in list(_candidates(message, fields, name))[-1:]:
            rate = float(plain.policy.bind(message.max_iter)(first))
            if rate > 0 and len(lrs) > 1:
                scaled.base_lr = _short(lrs[first] / rate * message.base_lr)
                yield from _candidates(scaled, fields, name)


def _said(message: Any) -> str:
    return f"lr_policy {message.lr_policy!r} and base_lr {shortest(message.base_lr)}"


def _of_printed(message: Any, lrs: Mapping[int, float], own: list[_PolicyGuess]) -> LoggedPolicy:
    printed = as_printed(lrs)
    but = f"the solver says {_said(message)}, but the printed LRs differ"
    if printed is not None:
        return LoggedPolicy(printed, f"{but}; the policy goes through them: {printed}")
    if not own:
        _native(message, message.lr_policy)
    policy = own[0].policy.bind(message.max_iter)
    return LoggedPolicy(policy, f"{but}, and no policy goes through them; stored as {policy}")


def _because(candidate: _PolicyGuess) -> str | None:
    if not candidate.because:
        return None
    near = ", nearly" if candidate.exact else ""
    return (
        f"with the fork's {' and '.join(candidate.because)} the policy is{near} {candidate.policy}"
    )


def _disagreeing(
    candidate: _PolicyGuess, lrs: Mapping[int, float], max_iter: int
) -> frozenset[int] | None:
    """Iterations whose printed LR is another one; None where these are too many for damaged lines."""
    iterations = np.array(sorted(lrs))
    printed = np.array([lrs[t] for t in iterations.tolist()])
    try:
        rates = (candidate.exact or candidate.policy.bind(max_iter))(iterations)
    except PolicyError:
        return None
    wrong = np.flatnonzero(~np.isclose(printed, rates, rtol=_CLOSE, atol=1e-12))
    alone = len(wrong) < 2 or np.diff(wrong).min() > 1
    few = len(wrong) <= len(printed) // 10 and len(printed) - 1 not in wrong
    return frozenset(iterations[wrong].tolist()) if not len(wrong) or (alone and few) else None


# -- candidates ------------------------------------------------------------------------------------


def _candidates(message: Any, fields: Fields, lr_policy: str) -> Iterator[_PolicyGuess]:
    """Ways to read a solver under this lr_policy: with all of the fork's fields first."""
    try:
        base = _forks_own(message, fields, lr_policy) or _native(message, lr_policy)
    except (PolicyError, ValueError):
        return
    plain = _PolicyGuess(base)
    floors = [*_with_floor(plain, fields, message.max_iter)]
    for candidate in (*floors, plain):
        yield from _with_ramp(candidate, message, fields)
    yield from floors
    yield plain


def _native(message: Any, lr_policy: str) -> FunctionPolicy:
    policy = caffe_policy(message, message.max_iter, lr_policy=lr_policy)
    return _relaxed(
        policy.function, **policy.params
    )  # not bound: it may become part of a composition


def _relaxed(function: str, **params: Any) -> FunctionPolicy:
    return FunctionPolicy(function, params, strict=False)


def _forks_own(message: Any, fields: Fields, lr_policy: str) -> Policy | None:
    """Policies that BVLC's Caffe does not have: multifixed (Intel), cosine, triangular."""
    base = shortest(message.base_lr)
    if lr_policy == "multifixed" and fields.get("stagelr"):
        rates = [float(value) for value in fields["stagelr"]]
        ends = [int(value) for value in fields.get("stageiter", ())]
        starts = [0, *(end + 1 for end in ends)][: len(rates)]
        return _composed([(start, _relaxed("FIX", k0=rate)) for start, rate in zip(starts, rates)])
    if lr_policy.startswith("cos"):
        return _relaxed("COS", k0=base, k1=_field(fields, "min_lr") or 0.0, l=message.max_iter)
    if lr_policy.startswith(("triang", "cycl")) and _field(fields, "max_lr") and message.stepsize:
        return _relaxed("TRI", k0=base, k1=_field(fields, "max_lr"), l=message.stepsize)
    return None


def _field(fields: Fields, name: str) -> float | None:
    return float(fields[name][-1]) if fields.get(name) else None


def _with_floor(candidate: _PolicyGuess, fields: Fields, max_iter: int) -> Iterator[_PolicyGuess]:
    """With min_lr: NVCaffe's poly ends there, other policies stay there once they have reached it."""
    least = _field(fields, "min_lr")
    policy = candidate.policy
    if not least or max_iter < 1:
        return
    if not isinstance(policy, FunctionPolicy):
        return
    if policy.function == "POLY" and float(policy.bind(max_iter)(0)) > least:
        yield _PolicyGuess(_relaxed("POLY", **{**policy.params, "k1": least}), ("min_lr",))
    bound = policy.bind(max_iter)
    if float(bound(max_iter - 1)) < least:
        below, above = max_iter - 1, -1
        while below - above > 1:  # every policy with a floor falls
            middle = (below + above) // 2
            below, above = (middle, above) if float(bound(middle)) < least else (below, middle)
        floor = _relaxed("FIX", k0=least)
        yield _PolicyGuess(
            _composed([(0, policy), (below, floor)]) if below else floor, ("min_lr",)
        )


def _with_ramp(candidate: _PolicyGuess, message: Any, fields: Fields) -> Iterator[_PolicyGuess]:
    """With a rise to base_lr at the beginning, as NVCaffe and Intel's Caffe have it."""
    for length_name, first_name in _RAMPS:
        length = int(_field(fields, length_name) or 0)
        if not 0 < length < message.max_iter or not isinstance(candidate.policy, FunctionPolicy):
            continue
        first, base = _field(fields, first_name) or 0.0, shortest(message.base_lr)
        because = (*candidate.because, length_name)
        for later in (shifted(candidate.policy, length, message.max_iter), candidate.policy):
            line = _composed([(0, _straight(first, base, length)), (length, later)])
            yield _PolicyGuess(line, because)
            yield _curved(first, base, length, later, because, message.max_iter)


def _curved(
    first: float,
    base: float,
    length: int,
    later: FunctionPolicy,
    because: tuple[str, ...],
    max_iter: int,
) -> _PolicyGuess:
    """first + (base - first) (t/length)^2, as NVCaffe 0.17 has it, by straight pieces."""
    knots = np.unique(np.linspace(0, length, min(_PIECES, length) + 1).astype(int)).tolist()
    heights = [_short(first + (base - first) * (t / length) ** 2) for t in knots]
    pieces = [
        (a, _straight(low, high, b - a))
        for a, b, low, high in zip(knots, knots[1:], heights, heights[1:])
    ]
    policy = _composed([*pieces, (length, later)])
    bound = policy.bind(max_iter)

    def exact(t: np.ndarray) -> np.ndarray:
        rise = first + (base - first) * (t / length) ** 2
        return np.where(t < length, rise, bound(t))

    return _PolicyGuess(policy, because, exact)


def shifted(policy: FunctionPolicy, start: int, max_iter: int) -> FunctionPolicy:
    """The policy whose LR at t is that of ``policy`` at start + t, for Caffe's own functions."""
    given: dict[str, Any] = dict(policy.params)
    name = policy.function
    if name == "SIG":
        return _relaxed(name, **{**given, "l": given["l"] - start})
    given["k0"] = _short(float(policy.bind(max_iter)(start)))
    if name == "INV":
        given["gamma"] = _short(given["gamma"] / (1 + given["gamma"] * start))
    elif name == "POLY" and given.get("l"):
        given["l"] -= start
    elif name == "STEP" and start % given["l"]:
        given["l"] = list(range(given["l"] - start % given["l"], max_iter - start, given["l"]))
        name = "NSTEP"
    elif name == "NSTEP":
        given["l"] = [t - start for t in given["l"] if t > start]
    if name == "NSTEP" and not given["l"]:
        return _relaxed("FIX", k0=given["k0"])
    return _relaxed(name, **given)


def _short(value: float) -> float:
    return float(f"{value:.7g}")


def _straight(first: float, last: float, length: int) -> FunctionPolicy:
    """A straight line from ``first`` that would be at ``last`` after ``length`` iterations."""
    if first == last:
        return _relaxed("FIX", k0=first)
    if last > first:
        return _relaxed("TRI", k0=first, k1=last, l=length)
    floor = {"k1": last} if last else {}
    return _relaxed("POLY", k0=first, **floor, p=1, l=length)


def _composed(segments: list[tuple[int, FunctionPolicy]]) -> Policy:
    return Composition(segments) if len(segments) > 1 else segments[0][1]


# -- the printed LRs -------------------------------------------------------------------------------


def as_printed(lrs: Mapping[int, float]) -> Policy | None:
    """Linear pieces through the printed LRs; None if that takes too many."""
    points = [(t, lr) for t, lr in sorted(lrs.items()) if np.isfinite(lr) and lr >= 0]
    for tolerance in _TOLERANCES:
        pieces = _pieces(points, tolerance)
        if 0 < len(pieces) <= _LONGEST:
            return _composed(pieces)
    return None


def _pieces(points: list[tuple[int, float]], tolerance: float) -> list[tuple[int, FunctionPolicy]]:
    """Each piece continues from its first point as long as a line through it is near all points."""
    pieces: list[tuple[int, FunctionPolicy]] = []
    first = 0
    while first < len(points) and len(pieces) <= _LONGEST:
        start, height = points[first]
        low, high, slope = -np.inf, np.inf, 0.0
        after = first + 1
        while after < len(points):
            t, lr = points[after]
            reach = tolerance * max(lr, height * 1e-6)
            low = max(low, (lr - reach - height) / (t - start))
            high = min(high, (lr + reach - height) / (t - start))
            if low > high:
                break
            slope = min(max((lr - height) / (t - start), low), high)
            after += 1
        end = points[after][0] if after < len(points) else points[-1][0] + 1
        span = max(1, end - start)
        last = max(0.0, _short(height + slope * span))
        if last < height * _ROUNDING:
            last = 0.0
        flat = low <= 0 <= high
        piece = _relaxed("FIX", k0=height) if flat else _straight(height, last, span)
        pieces.append((start if pieces else 0, piece))
        first = after
    return pieces
