"""The tables of a tuning on the terminal: which columns they have, and the most important ones."""

from __future__ import annotations

from lrbench_caffe.terminal.tables import Layout
from lrbench_caffe.tuning.report import COLUMNS
from lrbench_caffe.tuning.study import TuningPlan
from lrbench_caffe.tuning.verdict import has_target


def finalist_layout(plan: TuningPlan) -> Layout:
    """The columns of ``report.finalist_rows``, and which of them a narrow terminal has."""
    target = ("target",) if has_target(plan) else ()
    return Layout(
        names=("place", "policy", "trainings", "iterations", *target, *COLUMNS),
        order=("place", "policy", "top1", *target, "trainings", "iterations", "ld"),
        words=("place",),
    )
