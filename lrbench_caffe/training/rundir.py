"""A run directory: everything that one training was given and has measured, written as it happens.

    run.json             settings, seed, how it ended
    prototxt/            the patched solver and nets that Caffe trained with
    iterations.csv       iteration, lr, loss
    measurements.jsonl   one object for each test pass
    decisions.jsonl      one object for each decision of a plateau policy
    snapshots.jsonl      one object for each complete snapshot
    snapshots/           Caffe's .caffemodel and .solverstate
    caffe.log            Caffe's own log
    training.png         accuracy, loss and LR over iterations

A resumed run repeats the iterations after its snapshot. Each iteration and each test stands in a file once
all the same: losses from before go when the first of them is done again, and a test that is done again
replaces the former one unless it says the same. The readers leave out lines
that are damaged: after a power loss a file may hold NULs where the disk was not written yet, and the lines
before and after them are as good as ever. (Runs of former versions may hold an iteration twice: then the
later line is the valid one.)
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from lrbench_caffe.errors import InputError
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.records import RunRecord

_HEADING = "iteration,lr,loss\n"
DATED = ("run.json", "measurements.jsonl", "iterations.csv")  # files that are written as long as a run lives
CLOCK_STEP = 60.0  # seconds; a file from further in the future is older than a step back of the clock
LATEST = "latest"  # beside the runs: a symbolic link to the one that was begun or continued last


class RunDirectory:
    """One run's files.

    Args:
        path: the directory.

    A ``RunDirectory`` can be read at any time; ``lock`` it before writing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.prototxt = path / "prototxt"
        self.snapshots = path / "snapshots"
        self.log = path / "caffe.log"
        self.plot = path / "training.png"
        self._lock: IO[str] | None = None
        self._iterations: IO[str] | None = None
        # What earlier sessions wrote, by file and place.
        self._former: dict[str, dict[tuple[Any, Any], dict[str, Any]]] = {}

    # -- life -----------------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        return (self.path / "run.json").is_file()

    def lock(self) -> None:
        """Make this process the only writer, until it ends or calls ``release``.

        Raises:
            InputError: another process trains in this directory, or it cannot be created.
        """
        try:
            self.snapshots.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / ".lock").open("w")
        except OSError as error:
            raise InputError(f"cannot write to {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{self.path} is in use by a training that is still running") from None
        for name in ("iterations.csv", "measurements.jsonl", "decisions.jsonl", "snapshots.jsonl"):
            _drop_torn_line(self.path / name)

    def release(self) -> None:
        for file in (self._iterations, self._lock):
            if file:
                # Rows that a full disk did not take are tried once more here; that was reported already.
                with contextlib.suppress(OSError):
                    file.close()
        self._iterations = self._lock = None

    def discard(self) -> None:
        """Remove what a run that never trained has left, so that its place is free again."""
        for path in (
            *self.prototxt.glob("*.prototxt"),
            self.log,
            self.path / "run.json",
            self.path / ".lock",
        ):
            path.unlink(missing_ok=True)
        for folder in (self.prototxt, self.snapshots, self.path):
            with contextlib.suppress(OSError):  # something else is in there
                folder.rmdir()
        latest = self.path.parent / LATEST
        if latest.is_symlink() and not latest.exists():
            latest.unlink(missing_ok=True)

    @property
    def running(self) -> bool:
        """True while some process holds this run's lock."""
        try:
            with (self.path / ".lock").open("r") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # nothing there, or nothing that can be read
            return False
        return False

    # -- run.json -------------------------------------------------------------------------------

    def read(self) -> dict[str, Any]:
        """run.json.

        Raises:
            InputError: there is none, it is damaged, or it names no solver.
        """
        path = self.path / "run.json"
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{self.path} holds no run: {path}: {reason}") from error
        if not isinstance(record, dict):
            raise InputError(f"{self.path} holds no run: {path}: not a JSON object")
        solver = record.get("solver")
        if not (isinstance(solver, str) and solver):
            raise InputError(f"{self.path} holds no run: {path}: solver is {solver!r}; allowed: a file name")
        return record

    def write(self, record: dict[str, Any]) -> None:
        """Replace run.json, so that a kill leaves the old or the new one."""
        _replace(self.path / "run.json", json.dumps(record, indent=2) + "\n")

    def update(self, **fields: Any) -> None:
        self.write({**self.read(), **fields})

    @property
    def repeated(self) -> int:
        """Iterations that were trained more than once: a session was lost after its last snapshot."""
        count = self.read().get("repeated")
        return count if isinstance(count, int) and _is_count(count) else 0

    def last_seen(self) -> float:
        """The latest time, in seconds since 1970, that run.json or the date of a file names; 0.0 for none."""
        times: list[Any] = [0.0]
        with contextlib.suppress(InputError):
            record = self.read()
            times.append(record.get("ended"))
            sessions = record.get("sessions")
            for session in sessions if isinstance(sessions, list) else []:
                times.append(session.get("began") if isinstance(session, dict) else None)
        for name in DATED:
            with contextlib.suppress(OSError):
                times.append((self.path / name).stat().st_mtime)
        return max(float(t) for t in times if isinstance(t, (int, float)) and math.isfinite(t))

    def now(self) -> float:
        """The time for the run's records, in seconds since 1970: later than all that they name already.

        Of two records of a run the one that ends later is the one that counts, whatever was done to the clock
        between its sessions.
        """
        return max(time.time(), self.last_seen() + 0.001)

    # -- what is measured -----------------------------------------------------------------------

    def append(self, name: str, row: dict[str, Any]) -> None:
        """Append an object to a .jsonl file; it is in the operating system's hands when this returns."""
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def add_measurement(self, measurement: Measurement) -> None:
        # JSON has neither NaN nor infinity: a value that could not be measured is null.
        row = {key: _finite(value) for key, value in asdict(measurement).items()}
        row["outputs"] = {name: _finite(value) for name, value in measurement.outputs.items()}
        self._append_once("measurements.jsonl", row)

    def add_decision(self, row: dict[str, Any]) -> None:
        """Append a decision of a plateau policy."""
        self._append_once("decisions.jsonl", row)

    def _append_once(self, name: str, row: dict[str, Any]) -> None:
        """Append a row that an earlier session may have written: then the former one stays, if it says the
        same, or goes."""
        if name not in self._former:
            self._former[name] = {_place(old): old for old in self.rows(name)}
        former = self._former[name].get(_place(row))
        if former is not None:
            if {**former, "seconds": None} == {**json.loads(json.dumps(row)), "seconds": None}:
                return
            kept = [old for old in self.rows(name) if _place(old) != _place(row)]
            _replace(self.path / name, "".join(json.dumps(old) + "\n" for old in kept))
        self.append(name, row)

    def add_iterations(self, start: int, lrs: np.ndarray, losses: np.ndarray) -> None:
        """Append rows for the iterations from ``start`` on; ``lrs`` and ``losses`` have shape (n,)."""
        if self._iterations is None:
            self._cut_iterations(start)
            self._iterations = (self.path / "iterations.csv").open("a", encoding="utf-8")
            if self._iterations.tell() == 0:
                self._iterations.write(_HEADING)
        self._iterations.write(_csv(np.arange(start, start + len(losses)), lrs, losses))
        self._iterations.flush()

    def _cut_iterations(self, start: int) -> None:
        """Take the iterations from ``start`` on out of iterations.csv; run.json counts those that go."""
        path = self.path / "iterations.csv"
        if path.exists():
            found = self.iterations()
            kept = found[found[:, 0] < start]
            if len(kept) < len(found) and self.exists:
                self.update(repeated=self.repeated + len(found) - len(kept))
            _replace(path, _HEADING + _csv(kept[:, 0].astype(int), kept[:, 1], kept[:, 2]))

    def measurements(self) -> list[Measurement]:
        """All measurements by iteration and net, the valid one of each."""
        found = (_measurement(row) for row in self.rows("measurements.jsonl"))
        valid = {(m.iteration, m.net): m for m in found if m is not None}
        return [valid[key] for key in sorted(valid)]

    def iterations(self) -> np.ndarray:
        """Array of shape (n, 3): iteration, lr, loss, sorted, the valid row of each iteration."""
        rows = map(_iteration_row, _complete_lines(self.path / "iterations.csv"))
        valid = {row[0]: row for row in rows if row is not None}
        return np.array([valid[i] for i in sorted(valid)]).reshape(-1, 3)

    def rows(self, name: str) -> Iterator[dict[str, Any]]:
        """The objects of a .jsonl file; each has an integer "iteration"."""
        for line in _complete_lines(self.path / name):
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and _is_count(row.get("iteration")):
                yield row


def _place(row: dict[str, Any]) -> tuple[Any, Any]:
    return row["iteration"], row.get("net")


def _csv(iterations: np.ndarray, lrs: np.ndarray, losses: np.ndarray) -> str:
    """Rows of iterations.csv, to the last bit: a resumed run takes the mean of losses that it reads there."""
    rows = zip(iterations.tolist(), lrs.tolist(), losses.tolist())
    return "".join(f"{i},{lr!r},{loss!r}\n" for i, lr, loss in rows)


def _replace(path: Path, text: str) -> None:
    """Replace a file, so that a kill leaves the old or the new one."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _complete_lines(path: Path) -> list[str]:
    """The lines of a file without a last one that a kill cut off."""
    if not path.exists():
        return []
    return path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]


def _iteration_row(line: str) -> tuple[float, ...] | None:
    """Iteration, lr and loss of a line of iterations.csv; None for the heading and a damaged line."""
    try:
        row = tuple(map(float, line.split(",")))
    except ValueError:
        return None
    return row if len(row) == 3 and row[0].is_integer() and row[0] >= 0 else None


def _measurement(row: dict[str, Any]) -> Measurement | None:
    """A measurement from a row of the file; None for a row of something else."""
    try:
        found = Measurement.from_json(row)
    except TypeError:  # a field is missing
        return None
    outputs: Any = found.outputs
    if not isinstance(outputs, dict):
        return None
    # A value that was not finite is null.
    found = replace(found, outputs={name: v for name, v in outputs.items() if v is not None})
    own = {name: value for name, value in vars(found).items() if name != "outputs"}
    numbers = all(
        value is None or isinstance(value, (int, float)) for value in (*own.values(), *found.outputs.values())
    )
    return found if numbers and _is_count(found.net) else None


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _drop_torn_line(path: Path) -> None:
    """Cut off a last line that a kill left incomplete, so that the next one starts on its own."""
    if path.exists():
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)


def lasting_facts(record: RunRecord) -> dict[str, Any]:
    """A run's record as run.json keeps it: without what run.json and measurements.jsonl say themselves."""
    passing = ("status", "reason", "ended", "measurements", "digest")
    return {name: value for name, value in record.to_json().items() if name not in passing}


def first_base_lr(fingerprint: Mapping[str, Any]) -> float | None:
    """The solver's base_lr when the run began, from run.json's fingerprint; None where that has none."""
    try:
        return float(str(fingerprint["base_lr"]).removeprefix("base_lr:"))
    except (KeyError, ValueError):
        return None


def task_title(record: Mapping[str, Any]) -> str:
    """Data and net of run.json, "digits / LeNet_digits"; the solver's file where they are not known."""
    try:
        return f"{record['record']['dataset']['name']} / {record['record']['network']['name']}"
    except (KeyError, TypeError):
        return str(record["solver"])


def find_newest(root: Path, solver: Path) -> RunDirectory:
    """The run of this solver in ``root`` that was written to last.

    One that is being trained at this moment is only returned if there is no other. Where the clock was set
    back since, it is the run that was begun or continued last.

    Raises:
        InputError: there is none, or nothing tells which it is.
    """
    wanted = solver.resolve()
    found: list[tuple[bool, float, RunDirectory]] = []
    for path in root.glob("*/run.json"):
        if path.parent.is_symlink():  # LATEST
            continue
        run = RunDirectory(path.parent)
        try:
            if Path(run.read()["solver"]).resolve() == wanted:
                found.append((not run.running, _last_written(run.path), run))
        except (InputError, OSError, ValueError, RuntimeError):  # the latter two: a path that is none, a loop
            continue
    if not found:
        raise InputError(f"--resume: no run of {solver} in {root}/ (--out DIR names another directory)")
    free = [entry for entry in found if entry[0]] or found
    _, newest, run = max(free, key=lambda entry: entry[1])
    if len(free) == 1 or newest <= time.time() + CLOCK_STEP:
        return run
    latest = (root / LATEST).resolve()
    for _, _, other in free:
        if other.path.resolve() == latest:
            return other
    raise InputError(
        f"--resume: the clock was set back since {run.path} was written, so the newest run of {solver} in "
        f"{root}/ is not known; allowed: --out DIR, which names it"
    )


def mark_latest(root: Path, run: RunDirectory) -> None:
    """Let ``root``/latest point to a run in there, where the file system has symbolic links."""
    path = run.path.resolve()
    if path.parent != root.resolve():
        return
    link, new = root / LATEST, root / f".{LATEST}.{os.getpid()}"
    if link.exists() and not link.is_symlink():  # somebody's own
        return
    with contextlib.suppress(OSError):
        new.symlink_to(path.name)
        os.replace(new, link)


def _last_written(folder: Path) -> float:
    return max(file.lstat().st_mtime for file in folder.iterdir())
