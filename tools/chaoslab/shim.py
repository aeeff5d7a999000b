"""The library that is preloaded into a trial's processes (shim.c), and what it is told."""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from chaoslab.lab import Lab, command
from chaoslab.setups import Setup
from chaoslab.trial import Trial
from chaoslab.verdicts import Skip

SOURCE = Path(__file__).with_name("shim.c")
OPTIONS = (
    "-shared",
    "-fPIC",
    "-O1",
    "-nostdlib",
    "-fno-builtin",
    "-fno-stack-protector",
    "-U_FORTIFY_SOURCE",
)
# The enumerations of shim.c.
COMMAND, CHILD, WORKER = ROLES = range(3)
KINDS = ("write", "fsync", "rename", "unlink", "open", "link", "mkdir", "truncate")
KILL_BEFORE, KILL_AFTER, TORN, FAIL_ONCE, FAIL_ON = range(1, 6)
_HEAD = ("kinds", "role", "number", "action", "error", "everyone", "fired", "offset")
_SIZE = 8 * (len(_HEAD) + len(ROLES) + len(ROLES) * len(KINDS))


@dataclass(frozen=True)
class Blow:
    """What happens at a file operation.

    Attributes:
        kinds: the kinds that count.
        role: whose operations: of the command, of trainings that it started, or of workers.
        number: at the n-th of them, from 1.
        action: KILL_BEFORE, KILL_AFTER, TORN (half of a write, then the end), FAIL_ONCE, or FAIL_ON
            from there.
        error: errno of what fails.
        everyone: whether all processes end with that one, each at its next operation.
    """

    kinds: tuple[str, ...]
    role: int
    number: int
    action: int
    error: int = 0
    everyone: bool = False


class Shim:
    """A control block that the preloaded library reads and counts in.

    Args:
        library: the compiled shim.c.
        block: a path for the control block, outside ``folder``.
        folder: only operations below it count.
    """

    def __init__(self, library: Path, block: Path, folder: Path) -> None:
        block.write_bytes(bytes(_SIZE))
        with block.open("r+b") as file:
            self._block = mmap.mmap(file.fileno(), _SIZE)
        inherited = os.environ.get("LD_PRELOAD")
        self.environment = {
            "LD_PRELOAD": f"{library}:{inherited}" if inherited else str(library),
            "CHAOS_CONTROL": str(block),
            "CHAOS_FOLDER": str(folder),
        }

    def __enter__(self) -> Shim:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._block.close()

    def arm(self, blow: Blow) -> None:
        """Let it happen; the count begins anew."""
        self._set("number", 0)
        for place in range(len(_HEAD), len(_HEAD) + len(ROLES)):
            self._put(place, 0)
        self._set("fired", 0)
        self._set("kinds", sum(1 << KINDS.index(kind) for kind in blow.kinds))
        for name in ("role", "action", "error", "everyone"):
            self._set(name, int(getattr(blow, name)))
        self._set("number", blow.number)

    def disarm(self) -> None:
        self._set("number", 0)
        self._set("everyone", 0)

    @property
    def fired(self) -> int:
        """How often something happened."""
        return self._get(_HEAD.index("fired"))

    def shift_clock(self, seconds: float) -> None:
        """Let the wall clock of all processes be this far from the real one from now on."""
        self._set("offset", int(seconds * 1e9))

    def counts(self, role: int) -> dict[str, int]:
        """How many operations of each kind there were so far."""
        first = len(_HEAD) + len(ROLES) + role * len(KINDS)
        return {kind: self._get(first + place) for place, kind in enumerate(KINDS)}

    def _set(self, name: str, value: int) -> None:
        self._put(_HEAD.index(name), value)

    def _put(self, place: int, value: int) -> None:
        struct.pack_into("q", self._block, 8 * place, value)

    def _get(self, place: int) -> int:
        return int(struct.unpack_from("q", self._block, 8 * place)[0])


def preload(trial: Trial) -> Shim:
    """The shim of a trial.

    Raises:
        Skip: there is no C compiler.
    """
    return Shim(library(trial.lab), trial.place / "control", trial.folder)


def library(lab: Lab) -> Path:
    """The compiled shim."""
    return lab.once("shim", lambda: _compile(lab))


def _compile(lab: Lab) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise Skip("no C compiler (cc or gcc)")
    target = lab.new_folder("shim") / "shim.so"
    done = subprocess.run(
        [compiler, *OPTIONS, "-o", str(target), str(SOURCE)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Skip(f"{compiler} cannot compile shim.c: {done.stderr.strip().splitlines()[-1:]}")
    return target


def operations(trial: Trial, setup: Setup) -> dict[int, dict[str, int]]:
    """How many file operations an untouched training makes, by role and kind."""

    def count() -> dict[int, dict[str, int]]:
        folder = trial.lab.new_folder(f"counted-{setup.name}")
        trial.lab.furnish(folder, setup)
        args = command(
            "train", "solver.prototxt", "--out", "out", "--layers", "stock", *setup.flags
        )
        return counted_operations(trial.lab, folder, args)

    return trial.lab.once(f"operations {setup.name}", count)


def counted_operations(
    lab: Lab, folder: Path, args: tuple[str, ...], allowed: Container[int] = (0,)
) -> dict[int, dict[str, int]]:
    """How many file operations an untouched command makes in a folder, by role and kind."""
    with Shim(library(lab), folder / "control", folder) as shim:
        lab.untouched(folder, args, shim.environment, allowed)
        return {role: shim.counts(role) for role in ROLES}
