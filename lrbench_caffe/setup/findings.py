"""What the doctor finds: the driver, a Caffe, what it can do, and how to fix what is missing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lrbench_caffe import __version__, installation
from lrbench_caffe.errors import LRBenchError
from lrbench_caffe.native.library import (
    CHECK_LAYERS,
    WIDE,
    can_run,
    find_library,
    usable_libraries,
)
from lrbench_caffe.runtime import blas, worker
from lrbench_caffe.runtime.cpu import this_cpu
from lrbench_caffe.runtime.info import caffe_info
from lrbench_caffe.runtime.locate import CaffePython, caffe_program_of, find_caffe_python
from lrbench_caffe.runtime.replies import CaffeInfo

PACKAGES = (
    "numpy", "protobuf", "psycopg2-binary", "matplotlib", "lmdb", "h5py", "rich", "SQLAlchemy",
    "alembic", "argcomplete",
)  # fmt: skip
CHECK_SECONDS = 180.0  # of the fast layers' check, with the import of caffe from a cold disk


# For Caffe's Python, with the worker's folder: how fast Caffe's BLAS multiplies matrices.
MEASURE_PRODUCTS = """\
from __future__ import print_function
import ctypes, os, sys
import caffe
import numpy
sys.path.insert(0, sys.argv[1])
import worker
blas = ctypes.CDLL(worker.blas_libraries(worker.mapped_libraries())[0])
n = 512
a, b, c = (numpy.ones((n, n), numpy.float32) for _ in range(3))
pointers = [ctypes.c_void_p(x.ctypes.data) for x in (a, b, c)]
one, zero, size = ctypes.c_float(1), ctypes.c_float(0), ctypes.c_int(n)
def multiply():
    blas.cblas_sgemm(101, 111, 111, size, size, size, one, pointers[0], size, pointers[1], size,
                     zero, pointers[2], size)
multiply()
best = 0
for _ in range(10):
    began = sum(os.times()[:2])
    count = 0
    while sum(os.times()[:2]) - began < 0.05:
        multiply()
        count += 1
    best = max(best, count * n ** 3 / (sum(os.times()[:2]) - began))
print(best / 1e9)
"""


@dataclass(frozen=True)
class Finding:
    """One property that was examined.

    Attributes:
        name: what it is.
        value: what was found.
        remedy: what to do about it; None where all is well.
        fatal: True where no training is possible with it.
    """

    name: str
    value: str
    remedy: str | None = None
    fatal: bool = False


def examine(explicit: str | None) -> Iterator[Finding]:
    """Look at the driver and at the Caffe that would be used.

    Args:
        explicit: the value of --caffe-python.
    """
    yield Finding("lrbench_caffe", __version__)
    yield Finding("driver's Python", f"{platform.python_version()} ({sys.executable})")
    yield from _packages()
    try:
        python = find_caffe_python(explicit)
        yield Finding("Caffe's Python", f"{' '.join(python.command)} ({python.origin})")
        info = caffe_info(python, fresh=True)
        yield from _caffe(python, info)
        program = caffe_program_of(info.path) or "none found with it"
        yield Finding("caffe program", f"{program} (only for comparisons with caffe train)")
    except LRBenchError as error:
        yield Finding("Caffe", "none that works", str(error), fatal=True)


def _packages() -> Iterator[Finding]:
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            yield Finding(
                name,
                "not installed by pip",
                f"pip install {name}, unless it is installed by other means",
            )
    yield Finding("packages", ", ".join(versions))


def _caffe(python: CaffePython, info: CaffeInfo) -> Iterator[Finding]:
    yield Finding("Caffe", f"{info.caffe} in {info.path}, Python {info.python}")
    if info.writable_base_lr:
        yield Finding("learning rate", "set directly (base_lr is writable): all solver types")
    else:
        yield Finding(
            "learning rate",
            "set through the gradients (base_lr is not writable, as in Caffe 1.0)",
            "--lr works with SGD and Nesterov only, a solver's own lr_policy with all types; "
            "with a Caffe from December 2017 or newer, both work with all types",
        )
    yield _device(info)
    yield Finding("layers", f"{len(info.layers)} types")
    yield layers_finding(python, info)
    yield Finding("BLAS", ", ".join(info.blas) or "not recognised among the loaded libraries")
    if info.blas_kernels is not None:
        yield kernels_finding(python, info.blas_kernels)


def layers_finding(python: CaffePython, info: CaffeInfo) -> Finding:
    library = find_library(info.path)
    if library.path is None:
        return Finding(
            "CPU layers", f"Caffe's own; no fast ones, because {library.why}", library.remedy
        )
    setup = f"run {installation.setup_command()}"
    problem = _layers_problem(python, info, library.path)
    if problem:
        problem = f"Caffe's own; the fast ones ({library.path}) fail: {problem}"
        return Finding("CPU layers", problem, setup)
    widest = usable_libraries()[0]
    if widest == library.path:
        remedy = f"{setup}: those for AVX-512 are not built" if can_run(WIDE) else None
        stock = "train --layers stock uses Caffe's own"
        return Finding("CPU layers", f"fast ({library.path}); {stock}", remedy)
    problem = _layers_problem(python, info, widest)
    if problem:
        problem = f"fast ({library.path}); those for AVX-512 ({widest}) fail: {problem}"
        return Finding("CPU layers", problem, setup)
    return Finding(
        "CPU layers",
        f"fast ({widest}, for AVX-512); train --layers fast-avx2 uses narrower vectors, "
        "--layers stock Caffe's own",
    )


def _layers_problem(python: CaffePython, info: CaffeInfo, library: Path) -> str | None:
    """The result of the check of the fast layers before each training, None if they pass.

    It has the BLAS kernels that a training with them has.
    """
    kernels = blas.kernels_to_try(info.blas_kernels, None, this_cpu())[:1]
    try:
        done = subprocess.run(
            [*python.command, "-c", CHECK_LAYERS, str(Path(worker.__file__).parent), str(library)],
            env={
                **os.environ,
                "GLOG_minloglevel": "2",
                **({blas.VARIABLE: kernels[0]} if kernels else {}),
            },
            capture_output=True,
            text=True,
            errors="replace",
            timeout=CHECK_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"their check takes longer than {CHECK_SECONDS:.0f} s"
    if done.returncode == 0:
        return None
    return (done.stderr.strip() or f"their check ended with {done.returncode}").splitlines()[-1]


def kernels_finding(python: CaffePython, kernels: str) -> Finding:
    """OpenBLAS's kernels, and what they cost on a CPU that it does not know."""
    better = blas.better_kernels(kernels, this_cpu())
    if not better:
        return Finding("BLAS kernels", kernels)
    own, best = (_product_rate(python, name) for name in (kernels, better[0]))
    cost = (
        f": {best:.0f} billion multiply-adds a second instead of {own:.0f}" if own and best else ""
    )
    chosen = blas.is_chosen_by_user(kernels)
    named = os.environ.get(blas.VARIABLE)
    who = "OpenBLAS does not know this CPU"
    if named is not None:  # "" is not the same as none: OpenBLAS looks for kernels of that name
        who = f"{blas.VARIABLE} is {named or 'empty'}, which OpenBLAS does not have here"
    if chosen:
        who = f"{blas.VARIABLE} names them"
    remedy = (
        f"{who}; {better[0]} kernels are faster{cost}. "
        f"Set {blas.VARIABLE}={better[0]} for caffe train and --layers stock"
    )
    if not chosen:
        remedy += "; trainings with fast layers do so themselves"
    return Finding("BLAS kernels", kernels, remedy)


def _product_rate(python: CaffePython, kernels: str) -> float | None:
    """Billion multiply-adds a second of a product of matrices, None where it cannot be measured."""
    environment = {**os.environ, "GLOG_minloglevel": "2", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [*python.command, "-c", MEASURE_PRODUCTS, str(Path(worker.__file__).parent)],
            env={**environment, blas.VARIABLE: kernels},
            capture_output=True,
            text=True,
            timeout=CHECK_SECONDS,
            check=True,
        )
        return float(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _device(info: CaffeInfo) -> Finding:
    if not info.cuda:
        return Finding("device", "CPU (this is a CPU-only build)")
    if info.gpus == 0:
        remedy = "look at nvidia-smi; in Docker, start with --gpus all"
        return Finding("device", "CUDA build, but no GPU is visible", remedy)
    return Finding("device", f"CUDA build, {info.gpus} GPU(s)")
