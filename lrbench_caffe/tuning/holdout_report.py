"""What a tuning's report and result.json say of held-out records."""

from __future__ import annotations

from typing import Any

from lrbench_caffe.plaintext import markdown
from lrbench_caffe.tabular import markdown_table
from lrbench_caffe.tuning.optimism import Optimism, optimism, rows
from lrbench_caffe.tuning.study import Study
from lrbench_caffe.tuning.tuner import TuningOutcome
from lrbench_caffe.tuning.verdict import ranked


def optimism_of(study: Study, outcome: TuningOutcome) -> Optimism | None:
    """By how much the choice flatters; None with nothing held out, or for a goal other than accuracy."""
    if study.holdout is None or study.plan.goal != "accuracy":
        return None
    finalists = ranked(study.plan, outcome.finalists)
    others = [trained for trained in finalists if trained is not outcome.baseline]
    return optimism(
        [trained for trained in others if not trained.diverged] or others or finalists,
        outcome.baseline,
        policies=sum(len(one.known) for one in study.all),
        records=study.holdout.held,
        measure=study.plan.measure,
    )


def holdout_text(study: Study, outcome: TuningOutcome) -> list[str]:
    """The part of the report on held-out records; empty with nothing held out."""
    if study.holdout is None:
        return []
    held, records = study.holdout.held, study.holdout.records
    parts = [
        "## Held-out records and test set\n",
        f"{held:,} of {records:,} training records ({100 * study.plan.holdout:.3g} %, drawn with "
        f"seed {study.holdout.seed}) were held out. They judged the candidates, which were trained on "
        f"the others. The finalists were then trained on all records, and count on the test set at "
        f"the iteration that the held-out records chose.\n",
    ]
    found = optimism_of(study, outcome)
    if found is None:
        return parts
    heading = f"{study.plan.measure.heading}, mean ± deviation:"
    table = [f"{markdown(heading)}\n", markdown_table(rows(found), left=2)]
    lines = (f"- {markdown(line[0].upper() + line[1:])}.\n" for line in found.lines())
    return [*parts, *table, "".join(lines)]


def holdout_json(study: Study, outcome: TuningOutcome) -> dict[str, Any] | None:
    """The same for programs; None with nothing held out."""
    if study.holdout is None:
        return None
    found = optimism_of(study, outcome)
    return {
        "share": study.plan.holdout,
        "seed": study.holdout.seed,
        "records": study.holdout.records,
        "held_out": study.holdout.held,
        "split": study.plan.split,
        **(found.as_json() if found else {}),
        "text": found.lines() if found else [],
    }
