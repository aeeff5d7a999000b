"""The Caffe runtime: Debian 11's Caffe with its own Python and C library, in the cache directory."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from lrbench_caffe import installation
from lrbench_caffe.errors import LRBenchError
from lrbench_caffe.runtime import locate
from lrbench_caffe.setup.debian import (
    LEFT_OUT,
    RELEASE,
    Apt,
    architecture,
    keep_packages,
    require_tools,
    unpack,
)
from lrbench_caffe.setup.folders import digest, leftovers, update, workplace, write_atomically
from lrbench_caffe.setup.processes import SetupError, locked, no_space, run
from lrbench_caffe.setup.progress import elapsed, say

PACKAGES = ["python3-caffe", "caffe", "libopenblas0-pthread"]
NEEDED_MEGABYTES = 1000
# Of Caffe's source package: the log parser and the example nets, which the tests compare ours with.
SOURCE_FILES = ["tools/extra/*.py", "examples/mnist/*.prototxt", "examples/cifar10/*.prototxt"]
# The fingerprint of the same recipe when the launchers still were a part of it.
FORMER_FINGERPRINT = "aaf357097854f365"

# Nothing of the machine's own Python and libraries may leak in: its libraries are built for another
# C library (hence also LOCPATH and GCONV_PATH), its Python packages for another Python. Variables
# that tune a program, such as OPENBLAS_NUM_THREADS, pass through. The caffe binary has a Python
# inside, too. A user's PYTHONPATH is where the modules of Caffe's Python layers are. Python puts it
# before all else, so that the runtime's own folders are named there first: a numpy for another
# Python must not be found.
LAUNCHER = """\
#!/bin/sh
# Starts the {program} of Debian {release} that lies beside this file. Made by the setup of lrbench_caffe.
here=$(readlink -f -- "$0") || exit 127
root=${{here%/*}}/root
lib=$root/usr/lib/{triplet}
own=$root/usr/lib/{python}:$root/usr/lib/{python}/lib-dynload:$root/usr/lib/python3/dist-packages
unset LD_LIBRARY_PATH LD_PRELOAD LD_AUDIT PYTHONSTARTUP PYTHONUSERBASE PYTHONEXECUTABLE
unset PYTHONPLATLIBDIR PYTHONPYCACHEPREFIX PYTHONINSPECT PYTHONOPTIMIZE PYTHONDEVMODE PYTHONMALLOC
[ -z "$PYTHONPATH" ] || export PYTHONPATH="$own:$PYTHONPATH"
export PYTHONHOME="$root/usr" PYTHONNOUSERSITE=1 PYTHONUTF8=1
export LOCPATH="$root/usr/lib/locale" GCONV_PATH="$lib/gconv"
exec "$root/lib/{triplet}/ld-2.31.so" --inhibit-cache \\
    --library-path "$lib/openblas-pthread:$root/lib/{triplet}:$lib:$root/lib:$root/usr/lib" \\
    "$root/usr/bin/{program}" "$@"
"""

# Debian's google, which contains protobuf, is not a package but a plain folder; a package would take
# its place wherever it stands on the path.
GOOGLE_INIT = """\
# Made by the setup of lrbench_caffe.
__path__ = __import__("pkgutil").extend_path(__path__, __name__)
"""

TRAINING_STEP = """\
import caffe
with open("net.prototxt", "w") as net:
    net.write('''
        layer {
            name: "data" type: "DummyData" top: "data" top: "label"
            dummy_data_param {
                shape { dim: 4 dim: 3 } data_filler { type: "gaussian" }
                shape { dim: 4 } data_filler { type: "constant" value: 1 }
            }
        }
        layer {
            name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
            inner_product_param { num_output: 2 weight_filler { type: "xavier" } }
        }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
    ''')
with open("solver.prototxt", "w") as solver:
    solver.write('net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 1 solver_mode: CPU')
solver = caffe.SGDSolver("solver.prototxt")
before = solver.net.params["ip"][0].data.copy()
solver.step(1)
assert (solver.net.params["ip"][0].data != before).any(), "the training step did not change the weights"
"""


def caffe_already_there() -> str | None:
    """Return a description of a Caffe that needs no runtime of ours, or None.

    Raises:
        SetupError: LRBENCH_CAFFE_PYTHON names something that cannot import caffe.
    """
    named = os.environ.get(locate.VARIABLE)
    if named:
        try:
            python = locate.named_interpreter(locate.VARIABLE, named)
            has_caffe = locate.can_import_caffe(python)
        except LRBenchError as error:
            raise SetupError(str(error)) from None
        if not has_caffe:
            remedy = "unset it to let setup make a Caffe"
            raise SetupError(f"{locate.VARIABLE}: {named} cannot import caffe; {remedy}")
        return f"{python} ({locate.VARIABLE})"
    # In a clone, the program will run in another Python than setup does.
    if installation.clone() is None and locate.this_interpreter_has_caffe():
        return f"{sys.executable} (this Python)"
    if locate.runtime_python():
        return None
    try:
        python_on_path = locate.path_python_with_caffe()
    except LRBenchError:  # one that crashes
        return None
    return f"{python_on_path} (on the PATH)" if python_on_path else None


def make_runtime(force: bool) -> None:
    """Make the Caffe runtime in the user's cache directory, unless it is there.

    Args:
        force: whether to make it anew where it is there.

    Raises:
        SetupError: it cannot be made. What was downloaded is kept for the next time.
    """
    runtime = locate.runtime_dir()
    if is_current(runtime) and not force and not leftovers(runtime):
        _tell_ready(runtime)
        return
    require_tools()
    architecture()
    runtime.parent.mkdir(parents=True, exist_ok=True)
    kept = runtime.parent / "caffe-packages"
    with locked(runtime.parent / "setup.lock", "Caffe"):
        for leftover in leftovers(runtime):
            keep_packages(leftover / "cache" / "archives", kept)
            shutil.rmtree(leftover, ignore_errors=True)
        if is_current(runtime) and not force:
            shutil.rmtree(kept, ignore_errors=True)
            _tell_ready(runtime)
            return
        if shutil.disk_usage(runtime.parent).free < NEEDED_MEGABYTES * 1e6:
            needed = f"the runtime needs {NEEDED_MEGABYTES} MB"
            raise SetupError(f"{no_space(runtime.parent)}; {needed}")
        with workplace(runtime) as work:
            _build(work, runtime, kept)


def _tell_ready(runtime: Path) -> None:
    _write_launchers(runtime)
    say("Caffe", f"ready in {runtime}")


def _build(work: Path, runtime: Path, kept: Path) -> None:
    """Build the runtime below ``work``, check it, and move it to its place."""
    new = work / "new"
    new.mkdir()
    apt = Apt.below(work)
    packages = apt.fetch("Caffe", PACKAGES, kept)
    source = work / "source"
    source.mkdir()
    apt.run("--download-only", "source", "caffe", cwd=source)
    say("Caffe", "unpacking and checking it with one training step")
    unpack(packages, new / "root")
    _unpack_source(source, new / "source")
    _write_launchers(new)
    versions = _check(new, work / "scratch")
    note = {"made_from": fingerprint(), "versions": versions}
    write_atomically(new / "runtime.json", json.dumps(note))
    if runtime.exists():
        runtime.rename(work / "old")
    new.rename(runtime)
    say("Caffe", f"ready in {runtime} ({versions}; {elapsed()})")


def _unpack_source(source: Path, target: Path) -> None:
    """Unpack the few files that are wanted of Caffe's source."""
    (tarball,) = source.glob("caffe_*.orig.tar.*")
    target.mkdir()
    names = ["--wildcards", *SOURCE_FILES]
    run(
        ["tar", "-x", "-f", str(tarball), "-C", str(target), "--no-same-owner", *names],
        cwd=target,
    )


def _write_launchers(runtime: Path) -> None:
    """Write the two scripts that start the runtime's Python and its caffe, unless they are there.

    A runtime's fingerprint does not cover them: that of an earlier setup gets the new ones, too.
    """
    root = runtime / "root"
    (python,) = (path.name for path in (root / "usr" / "bin").glob("python3.[0-9]"))
    (triplet,) = (path.parent.name for path in (root / "lib").glob("*/ld-2.31.so"))
    for name, program in (("python", python), ("caffe", "caffe")):
        text = LAUNCHER.format(program=program, release=RELEASE, triplet=triplet, python=python)
        update(runtime / name, text, 0o755)
    google = root / "usr" / "lib" / "python3" / "dist-packages" / "google"
    if google.is_dir():
        update(google / "__init__.py", GOOGLE_INIT)


def _check(runtime: Path, scratch: Path) -> str:
    """Run one training step and the caffe binary; return the versions. Also compiles the modules used."""
    scratch.mkdir()
    kept = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    python, caffe = str(runtime / "python"), str(runtime / "caffe")
    run([python, "-c", TRAINING_STEP], cwd=scratch, env=kept)
    caffe_version = run([caffe, "--version"], cwd=scratch).stdout.strip()
    python_version = run([python, "--version"], cwd=scratch).stdout.strip()
    return f"{caffe_version.replace('caffe version', 'Caffe')}, {python_version}"


def fingerprint() -> str:
    """Return the fingerprint of a runtime's recipe."""
    return digest(RELEASE, PACKAGES, LEFT_OUT, SOURCE_FILES)


def is_current(runtime: Path) -> bool:
    """Tell whether a complete runtime of this recipe is there. Only a complete one ever has this name."""
    try:
        made_from = json.loads((runtime / "runtime.json").read_text())["made_from"]
    except (OSError, ValueError, KeyError):
        return False
    known = made_from in (fingerprint(), FORMER_FINGERPRINT)
    return known and os.access(runtime / "python", os.X_OK)
