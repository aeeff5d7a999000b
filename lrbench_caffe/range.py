"""Find the range of good learning rates of a solver: the LR range test.

  python -m lrbench_caffe.range solvers/lenet_digits_solver.prototxt
  python -m lrbench_caffe.range solvers/lenet_mnist_solver.prototxt --form ramp --passes 3
  python -m lrbench_caffe.range solvers/cnn3_cifar10_solver.prototxt --iterations 2000 --test-interval 500

Two forms. The ladder is the paper's (section V-A): short trainings with a constant LR each, by tens from 0.1
until Top-1 drops, then finer steps around the good ones. The ramp is that of the LR finders: a single pass
with an LR that rises exponentially, read off its loss; cheaper, and rougher. See docs/tuning.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lrbench_caffe.database.urls import resolve_url
from lrbench_caffe.errors import InputError
from lrbench_caffe.files import replace_own
from lrbench_caffe.jobs.opening import add_pool_flags, open_pool, training_flags
from lrbench_caffe.lr import Policy
from lrbench_caffe.plots.tuning import ramp_plot
from lrbench_caffe.prototxt.datacheck import HELP, OPTION
from lrbench_caffe.prototxt.solver import Solver
from lrbench_caffe.prototxt.task import open_task
from lrbench_caffe.records import digest
from lrbench_caffe.tabular import terminal_table
from lrbench_caffe.terminal import cli
from lrbench_caffe.terminal.console import Console
from lrbench_caffe.terminal.training_flags import add_hang_timeout
from lrbench_caffe.training.continuation import fingerprint
from lrbench_caffe.tuning import folder, ramp
from lrbench_caffe.tuning.folder import study_folder
from lrbench_caffe.tuning.levels import Ladder
from lrbench_caffe.tuning.prior import Prior
from lrbench_caffe.tuning.progress import TuningDisplay
from lrbench_caffe.tuning.report import draw_ladder, ladder_rows
from lrbench_caffe.tuning.space import GoodRange, candidates
from lrbench_caffe.tuning.study import Study, TuningPlan, test_interval
from lrbench_caffe.tuning.tuner import range_length

SHOWN = 6  # tests in the table: more do not fit 80 columns
RAMP_SHARE = 0.15  # of a training: length of a pass


def parser() -> cli.Parser:
    p = cli.Parser(prog="python -m lrbench_caffe.range", description=__doc__)
    p.add_argument("solver", metavar="SOLVER", help="the solver.prototxt")
    what = p.add_argument_group("test")
    what.add_argument("--form", choices=("ladder", "ramp"), default="ladder", help="(default: ladder)")
    what.add_argument(
        "--iterations", type=int, metavar="N",
        help="of each training of the ladder, or of a pass (default: a tenth of max_iter, 15 %% for a pass)",
    )  # fmt: skip
    what.add_argument(
        "--passes", type=int, default=3, metavar="N", help="of the ramp, each with a seed (default: 3)"
    )
    what.add_argument("--seed", type=int, default=1, metavar="N", help="the first seed (default: 1)")
    what.add_argument(
        "--test-interval",
        type=int,
        metavar="N",
        help="of the ladder (default: the solver's; at least two tests)",
    )
    run = p.add_argument_group("trainings")
    run.add_argument(
        "--out",
        metavar="DIR",
        help="where they are kept (default: runs/range-SOLVER, or runs/range-SOLVER-DIGEST where another "
        "solver of that name has it); what is there is not repeated",
    )
    add_hang_timeout(run)
    run.add_argument("--layers", choices=("auto", "fast", "stock"), default="auto", help="(default: auto)")
    run.add_argument(
        "--db", metavar="URL", help="the LR database (default: LRBENCH_DB, else the embedded one)"
    )
    run.add_argument("--no-db", action="store_true", help="do not record into the LR database")
    run.add_argument(
        "--head", metavar="NAME", help="the scores blob that Top-1 is measured on, as in training"
    )
    run.add_argument(OPTION, action="store_true", help=HELP)
    run.add_argument("--caffe-python", metavar="FILE", help="the Python that can import caffe")
    add_pool_flags(p)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    for flag in ("iterations", "passes", "test_interval"):
        value = getattr(args, flag)
        if value is not None and value < 1:
            raise InputError(f"--{flag.replace('_', '-')}: {value}; allowed: 1 or more")
    console = Console(unbreakable=True)
    db = "" if args.no_db else resolve_url(args.db)
    check_data = None if args.trust_data else lambda text: _say(console, text)
    solver, task = open_task(Path(args.solver), args.caffe_python, args.head, check_data)
    where = Path(args.out) if args.out else study_folder("range", solver.path)
    plan = make_plan(args, solver, task.dataset.classes)
    kept = folder.read(where)
    folder.check_solver(where, plan, kept)
    pool = open_pool(args.jobs, args.gpus, args.scheduler, args.caffe_python)
    try:
        if kept is None:
            folder.write(where, plan, Prior().as_json())
        with TuningDisplay(console) as display:
            plan = replace(plan, slots=pool.slots)
            study = Study(
                where, plan, pool, db=db, hang_seconds=args.hang_timeout, watch=display,
                trust_data=args.trust_data,
            )  # fmt: skip
            find = climb if args.form == "ladder" else _rise
            found = find(args, study, solver, console, task.title)
    finally:
        pool.close()
    report(console, args, study, *found)
    study.check_losses()
    return 0


def make_plan(args: argparse.Namespace, solver: Solver, classes: int | None) -> TuningPlan:
    if args.form == "ladder" and (not solver.tests or solver.tests[0].head is None):
        raise InputError(
            f"{solver.path}: no test net that classifies; allowed: --form ramp, which reads the loss"
        )
    max_iter = solver.message.max_iter or args.iterations
    if not max_iter:
        raise InputError(f"{solver.path}: max_iter: 0; allowed: 1 or more, or --iterations N")
    interval = args.test_interval or solver.message.test_interval or test_interval(0, max_iter)
    if args.iterations:
        interval = min(interval, max(1, args.iterations // 2))
        max_iter = max(max_iter, args.iterations)
    return TuningPlan(
        solver=str(solver.path), max_iter=max_iter, test_interval=interval, epoch=solver.epoch,
        chance=100.0 / classes if classes else 0.0, seed=args.seed,
        flags=training_flags(args.layers, args.caffe_python, solver.head), files=digest(fingerprint(solver)),
    )  # fmt: skip


def climb(
    args: argparse.Namespace, study: Study, solver: Solver, console: Console, title: str
) -> tuple[GoodRange, Path, str]:
    """The ladder: its range, which means nothing where an LR was lost, its picture, and its rule in words."""
    found = Ladder(study.plan.chance, pretrained=bool(solver.weights))
    good = study.find_range(found, args.iterations or range_length(study.plan))
    console.print(terminal_table(ladder_rows(found, SHOWN), "Top-1 (%) with a constant LR"))
    path = study.folder / "range.png"
    if study.lost:
        return good, path, found.rule
    draw_ladder(path, f"{title}, seed {args.seed}", found, good, study.plan.epoch)
    if found.begin is not None:
        _say(console, f"Top-1 of the weights they began with: {found.begin:.2f} %")
    _say(console, f"good: {found.rule}")
    return good, path, found.rule


def _rise(
    args: argparse.Namespace, study: Study, solver: Solver, console: Console, title: str
) -> tuple[GoodRange, Path, str]:
    """The same of the ramp."""
    iterations = args.iterations or max(50, round(RAMP_SHARE * study.plan.max_iter))
    passes = ramp.rise(study, solver, iterations, args.passes)
    good = ramp.read(passes, iterations)
    path = study.folder / "ramp.png"
    mean = ramp.smoothed(passes, iterations)
    last = args.seed + args.passes - 1
    seeds = f"seed {args.seed}" if args.passes == 1 else f"seeds {args.seed} to {last}"
    lines = [(found.lrs, found.losses) for found in passes]
    ramp_plot(path, f"{title}, {seeds}: an LR that rises", lines, mean, (good.low, good.high))
    _say(console, ramp.RULE)
    return good, path, ramp.RULE


def report(
    console: Console, args: argparse.Namespace, study: Study, good: GoodRange, plot: Path, rule: str
) -> None:
    """Say what was found, or what was lost for good, and keep it."""
    if study.lost:
        _show_losses(console, args, study)
    else:
        _show(console, args, study, good, plot, rule)


def _show(
    console: Console, args: argparse.Namespace, study: Study, good: GoodRange, plot: Path, rule: str
) -> None:
    """The range, what to do with it, and where it is kept."""
    plan = study.plan
    proposed = candidates(good, plan.functions, max_iter=plan.max_iter, epoch=plan.epoch)
    first = {candidate.policy.function: candidate.policy for candidate in reversed(proposed)}
    rows = [["function", "policy to begin with"]] + [[name, f"{first[name]:.6g}"] for name in plan.functions]
    console.print(terminal_table(rows, "with this range", 2))
    path = _keep(args, study, {"low": good.low, "high": good.high, "best": good.best}, rule, first)
    _say(console, f"range of good LRs: {good.low:g} to {good.high:g}, best constant LR {good.best:g}")
    _say(console, f"{study.iterations:,} iterations; kept in {path}; plot: {plot}")


def _show_losses(console: Console, args: argparse.Namespace, study: Study) -> None:
    """What was lost for good, instead of a range: each of these LRs may be an end of it, the best one, or bad
    between good ones."""
    path = _keep(args, study, dict.fromkeys(("low", "high", "best")), None, {})
    for one in study.lost:
        _say(console, f"lost: {one.text}")
    _say(console, f"no range of good LRs: it depends on what was lost; kept in {path}")


def _keep(
    args: argparse.Namespace,
    study: Study,
    ends: Mapping[str, float | None],
    rule: str | None,
    policies: Mapping[str, Policy],
) -> Path:
    """Write range.json; returns its path."""
    content = {
        "solver": study.plan.solver, "form": args.form, **ends, "rule": rule, "source": "measured",
        "seed": study.plan.seed, "lost": [one.as_json() for one in study.lost],
        "iterations": study.iterations,
        "policies": {name: str(policy) for name, policy in policies.items()},
    }  # fmt: skip
    path = study.folder / "range.json"
    replace_own(path, (json.dumps(content, indent=2) + "\n").encode())
    return path


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(cli.run(main))
