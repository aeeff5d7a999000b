"""The train command's flags, and what they mean: settings that were checked before Caffe starts."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from lrbench_caffe.errors import InputError
from lrbench_caffe.lr import describe_functions
from lrbench_caffe.prototxt.datacheck import HELP, OPTION
from lrbench_caffe.prototxt.messages import Messages
from lrbench_caffe.prototxt.patch import LR_WAYS
from lrbench_caffe.prototxt.solver import Solver, load_solver
from lrbench_caffe.runs.directory import RunDirectory, find_newest
from lrbench_caffe.runtime.client import HANG_SECONDS, CaffeInfo
from lrbench_caffe.runtime.locate import CaffePython
from lrbench_caffe.runtime.reader import CaffeReader
from lrbench_caffe.terminal import cli
from lrbench_caffe.training.beginning import find_state
from lrbench_caffe.training.choosing import (
    AUTO,
    describe_wanted,
    experienced_policy,
    wants_experience,
)
from lrbench_caffe.training.continuation import fingerprint, resumed_settings
from lrbench_caffe.training.settings import (
    NATIVE,
    ChosenPolicy,
    RunSettings,
    check_triggers,
    check_weights,
    choose_gpu,
    choose_layers,
    choose_policy,
    choose_seed,
    choose_threads,
    unopened_start,
)
from lrbench_caffe.training.signals import EFFECTS
from lrbench_caffe.training.ways import AUTO as AUTO_WAY
from lrbench_caffe.training.ways import choose_way

RUNS = Path("runs")
LARGEST = 2**31 - 1  # of an int32, what Caffe counts with

# What `caffe --help` lists beside the flags of training: those of its other commands, of its log (glog) and
# of gflags. All are accepted, as by `caffe train`, and change nothing here.
_IGNORED = frozenset(
    [
        "iterations",
        "model",
        "phase",
        "alsologtoemail",
        "log_backtrace_at",
        "log_dir",
        "log_link",
        "logbuflevel",
        "logbufsecs",
        "logemaillevel",
        "logfile_mode",
        "logmailer",
        "max_log_size",
        "minloglevel",
        "stderrthreshold",
        "v",
        "vmodule",
        "tab_completion_columns",
        "tab_completion_word",
        "tryfromenv",
        "undefok",
    ]
)
_IGNORED_SWITCHES = frozenset(
    [
        "colorlogtostderr",
        "drop_log_memory",
        "log_prefix",
        "stop_logging_if_full_disk",
        "symbolize_stacktrace",
        "log_utc_time",
        "log_year_in_prefix",
        "timestamp_in_logfile_name",
        "logcleaner",
    ]
)
_UNREAD = ("flagfile", "fromenv")  # they bring in other flags, from where nothing is read here
_FLAG = re.compile(r"--?([A-Za-z][\w-]*)(=.*)?", re.DOTALL)
_GLOG_TO_STDERR = re.compile(r"--?(no)?(?:also)?logtostderr(?:=(.*))?")
_FALSE = ("false", "f", "no", "n", "0")  # as gflags reads a bool

Say = Callable[[str], None]


def add_flags(p: cli.Parser) -> None:
    """The command line. Caffe's own flags take one dash or two, as gflags has it."""
    functions = ", ".join(row.name for row in describe_functions())
    p.add_argument("solver_file", nargs="?", metavar="SOLVER", help="the solver.prototxt")
    caffe = p.add_argument_group(
        "as in caffe train",
        "also: -logtostderr and -alsologtostderr; accepted for scripts and ignored: the other flags of "
        "caffe --help (-log_dir, -minloglevel, -v, ..., -iterations, -model, -phase)",
    )
    caffe.add_argument("-solver", "--solver", metavar="FILE", help="the solver.prototxt, as a flag")
    caffe.add_argument(
        "-gpu",
        "--gpu",
        metavar="ID",
        help="train on this GPU; all: the only one; none: the CPU (default: the solver's mode, else none)",
    )
    caffe.add_argument("-snapshot", "--snapshot", metavar="FILE", help="a .solverstate to start from")
    caffe.add_argument(
        "-weights", "--weights", metavar="FILES", help="comma-separated caffemodels to start from"
    )
    caffe.add_argument(
        "-level", "--level", type=int, metavar="N", help="level of the training net (default: 0)"
    )
    caffe.add_argument(
        "-stage", "--stage", type=_names, metavar="NAMES", help="comma-separated stages of the training net"
    )
    for name, default in (("sigint", "stop"), ("sighup", "snapshot")):
        flag = f"{name}_effect"
        caffe.add_argument(
            f"-{flag}", f"--{flag}", f"--{name}-effect", choices=EFFECTS, default=default,
            help=f"what {name.upper()} does (default: {default})",
        )  # fmt: skip
    lr = p.add_argument_group("learning rate", f"functions: {functions}")
    lr.add_argument(
        "--lr",
        metavar="POLICY",
        help="a function's name, a policy, a composition of policies, or auto: the LR database's best one",
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
    run.add_argument(
        "--until", type=int, metavar="N",
        help="pause after iteration N with a snapshot; continue with --resume. max_iter is unchanged",
    )  # fmt: skip
    run.add_argument("--test-interval", type=int, metavar="N", help="test this often instead of the solver's")
    run.add_argument(
        "--seed", type=int, metavar="N", help="random seed (default: the solver's, else a new one)"
    )
    run.add_argument(
        "--head", metavar="NAME",
        help="take Top-1 from this blob of scores, where the test net has several (default: docs/metrics.md)",
    )  # fmt: skip
    run.add_argument(
        "--out", metavar="DIR",
        help=f"the run directory (default: a new one in {RUNS}/); with --preview the plot's file",
    )  # fmt: skip
    run.add_argument(OPTION, action="store_true", help=HELP)
    run.add_argument(
        "--resume", action="store_true", help="continue --out DIR, else this solver's newest run"
    )
    run.add_argument(
        "--publish", action="store_true",
        help="with --out: also put the snapshots at the solver's snapshot_prefix, as without --out",
    )  # fmt: skip
    run.add_argument(
        "--log-to-stderr", action="store_true",
        help="also print Caffe's log on stderr as it is written, as caffe train does",
    )  # fmt: skip
    run.add_argument(
        "--checkpoint-minutes", type=duration, default=10.0, metavar="M",
        help="also snapshot every M minutes, so that a kill loses little; 0: never (default: 10)",
    )  # fmt: skip
    add_hang_timeout(run)
    run.add_argument(
        "--db", metavar="URL", help="the LR database (default: LRBENCH_DB, else the embedded one)"
    )
    run.add_argument("--no-db", action="store_true", help="neither ask the LR database nor record into it")
    run.add_argument(
        "--layers", choices=("auto", "fast", "stock"),
        help="Caffe's own CPU layers (stock: the weights of caffe train), fast ones in their "
        "place, or auto, fast where they are built (default: auto; with --resume the run's own)",
    )  # fmt: skip
    run.add_argument(
        "--threads", type=int, metavar="N",
        help="let the fast layers work on N cores (default: 1; with --resume the run's own)",
    )  # fmt: skip
    run.add_argument("--caffe-python", metavar="FILE", help="the Python that can import caffe")
    run.add_argument(
        "--set-lr-by", choices=(AUTO_WAY, *LR_WAYS), default=AUTO_WAY,
        help="how Caffe gets the LR: its own lr_policy, base_lr, or scaled gradients (default: lr_policy "
        "where nothing else asks for the LR, else base_lr, or gradients on Caffe 1.0)",
    )  # fmt: skip


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def without_ignored_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments without those flags of Caffe that scripts pass on, and those that are ignored.

    -logtostderr and -alsologtostderr become --log-to-stderr.
    """
    rest: list[str] = []
    dropped: list[str] = []
    to_stderr = {"": False, "also": False}
    todo = iter(arguments)
    for argument in todo:
        switch = _GLOG_TO_STDERR.fullmatch(argument)
        match = _FLAG.fullmatch(argument)
        name = match[1].replace("-", "_") if match else ""  # gflags takes both
        if switch:
            on = not switch[1] and (switch[2] or "").lower() not in _FALSE
            to_stderr["also" if "also" in argument else ""] = on  # the last one counts
        elif name in _UNREAD:
            raise InputError(f"{argument}: not read here; allowed: the flags themselves on the command line")
        elif name in _IGNORED_SWITCHES or name[2 * name.startswith("no") :] in _IGNORED_SWITCHES:
            dropped.append(argument)
        elif match and name in _IGNORED:
            dropped.append(argument)
            if not match[2]:
                dropped.extend(value for value in [next(todo, None)] if value is not None)
        else:
            rest.append(argument)
    return rest + ["--log-to-stderr"] * any(to_stderr.values()), dropped


def _solver_path(args: argparse.Namespace, resumed: RunDirectory | None) -> Path:
    if args.solver and args.solver_file and args.solver != args.solver_file:
        raise InputError(f"two solvers: {args.solver_file} and --solver {args.solver}; allowed: one")
    name = args.solver or args.solver_file or (resumed and resumed.read()["solver"])
    if not name:
        raise InputError("no solver given: python -m lrbench_caffe.train SOLVER (see --help)")
    return Path(name)


def run_to_resume(args: argparse.Namespace) -> RunDirectory | None:
    if not args.resume:
        return None
    for flag in ("snapshot", "weights"):
        if getattr(args, flag):
            raise InputError(
                f"--resume continues from the run's own snapshot, --{flag} starts a new run; "
                "allowed: one of them"
            )
    if args.out:
        path = Path(args.out)
        if path.is_symlink():  # runs/latest: the run keeps its own name
            path = path.parent / path.readlink()
        run = RunDirectory(path)
        run.read()
        return run
    return find_newest(RUNS, _solver_path(args, None))


def prepare(
    args: argparse.Namespace, python: CaffePython, info: CaffeInfo, resumed: RunDirectory | None, say: Say
) -> tuple[RunSettings, Solver, Messages]:
    """Check everything that can be checked before Caffe starts, and say what will be done."""
    if args.snapshot and args.weights:
        raise InputError("--snapshot and --weights: allowed: one of them (a snapshot has its own weights)")
    _check_ranges(args)
    args.gpu = args.gpu or None  # as Caffe takes --gpu=$GPU where there is none
    messages = Messages(info.descriptor, CaffeReader(python))
    old = RunSettings.from_json(resumed.read()) if resumed else None
    level, stages = (old.level, old.stages) if old else (args.level or 0, args.stage or [])
    max_iter = args.max_iter or (old.max_iter if old else None)
    solver = load_solver(
        _solver_path(args, resumed), messages, info, level=level, stages=stages, max_iter=max_iter,
        head=old.head if old else args.head, check_data=None if args.trust_data or args.preview else say,
    )  # fmt: skip
    remarks = list(solver.remarks)
    if resumed and old:
        settings, more = resumed_settings(args, _policy_flags(args), old, solver, info, resumed)
        settings.layers = _resumed_layers(args, settings, info, say)
        if args.threads is not None:
            settings.threads = choose_threads(args.threads, settings.layers)
        elif settings.layers == "stock":
            settings.threads = 1
        remarks += more
    else:
        settings = _new_settings(args, solver, info, messages, python, say)
    if solver.iter_size > 1 and not info.layer_callbacks:
        remarks.append(
            f"{solver.path}: iter_size is {solver.iter_size}; this Caffe ({info.caffe}) tells only the loss "
            "of an iteration's last sub-batch: that one is recorded, not their mean"
        )
    if settings.max_iter and not settings.trains:
        remarks.append(
            f"the snapshot {settings.snapshot} is at iteration {settings.start.iteration}, max_iter is "
            f"{settings.max_iter}: Caffe trains nothing and only tests, so nothing is recorded"
        )
    if args.until and args.until > settings.max_iter:
        remarks.append(f"--until {args.until}: the training ends before, at max_iter, {settings.max_iter}")
    for remark in remarks:
        say(f"note: {remark}")
    return settings, solver, messages


def add_hang_timeout(group: argparse._ArgumentGroup) -> None:
    """``--hang-timeout`` of every command that trains."""
    group.add_argument(
        "--hang-timeout", type=duration, default=HANG_SECONDS, metavar="SECONDS",
        help=f"treat Caffe as hung after SECONDS without output; 0: never (default: {HANG_SECONDS:g})",
    )  # fmt: skip


def duration(text: str) -> float:
    """A time on the command line; 0 means never."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"{text}; allowed: 0 (never) or more")
    return value


def _check_ranges(args: argparse.Namespace) -> None:
    for flag, least in (("max-iter", 1), ("until", 1), ("test-interval", 1), ("level", -LARGEST - 1)):
        value = getattr(args, flag.replace("-", "_"))
        if value is not None and not least <= value <= LARGEST:
            raise InputError(f"--{flag}: {value}; allowed: {least} to {LARGEST}")


def _new_settings(
    args: argparse.Namespace,
    solver: Solver,
    info: CaffeInfo,
    messages: Messages,
    python: CaffePython,
    say: Say,
) -> RunSettings:
    max_iter = args.max_iter or max(0, solver.message.max_iter)
    gpu = choose_gpu(args.gpu, solver, info)
    test_interval = args.test_interval or solver.message.test_interval
    weights = check_weights(args.weights, solver, messages) if not args.snapshot else []
    start = unopened_start(args.snapshot, weights)
    if args.snapshot:
        start = replace(start, iteration=find_state(Path(args.snapshot), messages).stored.iteration)
    chosen = _choose(args, solver, messages, info, python, gpu, weights, say)
    check_triggers(chosen.policy, solver)
    layers = choose_layers(args.layers or "auto", gpu, info)
    return RunSettings(
        solver=str(solver.path),
        policy=str(chosen.policy),
        policy_from=chosen.origin,
        seed=choose_seed(args.seed, solver),
        max_iter=max_iter,
        test_interval=test_interval if solver.tests else 0,
        snapshot_interval=abs(solver.message.snapshot),  # Caffe divides by it, whatever its sign
        gpu=gpu,
        level=args.level or 0,
        stages=args.stage or [],
        snapshot=args.snapshot or None,
        weights=weights,
        lr_by=choose_way(args.set_lr_by, chosen.origin == NATIVE, solver, info),
        fingerprint=fingerprint(solver),
        head=solver.head,
        layers=layers,
        threads=choose_threads(1 if args.threads is None else args.threads, layers),
        start=start,
    )


def _choose(
    args: argparse.Namespace,
    solver: Solver,
    messages: Messages,
    info: CaffeInfo,
    python: CaffePython,
    gpu: int | None,
    weights: Sequence[str],
    say: Say,
) -> ChosenPolicy:
    """The policy, from what was given, what the LR database knows, and simple rules, in this order."""
    flags = _policy_flags(args)
    max_iter = args.max_iter or solver.message.max_iter
    chosen = None
    if wants_experience(args.lr, flags, solver, max_iter) and not args.no_db:
        wanted = describe_wanted(
            solver, info, python, messages, snapshot=args.snapshot, weights=weights, gpu=gpu,
            level=args.level or 0, stages=args.stage or [],
        )  # fmt: skip
        chosen, why = experienced_policy(
            args.lr, flags, args.db, wanted, solver, max_iter, preview=args.preview
        )
        for line in why:
            say(line)
    elif args.lr and args.lr.strip().lower() == AUTO:
        raise InputError("--lr auto asks the LR database; --no-db does not go with it")
    chosen = chosen or choose_policy(args.lr, flags, solver, max_iter)
    say(f"LR policy: {chosen.policy:.7g} (from {chosen.origin})")
    for filled in chosen.filled:
        value = list(filled.value) if isinstance(filled.value, tuple) else filled.value
        say(f"  {filled.parameter} = {value}: {filled.rule}")
    return chosen


def _policy_flags(args: argparse.Namespace) -> dict[str, str | None]:
    return {name: getattr(args, name) for name in ("k0", "k1", "gamma", "p", "l")}


def _resumed_layers(args: argparse.Namespace, old: RunSettings, info: CaffeInfo, say: Say) -> str:
    """The run's layers, unless others are asked for or they are not here."""
    if args.layers:
        return choose_layers(args.layers, old.gpu, info)
    if old.layers == "fast" and choose_layers("auto", old.gpu, info) == "stock":
        say("note: the run was trained with fast layers, which are not here; it continues with Caffe's own")
        return "stock"
    return old.layers
