"""The candidates of a tuning: policies by the paper's heuristics, from a range of good LRs.

- k1 of a cyclic function, where its LR is highest, is the top of the good range, and a step above
  it: it "should be larger than the constant LR" (section V-A, on TRI2). k0, where it is lowest, is
  the bottom of the range, and a tenth of it ("reducing 0.0005 by 10").
- k0 of a decaying function, where it begins, is the top of the range, and the best constant LR.
- l is a multiple of the epoch, and such that the training ends where the LR is low: a training that
  ends in the middle of a cycle was not measured at its best.
- gamma and l go together, so that the last LR is not too small (section V-B on STEP): the envelope
  ends at a tenth, or at a hundredth for functions whose steps are few.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lrbench_caffe.errors import ParameterError
from lrbench_caffe.lr import Policy, PolicyError, parse
from lrbench_caffe.lr.functions import FUNCTIONS, PAPER_FUNCTIONS, find_function

FAMILIES = {
    "all": PAPER_FUNCTIONS,
    "cyclic": tuple(name for name in PAPER_FUNCTIONS if FUNCTIONS[name].kind == "cyclic"),
    "decaying": tuple(name for name in PAPER_FUNCTIONS if FUNCTIONS[name].kind == "decaying"),
}
ABOVE = 2.5  # from the top of the range to the step above it
BELOW_LIMIT = 0.6  # of the lowest LR that diverged: the highest one to try
ENDS = (0.1, 0.01)  # the envelope at the end of the training
CYCLES = (1, 2, 5)  # in a training; COS, which begins at the top, has half a cycle less
LEFT = 0.1  # of half a cycle that may be left behind the last one
_NSTEP_AT = (0.5, 0.7, 0.8, 0.9, 0.95)  # of max_iter, as in the paper's Table VII


@dataclass(frozen=True)
class GoodRange:
    """The LRs that a task tolerates.

    Attributes:
        low, high: the good range.
        best: the best constant LR in it.
        limit: the lowest constant LR that is known to diverge, None where none is.
    """

    low: float
    high: float
    best: float
    limit: float | None = None

    @property
    def above(self) -> float:
        """A step above the range, but below what diverges."""
        step = self.high * ABOVE
        top = step if self.limit is None else min(step, self.limit * BELOW_LIMIT)
        # A limit that was made of the top gives it back but for its last bit.
        return self.high if top <= self.high * (1 + 1e-9) else top

    def as_json(self) -> dict[str, float]:
        """The range and the best LR, as result.json has them."""
        return {"low": self.low, "high": self.high, "best": self.best}


@dataclass(frozen=True)
class TuningCandidate:
    """A policy that may be trained.

    Attributes:
        policy: bound to the length of the training.
        origin: why it is tried, for people.
    """

    policy: Policy
    origin: str


def functions(text: str) -> tuple[str, ...]:
    """The functions of a text: all, cyclic, decaying, or comma-separated names.

    Raises:
        InputError: an unknown or repeated name, or one that cannot be tuned.
    """
    if text.strip().lower() in FAMILIES:
        return FAMILIES[text.strip().lower()]
    chosen: list[str] = []
    for name in (part.strip() for part in text.split(",")):
        try:
            function = find_function(name).name
        except PolicyError as error:
            raise ParameterError(
                "{functions}: {0}; or one of {1}",
                error,
                ", ".join(FAMILIES),
            ) from None
        if function not in FAMILIES["all"]:
            raise ParameterError(
                "{functions}: {0}: not tuned; allowed: {1}, or of {2}",
                name,
                ", ".join(FAMILIES),
                ", ".join(FAMILIES["all"]),
            )
        if function in chosen:
            raise ParameterError(
                "{functions}: {0}: given twice; allowed: each once",
                name,
            )
        chosen.append(function)
    return tuple(chosen)


def candidates(
    good: GoodRange, names: Sequence[str], *, max_iter: int, epoch: float | None
) -> list[TuningCandidate]:
    """All policies of these functions that the heuristics propose, each once.

    Args:
        good: the range of LRs.
        names: LR functions, of ``FAMILIES["all"]``.
        max_iter: length of the training; epoch: iterations in an epoch, None where not known.
    """
    by_text: dict[str, TuningCandidate] = {}
    for name in names:
        for text, why in _proposals(name, good, max_iter, epoch):
            policy = parse(text).bind(max_iter)
            by_text.setdefault(str(policy), TuningCandidate(policy, why))
    return list(by_text.values())


def _proposals(
    name: str, good: GoodRange, max_iter: int, epoch: float | None
) -> Iterator[tuple[str, str]]:
    if name == "FIX":
        for k0 in _distinct(good, good.best, good.high):
            yield f"FIX(k0={k0})", "a constant LR of the good range"
    elif name in FAMILIES["decaying"]:
        for k0 in _distinct(good, good.high, good.best, good.above):
            for shape in _decays(name, max_iter, epoch):
                yield f"{name}(k0={k0}, {shape})", "begins at the top of the good range"
    else:
        for k0, k1, why in (
            (good.low, good.high, "cycles through the good range"),
            (good.low / 10, good.above, "cycles through more than the good range"),
        ):
            k0, k1 = _rounded(good, k0), _rounded(good, k1)
            if k0 >= k1:
                k0 = _digits(k1 / 10, 2)
            for shape in _cycles(name, max_iter, epoch):
                yield f"{name}(k0={k0}, k1={k1}, {shape})", why


def _decays(name: str, max_iter: int, epoch: float | None) -> Iterator[str]:
    if name == "POLY":
        yield "p=1"
        yield "p=2"
    elif name == "INV":
        yield f"gamma={_digits(1 / max_iter, 5)}, p=0.75"
        yield f"gamma={_digits(10 / max_iter, 5)}, p=0.75"
    else:
        for end in ENDS:
            if name == "EXP":
                yield f"gamma={_decay(end, max_iter)}"
            elif name == "STEP":
                steps = _epochs(max_iter / 10, epoch)
                yield f"gamma={_digits(end ** (steps / max_iter), 2)}, l={steps}"
            else:
                at = sorted({max(1, round(max_iter * share)) for share in _NSTEP_AT})
                yield f"gamma={_digits(end ** (1 / len(at)), 2)}, l={at}"


def _cycles(name: str, max_iter: int, epoch: float | None) -> Iterator[str]:
    gamma = f"gamma={_decay(ENDS[0], max_iter)}, " if name.endswith("EXP") else ""
    # A single cycle of a function that is halved after every cycle is that of the function without
    # the 2.
    wanted = [cycles for cycles in CYCLES if cycles > 1 or not name.endswith("2")]
    for steps in sorted({half_cycle(name, cycles, max_iter, epoch) for cycles in wanted}):
        yield f"{gamma}l={steps}"


def half_cycle(name: str, cycles: int, max_iter: int, epoch: float | None) -> int:
    """l for this many cycles in a training that ends at the bottom of one, in whole epochs where that is
    near enough."""
    halves = 2 * cycles - 1 if name == "COS" else 2 * cycles
    # What is left behind the last cycle is the rise of another one.
    half = _epochs(max_iter / halves, epoch, LEFT / (halves + LEFT))
    if max_iter - halves * half <= LEFT * half:
        return half

    def height(half: int) -> float:
        """How far from the bottom of its cycle the last update is, in halves."""
        beyond = (max_iter - 1) / half - halves
        return abs((beyond + 1) % 2 - 1)

    # In a short training the iterations that rounding leaves are much of a half, or several.
    return min(half, half + 1, key=height)


def _epochs(iterations: float, epoch: float | None, most: float = 0.1) -> int:
    """Down to whole epochs, unless that takes more than a share."""
    if epoch:
        whole = int(iterations / epoch) * epoch
        if whole >= (1 - most) * iterations:
            return max(1, int(whole))
    return max(1, int(iterations))


def _distinct(good: GoodRange, *lrs: float) -> list[float]:
    return list(dict.fromkeys(_rounded(good, lr) for lr in lrs))


def _rounded(good: GoodRange, lr: float) -> float:
    """An LR with two digits; with more, where it is in the range and two would lead out of it."""
    short = _digits(lr, 2)
    if good.low <= lr <= good.high and not good.low <= short <= good.high:
        return _digits(lr, 6)
    return short


def _digits(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")


def _decay(end: float, times: int) -> float:
    """gamma with gamma^times = end, and 1 - gamma of five digits."""
    return float(f"{1 - _digits(1 - end ** (1 / times), 5):.15g}")
