"""A clone's virtual environment: .venv, with the project in it (editable) and its test tools."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from lrbench_caffe.setup.folders import digest, leftovers, write_atomically
from lrbench_caffe.setup.processes import SetupError, locked, run
from lrbench_caffe.setup.progress import elapsed, say

MINIMUM_PYTHON = (3, 9)
SUBJECT = ".venv"


class Venv:
    """The folder .venv of a clone, and what an earlier setup noted in it.

    An environment cannot be moved once made, so it is made in place: ``setup.unfinished`` is in
    it until ``setup.json`` says that it is complete. One that the user made is installed into, but
    never deleted.
    """

    def __init__(self, clone: Path) -> None:
        self.clone = clone
        self.path = clone / ".venv"
        self.python = self.path / "bin" / "python"
        self.unfinished = self.path / "setup.unfinished"
        self.stamp = self.path / "setup.json"
        try:
            self.noted = json.loads(self.stamp.read_text())
        except (OSError, ValueError):
            self.noted = {}
        self.ours = self.unfinished.exists() or bool(self.noted.get("ours"))

    def exists(self) -> bool:
        """Tell whether there is anything."""
        return self.path.is_dir() and any(self.path.iterdir())

    def works(self) -> bool:
        """Tell whether its interpreter starts: not so when the Python that it was made from is gone."""
        try:
            return run([str(self.python), "-c", "import pip"], check=False).returncode == 0
        except OSError:
            return False

    def is_current(self, named_python: str | None) -> bool:
        """Tell whether it is complete and has what the project needs today."""
        return (
            not self.unfinished.exists()
            and self.noted.get("repository") == str(self.clone)
            and self.noted.get("made_from") == self.fingerprint()
            and (named_python is None or self.noted.get("python") == named_python)
            and os.access(self.python, os.X_OK)
        )

    def fingerprint(self) -> str:
        """Return the fingerprint of what decides its packages; all else is live (editable)."""
        files = [self.clone / name for name in ("pyproject.toml", "setup.py")]
        return digest([path.read_text(encoding="utf-8") for path in files])

    def must_go(self, named_python: str | None) -> bool:
        """Tell whether it is ours and cannot be updated by installing into it."""
        if self.unfinished.exists():
            return True
        moved = self.noted.get("repository") != str(self.clone)
        other_python = named_python is not None and self.noted.get("python") != named_python
        return self.ours and (moved or other_python or not self.works())

    def remove(self) -> None:
        """Delete it."""
        # Renamed first: half deleted, it could be mistaken for an environment that the user made.
        leftover = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        self.path.rename(leftover)
        shutil.rmtree(leftover, ignore_errors=True)

    def create(self, python: str) -> None:
        """Create an empty one with pip, by the first available tool."""
        version = ".".join(map(str, _python_version(python)))
        say(SUBJECT, f"creating it with {python} (Python {version})")
        self.path.mkdir(exist_ok=True)
        self.unfinished.touch()
        self.ours = True
        # On Debian and Ubuntu, venv cannot install pip unless python3-venv is installed.
        path = str(self.path)
        if run([python, "-c", "import venv, ensurepip"], check=False).returncode == 0:
            run([python, "-m", "venv", path])
        elif run([python, "-c", "import virtualenv"], check=False).returncode == 0:
            run([python, "-m", "virtualenv", path])
        elif shutil.which("virtualenv"):
            run(["virtualenv", "--python", python, path])
        elif shutil.which("uv"):
            run(["uv", "venv", "--allow-existing", "--seed", "--python", python, path])
        else:
            tools = "install python3-venv, virtualenv or uv"
            raise SetupError(f"{python} cannot make a virtual environment; {tools}")

    def install_project(self) -> None:
        """Install the project and its test tools."""
        say(SUBJECT, "installing lrbench_caffe and its test tools")
        pip = [str(self.python), "-m", "pip", "--disable-pip-version-check", "--no-input"]
        command = [*pip, "install", "--quiet", "--editable", ".[test,docs]"]
        # Beside .venv, where the next setup finds and removes what a killed pip leaves.
        with tempfile.TemporaryDirectory(prefix=".venv.", dir=self.clone) as scratch:
            environment = {**os.environ, "TMPDIR": scratch}
            run(command, cwd=self.clone, env=environment, show_failure=True)

    def note_complete(self, python: str) -> None:
        """Note that it is complete."""
        noted = {
            "made_from": self.fingerprint(),
            "repository": str(self.clone),
            "python": python,
            "ours": self.ours,
        }
        write_atomically(self.stamp, json.dumps(noted))
        self.unfinished.unlink(missing_ok=True)


def make_venv(clone: Path, named: str | None, force: bool) -> None:
    """Make .venv with the project (editable) and its test tools, unless it is there and current.

    Args:
        clone: the folder of the clone.
        named: the Python to make it with; by default python3 on the PATH.
        force: whether to make it anew where it is there.

    Raises:
        SetupError: no Python is new enough, or pip fails.
    """
    python = _choose_python(clone, named)
    named_python = python if named else None
    with locked(clone / ".setup.lock", SUBJECT):
        venv = Venv(clone)
        for leftover in leftovers(venv.path):
            shutil.rmtree(leftover, ignore_errors=True)
        if venv.is_current(named_python) and not force:
            say(SUBJECT, f"ready in {venv.path}")
            return
        if venv.exists() and (venv.must_go(named_python) or (force and venv.ours)):
            venv.remove()
        if not venv.exists():
            venv.create(python)
        elif not venv.works():
            what = "not a working virtual environment with pip"
            raise SetupError(f"{venv.path} is {what}; move it away")
        venv.install_project()
        venv.note_complete(python)
        say(SUBJECT, f"ready in {venv.path} ({elapsed()})")


def _choose_python(clone: Path, named: str | None) -> str:
    """Return the absolute path of the interpreter to make the virtual environment with."""
    wanted = named or "python3"
    # Where .venv is active, its own Python comes first; it cannot replace its own folder.
    own = str(clone / ".venv" / "bin")
    directories = os.environ.get("PATH", os.defpath).split(os.pathsep)
    path = os.pathsep.join(part for part in directories if part != own)
    python = shutil.which(os.path.expanduser(wanted), path=path)
    if python is None:
        name_one = "name a Python with --python"
        raise SetupError(f"{wanted} does not exist or is not executable; {name_one}")
    version = _python_version(python)
    if version < MINIMUM_PYTHON:
        has, needed = (".".join(map(str, numbers)) for numbers in (version, MINIMUM_PYTHON))
        raise SetupError(
            f"{python} is Python {has}, but {needed} or newer is needed; name one with --python"
        )
    return os.path.abspath(python)


def _python_version(python: str) -> tuple[int, ...]:
    """Return the version of an interpreter."""
    try:
        output = run([python, "-c", "import sys; print(*sys.version_info[:3])"]).stdout
        return tuple(int(part) for part in output.split())
    except (OSError, ValueError):
        raise SetupError(f"{python} is not a working Python") from None
