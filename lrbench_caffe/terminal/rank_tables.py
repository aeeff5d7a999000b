"""A ranking, and the tasks of a database, as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lrbench_caffe.knowledge import selection
from lrbench_caffe.knowledge.criteria import Criterion
from lrbench_caffe.knowledge.ranking import Comparison, RankingEntry, TargetCost
from lrbench_caffe.records import PolicySummary, Task
from lrbench_caffe.tabular import Rows, number, plus_minus
from lrbench_caffe.terminal.tables import Layout

TASKS_LAYOUT = Layout(
    ("task", "id", "image", "classes", "samples", "parameters", "depth"),
    order=("task", "id", "image", "classes", "samples", "parameters"),
    text=("task",),
)


def rank_rows(
    group: selection.StartRanking, shown: Sequence[Criterion], scored: bool, start: str
) -> Rows:
    """The ranking of one start for people, without a heading: deviations beside their means.

    Args:
        start: what the column of that name has.
    """
    rows = []
    for row in group.ranked:
        cells = ["-" if row.place is None else str(row.place), row.candidate.summary.policy.text]
        cells += [_cell(row.candidate, criterion) for criterion in shown]
        cells += [number(row.score, 4)] * scored + [_mark(row.from_best), _mark(row.from_next)]
        rows.append([*cells, *_group(row.candidate.summary, start)])
    nothing = ["-"] * (len(shown) + scored + 2)
    return [*rows, *(["-", s.policy.text, *nothing, *_group(s, start)] for s in group.unfinished)]


def headed(
    rows: Rows, shown: Sequence[Criterion], scored: bool, selected: selection.Selection
) -> tuple[Rows, Layout]:
    """The rows with their heading, and their layout."""
    heading = [
        "#",
        "policy",
        *(c.heading for c in shown),
        *["score"] * scored,
        "vs best",
        "vs next",
    ]
    names = ["place", "policy", *(c.name for c in shown), *["score"] * scored, "vs_best", "vs_next"]
    by = [criterion.name for criterion in selected.order.asked]
    names += ["source", "start", "trainings", "max_iter"]
    order = ["place", "policy", *_telling(rows, names), *["score"] * scored, *by]
    form = Layout(
        names=names,
        order=list(dict.fromkeys([*order, "start", "vs_best", "trainings", "max_iter"])),
        text=("policy",),
        words=("place", "source", "start"),
        common=("source", "start", "max_iter"),
    )
    rows = [[*heading, "source", "start", "trainings", "max_iter"], *rows]
    if any(group.start.kind != "scratch" for group in selected.groups):
        return rows, form
    column = form.names.index("start")  # from scratch is the usual case
    kept = [i for i in range(len(form.names)) if i != column]
    kept_rows = [[row[i] for i in kept] for row in rows]
    return kept_rows, replace(form, names=[form.names[i] for i in kept])


def _telling(rows: Rows, names: Sequence[str]) -> list[str]:
    """The columns that tell rows of one policy apart: as few as will do."""
    told = ["policy"]
    for name in ("start", "max_iter", "source", "trainings"):
        with_it = [*told, name]
        if len(_distinct(rows, names, with_it)) > len(_distinct(rows, names, told)):
            told = with_it
    return told[1:]


def _distinct(rows: Rows, names: Sequence[str], columns: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(row[names.index(column)] for column in columns) for row in rows}


def _group(summary: PolicySummary, start: str) -> list[str]:
    """Source, start, trainings and length: "measured", "scratch", "3 (+2 diverged)", "10000"."""
    counts = (("diverged", summary.diverged), ("failed", summary.failed))
    more = ", ".join(f"{count} {what}" for what, count in counts if count)
    trainings = f"{summary.trainings()}" + (f" (+{more})" if more else "")
    return [summary.source, start, trainings, str(summary.max_iter)]


def _cell(candidate: RankingEntry, criterion: Criterion) -> str:
    spread = candidate.spread(criterion.name)
    if criterion.name == "target":
        return _target_text(candidate.target)
    if spread is None:
        return number(None, criterion.digits)
    sd = None if spread.sd is None else number(spread.sd, criterion.digits)
    return plus_minus(number(spread.mean, criterion.digits), sd)


def _target_text(target: TargetCost | None) -> str:
    """ "<=4000", "5200, 2 of 3", "5200, 1 of 3 (+2 diverged)"."""
    if target is None:
        return "-"
    share = f", {target.runs} of {target.of}" if target.runs < target.of or target.diverged else ""
    more = f" (+{target.diverged} diverged)" if target.diverged else ""
    return f"{'<=' if target.at_most else ''}{target.iterations:.0f}{share}{more}"


def _mark(comparison: Comparison | None) -> str:
    if comparison is None:
        return ""
    return (
        comparison.mark
        if comparison.p is None
        else f"{comparison.mark} p={comparison.p:.2g}".strip()
    )


def task_rows(tasks: list[Task]) -> Rows:
    heading = ["task", "id", "image", "classes", "training samples", "parameters", "depth"]
    rows = [heading]
    for task in tasks:
        data, network = task.dataset, task.network
        rows.append(
            [
                task.title,
                str(task.id),
                "x".join(str(n or "?") for n in (data.channels, data.height, data.width)),
                str(data.classes or "-"),
                str(data.train_samples or "-"),
                str(network.parameters or "-"),
                str(network.depth),
            ]
        )
    return rows
