"""The flags of `caffe train` that scripts pass on."""

from __future__ import annotations

import re
import subprocess

import pytest

from lrbench_caffe.errors import InputError
from lrbench_caffe.lr import PolicyError, parse
from lrbench_caffe.runtime.locate import caffe_binary
from lrbench_caffe.terminal.training_flags import training_request, without_ignored_flags
from lrbench_caffe.train import parser


@pytest.mark.parametrize(
    ("flags", "dropped"),
    [
        ("-iterations 3 -model x --phase=TEST", "-iterations 3 -model x --phase=TEST"),
        (
            "-colorlogtostderr -nolog_prefix -logbuflevel=-1",
            "-colorlogtostderr -nolog_prefix -logbuflevel=-1",
        ),
        (
            "-logbuflevel -1 -max_log_size 10 -log-dir=x",
            "-logbuflevel -1 -max_log_size 10 -log-dir=x",
        ),
        ("-vmodule net=2 -gpu= --lr 0.01 --no-db", "-vmodule net=2"),
    ],
)
def test_ignored_flags(flags, dropped):
    rest, ignored = without_ignored_flags(["s.prototxt", *flags.split()])
    assert ignored == dropped.split()
    assert rest == ["s.prototxt", *(f for f in flags.split() if f not in ignored)]


def test_flags_that_bring_in_flags():
    with pytest.raises(InputError, match="-flagfile=x: not supported"):
        without_ignored_flags(["-flagfile=x"])


def test_every_flag_that_caffe_lists_is_known():
    """But those that print something and end."""
    program = caffe_binary()
    if program is None:
        pytest.skip("there is no caffe binary")
    done = subprocess.run([program, "--help"], capture_output=True, text=True)
    listed = re.findall(
        r"^    -(\w+) \((?:.|\n)*?type:\s+(\w+)", done.stdout + done.stderr, re.MULTILINE
    )
    names = {name: kind for name, kind in listed if not name.startswith(("help", "version"))}
    assert {"solver", "iterations", "v", "undefok"} <= set(names)
    own = set(parser()._option_string_actions)
    for name, kind in names.items():
        if f"-{name}" in own or name in ("flagfile", "fromenv"):
            continue
        argument = f"-{name}" if kind == "bool" else f"-{name}=1"
        rest, _ = without_ignored_flags([argument, "s.prototxt"])
        assert rest in (["s.prototxt"], ["s.prototxt", "--log-to-stderr"]), name


@pytest.mark.parametrize("text", ["0,01", "0.01f"])
def test_a_mistyped_number_is_told_what_a_number_is(text):
    with pytest.raises(PolicyError, match="a plain number such as 0.01 is allowed"):
        parse(text)


def test_where_to_branch_needs_a_run_to_branch_from():
    words = ["solver.prototxt", "--branch-at", "3"]
    with pytest.raises(InputError, match="^branch_at: 3; allowed: with branch DIR$"):
        training_request(parser().parse_args(words))
    assert training_request(parser().parse_args([*words, "--branch", "run"])).branch_at == 3
