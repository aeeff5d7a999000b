"""Reproduce the paper's tables and figures: run the missing trainings and compare the results.

  python -m lrbench_caffe.reproduce figure1                          (computed, nothing is trained)
  python -m lrbench_caffe.reproduce table7 --dry-run                 (what is missing, and how long it takes)
  python -m lrbench_caffe.reproduce table7 --seeds 2 --jobs 2
  python -m lrbench_caffe.reproduce table8 --rows 1,4-6,cos --gpus 0,1
  python -m lrbench_caffe.reproduce table8 --seeds 1 --until 200     (does every row start?)
  python -m lrbench_caffe.reproduce all --scheduler tcp://host:8786

Existing trainings with the same task, policy, length, test interval and seed count, wherever they were made:
in the LR database, or in run directories below --out. The command can be killed at any time and continues
where it stopped. A failed training is tried again by the next command. See docs/reproducing.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lrbench_caffe.database.urls import resolve_url
from lrbench_caffe.errors import InputError, did_you_mean
from lrbench_caffe.jobs.opening import TRUST_DATA, check_jobs, open_pool, training_flags
from lrbench_caffe.reproduction.figures import figure1
from lrbench_caffe.reproduction.missing import Options
from lrbench_caffe.reproduction.plan import ExperimentPlan, plan
from lrbench_caffe.reproduction.request import ReproductionRequest, known_names
from lrbench_caffe.reproduction.runner import Goal, Reproduction
from lrbench_caffe.reproduction.speed import Prober
from lrbench_caffe.terminal import cli, flags
from lrbench_caffe.terminal.console import Console
from lrbench_caffe.terminal.database import open_at_terminal
from lrbench_caffe.terminal.progress import Bars
from lrbench_caffe.terminal.reproduction_progress import ReproductionDisplay
from lrbench_caffe.terminal.study_flags import add_pool_flags

FILE_WIDTH = 160  # columns where the output is not a terminal


def parser() -> cli.Parser:
    p = cli.Parser(prog="python -m lrbench_caffe.reproduce", description=__doc__)
    *names, _ = known_names()
    p.add_argument("what", type=_name, metavar="WHAT", help=f"{', '.join(names)}, or all of them")
    what = p.add_argument_group("which trainings")
    what.add_argument(
        "--rows", metavar="LIST",
        help='train these rows only: numbers, ranges and function names, "1,3-5,sin2" (default: all)',
    )  # fmt: skip
    what.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help="trainings of each row, with seeds 1 to N (default: 5; figure5: 1)",
    )
    what.add_argument(
        "--iterations-scale", type=float, default=1.0, metavar="F",
        help="train F times as many iterations, at most 1; never mixed with full trainings (default: 1)",
    )  # fmt: skip
    what.add_argument(
        "--until", type=int, metavar="N",
        help="pause each missing training at iteration N and report which started; continue without --until",
    )  # fmt: skip
    what.add_argument(
        "--dry-run", action="store_true",
        help="train nothing; list what is missing and make the table from existing results",
    )  # fmt: skip
    run = p.add_argument_group("trainings")
    run.add_argument(
        "--out", type=flags.place, default="runs/reproduce", metavar="DIR",
        help="run directories, tables and pictures (default: runs/reproduce)",
    )  # fmt: skip
    flags.add_hang_timeout(run)
    flags.add_layers(run)
    flags.add_database(run)
    flags.add_trust_data(run)
    flags.add_caffe_python(run)
    add_pool_flags(p)
    return p


def _name(text: str) -> str:
    known = known_names()
    if text not in known:
        raise argparse.ArgumentTypeError(
            f"unknown {text!r}{did_you_mean(text, known) or ';'} known: {', '.join(known)}"
        )
    return text


def main(argv: Sequence[str] | None = None, find: Callable[[str], ExperimentPlan] = plan) -> int:
    """The command; ``find`` tells the plan of a name."""
    args = parser().parse_args(argv)
    request = ReproductionRequest(
        args.what, args.rows, args.seeds, args.iterations_scale, args.until
    )
    check_jobs(args.jobs)  # here, too: figure1 opens no pool
    if args.layers == "fast" and args.gpus:
        raise InputError("--layers fast: only for the CPU; it cannot be combined with --gpus")
    width = None if sys.stdout.isatty() else FILE_WIDTH
    console = Console(unbreakable=True, width=width)
    goals = request.goals(find)
    if request.has_figure1:
        _figure1(console, Path(args.out), dry=args.dry_run)
    if goals:
        _reproduce(args, console, goals)
    return 0


def _reproduce(args: argparse.Namespace, console: Console, goals: Sequence[Goal]) -> None:
    given = training_flags(args.layers, args.caffe_python)
    if args.dry_run and args.db:
        open_at_terminal(args.db).close()  # which refuses a mistyped name
    given += (TRUST_DATA,) if args.trust_data else ()

    display = ReproductionDisplay(console)
    check_data = None if args.trust_data else Bars(display.say)
    prober = Prober(args.layers, args.gpus, args.caffe_python, bool(args.scheduler), check_data)
    options = Options(Path(args.out), resolve_url(args.db), given, args.until, args.hang_timeout)
    pool = open_pool(args.jobs, args.gpus, args.scheduler, args.caffe_python, display.warn)
    try:
        Reproduction(display, goals, options, pool, prober).run(dry=args.dry_run)
    finally:
        pool.close()


def _figure1(console: Console, folder: Path, dry: bool) -> None:
    if dry:
        text = "nothing to train; without --dry-run it is computed and drawn in a few seconds"
    else:
        folder.mkdir(parents=True, exist_ok=True)
        text = ", ".join(map(str, figure1(folder)))
    console.say(f"figure1: {text}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
