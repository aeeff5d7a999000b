"""Layers of type "Python": a user's modules on the PYTHONPATH reach the runtime that tools/setup makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrbench_caffe.runtime.locate import runtime_python
from tests.caffe import nets
from tests.caffe.harness import ROOT, Workspace, assert_same_weights, train_command

HALVE = """
import caffe
import numpy

class Halve(caffe.Layer):
    def setup(self, bottom, top):
        # Of caffe.io, which the worker has not loaded yet.
        blob = caffe.io.array_to_blobproto(numpy.full((1, 2, 3, 4), 0.5))
        self.half = caffe.io.blobproto_to_array(blob)[0, 1, 2, 3]

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data * self.half

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = top[0].diff / 2
"""
LAYER = """
layer {
  name: "half" type: "Python" bottom: "ip1" top: "half"
  python_param { module: "halving" layer: "Halve" }
}"""


@pytest.fixture
def halving(workspace: Workspace) -> Workspace:
    """A workspace whose net has a Python layer, which is in the folder ``mine``."""
    (workspace.path / "mine").mkdir()
    workspace.write("mine/halving.py", HALVE)
    middle = nets.inner_product("ip1", "data", 16) + LAYER + nets.inner_product("ip2", "half", 10)
    workspace.write("net.prototxt", nets.net(middle=middle))
    workspace.write("solver.prototxt", nets.solver(max_iter=2, test_interval=2))
    return workspace


@pytest.mark.ci
def test_a_python_layer_trains(halving: Workspace, caffe_program: str) -> None:
    path = f"PYTHONPATH={ROOT}:{halving.path / 'mine'}"
    ours = train_command("solver.prototxt", "--out", "run")
    halving.command(["env", path, *ours]).succeeded()
    assert list(halving.run("run").iterations()) == [0, 1]
    halving.command(["env", path, caffe_program, "train", "-solver", "solver.prototxt"]).succeeded()
    assert_same_weights(halving.path / "tiny_iter_2.caffemodel", halving.run("run").model(2))


def test_a_module_that_cannot_be_imported_is_named(halving: Workspace) -> None:
    """Boost.Python says "<function object> returned NULL without setting an error"."""
    done = halving.train("solver.prototxt", "--out", "run")
    done.failed(
        2, "net.prototxt: layer 'half' (Python) of the training net", "No module named 'halving'"
    )
    assert "(modules of Python layers are looked for on PYTHONPATH)" in done.err
    assert not (halving.path / "run").exists()


@pytest.mark.ci
@pytest.mark.skipif(runtime_python() is None, reason="there is no runtime made by tools/setup")
def test_packages_for_another_python_do_not_get_in_the_way(
    halving: Workspace, caffe_program: str
) -> None:
    # As where the PYTHONPATH names the site-packages of another Python.
    names = ("numpy", "scipy", "google", "caffe", "json")
    for name in names:
        (halving.path / "foreign" / name).mkdir(parents=True)
        halving.write(f"foreign/{name}/__init__.py", "raise ImportError('for another Python')\n")
    (halving.path / "foreign" / "google" / "mine").mkdir()
    halving.write("foreign/google/mine/__init__.py", "")
    path = f"PYTHONPATH={halving.path / 'foreign'}:{halving.path / 'mine'}"
    python = str(runtime_python())
    # The driver's own Python would trip over them, the worker's may not.
    wrapper = Path(
        halving.path / halving.write("python", f'#!/bin/sh\n{path} exec {python} "$@"\n')
    )
    wrapper.chmod(0o755)
    halving.train("solver.prototxt", "--out", "run", "--caffe-python", str(wrapper)).succeeded()
    halving.command(["env", path, caffe_program, "train", "-solver", "solver.prototxt"]).succeeded()
    # What the runtime does not have is found among them.
    code = f"import google.mine, google.protobuf, {', '.join(names)}"
    halving.command([str(wrapper), "-c", code]).succeeded()
