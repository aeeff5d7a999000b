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
import shlex
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TextIO, cast

from lrbench_caffe import plots
from lrbench_caffe.errors import InputError
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.runs.runjson import task_title
from lrbench_caffe.tabular import metrics_rows
from lrbench_caffe.terminal import cli
from lrbench_caffe.terminal.console import Console
from lrbench_caffe.terminal.logfollower import LogFollower
from lrbench_caffe.terminal.progress import Bars
from lrbench_caffe.terminal.streams import Unbreakable, WithoutBlankLines, unescaped
from lrbench_caffe.terminal.tables import terminal_table
from lrbench_caffe.terminal.training_flags import add_flags, training_request, without_ignored_flags
from lrbench_caffe.terminal.training_progress import ProgressDisplay
from lrbench_caffe.training.monitor import ScheduleMonitor
from lrbench_caffe.training.observer import Observer
from lrbench_caffe.training.preparing import prepare
from lrbench_caffe.training.recorder import Recorder
from lrbench_caffe.training.request import TrainingRequest
from lrbench_caffe.training.running import begin
from lrbench_caffe.training.session import Session
from lrbench_caffe.training.settings import RunSettings
from lrbench_caffe.training.signals import Signals
from lrbench_caffe.training.trainer import TrainingOutcome


def parser() -> cli.Parser:
    """The command line. Caffe's own flags take one dash or two, as gflags has it."""
    p = cli.Parser(prog="python -m lrbench_caffe.train", description=__doc__)
    add_flags(p)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    arguments, dropped = without_ignored_flags(sys.argv[1:] if argv is None else argv)
    args = parser().parse_args(arguments)
    # Caffe's parse_log.py, which reads both streams when they go into one file, fails on a blank
    # line.
    if args.log_to_stderr:
        console = Console(cast(TextIO, WithoutBlankLines(unescaped(sys.stdout))))
    else:
        console = Console(unbreakable=True)

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    if dropped:
        say(f"note: {' '.join(dropped)}: ignored; Caffe's log is caffe.log in the run directory")
    request = training_request(args)
    prepared = prepare(request, Bars(say))
    if request.preview:
        return _preview(console, request, prepared.settings)
    with begin(prepared, say) as session:
        return _train(args, console, request, session)


def _preview(console: Console, request: TrainingRequest, settings: RunSettings) -> int:
    policy = settings.bound_policy()
    # With --resume, --out is the run.
    named = None if request.resume or not request.out else str(request.out)
    path = plots.plot_file(
        "--out", named or f"{Path(settings.solver).stem}-{policy.functions[0]}.png"
    )
    marks = sorted({round(i * (settings.max_iter - 1) / 20) for i in range(21)})
    rows = [["iteration", "LR"], *([str(t), f"{policy(t):.6g}"] for t in marks)]
    console.print(terminal_table(rows))
    if policy.pending:
        console.print(
            f"{policy.pending}: the next part begins when the plateau is found, which no preview can know",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
    try:
        plots.save(plots.schedule_figure([policy], settings.max_iter), path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    console.print(f"plot: {path}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _train(
    args: argparse.Namespace, console: Console, request: TrainingRequest, session: Session
) -> int:
    _say_start(console, session, request.resume)
    whole = session.monitor.until == session.monitor.max_iter
    with plots.warm_up() if whole else nullcontext():
        outcome = _run_session(args, console, request, session)
    return _finish(console, session.run, session.monitor, outcome, draw=whole)


def _run_session(
    args: argparse.Namespace, console: Console, request: TrainingRequest, session: Session
) -> TrainingOutcome:
    start = session.start.iteration if session.start else 0
    log = LogFollower(session.run.log) if args.log_to_stderr else nullcontext()
    with log, ProgressDisplay(console, start, session.settings.max_iter) as display:
        observers: list[Observer] = [display]
        if (
            not request.no_database and session.settings.trains
        ):  # else there is no training to record
            observers.append(
                Recorder(request.database, session.run, session.describe, display.note)
            )
        return session.train(
            observers,
            Signals(args.sigint_effect, args.sighup_effect),
            hang_seconds=request.hang_seconds,
            checkpoint_seconds=60 * request.checkpoint_minutes,
        )


def _say_start(console: Console, session: Session, resumed: bool) -> None:
    settings = session.settings
    device = f"the CPU, {settings.layers} layers" if settings.gpu is None else f"GPU {settings.gpu}"
    if settings.threads > 1:
        device += f" on {settings.threads} threads"
    lines = [
        f"run directory: {session.run.path}",  # nothing else in this line: programs read it
        f"seed {settings.seed}, {device}, {settings.max_iter} iterations",
    ]
    lines += [f"note: {note}" for note in session.notes]
    if session.start:
        state = session.run.snapshots / session.start.state
        lines.append(f"resumed at iteration {session.start.iteration}, from {state}")
    elif resumed:
        lines.append("the run has no snapshot yet: it starts from the beginning")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _finish(
    console: Console,
    run: RunDirectory,
    monitor: ScheduleMonitor,
    outcome: TrainingOutcome,
    draw: bool,
) -> int:
    """The table, the plot and the verdict."""
    measurements = run.measurements()
    nets = sorted({m.net for m in measurements})
    for net in nets:
        title = f"{monitor.policy:.7g}" + (f"\nof test net #{net}" if len(nets) > 1 else "")
        rows = metrics_rows([m for m in measurements if m.net == net], monitor.policy.num_params)
        console.print(terminal_table(rows, title))
    problem = None
    if draw:
        decisions = [row["iteration"] for row in run.rows("decisions.jsonl")]
        record = run.read()
        seed = "" if record.get("seed") is None else f", seed {record['seed']}"
        title = f"{monitor.policy:.7g}\n{task_title(record)}{seed}"
        problem = _draw(run, title, measurements, decisions)
        if not problem:
            console.print(f"plot: {run.plot}", highlight=False, markup=False, soft_wrap=True)
    if outcome.status == "stopped":
        console.print(
            f"stopped at iteration {outcome.iteration}; continue with: "
            f"--resume --out {shlex.quote(str(run.path))}",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
    errors = [outcome.reason] if outcome.status == "diverged" else []
    errors += [f"{problem}; the run is {outcome.status}"] if problem else []
    if errors:
        print(f"error: {'; '.join(filter(None, errors))}", file=Unbreakable(sys.stderr))
    return 1 if errors else 0


def _draw(
    run: RunDirectory, title: str, measurements: list[Measurement], decisions: list[int]
) -> str | None:
    """Draw training.png; returns why that cannot be. The run is complete without it."""
    try:
        if run.plot.is_symlink():  # its target is not written to
            run.plot.unlink()
        plots.save(
            plots.training_figure(title, run.iterations(), measurements, decisions), run.plot
        )
    except OSError as error:
        return f"cannot write {run.plot}: {error.strerror or error}"
    return None


if __name__ == "__main__":
    sys.exit(cli.run(main))
