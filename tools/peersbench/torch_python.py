"""A Python with PyTorch: one that the user names, or an environment below the cache directory."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

from lrbench_caffe.errors import InputError, LRBenchError
from lrbench_caffe.runtime.locate import cache_dir

VERSION = "2.14.1"  # that the tool was tested with
REQUIREMENTS = [f"torch=={VERSION}", "numpy"]


def environment_dir() -> Path:
    """The folder of the environment; ``complete`` is in it once all is installed."""
    return cache_dir() / f"torch-{VERSION}"


def installed_python() -> Path | None:
    """The environment's Python, None where it is missing or unfinished."""
    python = environment_dir() / "bin" / "python"
    return python if (environment_dir() / "complete").exists() and python.exists() else None


def torch_python(named: str | None) -> str:
    """The Python to run PyTorch in; it is installed where none is named.

    Raises:
        InputError: the named one has no PyTorch.
        LRBenchError: it cannot be installed.
    """
    if named is not None:
        path = shutil.which(named)
        if path is None:
            raise InputError(f"--torch-python {named}: no such program")
        if subprocess.run(
            [path, "-c", "import torch"], capture_output=True, check=False
        ).returncode:
            raise InputError(f"--torch-python {named}: it cannot import torch")
        return path
    return str(installed_python() or _install())


def _install() -> Path:
    """Install PyTorch with pip, which shows its progress; what an interrupted one has fetched is kept."""
    folder = environment_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two at once, one works and the other waits
        if installed_python() is None:
            print(f"PyTorch {VERSION}: installing it into {folder}", file=sys.stderr, flush=True)
            downloads = folder / "downloads"
            python = folder / "bin" / "python"
            pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input"]
            _run([sys.executable, "-m", "venv", str(folder)])
            _run([*pip, "install", "--cache-dir", str(downloads), *REQUIREMENTS])
            _run([str(python), "-c", "import torch"])
            shutil.rmtree(downloads, ignore_errors=True)
            (folder / "complete").touch()
    return folder / "bin" / "python"


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, stdout=sys.stderr, check=True)
    except subprocess.CalledProcessError as error:
        again = "run this command again to continue, or name a Python that has it: --torch-python"
        raise LRBenchError(
            f"PyTorch {VERSION} was not installed (exit code {error.returncode}); {again}"
        ) from None
