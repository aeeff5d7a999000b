"""The library of fast layers: its sources, its place, and the Caffe it is built for.

Setup builds it and uses this module before anything is installed. A library fits one Caffe only,
because its classes derive from that Caffe's. So it is built for the runtime that setup makes, whose
headers are known.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
from dataclasses import dataclass
from pathlib import Path

from lrbench_caffe import installation
from lrbench_caffe.runtime import locate
from lrbench_caffe.runtime.cpu import this_cpu

SOURCES = Path(__file__).parent / "src"
CPU_FEATURES = ("avx2", "fma")
FLAGS = ["-shared", "-fPIC", "-pthread", "-std=c++17", "-O3", "-mfma", "-ffp-contract=off"]
FLAGS += ["-DCPU_ONLY", "-Wall", "-Wextra"]
NARROW, WIDE = 256, 512  # bits of a vector; the sources are compiled for each, into two libraries
WIDTHS = (WIDE, NARROW)
_WIDE_FEATURES = ("avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl")
WIDTH_FLAGS = {
    NARROW: ["-mavx2"],
    # GCC warns of uninitialized vectors in its own headers for AVX-512.
    WIDE: [f"-m{name}" for name in _WIDE_FEATURES]
    + ["-Wno-uninitialized", "-Wno-maybe-uninitialized"],
}
INCLUDES = [
    "generated",  # caffe.pb.h; Debian's own does not fit Debian 11's protobuf
    "include",
    "include/hdf5/serial",
    "include/x86_64-linux-gnu/openblas-pthread",
]
# For Caffe's Python, with the worker's folder and a library: the check, as before a training.
CHECK_LAYERS = """\
import sys
import caffe
sys.path.insert(0, sys.argv[1])
import worker
sys.exit(next(filter(None, worker.check_fast_layers(sys.argv[2])), 0))
"""


@dataclass(frozen=True)
class FoundLibrary:
    """The library for a Caffe.

    Attributes:
        path: where it is, None where there is none.
        why: why there is none.
        remedy: what to do about it, None where nothing helps.
    """

    path: Path | None
    why: str = ""
    remedy: str | None = None


def find_library(caffe_path: str) -> FoundLibrary:
    """The fast layers for a Caffe.

    Args:
        caffe_path: the folder of its pycaffe.
    """
    lacking = lacking_of_machine()
    if lacking:
        return FoundLibrary(None, lacking)
    if (locate.runtime_dir().resolve() / "root") not in Path(caffe_path).resolve().parents:
        maker = installation.setup_command()
        return FoundLibrary(
            None, f"this Caffe is not the one that {maker} makes; the headers of others are unknown"
        )
    path = library_path()
    if not path.is_file():
        remedy = f"run {installation.setup_command()}; it needs g++"
        return FoundLibrary(None, "they are not built for this version", remedy)
    return FoundLibrary(path)


def can_run(width: int) -> bool:
    """Whether this machine's CPU has vectors of so many bits; 256 are ``lacking_of_machine``'s."""
    return width == NARROW or this_cpu().has(*_WIDE_FEATURES)


def usable_libraries(width: int | None = None) -> list[Path]:
    """The libraries that this machine's CPU can run, that of the widest vectors first.

    Args:
        width: bits of a vector, at most; None for all.
    """
    wide = can_run(WIDE) and width != NARROW and library_path(WIDE).is_file()
    return [library_path(width) for width in (WIDTHS if wide else (NARROW,))]


def lacking_of_machine() -> str | None:
    """What this machine's CPU lacks, None where it has all."""
    if platform.machine() != "x86_64":
        return f"they are written for x86-64, this machine is {platform.machine()}"
    cpu = this_cpu()
    if cpu.features is None:
        return "the features of this CPU are unknown (no /proc/cpuinfo)"
    missing = [name for name in CPU_FEATURES if not cpu.has(name)]
    return (
        f"this CPU has no {' and no '.join(name.upper() for name in missing)}" if missing else None
    )


def headers_dir() -> Path:
    """Caffe's development headers, which setup fetches. Exists only once it is complete."""
    return locate.cache_dir() / "caffe-headers"


def libraries_dir() -> Path:
    return locate.cache_dir() / "caffe-layers"


def library_path(width: int = NARROW) -> Path:
    """Where the library of these sources for the runtime's Caffe is, or is to be.

    Args:
        width: bits of its vectors.
    """
    return libraries_dir() / f"{_fingerprint(width)}.so"


def compiler_command(compiler: str, headers: Path, output: Path, width: int = NARROW) -> list[str]:
    """The command that builds a library; it takes about ten seconds.

    Args:
        compiler: as of the variable CXX: a program, with options or without.
        headers: the folder of Caffe's headers.
        output: the library.
        width: bits of its vectors.
    """
    includes = [part for name in INCLUDES for part in ("-isystem", str(headers / name))]
    flags = [*FLAGS, *WIDTH_FLAGS[width], *includes]
    return [*shlex.split(compiler), *flags, str(SOURCES / "all.cpp"), "-o", str(output)]


def _fingerprint(width: int) -> str:
    """A digest of everything that decides the library: sources, flags, and its Caffe."""
    parts = hashlib.sha256(json.dumps([FLAGS, WIDTH_FLAGS[width], INCLUDES]).encode())
    for source in sorted(SOURCES.glob("*.[ch]*")):
        parts.update(source.name.encode() + b"\0" + source.read_bytes())
    for library in sorted((locate.runtime_dir() / "root").glob("usr/lib/*/libcaffe.so.*.*")):
        status = library.stat()
        parts.update(f"{library.name} {status.st_size} {status.st_mtime_ns}".encode())
    return parts.hexdigest()[:16]
