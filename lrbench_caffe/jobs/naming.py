"""How a training is named: by its run directory, and in a line for people."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from lrbench_caffe.jobs.training import JobResult
from lrbench_caffe.lr import Policy
from lrbench_caffe.metrics import TOP1, Measurement, best_trained
from lrbench_caffe.records import UNSUCCESSFUL

LONGEST = 100  # characters of the functions of a composition; file systems take 255 in all


def best_top1(measurements: Sequence[Measurement]) -> str:
    """ "best Top-1 99.33 % at 4000"; empty without a Top-1."""
    top = best_trained(measurements)
    if top is None or top.top1 is None:
        return ""
    return f"best Top-1 {TOP1.text(top.top1)} at {top.iteration}"


def result_line(result: JobResult, best: Callable[[Sequence[Measurement]], str] = best_top1) -> str:
    """A line for people: what was trained, how far, its best test, and how it ended.

    Args:
        best: the best test of these in words.
    """
    training = result.training
    what = training.policy or Path(training.solver).stem  # a pass of the ramp has no policy
    length = (
        f" of {training.max_iter}"
        if training.max_iter and result.iteration < training.max_iter
        else ""
    )
    text = f"{what}  seed {training.seed}  iteration {result.iteration}{length}"
    if top := best(result.measurements):
        text += f"  {top}"
    if result.status == "diverged":
        text += f"  {result.reason}"  # "the training diverged: ..."
    elif result.status in UNSUCCESSFUL:
        text += f"  {result.status}: {result.reason or ''}"
    return text


def directory_name(policy: Policy, seed: int) -> str:
    """The name of a training's run directory: the functions, for people, and a digest of the policy."""
    digest = hashlib.sha256(str(policy).encode()).hexdigest()[:10]
    functions = "-".join(name.lower() for name in policy.functions)[:LONGEST].rstrip("-")
    return f"{functions}-{digest}-seed{seed}"
