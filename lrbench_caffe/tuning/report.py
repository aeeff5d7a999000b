"""The report of a tuning: for the terminal, as Markdown, as a picture."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrbench_caffe.files import replace_own
from lrbench_caffe.jobs import JobResult
from lrbench_caffe.knowledge import ranking
from lrbench_caffe.metrics import RANKED, TOP1, best_trained
from lrbench_caffe.plaintext import markdown
from lrbench_caffe.plots.files import save
from lrbench_caffe.plots.sweeps import Point, range_figure
from lrbench_caffe.plots.tuning import Line, tuning_figure
from lrbench_caffe.records import UNSUCCESSFUL
from lrbench_caffe.tabular import Rows, clock, markdown_table, number
from lrbench_caffe.tuning.levels import Ladder
from lrbench_caffe.tuning.space import GoodRange
from lrbench_caffe.tuning.study import Lost, PolicyTrainings, Study, TuningPlan
from lrbench_caffe.tuning.tuner import TuningOutcome
from lrbench_caffe.tuning.verdict import (
    TuningVerdict,
    has_target,
    ranked,
    reach,
    spread,
    target_of,
    tops,
    trainings,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = tuple(name for name in RANKED if name != "test_loss")  # as in the paper's tables


def finalist_rows(study: Study, outcome: TuningOutcome) -> Rows:
    """The finalists, the best by the study's goal first: metrics at each one's first highest Top-1."""
    target = target_of(study.plan, outcome.finalists)
    heading = ["", "policy", "n", "#Iter"]
    if has_target(study.plan):
        heading.append("to the target" if target is None else f"to {target:g} %")
    rows = [[*heading, *(ranking.CRITERIA[name].heading for name in COLUMNS)]]
    for place, trained in enumerate(ranked(study.plan, outcome.finalists), 1):
        own = ", own" * (trained is outcome.baseline)
        rows.append(_row(f"{place}{own}", trained, study.plan, target))
    if outcome.baseline and outcome.baseline not in outcome.finalists:
        rows.append(_row("own", outcome.baseline, study.plan, target))
    return rows


def _row(place: str, trained: PolicyTrainings, plan: TuningPlan, target: float | None) -> list[str]:
    best_tests = tops(trained)
    row = [
        place,
        f"{trained.policy:.6g}",
        trainings(trained),
        spread([float(m.iteration) for m in best_tests], 0),
    ]
    if has_target(plan):
        row.append("-" if target is None else spread(reach(trained, target), 0))
    for name in COLUMNS:
        values = [getattr(m, name) for m in best_tests]
        row.append(spread([v for v in values if v is not None], ranking.CRITERIA[name].digits))
    return row


# -- cost ------------------------------------------------------------------------------------------


def cost_rows(study: Study, outcome: TuningOutcome) -> Rows:
    """The cost of each stage, compared with training all candidates in full with one seed."""
    rows = [["stage", "iterations", "of all in full"]]
    for stage, iterations in outcome.spent.items():
        rows.append([stage, f"{iterations:,}", f"{iterations / outcome.full:.1%}"])
    rows.append(["budget", f"{outcome.budget:,}", f"{outcome.budget / outcome.full:.1%}"])
    total = sum(outcome.spent.values())
    rows.append(["in all", f"{total:,}", f"{total / outcome.full:.1%}"])
    # Trained all the same, though an undisturbed study would not have.
    for name, more in (
        ("trained again after losses", study.repeated),
        ("for no decision", study.needless),
    ):
        rows += [[f"besides: {name}", f"{more:,}", f"{more / outcome.full:.1%}"]] if more else []
    rows.append([f"{len(outcome.candidates)} candidates in full", f"{outcome.full:,}", "100 %"])
    return rows


def time_line(study: Study, outcome: TuningOutcome) -> str:
    """Training time, measured, and what all candidates in full would have taken, by calculation."""
    seconds, iterations = study.seconds, study.iterations
    if not iterations or not seconds:
        return "training time: not measured"
    full = seconds / iterations * outcome.full
    return (
        f"training time, one after the other: {clock(seconds)} measured; "
        f"all candidates in full: {clock(full)} by calculation"
    )


# -- the report ------------------------------------------------------------------------------------


def write_report(study: Study, outcome: TuningOutcome, verdict: TuningVerdict, title: str) -> Path:
    """Write report.md, result.json, tuning.png and, where there was a range test, range.png.

    Args:
        title: data and net, such as "digits / LeNet_digits".

    Returns:
        The first of them.
    """
    save(study_figure(title, study, outcome), study.folder / "tuning.png")
    parts = [
        f"# Tuning of {markdown(study.plan.solver)}\n",
        f"{markdown(title)}. Goal: {study.plan.goal}. {len(outcome.candidates)} candidates; "
        f"trainings of {study.plan.max_iter:,} iterations, a test every {study.plan.test_interval}. "
        f"Seeds from {study.plan.seed} on.\n",
        "## Verdict\n",
        f"{markdown(sentence(verdict.text))}\n",
        *lost_text(study.lost),
        range_text(outcome),
        "## Finalists\n",
        "Mean ± deviation over n trainings, each at its first highest Top-1.\n",
        markdown_table(finalist_rows(study, outcome), left=2),
        "## Cost\n",
        markdown_table(cost_rows(study, outcome)),
        f"{time_line(study, outcome)}.\n",
        "![Top-1 over iterations](tuning.png)\n",
        "## All trainings\n",
        markdown_table(training_rows(study, outcome), left=1),
    ]
    if outcome.ladder:
        seed = f"{title}, seed {study.plan.seed}"
        figure = ladder_figure(seed, outcome.ladder, outcome.good, study.plan.epoch)
        save(figure, study.folder / "range.png")
    path = study.folder / "report.md"
    replace_own(path, "\n".join(parts).encode())
    content = json.dumps(result(study, outcome, verdict), indent=2) + "\n"
    replace_own(path.with_name("result.json"), content.encode())
    return path


def write_failure(study: Study, reason: str, title: str) -> None:
    """Write report.md and result.json of a tuning that could train nothing.

    Args:
        reason: why.
        title: data and net.
    """
    parts = [
        f"# Tuning of {markdown(study.plan.solver)}\n",
        f"{markdown(title)}. Goal: {study.plan.goal}.\n",
        "## Verdict\n",
        f"{markdown(sentence(reason))}\n",
        *lost_text(study.lost),
    ]
    replace_own(study.folder / "report.md", "\n".join(parts).encode())
    content = {
        **_task(study.plan, study.plan.target_top1),
        "verdict": None,
        "failure": reason,
        "finalists": [],
        "own": None,
        **_losses(study),
    }
    replace_own(study.folder / "result.json", (json.dumps(content, indent=2) + "\n").encode())


def lost_text(lost: Sequence[Lost]) -> list[str]:
    """The lost trainings, with their places in the decisions; empty without any."""
    if not lost:
        return []
    lines = "".join(f"- {markdown(one.text)}\n" for one in lost)
    return ["## Lost trainings\n", f"{sentence(lost_note(lost))}\n", lines]


def lost_note(lost: Sequence[Lost]) -> str:
    """A short note on lost trainings; empty without any."""
    if not lost:
        return ""
    trainings = "1 training was" if len(lost) == 1 else f"{len(lost)} trainings were"
    return f"{trainings} lost, so that the decision may differ; the same command tries again"


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def result(study: Study, outcome: TuningOutcome, verdict: TuningVerdict) -> dict[str, Any]:
    """The result of a tuning, for programs."""
    plan, good = study.plan, outcome.good
    target = target_of(plan, outcome.finalists)
    return {
        **_task(plan, target),
        "verdict": verdict.as_json(),
        "finalists": [_figures(trained, target) for trained in ranked(plan, outcome.finalists)],
        "own": _figures(outcome.baseline, target) if outcome.baseline else None,
        "known": [str(candidate.policy) for candidate in outcome.known],
        "range": {
            "low": good.low, "high": good.high, "best": good.best,
            "source": "range test" if outcome.ladder else "LR database",
        },
        "candidates": len(outcome.candidates),
        "untried": [str(candidate.policy) for candidate in outcome.untried],
        "why_untried": outcome.why_untried or None,
        "budget": outcome.budget,
        "iterations": dict(outcome.spent),
        **_losses(study),
    }  # fmt: skip


def _task(plan: TuningPlan, target: float | None) -> dict[str, Any]:
    return {
        "solver": plan.solver,
        "goal": plan.goal,
        "target_top1": target,
        "max_iter": plan.max_iter,
        "test_interval": plan.test_interval,
        "seeds": list(range(plan.seed, plan.seed + plan.seeds)),
    }


def _losses(study: Study) -> dict[str, Any]:
    return {"lost": [one.as_json() for one in study.lost], "folder": str(study.folder)}


def _figures(trained: PolicyTrainings, target: float | None) -> dict[str, Any]:
    best_tests = tops(trained)
    whole = len(trained.results) - trained.broken
    figures: dict[str, Any] = {
        "policy": str(trained.policy), "trainings": whole, "diverged": trained.diverged,
        "failed": trained.broken - trained.diverged,
    }  # fmt: skip
    values = {name: [getattr(m, name) for m in best_tests] for name in ("iteration", *COLUMNS)}
    if target is not None:
        values["iterations_to_target"] = list(reach(trained, target))
    for name, measured in values.items():
        known = [float(value) for value in measured if value is not None]
        figures[name] = statistics.fmean(known) if known else None
        figures[f"{name}_sd"] = statistics.pstdev(known) if len(known) > 1 else None
    return figures


def range_text(outcome: TuningOutcome) -> str:
    good = outcome.good
    text = f"Range of good LRs: {good.low:g} to {good.high:g}, best constant LR {good.best:g}"
    if outcome.ladder is None:
        return f"{text} (from the LR database).\n"
    table = markdown_table(ladder_rows(outcome.ladder))
    return f"{text}: {outcome.ladder.rule}.\n\nTop-1 (%):\n\n{table}\n![Top-1 over the LR](range.png)\n"


def ladder_rows(ladder: Ladder, most: int | None = None) -> Rows:
    """Top-1 of each LR of a range test after each of its tests.

    Args:
        most: how many tests at most; the last one is among them.
    """
    tests = ladder.tests
    if most is not None and len(tests) > most:
        tests = [tests[round((i + 1) * len(tests) / most) - 1] for i in range(most)]
    rows = [["LR", *(f"at {iteration}" for iteration in tests)]]
    for lr, rung in sorted(ladder.rungs.items()):
        values = [number(rung.at(iteration), TOP1.digits) for iteration in tests]
        rows.append(
            [f"{lr:g}" + " (diverged)" * rung.diverged + " (failed)" * rung.failed, *values]
        )
    return rows


def training_rows(study: Study, outcome: TuningOutcome) -> Rows:
    """Every training of the study, the best first."""
    origins = {str(c.policy): c.origin for c in (*outcome.candidates, *outcome.composed)}
    results = [r for trained in study.known.values() for r in trained.results.values()]
    rows = [["policy", "seed", "iterations", "best Top-1 (%)", "at", "ended", "why it was tried"]]
    for result in sorted(results, key=lambda r: -_top1(r)):
        top = best_trained(result.measurements)
        ended = result.status if result.status != "stopped" else "paused"
        rows.append(
            [
                str(result.training.policy), str(result.training.seed), str(result.iteration),
                number(top.top1 if top else None, TOP1.digits), str(top.iteration) if top else "-",
                ended + (f": {result.reason}" if ended in UNSUCCESSFUL else ""),
                origins.get(str(result.training.policy), "range test"),
            ]
        )  # fmt: skip
    return rows


def _top1(result: JobResult) -> float:
    top = best_trained(result.measurements)
    return top.top1 if top and top.top1 is not None else -1.0


def study_figure(title: str, study: Study, outcome: TuningOutcome) -> Figure:
    """All trainings of a tuning: finalists and baseline in colour, the others in grey."""
    told_apart = [*outcome.finalists, *([outcome.baseline] if outcome.baseline else [])]
    own = " (the solver's own)"
    named: dict[str, list[Line]] = {
        f"{trained.policy:.6g}{own * (trained is outcome.baseline)}": [] for trained in told_apart
    }
    others: list[Line] = []
    for trained in study.known.values():
        curves = [c for seed in trained.results if (c := trained.curve(seed)) and len(c.top1)]
        lines = [(curve.iterations, curve.top1) for curve in curves]
        named.get(f"{trained.policy:.6g}{own * (trained is outcome.baseline)}", others).extend(
            lines
        )
    plan = study.plan
    last = plan.seed + plan.seeds - 1
    seeds = f"seed {plan.seed}" if plan.seeds == 1 else f"seeds {plan.seed} to {last}"
    counts = f"{len(study.known)} policies were trained, {len(outcome.candidates)} were candidates"
    return tuning_figure(f"{title}, {seeds}\n{counts}", named, others)


def ladder_figure(title: str, ladder: Ladder, good: GoodRange, epoch: float | None) -> Figure:
    """Top-1 over the LR after each test of a range test, as in the paper's Figure 3.

    Args:
        title: data, net and seed.
    """
    curves: dict[str, list[Point]] = {}
    for iteration in ladder.tests:
        name = f"{iteration / epoch:.3g} epochs" if epoch else f"{iteration} iterations"
        for lr in sorted(ladder.rungs):
            rung = ladder.rungs[lr]
            value = ladder.chance if rung.diverged else rung.at(iteration)
            if value is not None:
                curves.setdefault(name, []).append(Point(lr, value))
    return range_figure(
        curves,
        good=(good.low, good.high),
        marks=[good.best],
        close_up=(good.low / 3, good.high * 1.5),
        note=f"{title}: LR range test, constant LRs (diverged: at chance)",
    )
