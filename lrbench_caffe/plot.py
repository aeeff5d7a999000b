"""Draw LR schedules, trainings side by side, and rankings.

python -m lrbench_caffe.plot schedule "SIN2(k0=0.01, k1=0.06, l=2000)" "TRI(k0=0.01, k1=0.06, l=2000)"
python -m lrbench_caffe.plot schedule "POLY(k0=0.01, p=1.2)" --max-iter 10000 --log --out poly.svg
python -m lrbench_caffe.plot runs runs/lenet_mnist_solver-*         (runs may be in progress)
python -m lrbench_caffe.plot table --task mnist/lenet --top 0 --out table7.png

The suffix of --out selects the format: .png, .pdf or .svg.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lrbench_caffe import plots
from lrbench_caffe.errors import InputError
from lrbench_caffe.knowledge import selection
from lrbench_caffe.lr import parse
from lrbench_caffe.prototxt.task import solver_task
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.terminal import cli, flags
from lrbench_caffe.terminal.database import open_at_terminal
from lrbench_caffe.terminal.selection_flags import add_flags, selection_query


def parser() -> cli.Parser:
    p = cli.Parser(prog="python -m lrbench_caffe.plot", description=__doc__)
    commands = p.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=cli.Parser
    )

    def add(name: str, work: Callable[[argparse.Namespace], Path], text: str) -> cli.Parser:
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.set_defaults(work=work)
        command.add_argument(
            "--out",
            type=flags.place,
            metavar="FILE",
            help="file of the picture (.png, .pdf, .svg; default: a .png)",
        )
        return command

    schedule = add(
        "schedule", _schedule, "the learning rate of one or more policies over iterations"
    )
    schedule.add_argument(
        "policies", nargs="+", metavar="POLICY", help='e.g. "SIN2(k0=0.01, k1=0.06, l=2000)"'
    )
    schedule.add_argument(
        "--max-iter",
        type=int,
        metavar="N",
        help="length of the training (default: long enough to show the policies)",
    )
    schedule.add_argument("--log", action="store_true", help="use a log axis for the learning rate")
    runs = add(
        "runs", _runs, "accuracy, loss and learning rate of one or more runs over iterations"
    )
    runs.add_argument(
        "runs", nargs="+", metavar="RUNDIR", help="run directories; runs may be in progress"
    )
    runs.add_argument(
        "--by", "--metric", dest="by", metavar="NAME",
        help="show top1, top5, ac, test_loss or an output of the test net at the top (default: top1; where "
        "the net does not classify, its first output called an accuracy or the like, else test_loss)",
    )  # fmt: skip
    flags.add_direction(runs, "that output")
    table = add("table", _table, "a ranking of the LR database: Top-1 with its deviation, and cost")
    add_flags(table)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    path = args.work(args)
    print(f"plot: {path}")
    return 0


def _file(args: argparse.Namespace, default: str) -> Path:
    return plots.plot_file("--out", args.out or default)


def _schedule(args: argparse.Namespace) -> Path:
    policies = [parse(text) for text in args.policies]
    if args.max_iter is not None and not 1 <= args.max_iter <= plots.LONGEST:
        raise InputError(f"--max-iter: {args.max_iter}; allowed: 1 to {plots.LONGEST}")
    names = dict.fromkeys(name.lower() for policy in policies for name in policy.functions)
    path = _file(args, f"schedule-{'-'.join(list(names)[:4])}.png")
    length = args.max_iter or plots.natural_length(policies)
    plots.save(
        plots.schedule_figure([policy.bind(length) for policy in policies], length, log=args.log),
        path,
    )
    return path


def _runs(args: argparse.Namespace) -> Path:
    from lrbench_caffe.plots import curves

    directories = curves.distinct([Path(name) for name in args.runs])
    runs = [curves.read_curves(directory) for directory in directories]
    for directory in directories:
        for words in RunDirectory(directory).damage():
            print(f"note: {directory}: {words}: left out", file=sys.stderr)
    if all(run.empty for run in runs):
        raise InputError(
            f"{args.runs[0]}: nothing was measured yet{' in any of the runs' * (len(runs) > 1)}"
        )
    named = curves.told_apart(runs, directories)
    path = _file(args, "runs.png" if len(runs) > 1 else f"{directories[0].resolve().name}.png")
    by = curves.compared(named, args.by, flags.chosen_direction(args))
    plots.save(plots.runs_figure(curves.title_of(directories), named, by), path)
    return path


def _table(args: argparse.Namespace) -> Path:
    query = selection_query(args)
    wanted = solver_task(query.solver, query.caffe_python, query.head)
    with open_at_terminal(args.db) as database:
        selected = selection.select_ranked(query, database, wanted)
    path = _file(args, "table.png")
    plots.save(
        plots.table_figure(
            selected.title, selected.ranked, selected.order.cost, selected.order.utility
        ),
        path,
    )
    return path


if __name__ == "__main__":
    sys.exit(cli.run(main))
