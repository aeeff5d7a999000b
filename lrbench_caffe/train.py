"""Train a network with Caffe under an LR policy, and measure the policy.

A replacement for `caffe train`: the same flags in both spellings (-solver x, --solver=x), the same effects
of signals, the same snapshots. It adds any LR policy, and the eight metrics at every test.

  python -m lrbench_caffe.train solver.prototxt --lr sin2
  python -m lrbench_caffe.train solver.prototxt --lr "SIN2(k0=0.01, k1=0.06, l=2000)" --seed 1
  python -m lrbench_caffe.train solver.prototxt --lr "FIX(k0=0.1) ; 20000: SINEXP(k0=0.0001, k1=0.9, \
gamma=0.99994, l=2000)"
  python -m lrbench_caffe.train solver.prototxt                  (the solver's own lr_policy)
  python -m lrbench_caffe.train solver.prototxt --resume         (continue from the newest snapshot)
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import os
import sys
from collections.abc import Sequence
from typing import TextIO, cast

from lrbench_caffe.terminal.early import start_ahead

_ahead = None
if __name__ == "__main__":
    _ahead = start_ahead(sys.argv[1:])  # Caffe takes as long to load as the rest of this
    gc.disable()  # looking for garbage among new modules takes a tenth of the time

from lrbench_caffe import plots
from lrbench_caffe.runs.layout import page_key
from lrbench_caffe.runtime.processes import ProcessSource
from lrbench_caffe.terminal import cli
from lrbench_caffe.terminal.console import Console
from lrbench_caffe.terminal.logfollower import LogFollower
from lrbench_caffe.terminal.progress import Bars
from lrbench_caffe.terminal.streams import WithoutBlankLines, unescaped
from lrbench_caffe.terminal.training_flags import add_flags, training_request, without_ignored_flags
from lrbench_caffe.terminal.training_output import preview, say_result, say_start
from lrbench_caffe.terminal.training_progress import ProgressDisplay
from lrbench_caffe.terminal.viewer import check_installed, viewing
from lrbench_caffe.training.observer import Observer
from lrbench_caffe.training.preparing import prepare
from lrbench_caffe.training.request import TrainingRequest
from lrbench_caffe.training.running import begin
from lrbench_caffe.training.session import Session
from lrbench_caffe.training.signals import Signals
from lrbench_caffe.training.trainer import TrainingOutcome


def parser() -> cli.Parser:
    """The command line. Caffe's own flags take one dash or two, as gflags has it."""
    p = cli.Parser(prog="python -m lrbench_caffe.train", description=__doc__)
    add_flags(p)
    return p


def main(argv: Sequence[str] | None = None, source: ProcessSource | None = None) -> int:
    """Train.

    Args:
        argv: the command's arguments.
        source: has processes for the worker that have loaded Caffe.
    """
    arguments, dropped = without_ignored_flags(sys.argv[1:] if argv is None else argv)
    args = parser().parse_args(arguments)
    # Caffe's parse_log.py, which reads both streams when they go into one file, fails on a blank
    # line.
    if args.log_to_stderr:
        console = Console(cast(TextIO, WithoutBlankLines(unescaped(sys.stdout))))
    else:
        console = Console(unbreakable=True)

    if dropped:
        console.say(
            f"note: {' '.join(dropped)}: ignored; Caffe's log is caffe.log in the run directory"
        )
    request = training_request(args)
    if args.web:
        check_installed()
    prepared = prepare(request, Bars(console.say))
    if request.preview:
        preview(console, request, prepared.settings)
        return 0
    with begin(prepared, console.say) as session:
        session.source = source
        run = session.run.path
        with viewing(args.web, run.parent, f"/live/{page_key(run)}", request.database, console.say):
            return _train(args, console, request, session)


def _train(
    args: argparse.Namespace, console: Console, request: TrainingRequest, session: Session
) -> int:
    say_start(console, session, request.resume)
    whole = session.monitor.until == session.monitor.max_iter
    with plots.warm_up() if whole else contextlib.nullcontext():
        outcome = _run_session(args, console, request, session)
    return say_result(console, session.run, session.monitor.policy, outcome, draw=whole)


def _run_session(
    args: argparse.Namespace, console: Console, request: TrainingRequest, session: Session
) -> TrainingOutcome:
    start = session.first_iteration
    log = LogFollower(session.run.log) if args.log_to_stderr else contextlib.nullcontext()
    with log, ProgressDisplay(console, start, session.settings.max_iter) as display:
        observers: list[Observer] = [display]
        if session.settings.trains and not request.no_database:
            from lrbench_caffe.training.recorder import Recorder

            recorder = Recorder(request.database, session.run, session.describe, display.note)
            observers.append(recorder)
        return session.train(
            observers,
            Signals(args.sigint_effect, args.sighup_effect),
            hang_seconds=request.hang_seconds,
            checkpoint_seconds=60 * request.checkpoint_minutes,
        )


if __name__ == "__main__":
    gc.freeze()
    gc.enable()
    code = cli.run(functools.partial(main, source=_ahead))
    if _ahead is not None:
        _ahead.close()
    # Python's own end takes a tenth of a second with these libraries; stdout is written.
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(code)
