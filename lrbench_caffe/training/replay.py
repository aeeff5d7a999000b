"""Restores what Caffe's snapshots lack: the positions in the data and the random numbers.

``caffe train --snapshot`` starts again with the first record, and so ends with different weights
from an uninterrupted training. The worker puts the cursors back by running only the layers that
read or draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lrbench_caffe.prototxt.nets import (
    PHASES,
    PhaseNet,
    data_sizes,
    draws_by_size,
    numbered,
    random_layers,
)
from lrbench_caffe.prototxt.solver import Solver
from lrbench_caffe.prototxt.sources import Source


def replay_plan(solver: Solver, iteration: int, tested: Sequence[int]) -> list[dict[str, Any]]:
    """The passes that restore all nets' data positions before ``iteration``'s update, in order.

    Args:
        tested: the iterations at which the test nets have been tested, ascending.
    """
    nets = [(solver.train, solver.source), *((test.net, test.source) for test in solver.tests)]
    turns = _turns(solver, iteration, tested)
    drawing = [number for number, (net, source) in enumerate(nets) if not _goes_round(net, source)]
    # All nets draw from one generator, so their order counts; where one net alone draws, only its
    # sum does.
    mixed = len(drawing) > 1
    plan = [
        _entry(number, nets[number][0], passes)
        for number, passes in turns
        if mixed and number in drawing
    ]
    for number, (net, source) in enumerate(nets):
        passes = sum(count for which, count in turns if which == number)
        if number not in drawing:
            assert source is not None and source.samples is not None
            # After this many batches the cursor is at the first record again.
            passes %= source.samples // math.gcd(source.samples, source.batch)
        if not (mixed and number in drawing):
            plan.append(_entry(number, net, passes))
    return [entry for entry in plan if entry["passes"] and entry["layers"]]


def _turns(solver: Solver, iteration: int, tested: Sequence[int]) -> list[tuple[int, int]]:
    """Which net had how many passes, one after another; net 0 is the training net."""
    turns, done = [], 0
    for test in tested:
        turns.append((0, (test - done) * solver.iter_size))
        turns += [
            (number + 1, max(0, test_net.passes)) for number, test_net in enumerate(solver.tests)
        ]
        done = test
    return [*turns, (0, (iteration - done) * solver.iter_size)]


def _entry(number: int, net: PhaseNet, passes: int) -> dict[str, Any]:
    """An entry of the worker's ``replay``."""
    whole, reshape = False, False
    if net.phase == PHASES[0] and draws_by_size(net):
        sizes = data_sizes(net)
        whole, reshape = sizes == "unknown", sizes == "varying"
    layers = numbered(net) if whole else random_layers(net)
    return {
        "net": number,
        "layers": [list(place) for place in layers],
        "reshape": reshape,
        "passes": passes,
    }


def _goes_round(net: PhaseNet, source: Source | None) -> bool:
    """Whether the only thing to restore is one cursor that goes round a data set of known size."""
    if source is None or source.samples is None or source.random:
        return False
    return len(random_layers(net)) == 1
