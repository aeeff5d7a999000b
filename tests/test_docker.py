"""The Docker images, as far as they can be checked without a Docker engine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILES = [ROOT / "Dockerfile.gpu", ROOT / "Dockerfile"]
TOOLS = ROOT / "tools" / "docker"
REQUIREMENTS = TOOLS / "requirements.txt"
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)", REQUIREMENTS.read_text(encoding="utf-8"), re.M))
GLIBC = (2, 23)  # of Ubuntu 16.04

both = pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)


def instructions(file: Path) -> list[str]:
    """The instructions in order, each in one line."""
    lines = [
        line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("#")
    ]
    return [
        line.strip() for line in "\n".join(lines).replace("\\\n", " ").splitlines() if line.strip()
    ]


def dependencies() -> list[str]:
    with open(ROOT / "pyproject.toml", "rb") as file:
        return tomllib.load(file)["project"]["dependencies"]


# -- the files -------------------------------------------------------------------------------------


@both
def test_hadolint_has_nothing_to_say(file):
    hadolint = shutil.which("hadolint", path=os.path.dirname(sys.executable)) or shutil.which(
        "hadolint"
    )
    if hadolint is None:
        pytest.skip("hadolint is not installed; tools/setup installs it")
    done = subprocess.run([hadolint, str(file)], capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_the_base_of_the_gpu_image_can_be_pinned():
    assert instructions(DOCKERFILES[0])[0] == "ARG BASE=bvlc/caffe:gpu"
    assert "FROM ${BASE}" in instructions(DOCKERFILES[0])


def test_sources_with_old_keys_go_before_any_apt_get():
    found = instructions(DOCKERFILES[0])
    after_base = found[found.index("FROM ${BASE}") + 1 :]
    assert after_base[0].startswith("RUN rm -f ")
    for name in ("cuda.list", "nvidia-ml.list"):
        assert f"/etc/apt/sources.list.d/{name}" in after_base[0]


@both
def test_nothing_of_caffe_is_compiled(file):
    text = " ".join(instructions(file))
    assert not re.search(r"\b(make|cmake|gcc|g\+\+|nvcc|git)\b", text)


@both
def test_what_is_copied_is_there_and_not_ignored(file):
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    sources = [
        line.split()[1]
        for line in instructions(file)
        if line.startswith("COPY ") and "--from" not in line
    ]
    assert sources == ["tools/docker/requirements.txt", "."]
    for source in sources:
        assert (ROOT / source).exists()
    for needed in ("lrbench_caffe", "solvers", "prototxt", "tools", "setup.py"):
        assert needed not in ignored and f"{needed}/" not in ignored


@both
def test_the_pinned_python_is_the_same_everywhere(file):
    text = file.read_text(encoding="utf-8")
    assert "uv venv --python 3.11" in text
    assert "CPython 3.11," in REQUIREMENTS.read_text(encoding="utf-8")


@both
def test_paths_inside_are_those_of_the_repository(file):
    for path in re.findall(r"/opt/lrbench_caffe/(tools/[\w/]+)", file.read_text(encoding="utf-8")):
        assert (ROOT / path).is_file() and os.access(ROOT / path, os.X_OK), path


# -- the pins --------------------------------------------------------------------------------------


def test_every_requirement_is_pinned_within_its_range():
    pins = {canonicalize_name(name): version for name, version in PINS.items()}
    for requirement in map(Requirement, dependencies()):
        version = pins.get(canonicalize_name(requirement.name))
        assert version is not None and requirement.specifier.contains(version), requirement


def test_every_pin_has_a_hash():
    blocks = re.split(r"^(?=[\w.-]+==)", REQUIREMENTS.read_text(encoding="utf-8"), flags=re.M)[1:]
    assert len(blocks) == len(PINS) > 15
    assert all("--hash=sha256:" in block for block in blocks)


def glibc_of(platform: str) -> tuple[int, int] | None:
    """The glibc that a wheel's platform tag asks for; None for one that fits any machine."""
    if platform == "any":
        return None
    aliases = {
        "manylinux1_x86_64": (2, 5),
        "manylinux2010_x86_64": (2, 12),
        "manylinux2014_x86_64": (2, 17),
    }
    match = re.fullmatch(r"manylinux_(\d+)_(\d+)_x86_64", platform)
    return (int(match[1]), int(match[2])) if match else aliases[platform]


@pytest.mark.slow
def test_every_pin_is_a_wheel_for_the_images_glibc(tmp_path):
    """About 10 s and 40 MB: what the image's pip step downloads, with the hashes checked."""
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
        "--require-hashes", "--only-binary=:all:", "--platform", "manylinux2014_x86_64",
        "--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "abi3",
        "--abi", "none", "--dest", str(tmp_path), "--requirement", str(REQUIREMENTS),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if "Could not find a version" not in done.stderr and re.search(
        "connection|resolve", done.stderr, re.I
    ):
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    found = {}
    for wheel in tmp_path.iterdir():
        name, version, _, tags = parse_wheel_filename(wheel.name)
        found[name] = str(version)
        assert any((glibc_of(tag.platform) or (0, 0)) <= GLIBC for tag in tags), wheel.name
    assert found == {canonicalize_name(name): version for name, version in PINS.items()}


# -- the scripts -----------------------------------------------------------------------------------


def test_the_entrypoint_makes_the_folders_and_runs_the_command(tmp_path):
    work = tmp_path / "work"
    environment = {**os.environ, "LRBENCH_WORK": str(work)}
    command = [
        TOOLS / "entrypoint",
        sys.executable,
        "-c",
        "import sys; print(sys.argv[1:]); sys.exit(3)",
        "a b",
        "",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.stdout, done.returncode) == ("['a b', '']\n", 3)
    assert {path.name for path in work.iterdir()} == {"data", "runs", "snapshots"}
    assert subprocess.run(command, capture_output=True, env=environment).returncode == 3  # again


def test_the_entrypoint_without_a_place_to_write():
    done = subprocess.run(
        [TOOLS / "entrypoint", "true"],
        capture_output=True,
        text=True,
        env={**os.environ, "LRBENCH_WORK": "/proc/x"},
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "error: cannot write to /proc/x; mount a folder there"
    )


def test_the_launcher_puts_pycaffe_first(tmp_path):
    """With a Python 2.7 in place of the image's: a script that shows what it gets."""
    text = (TOOLS / "python2").read_text(encoding="utf-8")
    python = tmp_path / "python2.7"
    python.write_text('#!/bin/sh\necho "$PYTHONPATH" "$@"\n')
    python.chmod(0o755)
    launcher = tmp_path / "python2"
    launcher.write_text(text.replace("/usr/bin/python2.7", str(python)))
    launcher.chmod(0o755)

    def shown(**environment: str) -> str:
        clean = {
            name: value
            for name, value in os.environ.items()
            if name not in ("PYTHONPATH", "CAFFE_ROOT")
        }
        done = subprocess.run(
            [launcher, "-c", "x"], capture_output=True, text=True, env={**clean, **environment}
        )
        return done.stdout.strip()

    assert shown() == "/opt/caffe/python -c x"
    assert shown(PYTHONPATH="") == "/opt/caffe/python -c x"
    assert shown(PYTHONPATH="/layers", CAFFE_ROOT="/c") == "/c/python:/layers -c x"
