"""The solver and the nets of a training in a log: what was printed, or the file that it names.

glog ends a message at 30,000 bytes, so the nets of deep networks are printed in part. The lines in
which Caffe sets up the layers are whole, and tell names, blobs and shapes; only the file tells the
rest.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from lrbench_caffe.errors import InputError
from lrbench_caffe.importing.sessions import Block, LogSession, NetText
from lrbench_caffe.prototxt.messages import Messages, old_format
from lrbench_caffe.prototxt.nets import PHASES, PhaseNet, phase_layers
from lrbench_caffe.prototxt.shapes import count_parameters

_REPAIRS = 50  # damaged lines of a message that are left out, at most
_UNKNOWN_FIELD = re.compile(r'(\d+):\d+ : .*has no field named "(\w+)"')
_UNKNOWN_VALUE = re.compile(r"(\d+):\d+ : .*has no value (?:named|with number) ")
_PLACE = re.compile(r"(\d+):\d+ : ")
_OPENS, _CLOSES = re.compile(r"^\s*(\w+) ?:? ?\{\s*$"), re.compile(r"^\s*\}\s*$")
_ACCURACY = re.compile(r"acc|top[-_@]?[15]\b|precision@", re.IGNORECASE)
_TOP5 = re.compile(r"(?:top|acc\w*|@)[-_@]?5(?![\dx])", re.IGNORECASE)


@dataclass
class Parsed:
    """A printed message as far as it can be read.

    Attributes:
        message: the protobuf message.
        forks: what this Caffe does not know: (line, what).
        damaged: lines that cannot be read: (line, text).
        doubtful: places of the layers that such lines belong to, among the layers of the message.
        cut: whether its end is missing.
    """

    message: Any
    forks: list[tuple[int, str]] = field(default_factory=list)
    damaged: list[tuple[int, str]] = field(default_factory=list)
    doubtful: set[int] = field(default_factory=set)
    cut: bool = False

    @property
    def whole(self) -> bool:
        return not self.cut and not self.damaged


def parse(messages: Messages, name: str, block: Block) -> Parsed:
    """Read a printed SolverParameter or NetParameter, one field or layer after the other."""
    parsed = Parsed(messages.new(name), cut=block.cut)
    for part, closed in _parts(block.lines):
        if not closed:
            parsed.cut = True
        elif part[0][1].strip():
            _merge(part, parsed)
    return parsed


def _parts(lines: list[tuple[int, str]]) -> Iterator[tuple[list[tuple[int, str]], bool]]:
    """The lines of each field, and whether its braces are closed."""
    part: list[tuple[int, str]] = []
    depth = 0
    for number, text in lines:
        opens = _OPENS.match(text)
        within = _OPENS.match(part[0][1]) if part else None
        if (
            opens and within and opens[1] == within[1] and opens[1] in ("layer", "layers")
        ):  # lines are lost
            yield part, False
            part, depth = [], 0
        part.append((number, text))
        depth += bool(opens) - bool(_CLOSES.match(text))
        if depth <= 0:
            yield part, True
            part, depth = [], 0
    if part:
        yield part, False


def _merge(part: list[tuple[int, str]], parsed: Parsed) -> None:
    """Add a field to the message, without what this Caffe does not know and without damaged lines."""
    lines = list(part)
    known: Any = type(parsed.message)()
    damaged = len(parsed.damaged)
    strict = True
    for _ in range(_REPAIRS):
        known.Clear()
        try:
            text_format.Parse(
                "\n".join(text for _, text in lines), known, allow_unknown_field=not strict
            )
            if (
                len(parsed.damaged) > damaged
                and part[0][1].startswith("layer")
                and hasattr(known, "layer")
            ):
                parsed.doubtful.add(len(parsed.message.layer))
            parsed.message.MergeFrom(known)
            return
        except text_format.ParseError as error:
            what = str(error)
        if strict and (unknown := _UNKNOWN_FIELD.match(what)):
            parsed.forks.append((lines[int(unknown[1]) - 1][0], unknown[2]))
            strict = False
            continue
        place = _PLACE.match(what)
        index = min(int(place[1]) if place else len(lines), len(lines)) - 1
        number, text = lines[index]
        if _UNKNOWN_VALUE.match(what):
            parsed.forks.append((number, text.strip()))
        else:
            parsed.damaged.append((number, text.strip()))
        if _OPENS.match(text) or _CLOSES.match(text):  # nothing is left that could be read
            return
        lines[index] = (number, "")
    parsed.damaged.append((part[0][0], part[0][1].strip()))


def parse_file(messages: Messages, name: str, path: Path) -> Parsed:
    """The same of a prototxt file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    parsed = Parsed(messages.new(name))
    _merge(list(enumerate(text.lstrip("\ufeff").splitlines(), 1)), parsed)
    return parsed


def fields_of(block: Block | None, message: Any) -> dict[str, list[str]]:
    """A solver's plain fields as they are printed, also those that this Caffe does not know."""
    text = block.text if block else text_format.MessageToString(message)
    fields: dict[str, list[str]] = {}
    for name, value in re.findall(r"(?m)^(\w+): *(\S+)\s*$", text):
        fields.setdefault(name, []).append(value.strip('"'))
    return fields


# -- nets ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LogNet:
    """A net of a training.

    Attributes:
        net: its layers as far as they are known; in a test net also Accuracy layers that the set-up
            shows.
        shapes: the shape of each blob, where the log tells it.
        wiring: where layers are not known: what the set-up tells of all of them, without names;
            else None.
        parsed: the printed net, None where it was not printed.
        file: where the layers were taken from, None for the log.
    """

    net: PhaseNet
    shapes: dict[str, list[int]]
    wiring: list[list[Any]] | None = None
    parsed: Parsed | None = None
    file: Path | None = None

    @property
    def partial(self) -> bool:
        return self.wiring is not None


class NetReader:
    """Finds the nets of sessions.

    Args:
        folders: where the files that a log names are looked for, besides the places that it gives.
    """

    def __init__(self, messages: Messages, folders: list[Path]) -> None:
        self._messages = messages
        self._folders = folders

    def nets(self, session: LogSession, solver: Any) -> list[LogNet]:
        """The training net and the test nets; none where nothing tells them.

        Args:
            solver: its SolverParameter.
        """
        texts = [text for text in session.nets if text.text.strip() or text.tops]
        train = next((text for text in texts if text.phase == PHASES[0]), None)
        tests = [text for text in texts if text.phase == PHASES[1]]
        if not texts:  # the beginning of the log is lost
            tests = [NetText(0, phase=PHASES[1])] * len(solver.test_iter)
        elif train is None:
            return []
        file = solver.net or solver.train_net or session.net_file
        nets = [self._net(train or NetText(0), "training net", file, solver.train_state, set())]
        for index, text in enumerate(tests[: len(solver.test_iter)]):
            state = solver.test_state[index] if index < len(solver.test_state) else None
            own = solver.test_net[index] if index < len(solver.test_net) else file
            named = {
                name
                for t in session.tests
                if t.net == index
                for name, (_, loss) in t.outputs.items()
                if loss is None
            }
            nets.append(self._net(text, f"test net #{index}", own, state, named))
        return nets if all(net.net.layers or net.partial for net in nets) else []

    def _net(
        self, text: NetText, title: str, file: str | None, state: Any, outputs: set[str]
    ) -> LogNet:
        parsed = self._printed(text)
        layers = _without_splits(parsed.message.layer) if parsed else ()
        shapes = _shapes(text, layers)
        if parsed is None or not parsed.whole or any(layer.type == "BatchNorm" for layer in layers):
            for path in self._places(file):
                name, whole = self._of_file(path, text.phase, state)
                if whole and _agree(layers, whole, parsed, text):
                    net = PhaseNet(title, str(path), text.phase, name, whole)
                    return LogNet(net, shapes or _shapes(text, whole), None, parsed, path)
        name = parsed.message.name if parsed else ""
        if parsed is not None and parsed.whole:
            return LogNet(PhaseNet(title, "", text.phase, name, layers), shapes, None, parsed)
        seen = (*layers, *self._accuracies(text, layers, outputs))
        return LogNet(PhaseNet(title, "", text.phase, name, seen), shapes, _wiring(text), parsed)

    def _printed(self, text: NetText) -> Parsed | None:
        if not text.text.strip():
            return None
        parsed = parse(self._messages, "NetParameter", text)
        if old_format(parsed.message):  # logs of 2014
            with tempfile.TemporaryDirectory(prefix="lrbench-") as folder:
                file = Path(folder) / "net.prototxt"
                file.write_text(text_format.MessageToString(parsed.message), encoding="utf-8")
                parsed.message, _ = self._messages.read_net(file)
        return parsed

    def _places(self, file: str | None) -> list[Path]:
        if not file:
            return []
        name = re.split(r"[/\\]", file)[-1]
        near = [place for folder in self._folders for place in (folder / file, folder / name)]
        return [path for path in dict.fromkeys([Path(file), *near]) if path.is_file()]

    def _of_file(self, path: Path, phase: str, state: Any) -> tuple[str, tuple[Any, ...]]:
        try:
            message, _ = self._messages.read_net(path)
        except InputError:  # of a fork, or another file
            parsed = parse_file(self._messages, "NetParameter", path)
            if not parsed.whole:
                return "", ()
            message = parsed.message
        level, stages = (
            (state.level, frozenset(state.stage) - {""}) if state is not None else (0, frozenset())
        )
        return message.name, phase_layers(message, phase, level, stages)

    def _accuracies(self, text: NetText, layers: tuple[Any, ...], outputs: set[str]) -> list[Any]:
        """Accuracy layers that were not printed: outputs of the test net named as such.

        Those of the head with the largest loss weight come last, as in nets with auxiliary
        classifiers.
        """
        known = {layer.name for layer in layers}
        weighted = []
        for place, (name, tops) in enumerate(text.tops.items()):
            bottoms = text.bottoms.get(name, [])
            if (
                name in known
                or len(bottoms) < 2
                or tops[0] not in outputs
                or not _ACCURACY.search(tops[0])
            ):
                continue
            layer = self._messages.new("LayerParameter")
            layer.name, layer.type = name, "Accuracy"
            layer.bottom.extend([_unsplit(text, blob) for blob in bottoms])
            layer.top.extend(tops)
            if _TOP5.search(tops[0]):
                layer.accuracy_param.top_k = 5
            weighted.append((_weight_of(text, layer.bottom[0]), place, layer))
        return [layer for _, _, layer in sorted(weighted, key=lambda item: item[:2])]


def _agree(
    printed: tuple[Any, ...], file: tuple[Any, ...], parsed: Parsed | None, text: NetText
) -> bool:
    """Whether a file's net is the one that was printed, as far as it was, and set up."""
    if parsed is not None and parsed.whole:
        return len(printed) == len(file) and all(map(_same_layer, printed, file))
    doubtful = parsed.doubtful if parsed is not None else set()
    sure = [layer for place, layer in enumerate(printed) if place not in doubtful]
    if parsed is not None and parsed.damaged:
        left = iter(file)
        agree = all(any(_same_layer(layer, other) for other in left) for layer in sure)
    else:
        agree = len(printed) <= len(file) and all(map(_same_layer, printed, file))
    made = {name for name in text.shapes if not name.endswith("_split")}
    return agree and (not made or made == {layer.name for layer in file})


def _same_layer(one: Any, other: Any) -> bool:
    if (one.name, one.type, one.bottom, one.top) != (
        other.name,
        other.type,
        other.bottom,
        other.top,
    ):
        return False
    return not one.bottom or _comparable(one) == _comparable(other)  # NVCaffe divides the batch


def _comparable(layer: Any) -> Any:
    plain = type(layer)()
    plain.CopyFrom(layer)
    if layer.type == "BatchNorm":  # whose parameters Caffe learns nothing of, and it prints none
        plain.ClearField("param")
    return plain


def _without_splits(layers: Any) -> tuple[Any, ...]:
    """Intel's Caffe prints the net with the Split layers that Caffe adds."""
    names: dict[str, str] = {}
    kept = []
    for layer in layers:
        if layer.type == "Split" and layer.name.endswith("_split") and layer.bottom:
            names.update({top: names.get(layer.bottom[0], layer.bottom[0]) for top in layer.top})
            continue
        if any(blob in names for blob in layer.bottom):
            bottoms = [names.get(blob, blob) for blob in layer.bottom]
            del layer.bottom[:]
            layer.bottom.extend(bottoms)
        kept.append(layer)
    return tuple(kept)


def _unsplit(text: NetText, blob: str) -> str:
    """The blob that a Split layer of Caffe's own copies."""
    for name, tops in text.tops.items():
        if name.endswith("_split") and blob in tops and text.bottoms.get(name):
            return text.bottoms[name][0]
    return blob


def _weight_of(text: NetText, scores: str) -> float:
    """The largest loss weight of the layers that read these scores."""
    readers = [
        name
        for name, bottoms in text.bottoms.items()
        if scores in (_unsplit(text, blob) for blob in bottoms)
    ]
    return max((text.weights.get(name, 0.0) for name in readers), default=0.0)


def _shapes(text: NetText, layers: tuple[Any, ...]) -> dict[str, list[int]]:
    """The shape of every blob that was set up."""
    tops = {**{layer.name: list(layer.top) for layer in layers}, **text.tops}
    return {
        blob: shape
        for name, blobs in tops.items()
        for blob, shape in zip(blobs, text.shapes.get(name, []))
    }


def _wiring(text: NetText) -> list[list[Any]]:
    """How the layers are connected, and the shapes of a sample: tells nets apart whose texts begin alike."""
    numbers: dict[str, int] = {}
    rows = []
    for name, tops in text.tops.items():
        bottoms = [numbers.get(blob, -1) for blob in text.bottoms.get(name, [])]
        rows.append([bottoms, len(tops), [shape[1:] for shape in text.shapes.get(name, [])]])
        for blob in tops:
            numbers[blob] = len(numbers)
    return rows


def parameters(net: LogNet) -> int | None:
    """The number of learnable parameters by the printed shapes; None if they do not tell it."""
    return None if net.partial else count_parameters(net.net.layers, net.shapes)
