"""What the tests share: a new database, and the Caffe of this machine as its descriptor tells it."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

import hypothesis
import pytest

from lrbench_caffe.database import Database
from lrbench_caffe.errors import InputError
from lrbench_caffe.prototxt.messages import Messages
from lrbench_caffe.runs import opening
from lrbench_caffe.runtime.info import caffe_info as ask_caffe
from lrbench_caffe.runtime.locate import CaffePython, find_caffe_python
from lrbench_caffe.runtime.reader import CaffeReader
from lrbench_caffe.runtime.replies import CaffeInfo

# How long an example takes says something about the machine, nothing about the code.
hypothesis.settings.register_profile("lrbench", deadline=None)
hypothesis.settings.load_profile("lrbench")


# Files whose tests marked ci take a minute or more: what compiles, or trains most.
LONGEST = [
    f"test_{name}.py"
    for name in (
        "sanitized_layers",
        "sanitized_kernels",
        "training",
        "differential",
        "jobs",
        "tune",
    )
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest files come first: what begins last goes on alone."""
    longest = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: longest.get(item.path.name, len(LONGEST)))


def pytest_configure(config: pytest.Config) -> None:
    """Let trainings record into a database of the tests' own, and never into the user's.

    And let what the tests start be interruptible, even where they run in the background of a shell.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = tempfile.TemporaryDirectory(prefix="lrbench-tests-")
    config.add_cleanup(folder.cleanup)
    os.environ["LRBENCH_DB"] = os.path.join(folder.name, "lr.sqlite")
    os.environ["XDG_DATA_HOME"] = os.path.join(folder.name, "data")
    # Else each `caffe train` leaves three files in /tmp.
    os.environ["GLOG_log_dir"] = folder.name  # noqa: SIM112
    opening.SILENCE = 600.0  # "waiting for the database" says something about the machine only


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An LR database that was opened once, not to be written to: making one takes longer than a copy."""
    path = tmp_path_factory.mktemp("database") / "lr.sqlite"
    Database.open(str(path)).close()
    return path


@pytest.fixture
def new_database(fresh: Path, tmp_path: Path) -> str:
    """The file of a new LR database that the test may write to."""
    return str(shutil.copy(fresh, tmp_path / "lr.sqlite"))


@pytest.fixture(scope="session")
def caffe_python() -> CaffePython:
    """The interpreter of the Caffe on this machine."""
    try:
        return find_caffe_python(None)
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def caffe_info(caffe_python: CaffePython) -> CaffeInfo:
    """What that Caffe says of itself."""
    return ask_caffe(caffe_python)


@pytest.fixture(scope="session")
def messages(caffe_info: CaffeInfo, caffe_python: CaffePython) -> Messages:
    """That Caffe's protobuf messages."""
    return Messages(caffe_info.descriptor, CaffeReader(caffe_python))
