"""The flags of tune, and the request that they make."""

from __future__ import annotations

import argparse

from lrbench_caffe.errors import ParameterError
from lrbench_caffe.terminal import cli, flags, viewer
from lrbench_caffe.terminal.study_flags import add_study_flags, study_parameters
from lrbench_caffe.terminal.tables import add_flag
from lrbench_caffe.tuning.also import RULE, parse_also
from lrbench_caffe.tuning.plan import TESTS
from lrbench_caffe.tuning.request import (
    GOALS,
    LEAST_HOLDOUT,
    MOST_HOLDOUT,
    USUAL_HOLDOUT,
    TuningRequest,
)


def add_flags(p: cli.Parser) -> None:
    """The flags that ``tuning_request`` reads, and those of the output."""
    p.add_argument("solver", metavar="SOLVER", help="the solver.prototxt")
    _add_goal(p)
    _add_cost(p)
    _add_trainings(p)
    out = p.add_argument_group("output")
    add_flag(out)
    viewer.add_flag(out)
    out.add_argument(
        "--json", action="store_true", help="print the result as JSON; progress goes to stderr"
    )


def _add_goal(p: cli.Parser) -> None:
    what = p.add_argument_group("goal")
    what.add_argument(
        "--goal", choices=GOALS, default="accuracy",
        help="accuracy: the highest Top-1 (or the best --by); cost: the fewest iterations to "
        "--target-top1 or --target (default: accuracy)",
    )  # fmt: skip
    flags.add_measure(what)
    what.add_argument(
        "--target-top1", type=float, metavar="X",
        help="a sufficient Top-1 in percent; with --goal cost, the one to reach (default: none; with cost, "
        "the best finalist's mean minus its deviation)",
    )  # fmt: skip
    what.add_argument(
        "--target", type=float, metavar="X", help="the same as a value of --by, if that is not top1"
    )
    what.add_argument(
        "--functions", default="all", metavar="NAMES",
        help="all (the paper's 13), cyclic, decaying, or comma-separated names of these LR functions "
        "(default: all)",
    )  # fmt: skip
    what.add_argument(
        "--try-first", action="append", default=[], metavar="POLICY",
        help="a whole policy, such as 'SIN2(k0=0.01, k1=0.06, l=2000)', to try before any other candidate; "
        "of any function but PLATEAU; may be repeated",
    )  # fmt: skip
    what.add_argument(
        "--lr-range", metavar="LOW,HIGH",
        help="the range of good constant LRs, instead of a range test: each candidate has its highest LR in "
        "it, and its lowest may be below it",
    )  # fmt: skip
    what.add_argument(
        "--compose", action="store_true", help="also try compositions of the best policies"
    )
    what.add_argument(
        "--also", action="append", metavar="NAME=V,V",
        help="also choose this setting from these values, besides the solver's own: batch, momentum or "
        "weight_decay; may be repeated, all combinations are candidates. Policies are moved from one to "
        f"another by rule: {RULE}. Needs pip install 'lrbench-caffe[also]'",
    )  # fmt: skip
    what.add_argument(
        "--holdout", type=float, metavar="SHARE",
        help=f"share of the training records held out to judge candidates by, {LEAST_HOLDOUT:g} to "
        f"{MOST_HOLDOUT:g}; 0: judge by the test set, as the paper does (default: "
        f"{USUAL_HOLDOUT:g} where the training data is LMDBs that can be split)",
    )  # fmt: skip
    what.add_argument(
        "--fresh", action="store_true", help="ignore earlier results in the LR database"
    )


def _add_cost(p: cli.Parser) -> None:
    cost = p.add_argument_group("cost")
    cost.add_argument(
        "--budget", metavar="N|xF",
        help="iterations that the whole tuning is meant to cost; xF: F times max_iter. The range test, known "
        "policies, the finalists and the solver's own policy are not cut short, and the search has a quarter "
        "of it at least (default: 15 %% of training all candidates in full)",
    )  # fmt: skip
    cost.add_argument(
        "--top", type=int, default=2, metavar="N", help="number of finalists (default: 2)"
    )
    cost.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="trainings of each finalist (default: 3)"
    )
    cost.add_argument("--seed", type=int, default=1, metavar="N", help="first seed (default: 1)")


def _add_trainings(p: cli.Parser) -> None:
    run = p.add_argument_group("trainings")
    run.add_argument(
        "--max-iter",
        type=int,
        metavar="N",
        help="iterations of a training (default: the solver's max_iter)",
    )
    run.add_argument(
        "--test-interval", type=int, metavar="N",
        help=f"iterations between tests (default: the solver's, but at least {TESTS} tests)",
    )  # fmt: skip
    run.add_argument(
        "--out",
        type=flags.place,
        metavar="DIR",
        help="directory of the study; an existing study is continued (default: runs/tune-SOLVER, or "
        "runs/tune-SOLVER-DIGEST if another solver of that name uses it)",
    )
    run.add_argument(
        "--reuse", action="append", default=[], type=flags.path, metavar="DIR",
        help="folder of an earlier study or run: trainings that have ended there, and are the same in "
        "everything, are copied instead of made again; may be repeated",
    )  # fmt: skip
    add_study_flags(p, run)


def _range(text: str) -> list[float]:
    """The numbers of "LOW,HIGH"."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ParameterError("{lr_range}: {0!r}; allowed: LOW,HIGH", text) from error


def tuning_request(args: argparse.Namespace) -> TuningRequest:
    """The request that the flags of ``add_flags`` make."""
    return TuningRequest(
        **study_parameters(args),
        goal=args.goal,
        target_top1=args.target_top1,
        target=args.target,
        functions=args.functions,
        try_first=args.try_first,
        lr_range=None if args.lr_range is None else _range(args.lr_range),
        compose=args.compose,
        fresh=args.fresh,
        budget=args.budget,
        top=args.top,
        seeds=args.seeds,
        max_iter=args.max_iter,
        holdout=args.holdout,
        also=parse_also(args.also),
        reuse=args.reuse,
    )
