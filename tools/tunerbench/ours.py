"""The tuner's search on the recorded curves."""

from __future__ import annotations

from collections import deque

import numpy as np

from lrbench_caffe.tuning import curves as tuning
from lrbench_caffe.tuning.measure import Measure
from lrbench_caffe.tuning.plan import FEW
from lrbench_caffe.tuning.search import PolicySearch, Step

from .curves import Curve, CurveSet
from .ledger import Ledger
from .peers import SearchOutcome

CHANCE = 10.0  # Top-1 of guessing among ten digits, in percent


def tuner_search(task: CurveSet, ledger: Ledger, seed: int) -> SearchOutcome:
    """Spend what the search asks for.

    It is told no more than its peers: there is no range test before it, its scouts are candidates.
    """
    search = PolicySearch(
        task.policies,
        max_iter=task.max_iter,
        test_interval=task.test_interval,
        seed=seed,
        measure=Measure.of_top1(CHANCE),
    )
    outcome = SearchOutcome()
    begun: deque[tuple[Step, Curve]] = deque()
    while not ledger.over:
        while len(begun) < FEW and (step := search.ask()):
            outcome.trials += 1
            begun.append((step, ledger.train(step.index, step.until)))
        if not begun:
            break
        step, curve = begun.popleft()
        search.tell(step, _told(curve))
    return outcome


def _told(curve: Curve) -> tuning.Curve:
    """A curve without its test before the first iteration."""
    tests = (curve.iterations > 0) & np.isfinite(curve.top1)
    status = "stopped" if curve.status == "running" else curve.status
    return tuning.Curve(curve.iterations[tests], curve.top1[tests], curve.end, status)
