"""Caffe's refusal of a solver in the terms of the user's files: which file, which layer, what Caffe said."""

from __future__ import annotations

import re

from lrbench_caffe.errors import InputError
from lrbench_caffe.prototxt.solver import Solver
from lrbench_caffe.runtime.client import Opened, OpenRequest, Refusal, Worker
from lrbench_caffe.runtime.locate import OPTION, VARIABLE

_UNKNOWN_TYPE = re.compile(r"Unknown solver type: (.*) \(known types: (.*)\)")
# What Caffe's words do not say.
_MEANINGS = {"Check failed: blob->count()": "a parameter of size 0: is num_output missing or 0?"}


def open_solver(worker: Worker, solver: Solver, request: OpenRequest) -> Opened:
    """``Worker.open``, where what Caffe refuses is an ``InputError``.

    Args:
        solver: the user's; ``request`` has the patched one.
    """
    try:
        return worker.open(request)
    except Refusal as error:
        raise explain(solver, error) from error


def explain(solver: Solver, refusal: Refusal) -> InputError:
    """The error for a person: one line with the file, the layer where one is to blame, and Caffe's words."""
    unknown = _UNKNOWN_TYPE.search(refusal.words)
    if unknown and refusal.net is None:
        name, known = unknown.groups()
        fork = f"{VARIABLE} or {OPTION} names the Python of a fork that has it"
        return InputError(f"{solver.path}: type is {name!r}; allowed by this Caffe: {known}; {fork}")
    meaning = next((text for words, text in _MEANINGS.items() if words in refusal.words), "")
    words = refusal.words + (f" ({meaning})" if meaning else "")
    return InputError(f"{_where(solver, refusal)}: Caffe refuses it: {words}")


def _where(solver: Solver, refusal: Refusal) -> str:
    if refusal.net is None or refusal.net >= len(solver.phase_nets):
        return str(solver.path)
    net = solver.phase_nets[refusal.net]
    types = {layer.name: layer.type for layer in net.layers}
    # Splits and layers within layers are in no file.
    made = next((name for name in reversed(refusal.layers) if name in types), None)
    if made is None:
        return f"{net.origin}: the {net.title}"
    return f"{net.origin}: layer {made!r} ({types[made]}) of the {net.title}"
