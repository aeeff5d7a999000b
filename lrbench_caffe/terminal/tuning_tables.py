"""The results of tune and range on the terminal: tables, and the command that trains so."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TextIO, cast

from lrbench_caffe import installation
from lrbench_caffe.lr import Policy
from lrbench_caffe.terminal.console import Console
from lrbench_caffe.terminal.tables import Layout, print_table, terminal_table
from lrbench_caffe.tuning.holdout_report import optimism_of
from lrbench_caffe.tuning.optimism import rows as optimism_rows
from lrbench_caffe.tuning.outer_report import RECOMMENDED, trial_rows
from lrbench_caffe.tuning.plan import TuningPlan
from lrbench_caffe.tuning.report import columns as metric_columns
from lrbench_caffe.tuning.report import (
    cost_rows,
    counted,
    finalist_rows,
    ladder_rows,
    recommended_study,
    time_line,
    until,
)
from lrbench_caffe.tuning.running import RangeTest, Tuning
from lrbench_caffe.tuning.verdict import has_target

_OF_TRAINING = ("--head", "--weights", "--stage", "--level")  # flags that make another training
OPTIMISM = Layout(
    names=("place", "policy", "held_out", "at", "test", "best", "flattery"), words=("place",)
)
SHOWN = 6  # tests in the table: more do not fit 80 columns


def finalist_layout(plan: TuningPlan) -> Layout:
    """The columns of ``report.finalist_rows``, and which of them a narrow terminal has."""
    target = ("target",) if has_target(plan) else ()
    return Layout(
        names=("place", "policy", "trainings", "iterations", *target, *metric_columns(plan)),
        order=("place", "policy", plan.by, *target, "trainings", "iterations", "ld"),
        words=("place",),
    )


def show_tuning(console: Console, tuning: Tuning, columns: str | None) -> None:
    """The result, and where all of it is."""
    study, outcome, verdict = tuning.study, tuning.outcome, tuning.verdict
    print_table(
        finalist_rows(study, outcome),
        finalist_layout(study.plan),
        title=f"finalists, mean ± deviation, {counted(study.plan)}",
        columns=columns,
        file=cast(TextIO, console.file),
    )
    if outcome.outer is not None and outcome.outer.trials:
        rows = trial_rows(study.plan.measure, outcome.outer)
        loss = ("loss",) if len(rows[0]) > 4 else ()
        layout = Layout(
            ("settings", "value", *loss, "ended", "policy"), words=("settings", "ended")
        )
        print_table(rows, layout, title="other settings", file=cast(TextIO, console.file))
    flattery = optimism_of(study, outcome)
    if flattery is not None:
        print_table(
            optimism_rows(flattery),
            OPTIMISM,
            title=f"{study.plan.measure.heading} on held-out records and on the test set",
            file=cast(TextIO, console.file),
        )
    console.print(terminal_table(cost_rows(study, outcome), "cost"))
    lines = (
        *(flattery.lines() if flattery else ()),
        *(f"lost: {one.text}" for one in study.lost),
        time_line(study, outcome),
        f"report: {tuning.report}, with result.json and tuning.png",
        f"verdict: {verdict.text}",
        train_line(_plan(tuning), verdict.policy, until(study, verdict)),
    )
    for line in lines:
        console.say(line)


def _plan(tuning: Tuning) -> TuningPlan:
    """The plan to train by: with other settings it is of the solver that was written for them."""
    study = recommended_study(tuning.study, tuning.verdict)
    if study is tuning.study:
        return study.plan
    return replace(study.plan, solver=str(tuning.report.parent / RECOMMENDED))


def train_line(plan: TuningPlan, policy: Policy | None, stop_at: int | None = None) -> str:
    """The command that trains with a policy (None: the solver's own) as long as the tuning did.

    Args:
        stop_at: the iteration that held-out records chose, None for the end.
    """
    stop = "" if stop_at is None else f" --until {stop_at}"
    lr = "" if policy is None else f'--lr "{policy}" '
    words = (*plan.flags, *plan.beginning)
    flags = dict(zip(words[::2], words[1::2]))
    own = [word for flag in _OF_TRAINING if flag in flags for word in (flag, flags[flag])]
    more = "".join(f"{shlex.quote(word)} " for word in own)
    return (
        f"{installation.command('train')} {shlex.quote(plan.solver)} {lr}{more}"
        f"--max-iter {plan.max_iter} --test-interval {plan.test_interval}{stop}"
    )


def show_range(console: Console, test: RangeTest) -> None:
    """Print the range, how to use it, and where it is kept; or the lost trainings."""
    if test.ladder:
        console.print(
            terminal_table(
                ladder_rows(test.ladder, SHOWN),
                f"{test.ladder.measure.heading} with a constant LR",
            )
        )
    if test.good is None:
        for one in test.study.lost:
            console.say(f"lost: {one.text}")
        console.say(f"no range of good LRs: it depends on lost trainings; kept in {test.file}")
        return
    if test.ladder and test.ladder.begin is not None:
        measure = test.ladder.measure
        console.say(f"{measure.title} of the initial weights: {measure.text(test.ladder.begin)}")
    console.say(f"good: {test.rule}" if test.ladder else test.rule)
    rows = [["function", "starting policy"]]
    rows += [[name, f"{policy:.6g}"] for name, policy in test.policies.items()]
    console.print(terminal_table(rows, "with this range", 2))
    good = test.good
    console.say(f"range of good LRs: {good.low:g} to {good.high:g}, best constant LR {good.best:g}")
    console.say(f"{test.study.iterations:,} iterations; kept in {test.file}; plot: {test.picture}")
