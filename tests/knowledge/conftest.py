"""The workspace of the tests with real Caffe, and a fresh database."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrbench_caffe.database import Database
from tests.caffe.conftest import (  # noqa: F401
    caffe_program,
    digits,
    make_workspace,
    shared_workspace,
    workspace,
)


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that was opened once, not to be written to."""
    path = tmp_path_factory.mktemp("database") / "lr.sqlite"
    Database.open(str(path)).close()
    return path
