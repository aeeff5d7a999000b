"""Logs of real Caffe, and a reader for others."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrbench_caffe.prototxt.messages import Messages
from tests.caffe import nets
from tests.caffe.conftest import (  # noqa: F401
    caffe_program,
    digits,
    make_workspace,
    shared_workspace,
    workspace,
)
from tests.caffe.harness import Workspace
from tests.importing.logs import Reader


@pytest.fixture(scope="session")
def trained(
    digits: Path,  # noqa: F811
    caffe_program: str,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Workspace:
    """A folder where real Caffe trained: a.log is of 200 iterations, b.log of the same resumed at 100."""
    folder = make_workspace(tmp_path_factory.mktemp("trained"), digits, caffe_program)
    folder.write("solver.prototxt", nets.solver(max_iter=200, snapshot=100))
    folder.write("a.log", folder.caffe("train", "--solver=solver.prototxt").succeeded().err)
    resumed = folder.caffe(
        "train", "--solver=solver.prototxt", "--snapshot=tiny_iter_100.solverstate"
    )
    folder.write("b.log", resumed.succeeded().err)
    return folder


@pytest.fixture
def log(trained: Workspace, monkeypatch: pytest.MonkeyPatch) -> str:
    """The log of 200 iterations, read where its data is."""
    monkeypatch.chdir(trained.path)
    return (trained.path / "a.log").read_text()


@pytest.fixture
def reader(tmp_path: Path, messages: Messages) -> Reader:
    return Reader(tmp_path, messages)
