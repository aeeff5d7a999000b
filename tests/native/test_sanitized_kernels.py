"""The kernels of the fast layers by themselves, without Caffe, with AddressSanitizer and UBSan."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lrbench_caffe.native.library import SOURCES, WIDTH_FLAGS, WIDTHS, can_run

HERE = Path(__file__).parent
SANITIZE = ["-std=c++17", "-O1", "-g1", "-mfma", "-ffp-contract=off", "-pthread"]
SANITIZE += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-I", str(SOURCES)]
# AddressSanitizer sees what these would, and they take a third of the compiler's time.
SANITIZE += ["-fno-sanitize=null,object-size,pointer-overflow,nonnull-attribute"]
WARNINGS = ["-Wall", "-Wextra", "-Werror"]


def run_sanitized(program: Path, *arguments: str, **environment: str) -> None:
    done = subprocess.run(
        [str(program), *arguments],
        env={**os.environ, "GLOG_minloglevel": "2", "OPENBLAS_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.ci
@pytest.mark.timeout(3600)  # a busy machine compiles for long
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    "name, count", [("convolution_test", "12"), ("depthwise_test", "300"), ("product_test", "100")]
)
def test_the_kernels_by_themselves_with_sanitizers(compiler, tmp_path, name, count, width):
    """Without Caffe, against plain loops: buffers of exact size show every step too far."""
    program = tmp_path / name
    source = str(HERE / f"{name}.cpp")
    if not can_run(width):
        pytest.skip(f"this CPU has no vectors of {width} bits")
    flags = [*SANITIZE, *WARNINGS, *WIDTH_FLAGS[width]]
    subprocess.run([compiler, *flags, source, "-o", str(program)], check=True)
    run_sanitized(program, count, "5")
