"""The start of a training in a log: random weights, caffemodels, a solver state, or unknown."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lrbench_caffe.errors import InputError
from lrbench_caffe.importing.nets import LogNet
from lrbench_caffe.importing.sessions import LogSession
from lrbench_caffe.prototxt.messages import Messages
from lrbench_caffe.records import SCRATCH, UNKNOWN_START, Start
from lrbench_caffe.runs.caffefiles import (
    model_of,
    models_digest,
    read_model,
    read_state,
    state_digest,
)

# Layers with parameters that nets commonly have; whether another type has any is not known.
_LEARNING = (
    "BatchNorm", "Bias", "Convolution", "Deconvolution", "Embed", "InnerProduct", "LSTM", "PReLU", "RNN",
    "Scale",
)  # fmt: skip


def start_of(
    session: LogSession,
    solver: Any,
    net: LogNet,
    folder: Path,
    messages: Messages,
    say: Callable[[str], None],
) -> Start:
    """The start of a run, with a digest if the files are available.

    Args:
        session: the run's first one.
        solver: its SolverParameter.
        net: the training net.
        folder: of the log; files are looked for there, too.
        say: called with what a person should know.
    """
    if session.resumed is not None:
        start = _snapshot(session, folder, messages)
        say(
            f"the log begins when the training was resumed; its start is {start}, and not from scratch"
        )
        return start
    # They are named again for each test net.
    names = list(
        dict.fromkeys(name for text in session.weights for name in text.split(",") if name)
    )
    if names or session.copied:
        return _weights(names, net, folder, messages)
    shown = [loss.iteration for loss in session.losses]
    late = bool(shown) and solver.display > 0 and min(shown) >= 2 * solver.display
    if session.solver is None or late:
        say("the log does not show how the training started; its start is unknown")
        return UNKNOWN_START
    return SCRATCH


def _snapshot(session: LogSession, folder: Path, messages: Messages) -> Start:
    name = session.resumed or None
    state = _find(name, folder) if name else None
    digest = None
    if state is not None:
        with contextlib.suppress(InputError, OSError):
            digest = state_digest(state, model_of(read_state(state, messages)), messages)
    return Start("snapshot", digest, iteration=session.start, name=_base(name) if name else None)


def _weights(names: list[str], net: LogNet, folder: Path, messages: Messages) -> Start:
    files = [_find(name, folder) for name in names]
    models = [file for file in files if file is not None]
    shown = ", ".join(map(_base, names)) or None
    if not files or len(models) < len(files):
        return Start("weights", name=shown)
    filled, layers = None, None
    with contextlib.suppress(InputError):
        given = {
            layer.name for file in models for layer in read_model(file, messages) if layer.blobs
        }
        learning = [layer.name for layer in net.net.layers if layer.type in _LEARNING]
        if not net.partial:
            filled, layers = len(given.intersection(learning)), len(learning)
    return Start("weights", models_digest(models), filled, layers, name=shown)


def _find(name: str, folder: Path) -> Path | None:
    places = [Path(name), folder / name, folder / _base(name)]
    return next((place for place in places if place.is_file()), None)


def _base(name: str) -> str:
    return re.split(r"[/\\]", name)[-1]
