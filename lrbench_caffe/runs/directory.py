"""A run directory: everything that one training was given and has measured, written as it happens.

    run.json             settings, seed, how it ended
    prototxt/            the patched solver and nets that Caffe trained with
    iterations.csv       iteration, lr, loss
    measurements.jsonl   one object for each test pass
    decisions.jsonl      one object for each decision of a plateau policy
    snapshots.jsonl      one object for each complete snapshot
    snapshots/           Caffe's .caffemodel and .solverstate
    records.log          run.json and the rows of measurements and snapshots once more (see journal)
    losses.log           the rows of iterations.csv once more
    caffe.log            Caffe's own log
    training.png         accuracy, loss and LR over iterations

A resumed run repeats the iterations after its snapshot. Each iteration and each test stands in a file once
all the same: losses from before go when the first of them is done again, and a test that is done again
replaces the former one unless it says the same.

Each row is in a journal before it is in its file, so whichever of the two is damaged, the other one has it
(``records``); ``mending`` puts both in order when a run is resumed. The directories of former versions have
no journals, and no id in run.json: what is damaged there is left out, and said. (They may hold an iteration
twice: then the later line is the valid one.)
"""

from __future__ import annotations

import contextlib
import copy
import fcntl
import hashlib
import json
import math
import reprlib
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from lrbench_caffe.errors import InputError
from lrbench_caffe.files import open_own, read_own, remove_leftovers, replace_by, replace_own
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.records import STATUSES, RunRecord, digest
from lrbench_caffe.runs.journal import Journal, Journaled, read_journal, write_journal

_HEADING = "iteration,lr,loss\n"
DATED = ("run.json", "measurements.jsonl", "iterations.csv")  # files that are written as long as a run lives
CLOCK_STEP = 60.0  # seconds; a file from further in the future is older than a step back of the clock
LATEST = "latest"  # beside the runs: a symbolic link to the one that was begun or continued last

RUN = "run.json"
ITERATIONS = "iterations.csv"
MEASUREMENTS = "measurements.jsonl"
DECISIONS = "decisions.jsonl"
SNAPSHOTS = "snapshots.jsonl"
RECORDS, LOSSES = "records.log", "losses.log"
_CHUNK = 1000  # iterations in an entry of losses.log

Place = tuple[Any, Any]  # iteration and test net


@dataclass(frozen=True)
class Rows:
    """The rows of a file, by the place that each is for.

    Attributes:
        rows: the texts of the valid rows, in their order.
        bad: the numbers of lines that are damaged, from 1.
        problem: why the file cannot be read, None where it can.
    """

    rows: dict[Any, str]
    bad: list[int]
    problem: str | None = None

    @property
    def damage(self) -> str | None:
        """In a few words, None where it is whole."""
        if self.problem:
            return self.problem
        if not self.bad:
            return None
        return f"line {self.bad[0]} is damaged" + (f" (and {len(self.bad) - 1} more)" * (len(self.bad) > 1))


@dataclass(frozen=True)
class Found:
    """What a file and its journal hold together.

    Attributes:
        rows: by place: of the two, what is intact.
        damage: what is wrong, in a few words for each file.
        lost: whether some of it may be in neither.
        other: further readings of the two, where they contradict each other.
    """

    rows: dict[Any, str]
    damage: list[str]
    lost: bool = False
    other: tuple[dict[Any, str], ...] = ()


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
        self._lock: IO[Any] | None = None
        self._record: dict[str, Any] | None = None  # run.json as this process has written it
        self._journals: dict[str, Journal] = {}
        self._iterations: IO[Any] | None = None
        self._losses = hashlib.sha256()  # of the rows of iterations.csv so far
        # What earlier sessions wrote, by file and place.
        self._former: dict[str, dict[Place, dict[str, Any]]] = {}

    # -- life -----------------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        """Whether it holds a run: run.json, or a journal that has it."""
        return (self.path / RUN).is_file() or self.journaled_record() is not None

    @property
    def remains(self) -> str | None:
        """The name of a file that a run which cannot be told any more has left, None without one."""
        names = (RUN, ITERATIONS, MEASUREMENTS, SNAPSHOTS)
        return next((name for name in names if _holds_something(self.path / name)), None)

    def lock(self) -> None:
        """Make this process the only writer, until it ends or calls ``release``.

        Raises:
            InputError: another process trains in this directory, or it cannot be written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for folder in (self.snapshots, self.prototxt):
                if folder.is_symlink():
                    raise InputError(f"{folder} is a symbolic link; allowed: a folder of the run's own")
            self.snapshots.mkdir(exist_ok=True)
            self._lock = open_own(self.path / ".lock", "wb")
        except OSError as error:
            where = error.filename if error.filename not in (None, str(self.path)) else self.path
            raise InputError(f"cannot write to {where}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{self.path} is in use by a training that is still running") from None
        try:
            for name in (ITERATIONS, MEASUREMENTS, DECISIONS, SNAPSHOTS, RECORDS, LOSSES):
                _drop_torn_line(self.path / name)
            for path in (self.path / RUN, self.log):
                with contextlib.suppress(FileNotFoundError):
                    open_own(path, "rb").close()
        except OSError as error:
            self.release()
            raise InputError(f"{error.filename}: {error.strerror}; --resume needs a file there") from error
        remove_leftovers(self.path, r"[^/]*")
        remove_leftovers(self.snapshots, r"resume\..*")

    def release(self) -> None:
        for file in (self._iterations, *self._journals.values(), self._lock):
            if file:
                # Rows that a full disk did not take are tried once more here; that was reported already.
                with contextlib.suppress(OSError):
                    file.close()
        self._iterations = self._lock = self._record = None
        self._journals = {}
        self._former = {}

    def discard(self) -> None:
        """Remove what a run that never trained has left, so that its place is free again."""
        for path in (
            *self.prototxt.glob("*.prototxt"),
            self.log,
            *(self.path / name for name in (RUN, RECORDS, LOSSES, ".lock")),
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
            with open_own(self.path / ".lock", "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # nothing there, or nothing that can be read
            return False
        return False

    # -- run.json -------------------------------------------------------------------------------

    def believe(self, record: dict[str, Any]) -> None:
        """Take this for run.json, whatever the file holds."""
        self._record = record

    def read(self) -> dict[str, Any]:
        """run.json; where it is damaged or gone, what the journal has of it.

        Raises:
            InputError: there is none, or it is damaged, in both places.
        """
        if self._record is not None:
            return copy.deepcopy(self._record)
        try:
            return self._read_file()
        except InputError:
            found = self.journaled_record()
            if found is None:
                raise
            return found

    def _read_file(self) -> dict[str, Any]:
        path = self.path / RUN
        try:
            return parse_record(read_own(path))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{self.path} holds no run: {path}: {reason}") from error

    def journaled_record(self) -> dict[str, Any] | None:
        """run.json as the journal has it; None where there is none, or it is damaged."""
        journal = self.journal(RECORDS)
        if not journal.whole:
            return None
        for text in journal.of(RUN)[-1:]:
            with contextlib.suppress(ValueError):
                return parse_record(text.encode())
        return None

    def record_damage(self, record: Mapping[str, Any]) -> str | None:
        """What is wrong with run.json, where ``record``, which was read, is not what it holds."""
        try:
            return None if self._read_file() == record else "is not what was written there"
        except InputError as error:
            return str(error).rpartition(f"{RUN}: ")[2] or "is damaged"

    def write(self, record: dict[str, Any]) -> None:
        """Replace run.json, so that a kill leaves the old or the new one.

        A record with an "id" is also written to the journal, and has a checksum.
        """
        record = copy.deepcopy({name: value for name, value in record.items() if name != "check"})
        kept = record
        if "id" in record:
            kept = {**record, "check": _check(record)}
            journal = self._appendable(RECORDS, record["id"])
            if journal:
                journal.append(RUN, json.dumps(kept))
        if self._record is not None:
            self._record = record
        replace_own(self.path / RUN, (json.dumps(kept, indent=2) + "\n").encode())

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

    # -- journals -------------------------------------------------------------------------------

    def journal(self, name: str, id: str | None = None) -> Journaled:
        """What records.log or losses.log holds."""
        return read_journal(self.path / name, id)

    def begin(self, record: dict[str, Any]) -> None:
        """Write run.json for a session; from here on this process knows it, whatever becomes of the file.

        Args:
            record: with the run's "id". Journals that are missing are begun.
        """
        for name in (RECORDS, LOSSES):
            if self._appendable(name, record["id"]) is None:
                self._journals[name] = Journal(self.path / name, record["id"], 0)
        self._record = record
        self.write(record)

    def _appendable(self, name: str, id: str | None = None) -> Journal | None:
        """The journal, to be appended to; None where the run has none, or a damaged one."""
        if name not in self._journals and (self.path / name).exists():
            found = self.journal(name, id)
            if found.whole and found.id:
                self._journals[name] = Journal(self.path / name, found.id, 1 + len(found.entries))
        return self._journals.get(name)

    # -- what is measured -----------------------------------------------------------------------

    def append(self, name: str, row: dict[str, Any]) -> None:
        """Append an object to a .jsonl file; it is in the operating system's hands when this returns."""
        text = json.dumps(row)
        journal = self._appendable(RECORDS) if name in (MEASUREMENTS, SNAPSHOTS) else None
        if journal:
            journal.append(name, text)
        with open_own(self.path / name, "ab") as file:
            file.write(text.encode() + b"\n")

    def add_measurement(self, measurement: Measurement) -> None:
        # JSON has neither NaN nor infinity: a value that could not be measured is null.
        row = {key: _finite(value) for key, value in asdict(measurement).items()}
        row["outputs"] = {name: _finite(value) for name, value in measurement.outputs.items()}
        self._append_once(MEASUREMENTS, row)

    def add_decision(self, row: dict[str, Any]) -> None:
        """Append a decision of a plateau policy."""
        self._append_once(DECISIONS, row)

    def put_rows(self, name: str, texts: Iterable[str]) -> None:
        """Replace a .jsonl file, unless it says just this."""
        self._former.pop(name, None)
        content = _lines(texts)
        with contextlib.suppress(OSError):
            if read_own(self.path / name) == content:
                return
        replace_own(self.path / name, content)

    def put_records(self, record: dict[str, Any], tests: Iterable[str], snapshots: Iterable[str]) -> None:
        """Write run.json, the tests, the snapshots and their journal anew."""
        for journal in self._journals.values():
            journal.close()
        self._journals = {}
        rows = [*((MEASUREMENTS, text) for text in tests), *((SNAPSHOTS, text) for text in snapshots)]
        for name in (MEASUREMENTS, SNAPSHOTS):
            self.put_rows(name, (text for own, text in rows if own == name))
        write_journal(self.path / RECORDS, record["id"], rows)
        self.write(record)

    def put_decisions(self, rows: Iterable[dict[str, Any]]) -> None:
        """Replace the decisions by those that a resumed run has made again."""
        self._former.pop(DECISIONS, None)
        texts = [json.dumps(row) for row in rows]
        if texts or (self.path / DECISIONS).exists():
            replace_own(self.path / DECISIONS, _lines(texts))

    def _append_once(self, name: str, row: dict[str, Any]) -> None:
        """Append a row that an earlier session may have written: then the former one stays, if it says the
        same, or goes."""
        if name not in self._former:
            self._former[name] = {_place(old): old for old in self.rows(name)}
        former = self._former[name].get(_place(row))
        if former is None:
            self.append(name, row)
            return
        if {**former, "seconds": None} == {**json.loads(json.dumps(row)), "seconds": None}:
            return
        journal = self._appendable(RECORDS) if name == MEASUREMENTS else None
        if journal:
            journal.append(name, json.dumps(row))
        others = [old for old in self.rows(name) if _place(old) != _place(row)]
        replace_own(self.path / name, _lines(json.dumps(old) for old in [*others, row]))

    def add_iterations(self, start: int, lrs: np.ndarray, losses: np.ndarray) -> None:
        """Append rows for the iterations from ``start`` on; ``lrs`` and ``losses`` have shape (n,)."""
        if self._iterations is None:
            self._cut_iterations(start)
            self._iterations = open_own(self.path / ITERATIONS, "ab")
            if self._iterations.tell() == 0:
                self._iterations.write(_HEADING.encode())
        text = _csv(np.arange(start, start + len(losses)), lrs, losses)
        journal = self._appendable(LOSSES)
        if journal and text:
            journal.append(ITERATIONS, text[:-1].replace("\n", ";"))
        self._iterations.write(text.encode())
        self._iterations.flush()
        self._losses.update(text.encode())

    def _cut_iterations(self, start: int) -> None:
        """Take the iterations from ``start`` on out of iterations.csv; run.json counts those that go."""
        rows = self.losses().rows
        kept = [rows[i] for i in sorted(rows) if i < start]
        if len(kept) < len(rows) and self.exists:
            self.update(repeated=self.repeated + len(rows) - len(kept))
        self.put_iterations(kept)
        self._losses = hashlib.sha256(_lines(kept))

    def put_iterations(self, lines: list[str], id: str | None = None) -> None:
        """Replace iterations.csv, and losses.log of a run that has one.

        Args:
            id: the run's, to write a journal that is damaged or missing anew.
        """
        if not lines and not (self.path / ITERATIONS).exists():
            return
        journal = self._appendable(LOSSES)
        if journal:
            journal.close()
            del self._journals[LOSSES]
            id = id or self.journal(LOSSES).id
        if id:
            parts = [lines[i : i + _CHUNK] for i in range(0, len(lines), _CHUNK)]
            write_journal(self.path / LOSSES, id, ((ITERATIONS, ";".join(part)) for part in parts))
        replace_own(self.path / ITERATIONS, _HEADING.encode() + _lines(lines))

    def losses_digest(self, iteration: int) -> str:
        """SHA-256 of the rows of iterations.csv before an iteration."""
        if self._iterations is None:
            return digest_before(self.losses().rows, iteration)
        return self._losses.hexdigest()

    # -- what was measured ----------------------------------------------------------------------

    def measurements(self) -> list[Measurement]:
        """All measurements by iteration and net, the valid one of each."""
        found = (_measurement(row) for row in self.rows(MEASUREMENTS))
        valid = {(m.iteration, m.net): m for m in found if m is not None}
        return [valid[key] for key in sorted(valid)]

    def iterations(self) -> np.ndarray:
        """Array of shape (n, 3): iteration, lr, loss, sorted, the valid row of each iteration."""
        rows = self.losses().rows
        valid = [_iteration_row(rows[i]) for i in sorted(rows)]
        return np.array([row for row in valid if row is not None]).reshape(-1, 3)

    def rows(self, name: str) -> Iterator[dict[str, Any]]:
        """The objects of a .jsonl file; each has an integer "iteration"."""
        for text in self.found(name).rows.values():
            yield json.loads(text)

    def found(self, name: str) -> Found:
        """The rows of a .jsonl file, by iteration and test net, from it and its journal."""
        id = self.id
        file = _fold(name, id, *_complete_lines(self.path / name))
        if name == DECISIONS:
            return Found(file.rows, [f"{name}: {file.damage}"] if file.damage else [], bool(file.damage))
        journal = self.journal(RECORDS, id)
        return _together(name, file, journal, _fold(name, id, journal.of(name)), has_journal=id is not None)

    def losses(self) -> Found:
        """The rows of iterations.csv, by iteration, from it and its journal."""
        id = self.id
        file = _read_losses(self.path / ITERATIONS)
        journal = self.journal(LOSSES, id)
        parts = [text.split(";") for text in journal.of(ITERATIONS)]
        own = _fold_losses(line for part in parts for line in part)
        last = len(parts[-1]) if parts else 0
        return _together(ITERATIONS, file, journal, own, last, has_journal=id is not None)

    @property
    def id(self) -> str | None:
        """What tells the run's journals from those of others; None where it has none."""
        with contextlib.suppress(InputError):
            return self.read().get("id")
        return None

    def damage(self) -> list[str]:
        """What is damaged so that results are lost, until the run is resumed; nothing for a whole run."""
        found = self.found(MEASUREMENTS), self.losses()
        return [words for one in found if one.lost for words in one.damage]


# -- rows ---------------------------------------------------------------------------------------------


def _together(
    name: str, file: Rows, journal: Journaled, own: Rows, last: int = 1, *, has_journal: bool
) -> Found:
    """The rows of a file and of its journal as one.

    Args:
        own: the rows of the journal; ``last``: how many of them were written at once at the end.

    A kill may leave a file without what its journal was given last: that is no damage.
    """
    log = LOSSES if name == ITERATIONS else RECORDS
    of_file = [f"{name}: {file.damage}"] if file.damage else []
    of_journal = [f"{log}: {journal.damage}"] if journal.damage else []
    if not has_journal:
        return Found(file.rows, of_file, bool(of_file))
    if not journal.whole:
        agreeing = {place: file.rows.get(place) for place in own.rows} == own.rows
        if agreeing and not of_file:
            return Found(file.rows, of_journal, other=(own.rows,))
        words = [*(of_file or [f"{name}: does not say what was written there"]), *of_journal]
        both, reverse = {**file.rows, **own.rows}, {**own.rows, **file.rows}
        return Found(both, words, True, (file.rows, own.rows, reverse))
    missing = len(own.rows) - len(file.rows)
    if not of_file and missing >= 0 and _begins(own.rows, file.rows):
        words = [f"{name}: its last {missing} rows are missing"] if missing > last else []
        return Found(own.rows, words)
    if not of_file and _begins(file.rows, own.rows):
        return Found(file.rows, [f"{log}: its last rows are missing"], other=(own.rows,))
    words = of_file or [f"{name}: does not say what was written there"]
    both, reverse = {**own.rows, **file.rows}, {**file.rows, **own.rows}
    return Found(own.rows, words, other=(file.rows, both, reverse))


def _begins(whole: Mapping[Any, str], part: Mapping[Any, str]) -> bool:
    """Whether the rows of one are the first ones of the other."""
    return len(part) <= len(whole) and all(one == other for one, other in zip(part.items(), whole.items()))


def _fold(name: str, id: str | None, lines: Iterable[str], problem: str | None = None) -> Rows:
    """The last row of each place of a .jsonl file, in their order."""
    rows: dict[Place, str] = {}
    bad = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            place = _place(row) if _is_row(name, id, row) else None
            if place is not None:
                rows.pop(place, None)
                rows[place] = line
        except (ValueError, TypeError, RecursionError):  # a net that is a list cannot be a key
            place = None
        if place is None:
            bad.append(number)
    return Rows(rows, bad, problem)


def _is_row(name: str, id: str | None, row: Any) -> bool:
    if not isinstance(row, dict) or not _is_count(row.get("iteration")):
        return False
    if name == MEASUREMENTS:
        return _measurement(row) is not None
    return name != SNAPSHOTS or id is None or row == sealed(row, id)


def sealed(row: dict[str, Any], id: str) -> dict[str, Any]:
    """A row of snapshots.jsonl with its checksum, which holds for this run alone."""
    bare = {name: value for name, value in row.items() if name != "check"}
    return {**bare, "check": digest([id, bare])[:16]}


def _read_losses(path: Path) -> Rows:
    lines, problem = _complete_lines(path)
    heading = bool(lines) and lines[0] + "\n" == _HEADING
    rows = _fold_losses(lines[heading:], problem)
    bad = [number + heading for number in rows.bad]
    return replace(rows, bad=[1, *bad] if lines and not heading and 1 not in bad else bad)


def _fold_losses(lines: Iterable[str], problem: str | None = None) -> Rows:
    rows: dict[int, str] = {}
    bad = []
    for number, line in enumerate(lines, start=1):
        row = _iteration_row(line)
        if row is None:
            bad.append(number)
        else:
            rows[int(row[0])] = line
    return Rows(rows, bad, problem)


def _place(row: dict[str, Any]) -> Place:
    return row["iteration"], row.get("net")


def digest_before(rows: Mapping[Any, str], iteration: int) -> str:
    """SHA-256 of the rows before an iteration, by iteration (and test net)."""
    places = sorted(p for p in rows if (p if isinstance(p, int) else p[0]) < iteration)
    return hashlib.sha256(_lines(rows[place] for place in places)).hexdigest()


def digest_at(rows: Mapping[Place, str], iteration: int) -> str | None:
    """SHA-256 of the rows of an iteration; None where there are none."""
    places = sorted(place for place in rows if place[0] == iteration)
    return hashlib.sha256(_lines(rows[place] for place in places)).hexdigest() if places else None


def _lines(texts: Iterable[str]) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode("utf-8", "surrogatepass")


def _csv(iterations: np.ndarray, lrs: np.ndarray, losses: np.ndarray) -> str:
    """Rows of iterations.csv, to the last bit: a resumed run takes the mean of losses that it reads there."""
    rows = zip(iterations.tolist(), lrs.tolist(), losses.tolist())
    return "".join(f"{i},{lr!r},{loss!r}\n" for i, lr, loss in rows)


def _complete_lines(path: Path) -> tuple[list[str], str | None]:
    """The lines of a file without a last one that a kill cut off, and why it cannot be read."""
    try:
        return read_own(path).decode("utf-8", "replace").split("\n")[:-1], None
    except FileNotFoundError:
        return [], None
    except OSError as error:
        return [], str(error.strerror)


def _holds_something(path: Path) -> bool:
    try:
        return path.is_symlink() or path.stat().st_size > 0
    except OSError:
        return False


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
    with contextlib.suppress(FileNotFoundError), open_own(path, "r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)


# -- run.json -----------------------------------------------------------------------------------------

_TEXT, _OPTIONAL_TEXT = (str,), (str, type(None))
_KINDS: dict[str, tuple[type, ...]] = {
    "solver": _TEXT, "policy": _TEXT, "policy_from": _TEXT, "policy_short": _TEXT, "lr_by": _TEXT,
    "layers": _TEXT, "status": _TEXT, "machine": _TEXT, "version": _TEXT, "source": _TEXT, "user": _TEXT,
    "id": _TEXT, "snapshot": _OPTIONAL_TEXT, "head": _OPTIONAL_TEXT, "reason": _OPTIONAL_TEXT,
    "seed": (int, type(None)), "max_iter": (int,), "test_interval": (int,), "snapshot_interval": (int,),
    "gpu": (int, type(None)), "level": (int,), "threads": (int,), "iteration": (int, type(None)),
    "ended": (int, float, type(None)), "stages": (list,), "weights": (list,), "sessions": (list,),
    "fingerprint": (dict,), "start": (dict, type(None)), "record": (dict, type(None)),
}  # fmt: skip
_NAMES = {
    str: "text", int: "a whole number", float: "a number", list: "a list", dict: "an object",
    type(None): "null",
}  # fmt: skip
_LARGEST = 2**53  # a number that every reader of JSON can hold


def parse_record(content: bytes) -> dict[str, Any]:
    """What run.json holds, without its checksum.

    Raises:
        ValueError: it is damaged, or no record of a run; the message says why.
    """
    try:
        record = json.loads(content.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    checksum = record.pop("check", None)
    if ("id" in record or checksum is not None) and checksum != _check(record):
        raise ValueError("its content does not fit its checksum")
    if not record.get("solver"):
        raise ValueError(f"solver is {record.get('solver')!r}; allowed: a file name")
    for name, kinds in _KINDS.items():
        if name in record:
            _check_kind(name, record[name], kinds)
    _check_parts(record)
    return record


def _check_kind(name: str, value: Any, kinds: tuple[type, ...]) -> None:
    fits = isinstance(value, kinds) and not isinstance(value, bool)
    if isinstance(value, (int, float)):
        fits = fits and -_LARGEST <= value <= _LARGEST  # nor NaN
    if isinstance(value, str):
        fits = fits and "\0" not in value
    if not fits:
        allowed = " or ".join(_NAMES[kind] for kind in kinds)
        raise ValueError(f"{name} is {reprlib.repr(value)}; allowed: {allowed}")


def _check_parts(record: Mapping[str, Any]) -> None:
    if record.get("status", STATUSES[0]) not in STATUSES:
        raise ValueError(f"status is {record['status']!r}; allowed: {', '.join(STATUSES)}")
    for name in ("stages", "weights"):
        for value in record.get(name, ()):
            _check_kind(f"an element of {name}", value, _TEXT)
    for name, value in record.get("fingerprint", {}).items():
        _check_kind(f"fingerprint: {name}", value, _TEXT)
    _check_kind("record: uid", (record.get("record") or {}).get("uid", ""), _TEXT)


def _check(record: Mapping[str, Any]) -> str:
    """The checksum of run.json: SHA-256 over canonical JSON, 16 hexadecimal digits."""
    return digest(record)[:16]


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
    for folder in sorted({path.parent for name in (RUN, RECORDS) for path in root.glob(f"*/{name}")}):
        if folder.is_symlink():  # LATEST
            continue
        run = RunDirectory(folder)
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
    link = root / LATEST
    if link.exists() and not link.is_symlink():  # somebody's own
        return
    with contextlib.suppress(OSError):
        remove_leftovers(root, LATEST)
        replace_by(link, lambda new: new.symlink_to(path.name))


def _last_written(folder: Path) -> float:
    return max(file.lstat().st_mtime for file in folder.iterdir())
