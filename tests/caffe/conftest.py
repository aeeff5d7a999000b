"""Fixtures of the tests that run real Caffe."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lrbench_caffe.errors import InputError
from lrbench_caffe.runtime.locate import caffe_binary, find_caffe_python
from tests.caffe import nets
from tests.caffe.harness import ROOT, Workspace


@pytest.fixture(scope="session")
def caffe_program() -> str:
    """The real caffe binary; without it, or without pycaffe, there is nothing to test against."""
    try:
        find_caffe_python(None)
    except InputError as error:
        pytest.skip(str(error))
    program = caffe_binary()
    if program is None:
        pytest.skip("there is no caffe binary")
    return program


@pytest.fixture(scope="session")
def digits(caffe_program: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the digits' LMDBs, made as a user makes them."""
    folder = tmp_path_factory.mktemp("digits")
    command = [sys.executable, "-m", "lrbench_caffe.data", "digits", "--out", "data"]
    Workspace(folder, caffe_program).command(command).succeeded()
    return folder / "data"


def make_workspace(path: Path, digits: Path, caffe_program: str) -> Workspace:
    """A folder with data/, net.prototxt and solver.prototxt, all small."""
    (path / "data").symlink_to(digits)
    (path / "prototxt").symlink_to(ROOT / "prototxt")
    workspace = Workspace(path, caffe_program)
    workspace.write("net.prototxt", nets.net())
    workspace.write("solver.prototxt", nets.solver())
    return workspace


@pytest.fixture
def workspace(tmp_path: Path, digits: Path, caffe_program: str) -> Workspace:
    return make_workspace(tmp_path, digits, caffe_program)


@pytest.fixture(scope="module")
def shared_workspace(
    tmp_path_factory: pytest.TempPathFactory, digits: Path, caffe_program: str
) -> Workspace:
    """One for all tests of a module: for trainings that several tests look at."""
    return make_workspace(tmp_path_factory.mktemp("shared"), digits, caffe_program)
