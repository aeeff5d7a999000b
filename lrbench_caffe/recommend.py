"""Propose LR policies for a solver, from results on the same task or similar ones.

python -m lrbench_caffe.recommend solvers/lenet_mnist_solver.prototxt
python -m lrbench_caffe.recommend solvers/lenet_digits_solver.prototxt --functions sin2,triexp --top 2

Each proposal comes with its evidence: the results behind it, the similarity of their task, and the
adaptations. See docs/recommending.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from lrbench_caffe.knowledge.exporting import recommendation_json
from lrbench_caffe.knowledge.proposing import TOP
from lrbench_caffe.terminal import cli, flags
from lrbench_caffe.terminal.console import Console
from lrbench_caffe.terminal.database import open_at_terminal
from lrbench_caffe.terminal.recommendation_text import lines, train_command
from lrbench_caffe.training.recommending import RecommendationRequest, carry_out


def parser() -> cli.Parser:
    p = cli.Parser(prog="python -m lrbench_caffe.recommend", description=__doc__)
    p.add_argument("solver", metavar="SOLVER", help="the solver.prototxt")
    p.add_argument(
        "--top",
        type=int,
        metavar="N",
        help=f"number of proposals (default: {TOP}, or one for each of --functions)",
    )
    p.add_argument(
        "--functions",
        type=flags.names,
        default=(),
        metavar="NAMES",
        help="comma-separated LR functions; each is proposed if possible (default: any)",
    )
    flags.add_contributors(p)
    p.add_argument(
        "--max-iter", type=int, metavar="N", help="length of the training (default: the solver's)"
    )
    start = p.add_argument_group("start of the training (default: random weights)")
    flags.add_start(start)
    start.add_argument("--snapshot", metavar="FILE", help="a .solverstate to start from")
    by = p.add_argument_group("comparison")
    by.add_argument(
        "--by", "--metric", dest="by", metavar="NAME",
        help="output of the test net to compare by (default: top1; test_loss if the net does not classify)",
    )  # fmt: skip
    flags.add_direction(by, "that output")
    flags.add_head(p)
    p.add_argument("--json", action="store_true", help="print JSON")
    flags.add_database(p)
    flags.add_caffe_python(p)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args: argparse.Namespace = parser().parse_args(argv)
    request = RecommendationRequest(
        Path(args.solver),
        max_iter=args.max_iter,
        functions=args.functions,
        by=args.by,
        higher=flags.chosen_direction(args),
        top=args.top,
        snapshot=args.snapshot,
        weights=args.weights,
        level=args.level,
        stages=None if args.stage is None else tuple(args.stage),
        head=args.head,
        caffe_python=args.caffe_python,
        contributors=args.contributors,
    )
    recommended = carry_out(request, lambda: open_at_terminal(args.db))
    wanted, recommendation = recommended.wanted, recommended.recommendation
    if args.json:
        print(
            json.dumps(recommendation_json(wanted, recommendation, recommended.max_iter), indent=2)
        )
        return 0 if recommendation.proposals else 1
    console = Console()
    for line in lines(recommended, train_command(args)):
        console.say(line)
    return 0 if recommendation.proposals else 1


if __name__ == "__main__":
    sys.exit(cli.run(main))
