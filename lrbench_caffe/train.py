"""Train a network with Caffe, its learning rate taken from an LR policy, and measure the policy.

A drop-in for `caffe train`: the same flags in both spellings (-solver x, --solver=x), the same effects of
signals, the same snapshots. What it adds: any LR policy, and the eight metrics of every test.

  python -m lrbench_caffe.train solver.prototxt --lr sin2
  python -m lrbench_caffe.train solver.prototxt --lr "SIN2(k0=0.01, k1=0.06, l=2000)" --seed 1
  python -m lrbench_caffe.train solver.prototxt --lr "FIX(k0=0.1) ; 20000: SINEXP(k0=0.0001, k1=0.9, \
gamma=0.99994, l=2000)"
  python -m lrbench_caffe.train solver.prototxt                  (the solver's own lr_policy)
  python -m lrbench_caffe.train solver.prototxt --resume         (go on from the newest snapshot)
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from lrbench_caffe import cli, plots
from lrbench_caffe.errors import InputError
from lrbench_caffe.lr import describe_functions, parse
from lrbench_caffe.prototxt.messages import Messages
from lrbench_caffe.prototxt.solver import ADAPTIVE, Solver, load_solver
from lrbench_caffe.report import metrics_rows, terminal_table
from lrbench_caffe.runtime.client import HANG_SECONDS, CaffeInfo
from lrbench_caffe.runtime.info import caffe_info
from lrbench_caffe.runtime.locate import CaffePython, find_caffe_python
from lrbench_caffe.training.monitor import ScheduleMonitor
from lrbench_caffe.training.progress import ProgressDisplay
from lrbench_caffe.training.rundir import RunDirectory, find_newest
from lrbench_caffe.training.session import Session
from lrbench_caffe.training.settings import (
    RunSettings,
    check_weights,
    choose_gpu,
    choose_policy,
    choose_seed,
)
from lrbench_caffe.training.signals import EFFECTS, Signals
from lrbench_caffe.training.snapshots import state_iteration
from lrbench_caffe.training.trainer import Outcome

RUNS = Path("runs")


def parser() -> cli.Parser:
    """The command line. Caffe's own flags take one dash or two, as gflags has it."""
    functions = ", ".join(row.name for row in describe_functions())
    p = cli.Parser(prog="python -m lrbench_caffe.train", description=__doc__)
    p.add_argument("solver_file", nargs="?", metavar="SOLVER", help="the solver.prototxt")
    caffe = p.add_argument_group("as in caffe train")
    caffe.add_argument("-solver", "--solver", metavar="FILE", help="the solver.prototxt, as a flag")
    caffe.add_argument(
        "-gpu", "--gpu", metavar="ID", help="train on this GPU (default: the solver's mode, else the CPU)"
    )
    caffe.add_argument("-snapshot", "--snapshot", metavar="FILE", help="a .solverstate to start from")
    caffe.add_argument("-weights", "--weights", metavar="FILES", help="caffemodels to start from, by commas")
    caffe.add_argument("-level", "--level", type=int, default=0, help="level of the training net")
    caffe.add_argument(
        "-stage", "--stage", default="", metavar="NAMES", help="stages of the training net, by commas"
    )
    for name, default in (("sigint", "stop"), ("sighup", "snapshot")):
        flag = f"{name}_effect"
        caffe.add_argument(
            f"-{flag}", f"--{flag}", f"--{name}-effect", choices=EFFECTS, default=default,
            help=f"what {name.upper()} does (default: {default})",
        )  # fmt: skip
    lr = p.add_argument_group("learning rate", f"functions: {functions}")
    lr.add_argument(
        "--lr", metavar="POLICY", help="a function's name, a policy, or a composition of policies"
    )
    lr.add_argument("--k0", metavar="LR", help="the policy's first bound")
    lr.add_argument("--k1", metavar="LR", help="its second bound")
    lr.add_argument("--gamma", help="its decay factor")
    lr.add_argument("--p", help="its power")
    lr.add_argument("--l", metavar="ITERATIONS", help="its step: half a cycle, or iterations between decays")
    lr.add_argument("--preview", action="store_true", help="print and plot the schedule, do not train")
    run = p.add_argument_group("run")
    run.add_argument(
        "--max-iter", type=int, metavar="N", help="train this long instead of the solver's max_iter"
    )
    run.add_argument("--test-interval", type=int, metavar="N", help="test this often instead of the solver's")
    run.add_argument(
        "--seed", type=int, metavar="N", help="random seed (default: the solver's, else a new one)"
    )
    run.add_argument("--out", metavar="DIR", help=f"the run directory (default: a new one in {RUNS}/)")
    run.add_argument(
        "--resume", action="store_true", help="go on with --out DIR, else with this solver's newest run"
    )
    run.add_argument(
        "--checkpoint-minutes", type=float, default=10.0, metavar="M",
        help="make a snapshot of one's own against a kill this often; 0: never (default: 10)",
    )  # fmt: skip
    run.add_argument(
        "--hang-timeout", type=float, default=HANG_SECONDS, metavar="SECONDS",
        help=f"take Caffe for hung when it is silent this long; 0: never (default: {HANG_SECONDS:g})",
    )  # fmt: skip
    run.add_argument("--caffe-python", metavar="FILE", help="the Python that can import caffe")
    run.add_argument(
        "--set-lr-by", choices=("auto", "base_lr", "gradients"), default="auto",
        help="how Caffe gets the LR: base_lr, or for Caffe 1.0 scaled gradients (default: what it can)",
    )  # fmt: skip
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    console = Console(stderr=False)
    python = find_caffe_python(args.caffe_python)
    info = caffe_info(python)
    resumed = _run_to_resume(args)
    settings, solver, messages = _prepare(args, console, info, resumed)
    if args.preview:
        return _preview(args, console, settings)
    return _train(args, console, python, settings, solver, messages, resumed)


# -- before -----------------------------------------------------------------------------------------


def _solver_path(args: argparse.Namespace, resumed: RunDirectory | None) -> Path:
    if args.solver and args.solver_file and args.solver != args.solver_file:
        raise InputError(f"two solvers: {args.solver_file} and --solver {args.solver}; allowed: one")
    name = args.solver or args.solver_file or (resumed and resumed.read()["solver"])
    if not name:
        raise InputError("no solver given: python -m lrbench_caffe.train SOLVER (see --help)")
    return Path(name)


def _run_to_resume(args: argparse.Namespace) -> RunDirectory | None:
    if not args.resume:
        return None
    for flag in ("snapshot", "weights"):
        if getattr(args, flag):
            raise InputError(f"--resume goes on from the run's own snapshot; --{flag} does not go with it")
    if args.out:
        run = RunDirectory(Path(args.out))
        run.read()
        return run
    return find_newest(RUNS, _solver_path(args, None))


def _prepare(
    args: argparse.Namespace, console: Console, info: CaffeInfo, resumed: RunDirectory | None
) -> tuple[RunSettings, Solver, Messages]:
    """Check everything that can be checked before Caffe starts, and say what will be done."""
    if args.snapshot and args.weights:
        raise InputError("--snapshot and --weights: allowed: one of them (a snapshot has its own weights)")
    messages = Messages(info.descriptor)
    old = RunSettings.from_json(resumed.read()) if resumed else None
    level, stages = args.level, [s for s in args.stage.split(",") if s]
    if old:
        level, stages = old.level, old.stages
    solver = load_solver(_solver_path(args, resumed), messages, info, level=level, stages=stages)
    settings = (
        _resumed_settings(args, old, solver) if old else _new_settings(args, console, solver, info, messages)
    )
    if settings.gradients and solver.type in ADAPTIVE:
        raise InputError(
            f"{solver.path}: type is {solver.type!r}; --set-lr-by gradients serves SGD and Nesterov only"
        )
    for remark in solver.remarks:
        console.print(f"note: {remark}", highlight=False, soft_wrap=True)
    return settings, solver, messages


def _positive(value: int | None, default: int, flag: str) -> int:
    if value is not None and value <= 0:
        raise InputError(f"{flag}: {value}; allowed: 1 or more")
    return default if value is None else value


def _new_settings(
    args: argparse.Namespace, console: Console, solver: Solver, info: CaffeInfo, messages: Messages
) -> RunSettings:
    max_iter = _positive(args.max_iter, solver.message.max_iter, "--max-iter")
    flags = {name: getattr(args, name) for name in ("k0", "k1", "gamma", "p", "l")}
    chosen = choose_policy(args.lr, flags, solver, max_iter)
    gradients = args.set_lr_by == "gradients" or not info.writable_base_lr
    if args.set_lr_by == "base_lr" and not info.writable_base_lr:
        raise InputError(f"--set-lr-by base_lr: this Caffe ({info.caffe}) cannot set it from Python")
    if args.snapshot:
        start = state_iteration(Path(args.snapshot), messages)
        if start is not None and start >= max_iter:
            raise InputError(f"--snapshot: {args.snapshot} is at iteration {start}; max_iter is {max_iter}")
    settings = RunSettings(
        solver=str(solver.path),
        policy=str(chosen.policy),
        policy_from=chosen.origin,
        seed=choose_seed(args.seed, solver),
        max_iter=max_iter,
        test_interval=_positive(args.test_interval, solver.message.test_interval, "--test-interval")
        if solver.tests
        else 0,
        snapshot_interval=solver.message.snapshot,
        gpu=choose_gpu(args.gpu, solver, info),
        level=args.level,
        stages=[s for s in args.stage.split(",") if s],
        snapshot=args.snapshot,
        weights=check_weights(args.weights, solver, messages) if not args.snapshot else [],
        gradients=gradients,
    )
    console.print(f"LR policy: {chosen.policy:.7g} (from {chosen.origin})", highlight=False, soft_wrap=True)
    for filled in chosen.filled:
        value = list(filled.value) if isinstance(filled.value, tuple) else filled.value
        console.print(
            f"  {filled.parameter} = {value}: {filled.rule}", highlight=False, markup=False, soft_wrap=True
        )
    return settings


def _resumed_settings(args: argparse.Namespace, old: RunSettings, solver: Solver) -> RunSettings:
    """The run's own settings; a flag may repeat them, and may only make the run longer."""
    if args.lr is not None:
        flags = {name: getattr(args, name) for name in ("k0", "k1", "gamma", "p", "l")}
        text = str(choose_policy(args.lr, flags, solver, old.max_iter).policy)
        if text != old.policy:
            raise InputError(
                f"--resume: the run's policy is {old.policy}, not {text}; allowed: the same, or no --lr"
            )
    if args.seed is not None and args.seed != old.seed:
        raise InputError(
            f"--resume: the run's seed is {old.seed}, not {args.seed}; allowed: the same, or no --seed"
        )
    if args.max_iter is not None and args.max_iter != old.max_iter:
        if parse(old.policy, strict=False).needs_max_iter:
            raise InputError(f"--resume: the run's policy {old.policy} ends at its max_iter, {old.max_iter}")
        old.max_iter = _positive(args.max_iter, old.max_iter, "--max-iter")
    return old


def _preview(args: argparse.Namespace, console: Console, settings: RunSettings) -> int:
    policy = settings.bound_policy()
    marks = sorted({round(i * (settings.max_iter - 1) / 20) for i in range(21)})
    rows = [["iteration", "LR"], *([str(t), f"{policy(t):.6g}"] for t in marks)]
    console.print(terminal_table(rows))
    path = Path(args.out) if args.out else Path(f"{Path(settings.solver).stem}-{policy.functions[0]}.png")
    if path.is_dir():
        path = path / "schedule.png"
    plots.schedule_plot(path, [policy], settings.max_iter)
    console.print(f"plot: {path}", highlight=False)
    return 0


# -- the training -----------------------------------------------------------------------------------


def _train(
    args: argparse.Namespace,
    console: Console,
    python: CaffePython,
    settings: RunSettings,
    solver: Solver,
    messages: Messages,
    resumed: RunDirectory | None,
) -> int:
    run = resumed or _new_run(args, settings)
    run.lock()
    try:
        session = Session(python, messages, solver, settings, run, publish=not args.out)
        _say_start(console, session, resumed is not None)
        warm = plots.warm_up()
        start = session.start.iteration if session.start else 0
        with ProgressDisplay(console, start, settings.max_iter) as display:
            outcome = session.train(
                display,
                Signals(args.sigint_effect, args.sighup_effect),
                hang_seconds=args.hang_timeout,
                checkpoint_seconds=60 * args.checkpoint_minutes,
            )
        warm.join()
        return _finish(console, run, session.monitor, outcome)
    finally:
        run.release()


def _new_run(args: argparse.Namespace, settings: RunSettings) -> RunDirectory:
    if args.out:
        run = RunDirectory(Path(args.out))
        if run.exists:
            raise InputError(f"--out: {args.out} holds a run already; --resume goes on with it")
        return run
    policy = settings.bound_policy().functions[0].lower()
    name = f"{Path(settings.solver).stem}-{policy}-{time.strftime('%Y%m%d-%H%M%S')}"
    run = RunDirectory(RUNS / name)
    number = 1
    while run.path.exists():
        number += 1
        run = RunDirectory(RUNS / f"{name}-{number}")
    return run


def _say_start(console: Console, session: Session, resumed: bool) -> None:
    settings = session.settings
    device = "the CPU" if settings.gpu is None else f"GPU {settings.gpu}"
    lines = [
        f"run directory: {session.run.path}  (seed {settings.seed}, {device}, {settings.max_iter} iterations)"
    ]
    if session.start:
        lines.append(f"resumed at iteration {session.start.iteration}, from {session.start.state}")
    elif resumed:
        lines.append("the run has no snapshot yet: it starts from the beginning")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _finish(console: Console, run: RunDirectory, monitor: ScheduleMonitor, outcome: Outcome) -> int:
    """The table, the plot and the verdict."""
    first = [m for m in run.measurements() if m.net == 0]
    if first:
        console.print(terminal_table(metrics_rows(first, monitor.policy.num_params), f"{monitor.policy:.7g}"))
    decisions = [row["iteration"] for row in run.rows("decisions.jsonl")]
    plots.training_plot(run.plot, f"{monitor.policy:.7g}", run.iterations(), first, decisions)
    console.print(f"plot: {run.plot}", highlight=False, markup=False, soft_wrap=True)
    if outcome.status == "diverged":
        print(f"error: {outcome.reason}", file=sys.stderr)
        return 1
    if outcome.status == "stopped":
        hint = f"--resume --out {run.path}"
        console.print(
            f"stopped at iteration {outcome.iteration}; {hint} goes on", highlight=False, soft_wrap=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
