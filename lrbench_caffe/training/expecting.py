"""Which process a training's worker will most likely be, told before the training is prepared.

A process that loads Caffe is started early by this. A wrong guess costs its time, nothing else: the
worker takes a process only if it is what it wants. Standard library only, as nothing else is loaded
yet.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from lrbench_caffe.errors import LRBenchError
from lrbench_caffe.native.library import find_library
from lrbench_caffe.runtime import locate
from lrbench_caffe.runtime.blas import kernels_to_try
from lrbench_caffe.runtime.cpu import this_cpu
from lrbench_caffe.runtime.described import description_path, read_description
from lrbench_caffe.runtime.locate import CaffePython
from lrbench_caffe.runtime.processes import WantedProcess


def expected_process(
    arguments: Sequence[str], environment: Mapping[str, str] = os.environ
) -> WantedProcess | None:
    """The process that ``train`` will want, None where that cannot be told.

    Args:
        arguments: of ``train``.
        environment: its variables.
    """
    python = _python(_value(arguments, "caffe-python"))
    info = python and read_description(description_path(python, environment), python)
    if python is None or not info:
        return None
    kernels: list[str] = []
    on_cpu = _value(arguments, "gpu") is None
    layers = _value(arguments, "layers")
    if on_cpu and layers != "stock" and (layers or find_library(info["path"]).path):
        kernels = kernels_to_try(info.get("blas_kernels"), None, this_cpu())
    return WantedProcess.here(python.command, next(iter(kernels), None), environment)


def _value(arguments: Sequence[str], flag: str) -> str | None:
    """A flag's value, in the spellings that ``train`` takes."""
    for number, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in (f"--{flag}", f"-{flag}"):
            return value if equals else next(iter(arguments[number + 1 :]), None)
    return None


def _python(named: str | None) -> CaffePython | None:
    """As ``find_caffe_python``, without trying any."""
    try:
        if named or os.environ.get(locate.VARIABLE) or locate.this_interpreter_has_caffe():
            return locate.find_caffe_python(named)
    except LRBenchError:  # which will be told
        return None
    python = locate.runtime_python()
    return CaffePython([python], "") if python else None
