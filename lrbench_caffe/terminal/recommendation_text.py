"""A recommendation in words, and the command that trains with its first proposal."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence

from lrbench_caffe import installation
from lrbench_caffe.records import Task
from lrbench_caffe.training.recommending import Recommended


def train_command(args: argparse.Namespace) -> list[str]:
    """The command line that trains so, without the policy."""
    words = [installation.command("train"), shlex.quote(args.solver)]
    for flag in ("weights", "snapshot", "level", "stage", "head", "max_iter"):
        if value := getattr(args, flag):
            text = ",".join(value) if isinstance(value, (list, tuple)) else str(value)
            words += [f"--{flag.replace('_', '-')}", shlex.quote(text)]
    return words


def lines(recommended: Recommended, train: Sequence[str]) -> list[str]:
    """A recommendation for the terminal.

    Args:
        train: the command that trains so, without the policy.
    """
    wanted, recommendation = recommended.wanted, recommended.recommendation
    text = [f"task: {wanted.task.title} ({_form(wanted.task)})"]
    if wanted.start.kind != "scratch":
        text.append(f"start: {wanted.start}")
    text.append(recommendation.known)
    text += recommended.remarks
    if recommendation.similar:
        text.append(
            "similar: " + ", ".join(f"{t.title} ({s:.2f})" for t, s in recommendation.similar)
        )
    if not recommendation.proposals:
        text.append(
            "nothing to propose: no finished run on this or a similar task supports a policy"
        )
    for place, proposal in enumerate(recommendation.proposals, 1):
        text += [
            "",
            f"{place}. {proposal.policy:.7g}",
            *(f"   {line}" for line in proposal.evidence),
        ]
    if recommendation.proposals:
        text += ["", " ".join([*train, f'--lr "{recommendation.proposals[0].policy}"'])]
    return text


def _form(task: Task) -> str:
    data, network = task.dataset, task.network
    shape = " x ".join(str(n or "?") for n in (data.channels, data.height, data.width))
    return (
        f"{shape}, {data.classes or '?'} classes, {data.train_samples or '?'} training samples; "
        f"{network.parameters or '?'} parameters, depth {network.depth}"
    )
