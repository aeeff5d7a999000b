"""The policy that a JSON file of another command has, for a training with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrbench_caffe.errors import ParameterError, named
from lrbench_caffe.lr import PolicyError, parse
from lrbench_caffe.prototxt.messages import shortest
from lrbench_caffe.prototxt.solver import Solver
from lrbench_caffe.prototxt.variant import training_batch
from lrbench_caffe.records import Start

SUFFIX = ".json"
LARGEST = 2**24  # bytes of a file that is read
KINDS = "result.json of a tuning, run.json of a run, or what recommend and tune print with {json}"


def is_policy_file(text: str | None) -> bool:
    """Whether a policy's text names a file; no policy ends so."""
    return text is not None and text.strip().lower().endswith(SUFFIX)


@dataclass(frozen=True)
class PolicyFile:
    """A file that has a policy.

    Attributes:
        path: the file.
        policy: of a tuning the recommended one; where none is better than the solver's own, that.
        note: what a person should know of it, empty for nothing.
        also: the settings that it was found with, of a tuning that chose them, too.
        start: what it was found from.
        max_iter: the length of the trainings that it was found by, in iterations; None if unknown.
        level, stages: of the training net that it was found with; None if unknown.
    """

    path: Path
    policy: str
    note: str
    also: Mapping[str, Any]
    start: Start
    max_iter: int | None
    level: int | None = None
    stages: tuple[str, ...] | None = None

    @classmethod
    def read(cls, path: Path) -> PolicyFile:
        """Read it.

        Raises:
            ParameterError: the file cannot be read, or has no policy.
        """
        content = _read(path)
        policy, note = _policy(path, content)
        try:
            parse(policy)
        except PolicyError as error:
            raise ParameterError("{policy}: {0}: {1}", path, error) from error
        also = _object(content.get("also"))
        # Where a command prints the start in words, the rest of it is beside it.
        start = Start.of_json(content.get("start_details", content.get("start")))
        level, stages = content.get("level"), content.get("stages")
        return cls(
            path,
            policy,
            note,
            also,
            start,
            _length(content.get("max_iter")),
            level if isinstance(level, int) else None,
            tuple(map(str, stages)) if isinstance(stages, list) else None,
        )

    def remark_on_length(self, max_iter: int) -> str:
        """What a person should know where the training is of another length; empty for nothing.

        Args:
            max_iter: the training's length in iterations.
        """
        if self.max_iter is None or self.max_iter == max_iter:
            return ""
        return (
            f"{self.path}: its policy is of trainings of {self.max_iter:,} iterations; this one has "
            f"{max_iter:,}, to which it is not adapted"
        )

    def remark_on_start(self, weights: Sequence[str]) -> str:
        """What a person should know where the training begins otherwise; empty for nothing.

        Args:
            weights: caffemodels that the training begins with; none for random weights.
        """
        if self.start.kind not in ("scratch", "weights"):
            return ""
        if (self.start.kind == "weights") == bool(weights):
            return ""
        found = self.start if self.start.kind == "weights" else "random weights"
        begins = ", ".join(weights) or "random weights"
        return f"{self.path}: its policy was found from {found}; this training begins with {begins}"

    def remark_on_net(self, level: int, stages: Sequence[str], own: Sequence[str] = ()) -> str:
        """What a person should know where another part of the net is trained; empty for nothing.

        Args:
            level, stages: of the training, as given to it.
            own: stages of the solver itself, to which the given ones are added.
        """
        if self.stages is None:
            return ""
        missing, more = {*self.stages} - {*stages, *own}, {*stages} - {*self.stages, *own}
        if (self.level or 0) == level and not missing and not more:
            return ""
        return (
            f"{self.path}: its policy was found with {_net_flags(self.level or 0, self.stages)}; this "
            f"training has {_net_flags(level, [*stages, *own])}"
        )

    def check_settings(self, solver: Solver) -> None:
        """Check that a solver has the settings that the policy was found with.

        A tuning may recommend a batch size, a momentum or a weight decay together with its policy,
        which is not the best one, and may diverge, with others.

        Raises:
            ParameterError: it has others.
        """
        wanted = _object(self.also.get("recommended"))
        own = {name: _setting(solver, name) for name in wanted}
        differing = [
            name
            for name in wanted
            if own[name] is not None and not _is_same(own[name], wanted[name])
        ]
        if differing:
            raise ParameterError(
                "{policy}: {0}: its policy was found with {1}; {2} has {3}; allowed: {4}, which has "
                "all of it",
                self.path,
                ", ".join(f"{name}={wanted[name]}" for name in differing),
                solver.path,
                ", ".join(f"{name}={own[name]}" for name in differing),
                self.also.get("solver"),
            )


def _net_flags(level: int, stages: Sequence[str]) -> str:
    """ "level 0 and stages a, b"."""
    return f"level {level} and {'stages ' + ', '.join(stages) if stages else 'no stage'}"


def _policy(path: Path, content: Mapping[str, Any]) -> tuple[str, str]:
    """The policy of a file's content, and what a person should know of it."""
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


def _length(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _setting(solver: Solver, name: str) -> float | None:
    """A solver's own value of a setting; None for one that is not known here."""
    if name == "batch":
        return training_batch(solver)
    known = name in ("momentum", "weight_decay")
    return shortest(getattr(solver.message, name)) if known else None


def _is_same(own: float | None, wanted: Any) -> bool:
    """Whether a solver has a setting that was chosen; Caffe has numbers that are not whole as float32."""
    if isinstance(own, float) and isinstance(wanted, (int, float)):
        wanted = shortest(wanted)
    return bool(own == wanted)


def _of_tuning(path: Path, content: Mapping[str, Any]) -> tuple[str, str]:
    verdict = _object(content["verdict"])
    recommended, own = verdict.get("recommended"), verdict.get("own")
    at, early = verdict.get("until"), ""
    if isinstance(at, int):
        early = f"held-out records chose iteration {at}, where {named('until')} {at} stops"
    if isinstance(recommended, str):
        return recommended, early and f"{path}: {early}"
    if isinstance(own, str):
        note = f"{path} recommends no other policy than the solver's own"
        return own, f"{note}; {early}" if early else note
    if recommended is not None:
        raise ParameterError("{policy}: {0}: recommended: {1!r} is no policy", path, recommended)
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
