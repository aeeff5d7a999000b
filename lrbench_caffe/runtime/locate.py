"""Find the Python that can import caffe, without importing caffe here. Standard library only.

Setup uses this module before anything is installed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lrbench_caffe import installation
from lrbench_caffe.errors import InputError, TrainingError, named
from lrbench_caffe.runtime.faults import passes, signal_of
from lrbench_caffe.runtime.liveness import ends_within

VARIABLE = "LRBENCH_CAFFE_PYTHON"
PATH_NAMES = ("python3", "python2")
PROBE_SECONDS = 120.0  # a first import from a cold network disk takes its time

# A directory that happens to be called caffe can be imported too, but has no solver in it.
PROBE = "from caffe import SGDSolver"


@dataclass(frozen=True)
class CaffePython:
    """An interpreter that the worker can run in.

    ``command`` starts it, arguments are appended to it; ``origin`` says in a few words where it was
    found.
    """

    command: list[str]
    origin: str


def find_caffe_python(explicit: str | None = None) -> CaffePython:
    """Return the Python to run Caffe in.

    What the user names is taken at its word and not tried: the worker reports it when caffe cannot
    be imported there. Otherwise the first one that has caffe of: this interpreter, the runtime that
    setup made, every python3 and python2 on the PATH.

    Args:
        explicit: the a path, or a command on the PATH.

    Raises:
        InputError: the named interpreter cannot be run, or there is no Caffe anywhere.
        TrainingError: a Python on the PATH crashed, hung or was killed when it was tried. No other
            one, which may have another Caffe, is taken in its place.
    """
    if explicit is not None:
        parameter = named("caffe_python")
        return CaffePython([named_interpreter(parameter, explicit)], parameter)
    if os.environ.get(VARIABLE):
        return CaffePython([named_interpreter(VARIABLE, os.environ[VARIABLE])], VARIABLE)
    if this_interpreter_has_caffe():
        return CaffePython([sys.executable], "this Python")
    python = runtime_python()
    if python is not None:
        return CaffePython([python], f"the runtime made by {installation.setup_command()}")
    another = f"{VARIABLE} or {named('caffe_python')}"
    try:
        python = path_python_with_caffe()
    except TrainingError as error:
        raise TrainingError(f"{error}; {another} names another Python") from error
    if python is not None:
        return CaffePython([python], f"{os.path.basename(python)} on the PATH")
    raise InputError(
        f"no Caffe found: this Python ({sys.executable}) has none, there is no runtime in {runtime_dir()}, "
        f"and no {' or '.join(PATH_NAMES)} on the PATH can import caffe; "
        f"run {installation.setup_command()}, or name a Python that can with {another}"
    )


def caffe_binary() -> str | None:
    """Return the ``caffe`` program: that of the runtime, else the one on the PATH, else None."""
    return shutil.which("caffe", path=str(runtime_dir())) or shutil.which("caffe")


def caffe_program_of(package: str) -> str | None:
    """Return the ``caffe`` program that was built or installed with a pycaffe, or None where it has none.

    Args:
        package: the folder of pycaffe, as its worker tells it.
    """
    if Path(package).is_relative_to(runtime_dir()):
        return shutil.which("caffe", path=str(runtime_dir()))
    for folder in Path(package).resolve().parents:
        for place in ("build/tools", ".build_release/tools", "distribute/bin", "bin"):
            program = shutil.which("caffe", path=str(folder / place))
            if program:
                return program
    return None


def runtime_dir() -> Path:
    """Return the directory of the runtime that setup makes. It exists only once it is complete."""
    return cache_dir() / "caffe-runtime"


def cache_dir() -> Path:
    """Return this project's directory in the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path in the variable is invalid and to be ignored.
    return (
        Path(base) if os.path.isabs(base) else Path(os.path.expanduser("~"), ".cache")
    ) / "lrbench_caffe"


def runtime_python() -> str | None:
    """Return the launcher of the runtime's Python, or None where there is no runtime."""
    return shutil.which("python", path=str(runtime_dir()))


def named_interpreter(source: str, name: str) -> str:
    """Return the absolute path of an interpreter that ``source`` (a parameter or a variable) names."""
    path = os.path.expanduser(name)
    program = shutil.which(path)
    if program is not None:
        # Absolute, for the worker may start in another directory; symbolic links stay: they make a
        # venv.
        return os.path.abspath(program)
    if os.path.isdir(path):
        raise InputError(f"{source}: {name} is a directory, not a Python interpreter")
    if os.path.exists(path):
        raise InputError(f"{source}: {name} is not executable")
    raise InputError(f"{source}: {name} does not exist")


def this_interpreter_has_caffe() -> bool:
    """Tell whether caffe can be imported here, by looking for it only."""
    try:
        spec = importlib.util.find_spec("caffe")
    except (ImportError, ValueError):
        return False
    # Without an origin it is a mere directory called caffe.
    return spec is not None and spec.origin is not None


def path_python_with_caffe() -> str | None:
    """Return the first python3 or python2 on the PATH that can import caffe, or None."""
    return next((python for python in path_pythons() if can_import_caffe(python)), None)


def path_pythons() -> Iterator[str]:
    """Yield every python3, then every python2 on the PATH.

    Every one, because that of a virtual environment hides the system's, which may be the one with
    caffe.
    """
    directories = os.environ.get("PATH", os.defpath).split(os.pathsep)
    for name in PATH_NAMES:
        seen = set()
        for directory in directories:
            python = shutil.which(name, path=directory) if directory else None
            real = os.path.realpath(directory)
            if python is not None and real not in seen:
                seen.add(real)
                yield os.path.abspath(python)


def can_import_caffe(python: str) -> bool:
    """Tell whether an interpreter can import caffe, by trying.

    Raises:
        TrainingError: it did not come to an end that tells.
    """
    try:
        process = subprocess.Popen(
            [python, "-c", PROBE],
            cwd="/",  # not to find a directory called caffe where the user happens to be
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError as error:
        if passes(error):
            raise TrainingError(f"cannot start {python}: {error.strerror}") from error
        return False
    with process:
        hangs = not ends_within(process, PROBE_SECONDS)
        if hangs:
            process.kill()
    ended_by = signal_of(process.returncode)
    if ended_by is not None:
        how = (
            f"gave no sign of life for {PROBE_SECONDS:g} s"
            if hangs
            else f"was killed by {ended_by.name}"
        )
        raise TrainingError(f"{python} {how} while it imported caffe")
    return process.returncode == 0
