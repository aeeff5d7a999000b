"""Find a good LR policy for a solver: range test, candidates, search, repeats of the best, ranking.

  python -m lrbench_caffe.tune solvers/lenet_digits_solver.prototxt
  python -m lrbench_caffe.tune solvers/lenet_mnist_solver.prototxt --functions cyclic --jobs 2 --seeds 3
  python -m lrbench_caffe.tune solvers/lenet_mnist_solver.prototxt --goal cost --target-top1 99
  python -m lrbench_caffe.tune solvers/cnn3_cifar10_solver.prototxt --scheduler tcp://host:8786

Policies that the LR database knows for this task or similar ones are tried first. Short trainings find the
range of good LRs, unless results on this very task or --lr-range tell it. Candidates from the paper's
heuristics are trained as far as they are worth it, each from its own snapshot on. The best of them, and the
solver's own policy, are then trained with all seeds, on all training records, and compared. The command can
be killed at any time; the same command continues. See docs/tuning.md.

Exit codes: 0: a policy is recommended; 3: none is better than the solver's own beyond noise; 2: bad input;
1: nothing could be trained, or a training was lost, which could have changed the decision; 130: interrupted.
After 1 and 130 the same command goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lrbench_caffe.terminal import cli
from lrbench_caffe.terminal.console import Console
from lrbench_caffe.terminal.progress import Bars
from lrbench_caffe.terminal.tables import ALL, chosen
from lrbench_caffe.terminal.tuning_flags import add_flags, tuning_request
from lrbench_caffe.terminal.tuning_progress import TuningDisplay
from lrbench_caffe.terminal.tuning_tables import finalist_layout, show_tuning
from lrbench_caffe.terminal.viewer import check_installed, viewing
from lrbench_caffe.tuning.running import NothingTrained, carry_out, prepare_tuning


def parser() -> cli.Parser:
    p = cli.Parser(prog="python -m lrbench_caffe.tune", description=__doc__)
    add_flags(p)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    request = tuning_request(args)
    console = Console(stderr=args.json, unbreakable=True)
    if args.web:
        check_installed()
    prepared = prepare_tuning(request, Bars(console.say))
    if args.columns is not None and args.columns != ALL:
        chosen(args.columns, finalist_layout(prepared.plan))  # not when hours of training are over
    page = viewing(args.web, prepared.folder.parent, "/tunings", request.database, console.say)
    with page, TuningDisplay(console) as display:
        try:
            tuning = carry_out(prepared, display)
        except NothingTrained as error:
            if args.json:
                _print_file(error.result)
            raise
    if args.json:
        _print_file(tuning.report.with_name("result.json"))
    else:
        show_tuning(console, tuning, args.columns)
    tuning.study.check_losses()
    return tuning.verdict.exit_code


def _print_file(path: Path) -> None:
    print(path.read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    sys.exit(cli.run(main))
