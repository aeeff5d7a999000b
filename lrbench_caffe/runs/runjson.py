"""Reads run.json and checks it field by field; what its parts look like."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lrbench_caffe.records import STATUSES, RunRecord, digest

_TEXT, _OPTIONAL_TEXT = (str,), (str, type(None))
_KINDS: dict[str, tuple[type, ...]] = {
    "solver": _TEXT, "policy": _TEXT, "policy_from": _TEXT, "policy_short": _TEXT, "lr_by": _TEXT,
    "task": _TEXT,
    "layers": _TEXT, "status": _TEXT, "machine": _TEXT, "version": _TEXT, "source": _TEXT, "user": _TEXT,
    "id": _TEXT, "snapshot": _OPTIONAL_TEXT, "head": _OPTIONAL_TEXT, "reason": _OPTIONAL_TEXT,
    "seed": (int, type(None)), "max_iter": (int,), "test_interval": (int,), "snapshot_interval": (int,),
    "gpu": (int, type(None)), "level": (int,), "threads": (int,), "iteration": (int, type(None)),
    "ended": (int, float, type(None)), "stages": (list,), "weights": (list,), "sessions": (list,),
    "fingerprint": (dict,), "start": (dict, type(None)), "record": (dict, type(None)),
    "paused": (bool,), "own_policy": (bool,), "blas_kernels": _OPTIONAL_TEXT,
    "width": (int, type(None)), "branches": (list,),
}  # fmt: skip
_NAMES = {
    str: "text", int: "a whole number", float: "a number", list: "a list", dict: "an object",
    type(None): "null", bool: "true or false",
}  # fmt: skip
_PAUSED_0_1 = "as --until asks"  # how version 0.1 recorded it, which had no field
_LARGEST = 2**53  # a number that every reader of JSON can hold


def parse_record(content: bytes) -> dict[str, Any]:
    """The content of run.json, without its checksum.

    Raises:
        ValueError: it is damaged, or no record of a run; the message says why.
    """
    try:
        record = json.loads(content.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    told = record.pop("check", None)
    if ("id" in record or told is not None) and told != checksum(record):
        raise ValueError("its content does not fit its checksum")
    if not record.get("solver"):
        raise ValueError(f"solver is {record.get('solver')!r}; allowed: a file name")
    for name, kinds in _KINDS.items():
        if name in record:
            _check_kind(name, record[name], kinds)
    _check_parts(record)
    return record


def _check_kind(name: str, value: Any, kinds: tuple[type, ...]) -> None:
    fits = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
    if isinstance(value, (int, float)):
        fits = fits and -_LARGEST <= value <= _LARGEST  # nor NaN
    if isinstance(value, str):
        fits = fits and "\0" not in value
    if not fits:
        allowed = " or ".join(_NAMES[kind] for kind in kinds)
        raise ValueError(f"{name} is {reprlib.repr(value)}; allowed: {allowed}")


def _check_parts(record: Mapping[str, Any]) -> None:
    if record.get("status", STATUSES[0]) not in STATUSES:
        raise ValueError(f"status is {record['status']!r}; allowed: {', '.join(STATUSES)}")
    for name in ("stages", "weights"):
        for value in record.get(name, ()):
            _check_kind(f"an element of {name}", value, _TEXT)
    for branch in record.get("branches", ()):
        _check_kind("an element of branches", branch, (dict,))
        for name in ("after", "at"):
            _check_kind(f"branches: {name}", branch.get(name), (int,))
        _check_kind("branches: seconds", branch.get("seconds"), (int, float))
    for name, value in record.get("fingerprint", {}).items():
        _check_kind(f"fingerprint: {name}", value, _TEXT)
    _check_kind("record: uid", (record.get("record") or {}).get("uid", ""), _TEXT)


def branch_json(
    origin: Path, uid: str | None, *, after: int, at: int, seconds: float
) -> dict[str, Any]:
    """An element of ``branches``: what a run has taken over instead of training it.

    Args:
        origin: the run directory that it comes from; ``uid``: that run's, None where it has none.
        after, at: the iterations between which it lies.
        seconds: that it took there.
    """
    return {
        "run": str(origin.resolve()),
        "uid": uid,
        "after": after,
        "at": at,
        "seconds": round(seconds, 3),
    }


def checksum(record: Mapping[str, Any]) -> str:
    """The checksum of run.json: SHA-256 over canonical JSON, 16 hexadecimal digits."""
    return digest(record)[:16]


def lasting_facts(record: RunRecord) -> dict[str, Any]:
    """A run's record as run.json keeps it: without what run.json and measurements.jsonl say themselves."""
    passing = ("status", "reason", "ended", "measurements", "digest")
    return {name: value for name, value in record.to_json().items() if name not in passing}


def is_paused(record: Mapping[str, Any]) -> bool:
    """Whether the last session ended at its requested iteration, with nothing left to do there."""
    told_by_reason = record.get("reason") == _PAUSED_0_1
    return record.get("status") == "stopped" and record.get("paused", told_by_reason) is True


def first_base_lr(fingerprint: Mapping[str, Any]) -> float | None:
    """The solver's base_lr when the run began, from run.json's fingerprint; None where that has none."""
    try:
        return float(str(fingerprint["base_lr"]).removeprefix("base_lr:"))
    except (KeyError, ValueError):
        return None


def recorded_text(written: Mapping[str, Any]) -> str | None:
    """The text of the policy in run.json's record; None before there is one."""
    record = written.get("record") or {}
    policy = record.get("policy")
    return policy.get("text") if isinstance(policy, dict) else None


def task_title(record: Mapping[str, Any]) -> str:
    """Data and net of run.json, "digits / LeNet_digits"; the solver's file where they are not known."""
    try:
        return f"{record['record']['dataset']['name']} / {record['record']['network']['name']}"
    except (KeyError, TypeError):
        return str(record.get("task") or record["solver"])
