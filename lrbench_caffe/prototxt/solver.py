"""A solver.prototxt and its nets, read and checked as far as possible without Caffe."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lrbench_caffe.datasets.identity import data_digest, reads_content
from lrbench_caffe.errors import InputError, ParameterError, named
from lrbench_caffe.lr import FunctionPolicy, Policy, from_caffe
from lrbench_caffe.progress import Progress
from lrbench_caffe.prototxt.datacheck import CheckedData, check_records
from lrbench_caffe.prototxt.geometry import check_geometry
from lrbench_caffe.prototxt.heads import (
    Head,
    check_head,
    choose_head,
    find_heads,
    misused_accuracies,
)
from lrbench_caffe.prototxt.messages import Messages, file_path, old_format, shortest
from lrbench_caffe.prototxt.nets import (
    PHASES,
    PhaseNet,
    check_layers,
    names_not_in_hdf5,
    phase_layers,
)
from lrbench_caffe.prototxt.sources import Source, by, find_sources
from lrbench_caffe.runtime.replies import CaffeInfo

ADAPTIVE = ("AdaGrad", "RMSProp", "AdaDelta", "Adam")
LINEAR = ("SGD", "Nesterov")  # their updates are linear in the gradient
TYPES = (*LINEAR, *ADAPTIVE)
# Fields that forks have added to what decides the LR: min_lr, rampup_interval, warmup_iter,
# plateau_winsize.
_LR_FIELD = re.compile(
    r"(min|max|start|end|final|initial|target)_lr|(ramp|warm)_?up_\w+|(plateau|sgdr|cycle|cosine)_\w+"
)
Sources = list[tuple[Any, Source]]
NetOpener = Callable[[str, str], "tuple[Any, str | None]"]
_TRAIN_FIELDS = ("net", "net_param", "train_net", "train_net_param")


@dataclass(frozen=True)
class TestNet:
    """One of a solver's test nets.

    Attributes:
        net: its layers in the TEST phase.
        source: its data, None where that is unknown.
        passes: test_iter, the number of batches in a test pass.
        heads: where its scores and labels are, the one that counts first; none for a net that does
            not classify.
    """

    __test__ = False  # not a test class, whatever pytest thinks of the name

    net: PhaseNet
    source: Source | None
    passes: int
    heads: tuple[Head, ...] = ()

    @property
    def head(self) -> Head | None:
        """The chosen head."""
        return self.heads[0] if self.heads else None

    @property
    def remark(self) -> str | None:
        """A sentence where a test pass does not cover the test set exactly once, else None."""
        if self.passes <= 0:
            return f"test_iter of the {self.net.title} is {self.passes}: it measures nothing"
        if self.source is None or self.source.samples is None:
            return None
        covered, samples = self.passes * self.source.batch, self.source.samples
        if covered == samples:
            return None
        what = (
            f"test_iter {self.passes} x batch {self.source.batch} = {covered} of {samples} samples"
        )
        wish = -(-samples // self.source.batch)
        if covered < samples:
            return (
                f"a test pass of the {self.net.title} leaves some of its data out: {what} "
                f"(test_iter {wish})"
            )
        return f"a test pass of the {self.net.title} uses some of its data twice: {what}"


@dataclass(frozen=True)
class Solver:
    """A solver and its nets.

    Attributes:
        path: the solver file.
        message: the SolverParameter as it is in the file.
        nets: the NetParameter messages by the solver's field that brought them in, in Caffe's
            order.
        train: the net in the TRAIN phase.
        source: its data.
        tests: the test nets.
        head: the name of the head that was chosen, None for the default one.
        notes: what a person should know of how the files were read.
        checked: its data layers, all of whose records were looked at; None where the data is
            trusted.
    """

    path: Path
    message: Any
    nets: dict[str, Any] = field(repr=False)
    train: PhaseNet = field(repr=False)
    source: Source | None
    tests: list[TestNet]
    head: str | None = None
    notes: list[str] = field(default_factory=list)
    checked: list[CheckedData] | None = field(default=None, repr=False)

    @property
    def type(self) -> str:
        return solver_type(self.message)

    @cached_property
    def data_digest(self) -> str | None:
        """The digest of the data of the training net and of the first test net, as it was when it was
        first asked for (see ``datasets.identity``)."""
        return data_digest(*self._data_layers)

    @property
    def content_digest(self) -> str:
        """The same, where it changes only if the content of the data does, wherever that is; else empty.

        A LevelDB is known by its place; a layer made by its parameters may name a folder in which
        files come and go.
        """
        train, test = self._data_layers
        return self.data_digest or "" if all(map(reads_content, (*train, *test))) else ""

    @property
    def _data_layers(self) -> tuple[list[Any], list[Any]]:
        return self.train.data_layers, self.tests[0].net.data_layers if self.tests else []

    @property
    def phase_nets(self) -> list[PhaseNet]:
        """The training net and the test nets."""
        return [self.train, *(test.net for test in self.tests)]

    @property
    def weights(self) -> list[str]:
        """The caffemodels that its trainings begin with, as in the file (Caffe of 2018 has the field)."""
        return (
            list(self.message.weights)
            if "weights" in self.message.DESCRIPTOR.fields_by_name
            else []
        )

    @property
    def iter_size(self) -> int:
        return max(1, int(self.message.iter_size))

    @property
    def epoch(self) -> float | None:
        """Iterations for one pass over the training samples; None where their number is unknown."""
        if self.source is None or self.source.samples is None:
            return None
        return self.source.samples / (self.source.batch * self.iter_size)

    def lr_policy(self, max_iter: int) -> Policy:
        """The solver's own lr_policy with the numbers as written, 0.01 for 0.009999999776482582.

        Raises:
            PolicyError: Caffe has no such lr_policy, or no finite LR by it.
        """
        return caffe_policy(self.message, max_iter)

    def exact_lr_policy(self, max_iter: int) -> Policy:
        """The solver's own lr_policy with the float32 numbers that Caffe computes with."""
        return caffe_policy(self.message, max_iter, number=float)

    @property
    def not_in_hdf5(self) -> str | None:
        """A name for which Caffe would abort at an HDF5 snapshot, if it writes these; else None."""
        fields = self.message.DESCRIPTOR.fields_by_name
        if "snapshot_format" not in fields or self.message.snapshot_format != self.message.HDF5:
            return None
        return next(iter(names_not_in_hdf5(self.train)), None)

    @property
    def remarks(self) -> list[str]:
        """Remarks that a person should know before a training starts."""
        if self.not_in_hdf5 is None:
            return self._test_remarks
        return [
            f"{self.path}: snapshot_format: HDF5 cannot hold the name {self.not_in_hdf5!r}, for which Caffe "
            "would abort at the first snapshot; the snapshots are BINARYPROTO",
            *self._test_remarks,
        ]

    @property
    def _test_remarks(self) -> list[str]:
        if not self.tests:
            missing = (
                f"{self.path} has no test nets (no test_iter): only the training loss is measured"
            )
            return [*self.notes, missing]
        remarks = [*self.notes, *(test.remark for test in self.tests if test.remark)]
        return remarks + [text for test in self.tests for text in misused_accuracies(test.net)]


def solver_type(message: Any) -> str:
    """The solver's type; ``solver_type`` is its name in files from before 2015."""
    if not message.HasField("type") and message.HasField("solver_type"):
        enum = message.DESCRIPTOR.fields_by_name["solver_type"].enum_type
        name = enum.values_by_number[message.solver_type].name
        return next((kind for kind in TYPES if kind.upper() == name), name)
    return str(message.type)


def caffe_policy(
    message: Any,
    max_iter: int,
    *,
    lr_policy: str | None = None,
    number: Callable[[float], float] = shortest,
) -> Policy:
    """The policy that a SolverParameter's fields make.

    Args:
        lr_policy: another name than its own, to read the same fields by.
        number: makes a policy's number of a float32 field; by default the decimal that was written.

    Raises:
        PolicyError: as ``from_caffe`` raises it.
    """
    return from_caffe(
        lr_policy or message.lr_policy,
        base_lr=number(message.base_lr),
        gamma=number(message.gamma),
        power=number(message.power),
        stepsize=message.stepsize or None,
        stepvalue=list(message.stepvalue),
        max_iter=max(1, max_iter),  # Caffe takes 0, and trains nothing
    )


def as_written(policy: Policy) -> Policy:
    """A policy of ``Solver.exact_lr_policy`` with the numbers that were written, as ``Solver.lr_policy`` has
    them."""
    if not isinstance(policy, FunctionPolicy):  # not one of Caffe's
        return policy
    written = {
        name: shortest(v) if isinstance(v, float) else v for name, v in policy.params.items()
    }
    return FunctionPolicy(policy.name, written, strict=False)


def flag_stages(stages: Sequence[str]) -> list[str]:
    """The stages that ``caffe train`` gives the training net for --stage.

    Without the flag there is one, whose name is empty: it splits an empty text at its commas.
    """
    return list(stages) or [""]


def fork_lr_fields(message: Any) -> list[str]:
    """Names of the fields given in a solver that belong to its LR, but to no lr_policy of BVLC's Caffe."""
    names = [descriptor.name for descriptor, _ in message.ListFields()]
    return [name for name in names if _LR_FIELD.fullmatch(name)]


def load_solver(
    path: Path,
    messages: Messages,
    info: CaffeInfo,
    *,
    level: int = 0,
    stages: Sequence[str] = (),
    max_iter: int | None = None,
    test_interval: int | None = None,
    head: str | None = None,
    check_data: Progress | None = None,
) -> Solver:
    """Read a solver and its nets and check all that Caffe would abort on.

    Args:
        path: the solver.prototxt.
        messages: this Caffe's messages.
        info: what this Caffe can do.
        level, stages: ``caffe train``'s flags for the training net.
        max_iter, test_interval: replace the solver's own; None: it is kept.
        head: the head that counts, None for the default one (see ``find_heads``).
        check_data: look at all records of its data, and tell this of a look that takes longer; None
            trusts them.

    Raises:
        InputError: one line that names the file, the field, its value and what is allowed.
    """
    solver = build_solver(
        path,
        messages.read_text("SolverParameter", path),
        info,
        open_net=lambda name, value: _open_net(path, name, value, messages),
        sources_of=lambda net: find_sources(net, messages),
        level=level,
        stages=stages,
        max_iter=max_iter,
        test_interval=test_interval,
        head=head,
    )
    if check_data is None:
        return solver
    return replace(solver, checked=check_records(solver.phase_nets, messages, check_data))


def build_solver(
    path: Path,
    message: Any,
    info: CaffeInfo,
    *,
    open_net: NetOpener,
    sources_of: Callable[[PhaseNet], Sources],
    level: int = 0,
    stages: Sequence[str] = (),
    max_iter: int | None = None,
    test_interval: int | None = None,
    head: str | None = None,
) -> Solver:
    """A solver out of its message. Only ``open_net`` and ``sources_of`` open files.

    Args:
        path: what messages call the solver.
        open_net: the net of a field of the solver ("net", "test_net[0]") that names a file, and the
            older format that it was upgraded from.
        sources_of: the data layers of a net, with what they read.
        info, level, stages, max_iter, test_interval, head: as for ``load_solver``.

    Raises:
        InputError: as ``load_solver``.
    """
    _check_fields(path, message)
    notes = _odd_fields(path, message)
    if message.max_iter < 1 and max_iter is None:
        notes.append(
            f"{path}: max_iter {_shown_field(message, 'max_iter')}: Caffe trains nothing, so nothing is "
            f"recorded ({named('max_iter')} N trains)"
        )
    if message.train_state.level not in (0, level):
        notes.append(
            f"{path}: train_state.level {message.train_state.level} does not count: caffe train replaces "
            f"it by {named('level')}, here {level}"
        )
    nets = _read_nets(path, message, open_net, notes)
    train = _train_net(path, message, nets, level, stages)
    sources = _check_net(train, sources_of, info)
    tests = []
    for index, net in enumerate(_test_nets(path, message, nets, test_interval)):
        test_sources = _check_net(net, sources_of, info)
        notes += _unlike_records(net, sources, test_sources)
        tests.append(TestNet(net, _first(test_sources), message.test_iter[index], find_heads(net)))
    if head is not None:
        head = _choose_head(path, tests, head)
    return Solver(path, message, nets, train, _first(sources), tests, head, notes)


def _choose_head(path: Path, tests: list[TestNet], name: str) -> str | None:
    """Let the head called ``name`` count, in all test nets that have it; None where it does by default."""
    if not tests:
        raise ParameterError(
            "{head}: {0!r}; {1} has no test nets (no test_iter)",
            name,
            path,
        )
    check_head(tests[0].heads, name, tests[0].net.title)
    default = tests[0].heads[0].name == name
    tests[:] = [replace(test, heads=choose_head(test.heads, name)) for test in tests]
    return None if default else name


def _check_net(
    net: PhaseNet, sources_of: Callable[[PhaseNet], Sources], info: CaffeInfo
) -> Sources:
    check_layers(net, info.layers)
    sources = sources_of(net)
    check_geometry(net, sources)
    return sources


def _first(sources: Sources) -> Source | None:
    return sources[0][1] if sources else None


def _unlike_records(net: PhaseNet, train: Sources, test: Sources) -> list[str]:
    """Notes on records of the test net that its weights, learnt from other ones, may not fit.

    Caffe reshapes a net to its data, so it takes other heights and widths where no weights depend
    on them.
    """
    learnt = {layer.top[0]: source.shape for layer, source in train if layer.top and source.shape}
    pooled = any(layer.pooling_param.global_pooling for layer in net.of_type("Pooling"))
    notes = []
    for layer, source in test:
        shape = learnt.get(layer.top[0]) if layer.top else None
        if shape is None or source.shape is None or shape == source.shape:
            continue
        if shape[0] != source.shape[0] or (net.of_type("InnerProduct") and not pooled):
            notes.append(
                f"the {net.title} reads {layer.top[0]!r} of {by(source.shape)} from {source.path}, the "
                f"training net of {by(shape)}: Caffe aborts at the first test where weights depend on that"
            )
    return notes


def _check_fields(path: Path, message: Any) -> None:
    """Refuse what Caffe aborts on."""

    def require(ok: bool, name: str, allowed: str) -> None:
        if not ok:
            value = getattr(message, name)
            shown = shortest(value) if isinstance(value, float) else value
            raise InputError(f"{path}: {name} is {shown}; allowed: {allowed}")

    if message.HasField("type") and message.HasField("solver_type"):
        raise InputError(f"{path}: has type and solver_type, its older name; allowed: one of them")
    kind = solver_type(message)
    known = next((name for name in TYPES if name.lower() == kind.lower()), kind)
    if known != kind:  # whether a fork has another type, its Caffe knows
        raise InputError(
            f"{path}: type is {kind!r}; did you mean {known!r}? allowed: {', '.join(TYPES)}"
        )
    require(message.average_loss > 0, "average_loss", "1 or more")
    if message.weight_decay:
        require(message.regularization_type in ("L1", "L2"), "regularization_type", "L1 or L2")
    if kind in ("AdaGrad", "RMSProp"):
        require(message.momentum == 0, "momentum", f"0 with {kind}")
    if kind == "RMSProp":
        require(0 <= message.rms_decay < 1, "rms_decay", "0 to 1, 1 excluded")


def _odd_fields(path: Path, message: Any) -> list[str]:
    """Settings that Caffe accepts, although they are most likely mistakes."""
    momentum, decay, lr = (
        shortest(getattr(message, f)) for f in ("momentum", "weight_decay", "base_lr")
    )
    odd = [
        (
            not 0 <= momentum < 1,
            f"momentum is {momentum:g}: below 1 updates stay bounded, from 0 on steady",
        ),
        (decay < 0, f"weight_decay is {decay:g}: it makes weights grow"),
        (lr < 0, f"base_lr is {lr:g}: it makes the loss rise"),
        (
            message.iter_size < 1,
            f"iter_size is {message.iter_size}: Caffe reads no data in an iteration",
        ),
    ]
    return [f"{path}: {text}" for is_so, text in odd if is_so]


def _read_nets(path: Path, message: Any, open_net: NetOpener, notes: list[str]) -> dict[str, Any]:
    """All nets of a solver by field, e.g. {"net": ...} or {"train_net": ..., "test_net[0]": ...}.

    What a person should know of them is appended to ``notes``.
    """
    nets: dict[str, Any] = {}
    given = [name for name in _TRAIN_FIELDS if message.HasField(name)]
    if len(given) != 1:
        have = ", ".join(given) or "none"
        raise InputError(
            f"{path}: exactly one of {', '.join(_TRAIN_FIELDS)} is needed; given: {have}"
        )
    fields = [(given[0], getattr(message, given[0]))]
    fields += [(f"test_net_param[{i}]", net) for i, net in enumerate(message.test_net_param)]
    fields += [(f"test_net[{i}]", net) for i, net in enumerate(message.test_net)]
    for name, value in fields:
        nets[name] = _read_net(path, name, value, open_net, notes)
    return nets


def _read_net(path: Path, name: str, value: Any, open_net: NetOpener, notes: list[str]) -> Any:
    if not isinstance(value, str):
        net = type(value)()
        net.CopyFrom(value)
        old = old_format(net)
        if old:
            notes.append(
                f"{path}: {name} has {old}, which Caffe upgrades in files and does not read here"
            )
            for field_name in ("layers", "input", "input_dim", "input_shape"):
                net.ClearField(field_name)
    elif not value:
        raise InputError(f"{path}: {name} is empty; allowed: the name of a net's file")
    else:
        net, old = open_net(name, value)
        if old:
            notes.append(f"{value} has {old}: upgraded as Caffe does it")
    return net


def _open_net(path: Path, name: str, value: str, messages: Messages) -> tuple[Any, str | None]:
    if not file_path(value).is_file():
        raise InputError(f"{path}: {name}: no such file: {value} (looked for in {Path.cwd()})")
    return messages.read_net(file_path(value))


def _shown_field(message: Any, name: str) -> str:
    """What a message on a field that is not allowed says of its value."""
    return f"is {getattr(message, name)}" if message.HasField(name) else "is missing"


def check_length(solver: Solver, max_iter: int, parameter: str = "max_iter") -> None:
    """Raise a ParameterError where a training has no iterations.

    Args:
        max_iter: what was asked for, else the solver's own.
        parameter: what asks for it.
    """
    if max_iter < 1:
        raise ParameterError(
            "{0}: max_iter {1}; allowed: 1 or more ({" + parameter + "} N)",
            solver.path,
            _shown_field(solver.message, "max_iter"),
        )


def _origin(path: Path, value: Any) -> str:
    return value if isinstance(value, str) else str(path)


def _phase_net(path: Path, title: str, origin: Any, net: Any, phase: str, *states: Any) -> PhaseNet:
    """A net in a phase, under the net's own state and the solver's, later ones over earlier ones."""
    level, stages = 0, set()
    for state in (net.state, *states):
        phase = PHASES[state.phase] if state.HasField("phase") else phase
        level = state.level if state.HasField("level") else level
        stages.update(state.stage)
    origin = _origin(path, origin)
    for layer in net.layer:
        if layer.include and layer.exclude:
            raise InputError(
                f"{origin}: layer {layer.name!r}: has include and exclude; allowed: rules of one kind"
            )
    return PhaseNet(
        title, origin, phase, net.name, phase_layers(net, phase, level, frozenset(stages))
    )


def _train_net(
    path: Path, message: Any, nets: dict[str, Any], level: int, stages: Sequence[str]
) -> PhaseNet:
    field_name = next(iter(nets))
    state = type(message.train_state)()
    state.CopyFrom(message.train_state)
    state.level = level
    state.stage.extend(flag_stages(stages))
    return _phase_net(
        path, "training net", getattr(message, field_name), nets[field_name], PHASES[0], state
    )


def _test_nets(
    path: Path, message: Any, nets: dict[str, Any], test_interval: int | None
) -> list[PhaseNet]:
    """The solver's test nets in Caffe's order: test_net_param, test_net, then the generic net."""
    origins = [*message.test_net_param, *message.test_net]
    own = [(net, origin) for (name, net), origin in zip(list(nets.items())[1:], origins)]
    generic_field = next(iter(nets))
    generic = generic_field in ("net", "net_param")
    count = len(message.test_iter)
    if count < len(own) or (not generic and count != len(own)):
        raise InputError(
            f"{path}: test_iter is given {count} times for {len(own)} test nets; allowed: once for each"
        )
    own += [(nets[generic_field], getattr(message, generic_field))] * (count - len(own))
    if own and (test_interval or message.test_interval) <= 0:
        raise InputError(
            f"{path}: test_interval {_shown_field(message, 'test_interval')}; allowed: 1 or more, since "
            "test_iter is given"
        )
    if len(message.test_state) not in (0, len(own)):
        raise InputError(
            f"{path}: test_state is given {len(message.test_state)} times for {len(own)} test nets; "
            "allowed: never, or once for each"
        )
    return [
        _phase_net(
            path,
            f"test net #{index}",
            origin,
            net,
            PHASES[1],
            *message.test_state[index : index + 1],
        )
        for index, (net, origin) in enumerate(own)
    ]
