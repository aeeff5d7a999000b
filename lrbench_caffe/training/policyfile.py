"""The policy that a JSON file of another command has, for a training with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lrbench_caffe.errors import ParameterError

SUFFIX = ".json"
LARGEST = 2**24  # bytes of a file that is read
KINDS = "result.json of a tuning, run.json of a run, or what recommend and tune print with {json}"


def is_policy_file(text: str | None) -> bool:
    """Whether a policy's text names a file; no policy ends so."""
    return text is not None and text.strip().lower().endswith(SUFFIX)


def policy_of_file(path: Path) -> tuple[str, str]:
    """The policy of a file, and what a person should know of it (empty for nothing).

    Of a tuning it is the recommended policy; where none is better than the solver's own, that.

    Raises:
        ParameterError: the file cannot be read, or has no policy.
    """
    content = _read(path)
    if "verdict" in content:
        return _of_tuning(path, content)
    proposals = content.get("proposals")
    if isinstance(proposals, list):
        if not proposals:
            raise ParameterError("{policy}: {0}: nothing is proposed there", path)
        content = _object(proposals[0])
    policy = content.get("policy")
    if not isinstance(policy, str):
        raise ParameterError("{policy}: {0}: it has no policy; allowed: " + KINDS, path)
    return policy, ""


def _of_tuning(path: Path, content: Mapping[str, Any]) -> tuple[str, str]:
    verdict = _object(content["verdict"])
    recommended, own = verdict.get("recommended"), verdict.get("own")
    if isinstance(recommended, str):
        return recommended, ""
    if isinstance(own, str):
        return own, f"{path} recommends no other policy than the solver's own"
    reason = content.get("failure") or verdict.get("text") or "no verdict"
    raise ParameterError("{policy}: {0}: no policy is recommended there: {1}", path, reason)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ValueError(f"more than {LARGEST} bytes")
        content = json.loads(data)
    except OSError as error:
        raise ParameterError("{policy}: {0}: {1}", path, error.strerror or error) from error
    except (ValueError, RecursionError) as error:
        raise ParameterError("{policy}: {0}: not JSON: {1}", path, error) from error
    return _object(content)


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
