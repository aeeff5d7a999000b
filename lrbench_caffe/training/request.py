"""The request for one training, from the command line, the Python API or a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lrbench_caffe.errors import ParameterError
from lrbench_caffe.parameters import (
    check_choice,
    check_counts,
    check_duration,
    check_names,
    check_switch,
    check_text,
    check_whole,
    to_python_values,
)
from lrbench_caffe.prototxt.patch import LR_WAYS
from lrbench_caffe.runtime.client import HANG_SECONDS
from lrbench_caffe.training.ways import AUTO as AUTO_WAY

LAYERS = ("auto", "fast", "fast-avx2", "stock")


@dataclass(frozen=True)
class TrainingRequest:
    """One training. None means not given; ``training.preparing`` decides what it is then.

    Attributes:
        solver: the solver file; None where ``resume`` and ``out`` name the run.
        policy: an LR function's name, a policy, a composition, "auto", or a JSON file that has one
            (see ``training.policyfile``); None for the solver's lr_policy.
        parameters: the policy's k0, k1, gamma, p and l that are given beside it; None where not.
        contributors: choose "auto", and parameters that are left out, from their results only: as
            for ``recommend``; none for all. A resumed run has its policy.
        max_iter, test_interval: iterations, instead of the solver's.
        until: the iteration to pause after, with a snapshot.
        branch: a run directory whose run has the same beginning: that is taken over from it.
        branch_at: the last iteration to branch at; None for the last that is possible.
        branch_points: iterations after which to make snapshots that other runs can branch from.
        seed: Caffe's random seed.
        head: the blob of scores that Top-1 is taken from.
        gpu: a GPU's number, "all" or "none".
        snapshot: a solver state to start from.
        weights: comma-separated caffemodels to start from.
        level, stages: of the training net, as caffe train's flags.
        out: the run directory; None for a new one in ``RUNS``.
        resume: continue the run in ``out``, else the solver's newest run.
        start_over: where none of its snapshots can be continued from, train it again from its
            beginning; else that is refused.
        publish: also put the snapshots at the solver's snapshot_prefix where ``out`` is given.
        preview: nothing is trained after all.
        trust_data: do not check the data's records.
        layers: one of ``LAYERS``.
        threads: that the fast layers work on.
        set_lr_by: "auto" or one of ``LR_WAYS``.
        caffe_python: the Python that can import caffe.
        database: the LR database's URL; None for the default one.
        no_database: neither ask the LR database nor record into it.
        checkpoint_minutes: minutes between snapshots against a kill; 0 for none.
        hang_seconds: seconds of silence after which Caffe counts as hung; 0 for never.
    """

    solver: Path | None
    policy: str | None = None
    parameters: Mapping[str, str | None] = field(default_factory=dict)
    contributors: Sequence[str] = ()
    max_iter: int | None = None
    until: int | None = None
    branch: Path | None = None
    branch_at: int | None = None
    branch_points: Sequence[int] = ()
    test_interval: int | None = None
    seed: int | None = None
    head: str | None = None
    gpu: str | None = None
    snapshot: str | None = None
    weights: str | None = None
    level: int | None = None
    stages: Sequence[str] | None = None
    out: Path | None = None
    resume: bool = False
    start_over: bool = False
    publish: bool = False
    preview: bool = False
    trust_data: bool = False
    layers: str | None = None
    threads: int | None = None
    set_lr_by: str = AUTO_WAY
    caffe_python: str | None = None
    database: str | None = None
    no_database: bool = False
    checkpoint_minutes: float = 10.0
    hang_seconds: float = HANG_SECONDS

    def __post_init__(self) -> None:
        """Check what does not depend on the solver; the ranges of counts are ``preparing``'s.

        Raises:
            ParameterError: a value is of the wrong kind, or not one of those that are allowed.
        """
        to_python_values(self)
        check_whole(self, "max_iter", "until", "test_interval", "seed", "level", "threads")
        check_whole(self, "branch_at")
        if self.branch_at is not None and self.branch is None:
            raise ParameterError("{branch_at}: {0}; allowed: with {branch} DIR", self.branch_at)
        check_choice(self, "layers", LAYERS)
        check_choice(self, "set_lr_by", (AUTO_WAY, *LR_WAYS))
        check_duration(self, "checkpoint_minutes", "hang_seconds")
        check_text(self, "policy", "head", "snapshot", "weights", "caffe_python", "database")
        check_text(self, "gpu", allowed="a GPU's number, all or none")
        check_names(self, "contributors", "stages")
        check_counts(self, "branch_points")
        check_switch(
            self, "resume", "start_over", "publish", "preview", "trust_data", "no_database"
        )
        if self.start_over and not self.resume:
            raise ParameterError("{start_over}: allowed: with {resume}")

    @property
    def publishes(self) -> bool:
        """Whether snapshots are put at the solver's snapshot_prefix."""
        return self.publish or self.out is None
