"""Policies made of segments that each start at an iteration, or when training reaches a plateau."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from . import parameters as par
from .errors import PolicyError
from .parameters import Value
from .plateau import Trigger
from .policy import FunctionPolicy, Policy


class Segment(NamedTuple):
    """A policy from `start` on (an iteration, or the trigger that will decide it), counting t from there."""

    start: int | Trigger
    policy: FunctionPolicy


@dataclass(frozen=True, init=False, repr=False)
class Composition(Policy):
    """Segments one after the other, each counting t from its own start.

        eta(t) = eta_i(t - start_i),   start_i <= t < start_(i+1)

    Arguments:
        segments: (start, policy) pairs, two or more. The first starts at 0, the others at a later
            iteration than the one before, or at a Trigger: "go on when the metric has not improved
            for n tests". Iterations cannot follow a trigger. PLATEAU can be the last segment only
            (it never ends); its decisions are counted from the segment's start.

    Raises:
        PolicyError: a bad order, fewer than two segments, PLATEAU before the end.

    #Param is the sum over the segments plus one for each boundary between them. POLY without l ends
    at max_iter, that is max_iter - start iterations after its segment's start.

    >>> warm = FunctionPolicy("FIX", k0=0.1), FunctionPolicy("FIX", k0=0.01)
    >>> policy = Composition([(0, warm[0]), (Trigger(n=3), warm[1])])
    >>> str(policy), policy.num_params, policy(7000)
    ('FIX(k0=0.1) ; plateau(n=3): FIX(k0=0.01)', 3, 0.1)
    >>> policy.decide(5000)
    parse('FIX(k0=0.1) ; 5000: FIX(k0=0.01)')
    >>> policy.decide(5000)(7000)
    0.01
    """

    segments: tuple[Segment, ...]
    max_iter: int | None

    def __init__(self, segments: Iterable[tuple[int | Trigger, Policy]]) -> None:
        checked = tuple(_check_segment(start, policy) for start, policy in segments)
        _check_order(checked)
        object.__setattr__(self, "segments", checked)
        object.__setattr__(self, "max_iter", None)

    @property
    def functions(self) -> tuple[str, ...]:
        return tuple(segment.policy.name for segment in self.segments)

    @property
    def kind(self) -> str:
        return "composition"

    @property
    def params(self) -> Mapping[str, Value]:
        return MappingProxyType({})

    @property
    def num_params(self) -> int:
        return sum(segment.policy.num_params for segment in self.segments) + len(self.segments) - 1

    @property
    def needs_max_iter(self) -> bool:
        return self.max_iter is None and any(
            segment.policy.needs_max_iter for segment in self.segments
        )

    @property
    def pending(self) -> Trigger | None:
        for segment in self.segments:
            if isinstance(segment.start, Trigger):
                return segment.start
        return self.segments[-1].policy.pending

    @property
    def pending_since(self) -> int:
        start, policy = self._reached[-1]
        return start + policy.pending_since

    @property
    def _reached(self) -> tuple[tuple[int, FunctionPolicy], ...]:
        """The segments that start at a known iteration; triggers come after all of them."""
        return tuple((start, policy) for start, policy in self.segments if isinstance(start, int))

    def bind(self, max_iter: int) -> Composition:
        end = par.check_whole("max_iter", max_iter)
        if not any(segment.policy.needs_max_iter for segment in self.segments):
            return self
        bound = Composition(self.segments)
        object.__setattr__(bound, "max_iter", end)
        return bound

    def decide(self, iteration: int) -> Composition:
        self._check_decision(iteration)
        reached = list(self._reached)
        if len(reached) < len(self.segments):
            decided = Segment(iteration, self.segments[len(reached)].policy)
            segments = [*reached, decided, *self.segments[len(reached) + 1 :]]
        else:
            start, policy = reached[-1]
            segments = [*reached[:-1], Segment(start, policy.decide(iteration - start))]
        policy_after = Composition(segments)
        return policy_after if self.max_iter is None else policy_after.bind(self.max_iter)

    def __format__(self, spec: str) -> str:
        texts = [format(segment.policy, spec) for segment in self.segments]
        starts = [
            format(s.start, spec if isinstance(s.start, Trigger) else "") for s in self.segments
        ]
        return " ; ".join(
            [texts[0], *(f"{start}: {text}" for start, text in zip(starts[1:], texts[1:]))]
        )

    def _rates(self, times: np.ndarray) -> np.ndarray:
        starts = [start for start, _ in self._reached]
        index = np.searchsorted(np.array(starts, dtype=np.float64), times, side="right") - 1
        rates = np.empty_like(times)
        for i, (start, policy) in enumerate(self._reached):
            here = index == i
            if np.any(here):
                rates[here] = self._bound(policy, start)(times[here] - start)
        return rates

    def _bound(self, policy: FunctionPolicy, start: int) -> FunctionPolicy:
        # a segment that starts at or after max_iter is never trained; any positive length will do
        return policy if self.max_iter is None else policy.bind(max(self.max_iter - start, 1))


def _check_segment(start: object, policy: object) -> Segment:
    if not isinstance(policy, FunctionPolicy):
        raise PolicyError(f"a segment must be a single LR function, not {policy}")
    if policy.max_iter is not None:
        raise PolicyError(f"bind the composition to max_iter, not its segment {policy}")
    if isinstance(start, Trigger):
        return Segment(start, policy)
    return Segment(par.check_whole("start", start, least=0), policy)


def _check_order(segments: tuple[Segment, ...]) -> None:
    if segments and segments[0].start != 0:
        raise PolicyError(f"the first segment must start at 0, not at {segments[0].start}")
    if len(segments) < 2:
        raise PolicyError(f"a composition needs two or more segments, not {len(segments)}")
    for before, after in zip(segments, segments[1:]):
        if before.policy.kind == "plateau":
            raise PolicyError(
                f"{before.policy} never ends, so that it can only be the last segment"
            )
        if isinstance(after.start, Trigger):
            continue
        if isinstance(before.start, Trigger):
            raise PolicyError(
                f"a segment that starts at {after.start} cannot follow one that starts at {before.start}"
            )
        if not after.start > before.start:
            raise PolicyError(
                f"segments must start in ascending order: {after.start} is not after {before.start}"
            )
