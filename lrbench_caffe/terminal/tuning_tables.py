"""The results of tune and range on the terminal: tables, and the command that trains so."""

from __future__ import annotations

import shlex
from typing import TextIO, cast

from lrbench_caffe import installation
from lrbench_caffe.lr import Policy
from lrbench_caffe.metrics import TOP1
from lrbench_caffe.terminal.console import Console
from lrbench_caffe.terminal.tables import Layout, print_table, terminal_table
from lrbench_caffe.tuning.report import COLUMNS, cost_rows, finalist_rows, ladder_rows, time_line
from lrbench_caffe.tuning.running import RangeTest, Tuning
from lrbench_caffe.tuning.study import TuningPlan
from lrbench_caffe.tuning.verdict import has_target

SHOWN = 6  # tests in the table: more do not fit 80 columns


def finalist_layout(plan: TuningPlan) -> Layout:
    """The columns of ``report.finalist_rows``, and which of them a narrow terminal has."""
    target = ("target",) if has_target(plan) else ()
    return Layout(
        names=("place", "policy", "trainings", "iterations", *target, *COLUMNS),
        order=("place", "policy", "top1", *target, "trainings", "iterations", "ld"),
        words=("place",),
    )


def show_tuning(console: Console, tuning: Tuning, columns: str | None) -> None:
    """The result, and where all of it is."""
    study, outcome, verdict = tuning.study, tuning.outcome, tuning.verdict
    print_table(
        finalist_rows(study, outcome),
        finalist_layout(study.plan),
        title="finalists, mean ± deviation at the first highest Top-1",
        columns=columns,
        file=cast(TextIO, console.file),
    )
    console.print(terminal_table(cost_rows(study, outcome), "cost"))
    lines = (
        *(f"lost: {one.text}" for one in study.lost),
        time_line(study, outcome),
        f"report: {tuning.report}, with result.json and tuning.png",
        f"verdict: {verdict.text}",
        train_line(study.plan, verdict.policy),
    )
    for line in lines:
        console.say(line)


def train_line(plan: TuningPlan, policy: Policy | None) -> str:
    """The command that trains with a policy (None: the solver's own) as long as the tuning did."""
    lr = "" if policy is None else f'--lr "{policy}" '
    flags = dict(zip(plan.flags[::2], plan.flags[1::2]))
    head = f"--head {shlex.quote(flags['--head'])} " if "--head" in flags else ""
    return (
        f"{installation.command('train')} {shlex.quote(plan.solver)} {lr}{head}"
        f"--max-iter {plan.max_iter} --test-interval {plan.test_interval}"
    )


def show_range(console: Console, test: RangeTest) -> None:
    """Print the range, how to use it, and where it is kept; or the lost trainings."""
    if test.ladder:
        console.print(
            terminal_table(ladder_rows(test.ladder, SHOWN), "Top-1 (%) with a constant LR")
        )
    if test.good is None:
        for one in test.study.lost:
            console.say(f"lost: {one.text}")
        console.say(f"no range of good LRs: it depends on lost trainings; kept in {test.file}")
        return
    if test.ladder and test.ladder.begin is not None:
        console.say(f"Top-1 of the initial weights: {TOP1.text(test.ladder.begin)}")
    console.say(f"good: {test.rule}" if test.ladder else test.rule)
    rows = [["function", "starting policy"]]
    rows += [[name, f"{policy:.6g}"] for name, policy in test.policies.items()]
    console.print(terminal_table(rows, "with this range", 2))
    good = test.good
    console.say(f"range of good LRs: {good.low:g} to {good.high:g}, best constant LR {good.best:g}")
    console.say(f"{test.study.iterations:,} iterations; kept in {test.file}; plot: {test.picture}")
