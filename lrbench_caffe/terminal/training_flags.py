"""The train command's flags, including those of `caffe train`, as a training request."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from lrbench_caffe import installation
from lrbench_caffe.errors import InputError
from lrbench_caffe.lr import describe_functions
from lrbench_caffe.lr.defaults import FLAGS as PARAMETERS
from lrbench_caffe.prototxt.patch import LR_WAYS
from lrbench_caffe.runs.layout import RUNS
from lrbench_caffe.terminal import cli, flags, viewer
from lrbench_caffe.training.request import LAYERS, TrainingRequest
from lrbench_caffe.training.signals import EFFECTS
from lrbench_caffe.training.ways import AUTO as AUTO_WAY

# What `caffe --help` lists beside the flags of training: those of its other commands, of its log
# (glog) and of gflags. All are accepted, as by `caffe train`, and change nothing here.
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
_UNREAD = (
    "flagfile",
    "fromenv",
)  # they include other flags, from files or variables that are not read here
_FLAG = re.compile(r"--?([A-Za-z][\w-]*)(=.*)?", re.DOTALL)
_GLOG_TO_STDERR = re.compile(r"--?(no)?(?:also)?logtostderr(?:=(.*))?")
_FALSE = ("false", "f", "no", "n", "0")  # as gflags reads a bool


def add_flags(p: cli.Parser) -> None:
    """The command line. Caffe's own flags take one dash or two, as gflags has it."""
    p.add_argument("solver_file", nargs="?", metavar="SOLVER", help="the solver.prototxt")
    _add_caffe_train(p)
    _add_learning_rate(p)
    run = p.add_argument_group("run")
    _add_length_and_tests(run)
    _add_run_directory(run)
    _add_safety_and_record(run)
    _add_caffe(run)
    viewer.add_flag(run)


def _add_caffe_train(p: cli.Parser) -> None:
    caffe = p.add_argument_group(
        "same as in caffe train",
        "-logtostderr and -alsologtostderr work, too. The other flags of caffe --help (-log_dir, "
        "-minloglevel, -v, ..., -iterations, -model, -phase) are accepted and ignored; -flagfile and "
        "-fromenv are refused.",
    )
    caffe.add_argument("-solver", "--solver", metavar="FILE", help="the solver.prototxt, as a flag")
    caffe.add_argument(
        "-gpu",
        "--gpu",
        metavar="ID",
        help="train on this GPU; all: the only one; none: the CPU (default: the solver's mode, else none)",
    )
    caffe.add_argument(
        "-snapshot", "--snapshot", metavar="FILE", help="a .solverstate to start from"
    )
    caffe.add_argument(
        "-weights", "--weights", metavar="FILES", help="comma-separated caffemodels to start from"
    )
    caffe.add_argument(
        "-level", "--level", type=int, metavar="N", help="level of the training net (default: 0)"
    )
    caffe.add_argument(
        "-stage",
        "--stage",
        type=flags.names,
        metavar="NAMES",
        help="comma-separated stages of the training net",
    )
    for name, default in (("sigint", "stop"), ("sighup", "snapshot")):
        flag = f"{name}_effect"
        caffe.add_argument(
            f"-{flag}", f"--{flag}", f"--{name}-effect", choices=EFFECTS, default=default,
            help=f"action on {name.upper()} (default: {default})",
        )  # fmt: skip


def _add_learning_rate(p: cli.Parser) -> None:
    functions = ", ".join(row.name for row in describe_functions())
    lr = p.add_argument_group("learning rate", f"functions: {functions}")
    lr.add_argument(
        "--lr",
        metavar="POLICY",
        help="a function's name, a policy, a composition of policies; auto: the LR database's best one; "
        "or a .json file with one: result.json of tune, run.json, the output of recommend --json",
    )
    lr.add_argument("--k0", metavar="LR", help="first bound of the LR")
    lr.add_argument("--k1", metavar="LR", help="second bound of the LR")
    lr.add_argument("--gamma", help="decay factor")
    lr.add_argument("--p", help="power of the decay")
    lr.add_argument(
        "--l", metavar="ITERATIONS", help="step length: half a cycle, or iterations between decays"
    )
    flags.add_contributors(lr, "with auto, and for parameters that are left out, use")
    lr.add_argument(
        "--preview", action="store_true", help="print and plot the schedule, do not train"
    )


def _add_length_and_tests(run: argparse._ArgumentGroup) -> None:
    run.add_argument(
        "--max-iter",
        type=int,
        metavar="N",
        help="train N iterations instead of the solver's max_iter",
    )
    run.add_argument(
        "--until", type=int, metavar="N",
        help="pause after iteration N with a snapshot; continue with --resume. max_iter is unchanged",
    )  # fmt: skip
    run.add_argument(
        "--test-interval",
        type=int,
        metavar="N",
        help="test every N iterations (default: the solver's)",
    )
    run.add_argument(
        "--seed", type=int, metavar="N", help="random seed (default: the solver's, else a new one)"
    )
    run.add_argument(
        "--head", metavar="NAME",
        help="measure Top-1 on this blob of scores if the test net has several (default: docs/metrics.md)",
    )  # fmt: skip


def _add_run_directory(run: argparse._ArgumentGroup) -> None:
    run.add_argument(
        "--out", type=flags.place, metavar="DIR",
        help=f"the run directory (default: a new one in {RUNS}/); with --preview the plot's file",
    )  # fmt: skip
    run.add_argument(
        "--branch", type=flags.place, metavar="DIR",
        help="take over the beginning that this training shares with the run in DIR, as far as DIR has a "
        "snapshot of it, instead of training it again",
    )  # fmt: skip
    run.add_argument(
        "--branch-at", type=int, metavar="N",
        help="with --branch: take over N iterations at most (default: as many as possible)",
    )  # fmt: skip
    run.add_argument(
        "--branch-points", type=_counts, default=(), metavar="N,...",
        help="also snapshot after these iterations, for other runs to --branch from",
    )  # fmt: skip
    flags.add_trust_data(run)
    run.add_argument(
        "--resume", action="store_true", help="continue --out DIR, else this solver's newest run"
    )
    run.add_argument(
        "--start-over", action="store_true",
        help="with --resume: where none of the snapshots can be continued from, train again from the "
        "beginning (default: refuse)",
    )  # fmt: skip
    run.add_argument(
        "--publish", action="store_true",
        help="with --out: also write the snapshots at the solver's snapshot_prefix, as without --out",
    )  # fmt: skip
    run.add_argument(
        "--log-to-stderr", action="store_true",
        help="also print Caffe's log on stderr, as caffe train does",
    )  # fmt: skip


def _add_safety_and_record(run: argparse._ArgumentGroup) -> None:
    run.add_argument(
        "--checkpoint-minutes", type=flags.duration, default=10.0, metavar="M",
        help="also snapshot every M minutes, so that a kill loses little; 0: never (default: 10)",
    )  # fmt: skip
    flags.add_hang_timeout(run)
    flags.add_database(run)
    flags.add_no_database(run)


def _add_caffe(run: argparse._ArgumentGroup) -> None:
    """Which Caffe trains, on which layers, and how it gets the LR."""
    run.add_argument(
        "--layers", choices=LAYERS,
        help="CPU layers: stock: Caffe's own, with the weights of caffe train; fast: the fast ones; "
        "fast-avx2: these without AVX-512, for the weights of another CPU; auto: "
        "fast if they are built (default: auto; with --resume, those of the run)",
    )  # fmt: skip
    run.add_argument(
        "--threads", type=int, metavar="N",
        help="run the fast layers on N cores (default: 1; with --resume, that of the run)",
    )  # fmt: skip
    flags.add_caffe_python(run)
    run.add_argument(
        "--set-lr-by", choices=(AUTO_WAY, *LR_WAYS), default=AUTO_WAY,
        help="how Caffe gets the LR: its own lr_policy, base_lr, or scaled gradients (default: lr_policy "
        "without --lr, else base_lr where writable, else gradients)",
    )  # fmt: skip


def _counts(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        allowed = "comma-separated numbers of iterations"
        raise argparse.ArgumentTypeError(f"{text}; allowed: {allowed}") from None


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
            raise InputError(
                f"{argument}: not supported; allowed: the flags themselves on the command line"
            )
        elif name in _IGNORED_SWITCHES or name[2 * name.startswith("no") :] in _IGNORED_SWITCHES:
            dropped.append(argument)
        elif match and name in _IGNORED:
            dropped.append(argument)
            if not match[2]:
                dropped.extend(value for value in [next(todo, None)] if value is not None)
        else:
            rest.append(argument)
    return rest + ["--log-to-stderr"] * any(to_stderr.values()), dropped


def training_request(args: argparse.Namespace) -> TrainingRequest:
    """The request that the flags of ``add_flags`` make."""
    return TrainingRequest(
        solver=_solver(args),
        policy=args.lr,
        parameters={name: getattr(args, name) for name in PARAMETERS},
        contributors=args.contributors,
        max_iter=args.max_iter,
        until=args.until,
        branch=Path(args.branch) if args.branch else None,
        branch_at=args.branch_at,
        branch_points=args.branch_points,
        test_interval=args.test_interval,
        seed=args.seed,
        head=args.head,
        gpu=args.gpu or None,  # as Caffe reads --gpu=$GPU with an empty variable
        snapshot=args.snapshot or None,
        weights=args.weights or None,
        level=args.level,
        stages=args.stage,
        out=Path(args.out) if args.out else None,
        resume=args.resume,
        start_over=args.start_over,
        publish=args.publish,
        preview=args.preview,
        trust_data=args.trust_data,
        layers=args.layers,
        threads=args.threads,
        set_lr_by=args.set_lr_by,
        caffe_python=args.caffe_python,
        database=args.db,
        no_database=args.no_db,
        checkpoint_minutes=args.checkpoint_minutes,
        hang_seconds=args.hang_timeout,
    )


def _solver(args: argparse.Namespace) -> Path | None:
    if args.solver and args.solver_file and args.solver != args.solver_file:
        raise InputError(
            f"two solvers: {args.solver_file} and --solver {args.solver}; allowed: one"
        )
    name = args.solver or args.solver_file
    if not name and not (args.resume and args.out):
        raise InputError(f"no solver given: {installation.command('train')} SOLVER (see --help)")
    return Path(name) if name else None
