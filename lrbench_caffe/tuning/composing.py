"""Compositions of good policies: a cyclic start, a decaying finish, as the paper's authors use them later.

The cyclic policy runs for whole cycles; where its last one ends, at its bottom, a decay takes over
from a constant LR between the bottom and the top, and ends the training at nearly 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lrbench_caffe.lr import FunctionPolicy, Policy, parse
from lrbench_caffe.tuning.space import TuningCandidate

if TYPE_CHECKING:
    from typing_extensions import TypeGuard

STARTS = 2  # cyclic policies that are continued
LEAST = 0.01  # of the top of a cycle: what counts as its bottom where that is lower
FINISH = (0.5, 0.7)  # where the decay takes over, as a share of the training


def compositions(best: Sequence[Policy], max_iter: int) -> list[TuningCandidate]:
    """Compositions of these policies, the best of which are continued.

    No two have the same LRs, as those of TRI and TRI2 have where they are left after one cycle.

    Args:
        best: policies, the best first.
    """
    times = np.arange(max_iter)
    composed: dict[bytes, TuningCandidate] = {}
    continued = 0
    for start in best:
        if continued == STARTS or not is_cyclic(start):
            continue
        known = len(composed)
        for share in FINISH:
            for text, why in _continued(start, share, max_iter):
                policy = parse(text).bind(max_iter)
                rates = np.asarray(policy(times)).tobytes()
                composed.setdefault(rates, TuningCandidate(policy, why))
        continued += len(composed) > known
    return list(composed.values())


def is_cyclic(policy: Policy) -> TypeGuard[FunctionPolicy]:
    """Whether a policy has cycles, at whose bottom it can be continued by another one."""
    return isinstance(policy, FunctionPolicy) and policy.kind == "cyclic"


def _continued(start: FunctionPolicy, share: float, max_iter: int) -> list[tuple[str, str]]:
    half = start.params["l"]
    assert isinstance(half, int)
    # COS is at its bottom after an odd number of halves, the others after an even one.
    halves = share * max_iter / half
    whole = 2 * round(halves / 2) if start(0) < start(half) else 2 * math.floor(halves / 2) + 1
    at = whole * half
    if not 0 < at < max_iter:
        return []
    low, high = sorted(float(start.params[name]) for name in ("k0", "k1"))  # type: ignore[arg-type]
    low = max(low, LEAST * high)  # a cosine may fall to 0
    middle = float(f"{math.sqrt(low * high):.2g}")
    why = f"{start.name}, whose cycles were good, then a decay"
    return [
        (f"{start} ; {at}: POLY(k0={lr}, p=1, l={max_iter - at})", why)
        for lr in dict.fromkeys((middle, float(f"{low:.2g}")))
    ]
