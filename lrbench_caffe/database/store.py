"""The LR database as the rest of the program uses it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType

from sqlalchemy import func, select
from sqlalchemy.engine import Connection, Engine

from lrbench_caffe.database import engine as driver
from lrbench_caffe.database import migrate, schema, stamps, summaries, writing
from lrbench_caffe.database.checks import checked_measurement, checked_run, storable
from lrbench_caffe.database.errors import DatabaseError, RecordError, UnknownRun
from lrbench_caffe.database.patience import LONG
from lrbench_caffe.database.preparing import bring_up, exists, is_current
from lrbench_caffe.database.reading import read_page, select_some, select_tasks, task_from_row
from lrbench_caffe.database.rows import task_key
from lrbench_caffe.database.summaries import Reached
from lrbench_caffe.database.transactions import Transactions
from lrbench_caffe.database.urls import resolve_url
from lrbench_caffe.errors import InputError
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.records import STATUSES, NotShown, PolicySummary, RunRecord, Start, Task

PAGE = 500  # runs read, written or deleted in one transaction


class Database:
    """The store of runs, in SQLite or PostgreSQL.

    ``open`` makes one. Every method is one transaction (those that go through many runs: one for
    each ``PAGE`` of them), repeated where it fails for a reason that passes, for as long as the
    patience lasts. A method that writes has written durably when it returns.

    Raises, in every method:
        DatabaseUnavailable: the database was away for longer than the patience.
        DatabaseError: it refuses: no rights, no space, damaged.

    One object is for one process; threads may share it.
    """

    def __init__(self, engine: Engine, patience: float) -> None:
        self._engine = engine
        self._transactions = Transactions(engine, patience)

    @classmethod
    def open(
        cls,
        url: str | None = None,
        *,
        patience: float = LONG,
        must_exist: bool = False,
        read_only: bool = False,
        check: bool = True,
    ) -> Database:
        """Open a database, create or upgrade its tables, and store the paper's results.

        Args:
            url: sqlite:///FILE, a file, or postgresql://...; None for LRBENCH_DB, else the user's
                own.
            patience: seconds for which a write or read is tried before it fails.
            must_exist: True where a missing SQLite file is an error instead of a new database.
            read_only: True where nothing may be written to it: it must exist and be of this
                revision.
            check: False to look at nothing of it yet, for ``damage``; then nothing may be written,
                either.

        Raises:
            InputError: the URL cannot be read, or the file does not exist and must.
        """
        resolved = resolve_url(url)
        parsed = driver.parse_url(resolved)
        memory = parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:")
        if memory:
            raise InputError(
                "database URL sqlite://: a database in memory would be lost at once; name a file"
            )
        if parsed.get_backend_name() == "sqlite" and Path(parsed.database or "").is_dir():
            raise InputError(f"database {driver.shown(parsed)}: it is a folder; allowed: a file")
        if (must_exist or read_only) and not exists(parsed):
            where = driver.shown(parsed)
            raise InputError(
                f"there is no database {where}: no such file (trainings and imports create it)"
            )
        database = cls(driver.open_engine(resolved, patience, read_only or not check), patience)
        try:
            if not check:
                pass
            elif read_only:
                database._check_revision()
            elif not database._transactions.read(is_current):
                database._transactions.write(bring_up)
        except BaseException:
            database.close()
            raise
        return database

    def _check_revision(self) -> None:
        migrate.check_current(self._engine.url, self._transactions.read(migrate.revision))

    @property
    def transactions(self) -> Transactions:
        """How it reads and writes, for modules of this package."""
        return self._transactions

    @property
    def url(self) -> str:
        """The database's URL without passwords; the path of a SQLite database."""
        return driver.shown(self._engine.url)

    @property
    def path(self) -> str | None:
        """The file of a SQLite database, None for PostgreSQL."""
        return self._engine.url.database if self._engine.dialect.name == "sqlite" else None

    @property
    def patience(self) -> float:
        """Seconds for which a write or read is tried before it fails."""
        return self._transactions.patience

    @patience.setter
    def patience(self, seconds: float) -> None:
        self._transactions.patience = seconds

    def close(self) -> None:
        """Give the connections back. The object must not be used afterwards."""
        self._engine.dispose()

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- writing -----------------------------------------------------------------------------------

    def begin_run(self, record: RunRecord) -> None:
        """Store a run that begins now, or one that continues, if its uid is stored: it runs again.

        Measurements that the record has are stored with it.

        Raises:
            RecordError: something in it cannot be stored, or the uid is of a run that is another
                one.
        """
        running = dataclasses.replace(record, status="running", reason=None, ended=None)
        checked = checked_run(running)
        self._transactions.write(lambda connection: writing.begin(connection, checked))

    def add_measurements(self, uid: str, measurements: Sequence[Measurement]) -> None:
        """Store measurements; one of the same iteration and net is replaced.

        Metrics that are NaN or infinite are stored as None.

        Raises:
            UnknownRun: no run has this uid.
            RecordError: a value that cannot be.
        """
        checked = [checked_measurement(m) for m in measurements]
        if checked:
            self._transactions.write(lambda connection: writing.add(connection, uid, checked))

    def end_run(self, uid: str, status: str, reason: str | None, ended: float) -> None:
        """Store how a run ended, at ``ended`` seconds since 1970; its group's summary is new at once.

        Characters in the reason that no database can keep are replaced.

        Raises:
            UnknownRun: no run has this uid.
        """
        if status not in STATUSES:
            raise RecordError(f"status: {status!r}; allowed: {', '.join(STATUSES)}")
        words = None if reason is None else storable(reason)
        self._transactions.write(
            lambda connection: writing.end(connection, uid, status, words, ended)
        )

    def put(self, record: RunRecord) -> bool:
        """Store a whole run. A stored run is completed, never doubled.

        Measurements it lacks are added, and what an older version did not record: outputs of tests,
        head, layers, epoch. Where the record knows of a later end, that is taken, and
        its measurements replace those of the same iterations.

        Returns:
            True where anything was new.

        Raises:
            RecordError: something in it cannot be stored, or the uid is of a run that is another
                one.
        """
        return self.put_many([record])[0]

    def put_many(
        self,
        records: Sequence[RunRecord],
        contributor: str | None = None,
        not_shown: Mapping[str, NotShown] | None = None,
    ) -> list[bool]:
        """``put`` for several records in one transaction: all of them or, with an error, none.

        Args:
            contributor: whose they are, who may complete no run of others; None for one who may
                complete any.
            not_shown: by uid, the standing of a run that does not count.
        """
        checked = [checked_run(_with_storable_reason(record)) for record in records]
        new = [False] * len(checked)

        def work(connection: Connection) -> None:
            # Repeated after a commit that seemed to fail but did not, nothing is new any more.
            for index, is_new in enumerate(
                writing.put(connection, checked, contributor, not_shown)
            ):
                new[index] = new[index] or is_new

        self._transactions.write(work)
        return new

    def delete(self, uids: Sequence[str]) -> int:
        """Delete runs, and what only they used. Returns how many there were."""
        pages = [list(uids[start : start + PAGE]) for start in range(0, len(uids), PAGE)]
        return sum(self._transactions.write(partial(writing.remove, uids=page)) for page in pages)

    # -- reading -----------------------------------------------------------------------------------

    def get(self, uid: str) -> RunRecord:
        """A run with its measurements.

        Raises:
            UnknownRun: no run has this uid.
        """
        record = next(iter(self.runs(uid=uid, measurements=True)), None)
        if record is None:
            raise UnknownRun(f"the database has no run {uid!r}")
        return record

    def runs(
        self,
        *,
        uid: str | None = None,
        task_id: int | None = None,
        function: str | None = None,
        status: str | None = None,
        source: str | None = None,
        measurements: bool = False,
        limit: int | None = None,
    ) -> Iterator[RunRecord]:
        """Runs, those stored last first, read page by page.

        Args:
            uid: only this run.
            task_id: only runs of this task.
            function: only runs of this LR function.
            status: only runs with this status.
            source: only runs from this source.
            measurements: True to read their measurements too; otherwise the records have none.
            limit: at most this many.
        """
        run = schema.run
        query = select_some(task_id=task_id, function=function, status=status, source=source)
        query = query.order_by(run.c.id.desc())
        if uid is not None:
            query = query.where(run.c.uid == uid)
        after: int | None = None
        left = limit
        while left is None or left > 0:
            count = PAGE if left is None else min(PAGE, left)
            page = (query if after is None else query.where(run.c.id < after)).limit(count)
            rows = self._transactions.read(
                partial(read_page, query=page, measurements=measurements)
            )
            yield from (record for _, record in rows)
            if len(rows) < count:
                return
            after = rows[-1][0]
            left = None if left is None else left - count

    def page(
        self,
        *,
        task_id: int | None = None,
        function: str | None = None,
        status: str | None = None,
        source: str | None = None,
        contributor: str | None = None,
        policy: str | None = None,
        standing: str = "shown",
        after: str | None = None,
        limit: int = PAGE,
        by_uid: bool = False,
        measurements: bool = False,
    ) -> list[RunRecord]:
        """A page of the runs of a standing, those stored last first.

        Args:
            task_id, function, status, source: as for ``runs``.
            contributor: only runs that were uploaded by this one.
            policy: only runs of the policy with this canonical text.
            standing: by default those that are shown.
            after: the uid after which the page begins; one that is gone ends the pages.
            limit: at most this many.
            by_uid: by uid instead: what is stored meanwhile changes no later page's beginning.
            measurements: as for ``runs``.
        """
        run = schema.run
        query = select_some(
            task_id=task_id,
            function=function,
            policy=policy,
            status=status,
            source=source,
            contributor=contributor,
        )
        query = query.where(run.c.standing == standing).limit(limit)
        query = query.order_by(run.c.uid if by_uid else run.c.id.desc())
        if after is not None and by_uid:
            query = query.where(run.c.uid > after)
        elif after is not None:
            last = select(run.c.id).where(run.c.uid == after).scalar_subquery()
            query = query.where(run.c.id < last)
        rows = self._transactions.read(partial(read_page, query=query, measurements=measurements))
        return [record for _, record in rows]

    def export(self) -> Iterator[RunRecord]:
        """All runs with their measurements, by uid: equal databases give equal exports."""
        run = schema.run
        query = select(run.c.id).order_by(run.c.uid).limit(PAGE)
        after = ""
        while True:
            page = query.where(run.c.uid > after)
            rows = self._transactions.read(partial(read_page, query=page, measurements=True))
            yield from (record for _, record in rows)
            if len(rows) < PAGE:
                return
            after = rows[-1][1].uid

    def uids(self, prefix: str, limit: int = 2) -> list[str]:
        """At most ``limit`` uids with this prefix; only the prefix if it is a uid itself."""
        column = schema.run.c.uid
        query = (
            select(column)
            .where(func.substr(column, 1, len(prefix)) == prefix)  # SQLite's LIKE ignores case
            .order_by(column)
            .limit(limit)
        )
        uids = list(self._transactions.read(lambda c: c.execute(query).scalars().all()))
        return [prefix] if prefix in uids else uids

    def stamps(self, task_id: int | None = None) -> dict[int, int]:
        """A number for each task, or for one, by its id, which changes when what is shown of its runs does.

        Summaries and numbers of runs that were read after it are as they were for as long as the
        number is the same. That of a task that is gone is not in it.
        """
        return self._transactions.read(lambda c: stamps.read(c, task_id))

    def runs_of_tasks(self) -> dict[int, int]:
        """Number of runs of each task, by its id."""
        column = schema.run.c.task_id
        query = select(column, func.count()).group_by(column)
        rows = self._transactions.read(lambda c: c.execute(query).all())
        return {row[0]: row[1] for row in rows}

    def tasks(self, *, contributors: Sequence[str] | None = None) -> list[Task]:
        """All tasks, by id. A task's framework and data set are those of its first run.

        Args:
            contributors: only tasks with results of theirs, as ``contributors`` names them.
        """
        query = select_tasks()
        if contributors is not None:
            query = query.where(summaries.tried_by(contributors))
        rows = self._transactions.read(lambda c: c.execute(query).mappings().all())
        return [task_from_row(row) for row in rows]

    def find_task(self, task: Task) -> Task | None:
        """The same task in this database (see ``rows.task_key`` for what is the same), None without one."""
        query = select_tasks().where(schema.task.c.key == task_key(task))
        row = self._transactions.read(lambda c: c.execute(query).mappings().first())
        return None if row is None else task_from_row(row)

    def summaries(
        self,
        task_id: int,
        *,
        functions: Sequence[str] | None = None,
        sources: Sequence[str] | None = None,
        start: Start | None = None,
        order_by: str = "top1",
        limit: int | None = None,
        unfinished: bool = False,
        contributors: Sequence[str] | None = None,
    ) -> list[PolicySummary]:
        """Summaries of the policies tried on a task, best first; those not measured come last.

        Args:
            functions: only policies of these LR functions.
            sources: only results from these sources.
            start: only trainings that began with the same; ``UNKNOWN_START``: those whose start is
                not known.
            order_by: a metric's name, or iterations or num_params; the better of it first.
            limit: at most this many. The time taken grows with it, not with the number of runs.
            unfinished: only policies no run of which finished: they diverged or failed.
            contributors: only their runs, as ``contributors`` names them. These are read one by
                one, so the time taken grows with their number in the task.
        """
        return self._transactions.read(
            lambda c: summaries.read(
                c,
                task_id,
                functions=functions,
                sources=sources,
                start=start,
                order_by=order_by,
                limit=limit,
                unfinished=unfinished,
                contributors=contributors,
            )
        )

    def starts(self, task_id: int, *, contributors: Sequence[str] | None = None) -> list[Start]:
        """The starts of a task's trainings, each once; ``contributors`` as for ``summaries``."""
        return self._transactions.read(lambda c: summaries.starts(c, task_id, contributors))

    def untrained_loss(
        self, task_id: int, start: Start, *, contributors: Sequence[str] | None = None
    ) -> float | None:
        """The mean test loss before the first update, None where no run of that start was tested there."""
        return self._transactions.read(
            lambda c: summaries.untrained(c, task_id, start, "test_loss", contributors)
        )

    def untrained_top1(
        self, task_id: int, start: Start, *, contributors: Sequence[str] | None = None
    ) -> float | None:
        """The same for the mean Top-1; for trained weights, their own."""
        return self._transactions.read(
            lambda c: summaries.untrained(c, task_id, start, "top1", contributors)
        )

    def contributors(self) -> list[str]:
        """Who has uploaded runs, by name.

        Where contributors are chosen, "own" beside these names means the runs that were never
        uploaded to a platform, "paper" the paper's results.
        """
        return self._transactions.read(summaries.contributors)

    def contributions(
        self, among: Sequence[PolicySummary], *, contributors: Sequence[str] | None = None
    ) -> dict[int, dict[str, int]]:
        """Who uploaded the trainings behind summaries.

        Args:
            among: the summaries.
            contributors: as the summaries were read with.

        Returns:
            By the summary's id, the number of its trainings by contributor: of those that finished
            or, where none did, of those that diverged. A summary with own trainings only is not in
            it.
        """
        ids = [s.id for s in among if s.id is not None]
        if not ids:
            return {}
        return self._transactions.read(lambda c: summaries.contributions(c, ids, contributors))

    def iterations_to_top1(
        self, task_id: int, top1: float, among: Sequence[PolicySummary] | None = None
    ) -> dict[int, Reached]:
        """Iterations that the policies of a task took to a Top-1.

        Args:
            top1: in percent.
            among: only these summaries; None for all of the task.

        Returns:
            By the summary's id; a policy no finished run of which got there is not in it.
        """
        ids = None if among is None else [s.id for s in among if s.id is not None]
        return self._transactions.read(
            lambda c: summaries.iterations_to_top1(c, task_id, top1, ids)
        )

    def iterations_to_loss(
        self, task_id: int, loss: float, among: Sequence[PolicySummary] | None = None
    ) -> dict[int, Reached]:
        """Iterations that the policies of a task took to a test loss; see ``iterations_to_top1``."""
        ids = None if among is None else [s.id for s in among if s.id is not None]
        return self._transactions.read(
            lambda c: summaries.iterations_to_loss(c, task_id, loss, ids)
        )

    def counts(self) -> dict[str, int]:
        """Number of rows of each table."""
        tables = [t for t in schema.metadata.sorted_tables if t.name != "meta"]
        return self._transactions.read(
            lambda c: {
                t.name: c.execute(select(func.count()).select_from(t)).scalar_one() for t in tables
            }
        )

    def damage(self) -> list[str]:
        """Read the whole database: its damage, in lines; nothing without any (see ``inspection``)."""
        from lrbench_caffe.database.inspection import inspect

        return inspect(self._transactions)

    def revision(self) -> str:
        """The revision of its tables."""
        revision = self._transactions.read(migrate.revision)
        if revision is None:
            raise DatabaseError(f"database {self.url}: its tables are missing")
        return revision


def _with_storable_reason(record: RunRecord) -> RunRecord:
    if not isinstance(record.reason, str):
        return record
    return dataclasses.replace(record, reason=storable(record.reason))
