"""Reading prototxt and binary files: what is wrong is said in one line with file and line number."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest

from lrbench_caffe.errors import InputError
from lrbench_caffe.prototxt.messages import lacks, to_text

FORK = "this Caffe has none; LRBENCH_CAFFE_PYTHON or caffe_python names the Python of a fork that has it"


def test_read_and_write(messages, tmp_path):
    path = tmp_path / "solver.prototxt"
    path.write_text(
        '# a comment\nbase_lr: 0.01\nstepvalue: [5, 10]\ntest_iter: 3 test_iter: 4\nnet: "n"'
    )
    solver = messages.read_text("SolverParameter", path)
    assert solver.base_lr == np.float32(0.01)
    assert (list(solver.stepvalue), list(solver.test_iter), solver.net) == ([5, 10], [3, 4], "n")
    assert "base_lr: 0.01\n" in to_text(solver)
    path.write_text(to_text(solver))
    assert messages.read_text("SolverParameter", path) == solver


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("InnerProdukt", "InnerProduct"),
        ("RELU", "ReLU"),
        ("Convolutions", "Convolution"),
        ("ReLU6", None),
        ("Convolution3D", None),
        ("DepthwiseConvolution", None),
        ("Normalize", None),
    ],
)
def test_slips_of_the_finger_and_layers_of_forks(name, near):
    hint = lacks(name, ["InnerProduct", "ReLU", "Convolution", "Deconvolution", "LRN", "MVN"])
    assert hint == (f"; did you mean {near!r}?" if near else f": {FORK}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "base_lr: 1\nmax_iterr: 3",
            ":2: unknown field 'max_iterr' in SolverParameter; did you mean 'max_iter'?",
        ),
        (
            "net_param {\n layer {\n  convolution_param { kernel_sise: 3 }\n }\n}",
            ":3: unknown field 'kernel_sise' in ConvolutionParameter; did you mean 'kernel_size'?",
        ),
        # Those of forks: NVCaffe's, SSD's. Stock Caffe has fields that are spelt a little like
        # them.
        (
            "net_param { layer {\n layer { } } }",
            ":2: 'layer' in LayerParameter; allowed: in a net; is a '}' missing before this line?",
        ),
        ("min_lr: 0.01", f":1: unknown field 'min_lr' in SolverParameter: {FORK}"),
        (
            "\nrampup_interval: 10",
            f":2: unknown field 'rampup_interval' in SolverParameter: {FORK}",
        ),
        (
            "net_param { layer { annotated_data_param { } } }",
            f":1: unknown field 'annotated_data_param' in LayerParameter: {FORK}",
        ),
        ('\n\nmax_iter: "x"', """:3: Couldn't parse integer: "x" (column 11: 'max_iter: "x"')"""),
        # 75 characters before the x: the line is shown from 20 characters before it.
        (
            "stepvalue: 10 " * 5 + f"max_iter: x {'display: 1 ' * 9}",
            ":1: Couldn't parse integer: x (column 81: 'value: 10 max_iter: x display: 1 display')",
        ),
        ('net: "a', """:1: String missing ending quote (column 6: 'net: "a')"""),
        (
            "max_iter: 1\nmax_iter: 2",
            ':2: Message type "caffe.SolverParameter" should not have multiple "max_iter" fields (column 11)',
        ),
        (
            "solver_mode: TPU",
            f':1: Enum type "caffe.SolverParameter.SolverMode" has no value named TPU: {FORK}',
        ),
        (
            f"max_iter: {'9' * 5000}",
            f":1: Couldn't parse integer: {'9' * 40}... (column 11: 'max_iter: {'9' * 30}')",
        ),
        (f"{'n' * 100_000}: 1", f":1: unknown field '{'n' * 40}...' in SolverParameter: {FORK}"),
        (
            'net_param { layer { } layer { name: "c" type: "Clip" clip_param { min: 0 } } }',
            ": layer 'c' (Clip): clip_param.max is missing",
        ),
        ("max_iter 3", ":1: Expected \":\" (column 10: 'max_iter 3')"),
    ],
)
def test_mistakes(messages, tmp_path, text, message):
    path = tmp_path / "solver.prototxt"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        messages.read_text("SolverParameter", path)
    assert str(caught.value) == f"{path}{message}"


@pytest.mark.skipif(not hasattr(sys, "set_int_max_str_digits"), reason="this Python has no limit")
@pytest.mark.parametrize(
    "number", ["0x" + "f" * 5000, "-0x" + "1" * 5000, "0" + "7" * 6000, "0b" + "1" * 20_000]
)
def test_a_number_that_is_too_long_for_python(messages, tmp_path, number):
    path = tmp_path / "solver.prototxt"
    path.write_text(f"max_iter: {number}")
    with pytest.raises(InputError) as caught:
        messages.read_text("SolverParameter", path)
    begin = f"{path}:1: Number of too many digits (column 11: 'max_iter: {number[:30]}"
    assert str(caught.value) == f"{begin}')"


def test_files_that_cannot_be_read(messages, tmp_path):
    with pytest.raises(
        InputError, match=re.escape(f"cannot read {tmp_path / 'none'}: No such file or directory")
    ):
        messages.read_text("SolverParameter", tmp_path / "none")
    with pytest.raises(InputError, match=re.escape(f"cannot read {tmp_path}: Is a directory")):
        messages.read_text("SolverParameter", tmp_path)
    binary = tmp_path / "net.caffemodel"
    binary.write_bytes(b"\x0a\xff\x00\x01")
    with pytest.raises(InputError, match=re.escape(f"{binary}:2: ")):
        messages.read_text("NetParameter", binary)
    with pytest.raises(
        InputError, match=re.escape(f"cannot read {tmp_path / 'none'}: No such file or directory")
    ):
        messages.read_binary("SolverState", tmp_path / "none")


def test_a_binary_file_cut_short(messages, tmp_path):
    state = messages.new("SolverState")
    state.iter = 1234
    state.learned_net = "somewhere.caffemodel"
    path = tmp_path / "x.solverstate"
    path.write_bytes(state.SerializeToString())
    assert messages.read_binary("SolverState", path).iter == 1234
    path.write_bytes(state.SerializeToString()[:-3])
    with pytest.raises(InputError, match=re.escape(f"{path} is not a complete SolverState: ")):
        messages.read_binary("SolverState", path)
