"""Records a run in the LR database during the training.

The training only queues results: a separate thread writes them. So a database that is unreachable,
hangs or is slow neither delays nor ends a training. Results that it has not received some time
after the end remain in the run directory, and the next command that opens the database adds them
(``runs.waiting``).
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from lrbench_caffe.database.checks import with_storable_text
from lrbench_caffe.database.patience import BESIDE_TRAINING, LONG
from lrbench_caffe.database.urls import resolve_url
from lrbench_caffe.errors import LRBenchError
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.records import RunRecord
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.runs.runjson import lasting_facts
from lrbench_caffe.runtime.replies import Opened
from lrbench_caffe.training.observer import Observer

if TYPE_CHECKING:
    from lrbench_caffe.database import Database
    from lrbench_caffe.runs.waiting import Note

# Seconds that the end of a training waits for pending writes. A file in use is waited
# for as long when it is opened: others may be making it, which takes its time on a busy machine.
LAST_PATIENCE = LONG
SILENCE = 2.0  # seconds after which the waiting is reported

Work = Callable[["Database"], object]


class Recorder(Observer):
    """An observer that writes into the LR database.

    Args:
        url: the database, None for the user's default.
        run: the run directory; run.json's "record" is what ``db sync`` will need.
        describe: makes the run's record once Caffe has loaded the nets.
        note: where a person is told that the database is out of reach.

    Raises:
        InputError: the URL is wrong.
    """

    def __init__(
        self,
        url: str | None,
        run: RunDirectory,
        describe: Callable[[Opened], RunRecord],
        note: Callable[[str], None],
    ) -> None:
        resolved = resolve_url(url)
        self._url = url
        self._run = run
        self._describe = describe
        self._note = note
        self._record: RunRecord | None = None
        self._queue: queue.SimpleQueue[tuple[Work, bool] | None] = queue.SimpleQueue()
        self._missing = False  # whether there are results that the database has not got
        self._is_file = resolved.startswith("sqlite")
        self._reached = False  # whether the database has answered yet
        self._waiting: Note | None = None
        self._thread = threading.Thread(target=self._write_all, daemon=True)
        self._thread.start()

    # -- in the training's thread ---------------------------------------------------------------

    def opened(self, opened: Opened) -> None:
        try:
            record = self._record = with_storable_text(self._describe(opened))
            self._run.update(record=lasting_facts(record))
        except (LRBenchError, OSError) as error:
            self._note(f"this run is not recorded in the LR database: {error}")
            return
        self._note_down(record)
        self._put(lambda database: database.begin_run(record))

    def _note_down(self, record: RunRecord) -> None:
        from lrbench_caffe.runs import waiting

        note = waiting.note_of(self._url, self._run.path, record.uid)
        with contextlib.suppress(OSError):  # no data directory: ``db sync`` is still there
            waiting.add(note)
            self._waiting = note

    def tested(self, measurements: list[Measurement]) -> None:
        record = self._record
        if record:
            kept = with_storable_text(list(measurements))
            self._put(lambda database: database.add_measurements(record.uid, kept))

    def ended(self, status: str, reason: str | None) -> None:
        record = self._record
        if record:
            ended = self._run.read().get("ended") or 0.0
            self._put(
                lambda database: self._end(database, record, status, reason, ended), is_end=True
            )
        self._queue.put(None)
        self._thread.join(SILENCE)
        if self._thread.is_alive():
            self._note(f"waiting up to {LAST_PATIENCE:g} s for the LR database")
            self._thread.join(LAST_PATIENCE)
        if self._thread.is_alive():
            self._note(f"the LR database does not answer; {self._later}")

    @property
    def _later(self) -> str:
        if self._waiting is None:
            return f"the results wait in {self._run.path} (db sync adds them)"
        return (
            f"the results wait in {self._run.path} for the next command that uses the database "
            "(or db sync)"
        )

    def _put(self, work: Work, is_end: bool = False) -> None:
        self._queue.put((work, is_end))

    # -- in the writing thread ------------------------------------------------------------------

    def _write_all(self) -> None:
        database: Database | None = None
        while (item := self._queue.get()) is not None:
            work, is_end = item
            if self._missing and not is_end:
                continue  # the end puts all of it in, and is the next time that is worth a try
            try:
                database = database or self._open()
                database.patience = LAST_PATIENCE if is_end else BESIDE_TRAINING
                work(database)
            except Exception as error:  # this thread must not end: the training's end waits for it
                if not self._missing:
                    self._note(f"the LR database: {error}; {self._later}")
                self._missing = True
        if database:
            database.close()

    def _open(self) -> Database:
        from lrbench_caffe.database.engine import parse_url
        from lrbench_caffe.database.preparing import is_emptied
        from lrbench_caffe.database.store import Database

        if is_emptied(parse_url(resolve_url(self._url))):
            self._note("the LR database was an empty file; it is set up again")
        patience = LAST_PATIENCE if self._is_file or self._reached else BESIDE_TRAINING
        database = Database.open(self._url, patience=patience)
        self._reached = True
        return database

    def _end(
        self, database: Database, record: RunRecord, status: str, reason: str | None, ended: float
    ) -> None:
        if self._missing:
            record.measurements = with_storable_text(self._run.measurements())
            record.status, record.reason, record.ended = status, reason, ended
            database.put(record)
            self._note("the LR database has all results now")
        else:
            database.end_run(record.uid, status, reason, ended)
        self._bring_in_others(database)

    def _bring_in_others(self, database: Database) -> None:
        from lrbench_caffe.runs import waiting

        with contextlib.suppress(LRBenchError, OSError):  # they keep waiting
            if self._waiting:
                waiting.discard(self._waiting)
            waiting.bring_in(database, self._note)
