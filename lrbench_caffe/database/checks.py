"""Checks that a record can be stored: types, ranges and text, before the database sees it.

The database has the same ranges as constraints. What is checked here is reported with the field's
name.
"""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
import operator
import re
import reprlib
from collections.abc import Iterator
from functools import cache
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from lrbench_caffe.database.errors import RecordError
from lrbench_caffe.database.ranges import LAYERS, RANGES, REAL
from lrbench_caffe.errors import InputError
from lrbench_caffe.lr import PolicyError, parse
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.plaintext import escape
from lrbench_caffe.records import (
    OWN,
    PAPER,
    SCHEMA,
    SOURCES,
    STARTS,
    STATUSES,
    Contribution,
    Dataset,
    Framework,
    Network,
    PolicyRecord,
    RunRecord,
    SolverSettings,
    Start,
    digest,
    of_this_schema,
)

Part = TypeVar("Part")

PARTS: dict[str, type] = {
    "framework": Framework,
    "dataset": Dataset,
    "network": Network,
    "policy": PolicyRecord,
    "solver": SolverSettings,
}
INT64 = 2**63
LONGEST_NAME, LONGEST_NOTE, LONGEST_LINK = 100, 2000, 1000  # characters
LONGEST_UID = 200  # characters; an index of PostgreSQL has room for 2700 bytes
LONGEST_SHOWN = 80  # characters of a value in a message
_START_FIELDS = {  # kinds that a field of a start belongs to
    "digest": ("weights", "snapshot"),
    "filled": ("weights",),
    "layers": ("weights",),
    "iteration": ("snapshot",),
    "name": ("weights", "snapshot", "unknown"),
}
_DIGEST = re.compile(r"[0-9a-f]{32}")
_OUTPUTS = frozenset(["outputs"])
# Control characters, and what else ends a line: they could forge lines, and commands for a
# terminal.
_UNSTORABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def checked_run(record: RunRecord) -> RunRecord:
    """The record with plain Python numbers (numpy's and -0.0 become plain ones) and sorted measurements.

    Raises:
        RecordError: something in it cannot be stored; the message names the field.
    """
    for name, allowed in (("source", SOURCES), ("status", STATUSES)):
        value = getattr(record, name)
        if value not in allowed:
            raise RecordError(f"{name}: {_shown(value)}; allowed: {', '.join(allowed)}")
    parts: dict[str, Any] = {name: _checked(getattr(record, name), f"{name}.") for name in PARTS}
    measured = [checked_measurement(m) for m in record.measurements]
    parts["measurements"] = sorted(measured, key=lambda m: (m.iteration, m.net))
    parts["start"] = _checked_start(record.start)
    sent = record.contribution
    parts["contribution"] = None if sent is None else checked_contribution(sent)
    plain = _checked(record, "", skip=frozenset(parts))
    _check_uid(plain.uid, "uid")
    places = [(m.net, m.iteration) for m in parts["measurements"]]
    if len(set(places)) != len(places):
        raise RecordError("measurements: an iteration of a net occurs twice; allowed: once")
    return dataclasses.replace(plain, **parts)


def _check_uid(uid: str, where: str) -> None:
    if not uid:
        raise RecordError(f"{where}: empty; allowed: a unique text")
    if len(uid) > LONGEST_UID:
        raise RecordError(f"{where}: {_shown(uid)}; allowed: {LONGEST_UID} characters")


def checked_contribution(sent: Contribution) -> Contribution:
    """The same for the contribution of runs.

    A link is shown as one: it may lead to nothing but a page of the web.
    """
    where = "contribution."
    checked = _checked(sent, where)
    _check_uid(checked.batch, f"{where}batch")
    check_contributor(checked.contributor, f"{where}contributor")
    if checked.note is not None and len(checked.note) > LONGEST_NOTE:
        raise RecordError(f"{where}note: {len(checked.note)} characters; allowed: {LONGEST_NOTE}")
    if checked.link is not None and not _is_link(checked.link):
        raise RecordError(
            f"{where}link: {_shown(checked.link)}; allowed: http:// or https://, "
            f"{LONGEST_LINK} characters"
        )
    return checked


def check_contributor(name: str, where: str) -> None:
    """Check a contributor's name.

    Raises:
        RecordError: it is none.
    """
    # Where contributors are chosen, commas separate names and blanks around them do not count; the
    # words have a meaning of their own there.
    if storable(name) != name or name.strip() != name or not 1 <= len(name) <= LONGEST_NAME:
        raise RecordError(
            f"{where}: {_shown(name)}; allowed: a name of 1 to {LONGEST_NAME} characters, without "
            "blanks at its ends"
        )
    if name.lower() in (OWN, PAPER) or "," in name:
        raise RecordError(
            f"{where}: {_shown(name)}; allowed: a name without a comma, other than {OWN} and {PAPER}"
        )


def _is_link(link: str) -> bool:
    if len(link) > LONGEST_LINK or not link.isprintable() or " " in link:
        return False
    try:
        parts = urlsplit(link)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def _checked_start(start: Start) -> Start:
    if start.kind not in STARTS:
        raise RecordError(f"start.kind: {_shown(start.kind)}; allowed: {', '.join(STARTS)}")
    checked = _checked(start, "start.")
    for name, kinds in _START_FIELDS.items():
        if getattr(checked, name) is not None and checked.kind not in kinds:
            raise RecordError(
                f"start.{name}: {_shown(getattr(checked, name))}; allowed: null where the kind is "
                f"{checked.kind}"
            )
    if checked.digest is not None and not _DIGEST.fullmatch(checked.digest):
        raise RecordError(f"start.digest: {_shown(checked.digest)}; allowed: 32 hexadecimal digits")
    return checked


def checked_measurement(measurement: Measurement) -> Measurement:
    """The same for a measurement.

    A metric that is NaN or infinite was not to be had: it becomes None, and such an output of the
    net is left out.
    """
    lost: dict[str, Any] = {}
    for field in _fields(Measurement, "measurement."):
        value = getattr(measurement, field.name)
        if field.optional and isinstance(value, numbers.Real) and not _is_finite(value):
            lost[field.name] = None
    lost["outputs"] = _checked_outputs(measurement.outputs)
    return _checked(dataclasses.replace(measurement, **lost), "measurement.", skip=_OUTPUTS)


def _checked_outputs(outputs: Any) -> dict[str, float]:
    """Names to finite numbers; what is not finite is left out."""
    where = "measurement.outputs"
    if not isinstance(outputs, dict):
        raise RecordError(f"{where}: {_shown(outputs)}; allowed: an object of numbers")
    checked: dict[str, float] = {}
    for name, value in outputs.items():
        if isinstance(value, numbers.Real) and not _is_finite(value):
            continue
        field = _Field(name, f"{where}[{_shown(name)}]", "float", False, -REAL, REAL)
        checked[_text(name, where)] = field.checked(value)
    return checked


def run_from_json(value: Any) -> RunRecord:
    """The run of an untrusted exchange form.

    Raises:
        RecordError: it is not one; the message names the field.
        InputError: its schema is newer than this program.
    """
    if not isinstance(value, dict):
        raise RecordError(f"{type(value).__name__}; allowed: an object")
    _check_schema(value.get("schema"))
    if "digest" in value:
        content = {name: part for name, part in value.items() if name != "digest"}
        if digest(content) != value["digest"]:
            raise RecordError(
                "digest: it does not match the content; the record was changed or damaged"
            )
    value = of_this_schema(value)
    for name, kind in {**PARTS, "start": Start}.items():
        _check_fields(value.get(name), kind, f"{name}.")
    if value.get("contribution") is not None:
        _check_fields(value["contribution"], Contribution, "contribution.")
    _check_fields({k: v for k, v in value.items() if k not in ("schema", "digest")}, RunRecord, "")
    if not isinstance(value["measurements"], list):
        raise RecordError("measurements: allowed: a list")
    for row in value["measurements"]:
        _check_fields(row, Measurement, "measurement.")
    return checked_policy(checked_run(RunRecord.from_json(value)))


def checked_policy(record: RunRecord) -> RunRecord:
    """The record with the policy that its text says, whose function and parameters must be the same.

    Ranking reads these, training the text. 2000.0 is the same as 2000, and stored as the text's.

    Raises:
        RecordError: they are not.
    """
    try:
        meant = PolicyRecord.of(parse(record.policy.text, strict=False).bind(record.max_iter))
    except PolicyError as error:
        raise RecordError(f"policy.text: {error}") from None
    for name, value in dataclasses.asdict(meant).items():
        given = getattr(record.policy, name)
        if given != value:
            raise RecordError(
                f"policy.{name}: {_shown(given)}; allowed: {_shown(value)}, as policy.text says"
            )
    return dataclasses.replace(record, policy=meant)


def _check_schema(schema: Any) -> None:
    if isinstance(schema, bool) or not isinstance(schema, int) or schema < 1:
        raise RecordError(f"schema: {_shown(schema)}; allowed: 1 to {SCHEMA}")
    if schema > SCHEMA:
        raise InputError(
            f"schema {_shown(schema)} is newer than this program, which reads up to {SCHEMA}; "
            "update with: pip install -U lrbench-caffe"
        )


def _check_fields(value: Any, kind: type, where: str) -> None:
    if not isinstance(value, dict):
        raise RecordError(f"{where.rstrip('.') or 'record'}: {_shown(value)}; allowed: an object")
    names = {field.name for field in dataclasses.fields(kind)}
    missing = names - value.keys()
    if missing:
        raise RecordError(f"{where}{sorted(missing)[0]}: missing")
    unknown = value.keys() - names
    if unknown:
        name = sorted(unknown)[0]
        plain = name.isprintable() and len(name) <= LONGEST_SHOWN
        raise RecordError(f"{where}{name if plain else _shown(name)}: unknown field")


def _checked(part: Part, where: str, skip: frozenset[str] = frozenset()) -> Part:
    kind: Any = type(part)
    values = {}
    for field in _fields(kind, where):
        value = getattr(part, field.name)
        values[field.name] = value if field.name in skip else field.checked(value)
    checked: Part = kind(**values)
    return checked


@dataclasses.dataclass(frozen=True)
class _Field:
    """A field of a record: its place for messages, its kind, and its range if it is a number."""

    name: str
    where: str
    kind: str
    optional: bool
    low: float
    high: float

    def checked(self, value: Any) -> Any:
        """The value as plain Python, within its range."""
        if value is None and self.optional:
            return None
        if self.kind == "str":
            return _text(value, self.where)
        if self.kind.startswith("dict"):
            return _object(value, self.where)
        whole = self.kind == "int"
        allowed: Any = numbers.Integral if whole else numbers.Real
        if isinstance(value, bool) or not isinstance(value, allowed):
            kind = "an integer" if whole else "a number"
            raise RecordError(f"{self.where}: {_shown(value)}; allowed: {kind}")
        if not whole and not _is_finite(value):
            raise RecordError(f"{self.where}: {_shown(value)}; allowed: a finite number")
        # Adding 0 makes 0.0 of -0.0, which SQLite cannot keep.
        plain = operator.index(value) if whole else float(value) + 0.0
        if not self.low <= plain <= self.high:
            raise RecordError(
                f"{self.where}: {_shown(value)}; allowed: {self.low:.15g} to {self.high:.15g}"
            )
        return plain


@cache
def _fields(kind: type, where: str) -> list[_Field]:
    checked_fields = []
    for field in dataclasses.fields(kind):
        base, _, optional = str(field.type).partition(" | ")
        whole = (-INT64, INT64 - 1) if base == "int" else (-math.inf, math.inf)
        low, high = RANGES.get((where or "run.") + field.name, whole)
        checked_fields.append(
            _Field(field.name, where + field.name, base, bool(optional), low, high)
        )
    return checked_fields


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float can be
        return False


_short = reprlib.Repr()
_short.maxstring = _short.maxother = LONGEST_SHOWN - 10


def _shown(value: Any) -> str:
    """A value that is refused, for its message: in a few words, with nothing that a terminal obeys."""
    text = _short.repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise RecordError(f"{where}: {_shown(value)}; allowed: text")
    if storable(value) != value:
        raise RecordError(
            f"{where}: {_shown(value)}; allowed: text without control characters and lone surrogates"
        )
    return value


def storable(text: str) -> str:
    r"""Text of others (Caffe's last words, names) as any database can keep it: in one line, with escapes.

    >>> print(storable("Net\x1b[2J"))
    Net\x1b[2J
    """
    text = re.sub(r"\s*[\r\n]+\s*", " ", text.strip()) if "\n" in text or "\r" in text else text
    return _UNSTORABLE.sub(escape, text)


def with_storable_text(value: Part) -> Part:
    """A value of our own making (a record, a measurement, JSON) whose text any database can keep.

    A net, a blob or a path may have any name, and a training is recorded whatever its names are.
    """
    changed: Any = value
    if isinstance(value, str):
        changed = storable(value)
    elif isinstance(value, dict):
        changed = {
            with_storable_text(name): with_storable_text(part) for name, part in value.items()
        }
    elif isinstance(value, list):
        changed = list(map(with_storable_text, value))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {
            f.name: with_storable_text(getattr(value, f.name)) for f in dataclasses.fields(value)
        }
        changed = dataclasses.replace(value, **parts)
    return cast(Part, changed)


def _object(value: Any, where: str) -> dict[str, Any]:
    try:
        # As it comes back from the database: with text for keys.
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        plain = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        plain = None
    if not isinstance(plain, dict) or not all(storable(part) == part for part in _texts(plain)):
        raise RecordError(f"{where}: {_shown(value)}; allowed: an object of JSON")
    counts = plain.values() if where == "network.layers" else ()
    if any(isinstance(n, bool) or not isinstance(n, int) or not 0 <= n <= LAYERS for n in counts):
        raise RecordError(f"{where}: {_shown(value)}; allowed: numbers of layers, 0 to {LAYERS}")
    return plain


def _texts(value: Any) -> Iterator[str]:
    """All text in a value of JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, part in value.items():
            yield name
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
