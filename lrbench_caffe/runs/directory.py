"""A run directory: everything that one training was given and has measured, written immediately.

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

A resumed run repeats the iterations after its snapshot. Each iteration and each test is in a
file only once all the same: losses from before go when the first of them is done again, and a test that
is done again replaces the former one unless it says the same.

Each row is in a journal before it is in its file, so whichever of the two is damaged, the other one
has it (``rows``); ``mending`` puts both in order when a run is resumed. The directories of former
versions have no journals, and no id in run.json: what is damaged there is left out, and said. (They
may hold an iteration twice: then the later line is the valid one.)
"""

from __future__ import annotations

import contextlib
import copy
import fcntl
import hashlib
import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np

from lrbench_caffe.errors import InputError, ParameterError, PassingError
from lrbench_caffe.files import open_own, read_own, remove_leftovers, replace_own
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.runs.journal import Journal, Journaled, read_journal, write_journal
from lrbench_caffe.runs.layout import (
    DECISIONS,
    HEADING,
    ITERATIONS,
    LOSSES,
    MEASUREMENTS,
    RECORDS,
    RUN,
    SNAPSHOTS,
)
from lrbench_caffe.runs.rows import (
    Place,
    Recovered,
    complete_lines,
    csv_rows,
    digest_before,
    finite,
    fold,
    fold_losses,
    is_count,
    iteration_row,
    joined,
    measurement_of,
    place_of,
    read_losses,
    together,
)
from lrbench_caffe.runs.runjson import checksum, parse_record

DATED = (
    "run.json",
    "measurements.jsonl",
    "iterations.csv",
)  # files that are written as long as a run lives

_CHUNK = 1000  # iterations in an entry of losses.log


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
        """The name of a file left by a run whose record is lost, None without one."""
        names = (RUN, ITERATIONS, MEASUREMENTS, SNAPSHOTS)
        return next((name for name in names if _holds_something(self.path / name)), None)

    @property
    def foreign(self) -> Path | None:
        """Something that is there, where no run is, and that a run would write over; None without it."""
        places = (self.prototxt, self.snapshots, self.log, self.plot)
        return next((path for path in places if _holds_something(path)), None)

    def lock(self) -> None:
        """Make this process the only writer, until it ends or calls ``release``.

        Raises:
            InputError: another process trains in this directory, or it cannot be written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for folder in (self.snapshots, self.prototxt):
                if folder.is_symlink():
                    raise InputError(
                        f"{folder} is a symbolic link; allowed: a folder of the run's own"
                    )
            self.snapshots.mkdir(exist_ok=True)
            self._lock = open_own(self.path / ".lock", "wb")
        except OSError as error:
            where = error.filename if error.filename not in (None, str(self.path)) else self.path
            raise InputError(f"cannot write to {where}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            text = f"{self.path} is in use by a training that is still running"
            raise PassingError(text) from None
        try:
            for name in (ITERATIONS, MEASUREMENTS, DECISIONS, SNAPSHOTS, RECORDS, LOSSES):
                _drop_torn_line(self.path / name)
            for path in (self.path / RUN, self.log):
                with contextlib.suppress(FileNotFoundError):
                    open_own(path, "rb").close()
        except OSError as error:
            self.release()
            raise ParameterError(
                "{0}: {1}; {resume} needs a file there", error.filename, error.strerror
            ) from error
        remove_leftovers(self.path, r"[^/]*")
        remove_leftovers(self.snapshots, r"resume\..*")

    def release(self) -> None:
        for file in (self._iterations, *self._journals.values(), self._lock):
            if file:
                # Rows that a full disk did not take are tried once more here; that was reported
                # already.
                with contextlib.suppress(OSError):
                    file.close()
        self._iterations = self._lock = self._record = None
        self._journals = {}
        self._former = {}

    def discard(self) -> None:
        """Remove the files of a run that never trained, so that its place is free again."""
        for path in (
            *self.prototxt.glob("*.prototxt"),
            self.log,
            *(self.path / name for name in (RUN, RECORDS, LOSSES, ".lock")),
        ):
            path.unlink(missing_ok=True)
        for folder in (self.prototxt, self.snapshots, self.path):
            with contextlib.suppress(OSError):  # something else is in there
                folder.rmdir()

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
        """Use this as run.json, whatever the file contains."""
        self._record = record

    def read(self) -> dict[str, Any]:
        """run.json; if it is damaged or missing, the journal's copy.

        Raises:
            InputError: there is none, or it is damaged, in both places.
        """
        if self._record is not None:
            return copy.deepcopy(self._record)
        try:
            return self._read_file()
        except InputError:
            journaled = self.journaled_record()
            if journaled is None:
                raise
            return journaled

    def _read_file(self) -> dict[str, Any]:
        path = self.path / RUN
        try:
            return parse_record(read_own(path))
        except FileNotFoundError as error:
            raise InputError(f"{self.path} is not a run directory: it has no {RUN}") from error
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path} holds no run: {path}: {_reason(error)}") from error

    def journaled_record(self) -> dict[str, Any] | None:
        """The journal's copy of run.json; None if there is none, or if it is damaged."""
        journal = self.journal(RECORDS)
        if not journal.whole:
            return None
        for text in journal.of(RUN)[-1:]:
            with contextlib.suppress(ValueError):
                return parse_record(text.encode())
        return None

    def record_damage(self, record: Mapping[str, Any]) -> str | None:
        """The damage of run.json, if its content is not ``record``, which was read."""
        try:
            in_file = parse_record(read_own(self.path / RUN))
        except (OSError, ValueError) as error:
            return _reason(error)
        return None if in_file == record else "differs from what was written"

    def write(self, record: dict[str, Any]) -> None:
        """Replace run.json, so that a kill leaves the old or the new one.

        A record with an "id" is also written to the journal, and has a checksum.
        """
        record = copy.deepcopy({name: value for name, value in record.items() if name != "check"})
        kept = record
        if "id" in record:
            kept = {**record, "check": checksum(record)}
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
        return count if isinstance(count, int) and is_count(count) else 0

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

        Of two records of a run the one that ends later is the one that counts, whatever was done to
        the clock between its sessions.
        """
        return max(time.time(), self.last_seen() + 0.001)

    # -- journals -------------------------------------------------------------------------------

    def journal(self, name: str, id: str | None = None) -> Journaled:
        """The content of records.log or losses.log."""
        return read_journal(self.path / name, id)

    def begin(self, record: dict[str, Any]) -> None:
        """Write run.json for a session; this process keeps it, whatever happens to the file.

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
            there = self.journal(name, id)
            if there.whole and there.id:
                self._journals[name] = Journal(self.path / name, there.id, 1 + len(there.entries))
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
        row = {key: finite(value) for key, value in asdict(measurement).items()}
        row["outputs"] = {name: finite(value) for name, value in measurement.outputs.items()}
        self.add_measured(row)

    def add_measured(self, row: dict[str, Any]) -> None:
        """Append a measurement as a row of measurements.jsonl."""
        self._append_once(MEASUREMENTS, row)

    def add_decision(self, row: dict[str, Any]) -> None:
        """Append a decision of a plateau policy."""
        self._append_once(DECISIONS, row)

    def put_rows(self, name: str, texts: Iterable[str]) -> None:
        """Replace a .jsonl file unless it has this content already."""
        self._former.pop(name, None)
        content = joined(texts)
        with contextlib.suppress(OSError):
            if read_own(self.path / name) == content:
                return
        replace_own(self.path / name, content)

    def put_records(
        self, record: dict[str, Any], tests: Iterable[str], snapshots: Iterable[str]
    ) -> None:
        """Write run.json, the tests, the snapshots and their journal anew."""
        for journal in self._journals.values():
            journal.close()
        self._journals = {}
        rows = [
            *((MEASUREMENTS, text) for text in tests),
            *((SNAPSHOTS, text) for text in snapshots),
        ]
        for name in (MEASUREMENTS, SNAPSHOTS):
            self.put_rows(name, (text for own, text in rows if own == name))
        write_journal(self.path / RECORDS, record["id"], rows)
        self.write(record)

    def put_decisions(self, rows: Iterable[dict[str, Any]]) -> None:
        """Replace the decisions by those that a resumed run has made again."""
        self._former.pop(DECISIONS, None)
        texts = [json.dumps(row) for row in rows]
        if texts or (self.path / DECISIONS).exists():
            replace_own(self.path / DECISIONS, joined(texts))

    def _append_once(self, name: str, row: dict[str, Any]) -> None:
        """Append a row that an earlier session may have written: then the former one stays, if it says the
        same, or goes."""
        if name not in self._former:
            self._former[name] = {place_of(old): old for old in self.rows(name)}
        former = self._former[name].get(place_of(row))
        if former is None:
            self.append(name, row)
            return
        if {**former, "seconds": None} == {**json.loads(json.dumps(row)), "seconds": None}:
            return
        journal = self._appendable(RECORDS) if name == MEASUREMENTS else None
        if journal:
            journal.append(name, json.dumps(row))
        others = [old for old in self.rows(name) if place_of(old) != place_of(row)]
        replace_own(self.path / name, joined(json.dumps(old) for old in [*others, row]))

    def add_iterations(self, start: int, lrs: np.ndarray, losses: np.ndarray) -> None:
        """Append rows for the iterations from ``start`` on; ``lrs`` and ``losses`` have shape (n,)."""
        if self._iterations is None:
            self._cut_iterations(start)
            self._iterations = open_own(self.path / ITERATIONS, "ab")
            if self._iterations.tell() == 0:
                self._iterations.write(HEADING.encode())
        text = csv_rows(np.arange(start, start + len(losses)), lrs, losses)
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
        self._losses = hashlib.sha256(joined(kept))

    def withdraw_iterations(self, start: int) -> None:
        """Take the iterations from ``start`` on out again: their weights are not here."""
        if self._iterations is not None:
            self._iterations.close()
            self._iterations = None  # the next ones make the digest anew
        rows = self.losses().rows
        self.put_iterations([rows[i] for i in sorted(rows) if i < start])

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
        replace_own(self.path / ITERATIONS, HEADING.encode() + joined(lines))

    def losses_digest(self, iteration: int) -> str:
        """SHA-256 of the rows of iterations.csv before an iteration."""
        if self._iterations is None:
            return digest_before(self.losses().rows, iteration)
        return self._losses.hexdigest()

    # -- what was measured ----------------------------------------------------------------------

    def measurements(self) -> list[Measurement]:
        """All measurements by iteration and net, the valid one of each."""
        all_rows = (measurement_of(row) for row in self.rows(MEASUREMENTS))
        valid = {(m.iteration, m.net): m for m in all_rows if m is not None}
        return [valid[key] for key in sorted(valid)]

    def iterations(self) -> np.ndarray:
        """Array of shape (n, 3): iteration, lr, loss, sorted, the valid row of each iteration."""
        rows = self.losses().rows
        valid = [iteration_row(rows[i]) for i in sorted(rows)]
        return np.array([row for row in valid if row is not None]).reshape(-1, 3)

    def rows(self, name: str) -> Iterator[dict[str, Any]]:
        """The objects of a .jsonl file; each has an integer "iteration"."""
        for text in self.recovered(name).rows.values():
            yield json.loads(text)

    def recovered(self, name: str) -> Recovered:
        """The rows of a .jsonl file, by iteration and test net, from it and its journal."""
        id = self.id
        file = fold(name, id, *complete_lines(self.path / name))
        if name == DECISIONS:
            return Recovered(
                file.rows, [f"{name}: {file.damage}"] if file.damage else [], bool(file.damage)
            )
        journal = self.journal(RECORDS, id)
        return together(
            name, file, journal, fold(name, id, journal.of(name)), has_journal=id is not None
        )

    def losses(self) -> Recovered:
        """The rows of iterations.csv, by iteration, from it and its journal."""
        id = self.id
        file = read_losses(self.path / ITERATIONS)
        journal = self.journal(LOSSES, id)
        parts = [text.split(";") for text in journal.of(ITERATIONS)]
        own = fold_losses(line for part in parts for line in part)
        last = len(parts[-1]) if parts else 0
        return together(ITERATIONS, file, journal, own, last, has_journal=id is not None)

    @property
    def id(self) -> str | None:
        """The id in the run's journals; None without journals."""
        with contextlib.suppress(InputError):
            return self.read().get("id")
        return None

    def damage(self) -> list[str]:
        """The damage by which results are lost until the run is resumed; empty for an intact run."""
        parts = self.recovered(MEASUREMENTS), self.losses()
        return [words for part in parts if part.lost for words in part.damage]


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or "is damaged"


def _holds_something(path: Path) -> bool:
    try:
        if path.is_dir() and not path.is_symlink():
            return any(path.iterdir())
        return path.is_symlink() or path.stat().st_size > 0
    except OSError:
        return False


def _drop_torn_line(path: Path) -> None:
    """Cut off a last line that a kill left incomplete, so that the next one starts on its own."""
    with contextlib.suppress(FileNotFoundError), open_own(path, "r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
