"""Shared beginnings: which trainings of a study start alike, and where one branches from another.

A constant LR and its steps have the same LRs until the first step, TRI and TRI2 until the end of
the first cycle. The first of them that is trained makes a snapshot where the ways part, and the
others take its beginning over (``training.branching``) instead of training it again.

What is planned follows from what was asked for, and from nothing else: neither from how far a
training has come, nor from how many run at a time. So it is the same whenever a study is continued.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from lrbench_caffe.lr import Policy

LEAST = 0.02  # share of a training; what is shorter is not worth a snapshot
_FIRST = 64  # LRs that are compared before all of them are


@dataclass(frozen=True)
class Branch:
    """Where a training branches from another one: the run directory of that, and the iteration."""

    origin: str
    at: int


@dataclass
class _Relative:
    """A training that was asked for.

    Attributes:
        policy, out: its policy and its run directory.
        until: how far it goes.
        snapshots: the iterations whose snapshots it has when it is there.
    """

    policy: Policy
    out: str
    until: int = 0
    snapshots: set[int] = field(default_factory=set)


class Beginnings:
    """Plans the branches of a study.

    Args:
        max_iter: length of the trainings.

    Attributes:
        expected: policies that may be trained after those that are being trained.
        opening: the iteration up to which each of them is trained at first; 0 for any.
    """

    def __init__(self, max_iter: int) -> None:
        self._max_iter = max_iter
        self._least = max(1, round(LEAST * max_iter))
        self._groups: dict[object, dict[str, _Relative]] = {}
        self._lengths: dict[tuple[str, str], int] = {}
        self.expected: Sequence[Policy] = ()
        self.opening = 0

    def plan(
        self, policy: Policy, out: str, until: int, like: object, wanted: Collection[int] = ()
    ) -> tuple[Branch | None, tuple[int, ...]]:
        """Plan a training, or its next part.

        Args:
            policy: its policy; ``out``: its run directory.
            until: where it ends.
            like: what is the same in all trainings that it can branch from, such as the seed.
            wanted: iterations whose snapshots others wait for that branch from it.

        Returns:
            Where it branches, None for nowhere; and the iterations whose snapshots it has to keep.
        """
        group = self._groups.setdefault(like, {})
        own = group.setdefault(out, _Relative(policy, out))
        points = {*self._points(policy), *wanted}
        if until <= own.until:
            return None, tuple(sorted(point for point in points if point < until))
        branch = self._longest(own, until, group.values())
        start = max(own.until, branch.at if branch else 0)
        there = {*own.snapshots, start}
        made = {point for point in points if start < point < until}
        own.snapshots = {*(there & points), *made, until}
        own.until = until
        return branch, tuple(sorted(point for point in points if point < until))

    def _longest(self, own: _Relative, until: int, others: Collection[_Relative]) -> Branch | None:
        best = None
        for other in others:
            if other.out == own.out:
                continue
            most = min(until, self._common(own.policy, other.policy))
            at = max((i for i in other.snapshots if i <= most), default=0)
            if at - own.until >= self._least and (best is None or at > best.at):
                best = Branch(other.out, at)
        return best

    def _points(self, policy: Policy) -> set[int]:
        """The iterations after which the LRs of a policy are no longer those of others to come.

        And the end of their first part, where the LRs are the same for longer than that.
        """
        others = [other for other in self.expected if str(other) != str(policy)]
        lengths = {self._common(policy, other) for other in others}
        points = {length for length in lengths if length >= self._least}
        if self._least <= self.opening < max(points, default=0):
            points.add(self.opening)
        return points

    def _common(self, one: Policy, other: Policy) -> int:
        """How far one training may take over another one: not its end, where Caffe does more."""
        return min(self.shared(one, other), self._max_iter - 1)

    def shared(self, one: Policy, other: Policy) -> int:
        """The number of iterations from the first one on for which two policies have the same LRs, bit by
        bit."""
        key = (str(one), str(other))
        if key not in self._lengths:
            self._lengths[key] = self._lengths[key[::-1]] = self._compare(one, other)
        return self._lengths[key]

    def _compare(self, one: Policy, other: Policy) -> int:
        if one.pending or other.pending:  # their LRs follow from their tests
            return 0
        for length in (min(_FIRST, self._max_iter), self._max_iter):
            times = np.arange(length)
            differing = np.flatnonzero(np.asarray(one(times)) != np.asarray(other(times)))
            if len(differing):
                return int(differing[0])
        return self._max_iter
