"""All fast layers with Caffe's library, with AddressSanitizer and UBSan."""

from __future__ import annotations

import re
import subprocess

import pytest

from lrbench_caffe.native.library import INCLUDES, WIDTH_FLAGS, WIDTHS, can_run, headers_dir
from lrbench_caffe.runtime.locate import runtime_dir
from tests.native.test_sanitized_kernels import HERE, SANITIZE, WARNINGS, run_sanitized

# What is the machine's own, in whose place the runtime's may not come: C and C++ libraries.
SYSTEM = r"ld-|lib(c|m|mvec|pthread|dl|rt|resolv|util|nsl|nss_.*|anl|thread_db|stdc\+\+|gcc_s)[-.]"


@pytest.mark.ci
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("width", WIDTHS)
def test_all_layers_with_sanitizers(library, compiler, tmp_path, width):
    """With Caffe's library, but in a program of this machine, for its AddressSanitizer."""
    root = runtime_dir() / "root"
    triplet = root / "usr" / "lib" / "x86_64-linux-gnu"
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    for folder in (
        triplet / "openblas-pthread",
        root / "lib" / triplet.name,
        triplet,
        root / "usr" / "lib",
    ):
        for file in folder.glob("*.so*"):
            if not re.match(SYSTEM, file.name) and not (libraries / file.name).exists():
                (libraries / file.name).symlink_to(file.resolve())
    program = tmp_path / "layers_test"
    if not can_run(width):
        pytest.skip(f"this CPU has no vectors of {width} bits")
    command = [compiler, *SANITIZE, *WARNINGS, "-fno-sanitize=vptr", "-DCPU_ONLY"]
    command += WIDTH_FLAGS[width]
    for name in INCLUDES:
        command += ["-isystem", str(headers_dir() / name)]
    command += [str(HERE / "layers_test.cpp"), "-o", str(program), "-Wl,--allow-shlib-undefined"]
    for name in ("libcaffe", "libglog", "libprotobuf"):
        command.append(str(next(libraries.glob(name + ".so.*"))))
    subprocess.run(command, check=True)
    run_sanitized(
        program, "100", "5", LD_LIBRARY_PATH=str(libraries), ASAN_OPTIONS="detect_leaks=0"
    )
