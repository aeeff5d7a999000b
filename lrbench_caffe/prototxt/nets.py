"""A net in one phase: its layers after include and exclude rules."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from lrbench_caffe.errors import InputError, did_you_mean
from lrbench_caffe.prototxt.messages import lacks, shortest

PHASES = ("TRAIN", "TEST")  # the values 0 and 1 of caffe.proto's enum Phase


# Layers that make data of one size.
_ONE_SIZE = frozenset(["DummyData", "HDF5Data", "Input", "MemoryData", "Parameter", "WindowData"])


@dataclass(frozen=True)
class PhaseNet:
    """A net as the solver instantiates it.

    Attributes:
        title: what messages call it, e.g. "test net #0".
        origin: the file it comes from (the solver for a net_param).
        phase: "TRAIN" or "TEST".
        name: the net's name.
        layers: LayerParameter messages that are in this phase, in order.
    """

    title: str
    origin: str
    phase: str
    name: str
    layers: tuple[Any, ...]

    def of_type(self, *types: str) -> list[Any]:
        return [layer for layer in self.layers if layer.type in types]

    @property
    def data_layers(self) -> list[Any]:
        """The layers that produce data: those that read no blob and hold no weights."""
        return [layer for layer in self.layers if not layer.bottom and layer.type != "Parameter"]

    def producer(self, blob: str, before: Any = None) -> Any:
        """The last layer with ``blob`` among its tops (that precedes layer ``before``), or None."""
        producer = None
        for layer in self.layers:
            if layer is before:
                break
            if blob in layer.top:
                producer = layer
        return producer


def phase_layers(net: Any, phase: str, level: int, stages: frozenset[str]) -> tuple[Any, ...]:
    """The layers of a NetParameter that take part in a phase, by Caffe's NetStateRule."""

    def meets(rule: Any) -> bool:
        return (
            (not rule.HasField("phase") or PHASES[rule.phase] == phase)
            and (not rule.HasField("min_level") or level >= rule.min_level)
            and (not rule.HasField("max_level") or level <= rule.max_level)
            and stages.issuperset(rule.stage)
            and stages.isdisjoint(rule.not_stage)
        )

    def included(layer: Any) -> bool:
        if layer.include:
            return any(meets(rule) for rule in layer.include)
        return not any(meets(rule) for rule in layer.exclude)

    return tuple(layer for layer in net.layer if included(layer))


def one_phase(net: Any, phase: PhaseNet) -> Any:
    """A copy of a NetParameter with the layers of one phase alone."""
    copy = type(net)()
    copy.CopyFrom(net)
    del copy.layer[:]
    copy.layer.extend(phase.layers)
    return copy


def loss_weight(layer: Any) -> float:
    """The weight of a loss layer's first top."""
    return layer.loss_weight[0] if layer.loss_weight else 1.0


def has_plain_softmax_loss(net: PhaseNet) -> bool:
    """Whether the net's loss is one softmax loss, of weight 1 and averaged over the samples.

    Only then does Caffe's ceiling of 87.33 say something about the loss.
    """
    losses = [
        layer for layer in net.layers if layer.type.endswith("Loss") or any(layer.loss_weight)
    ]
    if [layer.type for layer in losses] != ["SoftmaxWithLoss"] or loss_weight(losses[0]) != 1:
        return False
    options = losses[0].loss_param
    if options.HasField("normalization"):
        return options.normalization in (0, 1)  # FULL, VALID
    return not options.HasField("normalize") or bool(options.normalize)


def check_layers(net: PhaseNet, known_types: list[str]) -> None:
    """Check types and wiring, on which Caffe would abort.

    Raises:
        InputError: no layer at all, a layer type that is missing or unknown, a bottom that no layer
            produces, a top produced twice, or a dropout_ratio that is not a share.
    """
    if not net.layers:
        raise InputError(f"{net.origin}: the {net.title} has no layers")
    produced: dict[str, str] = {}  # the name of the layer that each blob was last the top of
    readers = _readers(net)
    for number, layer in enumerate(net.layers):
        where = f"{net.origin}: layer {layer.name!r}"
        if not layer.type:
            raise InputError(
                f"{where}: type is missing; allowed: a layer type such as 'InnerProduct'"
            )
        if layer.type not in known_types:
            raise InputError(
                f"{where}: unknown layer type {layer.type!r}{lacks(layer.type, known_types)}"
            )
        for blob in layer.bottom:
            if blob not in produced:
                hint = did_you_mean(blob, sorted(produced))
                raise InputError(
                    f"{where}: no layer of the {net.title} before it has the top {blob!r}{hint}"
                )
        for place, blob in enumerate(layer.top):
            if blob in produced:
                _check_in_place(where, layer, place, produced[blob], readers.get((number, blob), 0))
            produced[blob] = layer.name
        _check_dropout(where, net, layer)


def _readers(net: PhaseNet) -> dict[tuple[int, str], int]:
    """How often each bottom, by its layer's number and its name, is read before another layer has it as top.

    A loss_weight is a reader, too. What has several readers Caffe splits, and its readers then read
    copies.
    """
    versions: dict[str, int] = {}
    counts: Counter[tuple[str, int]] = Counter()
    reads: dict[tuple[int, str], tuple[str, int]] = {}
    for number, layer in enumerate(net.layers):
        for blob in layer.bottom:
            reads[number, blob] = blob, versions.get(blob, 0)
            counts[reads[number, blob]] += 1
        for blob in layer.top:
            versions[blob] = versions.get(blob, 0) + 1
        for blob, weight in zip(layer.top, layer.loss_weight):
            counts[blob, versions[blob]] += weight != 0
    return {read: counts[version] for read, version in reads.items()}


def _check_in_place(where: str, layer: Any, place: int, owner: str, readers: int) -> None:
    """A blob is the top of a second layer only where that one computes in place: it alone reads the blob."""
    blob = layer.top[place]
    if list(layer.top).index(blob) < place:
        raise InputError(f"{where}: the top {blob!r} is given twice; allowed: once")
    if blob not in layer.bottom:
        raise InputError(f"{where}: the top {blob!r} is already the top of layer {owner!r}")
    if list(layer.bottom[place : place + 1]) != [blob]:
        raise InputError(
            f"{where}: the top {blob!r} is top number {place + 1}, but not bottom number {place + 1}; "
            "allowed: the same place, where a layer computes in place"
        )
    if readers > 1:
        raise InputError(
            f"{where}: the top {blob!r} is already the top of layer {owner!r}, and {readers} bottoms or loss "
            "weights read it; allowed: another name, or no other reader, for a layer that computes in place"
        )


def _check_dropout(where: str, net: PhaseNet, layer: Any) -> None:
    """Caffe draws with 1 - dropout_ratio as probability, in the first iteration, and divides by it.

    With a ratio of 1, all that the layer passes on is 0 times infinity.
    """
    phase = PHASES[layer.phase] if layer.HasField("phase") else net.phase
    if layer.type != "Dropout" or phase != "TRAIN":
        return
    ratio = layer.dropout_param.dropout_ratio
    if not 0 <= ratio < 1:
        raise InputError(
            f"{where} (Dropout): dropout_param.dropout_ratio is {shortest(ratio):g}; allowed: 0 or more, "
            "below 1"
        )


def numbered(net: PhaseNet) -> list[tuple[str, int]]:
    """Each layer's name, and how many layers before it have the same name.

    Two layers may have one name. Positions do not tell them apart in the worker, since Caffe
    inserts Split layers of its own.
    """
    seen: Counter[str] = Counter()
    places = []
    for layer in net.layers:
        places.append((layer.name, seen[layer.name]))
        seen[layer.name] += 1
    return places


def random_layers(net: PhaseNet) -> list[tuple[str, int]]:
    """The layers that read data or draw random numbers, as ``numbered`` has them.

    They are those that a resumed run must replay.
    """
    return [place for place, layer in zip(numbered(net), net.layers) if _draws(layer)]


def _draws(layer: Any) -> bool:
    stochastic_pooling = layer.type == "Pooling" and layer.pooling_param.pool == 2
    return not layer.bottom or layer.type == "Dropout" or stochastic_pooling


def draws_by_size(net: PhaseNet) -> bool:
    """Whether a layer of a training net draws as many random numbers as its input has values."""
    return any(_draws(layer) and layer.bottom for layer in net.layers)


def data_sizes(net: PhaseNet) -> str:
    """Whether a net's data has the same size in each batch: "fixed", "varying" or "unknown".

    A batch of more than one record has records of one size, and so have all batches. The reshape of
    a Python layer may do more than reshape, so nothing is known of it without running the net.
    """
    texts = {_sizes(layer) for layer in net.layers if not layer.bottom}
    return next((sizes for sizes in ("unknown", "varying") if sizes in texts), "fixed")


def _sizes(layer: Any) -> str:
    if layer.type == "Data":
        one_size = layer.transform_param.crop_size or layer.data_param.batch_size != 1
    elif layer.type == "ImageData":
        parameter = layer.image_data_param
        one_size = (
            layer.transform_param.crop_size or parameter.batch_size != 1 or parameter.new_height
        )
    else:
        return "fixed" if layer.type in _ONE_SIZE else "unknown"
    return "fixed" if one_size else "varying"


def decay_multipliers(net: PhaseNet) -> dict[str, list[list[float]]]:
    """decay_mult of the parameters of each layer: by name, one list for each layer of that name."""
    multipliers: dict[str, list[list[float]]] = {}
    for layer in net.layers:
        multipliers.setdefault(layer.name, []).append(
            [float(spec.decay_mult) for spec in layer.param]
        )
    return multipliers


def names_not_in_hdf5(net: PhaseNet) -> list[str]:
    """Names in a net that cannot be groups of an HDF5 file, as Caffe makes one for each layer.

    They are paths, none at all, or come twice. Blobs count as well, as Caffe names the splits that
    it puts in after them.
    """
    layers = [layer.name for layer in net.layers]
    blobs = [blob for layer in net.layers for blob in layer.top]
    wrong = [name for name in layers if name in ("", ".") or layers.count(name) > 1]
    return [*wrong, *(name for name in (*layers, *blobs) if "/" in name)]
