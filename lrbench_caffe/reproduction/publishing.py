"""The result of a plan: shown to whoever watches, and as Markdown, CSV and a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lrbench_caffe.files import publish
from lrbench_caffe.plaintext import markdown
from lrbench_caffe.plots import Pair, comparison_figure
from lrbench_caffe.plots.files import save
from lrbench_caffe.records import RunRecord
from lrbench_caffe.reproduction.compare import (
    WITHIN,
    conclusion_rows,
    data_rows,
    our_results,
    paper_results,
    table_rows,
)
from lrbench_caffe.reproduction.figures import figure3, figure4, figure5
from lrbench_caffe.reproduction.observer import ReproductionObserver
from lrbench_caffe.reproduction.plan import ExperimentPlan
from lrbench_caffe.reproduction.results import PolicyResult, finished
from lrbench_caffe.tabular import csv_text, markdown_table

DRAWN = {"figure3": figure3, "figure4": figure4, "figure5": figure5}
LEFT = 3  # columns of names in a table
LEGEND = f'"=": {WITHIN}; "≠": they do not; neither sign: no deviation is known.'


def show(
    observer: ReproductionObserver, plan: ExperimentPlan, records: Sequence[RunRecord]
) -> None:
    """Show the table, and which of the paper's conclusions hold."""
    ours = our_results(plan, records)
    observer.table(table_rows(plan, ours, short=True), _title(plan), LEFT)
    for line in (LEGEND, _source(ours)):
        observer.say(line)
    judged = conclusion_rows(plan, ours)
    if len(judged) > 1:
        observer.table(judged, "the paper's conclusions", len(judged[0]))


def write(
    folder: Path, plan: ExperimentPlan, records: Sequence[RunRecord], lost: Sequence[str] = ()
) -> list[Path]:
    """Write the table and the conclusions, the same as CSV, and a picture.

    A scaled-down plan has files of its own.

    Args:
        lost: trainings that are missing in it because they were lost, in words.

    Returns:
        The files.

    Raises:
        OSError: one of them cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ours = our_results(plan, records)
    judged = conclusion_rows(plan, ours)
    files = {
        f"{plan.file_name}.md": _markdown(plan, ours, judged, lost),
        f"{plan.file_name}.csv": csv_text(data_rows(plan, ours)),
    }
    if len(judged) > 1:
        files[f"{plan.file_name}-conclusions.csv"] = csv_text(judged)
    for file, text in files.items():
        publish(folder / file, text.encode())
    picture = folder / f"{plan.file_name}.png"
    _draw(picture, plan, records, ours)
    return [*(folder / file for file in files), picture]


def _markdown(
    plan: ExperimentPlan,
    ours: dict[str, PolicyResult],
    judged: list[list[str]],
    lost: Sequence[str],
) -> str:
    parts = [f"# {_title(plan)}\n", markdown_table(table_rows(plan, ours), LEFT), f"{LEGEND}\n"]
    parts.append(f"{markdown(_source(ours))}\n")
    if lost:
        parts += ["## Lost trainings\n", "".join(f"- {markdown(text)}\n" for text in lost)]
    if len(judged) > 1:
        parts += ["## The paper's conclusions\n", markdown_table(judged, len(judged[0]))]
    return "\n".join(parts)


def _title(plan: ExperimentPlan) -> str:
    return f"{plan.title} ({plan.note})" if plan.scaled else plan.title


def _source(ours: dict[str, PolicyResult]) -> str:
    """The source of our numbers:  "Ours: 20 trainings with Caffe 1.0.0, CPU; 1 more diverged."."""
    mine = [run for result in ours.values() for run in finished(result.runs)]
    diverged = sum(result.diverged for result in ours.values())
    if not mine:
        return (
            f"Ours: {diverged} diverged, none finished."
            if diverged
            else "Ours: nothing was trained yet."
        )
    kinds = Counter(
        f"{r.framework.name} {r.framework.version}, {r.framework.device}"
        + (", fast layers" if "fast" in (r.layers or "") else "")
        for r in mine
    )
    parts = [f"{count} training{'s' * (count > 1)} with {kind}" for kind, count in kinds.items()]
    parts += [f"{diverged} more diverged"] if diverged else []
    return f"Ours: {'; '.join(parts)}."


def _draw(
    path: Path, plan: ExperimentPlan, records: Sequence[RunRecord], ours: dict[str, PolicyResult]
) -> None:
    if plan.name in DRAWN:
        DRAWN[plan.name](path, plan, records)
        return
    paper: dict[str, PolicyResult] = {} if plan.scaled else paper_results(plan)
    nothing = PolicyResult({})
    pairs = []
    for row in plan.rows:
        printed, measured = paper.get(row.key, nothing).spreads, ours.get(row.key, nothing).spreads
        pairs.append(
            Pair(
                str(row.trained), printed.get("top1"), measured.get("top1"),
                printed.get("iterations"), measured.get("iterations"),
            )
        )  # fmt: skip
    save(comparison_figure(_title(plan), pairs), path)
