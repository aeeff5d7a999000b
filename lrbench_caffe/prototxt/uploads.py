"""What a solver and its net would train, out of their texts: nothing that they name is opened.

Somebody tells what the data is like. The rest is worked out as for a solver file, but without
Caffe: where the shapes of a net's blobs do not follow from its layers, its number of parameters is
not known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lrbench_caffe.errors import InputError
from lrbench_caffe.prototxt.geometry import Size
from lrbench_caffe.prototxt.heads import channels
from lrbench_caffe.prototxt.messages import Messages
from lrbench_caffe.prototxt.nets import PhaseNet
from lrbench_caffe.prototxt.shapes import blob_shapes, count_parameters
from lrbench_caffe.prototxt.solver import Solver, Sources, build_solver
from lrbench_caffe.prototxt.sources import told_sources
from lrbench_caffe.prototxt.task import framework, network, solver_settings, task_type
from lrbench_caffe.records import SCRATCH, Dataset, SolverSettings, Start, Task
from lrbench_caffe.runtime.replies import CaffeInfo

SOLVER = Path("solver.prototxt")  # what messages call it; a net is called what the solver calls it
MOST_LAYERS = 10_000  # of a net

Ask = Callable[[str, bytes], "bytes | None"]


@dataclass(frozen=True)
class SolverTexts:
    """A solver, and the nets that it names, as the bytes of their files.

    Attributes:
        solver: the solver.
        net: of its net or train_net; None where the net is in the solver.
        test_net: of its test_net; None where that is the net, or there is none.
    """

    solver: bytes
    net: bytes | None = None
    test_net: bytes | None = None


@dataclass(frozen=True)
class ToldTraining:
    """What a solver would train.

    Attributes:
        task, start: as for ``knowledge.evidence.Wanted``.
        solver: its other settings.
        max_iter, epoch: in iterations; an epoch is None where it is not known.
        notes: what a person should know of how the texts were read.
    """

    task: Task
    start: Start
    solver: SolverSettings
    max_iter: int
    epoch: float | None
    notes: tuple[str, ...] = ()


def told_training(
    texts: SolverTexts,
    data: Dataset,
    messages: Messages,
    info: CaffeInfo,
    *,
    ask: Ask | None = None,
    max_iter: int | None = None,
    head: str | None = None,
) -> ToldTraining:
    """What a solver would train on data like this.

    Args:
        data: what its data layers give the net, after their crop.
        messages, info: of the Caffe whose fields and layers are known.
        ask: reads a message of a kind with Caffe's own functions, as ``Messages.parse`` asks for it.
        max_iter: iterations of the training; None for the solver's.
        head: the head that counts, None for the default one.

    Raises:
        InputError: a text that Caffe would not take, or one that is missing.
    """

    read = partial(_read, messages=messages, ask=ask)
    message, _ = read("SolverParameter", SOLVER, texts.solver)
    solver = build_solver(
        SOLVER,
        message,
        info,
        open_net=lambda field, value: _open_net(texts, field, value, read),
        sources_of=partial(_sources, data=data),
        max_iter=max_iter,
        head=head,
    )
    length = max_iter or message.max_iter
    if length < 1:
        raise InputError(f"{SOLVER}: max_iter is {length}; allowed: 1 or more")
    parameters = count_parameters(solver.train.layers, _shapes(solver.train, data))
    notes = list(solver.remarks)
    if parameters is None:
        notes.append(
            "the number of parameters of the net does not follow from its layers; it counts as unknown"
        )
    return ToldTraining(
        task=Task(
            framework(info, None),
            task_type(solver),
            replace(data, classes=_classes(solver, data)),
            network(solver, parameters),
        ),
        start=_start(solver),
        solver=solver_settings(solver),
        max_iter=length,
        epoch=solver.epoch,
        notes=tuple(notes),
    )


def _read(
    kind: str, path: Path, text: bytes, messages: Messages, ask: Ask | None
) -> tuple[Any, str | None]:
    return messages.parse(kind, path, text, partial(ask, kind, text) if ask else None)


def _open_net(
    texts: SolverTexts, field: str, value: str, read: Callable[..., tuple[Any, str | None]]
) -> tuple[Any, str | None]:
    net, old = read("NetParameter", Path(value), _text_of(texts, field, value))
    if len(net.layer) > MOST_LAYERS:
        raise InputError(f"{value}: layer is given {len(net.layer)} times; allowed: {MOST_LAYERS}")
    return net, old


def _text_of(texts: SolverTexts, field: str, value: str) -> bytes:
    """The text of the net that a field of the solver names."""
    if field not in ("net", "train_net", "test_net[0]"):
        raise InputError(f"{SOLVER}: {field} is {value!r}; allowed: one test_net")
    own = texts.test_net if field == "test_net[0]" else None
    text = texts.net if own is None else own
    if text is None:
        raise InputError(f"{SOLVER}: {field} is {value!r}, whose text is missing")
    return text


def _sources(net: PhaseNet, data: Dataset) -> Sources:
    samples = data.train_samples if net.phase == "TRAIN" else data.test_samples
    size = _size(data)
    shape = (data.channels, *size) if data.channels and size else None
    return told_sources(net, samples, shape)


def _size(data: Dataset) -> Size | None:
    return (data.height, data.width) if data.height and data.width else None


def _shapes(net: PhaseNet, data: Dataset) -> dict[str, list[int]]:
    size = _size(data)
    return blob_shapes(net, [1, data.channels, *size]) if data.channels and size else {}


def _classes(solver: Solver, data: Dataset) -> int | None:
    """The number of scores of the main head; the data's where the net does not tell them."""
    test = solver.tests[0] if solver.tests else None
    if test is None or test.head is None:
        return None
    shape = _shapes(test.net, data).get(test.head.scores)
    if shape is None:
        reader = next(layer for layer in test.net.layers if test.head.scores in layer.bottom)
        known = channels(test.net, test.head.scores, reader)
        shape = [1] if known is None else [1, known]
    classes = test.head.classes(shape)
    return data.classes if classes is None else classes


def _start(solver: Solver) -> Start:
    """From scratch, or from weights whose content nobody has seen."""
    if not solver.weights:
        return SCRATCH
    return Start("weights", name=", ".join(Path(name).name for name in solver.weights))
