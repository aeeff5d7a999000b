"""The package as people get it: built, installed into a fresh environment, used outside of the clone."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

uv = pytest.importorskip("uv", reason="uv is not installed; tools/setup installs it")

ROOT = Path(__file__).resolve().parents[2]
SOLVER = "solvers/lenet_digits_solver.prototxt"
PYTHONS = ("3.9", "3.11", "3.13")
# What each requirement of the package is there for is in one of these.
COMMANDS = [
    "doctor",
    "init .",
    "data digits",
    f"train {SOLVER} --lr sin2 --until 100 --max-iter 200 --out runs/a",
    "train --resume --out runs/a",
    "plot runs runs/a",
    "plot table --task mnist/lenet --top 0",
    f"rank {SOLVER}",
    f"recommend {SOLVER}",
    f"range {SOLVER} --iterations 100",
    "db runs",
    "db check",
    "db export runs.jsonl",
    "reproduce figure1",
    "--completion bash",
]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def run(command: list[str], **options) -> str:
    """What a program prints; it must succeed."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    assert done.returncode == 0, (command, done.stdout[-2000:])
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the wheel and the source distribution, the wheel made from the latter."""
    folder = tmp_path_factory.mktemp("dist")
    # Of a copy, so that nothing is left in the clone.
    clone = tmp_path_factory.mktemp("copy") / "clone"
    left_out = (".git", ".venv*", "__pycache__", ".*_cache", "data", "runs", "build", "*.egg-info")

    def ignore(path: str, names: list[str]) -> set[str]:
        return shutil.ignore_patterns(*left_out)(path, names) if Path(path) == ROOT else set()

    shutil.copytree(ROOT, clone, ignore=ignore, symlinks=True)
    run([uv.find_uv_bin(), "build", "--quiet", "--out-dir", str(folder), str(clone)])
    yield folder
    shutil.rmtree(clone)


def one(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


# -- what is in it ---------------------------------------------------------------------------------


def test_the_wheel_holds_the_package_and_its_set_ups(built: Path):
    names = zipfile.ZipFile(one(built, "*.whl")).namelist()
    inside = {name for name in names if name.startswith("lrbench_caffe/")}
    ours = [path for path in (ROOT / "lrbench_caffe").rglob("*") if path.is_file()]
    ours = [path for path in ours if path.suffix != ".pyc"]
    package = {str(path.relative_to(ROOT)) for path in ours}
    examples = {
        f"lrbench_caffe/examples/{path.relative_to(ROOT)}"
        for folder in ("solvers", "prototxt")
        for path in (ROOT / folder).iterdir()
    }
    assert len(examples) == 10
    assert inside == package | examples


def test_the_source_distribution_holds_all_that_is_in_the_repository(built: Path):
    if not (ROOT / ".git").exists():
        pytest.skip("no git repository")
    tracked = run(["git", "ls-files", "-z"], cwd=ROOT).split("\0")[:-1]
    with tarfile.open(one(built, "*.tar.gz")) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert {name for name in tracked if not name.startswith(".git")} <= names


def test_the_tests_run_from_the_source_distribution(built: Path, tmp_path: Path):
    with tarfile.open(one(built, "*.tar.gz")) as tar:
        tar.extractall(tmp_path)
    (folder,) = tmp_path.iterdir()
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    environment = {
        name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")
    }
    run([*pytest_, "--collect-only"], cwd=folder, env=environment)
    tests = ["tests/lr", "tests/test_solvers.py", "tests/test_init.py"]
    run([*pytest_, *tests], cwd=folder, env=environment)


def test_an_index_can_show_the_description(built: Path):
    with zipfile.ZipFile(one(built, "*.whl")) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(wheel.read(name))
    assert metadata["Name"] == "lrbench-caffe"
    assert metadata["Requires-Python"] == ">=3.9"
    assert {"psycopg2-binary>=2.9", "numpy>=1.22"} <= set(metadata.get_all("Requires-Dist", []))
    text = metadata.get_payload()
    assert isinstance(text, str)
    assert text.startswith("# LRBench for Caffe\n") and "\n| Training | " in text
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert targets
    assert all(target.startswith(("https://", "#")) for target in targets), targets


# -- installed -------------------------------------------------------------------------------------


@dataclass
class Installation:
    """An environment with the package in it, and an empty folder to use it in."""

    python: Path
    folder: Path
    environment: dict[str, str]

    def __call__(self, command: str) -> str:
        """What one of our commands prints."""
        script = str(self.python.parent / "lrbench-caffe")
        return run([script, *command.split()], cwd=self.folder, env=self.environment)


def install(python: str, folder: Path, *requirements: str) -> Installation:
    """Make an environment and install requirements, which may be options of uv, into it."""
    venv = folder / "venv"
    run([uv.find_uv_bin(), "venv", "--quiet", "--python", python, str(venv)])
    into = [uv.find_uv_bin(), "pip", "install", "--quiet", "--python", str(venv)]
    for words in requirements:
        run([*into, *words.split()], cwd=folder)
    work = folder / "work"
    work.mkdir()
    left_out = ("PYTHONPATH", "LRBENCH_DB", "LRBENCH_CAFFE_PYTHON", "VIRTUAL_ENV")
    environment = {name: text for name, text in os.environ.items() if name not in left_out}
    environment.update(XDG_DATA_HOME=str(folder / "data"), OPENBLAS_NUM_THREADS="1")
    installed = Installation(venv / "bin" / "python", work, environment)
    where = [str(installed.python), "-c", "import lrbench_caffe; print(lrbench_caffe.__file__)"]
    assert run(where, cwd=work, env=environment).startswith(str(venv))
    return installed


def interpreter(version: str) -> str:
    """A Python of a version, on the PATH or pyenv's."""
    pyenv = Path.home() / ".pyenv" / "versions"
    places = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"))]
    for place in filter(None, places):
        ask = [str(place), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(ask, capture_output=True, text=True)
        if done.stdout.strip() == version:
            return str(place)
    pytest.skip(f"there is no Python {version}")


def test_the_first_training_without_a_clone(built: Path, tmp_path: Path):
    """README's example, with everything fetched: about 185 MB."""
    if shutil.which("apt-get") is None:
        pytest.skip("the runtime is made by apt-get")
    installed = install(sys.executable, tmp_path, str(one(built, "*.whl")))
    installed.environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    assert f"Caffe: ready in {tmp_path / 'cache'}" in installed("setup")
    assert "10 of 10 files written" in installed("init .")
    installed("data digits")
    said = installed(f"train {SOLVER} --lr sin2")
    assert "iteration 2000/2000  Top-1 " in said
    assert installed("setup").startswith(f"Caffe: ready in {tmp_path / 'cache'}")
    assert "the runtime made by lrbench-caffe setup" in installed("doctor")


@pytest.mark.parametrize("version", PYTHONS)
def test_the_lowest_versions_of_all_requirements(
    version: str, built: Path, tmp_path: Path, caffe_python
):
    """The lowest ones that have wheels for this Python."""
    wheel, project = one(built, "*.whl"), ROOT / "pyproject.toml"
    lowest = f"--resolution lowest-direct --only-binary :all: -r {project}"
    installed = install(interpreter(version), tmp_path, lowest, f"--no-deps {wheel}")
    for command in COMMANDS:
        installed(command)
