"""What our commands are called, in a clone and where the package was installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lrbench_caffe import installation
from lrbench_caffe.errors import InputError
from lrbench_caffe.native import library
from lrbench_caffe.runtime import locate

PACKAGE = Path(installation.__file__).resolve().parent


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["/usr/bin/lrbench-caffe"], "lrbench-caffe train"),
        (["lrbench-caffe doctor"], "lrbench-caffe train"),
        (["/a/lrbench_caffe/doctor.py", "x"], "python -m lrbench_caffe.train"),
        (["-m"], "python -m lrbench_caffe.train"),
        (["/usr/bin/pytest"], "python -m lrbench_caffe.train"),
        ([], "python -m lrbench_caffe.train"),
    ],
)
def test_a_command_is_named_as_this_one_was_started(argv, expected, monkeypatch):
    monkeypatch.setattr(sys, "argv", argv)
    assert installation.command("train") == expected


def test_setup_in_a_clone():
    assert installation.clone() == PACKAGE.parent
    assert installation.setup_command() == "tools/setup"


def test_setup_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Every message that names it does so as the program was installed and started."""
    monkeypatch.setattr(
        installation, "__file__", str(tmp_path / "site/lrbench_caffe/installation.py")
    )
    monkeypatch.setattr(sys, "argv", ["/bin/lrbench-caffe"])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv(locate.VARIABLE, raising=False)
    assert installation.clone() is None
    with pytest.raises(InputError, match="; run lrbench-caffe setup, or name a Python"):
        locate.find_caffe_python()
    monkeypatch.setattr(library, "lacking_of_machine", lambda: None)
    assert "the one that lrbench-caffe setup makes" in library.find_library("/opt/caffe").why
    caffe = locate.runtime_dir() / "root" / "caffe"
    assert library.find_library(str(caffe)).remedy == "run lrbench-caffe setup; it needs g++"


def test_setup_of_an_installed_package_without_apt_is_one_line(tmp_path: Path):
    """The command itself, of a copy of the package that lies in no clone."""
    copy = tmp_path / "site" / "lrbench_caffe"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    python = tmp_path / "bin" / "python3"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    environment = {
        "PATH": str(python.parent),
        "PYTHONPATH": os.pathsep.join([str(copy.parent), *sys.path]),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-m", "lrbench_caffe.setup"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "error: Caffe: apt-get is not on this machine, so Caffe cannot be fetched; "
        "set LRBENCH_CAFFE_PYTHON to a Python that can import caffe\n"
    )
    assert not (tmp_path / "cache").exists()
