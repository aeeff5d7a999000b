"""Fixtures of the fast layers' tests; there must be a library, and the runtime that it is for."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from lrbench_caffe.errors import InputError
from lrbench_caffe.native import library as native
from lrbench_caffe.native.library import find_library
from lrbench_caffe.runtime import locate
from lrbench_caffe.runtime.info import caffe_info
from lrbench_caffe.runtime.locate import find_caffe_python
from tests.caffe.conftest import caffe_program, digits, workspace  # noqa: F401


@pytest.fixture(scope="session")
def library() -> Path:
    try:
        found = find_library(caffe_info(find_caffe_python(None)).path)
    except InputError as error:
        pytest.skip(str(error))
    if found.path is None:
        pytest.skip(f"no fast layers: {found.why}")
    return found.path


@pytest.fixture(scope="session", params=native.WIDTHS)
def each_library(library: Path, request: pytest.FixtureRequest) -> Path:
    """The libraries for each width that this machine's CPU has."""
    path = native.library_path(request.param)
    if path not in native.usable_libraries():
        pytest.skip(f"no vectors of {request.param} bits here, or no library for them")
    return path


@pytest.fixture(scope="session")
def compiler() -> str:
    found = shutil.which("g++")
    if found is None:
        pytest.skip("there is no g++")
    return found


@pytest.fixture(scope="session")
def faulty(library: Path, compiler: str, request: pytest.FixtureRequest) -> Path:
    """A cache directory with the runtime and, in the place of the library, one with the faults of faulty.cpp.

    The compiler takes some ten seconds, so pytest's cache keeps what it made for the next tests.
    """
    assert request.config.cache is not None
    source = Path(__file__).with_name("faulty.cpp")
    made_from = hashlib.sha256(f"{library.name} {compiler}".encode() + source.read_bytes())
    cache = Path(request.config.cache.mkdir(f"faulty-layers-{made_from.hexdigest()[:16]}"))
    ours = cache / "lrbench_caffe"
    made = ours / library.relative_to(locate.cache_dir())
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one of those that test at once makes it for all
        if not made.exists():
            made.parent.mkdir(parents=True, exist_ok=True)
            runtime = ours / locate.runtime_dir().name
            if not runtime.exists():
                runtime.symlink_to(locate.runtime_dir())
            unfinished = made.with_suffix(".unfinished")
            command = native.compiler_command(compiler, native.headers_dir(), unfinished)
            command[command.index(str(native.SOURCES / "all.cpp"))] = str(source)
            subprocess.run([*command, f"-I{native.SOURCES}", "-O1", "-Werror"], check=True)
            unfinished.replace(made)
    return cache
