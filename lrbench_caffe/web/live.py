"""Trainings on this machine, followed by the files that they write.

Nothing is read unless somebody asks: the folders are looked through when the list is shown, and a
run's files when a page follows it, then only what was added since. So following a hundred trainings
costs nothing while nobody looks.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lrbench_caffe.files import open_own
from lrbench_caffe.metrics import TEST_LOSS, TOP1, Measurement, of_first_net
from lrbench_caffe.plaintext import visible
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.runs.layout import ITERATIONS, LATEST, MARKS, MEASUREMENTS, RUN, page_key
from lrbench_caffe.web.foreign import losses_in, measurement_in, name_of, state, status_of

FRESH = 2.0  # seconds for which a list of the folders' runs is used again
DEPTH = 6  # folders below a folder of runs in which runs are looked for, as RUNS/STUDY/also/NAME/trainings
MOST_RUNS = 2000  # that are known, the newest ones
MOST_SHOWN = 200  # of those that are not trained, in a list
POINTS = 1000  # of the training loss in one event; more cannot be told apart
PIECE = 2**20  # bytes of a file that are read at once
LOG = logging.getLogger("lrbench_caffe.web")


@dataclass(frozen=True)
class LiveRun:
    """A run on this machine.

    Attributes:
        key: names it in an address.
        path: its directory.
        name: the directory, from the folder of runs.
        policy, task: for people.
        status: "running" while a process trains it, "interrupted" where that was killed, else as
            run.json says.
        iteration, max_iter: how far it is, and how long.
        top1: of the first test net's last test, in percent; loss: its test loss. None without.
        changed: when it was written to last, seconds since 1970.
        uid: its run in an LR database; None where it is recorded in none.
    """

    key: str
    path: Path
    name: str
    policy: str
    task: str
    status: str
    iteration: int
    max_iter: int
    top1: float | None
    loss: float | None
    changed: float
    uid: str | None = None

    @property
    def result(self) -> str:
        """The last test for people (see ``result_text``)."""
        return result_text(self.top1, self.loss)


def result_text(top1: float | None, loss: float | None) -> str:
    """A test for people by its Top-1 or, for a net without one, its loss; "-" where it has neither.

    >>> result_text(98.2, 0.1), result_text(None, float("inf")), result_text(None, None)
    ('98.20 %', 'loss inf', '-')
    """
    if top1 is not None:
        return TOP1.text(top1)
    return "-" if loss is None else f"loss {TEST_LOSS.text(loss)}"


class LiveFolders:
    """The runs in folders. Threads may share it."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._lock = threading.Lock()
        self._listed: dict[str, LiveRun] = {}
        self._at = -FRESH

    def runs(self) -> list[LiveRun]:
        """All runs, those that are trained first, then the newest."""
        return list(self._fresh().values())

    def find(self, key: str) -> LiveRun | None:
        """A run by its key; None where there is none in the folders."""
        return self._fresh().get(key)

    def _fresh(self) -> dict[str, LiveRun]:
        """All runs by their keys, looked for again unless that was just done."""
        with self._lock:
            if time.monotonic() - self._at > FRESH:
                self._listed = {run.key: run for run in self._look()}
                self._at = time.monotonic()
            return self._listed

    def _look(self) -> list[LiveRun]:
        places = {path.resolve(): root for root in self._folders for path in run_paths(root)}
        newest = sorted(places, key=_changed, reverse=True)[:MOST_RUNS]
        runs = [run for path in newest if (run := self._run(path, places[path])) is not None]
        return sorted(runs, key=lambda run: (run.status != "running", -run.changed))

    def _run(self, path: Path, root: Path) -> LiveRun | None:
        key = page_key(path)
        changed = _changed(path)
        known = self._listed.get(key)
        directory = RunDirectory(path)
        running = directory.running
        if known and known.changed == changed and (known.status == "running") == running:
            return known
        try:
            settings = directory.read()
            running = running or directory.running  # it may have begun meanwhile
            return _described(key, path, root, settings, running, changed)
        except Exception as error:  # whatever one folder holds, the others are listed
            LOG.debug("%s is left out: %r", path, error)
            return None  # it is being made, or it is none


def run_paths(root: Path) -> Iterator[Path]:
    """The run directories in a folder of runs, also in studies; links are not followed."""
    for folder, names, files in os.walk(root):
        if not set(MARKS).isdisjoint(files):
            names.clear()
            yield Path(folder)
        elif len(Path(folder).relative_to(root).parts) >= DEPTH:
            names.clear()
        names[:] = [name for name in names if name != LATEST]


def shown_of(runs: Sequence[LiveRun]) -> list[LiveRun]:
    """Those of all runs that a list shows: all that are trained, and the newest of the others."""
    under_way = sum(run.status == "running" for run in runs)
    return list(runs[: under_way + MOST_SHOWN])


def _changed(path: Path) -> float:
    return max(state(path / name)[2] for name in (RUN, ITERATIONS, MEASUREMENTS))


def _described(
    key: str, path: Path, root: Path, settings: dict[str, Any], running: bool, changed: float
) -> LiveRun:
    last = _last_lines(path / ITERATIONS)[-1:]
    row = losses_in(last[0]) if last else None
    tests = map(measurement_in, reversed(_last_lines(path / MEASUREMENTS)))
    test = next((test for test in tests if test is not None and test.of_first_net), None)
    return LiveRun(
        key=key,
        path=path,
        name=name_of(path, root),
        policy=visible(str(settings.get("policy", ""))),
        task=visible(str(settings.get("task", ""))),
        status=status_of(settings, running),
        iteration=_done(row) if row else 0,
        max_iter=int(settings.get("max_iter") or 0),
        top1=test.top1 if test else None,
        loss=test.test_loss if test else None,
        changed=changed,
        uid=_uid(settings.get("record")),
    )


def _uid(record: Any) -> str | None:
    uid = record.get("uid") if isinstance(record, dict) else None
    return uid if isinstance(uid, str) and uid.isprintable() else None


def _last_lines(path: Path) -> list[str]:
    """The last complete lines of a file, without reading all of it; the first may lack its beginning."""
    try:
        with open_own(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 2**16))
            content: bytes = file.read()
    except OSError:
        return []
    return content.decode(errors="replace").split("\n")[:-1]


# -- one run ---------------------------------------------------------------------------------------


@dataclass
class Place:
    """How far a page has read a run's files: the text of it goes to the page, and comes back.

    Attributes:
        file: the number of iterations.csv on its disk; another one was written anew.
        losses, tests: bytes of the two files.
    """

    file: int = 0
    losses: int = 0
    tests: int = 0

    @classmethod
    def parse(cls, text: str | None) -> Place:
        """The place of a page's text; the beginning where it is none."""
        try:
            file, losses, tests = map(int, (text or "").split("-"))
        except ValueError:
            return cls()
        return cls(file, losses, tests) if min(file, losses, tests) >= 0 else cls()

    def __str__(self) -> str:
        return f"{self.file}-{self.losses}-{self.tests}"


@dataclass
class News:
    """What a run's files have beyond a place.

    Attributes:
        again: whether they were written anew, so that what a page has is not valid.
        losses: rows of iteration, LR and training loss, thinned.
        tests: the measurements.
        iteration: how far it is by the last of them, None without new rows.
        place: where the next look begins.
        more: whether there is more already.
    """

    again: bool = False
    losses: list[tuple[float, ...]] = field(default_factory=list)
    tests: list[Measurement] = field(default_factory=list)
    iteration: int | None = None
    place: Place = field(default_factory=Place)
    more: bool = False

    def __bool__(self) -> bool:
        return self.again or bool(self.losses) or bool(self.tests)

    @property
    def last_test(self) -> Measurement | None:
        """The last test of the first test net, None without a new one."""
        return next(reversed(of_first_net(self.tests)), None)


def news(path: Path, place: Place) -> News:
    """What was added to a run's files since a place."""
    number, size, _ = state(path / ITERATIONS)
    size_of_tests = state(path / MEASUREMENTS)[1]
    again = place.file not in (0, number) or place.losses > size or place.tests > size_of_tests
    begin = Place() if again else place
    lines, losses = _added(path / ITERATIONS, begin.losses)
    rows = [row for row in map(losses_in, lines) if row is not None]
    found, tests = _added(path / MEASUREMENTS, begin.tests)
    end = Place(number, losses, tests)
    # Behind the last line one may be being written: the next look finds nothing, and ends this.
    more = begin.losses < losses < size or begin.tests < tests < size_of_tests
    measured = [test for test in map(measurement_in, found) if test is not None]
    done = _done(rows[-1]) if rows else None
    return News(again, thinned(rows), measured, done, end, more)


def _done(row: tuple[float, ...]) -> int:
    """How many iterations are done by a row of losses."""
    return int(row[0]) + 1


def _added(path: Path, begin: int) -> tuple[list[str], int]:
    """The complete lines from a byte on, and the byte behind them."""
    try:
        with open_own(path, "rb") as file:
            file.seek(begin)
            content = file.read(PIECE)
    except OSError:
        return [], begin
    whole = content.rpartition(b"\n")[0]
    if not whole:
        return [], begin
    return whole.decode(errors="replace").split("\n"), begin + len(whole) + 1


def thinned(rows: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """At most ``POINTS`` rows: the means of neighbours."""
    step = -(-len(rows) // POINTS) or 1
    groups = (rows[i : i + step] for i in range(0, len(rows), step))
    return [tuple(sum(column) / len(group) for column in zip(*group)) for group in groups]
