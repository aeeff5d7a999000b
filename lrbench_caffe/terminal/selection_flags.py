"""The flags of the commands that select policies of the LR database, as a query."""

from __future__ import annotations

import argparse
from pathlib import Path

from lrbench_caffe.knowledge.criteria import CRITERIA
from lrbench_caffe.knowledge.selection import Query
from lrbench_caffe.records import SOURCES, STARTS
from lrbench_caffe.terminal import flags


def add_flags(p: argparse.ArgumentParser) -> None:
    """The flags that ``selection_query`` reads."""
    _add_which(p)
    _add_order(p)
    flags.add_database(p)
    flags.add_head(p, ", for SOLVER")
    flags.add_caffe_python(p, ", for SOLVER")


def _add_which(p: argparse.ArgumentParser) -> None:
    which = p.add_argument_group("which policies")
    which.add_argument(
        "solver", nargs="?", metavar="SOLVER", help="the task that this solver trains"
    )
    which.add_argument(
        "--task",
        metavar="NAME",
        help="a task of the database: its number, or DATASET/NETWORK or part of it",
    )
    which.add_argument(
        "--functions", metavar="NAMES", help="comma-separated LR functions (default: all)"
    )
    which.add_argument(
        "--source", metavar="NAMES", help=f"comma-separated: {', '.join(SOURCES)} (default: all)"
    )
    which.add_argument(
        "--start", metavar="KINDS",
        help=f"comma-separated starts of the trainings: {', '.join(STARTS)} (default: all)",
    )  # fmt: skip
    which.add_argument(
        "--max-iter",
        type=int,
        metavar="N",
        help="only trainings of N iterations (default: any length)",
    )


def _add_order(p: argparse.ArgumentParser) -> None:
    order = p.add_argument_group("order")
    order.add_argument(
        "--by", "--metric", dest="by", metavar="CRITERIA",
        help=f"comma-separated, the first counts most: {', '.join(CRITERIA)}, or the name of any output "
        "of the test net (default: top1; test_loss for nets that do not classify)",
    )  # fmt: skip
    flags.add_direction(order, "the net's own outputs")
    order.add_argument(
        "--weights",
        metavar="NAME=W,...",
        help="order by a weighted mean of normalised criteria instead",
    )
    order.add_argument(
        "--target-top1",
        type=float,
        metavar="X",
        help="show the iterations to reach a Top-1 of X percent",
    )
    order.add_argument(
        "--top",
        type=int,
        default=10,
        metavar="N",
        help="show N policies of each start; 0: all (default: 10)",
    )
    order.add_argument(
        "--pareto", action="store_true",
        help="show the policies that none dominates in Top-1 and cost (--by COST; default: iterations)",
    )  # fmt: skip


def selection_query(args: argparse.Namespace) -> Query:
    """The query that the flags of ``add_flags`` make.

    Raises:
        ParameterError: they do not go together, or a value is not allowed.
    """
    return Query(
        solver=Path(args.solver) if args.solver else None,
        task=args.task,
        head=args.head,
        caffe_python=args.caffe_python,
        functions=_names(args.functions),
        sources=_names(args.source),
        starts=_names(args.start),
        max_iter=args.max_iter,
        by=args.by,
        weights=args.weights,
        higher=flags.chosen_direction(args),
        target_top1=args.target_top1,
        top=args.top,
        pareto=args.pareto,
    )


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip().lower() for part in (text or "").split(",") if part.strip())
