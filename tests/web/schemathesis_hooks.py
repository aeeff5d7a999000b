"""What leads schemathesis beyond the first check of each operation: texts, uids and runs that are real.

Every second value stays as it was generated. Which one depends on the value alone, so that a seed
repeats its requests.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import schemathesis

from lrbench_caffe.records import RunRecord
from tests.database.records import policy, run

KNOWN = 300  # runs r0, r1, ... that the server has
ROOT = Path(__file__).parents[2]
POLICIES = ("FIX(k0=0.01)", "SIN2(k0=0.01, k1=0.06, l=50)", "STEP(k0=0.1, gamma=0.5, l=100)")
TEXTS = {
    "policy": (*POLICIES, "SIN2(k0=0.01", "FIX(k0=1e308)", "PLATEAU(k0=0.05, gamma=0.1, n=3)"),
    "by": ("top1", "test_loss", "iterations", "target", "top1,iterations"),
    "weights": ("top1=2,iterations=1", "top1=1e308", "top1=nan", "top1=0"),
    "function": ("FIX", "sin2", "NOSUCH"),
    "contributor": ("ada", "root"),
    "after": ("r7", "r299"),
    "batch": ("b1", "fuzz-1", "fuzz-2"),
    "functions": (["FIX"], ["sin2", "STEP"]),
    "contributors": (["own"], ["paper", "ada"]),
}  # fmt: skip


def known_run(number: int) -> RunRecord:
    """One of the server's runs; beyond ``KNOWN`` one that it does not have."""
    return run(f"r{number}", seed=number, policy=policy(POLICIES[number % len(POLICIES)]))


def _number(value: Any) -> int:
    return zlib.crc32(repr(value).encode("utf-8", "replace"))


@schemathesis.serializer("application/x-ndjson")
def lines(_: Any, value: Any) -> bytes:
    """An upload: what was generated, every second time behind a run that can be stored."""
    content = value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
    number = _number(content)
    if number % 2:
        return content
    return json.dumps(known_run(number % (2 * KNOWN)).to_json()).encode() + b"\n" + content


@schemathesis.hook
def map_path_parameters(_: Any, parameters: Any) -> Any:
    number = _number(parameters)
    if number % 2 or not isinstance(parameters, dict):
        return parameters
    known = {"uid": f"r{number % KNOWN}", "task_id": number % 9}
    return {name: known.get(name, value) for name, value in parameters.items()}


@schemathesis.hook
def map_query(_: Any, query: Any) -> Any:
    return _with_texts(query) if isinstance(query, dict) else query


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """A recommendation's body: for a task, or for a solver that can be read."""
    if not isinstance(body, dict) or not context.operation.path.endswith("/recommendations"):
        return body
    number = _number(body)
    if number % 2:
        return body
    wishes = ("max_iter", "functions", "contributors", "by", "higher", "top")
    wished = [name for name in wishes if name in body and number % 3]
    chosen = _with_texts({name: body[name] for name in wished})
    if number % 8:
        return {**chosen, "task": number % 9}
    return {
        **chosen,
        "solver": (ROOT / "solvers/lenet_digits_solver.prototxt").read_text(encoding="utf-8"),
        "net": (ROOT / "prototxt/lenet_digits_train_test.prototxt").read_text(encoding="utf-8"),
        "form": body.get("form") or {"channels": 1, "height": 8, "width": 8, "classes": 10},
    }


def _with_texts(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: TEXTS[name][number // 2 % len(TEXTS[name])]
        if name in TEXTS and (number := _number((name, value))) % 2 == 0
        else value
        for name, value in values.items()
    }
