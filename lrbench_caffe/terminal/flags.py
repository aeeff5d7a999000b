"""Flags that several commands share: each is declared here once."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from lrbench_caffe.runtime.client import HANG_SECONDS
from lrbench_caffe.training.request import LAYERS

_Flags = argparse._ActionsContainer  # a parser, or a group of one


def add_database(p: _Flags) -> None:
    text = "the LR database (default: LRBENCH_DB, else the embedded one)"
    p.add_argument("--db", metavar="URL", help=text)


def add_no_database(p: _Flags) -> None:
    text = "neither read the LR database nor record in it"
    p.add_argument("--no-db", action="store_true", help=text)


def add_caffe_python(p: _Flags, more: str = "") -> None:
    p.add_argument("--caffe-python", metavar="FILE", help=f"the Python that can import caffe{more}")


def add_head(p: _Flags, more: str = ", as in training") -> None:
    text = f"the scores blob that Top-1 is measured on{more}"
    p.add_argument("--head", metavar="NAME", help=text)


def add_measure(p: _Flags) -> None:
    """--by, called --metric too, with its direction; ``chosen_direction`` reads that."""
    p.add_argument(
        "--by", "--metric", dest="by", metavar="NAME",
        help="compare policies by top1, top5, ac, test_loss or an output of the first test net (default: "
        "top1; test_loss if the net does not classify)",
    )  # fmt: skip
    add_direction(p, "that output")


def add_start(p: _Flags) -> None:
    """--weights, --level and --stage of the training net."""
    p.add_argument("--weights", metavar="FILES", help="comma-separated caffemodels to start from")
    p.add_argument("--level", type=int, metavar="N", help="level of the training net (default: 0)")
    p.add_argument(
        "--stage", type=names, metavar="NAMES", help="comma-separated stages of the training net"
    )


def add_contributors(p: _Flags, of: str = "use") -> None:
    p.add_argument(
        "--contributors",
        type=names,
        metavar="NAMES",
        default=(),
        help=f"comma-separated: {of} only their results; own: those that were never uploaded, paper: the "
        "paper's (default: all)",
    )


def place(text: str) -> str:
    """The name of a file or folder on the command line; an empty one is a variable that is not set."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: the name of a file or folder")
    return text


def path(text: str) -> Path:
    """The same as a path."""
    return Path(place(text))


def names(text: str) -> tuple[str, ...]:
    """Names on the command line, separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def add_direction(p: _Flags, outputs: str) -> None:
    """--higher and --lower, which ``chosen_direction`` reads."""
    direction = p.add_mutually_exclusive_group()
    for flag in ("higher", "lower"):
        text = f"{flag} values of {outputs} are better"
        direction.add_argument(f"--{flag}", action="store_true", help=text)


def chosen_direction(args: argparse.Namespace) -> bool | None:
    """Whether higher values are better, None where nothing was said."""
    if args.higher:
        return True
    return False if args.lower else None


def add_layers(p: _Flags) -> None:
    p.add_argument("--layers", choices=LAYERS, default="auto", help="CPU layers (default: auto)")


def add_trust_data(p: _Flags) -> None:
    text = "skip the check of all records, which is made once for each data set"
    p.add_argument("--trust-data", action="store_true", help=text)


def add_hang_timeout(p: _Flags) -> None:
    p.add_argument(
        "--hang-timeout",
        type=duration,
        default=HANG_SECONDS,
        metavar="SECONDS",
        help="treat Caffe as hung after SECONDS without output; 0: never "
        f"(default: {HANG_SECONDS:g})",
    )


def duration(text: str) -> float:
    """A time on the command line; 0 means never."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"{text}; allowed: 0 (never) or more")
    return value
