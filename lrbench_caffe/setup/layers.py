"""The fast layers and the headers of Caffe that they are compiled with."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from lrbench_caffe import installation
from lrbench_caffe.native import library
from lrbench_caffe.runtime import locate
from lrbench_caffe.setup import runtime as caffe_runtime
from lrbench_caffe.setup.debian import RELEASE, TRIPLETS, Apt, unpack
from lrbench_caffe.setup.folders import digest, leftovers, workplace
from lrbench_caffe.setup.processes import SetupError, locked, run, stopping
from lrbench_caffe.setup.progress import elapsed, say

SUBJECT = "fast layers"
KEPT_BUILDS = 20  # those of other checkouts, and of sources that change back

# What the fast layers are compiled with: headers, and the generator of caffe.pb.h.
HEADER_PACKAGES = [
    "libcaffe-dev", "libboost1.74-dev", "libprotobuf-dev", "libgoogle-glog-dev", "libgflags-dev",
    "libhdf5-dev", "libopenblas-pthread-dev", "protobuf-compiler", "libprotoc23",
]  # fmt: skip
# Debian's own caffe.pb.h was made by another protoc than Debian 11's. caffe.proto is inside
# pycaffe.
WRITE_DESCRIPTOR = """\
import sys
from caffe.proto import caffe_pb2
from google.protobuf import descriptor_pb2
files = descriptor_pb2.FileDescriptorSet()
files.file.add().ParseFromString(caffe_pb2.DESCRIPTOR.serialized_pb)
files.file[0].name = "caffe/proto/caffe.proto"
with open(sys.argv[1], "wb") as file:
    file.write(files.SerializeToString())
"""


def make_layers(force: bool) -> None:
    """Build the fast layers for the runtime, unless they exist; say why if they cannot be built.

    Args:
        force: whether to build them anew where they are there.
    """
    lacking = library.lacking_of_machine()
    try:
        compiler, name = _compiler_of(os.environ.get("CXX") or "g++")
        if lacking is None and _are_there() and not force:
            say(SUBJECT, "ready")
            return
        if lacking is None and compiler is None:
            again = f"run {installation.setup_command()} again"
            lacking = f"there is no {name}; install it and {again}"
        if lacking is None and compiler is not None:
            _build(compiler, force)
    except (SetupError, OSError) as error:
        if stopping():
            raise
        lacking = (
            f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        )
    if lacking:
        say(SUBJECT, f"not built; Caffe's own layers are used: {lacking}")


def _compiler_of(variable: str) -> tuple[str | None, str]:
    """Return the compiler with its options, None where there is no such program, and the program's name.

    Raises:
        SetupError: the variable cannot be understood.
    """
    try:
        name, *options = shlex.split(variable)
    except ValueError:  # an open quotation, or nothing but blanks
        raise SetupError(f"CXX does not name a command: {variable}") from None
    path = shutil.which(name)
    return (shlex.join([path, *options]) if path else None), name


def _are_there() -> bool:
    """Tell whether there is a library that computes what Caffe's own layers do."""
    if not all(library.library_path(width).is_file() for width in library.WIDTHS):
        return False
    return all(_check(path, check=False).returncode == 0 for path in library.usable_libraries())


def _check(path: Path, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Let a library compare itself with Caffe's own layers."""
    worker = Path(locate.__file__).parent
    python = str(locate.runtime_python())
    command = [python, "-c", library.CHECK_LAYERS, str(worker), str(path)]
    return run(command, cwd=path.parent, check=check)


def _build(compiler: str, force: bool) -> None:
    """Compile both libraries, let them compare themselves with Caffe's layers, and put them in place."""
    headers, folder = library.headers_dir(), library.libraries_dir()
    with locked(headers.parent / "setup.lock", SUBJECT):
        if _are_there() and not force:  # another setup has built it meanwhile
            say(SUBJECT, "ready")
            return
        for leftover in leftovers(headers):
            shutil.rmtree(leftover, ignore_errors=True)
        with workplace(headers) as work:
            if not _headers_are_current(headers):
                _fetch_headers(work, headers)
            say(SUBJECT, "compiling them")
            for width in library.WIDTHS:
                built = work / library.library_path(width).name
                command = library.compiler_command(compiler, headers, built, width)
                run(command, cwd=work, env={**os.environ, "LC_ALL": "C"})
                if library.can_run(width):
                    _check(built)
            folder.mkdir(exist_ok=True)
            for width in library.WIDTHS:
                target = library.library_path(width)
                (work / target.name).replace(target)
            builds = sorted(folder.glob("*.so"), key=lambda path: path.stat().st_mtime)
            for other in builds[:-KEPT_BUILDS]:
                other.unlink(missing_ok=True)
    say(SUBJECT, f"ready ({elapsed()})")


def _headers_fingerprint() -> str:
    return digest(RELEASE, HEADER_PACKAGES, WRITE_DESCRIPTOR, caffe_runtime.fingerprint())


def _headers_are_current(headers: Path) -> bool:
    """Tell whether complete headers of this recipe are there. Only complete ones ever have this name."""
    try:
        return (headers / "made_from").read_text() == _headers_fingerprint()
    except OSError:
        return False


def _fetch_headers(work: Path, headers: Path) -> None:
    """Unpack Caffe's development headers, with a caffe.pb.h that fits, and move them to their place."""
    apt = Apt.below(work)
    packages = work / "packages"
    packages.mkdir()
    number = len(HEADER_PACKAGES)
    say(SUBJECT, f"downloading {number} packages (19 MB) of Debian {RELEASE} from {apt.mirror}")
    apt.run("download", *HEADER_PACKAGES, cwd=packages)
    unpack(sorted(packages.glob("*.deb")), work / "root")
    new = work / "new"
    (new / "generated").mkdir(parents=True)
    _generate_messages(work, new / "generated", TRIPLETS[apt.arch])
    (work / "root" / "usr" / "include").rename(new / "include")
    (new / "made_from").write_text(_headers_fingerprint())
    shutil.rmtree(headers, ignore_errors=True)
    new.rename(headers)


def _generate_messages(work: Path, target: Path, triplet: str) -> None:
    """Write caffe/proto/caffe.pb.h with Debian 11's protoc, which runs on the runtime's libraries."""
    descriptor = work / "descriptor"
    run([str(locate.runtime_python()), "-c", WRITE_DESCRIPTOR, str(descriptor)], cwd=work)
    runtime = locate.runtime_dir() / "root"
    own, usr = work / "root" / "usr", runtime / "usr" / "lib" / triplet
    folders = [own / "lib" / triplet, runtime / "lib" / triplet, usr]
    loader = str(runtime / "lib" / triplet / "ld-2.31.so")
    protoc = [
        str(own / "bin" / "protoc"),
        f"--descriptor_set_in={descriptor}",
        f"--cpp_out={target}",
    ]
    path = ":".join(map(str, folders))
    run([loader, "--library-path", path, *protoc, "caffe/proto/caffe.proto"], cwd=work)
