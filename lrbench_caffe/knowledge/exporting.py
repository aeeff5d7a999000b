"""Rankings and recommendations for programs: rows with a column for each number, and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lrbench_caffe.knowledge.criteria import Criterion
from lrbench_caffe.knowledge.evidence import Proposal, Wanted
from lrbench_caffe.knowledge.ranking import Comparison, Ranked, RankingEntry
from lrbench_caffe.knowledge.recommendation import Recommendation, against
from lrbench_caffe.tabular import Rows

# The columns of a ranking before and behind those of its criteria.
_BEFORE = ("place", "policy", "function")
_BEHIND = (
    "score", "p_best", "p_next", "source", "trainings", "max_iter", "diverged", "failed", "start",
    "start_digest", "origin",
)  # fmt: skip


def ranking_rows(ranked: Sequence[Ranked], shown: Sequence[Criterion]) -> Rows:
    """A ranking with plain names and a column for each number; the first row is the heading."""
    names = [name for c in shown for name in _columns(c)]
    rows = [[*_BEFORE, *names, *_BEHIND]]
    for row in ranked:
        summary = row.candidate.summary
        cells = [
            "-" if row.place is None else str(row.place),
            summary.policy.text,
            summary.policy.function,
        ]
        cells += [value for c in shown for value in _values(row.candidate, c)]
        cells += [_exact(row.score), _p(row.from_best), _p(row.from_next), summary.source]
        counts = (summary.trainings(), summary.max_iter, summary.diverged, summary.failed)
        start = (str(summary.start), summary.start.digest or "-")
        rows.append([*cells, *map(str, counts), *start, summary.origin])
    return rows


def _columns(criterion: Criterion) -> list[str]:
    """The columns of a criterion in ``ranking_rows``."""
    name = criterion.name
    if name == "target":
        return ["target", "target_runs", "target_of"]
    if name in (*_BEFORE, *_BEHIND):  # an output of the net
        name = f"output.{name}"
    return [name] if name == "num_params" else [name, f"{name}_sd"]


def _values(candidate: RankingEntry, criterion: Criterion) -> list[str]:
    if criterion.name == "target":
        target = candidate.target
        return (
            [f"{target.iterations:.10g}", str(target.runs), str(target.of)] if target else ["-"] * 3
        )
    spread = candidate.spread(criterion.name)
    values = (spread.mean, spread.sd) if spread else (None, None)
    return [_exact(value) for value in values[: len(_columns(criterion))]]


def _exact(value: float | None) -> str:
    return "-" if value is None else f"{value:.10g}"


def _p(comparison: Comparison | None) -> str:
    return "-" if comparison is None or comparison.p is None else f"{comparison.p:.4g}"


def recommendation_json(
    wanted: Wanted, recommendation: Recommendation, max_iter: int
) -> dict[str, Any]:
    """A recommendation as JSON.

    Args:
        max_iter: iterations of the training.
    """
    return {
        "task": wanted.task.title,
        "start": str(wanted.start),
        "start_details": asdict(wanted.start),
        "max_iter": max_iter,
        "compared": recommendation.compared,
        "diverged": recommendation.diverged,
        "experienced": recommendation.experienced,
        "set_aside": list(recommendation.set_aside),
        "passed_over": [
            [str(policy), against(result)] for policy, result in recommendation.passed_over
        ],
        "missing": dict(recommendation.missing),
        "similar": [[task.title, similarity] for task, similarity in recommendation.similar],
        "proposals": [_proposal(proposal) for proposal in recommendation.proposals],
    }


def _proposal(proposal: Proposal) -> dict[str, Any]:
    main, expected = proposal.main, proposal.expected
    return {
        "policy": str(proposal.policy),
        "original": str(proposal.original),
        "by": main.utility.name,
        "higher": main.utility.higher,
        "expected": expected and {"mean": expected.mean, "sd": expected.sd},
        "unknown": list(proposal.unknown),
        "iterations": proposal.iterations,
        "same_task": main.same_task,
        "same_start": main.same_start,
        "similarity": main.similarity,
        "changes": list(proposal.changes),
        "contributors": dict(main.contributors),
        "evidence": list(proposal.evidence),
    }
