"""Find the range of good learning rates of a solver: the LR range test.

  python -m lrbench_caffe.range solvers/lenet_digits_solver.prototxt
  python -m lrbench_caffe.range solvers/lenet_mnist_solver.prototxt --form ramp --passes 3
  python -m lrbench_caffe.range solvers/cnn3_cifar10_solver.prototxt --iterations 2000 --test-interval 500

There are two forms. The ladder is the paper's (section V-A): short trainings with constant LRs, from 0.1 by
factors of ten until Top-1 drops, then in finer steps around the good ones. The ramp is the method of LR
finders: passes in which the LR rises exponentially, evaluated by their loss; it is cheaper and rougher.
See docs/tuning.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lrbench_caffe.terminal import cli, flags
from lrbench_caffe.terminal.console import Console
from lrbench_caffe.terminal.progress import Bars
from lrbench_caffe.terminal.study_flags import add_study_flags, study_parameters
from lrbench_caffe.terminal.tuning_progress import TuningDisplay
from lrbench_caffe.terminal.tuning_tables import show_range
from lrbench_caffe.tuning.request import RangeRequest
from lrbench_caffe.tuning.running import find_range


def parser() -> cli.Parser:
    p = cli.Parser(prog="python -m lrbench_caffe.range", description=__doc__)
    p.add_argument("solver", metavar="SOLVER", help="the solver.prototxt")
    what = p.add_argument_group("test")
    what.add_argument(
        "--form",
        choices=("ladder", "ramp"),
        default="ladder",
        help="form of the test (default: ladder)",
    )
    what.add_argument(
        "--iterations", type=int, metavar="N",
        help="length of a training or of a pass (default: a tenth of max_iter; for a pass 15 %%)",
    )  # fmt: skip
    what.add_argument(
        "--passes",
        type=int,
        default=3,
        metavar="N",
        help="passes of the ramp, each with its own seed (default: 3)",
    )
    flags.add_measure(what)
    what.add_argument("--seed", type=int, default=1, metavar="N", help="first seed (default: 1)")
    what.add_argument(
        "--test-interval",
        type=int,
        metavar="N",
        help="iterations between tests of the ladder (default: the solver's; at least two tests)",
    )
    run = p.add_argument_group("trainings")
    run.add_argument(
        "--out",
        type=flags.place,
        metavar="DIR",
        help="directory of the trainings; existing ones are not repeated (default: runs/range-SOLVER, or "
        "runs/range-SOLVER-DIGEST if another solver of that name uses it)",
    )
    add_study_flags(p, run)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    request = RangeRequest(
        **study_parameters(args), form=args.form, iterations=args.iterations, passes=args.passes
    )
    console = Console(unbreakable=True)
    with TuningDisplay(console) as display:
        test = find_range(request, display, Bars(console.say))
    show_range(console, test)
    test.study.check_losses()
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
