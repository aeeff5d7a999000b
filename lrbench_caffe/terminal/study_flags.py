"""The flags of the commands that train many times: each is declared here once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lrbench_caffe.prototxt.datacheck import HELP, OPTION
from lrbench_caffe.terminal import cli
from lrbench_caffe.terminal.training_flags import add_hang_timeout


def add_study_flags(p: cli.Parser, run: argparse._ArgumentGroup) -> None:
    """What every training of a study is told, and where they are made.

    Args:
        run: the command's own group for trainings, which has its --out.
    """
    add_hang_timeout(run)
    run.add_argument(
        "--layers",
        choices=("auto", "fast", "stock"),
        default="auto",
        help="CPU layers (default: auto)",
    )
    run.add_argument(
        "--db", metavar="URL", help="the LR database (default: LRBENCH_DB, else the embedded one)"
    )
    run.add_argument(
        "--no-db", action="store_true", help="neither read the LR database nor record in it"
    )
    run.add_argument(
        "--head", metavar="NAME", help="the scores blob that Top-1 is measured on, as in training"
    )
    run.add_argument(OPTION, action="store_true", help=HELP)
    run.add_argument("--caffe-python", metavar="FILE", help="the Python that can import caffe")
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
