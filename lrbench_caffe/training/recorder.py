"""Records a run into the LR database as it goes.

Training never waits for a database that is out of reach, nor ends because of it: the results are in the run
directory, and go into the database when the run ends, or later with ``db sync``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from lrbench_caffe.database.urls import resolve_url
from lrbench_caffe.errors import LRBenchError
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.records import RunRecord
from lrbench_caffe.runtime.client import Opened
from lrbench_caffe.training.observer import Observer
from lrbench_caffe.training.rundir import RunDirectory

if TYPE_CHECKING:
    from lrbench_caffe.database import Database

PATIENCE = 2.0  # seconds that a training waits for a database


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
        self._url = url
        self._run = run
        self._describe = describe
        self._note = note
        self._record: RunRecord | None = None
        self._waiting = False  # whether there are results that the database has not got
        self._database: Database | None = None
        resolve_url(url)
        # The libraries take a moment to load: meanwhile Caffe loads its own.
        self._opening = threading.Thread(target=self._attempt, args=(self._open,), daemon=True)
        self._opening.start()

    def opened(self, opened: Opened) -> None:
        self._opening.join()
        self._attempt(lambda: self._begin(opened))

    def _begin(self, opened: Opened) -> None:
        record = self._record = self._describe(opened)
        self._run.update(record=record.to_json())
        self._write(lambda database: database.begin_run(record))

    def tested(self, measurements: list[Measurement]) -> None:
        if self._record:
            uid = self._record.uid
            self._write(lambda database: database.add_measurements(uid, measurements))

    def ended(self, status: str, reason: str | None) -> None:
        record = self._record
        if record is None:
            return
        ended = self._run.read().get("ended") or 0.0
        if self._waiting:
            self._waiting = False
            record.measurements = self._run.measurements()
            record.status, record.reason, record.ended = status, reason, ended
            self._write(lambda database: database.put(record))
        else:
            self._write(lambda database: database.end_run(record.uid, status, reason, ended))
        if self._database:
            self._database.close()

    def _write(self, work: Callable[[Database], object]) -> None:
        """Do it now, unless something before it waits already: then the end of the run does it all."""
        if not self._waiting:
            self._attempt(lambda: work(self._database or self._open()))

    def _open(self) -> Database:
        from lrbench_caffe.database.store import Database

        self._database = Database.open(self._url, patience=PATIENCE)
        return self._database

    def _attempt(self, work: Callable[[], object]) -> None:
        try:
            work()
        except (LRBenchError, OSError) as error:
            self._waiting = True
            self._note(f"the LR database: {error}; the results wait in {self._run.path} (db sync)")
