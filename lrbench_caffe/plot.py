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
from dataclasses import replace
from pathlib import Path
from typing import Any

from lrbench_caffe import plots
from lrbench_caffe.errors import InputError
from lrbench_caffe.knowledge import selection
from lrbench_caffe.lr import parse
from lrbench_caffe.metrics import of_first_net
from lrbench_caffe.prototxt.task import solver_task
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.runs.runjson import task_title
from lrbench_caffe.terminal import cli
from lrbench_caffe.terminal.database import open_at_terminal
from lrbench_caffe.terminal.selection_flags import add_flags, selection_query

LONGEST = 10_000_000  # iterations of a schedule


def parser() -> cli.Parser:
    p = cli.Parser(prog="python -m lrbench_caffe.plot", description=__doc__)
    commands = p.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=cli.Parser
    )

    def add(name: str, work: Callable[[argparse.Namespace], Path], text: str) -> cli.Parser:
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.set_defaults(work=work)
        command.add_argument(
            "--out", metavar="FILE", help="file of the picture (.png, .pdf, .svg; default: a .png)"
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
    if args.max_iter is not None and not 1 <= args.max_iter <= LONGEST:
        raise InputError(f"--max-iter: {args.max_iter}; allowed: 1 to {LONGEST}")
    names = dict.fromkeys(name.lower() for policy in policies for name in policy.functions)
    path = _file(args, f"schedule-{'-'.join(list(names)[:4])}.png")
    length = args.max_iter or plots.natural_length(policies)
    plots.save(
        plots.schedule_figure([policy.bind(length) for policy in policies], length, log=args.log),
        path,
    )
    return path


def _runs(args: argparse.Namespace) -> Path:
    # Each once, and under its own name: runs/* has runs/latest in it.
    places: dict[Path, Path] = {}
    for path in sorted(map(Path, args.runs), key=Path.is_symlink):
        places.setdefault(path.resolve(), path)
    directories = list(places.values())
    curves = [_curves(directory) for directory in directories]
    for directory in directories:
        for words in RunDirectory(directory).damage():
            print(f"note: {directory}: {words}: left out", file=sys.stderr)
    if all(run.empty for run in curves):
        raise InputError(
            f"{args.runs[0]}: nothing was measured yet{' in any of the runs' * (len(curves) > 1)}"
        )
    named = _told_apart(curves, directories)
    path = _file(args, "runs.png" if len(curves) > 1 else f"{directories[0].resolve().name}.png")
    plots.save(plots.runs_figure(_title(directories), named), path)
    return path


def _told_apart(
    curves: Sequence[plots.RunCurves], directories: Sequence[Path]
) -> list[plots.RunCurves]:
    """With the names of their folders where several would be called alike."""
    alike: dict[str, list[int]] = {}
    for number, run in enumerate(curves):
        alike.setdefault(run.label, []).append(number)
    named = list(curves)
    for numbers in alike.values():
        if len(numbers) > 1:
            for number, name in zip(numbers, short_names([directories[n] for n in numbers])):
                named[number] = replace(curves[number], label=f"{curves[number].label}, {name}")
    return named


def short_names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of paths that tell them apart, without what is the same at all ends.

    "a/x/run" and "b/x/run" are "a" and "b". The folders are different ones.
    """
    parts = [folder.resolve().parts for folder in folders]
    while len({path[-1] for path in parts}) == 1 and all(len(path) > 2 for path in parts):
        parts = [path[:-1] for path in parts]

    def shortest(path: tuple[str, ...]) -> str:
        for length in range(1, len(path)):
            if sum(other[-length:] == path[-length:] for other in parts) == 1:
                return "/".join(path[-length:])
        return "/".join(path)

    return [shortest(path) for path in parts]


def _title(directories: Sequence[Path]) -> str:
    """ "digits / LeNet_digits, seeds 1, 2": data, net and seeds of the runs, as far as they are known."""
    records = [RunDirectory(directory).read() for directory in directories]
    tasks = list(dict.fromkeys(task_title(record) for record in records))
    seeds = sorted({record["seed"] for record in records if isinstance(record.get("seed"), int)})
    text = "; ".join(tasks) if len(tasks) < 3 else f"{len(tasks)} tasks"
    if len(seeds) > 5:
        return f"{text}, {len(seeds)} seeds"
    named = ", ".join(map(str, seeds))
    return f"{text}, seed{'s' * (len(seeds) > 1)} {named}" if seeds else text


def _curves(directory: Path) -> plots.RunCurves:
    """A run's curves: of the first test net. Its label has policy, seed, and an unusual start or status."""
    run = RunDirectory(directory)
    record = run.read()
    policy = record.get("policy_short") or record.get("policy") or "?"
    seed = f"seed {record['seed']}" if record.get("seed") is not None else ""
    status = str(record.get("status"))
    label = ", ".join(
        part for part in (str(policy), seed, _start(record), _state(run, status)) if part
    )
    tests = of_first_net(run.measurements())
    return plots.RunCurves(label, run.iterations(), tests, diverged=status == "diverged")


def _start(record: dict[str, Any]) -> str:
    """ "from weights", "from snapshot at 300"; nothing for scratch, or where it is not known."""
    start = record.get("start")
    kind = start.get("kind") if isinstance(start, dict) else None
    if kind == "weights":
        return "from weights"
    if kind == "snapshot":
        iteration = start.get("iteration") if isinstance(start, dict) else None
        return "from snapshot" if iteration is None else f"from snapshot at {iteration}"
    return ""


def _state(run: RunDirectory, status: str) -> str:
    """Nothing for a run that finished; one that says it is running while nobody holds its lock was killed."""
    if run.running:
        return "running"
    return {"finished": "", "running": "interrupted"}.get(status, status)


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
