"""What Caffe's snapshots do not hold: where the data and the random numbers stood.

``caffe train --snapshot`` starts again with the first record, and so ends with other weights than a
training without a break. The worker puts the cursors back by running only the layers that read or draw.
"""

from __future__ import annotations

import math
from typing import Any

from lrbench_caffe.prototxt.nets import PhaseNet, random_layers
from lrbench_caffe.prototxt.solver import Solver
from lrbench_caffe.prototxt.sources import Source


def replay_plan(solver: Solver, iteration: int, tests: int) -> list[dict[str, Any]]:
    """The passes that bring all nets' data to where they stood before ``iteration``'s update.

    Args:
        tests: how many times the test nets have been tested.
    """
    plan = [_entry(0, solver.train, solver.source, iteration * solver.iter_size)]
    for index, test in enumerate(solver.tests):
        plan.append(_entry(index + 1, test.net, test.source, tests * max(0, test.passes)))
    return [entry for entry in plan if entry["passes"]]


def _entry(number: int, net: PhaseNet, source: Source | None, passes: int) -> dict[str, Any]:
    layers = [list(place) for place in random_layers(net)]
    if _repeats(source, layers):
        assert source is not None and source.samples is not None
        # After this many batches the cursor is at the first record again.
        passes %= source.samples // math.gcd(source.samples, source.batch)
    return {"net": number, "layers": layers, "passes": passes if layers else 0}


def _repeats(source: Source | None, layers: list[list[Any]]) -> bool:
    """Whether the only thing to restore is one cursor that goes round a data set of known size."""
    if source is None or source.samples is None or source.random:
        return False
    return len(layers) == 1
