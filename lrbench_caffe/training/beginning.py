"""The start of a new run: random weights, caffemodels, or a solver state that the user names.

All is checked here by Caffe's own rules before Caffe loads it, because Caffe aborts on what does
not fit and says nothing about what it leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lrbench_caffe.errors import InputError, ParameterError
from lrbench_caffe.prototxt.messages import Messages, file_path
from lrbench_caffe.prototxt.solver import Solver
from lrbench_caffe.records import SCRATCH, Start
from lrbench_caffe.runs.caffefiles import (
    HDF5,
    StoredLayer,
    StoredState,
    model_of,
    models_digest,
    read_model,
    read_state,
    state_digest,
)
from lrbench_caffe.runtime.replies import LayerParameters

# History blobs for each parameter; the other types have one.
_HISTORIES = {"AdaDelta": 2, "Adam": 2}

_RENAME = (
    "allowed: the same, or another name for the net's layer, which then starts with random weights"
)


@dataclass(frozen=True)
class GivenState:
    """A solver state that the user names, and its weights.

    Attributes:
        stored: the solver state.
        model: the caffemodel with its weights, None for a state that names none.
        remark: a sentence where that is not the file that the state names, else None.
    """

    stored: StoredState
    model: Path | None
    remark: str | None = None


def find_state(path: Path, messages: Messages) -> GivenState:
    """A solver state and its weights: those beside it, else those at the path inside of it.

    Raises:
        InputError: the solver state or its caffemodel is missing or incomplete.
    """
    if not path.is_file():
        raise ParameterError("{snapshot}: no such file: {0}", path)
    try:
        stored = read_state(path, messages)
        named = file_path(stored.learned_net) if stored.learned_net else None
        model = model_of(stored)
        if model:
            read_model(model, messages)
    except InputError as error:
        raise ParameterError("{snapshot}: {0}", error) from error
    if model is None or named is None or _same_file(model, named):
        return GivenState(stored, model)
    return GivenState(
        stored, model, f"{path} names the weights {named}; those beside it are used, {model}"
    )


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def given_start(
    nets: Sequence[Sequence[LayerParameters]],
    solver: Solver,
    messages: Messages,
    snapshot: str | None,
    weights: Sequence[str],
) -> tuple[Start, list[str], GivenState | None]:
    """The start of a run that was given these files; remarks for a person; and the solver state.

    Raises:
        InputError: a file is missing or incomplete, or does not fit.
    """
    state = find_state(Path(snapshot), messages) if snapshot else None
    models = [Path(name) for name in weights]
    start, remarks = check_start(nets, solver.type, messages, state=state, weights=models)
    return start, remarks, state


def other_steps(stored: StoredState, step: int) -> list[str]:
    """Remarks on a state that has taken other than the ``step`` steps of this solver's multistep.

    Caffe would go on from the state's number, and so never take a step that was postponed
    (findings/caffe-multistep-counts-in-snapshot.sh).
    """
    if stored.current_step == step:
        return []
    return [
        f"snapshot: {stored.path} stands at step {stored.current_step} of multistep; iteration "
        f"{stored.iteration} is at step {step} by this solver's stepvalues, which count (caffe train "
        f"goes on from step {stored.current_step})"
    ]


def check_one_start(snapshot: str | None, weights: str | None) -> None:
    """Raise a ParameterError where both a solver state and caffemodels are given."""
    if snapshot and weights:
        raise ParameterError(
            "{snapshot} and {weights}: allowed: one of them (a snapshot has its own weights)"
        )


def check_before_end(snapshot: str, iteration: int, max_iter: int) -> None:
    """Raise an InputError for a solver state with which nothing is left to train."""
    if iteration >= max_iter:
        raise ParameterError(
            "{snapshot}: {0} is at iteration {1}; max_iter is {2}", snapshot, iteration, max_iter
        )


# -- what is loaded --------------------------------------------------------------------------------


def check_start(
    nets: Sequence[Sequence[LayerParameters]],
    solver_type: str,
    messages: Messages,
    *,
    state: GivenState | None = None,
    weights: Sequence[Path] = (),
    where: str = "{weights}",
) -> tuple[Start, list[str]]:
    """The start of a run with these nets.

    Args:
        nets: the layers of the training net and of each test net, as Caffe made them.
        solver_type: the solver's.
        state: the solver state to begin with, None for none.
        weights: the caffemodels to begin with.
        where: where these were given, as part of a ``ParameterError``.

    Returns:
        It, and what a person should know.

    Raises:
        InputError: Caffe would abort on it: parameters of other shapes, or the history of another
            net or of another solver type.
    """
    if state:
        models = [state.model] if state.model else []
        filled, layers = _fill(models, nets[:1], messages, "{snapshot}")
        _check_history(state.stored, nets[0], solver_type)
        digest = state_digest(state.stored.path, state.model, messages)
        start = Start(
            "snapshot", digest, iteration=state.stored.iteration, name=state.stored.path.name
        )
        remarks = [state.remark] if state.remark else []
        if filled < layers:
            remarks.append(
                f"WARNING: snapshot: {filled} of {layers} layers filled; the others are random"
            )
        return start, remarks
    if not weights:
        return SCRATCH, []
    filled, layers = _fill(weights, nets, messages, where)
    name = ", ".join(path.name for path in weights)
    start = Start("weights", models_digest(weights), filled, layers, name=name)
    return start, [without_weights(start) or f"weights: {filled} of {layers} layers filled"]


def without_weights(start: Start) -> str:
    """The warning where none of the given weights is of the net; else empty."""
    if start.kind != "weights" or start.pretrained:
        return ""
    return (
        f"WARNING: weights: {start.filled} of {start.layers} layers filled: {start.name} has no layer "
        "whose name is in this net; all weights are random"
    )


def _fill(
    models: Sequence[Path],
    nets: Sequence[Sequence[LayerParameters]],
    messages: Messages,
    where: str,
) -> tuple[int, int]:
    """How many layers of the first net the models fill, and how many it has that could be filled."""
    loaded: set[int] = set()
    for model in models:
        stored = read_model(model, messages)
        try:
            first, *_ = [_loaded(stored, net, model.suffix == HDF5) for net in nets]
        except InputError as error:
            raise ParameterError(where + ": {0}: {1}", model, error) from error
        loaded |= first
    learning = [layer for layer in nets[0] if layer.numbers]
    return sum(loaded.issuperset(layer.numbers) for layer in learning), len(learning)


def _loaded(model: Sequence[StoredLayer], net: Sequence[LayerParameters], hdf5: bool) -> set[int]:
    """The numbers of the parameters that Caffe copies (Net::CopyTrainedLayersFrom): by the layer's name."""
    targets: dict[str, LayerParameters] = {}
    for layer in (
        net if hdf5 else reversed(net)
    ):  # of two layers with one name the first; in HDF5 the last
        targets[layer.name] = layer
    loaded: set[int] = set()
    for stored in model:
        target = targets.get(stored.name)
        if target is None:
            continue
        _check_fit(stored, target, hdf5)
        loaded.update(number for i, number in enumerate(target.numbers) if i in stored.blobs)
    return loaded


def _check_fit(stored: StoredLayer, target: LayerParameters, hdf5: bool) -> None:
    there, here = len(stored.blobs), len(target.numbers)
    # An HDF5 file may lack parameters that are shared; if they are not, Caffe says so.
    if there > here or (there < here and not hdf5):
        raise InputError(
            f"layer {stored.name!r} has {there} parameter blobs there and {here} in the net; {_RENAME}"
        )
    for number, shape in enumerate(target.shapes):
        blob = stored.blobs.get(number)
        if blob and not blob.fits(shape):
            wanted = " x ".join(map(str, shape)) or "scalar"
            raise InputError(
                f"layer {stored.name!r}: blob {number} is {blob} there and {wanted} in the net; {_RENAME}"
            )


def _check_history(state: StoredState, net: Sequence[LayerParameters], solver_type: str) -> None:
    """Raise an InputError for the history of another net or solver type; Caffe checks its length alone."""
    shapes: dict[int, tuple[int, ...]] = {}
    for layer in net:
        shapes.update(zip(layer.numbers, layer.shapes))
    wanted = _HISTORIES.get(solver_type, 1)
    have, parameters = len(state.history), len(shapes)
    other = 3 - wanted
    if have == other * parameters and have != wanted * parameters:
        kinds = {1: "SGD, Nesterov, AdaGrad and RMSProp write", 2: "AdaDelta and Adam write"}
        raise ParameterError(
            "{snapshot}: {0} has {1} history blobs for {2} parameters, as {3} them; the solver's type is "
            "{4!r}, which has {5}; allowed: a solver of the same type, or {weights} with the caffemodel for "
            "a new history",
            state.path,
            have,
            parameters,
            kinds[other],
            solver_type,
            wanted * parameters,
        )
    fits = have == wanted * parameters and all(
        blob.fits(shapes[number % parameters]) for number, blob in enumerate(state.history)
    )
    if not fits:
        raise ParameterError(
            "{snapshot}: {0} is of another net: its {1} history blobs do not fit the net's {2} parameters; "
            "allowed: a snapshot of this net, or {weights} with the caffemodel",
            state.path,
            have,
            parameters,
        )
