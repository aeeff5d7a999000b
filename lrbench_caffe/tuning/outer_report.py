"""What a tuning's report and result.json say of other settings that were chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lrbench_caffe.plaintext import markdown
from lrbench_caffe.tabular import Rows, markdown_table
from lrbench_caffe.tuning.also import RULE
from lrbench_caffe.tuning.measure import Measure
from lrbench_caffe.tuning.outer import OuterOutcome
from lrbench_caffe.tuning.plan import TuningPlan
from lrbench_caffe.tuning.study import Study
from lrbench_caffe.tuning.trainings import PolicyTrainings
from lrbench_caffe.tuning.tuner import TuningOutcome
from lrbench_caffe.tuning.verdict import Means, TuningVerdict, ranked, resolution, tops, unsoundness

RECOMMENDED = Path("recommended") / "solver.prototxt"  # in the study's folder


def trial_rows(measure: Measure, outer: OuterOutcome) -> Rows:
    """The combinations that were tried, the best first."""
    rows = [["settings", measure.heading, *_loss(measure, "test loss"), "ended", "policy"]]
    worst = float("inf")
    trials = sorted(
        outer.trials,
        key=lambda one: (
            worst if one.value is None else -measure.goodness(one.value),
            worst if one.test_loss is None else one.test_loss,
        ),
    )
    for one in trials:
        own = " (own)" * (one.combination == outer.combinations.own)
        value = "-" if one.value is None else measure.figure(one.value)
        loss = "-" if one.test_loss is None else f"{one.test_loss:.4g}"
        shown = (*_loss(measure, loss), one.status, f"{one.policy:.6g}")
        rows.append([f"{one.combination}{own}", value, *shown])
    return rows


def _loss(measure: Measure, text: str) -> list[str]:
    """The column of test losses, where the measure is another one."""
    return [] if measure.name == "test_loss" else [text]


def outer_text(plan: TuningPlan, outer: OuterOutcome | None) -> list[str]:
    """The part of the report on other settings; empty where none were chosen."""
    if outer is None:
        return []
    judge = "held-out records" if plan.holdout else "the test set"
    return [
        "## Other settings\n",
        f"{len(outer.trials)} of {len(outer.combinations)} combinations were tried: one training with "
        f"each, of the best policy of the first search, moved by rule: {RULE}. Judged by {judge}.\n",
        markdown_table(
            [list(map(markdown, row)) for row in trial_rows(plan.measure, outer)], left=1
        ),
    ]


def outer_json(
    study: Study, outer: OuterOutcome | None, verdict: TuningVerdict
) -> dict[str, Any] | None:
    """The same for programs, with what the verdict recommends; None where none were chosen."""
    if outer is None:
        return None
    recommended = None if verdict.policy is None else outer.combination_of(verdict.settings)
    return {
        "own": outer.combinations.own.as_json(),
        "values": {name: list(values) for name, values in outer.combinations.values.items()},
        "combinations": len(outer.combinations),
        "trials": [
            {
                "settings": one.combination.as_json(),
                "policy": str(one.policy),
                "value": one.value,
                "test_loss": one.test_loss,
                "status": one.status,
            }
            for one in outer.trials
        ],
        "best": outer.best.as_json(),
        "rule": RULE,
        "recommended": recommended and recommended.as_json(),
        "solver": str(study.folder / RECOMMENDED) if recommended else None,
    }


def to_judge(study: Study, outcome: TuningOutcome) -> tuple[list[PolicyTrainings], str]:
    """The finalists that the verdict is about, and what other settings bring, in words.

    Other settings are recommended only if they are better beyond noise (Welch's test) than the
    solver's own with the best policy that was found for these; else the verdict is about that one.
    """
    measure, everything = study.plan.measure, outcome.finalists
    finalists = [one for one in ranked(study.plan, everything) if one is not outcome.baseline]
    mine = next((one for one in finalists if one.settings == study.settings), None)
    if outcome.outer is None or mine is None or finalists[0] is mine:
        return everything, ""
    first, doubt = finalists[0], unsoundness(mine, measure)
    if doubt:
        return everything, f"nothing to compare other settings with: {mine.name} {doubt}"
    values, own = (measure.values(tops(trained, measure)) for trained in (first, mine))
    if not values or not own:
        return everything, ""
    means = Means.of(values, own, measure, resolution((first, mine), measure))
    figures = (
        f"{first.name} has {measure.difference(means.difference)} than {mine.name}: {means.figures}"
        + ("" if means.p is None else f", Welch's p = {means.p:.2g}")
    )
    if means.beyond_noise and not unsoundness(first, measure):
        return everything, f"other settings are better: {figures}"
    kept = [one for one in everything if one.settings == study.settings]
    return kept, f"other settings are not better beyond noise: {figures}"


def settings_json(outer: OuterOutcome | None, trained: PolicyTrainings) -> dict[str, Any]:
    """The settings of a policy's trainings, as a part of its figures; empty where none were chosen."""
    return {} if outer is None else {"settings": outer.combination_of(trained.settings).as_json()}
