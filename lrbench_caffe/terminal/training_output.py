"""What train prints beside its progress: the preview of a schedule, the start of a run, its result."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from lrbench_caffe import plots
from lrbench_caffe.errors import InputError
from lrbench_caffe.lr import Policy
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.tabular import metrics_of_nets
from lrbench_caffe.terminal.console import Console
from lrbench_caffe.terminal.streams import Unbreakable
from lrbench_caffe.terminal.tables import terminal_table
from lrbench_caffe.training.request import TrainingRequest
from lrbench_caffe.training.session import Session
from lrbench_caffe.training.settings import RunSettings
from lrbench_caffe.training.trainer import TrainingOutcome


def preview(console: Console, request: TrainingRequest, settings: RunSettings) -> None:
    """Print the schedule at 21 iterations, and draw it."""
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
        console.say(
            f"{policy.pending}: the next part begins when the plateau is found, which no preview can know"
        )
    try:
        plots.save(plots.schedule_figure([policy], settings.max_iter), path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    console.say(f"plot: {path}")


def say_start(console: Console, session: Session, resumed: bool) -> None:
    settings = session.settings
    device = f"the CPU, {settings.layers} layers" if settings.gpu is None else f"GPU {settings.gpu}"
    if settings.threads > 1:
        device += f" on {settings.threads} threads"
    lines = [
        f"run directory: {session.run.path}",  # nothing else in this line: programs read it
        f"seed {settings.seed}, {device}, {settings.max_iter} iterations",
    ]
    lines += [f"note: {note}" for note in session.notes]
    if session.beginning:
        origin = session.beginning.origin.path
        lines.append(f"branched at iteration {session.first_iteration} from {origin}")
    elif session.start:
        state = session.run.snapshots / session.start.state
        lines.append(f"resumed at iteration {session.start.iteration}, from {state}")
    elif resumed:
        lines.append("the run has no snapshot yet: it starts from the beginning")
    for line in lines:
        console.say(line)


def say_result(
    console: Console,
    run: RunDirectory,
    policy: Policy,
    outcome: TrainingOutcome,
    *,
    draw: bool,
) -> int:
    """The metrics, the plot and the verdict; returns the exit code."""
    measurements = run.measurements()
    _print_metrics(console, measurements, policy)
    problem = _draw(run, policy, measurements) if draw else None
    if draw and not problem:
        console.say(f"plot: {run.plot}")
    if outcome.status == "stopped":
        console.say(
            f"stopped at iteration {outcome.iteration}; continue with: "
            f"--resume --out {shlex.quote(str(run.path))}"
        )
    errors = [outcome.reason] if outcome.status == "diverged" else []
    errors += [f"{problem}; the run is {outcome.status}"] if problem else []
    if errors:
        print(f"error: {'; '.join(filter(None, errors))}", file=Unbreakable(sys.stderr))
    return 1 if errors else 0


def _print_metrics(console: Console, measurements: list[Measurement], policy: Policy) -> None:
    tables = metrics_of_nets(measurements, policy.num_params)
    for net, rows in tables.items():
        title = f"{policy:.7g}" + (f"\nof test net #{net}" if len(tables) > 1 else "")
        console.print(terminal_table(rows, title))


def _draw(run: RunDirectory, policy: Policy, measurements: list[Measurement]) -> str | None:
    """Draw training.png; returns why that cannot be. The run is complete without it."""
    try:
        if run.plot.is_symlink():  # its target is not written to
            run.plot.unlink()
        plots.save(plots.run_figure(run, f"{policy:.7g}", measurements), run.plot)
    except OSError as error:
        return f"cannot write {run.plot}: {error.strerror or error}"
    return None
