"""Explains Caffe's refusal of a solver by the user's file, layer, field, and what is allowed."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Sequence
from typing import Any

from lrbench_caffe.errors import InputError, TrainingError, did_you_mean, named
from lrbench_caffe.prototxt.datacheck import LmdbState, check_labels, state_of_lmdbs
from lrbench_caffe.prototxt.nets import PhaseNet
from lrbench_caffe.prototxt.solver import Solver
from lrbench_caffe.prototxt.sources import by
from lrbench_caffe.runtime.client import Worker
from lrbench_caffe.runtime.failures import Death, OpenFailure, Refusal
from lrbench_caffe.runtime.locate import VARIABLE
from lrbench_caffe.runtime.replies import LayerParameters, Opened, OpenRequest

_UNKNOWN_TYPE = re.compile(r"Unknown solver type: (.*) \(known types: (.*)\)")
_BLOBS = re.compile(
    r"(ExactNum|Min|Max)(Bottom|Top)Blobs\(\) .. \w+\.size\(\) \((\d+) vs\. (\d+)\) (\w+) Layer"
)
_LIMITS = {"ExactNum": "", "Min": " or more", "Max": " at most"}
_EQUAL_BLOBS = re.compile(r"bottom\.size\(\) == top\.size\(\) \((\d+) vs\. (\d+)\) (\w+) Layer")
_UNKNOWN_FILLER = re.compile(r"Unknown filler name:\s*(.*)")
_FILLERS = ("bilinear", "constant", "gaussian", "msra", "positive_unitball", "uniform", "xavier")
# A source of Caffe's, as its words name it: of a layer, or of something else.
_SOURCE = re.compile(r"\b(?:cudnn_)?(?P<name>\w+?)(?P<layer>_layer)?\.(?:[ch]pp|cu):\d+\]")
# A layer's source has its type's name in small letters (InnerProduct: inner_product_layer.cpp),
# except these.
_TYPES = {
    "base_conv": ("Convolution", "Deconvolution"),
    "base_data": ("Data", "ImageData", "WindowData", "AnnotatedData", "VideoData"),
    "conv": ("Convolution",),
    "deconv": ("Deconvolution",),
    "recurrent": ("LSTM", "RNN"),
    "softmax_loss": ("SoftmaxWithLoss",),
}
# They read in their own thread, in parallel with everything else; the last two are SSD's.
_READERS = _TYPES["base_data"]
_READ_BY = ("data_transformer", "db", "db_leveldb", "db_lmdb", "io")  # other sources that they call
# How LMDB, and what trusts a record, ends the process that reads damaged data.
_CRASHES = (signal.SIGSEGV, signal.SIGBUS)
_MEANINGS = {
    "Check failed: blob->count()": "a parameter of size 0: is num_output missing or 0?",
    "blob size exceeds INT_MAX": "more than 2147483647 numbers in a blob: is a size or num_output too large?",
    "Check failed: shape[i] >= 0": "a size below 0",
    "Check failed: data_ ": "a blob without numbers: can this Caffe decode the images of its data?",
    "Not Implemented Yet": "this Caffe cannot compute this, or has no gradient for it",
}


class DamagedData(InputError):
    """Caffe died of its data in the middle of a training, whose run is kept."""


def open_solver(worker: Worker, solver: Solver, request: OpenRequest) -> Opened:
    """``Worker.open``, with errors in terms of the user's files.

    Args:
        solver: the user's; ``request`` has the patched one.

    Raises:
        InputError: Caffe does not accept the solver or a net, a test net cannot have the weights,
            or a record has a label that is none of the net's classes.
        TrainingError: it crashed, hung or got no memory; the message names the layer that it was
            making.
    """
    try:
        opened = worker.open(request)
    except Refusal as error:
        raise explain(solver, error) from error
    except OpenFailure as error:
        words, of_data, reader = _reason(solver, error)
        # Each data layer reads in its own thread, whatever Caffe is creating.
        where = _place(*reader) if reader else _where(solver, error)
        raise (InputError if of_data else TrainingError)(f"{where}: {words}") from error
    check_shared(solver, opened.nets)
    if solver.checked is not None:
        titles = [net.title for net in solver.phase_nets]
        check_labels(solver.checked, dict(zip(titles, [opened.train_shapes, *opened.test_shapes])))
    return opened


def check_shared(solver: Solver, nets: Sequence[Sequence[LayerParameters]]) -> None:
    """Check that the test nets can have the training net's weights; layers of one name share them.

    Args:
        nets: the layers of the training net and of each test net, as Caffe made them.

    Raises:
        InputError: Caffe would abort at the first test, as parameters have other shapes.
    """
    train, *tests = nets
    for net, layers in zip(solver.phase_nets[1:], tests):
        first = {layer.name: layer for layer in reversed(layers)}
        for layer in train:
            other = first.get(layer.name)
            if other is not None and other.shapes != layer.shapes:
                sizes = " and ".join(map(by, layer.shapes)), " and ".join(map(by, other.shapes))
                raise InputError(
                    f"{net.origin}: layer {layer.name!r} has parameters of {sizes[0] or 'no size'} in the "
                    f"training net and of {sizes[1] or 'no size'} in the {net.title}, which has the "
                    "same weights; allowed: the same sizes (are the records or crops of one size?)"
                )


def with_data(solver: Solver, error: Exception) -> tuple[str, bool]:
    """An error in words, with the state of the solver's LMDBs where one may be its reason.

    And whether the data is to blame: Caffe refused it, or crashed and it is damaged.
    """
    words, of_data, _ = _reason(solver, error)
    return words, of_data


def _reason(solver: Solver, error: Exception) -> tuple[str, bool, tuple[PhaseNet, Any] | None]:
    """``with_data``, and the net and layer that read a damaged LMDB."""
    death = error if isinstance(error, Death) else error.__cause__
    if not isinstance(death, Death):
        return str(error), False, None
    refused = death.signal == signal.SIGABRT and _is_reading(death.words) and not death.by_machine
    if not refused and death.signal not in _CRASHES and "mdb" not in death.words.lower():
        return str(error), False, None
    state = state_of_lmdbs(solver.phase_nets)
    if refused:
        return _refused_data(death.words, state), True, state.reader if state else None
    if state is None:
        return str(error), False, None
    if state.reader and death.signal is not None and not death.by_machine:
        return f"Caffe crashed ({death.signal.name}): {state.text}", True, state.reader
    trusted = ", and labels were not checked" if solver.checked is None else ""
    return f"{error}; {state.text}{trusted}", False, state.reader


def _refused_data(words: str, state: LmdbState | None) -> str:
    return f"Caffe refuses the data: {words}" + (f"; {state.text}" if state else "")


def explain(solver: Solver, refusal: Refusal) -> InputError:
    """The error for a person: one line with the file, the layer and field to blame, and what is allowed.

    Where only Caffe knows that, its own words stand for it.
    """
    unknown = _UNKNOWN_TYPE.search(refusal.words)
    if unknown and refusal.net is None:
        name, known = unknown.groups()
        fork = f"{VARIABLE} or {named('caffe_python')} names the Python of a fork that has it"
        return InputError(
            f"{solver.path}: type is {name!r}; allowed by this Caffe: {known}; {fork}"
        )
    layer = _layer(solver, refusal)
    if _is_reading(refusal.words) and not _is_first_reader(solver, refusal, layer):
        words = _refused_data(refusal.words, state_of_lmdbs(solver.phase_nets))
        return InputError(f"{solver.path}: {words}")
    fault = (
        layer is not None and (_wrong_blobs(layer, refusal) or _wrong_filler(layer, refusal))
    ) or None
    if fault is not None:
        return InputError(f"{_where(solver, refusal)}: {fault}")
    words = refusal.words + _meaning(refusal.words)
    return InputError(f"{_where(solver, refusal)}: Caffe refuses it: {words}")


def _is_first_reader(solver: Solver, failure: OpenFailure, layer: Any) -> bool:
    """Whether nothing but this layer can have read data so far."""
    if failure.net != 0 or layer is None:
        return False
    readers = [other.name for other in solver.phase_nets[0].layers if other.type in _READERS]
    return readers[:1] == [layer.name]


def with_layers(solver: Solver, words: str) -> str:
    """The words of a Caffe that died in training, with the layers before them whose source file they name."""
    source = _SOURCE.search(words)
    if source is None or not source["layer"]:
        return words
    for net in solver.phase_nets:
        layers = [layer for layer in net.layers if _is_source(source["name"], layer.type)]
        if layers:
            names = " or ".join(repr(layer.name) for layer in layers)
            return f"{net.origin}: layer {names} ({layers[0].type}): {words}{_meaning(words)}"
    return words


def _meaning(words: str) -> str:
    """An explanation of Caffe's words, in brackets; empty if they need none."""
    return next((f" ({text})" for said, text in _MEANINGS.items() if said in f"{words} "), "")


def _is_source(name: str, kind: str) -> bool:
    """Whether a layer type's source is NAME_layer.cpp."""
    return kind in _TYPES.get(name, ()) or name.replace("_", "") == kind.lower()


def _is_reading(words: str) -> bool:
    """Whether Caffe's words are of what reads data."""
    source = _SOURCE.search(words)
    if source is None or "Serialize" in words:  # io.cpp writes snapshots, too
        return False
    if source["layer"]:
        return any(_is_source(source["name"], kind) for kind in _READERS)
    return source["name"] in _READ_BY


def _wrong_blobs(layer: Any, refusal: Refusal) -> str | None:
    """Too few or too many bottoms or tops of the layer itself, and not of one in it (a loss's softmax)."""
    wrong = _BLOBS.search(refusal.words)
    if wrong and wrong[5] == layer.type:
        limit, end, allowed, given, _ = wrong.groups()
        return f"{end.lower()} is given {given} times; allowed: {allowed}{_LIMITS[limit]}"
    unequal = _EQUAL_BLOBS.search(refusal.words)
    if unequal and unequal[3] == layer.type:
        return f"has {unequal[1]} bottoms and {unequal[2]} tops; allowed: as many tops as bottoms"
    return None


def _wrong_filler(layer: Any, refusal: Refusal) -> str | None:
    unknown = _UNKNOWN_FILLER.search(refusal.words)
    if unknown is None:
        return None
    words = unknown[1].split()  # Caffe's words are one line here, without blanks at the end
    fields = [(path, one.type) for path, one in _fillers(layer) if one.type.split() == words]
    if not fields:
        return None
    path, name = fields[0]
    hint = did_you_mean(name, _FILLERS)
    return f"{path}.type: unknown filler {name!r}{hint}; BVLC Caffe has {', '.join(_FILLERS)}"


def _fillers(message: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The FillerParameters in a message, with their fields: "convolution_param.weight_filler"."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in [value] if hasattr(value, "ListFields") else value:
            if field.message_type.name == "FillerParameter":
                yield path + field.name, part
            else:
                yield from _fillers(part, f"{path}{field.name}.")


def _layer(solver: Solver, failure: OpenFailure) -> Any:
    """The layer of the user's net that Caffe was making last; None where it was not making one."""
    if failure.net is None or failure.net >= len(solver.phase_nets):
        return None
    layers = {layer.name: layer for layer in solver.phase_nets[failure.net].layers}
    # Splits and layers within layers are in no file.
    return next((layers[name] for name in reversed(failure.layers) if name in layers), None)


def _where(solver: Solver, failure: OpenFailure) -> str:
    if failure.net is None or failure.net >= len(solver.phase_nets):
        return str(solver.path)
    net = solver.phase_nets[failure.net]
    layer = _layer(solver, failure)
    if layer is None:
        return f"{net.origin}: the {net.title}"
    return _place(net, layer)


def _place(net: PhaseNet, layer: Any) -> str:
    return f"{net.origin}: layer {layer.name!r} ({layer.type}) of the {net.title}"
