"""The place of all trials: a temporary folder with the data and the untouched runs to compare with."""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from chaoslab.processes import MARK, Done, Running, end_all
from chaoslab.setups import Setup
from chaoslab.verdicts import Skip, Wrong
from lrbench_caffe.runtime.locate import VARIABLE, cache_dir, find_caffe_python

ROOT = Path(__file__).resolve().parents[2]
# A command may take this many times as long as an untouched one, and so many seconds more, until it
# hangs.
PROGRAMS = ("caffe-runtime", "caffe-headers", "caffe-layers")  # of the user's cache directory
SLOWER, MORE = 20.0, 60.0
PATIENCE = 1800.0  # seconds for what nothing disturbs
_T = TypeVar("_T")


@dataclass(frozen=True)
class Reference:
    """An untouched training.

    Attributes:
        setup: what was trained.
        folder: the folder where the command was typed.
        run: the run directory in it.
        database: the URL of the LR database that it was recorded in.
        seconds: how long it took.
    """

    setup: Setup
    folder: Path
    run: Path
    database: str
    seconds: float


class Lab:
    """A temporary folder, and what is made in it once for all trials.

    Args:
        parent: where the folder is made; the system's place for such by default.
    """

    def __init__(self, parent: str | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="chaos-", dir=parent)).resolve()
        self.name = self.folder.name
        self.closed = False
        self._once: dict[str, Any] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)

    def new_folder(self, name: str) -> Path:
        """A fresh folder in the lab."""
        path = self.folder / f"{next(self._numbers)}-{name}"
        path.mkdir()
        return path

    def once(self, name: str, make: Callable[[], _T]) -> _T:
        """What ``make`` returns; called once, whichever trials ask for it."""
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:
            if name not in self._once:
                self._once[name] = make()
            made: _T = self._once[name]
            return made

    @property
    def data(self) -> Path:
        """The folder with the digits' LMDBs. They are shared: copy before damaging."""
        return self.once("data", self._make_data)

    def _make_data(self) -> Path:
        folder = self.new_folder("data")
        self.untouched(folder, command("data", "digits", "--out", "data"))
        return folder / "data"

    def reference(self, setup: Setup) -> Reference:
        """The untouched training of a setup."""
        return self.once(f"reference {setup.name}", lambda: self._train(setup))

    def _train(self, setup: Setup) -> Reference:
        folder = self.new_folder(f"untouched-{setup.name}")
        self.furnish(folder, setup)
        done = self.untouched(
            folder,
            command("train", "solver.prototxt", "--out", "out", "--layers", "stock", *setup.flags),
        )
        return Reference(setup, folder, folder / "out", database_of(folder), done.seconds)

    def furnish(self, folder: Path, setup: Setup) -> None:
        """Put a setup's files and a link to the data into a folder."""
        (folder / "data").symlink_to(self.data)
        (folder / "net.prototxt").write_text(setup.net, encoding="utf-8")
        (folder / "solver.prototxt").write_text(setup.solver, encoding="utf-8")

    def untouched(
        self,
        folder: Path,
        args: tuple[str, ...],
        more: Mapping[str, str] | None = None,
        allowed: Container[int] = (0,),
    ) -> Done:
        """Run a command that nothing disturbs, in a folder; it must end with an exit code of ``allowed``.

        Raises:
            Wrong: it fails all the same.
        """
        if self.closed:
            raise Skip("interrupted")
        began = time.monotonic()
        variables = self.environment(folder, self.name, more)
        done = Running(args, folder, variables, folder / "untouched").wait(PATIENCE)
        if done.code not in allowed:
            raise Wrong(f"untouched, {done.summary} ({time.monotonic() - began:.0f} s)")
        return done

    def environment(
        self, folder: Path, mark: str, more: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """The environment of commands that are typed in a folder: nothing of the user's is touched, and one
        BLAS thread, for the same bits every time."""
        temporary = folder / "tmp"
        temporary.mkdir(exist_ok=True)
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OPENBLAS_NUM_THREADS": "1",
            "COLUMNS": "200",
            "LRBENCH_DB": database_of(folder),
            "XDG_DATA_HOME": str(folder / "share"),
            "TMPDIR": str(temporary),
            MARK: mark,
            **self.once("caffe", self._find_caffe),
            **(more or {}),
        }

    def _find_caffe(self) -> dict[str, str]:
        """The variables that name Caffe, and a cache directory of the lab's own that has the user's programs.

        The launcher that tools/setup makes keeps preloaded libraries away from Caffe; the lab's
        does not.
        """
        users = cache_dir()
        caffe = Path(find_caffe_python(None).command[0])
        cache = self.new_folder("cache") / users.name
        cache.mkdir()
        for name in PROGRAMS:
            if (users / name).exists():
                (cache / name).symlink_to(users / name)
        with caffe.open("rb") as file:
            is_script = file.read(2) == b"#!"
        if is_script:
            lines = caffe.read_text(encoding="utf-8").replace("LD_PRELOAD ", "").splitlines()
            here = f"here={shlex.quote(str(caffe.resolve()))}"
            lines = [here if line.startswith("here=") else line for line in lines]
            caffe = self.folder / "python"
            caffe.write_text("\n".join(lines) + "\n", encoding="utf-8")
            caffe.chmod(0o755)
        return {VARIABLE: str(caffe), "XDG_CACHE_HOME": str(cache.parent)}

    def close(self, keep: bool) -> None:
        """End what still runs, and remove the folder."""
        self.closed = True
        end_all(self.name)
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)


def command(name: str, *args: str) -> tuple[str, ...]:
    """``python -m lrbench_caffe.NAME ARGS``."""
    return (sys.executable, "-m", f"lrbench_caffe.{name}", *args)


def database_of(folder: Path) -> str:
    """The URL of the LR database that the commands typed in a folder use."""
    return f"sqlite:///{folder / 'lr.sqlite'}"


def deadline(seconds: float) -> float:
    """After how many seconds something hangs that takes ``seconds`` when nothing disturbs it."""
    return MORE + SLOWER * seconds
