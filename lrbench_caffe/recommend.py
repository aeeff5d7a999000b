"""Propose LR policies for a solver, from what is known of the same task or similar ones.

python -m lrbench_caffe.recommend solvers/lenet_mnist_solver.prototxt
python -m lrbench_caffe.recommend solvers/lenet_digits_solver.prototxt --functions sin2,triexp --top 2

Each proposal says what it rests on: which results, how similar their task is, and what was adapted. See
docs/recommending.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from lrbench_caffe import cli
from lrbench_caffe.database.terminal import open_at_terminal
from lrbench_caffe.errors import InputError
from lrbench_caffe.recommendation import Recommendation, recommend
from lrbench_caffe.records import Task
from lrbench_caffe.task import open_task, solver_settings


def parser() -> cli.Parser:
    p = cli.Parser(prog="python -m lrbench_caffe.recommend", description=__doc__)
    p.add_argument("solver", metavar="SOLVER", help="the solver.prototxt")
    p.add_argument("--top", type=int, default=3, metavar="N", help="number of proposals (default: 3)")
    p.add_argument(
        "--functions", metavar="NAMES", help="LR functions to choose from, by commas (default: all)"
    )
    p.add_argument(
        "--max-iter", type=int, metavar="N", help="for a training of this length (default: the solver's)"
    )
    p.add_argument("--db", metavar="URL", help="the LR database (default: LRBENCH_DB, else the embedded one)")
    p.add_argument("--caffe-python", metavar="FILE", help="the Python that can import caffe")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args: argparse.Namespace = parser().parse_args(argv)
    if args.max_iter is not None and args.max_iter < 1:
        raise InputError(f"--max-iter: {args.max_iter}; allowed: 1 or more")
    functions = [name.strip() for name in (args.functions or "").split(",") if name.strip()] or None
    solver, task = open_task(Path(args.solver), args.caffe_python)
    with open_at_terminal(args.db) as database:
        recommendation = recommend(
            database,
            task,
            solver=solver_settings(solver),
            max_iter=args.max_iter or solver.message.max_iter,
            epoch=solver.epoch,
            functions=functions,
            top=args.top,
        )
    console = Console()
    for line in lines(args.solver, task, recommendation, args.max_iter):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return 0 if recommendation.proposals else 1


def lines(solver: str, task: Task, recommendation: Recommendation, max_iter: int | None = None) -> list[str]:
    """A recommendation for the terminal.

    Args:
        max_iter: the length that was asked for; None for the solver's own.
    """
    text = [f"task: {task.title} ({_form(task)})", _known(recommendation)]
    text += recommendation.remarks
    if recommendation.similar:
        text.append("similar: " + ", ".join(f"{t.title} ({s:.2f})" for t, s in recommendation.similar))
    if not recommendation.proposals:
        text.append("nothing to propose: no finished run on this or a similar task")
    for place, proposal in enumerate(recommendation.proposals, 1):
        text += ["", f"{place}. {proposal.policy:.7g}", *(f"   {line}" for line in proposal.evidence)]
    if recommendation.proposals:
        command = f'python -m lrbench_caffe.train {solver} --lr "{recommendation.proposals[0].policy}"'
        text += ["", command + (f" --max-iter {max_iter}" if max_iter else "")]
    return text


def _known(recommendation: Recommendation) -> str:
    compared = recommendation.compared
    diverged = f", and {recommendation.diverged} that only diverged" * bool(recommendation.diverged)
    if not compared:
        return f"in the database: no result on this task{diverged}; proposals are from the most similar one"
    policies = "1 policy" if compared == 1 else f"{compared} policies"
    return f"in the database: {policies} on this task{diverged}"


def _form(task: Task) -> str:
    data, network = task.dataset, task.network
    shape = " x ".join(str(n or "?") for n in (data.channels, data.height, data.width))
    return (
        f"{shape}, {data.classes or '?'} classes, {data.train_samples or '?'} training samples; "
        f"{network.parameters or '?'} parameters, depth {network.depth}"
    )


if __name__ == "__main__":
    sys.exit(cli.run(main))
