"""Find a good LR policy for a solver: range test, candidates, search, repeats of the best, ranking.

  python -m lrbench_caffe.tune solvers/lenet_digits_solver.prototxt
  python -m lrbench_caffe.tune solvers/lenet_mnist_solver.prototxt --functions cyclic --jobs 2 --seeds 3
  python -m lrbench_caffe.tune solvers/lenet_mnist_solver.prototxt --goal cost --target-top1 99
  python -m lrbench_caffe.tune solvers/cnn3_cifar10_solver.prototxt --scheduler tcp://host:8786

It starts from what the LR database knows of the task: known policies are tried first. Where that is too
little it finds the range of good LRs with short trainings. Candidates by the paper's heuristics are trained
as far as they are worth it: each continues from its own snapshot, so nothing is trained twice. The best are
repeated with other seeds, ranked, and compared with the solver's own policy. Killed at any time, the same
command continues where it was. See docs/tuning.md.

Exit code: 0 where a policy is recommended, 3 where none is better than the solver's own beyond noise, 2 for
bad input, 1 where nothing could be trained, or a training was lost for good, so that another decision is
possible: the same command tries it again.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO, cast

from lrbench_caffe.database.urls import resolve_url
from lrbench_caffe.errors import InputError
from lrbench_caffe.jobs.opening import add_pool_flags, open_pool, training_flags
from lrbench_caffe.lr import Policy
from lrbench_caffe.prototxt.datacheck import HELP, OPTION
from lrbench_caffe.prototxt.solver import Solver
from lrbench_caffe.records import digest
from lrbench_caffe.setup import installation
from lrbench_caffe.tabular import terminal_table
from lrbench_caffe.terminal import cli
from lrbench_caffe.terminal.console import Console
from lrbench_caffe.terminal.tables import ALL, add_flag, chosen, print_table
from lrbench_caffe.terminal.training_flags import add_hang_timeout
from lrbench_caffe.training.choosing import open_wanted
from lrbench_caffe.training.continuation import fingerprint
from lrbench_caffe.tuning.folder import study_folder
from lrbench_caffe.tuning.progress import TuningDisplay
from lrbench_caffe.tuning.report import (
    cost_rows,
    finalist_layout,
    finalist_rows,
    lost_note,
    time_line,
    write_report,
)
from lrbench_caffe.tuning.space import functions
from lrbench_caffe.tuning.study import TESTS, Study, TuningPlan, test_interval
from lrbench_caffe.tuning.tuner import Tuner, TuningOutcome
from lrbench_caffe.tuning.verdict import Verdict, judge

FULL = re.compile(r"x([0-9]{1,9}(?:\.[0-9]{1,9})?)")
ITERATIONS = re.compile(r"[0-9]{1,15}")
GOALS = ("accuracy", "cost")


def parser() -> cli.Parser:
    p = cli.Parser(prog="python -m lrbench_caffe.tune", description=__doc__)
    p.add_argument("solver", metavar="SOLVER", help="the solver.prototxt")
    what = p.add_argument_group("what to find")
    what.add_argument(
        "--goal", choices=GOALS, default="accuracy",
        help="the highest Top-1, or the fewest iterations to one (default: accuracy)",
    )  # fmt: skip
    what.add_argument(
        "--target-top1", type=float, metavar="X",
        help="the Top-1 in percent that is enough, or with --goal cost the one to reach (default: none; with "
        "cost the best finalist's, less its deviation)",
    )  # fmt: skip
    what.add_argument(
        "--functions", default="all", metavar="NAMES",
        help="all, cyclic, decaying, or LR functions by commas (default: all)",
    )  # fmt: skip
    what.add_argument("--compose", action="store_true", help="also try compositions of the best policies")
    what.add_argument("--fresh", action="store_true", help="start from nothing that the LR database knows")
    cost = p.add_argument_group("how much to spend")
    cost.add_argument(
        "--budget", metavar="N|xF",
        help="iterations in all, which the search keeps to; or xF: F times max_iter (default: 15 %% of all "
        "candidates in full)",
    )  # fmt: skip
    cost.add_argument("--top", type=int, default=2, metavar="N", help="finalists (default: 2)")
    cost.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="trainings of each finalist (default: 3)"
    )
    cost.add_argument("--seed", type=int, default=1, metavar="N", help="the first one's seed (default: 1)")
    run = p.add_argument_group("trainings")
    run.add_argument(
        "--max-iter", type=int, metavar="N", help="their length (default: the solver's max_iter)"
    )
    run.add_argument(
        "--test-interval", type=int, metavar="N",
        help=f"iterations between tests (default: the solver's, but at least {TESTS} tests)",
    )  # fmt: skip
    run.add_argument(
        "--out",
        metavar="DIR",
        help="the study's directory (default: runs/tune-SOLVER, or runs/tune-SOLVER-DIGEST where another "
        "solver of that name has it); a study that is there is continued",
    )
    add_hang_timeout(run)
    run.add_argument("--layers", choices=("auto", "fast", "stock"), default="auto", help="(default: auto)")
    run.add_argument(
        "--db", metavar="URL", help="the LR database (default: LRBENCH_DB, else the embedded one)"
    )
    run.add_argument("--no-db", action="store_true", help="neither ask the LR database nor record into it")
    run.add_argument(
        "--head", metavar="NAME", help="the scores blob that Top-1 is measured on, as in training"
    )
    run.add_argument(OPTION, action="store_true", help=HELP)
    run.add_argument("--caffe-python", metavar="FILE", help="the Python that can import caffe")
    add_pool_flags(p)
    out = p.add_argument_group("output")
    add_flag(out)
    out.add_argument("--json", action="store_true", help="print the result as JSON; progress goes to stderr")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    _check(args)
    console = Console(stderr=args.json, unbreakable=True)
    db = "" if args.no_db else resolve_url(args.db)

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    check_data = None if args.trust_data else say
    solver, wanted = open_wanted(
        Path(args.solver), caffe_python=args.caffe_python, head=args.head, check_data=check_data
    )
    task = wanted.task
    plan = make_plan(args, solver, task.dataset.classes)
    if args.columns is not None and args.columns != ALL:
        chosen(args.columns, finalist_layout(plan))  # not when hours of training are over
    folder = Path(args.out) if args.out else study_folder("tune", solver.path)
    pool = open_pool(args.jobs, args.gpus, args.scheduler, args.caffe_python)
    try:
        with TuningDisplay(console) as display:
            study = Study(
                folder, plan, pool, db=db, hang_seconds=args.hang_timeout, watch=display,
                trust_data=args.trust_data,
            )  # fmt: skip
            tuner = Tuner(study, wanted, solver, None if args.no_db or args.fresh else db)
            outcome = tuner.tune()
    finally:
        pool.close()
    note = "; ".join(filter(None, (outcome.why_untried, lost_note(study.lost))))
    verdict = judge(plan, outcome.finalists, outcome.baseline, note)
    path = write_report(study, outcome, verdict, task.title)
    if args.json:
        print(path.with_name("result.json").read_text(encoding="utf-8"), end="")
    else:
        _show(console, study, outcome, verdict, path, args.columns)
    study.check_losses()
    return verdict.exit_code


def _show(
    console: Console,
    study: Study,
    outcome: TuningOutcome,
    verdict: Verdict,
    report: Path,
    columns: str | None,
) -> None:
    """The result, and where all of it is."""
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
        f"report: {report}, with result.json and tuning.png",
        f"verdict: {verdict.text}",
        train_line(study.plan, verdict.policy),
    )
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def train_line(plan: TuningPlan, policy: Policy | None) -> str:
    """The command that trains with a policy, None for the solver's own, for as long as the tuning did."""
    lr = "" if policy is None else f'--lr "{policy}" '
    flags = dict(zip(plan.flags[::2], plan.flags[1::2]))
    head = f"--head {shlex.quote(flags['--head'])} " if "--head" in flags else ""
    return (
        f"{installation.command('train')} {shlex.quote(plan.solver)} {lr}{head}"
        f"--max-iter {plan.max_iter} --test-interval {plan.test_interval}"
    )


def make_plan(args: argparse.Namespace, solver: Solver, classes: int | None) -> TuningPlan:
    """The plan that the flags and the solver make."""
    if not solver.tests or solver.tests[0].head is None:
        raise InputError(f"{solver.path}: no test net that classifies: a tuning compares Top-1")
    max_iter = args.max_iter or solver.message.max_iter
    if not max_iter:
        raise InputError(f"{solver.path}: max_iter: 0; allowed: 1 or more, or --max-iter N")
    return TuningPlan(
        solver=str(solver.path),
        goal=args.goal,
        functions=functions(args.functions),
        max_iter=max_iter,
        test_interval=args.test_interval or test_interval(solver.message.test_interval, max_iter),
        epoch=solver.epoch,
        chance=100.0 / classes if classes else 0.0,
        seed=args.seed,
        seeds=args.seeds,
        top=args.top,
        budget=budget(args.budget, max_iter),
        target_top1=args.target_top1,
        compose=args.compose,
        flags=training_flags(args.layers, args.caffe_python, solver.head),
        files=digest(fingerprint(solver)),
    )


def budget(text: str | None, max_iter: int) -> int | None:
    """--budget in iterations, None where it was not given.

    Raises:
        InputError: it is neither a number of iterations nor xF.
    """
    if text is None:
        return None
    match = FULL.fullmatch(text.strip())
    if match and float(match[1]) > 0:
        return max(1, round(float(match[1]) * max_iter))
    if ITERATIONS.fullmatch(text.strip()) and int(text) > 0:
        return int(text)
    raise InputError(f"--budget: {text!r}; allowed: iterations, or xF for F times max_iter, above 0")


def _check(args: argparse.Namespace) -> None:
    for flag in ("top", "seeds", "max_iter", "test_interval"):
        value = getattr(args, flag)
        if value is not None and value < 1:
            raise InputError(f"--{flag.replace('_', '-')}: {value}; allowed: 1 or more")
    if not 0 <= args.seed <= 2**31 - 1 - args.seeds:
        raise InputError(f"--seed: {args.seed}; allowed: 0 to {2**31 - 1 - args.seeds}")
    if args.target_top1 is not None and not 0 < args.target_top1 <= 100:
        raise InputError(f"--target-top1: {args.target_top1:g}; allowed: above 0, at most 100 (percent)")


if __name__ == "__main__":
    sys.exit(cli.run(main))
