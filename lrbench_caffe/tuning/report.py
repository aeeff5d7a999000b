"""The report of a tuning: for the terminal, as Markdown, as a picture."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrbench_caffe.files import replace_own
from lrbench_caffe.jobs import JobResult
from lrbench_caffe.metrics import LOSSES, METRICS, RANKED, heading_of
from lrbench_caffe.plaintext import markdown
from lrbench_caffe.plots.files import save
from lrbench_caffe.plots.style import ValueAxis
from lrbench_caffe.plots.sweeps import Point, range_figure
from lrbench_caffe.plots.tuning import Line, tuning_figure
from lrbench_caffe.records import SCRATCH, UNSUCCESSFUL
from lrbench_caffe.tabular import Rows, clock, count_of, markdown_table
from lrbench_caffe.tuning.also import with_settings
from lrbench_caffe.tuning.holdout_report import holdout_json, holdout_text
from lrbench_caffe.tuning.levels import Ladder
from lrbench_caffe.tuning.measure import Measure
from lrbench_caffe.tuning.outer_report import outer_json, outer_text, settings_json
from lrbench_caffe.tuning.plan import TuningPlan
from lrbench_caffe.tuning.prior import range_source
from lrbench_caffe.tuning.space import GoodRange
from lrbench_caffe.tuning.study import Study
from lrbench_caffe.tuning.trainings import HELD_OUT, Lost, PolicyTrainings
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

PICTURE = "tuning.png"
COLUMNS = tuple(name for name in RANKED if name != "test_loss")  # as in the paper's tables


def columns(plan: TuningPlan) -> tuple[str, ...]:
    """The metrics of a study's tables: the paper's; or what is compared by, and what else there is."""
    if plan.by in COLUMNS:
        return COLUMNS
    measured = (n for n in RANKED if plan.classifies or METRICS[n].of == LOSSES)
    return (plan.by, *(name for name in measured if name != plan.by))


def finalist_rows(study: Study, outcome: TuningOutcome) -> Rows:
    """The finalists, the best by the study's goal first: metrics at each one's first best test."""
    target = target_of(study.plan, outcome.finalists)
    heading = ["", "policy", "n", "#Iter"]
    if has_target(study.plan):
        text = "the target" if target is None else study.plan.measure.short_text(target)
        heading.append(f"to {text}")
    rows = [[*heading, *map(heading_of, columns(study.plan))]]
    for place, trained in enumerate(ranked(study.plan, outcome.finalists), 1):
        own = ", own" * (trained is outcome.baseline)
        rows.append(_row(f"{place}{own}", trained, study.plan, target))
    if outcome.baseline and outcome.baseline not in outcome.finalists:
        rows.append(_row("own", outcome.baseline, study.plan, target))
    return rows


def _row(place: str, trained: PolicyTrainings, plan: TuningPlan, target: float | None) -> list[str]:
    best_tests = tops(trained, plan.measure)
    row = [
        place,
        trained.name,
        trainings(trained),
        spread([float(m.iteration) for m in best_tests], 0),
    ]
    if has_target(plan):
        measured = None if target is None else reach(trained, target, plan.measure)
        row.append("-" if measured is None else spread(measured, 0))
    for name in columns(plan):
        if name == plan.by:
            row.append(plan.measure.figures(plan.measure.values(best_tests)))
        else:
            values = [getattr(m, name) for m in best_tests]
            row.append(spread([v for v in values if v is not None], METRICS[name].digits))
    return row


def counted(plan: TuningPlan) -> str:
    """Which test of a training counts."""
    if plan.holdout:
        return "on all training records, at the iteration that held-out records chose"
    return f"at its first {plan.measure.best}"


# -- cost ------------------------------------------------------------------------------------------


def cost_rows(study: Study, outcome: TuningOutcome) -> Rows:
    """The cost of each stage, compared with training all candidates in full with one seed."""
    rows = [["stage", "iterations", "of all in full"]]
    for stage, iterations in outcome.spent.items():
        rows.append([stage, f"{iterations:,}", f"{iterations / outcome.full:.1%}"])
    total = sum(outcome.spent.values())
    rows.append(["in all", f"{total:,}", f"{total / outcome.full:.1%}"])
    if study.taken_over:
        share = study.taken_over / outcome.full
        rows.append(["of these not trained twice", f"{study.taken_over:,}", f"{share:.1%}"])
    # Trained all the same, though an undisturbed study would not have.
    for name, more in (
        ("trained again after losses", study.repeated),
        ("for no decision", study.needless),
    ):
        rows += [[f"besides: {name}", f"{more:,}", f"{more / outcome.full:.1%}"]] if more else []
    rows.append(["budget", f"{outcome.budget:,}", f"{outcome.budget / outcome.full:.1%}"])
    rows.append(
        [f"{count_of(len(outcome.candidates), 'candidate')} in full", f"{outcome.full:,}", "100 %"]
    )
    return rows


def time_line(study: Study, outcome: TuningOutcome) -> str:
    """Training time, measured, and what all candidates in full would have taken, by calculation."""
    seconds, iterations = study.seconds, study.iterations - study.taken_over
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
    save(study_figure(title, study, outcome), study.folder / PICTURE)
    parts = [
        f"# Tuning of {markdown(study.plan.solver)}\n",
        f"{markdown(title)}{_from(study.plan)}. Goal: {goal_text(study.plan)}. "
        f"{len(outcome.candidates)} candidates; "
        f"trainings of {study.plan.max_iter:,} iterations, a test every {study.plan.test_interval}. "
        f"Seeds from {study.plan.seed} on.\n",
        "## Verdict\n",
        f"{markdown(sentence(verdict.text))}\n",
        *lost_text(study.lost),
        range_text(study.plan, outcome),
        "## Finalists\n",
        f"Mean ± deviation over n trainings, each {counted(study.plan)}.\n",
        markdown_table(finalist_rows(study, outcome), left=2),
        *holdout_text(study, outcome),
        *outer_text(study.plan, outcome.outer),
        "## Cost\n",
        markdown_table(cost_rows(study, outcome)),
        f"{time_line(study, outcome)}.\n",
        f"![{markdown(study.plan.measure.title)} over iterations]({PICTURE})\n",
        "## All trainings\n",
        markdown_table(training_rows(study, outcome), left=1),
    ]
    if outcome.ladder:
        seed = f"{title}, seed {study.plan.seed}"
        figure = ladder_figure(seed, study, outcome.ladder, outcome.good)
        save(figure, study.folder / "range.png")
    path = study.folder / "report.md"
    replace_own(path, "\n".join(parts).encode())
    content = json.dumps(result(study, outcome, verdict), indent=2) + "\n"
    replace_own(path.with_name("result.json"), content.encode())
    return path


def write_failure(study: Study, reason: str, title: str) -> Path:
    """Write report.md and result.json of a tuning that could train nothing; returns the latter.

    Args:
        reason: why.
        title: data and net.
    """
    parts = [
        f"# Tuning of {markdown(study.plan.solver)}\n",
        f"{markdown(title)}{_from(study.plan)}. Goal: {goal_text(study.plan)}.\n",
        "## Verdict\n",
        f"{markdown(sentence(reason))}\n",
        *lost_text(study.lost),
    ]
    (study.folder / PICTURE).unlink(missing_ok=True)  # an earlier command's
    replace_own(study.folder / "report.md", "\n".join(parts).encode())
    content = {
        **_task(study.plan, study.plan.goal_value),
        "verdict": None,
        "failure": reason,
        "finalists": [],
        "own": None,
        "also": None,
        "known": [],
        "range": None,
        "candidates": 0,
        "untried": [],
        "why_untried": None,
        "budget": study.plan.budget,
        "iterations": {},
        "holdout": None,
        **_trained(study),
    }
    path = study.folder / "result.json"
    replace_own(path, (json.dumps(content, indent=2) + "\n").encode())
    return path


def goal_text(plan: TuningPlan) -> str:
    """The goal of a study in words: "accuracy", or "accuracy, the lowest test loss"."""
    return plan.goal if plan.by == "top1" else f"{plan.goal}, the {markdown(plan.measure.best)}"


def _from(plan: TuningPlan) -> str:
    """The start of a study's trainings in words; empty for random weights."""
    return "" if plan.start == SCRATCH else f", from {markdown(str(plan.start))}"


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
        "verdict": {**verdict.as_json(), "until": until(study, verdict)},
        "finalists": [
            {**_figures(plan, trained, target), **settings_json(outcome.outer, trained)}
            for trained in ranked(plan, outcome.finalists)
        ],
        "own": _figures(plan, outcome.baseline, target) if outcome.baseline else None,
        "also": outer_json(study, outcome.outer, verdict),
        "known": [str(candidate.policy) for candidate in outcome.known],
        "range": {
            **good.as_json(),
            "source": "range test" if outcome.ladder else "given" if plan.lr_range else "LR database",
        },
        "candidates": len(outcome.candidates),
        "untried": [str(candidate.policy) for candidate in outcome.untried],
        "why_untried": outcome.why_untried or None,
        "budget": outcome.budget,
        "iterations": dict(outcome.spent),
        "holdout": holdout_json(study, outcome),
        **_trained(study),
    }  # fmt: skip


def recommended_study(study: Study, verdict: TuningVerdict) -> Study:
    """The study, of those beside this one, that trained what the verdict recommends."""
    settings = verdict.settings if verdict.policy else study.settings
    return next((one for one in study.all if one.settings == settings), study)


def until(study: Study, verdict: TuningVerdict) -> int | None:
    """The iteration at which what the verdict recommends counts; None for the end.

    It is earlier where held-out records showed that training on does harm.
    """
    study = recommended_study(study, verdict)
    trained = study.final.get(str(verdict.policy or verdict.own))
    at = trained.counts_at(study.plan.measure) if trained else None
    return None if at is None or at >= study.plan.max_iter else at


def _task(plan: TuningPlan, target: float | None) -> dict[str, Any]:
    return {
        "solver": plan.solver,
        "goal": plan.goal,
        "by": plan.by,
        "higher": plan.higher,
        "target_top1": target if plan.by == "top1" else None,
        "target": target,
        "start": asdict(plan.start),
        "level": plan.level,
        "stages": list(plan.stages),
        "max_iter": plan.max_iter,
        "test_interval": plan.test_interval,
        "seeds": list(range(plan.seed, plan.seed + plan.seeds)),
    }


def _trained(study: Study) -> dict[str, Any]:
    return {
        "iterations_taken_over": study.taken_over,
        "seconds": study.seconds,
        "lost": [one.as_json() for one in study.lost],
        "folder": str(study.folder),
    }


def _figures(plan: TuningPlan, trained: PolicyTrainings, target: float | None) -> dict[str, Any]:
    best_tests = tops(trained, plan.measure)
    whole = len(trained.results) - trained.broken
    figures: dict[str, Any] = {
        "policy": str(trained.policy), "trainings": whole, "diverged": trained.diverged,
        "failed": trained.broken - trained.diverged,
        "values": list(plan.measure.values(best_tests)),
    }  # fmt: skip
    metrics = dict.fromkeys((*COLUMNS, *(name for name in columns(plan) if name in METRICS)))
    values = {name: [getattr(m, name) for m in best_tests] for name in ("iteration", *metrics)}
    if target is not None:
        values["iterations_to_target"] = list(reach(trained, target, plan.measure))
    if plan.by in {*figures, *values, "settings"} - {*METRICS}:  # an output may be called "policy"
        figures["outputs"] = _mean_and_sd(plan.by, figures["values"])
    else:
        values[plan.by] = figures["values"]
    for name, measured in values.items():
        figures.update(_mean_and_sd(name, measured))
    return figures


def _mean_and_sd(name: str, values: Sequence[float | None]) -> dict[str, float | None]:
    known = [float(value) for value in values if value is not None]
    return {
        name: statistics.fmean(known) if known else None,
        f"{name}_sd": statistics.pstdev(known) if len(known) > 1 else None,
    }


def range_text(plan: TuningPlan, outcome: TuningOutcome) -> str:
    good = outcome.good
    text = f"Range of good LRs: {good.low:g} to {good.high:g}, best constant LR {good.best:g}"
    if outcome.ladder is None:
        return f"{text} ({range_source(plan)}).\n"
    ladder, measure = outcome.ladder, outcome.ladder.measure
    table = markdown_table(ladder_rows(ladder))
    picture = f"![{markdown(measure.title)} over the LR](range.png)"
    return (
        f"{text}: {markdown(ladder.rule)}.\n\n"
        f"{markdown(measure.heading)}{_tested_on(plan)}:\n\n{table}\n{picture}\n"
    )


def _tested_on(plan: TuningPlan) -> str:
    """The records that candidates are tested on, behind a heading; empty for the test set."""
    return " on held-out records" if plan.holdout else ""


def ladder_rows(ladder: Ladder, most: int | None = None) -> Rows:
    """The measure of each LR of a range test after each of its tests.

    Args:
        most: how many tests at most; the last one is among them.
    """
    tests = ladder.tests
    if most is not None and len(tests) > most:
        tests = [tests[round((i + 1) * len(tests) / most) - 1] for i in range(most)]
    rows = [["LR", *(f"at {iteration}" for iteration in tests)]]
    for lr, rung in sorted(ladder.rungs.items()):
        found = [ladder.value(lr, iteration) for iteration in tests]
        values = ["-" if value is None else ladder.measure.figure(value) for value in found]
        rows.append(
            [f"{lr:g}" + " (diverged)" * rung.diverged + " (failed)" * rung.failed, *values]
        )
    return rows


def training_rows(study: Study, outcome: TuningOutcome) -> Rows:
    """Every training of the study, the best first."""
    origins = {str(c.policy): c.origin for c in (*outcome.candidates, *outcome.composed)}
    results = [
        (trained, result)
        for one in study.all
        for home in one.homes
        for trained in home.values()
        for result in trained.results.values()
    ]
    measure = study.plan.measure
    heading = f"best {measure.heading}"
    rows = [["policy", "seed", "iterations", heading, "at", "ended", "why it was tried"]]
    if study.holdout:
        rows[0].insert(2, "tested on")
    for trained, result in sorted(results, key=lambda pair: -_goodness(pair[1], measure)):
        top = measure.best_test(result.measurements)
        ended = result.status if result.status != "stopped" else "paused"
        rows.append(
            [
                str(result.training.policy) + with_settings(trained.settings),
                str(result.training.seed), str(result.iteration),
                measure.figures(measure.values([top] if top else [])), str(top.iteration) if top else "-",
                ended + (f": {result.reason}" if ended in UNSUCCESSFUL else ""),
                origins.get(str(result.training.policy), "range test")
                if trained.settings == study.settings
                else "other settings",
            ]
        )  # fmt: skip
        if study.holdout:
            is_final = not result.training.out.endswith(HELD_OUT)
            rows[-1].insert(2, "test set" if is_final else "held-out records")
    return rows


def _goodness(result: JobResult, measure: Measure) -> float:
    """The best value of a training as a number of which more is better."""
    top = measure.best_test(result.measurements)
    return max(map(measure.goodness, measure.values([top] if top else [])), default=-math.inf)


def study_figure(title: str, study: Study, outcome: TuningOutcome) -> Figure:
    """All trainings of a tuning: finalists and baseline in colour, the others in grey."""
    told_apart = [*outcome.finalists, *([outcome.baseline] if outcome.baseline else [])]
    own, plan = " (the solver's own)", study.plan
    named: dict[str, list[Line]] = {
        f"{trained.name}{own * (trained is outcome.baseline)}": [] for trained in told_apart
    }
    others: list[Line] = []
    coloured = {id(trained) for trained in told_apart}
    known = [trained for one in study.all for trained in one.known.values()]
    grey = [trained for trained in known if id(trained) not in coloured]
    for trained in (*{id(t): t for t in told_apart}.values(), *grey):
        results = trained.results.values()
        measured = (plan.measure.line(result.measurements) for result in results)
        # Trainings with other batches are drawn over the records that they read.
        lines = [(at * trained.scale, values) for at, values in measured if len(at)]
        if id(trained) in coloured:
            named[f"{trained.name}{own * (trained is outcome.baseline)}"].extend(lines)
        else:
            others.extend(lines)
    last = plan.seed + plan.seeds - 1
    seeds = f"seed {plan.seed}" if plan.seeds == 1 else f"seeds {plan.seed} to {last}"
    counts = f"{len(known)} policies were trained, {len(outcome.candidates)} were candidates"
    if study.holdout:
        counts += "\ncolour: on all training records, test set; grey: held-out records"
    if any(one.scale != 1 for one in study.all):
        counts += "\nother batches: as iterations of the solver's own that read as many records"
    measure = plan.measure
    values = ValueAxis(measure.heading, measure.percent, measure.is_log, measure.higher)
    return tuning_figure(f"{title}, {seeds}\n{counts}", named, others, values)


def _of_guessing(measure: Measure) -> str:
    return "chance" if measure.is_top1 else "the untrained net's value"


def ladder_figure(title: str, study: Study, ladder: Ladder, good: GoodRange) -> Figure:
    """The measure over the LR after each test of a range test, as in the paper's Figure 3.

    Args:
        title: data, net and seed.
    """
    curves: dict[str, list[Point]] = {}
    measure, epoch = ladder.measure, study.epoch
    for iteration in ladder.tests:
        name = f"{iteration / epoch:.3g} epochs" if epoch else f"{iteration} iterations"
        for lr in sorted(ladder.rungs):
            rung = ladder.rungs[lr]
            value = measure.worthless if rung.diverged else ladder.value(lr, iteration)
            if value is not None:
                curves.setdefault(name, []).append(Point(lr, value))
    return range_figure(
        curves,
        good=(good.low, good.high),
        marks=[good.best],
        close_up=(good.low / 3, good.high * 1.5),
        note=f"{title}: LR range test, constant LRs (diverged: at {_of_guessing(measure)})",
        values=ValueAxis(
            measure.heading + _tested_on(study.plan),
            measure.percent,
            measure.is_log,
            measure.higher,
        ),
    )
