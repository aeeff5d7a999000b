"""Fixtures of the fast layers' tests; there must be a library, and the runtime that it is for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lrbench_caffe.errors import InputError
from lrbench_caffe.native.library import find_library
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


@pytest.fixture(scope="session")
def compiler() -> str:
    found = shutil.which("g++")
    if found is None:
        pytest.skip("there is no g++")
    return found
