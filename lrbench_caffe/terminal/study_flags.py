"""The flags of the commands that train many times: each is declared here once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lrbench_caffe.terminal import cli, flags


def add_study_flags(p: cli.Parser, run: argparse._ArgumentGroup) -> None:
    """Add the flags about a study's trainings, and where they run.

    Args:
        run: the command's own group for trainings, which has its --out.
    """
    flags.add_start(p.add_argument_group("start of the trainings (default: random weights)"))
    flags.add_hang_timeout(run)
    flags.add_layers(run)
    flags.add_database(run)
    flags.add_no_database(run)
    flags.add_head(run)
    flags.add_trust_data(run)
    flags.add_caffe_python(run)
    add_pool_flags(p)


def add_pool_flags(p: cli.Parser) -> None:
    where = p.add_argument_group("where to train")
    where.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="number of trainings at a time (default: one for each core; with --gpus, for each GPU)",
    )
    where.add_argument(
        "--gpus", metavar="IDS", help="comma-separated GPUs to train on, one training on each"
    )
    where.add_argument(
        "--scheduler", metavar="URL",
        help="train on a Dask cluster instead, such as tcp://host:8786 (needs the package distributed)",
    )  # fmt: skip


def study_parameters(args: argparse.Namespace) -> dict[str, Any]:
    """The parameters of a ``StudyRequest`` that the flags of ``add_study_flags`` make, and what all have."""
    return {
        "solver": Path(args.solver),
        "seed": args.seed,
        "test_interval": args.test_interval,
        "out": Path(args.out) if args.out else None,
        "by": args.by,
        "higher": flags.chosen_direction(args),
        "weights": args.weights,
        "level": args.level,
        "stages": None if args.stage is None else tuple(args.stage),
        "head": args.head,
        "trust_data": args.trust_data,
        "layers": args.layers,
        "caffe_python": args.caffe_python,
        "database": args.db,
        "no_database": args.no_db,
        "hang_seconds": args.hang_timeout,
        "jobs": args.jobs,
        "gpus": args.gpus,
        "scheduler": args.scheduler,
    }
