"""Find a good LR policy for a solver: range test, candidates, search, repeats of the best, ranking.

  python -m lrbench_caffe.tune solvers/lenet_digits_solver.prototxt
  python -m lrbench_caffe.tune solvers/lenet_mnist_solver.prototxt --functions cyclic --jobs 2 --seeds 3
  python -m lrbench_caffe.tune solvers/lenet_mnist_solver.prototxt --goal cost --target-top1 99
  python -m lrbench_caffe.tune solvers/cnn3_cifar10_solver.prototxt --scheduler tcp://host:8786

The tuning starts from the LR database's results for the task: known policies are tried first. If there are
too few, short trainings find the range of good LRs. Candidates from the paper's heuristics are trained as
far as they are worth it: each continues from its own snapshot, so nothing is trained twice. The best are
repeated with other seeds, ranked, and compared with the solver's own policy. The command can be killed at
any time and continues where it stopped. See docs/tuning.md.

Exit codes: 0: a policy is recommended; 3: none is better than the solver's own beyond noise; 2: bad input;
1: nothing could be trained, or a training was lost, which could have changed the decision:
the same command tries it again.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from typing import TextIO, cast

from lrbench_caffe import installation
from lrbench_caffe.lr import Policy
from lrbench_caffe.terminal import cli
from lrbench_caffe.terminal.console import Console
from lrbench_caffe.terminal.progress import Bars
from lrbench_caffe.terminal.study_flags import add_study_flags, study_parameters
from lrbench_caffe.terminal.tables import ALL, add_flag, chosen, print_table, terminal_table
from lrbench_caffe.terminal.tuning_progress import TuningDisplay
from lrbench_caffe.terminal.tuning_tables import finalist_layout
from lrbench_caffe.tuning.report import (
    cost_rows,
    finalist_rows,
    time_line,
)
from lrbench_caffe.tuning.request import GOALS, TuningRequest
from lrbench_caffe.tuning.running import Tuning, carry_out, prepare_tuning
from lrbench_caffe.tuning.study import TESTS, TuningPlan


def parser() -> cli.Parser:
    p = cli.Parser(prog="python -m lrbench_caffe.tune", description=__doc__)
    p.add_argument("solver", metavar="SOLVER", help="the solver.prototxt")
    what = p.add_argument_group("goal")
    what.add_argument(
        "--goal", choices=GOALS, default="accuracy",
        help="accuracy: the highest Top-1; cost: the fewest iterations to --target-top1 (default: accuracy)",
    )  # fmt: skip
    what.add_argument(
        "--target-top1", type=float, metavar="X",
        help="a sufficient Top-1 in percent; with --goal cost, the one to reach (default: none; with cost, "
        "the best finalist's mean minus its deviation)",
    )  # fmt: skip
    what.add_argument(
        "--functions", default="all", metavar="NAMES",
        help="all, cyclic, decaying, or comma-separated LR functions (default: all)",
    )  # fmt: skip
    what.add_argument(
        "--compose", action="store_true", help="also try compositions of the best policies"
    )
    what.add_argument(
        "--fresh", action="store_true", help="ignore earlier results in the LR database"
    )
    cost = p.add_argument_group("cost")
    cost.add_argument(
        "--budget", metavar="N|xF",
        help="limit of all iterations for the search; xF: F times max_iter (default: 15 %% of training all "
        "candidates in full)",
    )  # fmt: skip
    cost.add_argument(
        "--top", type=int, default=2, metavar="N", help="number of finalists (default: 2)"
    )
    cost.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="trainings of each finalist (default: 3)"
    )
    cost.add_argument("--seed", type=int, default=1, metavar="N", help="first seed (default: 1)")
    run = p.add_argument_group("trainings")
    run.add_argument(
        "--max-iter",
        type=int,
        metavar="N",
        help="iterations of a training (default: the solver's max_iter)",
    )
    run.add_argument(
        "--test-interval", type=int, metavar="N",
        help=f"iterations between tests (default: the solver's, but at least {TESTS} tests)",
    )  # fmt: skip
    run.add_argument(
        "--out",
        metavar="DIR",
        help="directory of the study; an existing study is continued (default: runs/tune-SOLVER, or "
        "runs/tune-SOLVER-DIGEST if another solver of that name uses it)",
    )
    add_study_flags(p, run)
    out = p.add_argument_group("output")
    add_flag(out)
    out.add_argument(
        "--json", action="store_true", help="print the result as JSON; progress goes to stderr"
    )
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    request = tuning_request(args)
    console = Console(stderr=args.json, unbreakable=True)

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    prepared = prepare_tuning(request, Bars(say))
    if args.columns is not None and args.columns != ALL:
        chosen(args.columns, finalist_layout(prepared.plan))  # not when hours of training are over
    with TuningDisplay(console) as display:
        tuning = carry_out(prepared, display)
    if args.json:
        print(tuning.report.with_name("result.json").read_text(encoding="utf-8"), end="")
    else:
        _show(console, tuning, args.columns)
    tuning.study.check_losses()
    return tuning.verdict.exit_code


def tuning_request(args: argparse.Namespace) -> TuningRequest:
    """The request that the flags make."""
    return TuningRequest(
        **study_parameters(args),
        goal=args.goal,
        target_top1=args.target_top1,
        functions=args.functions,
        compose=args.compose,
        fresh=args.fresh,
        budget=args.budget,
        top=args.top,
        seeds=args.seeds,
        max_iter=args.max_iter,
    )


def _show(console: Console, tuning: Tuning, columns: str | None) -> None:
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
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def train_line(plan: TuningPlan, policy: Policy | None) -> str:
    """The command that trains with a policy (None: the solver's own) as long as the tuning did."""
    lr = "" if policy is None else f'--lr "{policy}" '
    flags = dict(zip(plan.flags[::2], plan.flags[1::2]))
    head = f"--head {shlex.quote(flags['--head'])} " if "--head" in flags else ""
    return (
        f"{installation.command('train')} {shlex.quote(plan.solver)} {lr}{head}"
        f"--max-iter {plan.max_iter} --test-interval {plan.test_interval}"
    )


if __name__ == "__main__":
    sys.exit(cli.run(main))
