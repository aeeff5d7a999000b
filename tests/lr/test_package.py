"""The package stands alone, says what it exports, and its examples run."""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.util
import sys
import sysconfig
from pathlib import Path

import pytest

import lrbench_caffe.lr

FILES = sorted(Path(lrbench_caffe.lr.__file__).parent.glob("*.py"))


def imported(tree):
    """The first part of every absolute import in a file; "." for relative ones within the package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level or node.module.split(".")[0]


def is_standard(module):
    if hasattr(sys, "stdlib_module_names"):  # Python 3.10
        return module in sys.stdlib_module_names
    origin = getattr(importlib.util.find_spec(module), "origin", None) or ""
    return module in sys.builtin_module_names or (
        origin.startswith(sysconfig.get_path("stdlib")) and "-packages" not in origin
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_imports_numpy_the_standard_library_and_itself_only(path):
    found = set(imported(ast.parse(path.read_text())))
    assert {module for module in found - {"numpy", "."} if not is_standard(module)} == set()


def test_other_packages_are_not_taken_for_the_standard_library():
    assert is_standard("math") and is_standard("typing")
    assert (
        not is_standard("numpy") and not is_standard("pytest") and not is_standard("lrbench_caffe")
    )


def test_there_are_files_to_read():
    assert {"functions", "policy", "text"} <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_examples_in_docstrings(path):
    name = "lrbench_caffe.lr" + ("" if path.stem == "__init__" else f".{path.stem}")
    failures, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failures == 0


def test_what_is_exported_is_there_and_documented():
    assert len(set(lrbench_caffe.lr.__all__)) == len(lrbench_caffe.lr.__all__)
    for name in lrbench_caffe.lr.__all__:
        assert getattr(lrbench_caffe.lr, name) is not None, name
    for name in (
        "parse",
        "from_caffe",
        "complete",
        "complete_text",
        "describe_functions",
        "Policy",
    ):
        assert name in lrbench_caffe.lr.__all__ and getattr(lrbench_caffe.lr, name).__doc__, name
