"""What a record must be like to be stored: types, ranges and text, checked before the database sees it.

The database has the same ranges as constraints. What is checked here is reported with the field's name.
"""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
import operator
from functools import cache
from typing import Any, TypeVar

from lrbench_caffe.database.errors import RecordError
from lrbench_caffe.errors import InputError
from lrbench_caffe.lr import PolicyError, parse
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.records import (
    SCHEMA,
    SOURCES,
    STATUSES,
    Dataset,
    Framework,
    Network,
    PolicyRecord,
    RunRecord,
    SolverSettings,
    digest,
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
INT32 = 2**31 - 1
_POSITIVE, _NOT_NEGATIVE = (1, INT64 - 1), (0, INT64 - 1)
AC_LIMIT = 1.0001  # a softmax in single precision can exceed 1 by rounding

RANGES: dict[str, tuple[float, float]] = {
    **{f"dataset.{name}": _POSITIVE for name in ("channels", "height", "width", "classes")},
    **{f"dataset.{name}": _NOT_NEGATIVE for name in ("train_samples", "test_samples")},
    "network.parameters": _NOT_NEGATIVE,
    "network.depth": _NOT_NEGATIVE,
    "policy.num_params": (0, INT32),
    "solver.batch": _POSITIVE,
    "solver.iter_size": _POSITIVE,
    "seed": (-INT64, INT64 - 1),
    "max_iter": _NOT_NEGATIVE,
    "test_interval": _NOT_NEGATIVE,
    "epoch": (math.ulp(0.0), math.inf),
    "repeats": (1, INT32),
    "top1_sd": (0, math.inf),
    "measurement.iteration": _NOT_NEGATIVE,
    "measurement.top1": (0, 100),
    "measurement.top5": (0, 100),
    "measurement.ac": (0, AC_LIMIT),
    "measurement.cd": (0, math.inf),
    "measurement.cdac": (0, math.inf),
    "measurement.samples": _NOT_NEGATIVE,
    "measurement.silent_classes": _NOT_NEGATIVE,
    "measurement.net": (0, INT32),
}


def checked_run(record: RunRecord) -> RunRecord:
    """The record with plain Python numbers (numpy's and -0.0 become plain ones) and sorted measurements.

    Raises:
        RecordError: something in it cannot be stored; the message names the field.
    """
    for name, allowed in (("source", SOURCES), ("status", STATUSES)):
        value = getattr(record, name)
        if value not in allowed:
            raise RecordError(f"{name}: {value!r}; allowed: {', '.join(allowed)}")
    parts: dict[str, Any] = {name: _checked(getattr(record, name), f"{name}.") for name in PARTS}
    measured = [checked_measurement(m) for m in record.measurements]
    parts["measurements"] = sorted(measured, key=lambda m: (m.iteration, m.net))
    plain = _checked(record, "", skip=frozenset(parts))
    if not plain.uid:
        raise RecordError("uid: empty; allowed: text that is unique for ever")
    places = [(m.net, m.iteration) for m in parts["measurements"]]
    if len(set(places)) != len(places):
        raise RecordError("measurements: an iteration of a net is there twice; allowed: once")
    return dataclasses.replace(plain, **parts)


def checked_measurement(measurement: Measurement) -> Measurement:
    """The same for a measurement. A metric that is NaN or infinite was not to be had: it becomes None."""
    lost: dict[str, Any] = {}
    for field in _fields(Measurement, "measurement."):
        value = getattr(measurement, field.name)
        if field.optional and value is not None and not math.isfinite(value):
            lost[field.name] = None
    return _checked(dataclasses.replace(measurement, **lost) if lost else measurement, "measurement.")


def run_from_json(value: Any) -> RunRecord:
    """The run of an exchange form that comes from anywhere.

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
            raise RecordError("digest: it does not fit the content; the record was changed or damaged")
    for name, kind in PARTS.items():
        _check_fields(value.get(name), kind, f"{name}.")
    _check_fields({k: v for k, v in value.items() if k not in ("schema", "digest")}, RunRecord, "")
    if not isinstance(value["measurements"], list):
        raise RecordError("measurements: allowed: a list")
    for row in value["measurements"]:
        _check_fields(row, Measurement, "measurement.")
    record = checked_run(RunRecord.from_json(value))
    try:
        parse(record.policy.text)
    except PolicyError as error:
        raise RecordError(f"policy.text: {error}") from None
    return record


def _check_schema(schema: Any) -> None:
    if isinstance(schema, bool) or not isinstance(schema, int) or schema < 1:
        raise RecordError(f"schema: {schema!r}; allowed: 1 to {SCHEMA}")
    if schema > SCHEMA:
        raise InputError(
            f"schema {schema} is newer than this program, which reads up to {SCHEMA}; "
            "update with: pip install -U lrbench-caffe"
        )


def _check_fields(value: Any, kind: type, where: str) -> None:
    if not isinstance(value, dict):
        raise RecordError(f"{where.rstrip('.') or 'record'}: {value!r}; allowed: an object")
    required = {
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    if kind is RunRecord:
        required = {f.name for f in dataclasses.fields(kind)}
    missing = required - value.keys()
    if missing:
        raise RecordError(f"{where}{sorted(missing)[0]}: missing")
    unknown = value.keys() - {f.name for f in dataclasses.fields(kind)}
    if unknown:
        raise RecordError(f"{where}{sorted(unknown)[0]}: unknown field")


def _checked(part: Part, where: str, skip: frozenset[str] = frozenset()) -> Part:
    kind: Any = type(part)
    values = {}
    for field in _fields(kind, where):
        value = getattr(part, field.name)
        values[field.name] = value if field.name in skip else field.checked(value)
    return kind(**values)


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
            raise RecordError(f"{self.where}: {value!r}; allowed: {'an integer' if whole else 'a number'}")
        # Adding 0 makes 0.0 of -0.0, which SQLite cannot keep.
        plain = operator.index(value) if whole else float(value) + 0.0
        if not math.isfinite(plain):
            raise RecordError(f"{self.where}: {value!r}; allowed: a finite number")
        if not self.low <= plain <= self.high:
            raise RecordError(f"{self.where}: {value!r}; allowed: {_range(self.low, self.high)}")
        return plain


@cache
def _fields(kind: type, where: str) -> list[_Field]:
    found = []
    for field in dataclasses.fields(kind):
        base, _, optional = str(field.type).partition(" | ")
        whole = (-INT64, INT64 - 1) if base == "int" else (-math.inf, math.inf)
        low, high = RANGES.get(where + field.name, whole)
        found.append(_Field(field.name, where + field.name, base, bool(optional), low, high))
    return found


def _range(low: float, high: float) -> str:
    if low == math.ulp(0.0):
        return "more than 0"
    if high in (INT64 - 1, math.inf):
        return f"{low:g} or more"
    return f"{low:g} to {high:g}"


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise RecordError(f"{where}: {value!r}; allowed: text")
    if "\0" in value or storable(value) != value:
        raise RecordError(f"{where}: {value!r}; allowed: text without NUL and lone surrogates")
    return value


def storable(text: str) -> str:
    """Text of another program (Caffe's last words) as any database can keep it."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")


def _object(value: Any, where: str) -> dict[str, Any]:
    try:
        # As it comes back from the database: with text for keys.
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        plain = json.loads(text)
    except (TypeError, ValueError):
        plain = None
    if not isinstance(plain, dict) or "\\u0000" in text or storable(text) != text:
        raise RecordError(f"{where}: {value!r}; allowed: an object of JSON")
    counts = plain.values() if where == "network.layers" else ()
    if any(isinstance(n, bool) or not isinstance(n, int) for n in counts):
        raise RecordError(f"{where}: {value!r}; allowed: numbers of layers")
    return plain
