"""Rank the LR policies that the LR database knows for a task.

python -m lrbench_caffe.rank                                        (lists the known tasks)
python -m lrbench_caffe.rank solvers/lenet_mnist_solver.prototxt    (by Top-1)
python -m lrbench_caffe.rank --task mnist/lenet --by ld,iterations --top 5
python -m lrbench_caffe.rank --task cifar10/cnn3 --by target --target-top1 80
python -m lrbench_caffe.rank --task cifar10/cnn3 --weights top1=2,iterations=1
python -m lrbench_caffe.rank --task cifar10/cnn3 --pareto --plot front.png
python -m lrbench_caffe.rank --task mnist/lenet --format csv --out table7.csv

A policy's metrics are those at its first highest Top-1, as mean and deviation over its trainings. The marks
come from Welch's test on the first criterion, against the best policy and against the next one: ~ means that
the difference is within noise (p >= 0.05), ? that no test is possible (a single training, or no known
deviation). See docs/ranking.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lrbench_caffe import plots
from lrbench_caffe.errors import InputError
from lrbench_caffe.knowledge import selection
from lrbench_caffe.prototxt.task import solver_task
from lrbench_caffe.terminal import cli, flags, tables
from lrbench_caffe.terminal.database import open_at_terminal
from lrbench_caffe.terminal.rank_output import (
    DATA_FORMATS,
    FORMATS,
    write_ranking,
    write_tasks,
)
from lrbench_caffe.terminal.selection_flags import add_flags, selection_query


def parser() -> cli.Parser:
    p = cli.Parser(prog="python -m lrbench_caffe.rank", description=__doc__)
    add_flags(p)
    out = p.add_argument_group("output")
    out.add_argument(
        "--format", choices=FORMATS, default="table", help="output format (default: table)"
    )
    out.add_argument(
        "--json",
        dest="format",
        action="store_const",
        const="json",
        help="print JSON, like --format json",
    )
    tables.add_flag(out)
    out.add_argument(
        "--out", type=flags.place, metavar="FILE", help="write to this file instead of the terminal"
    )
    out.add_argument(
        "--plot",
        type=flags.place,
        metavar="FILE",
        help="draw Top-1 over cost, with the Pareto front",
    )
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.columns is not None and args.format != "table":
        raise InputError(f"--columns: allowed with --format table, which {args.format} is not")
    query = selection_query(args)
    wanted = solver_task(query.solver, query.caffe_python, query.head)
    plot = plots.plot_file("--plot", args.plot) if args.plot else None
    with open_at_terminal(args.db) as database:
        known = database.tasks()
        tasks = selection.find_tasks(query, known, wanted)
        if tasks is None:
            write_tasks(args, known)
            return 0
        selected = selection.select(query, database, tasks, everything=plot is not None)
    if not selected.candidates and (args.format in DATA_FORMATS or not selected.unfinished):
        raise selection.nothing_found(query, tasks)
    write_ranking(args, selected)
    if plot and selected.candidates:
        _plot(plot, selected)
    return 0


def _plot(path: Path, selected: selection.Selection) -> None:
    try:
        plots.save(plots.front_figure(selected), path)
    except OSError as error:
        raise InputError(f"--plot: cannot write {path}: {error.strerror}") from error
    print(f"plot: {path}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(cli.run(main))
