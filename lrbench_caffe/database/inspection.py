"""Reads a whole database and reports damage: pages, values, references, records, summaries.

Nothing is written. One fault may be reported in several lines: a lost page also means lost rows.
"""

from __future__ import annotations

import math
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Connection, RowMapping

from lrbench_caffe.database import engine as driver
from lrbench_caffe.database import migrate, schema, summaries
from lrbench_caffe.database.checks import PARTS, checked_policy, checked_run
from lrbench_caffe.database.errors import DamagedDatabase
from lrbench_caffe.database.rows import part_fields, read_measurements, run_from_row, select_runs
from lrbench_caffe.database.transactions import Transactions
from lrbench_caffe.errors import InputError
from lrbench_caffe.records import RunRecord, digest

MOST = 20  # lines about one kind of damage
CHUNK = 200  # runs read at once
NEAR = 1e-9  # relative; a sum in another order

Finding = tuple[str, str]  # kind, and what of it


def inspect(transactions: Transactions) -> list[str]:
    """The damage, in lines; nothing if everything can be read and is consistent.

    Raises:
        DatabaseError: the database cannot be reached, or is of another revision or program.
    """
    path = transactions.engine.url.database
    looks: list[Callable[[Connection], Iterable[Finding]]] = [_records, _keys, _best, _summaries]
    findings: list[Finding] = []
    if transactions.engine.dialect.name == "sqlite" and path:
        findings += _told(partial(_in_file, path, _pages), "pages")
        _check_revision(transactions, findings)
        findings += _told(partial(_in_file, path, _references), "references")
        findings += _told(partial(_in_file, path, _values), "values")
    else:
        _check_revision(transactions, findings)
    for look in looks:
        findings += _told(partial(_in_transaction, transactions, look), look.__name__.strip("_"))
    return list(_lines(findings))


def _in_file(path: str, look: Callable[[sqlite3.Connection], Iterable[Finding]]) -> list[Finding]:
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA query_only = ON")
        return list(look(file))


def _in_transaction(
    transactions: Transactions, look: Callable[[Connection], Iterable[Finding]]
) -> list[Finding]:
    return transactions.read(lambda connection: list(look(connection)))


def _told(look: Callable[[], list[Finding]], kind: str) -> list[Finding]:
    """The findings of a look; its failure is a finding, too."""
    try:
        return look()
    except DamagedDatabase as error:
        return [(kind, f"{kind} cannot be read: {error.why}")]
    except (sqlite3.Error, ValueError) as error:
        return [(kind, f"{kind} cannot be read: {error}")]


def _check_revision(transactions: Transactions, findings: list[Finding]) -> None:
    try:
        revision = transactions.read(migrate.revision)
    except DamagedDatabase as error:
        findings.append(("revision", f"the revision cannot be read: {error.why}"))
        return
    migrate.check_current(transactions.engine.url, revision)


def _lines(findings: Iterable[Finding]) -> Iterator[str]:
    """At most ``MOST`` lines of a kind, and how many more there are."""
    said: Counter[str] = Counter()
    for kind, text in dict.fromkeys(findings):
        said[kind] += 1
        if said[kind] <= MOST:
            yield text
    yield from (
        f"and {count - MOST} more of {kind}" for kind, count in said.items() if count > MOST
    )


# -- the file --------------------------------------------------------------------------------------


def _pages(file: sqlite3.Connection) -> Iterator[Finding]:
    # The second looks at less, and gets by where the first gives up.
    for look in ("integrity_check", "quick_check"):
        try:
            for (text,) in file.execute(f"PRAGMA {look}({5 * MOST})"):
                parts = [
                    part for part in str(text).splitlines() if part != "ok" and part[:3] != "***"
                ]
                yield from (("pages", f"page: {part}") for part in parts)
            return
        except sqlite3.Error as error:
            yield "pages", f"page: {look}: {error}"


def _references(file: sqlite3.Connection) -> Iterator[Finding]:
    lost = Counter((row[0], row[2]) for row in file.execute("PRAGMA foreign_key_check"))
    for (table, parent), count in sorted(lost.items()):
        yield "references", f"{table}: {count} row(s) refer to a {parent} that does not exist"


def _values(file: sqlite3.Connection) -> Iterator[Finding]:
    """Each value by the check of its column; text that is not UTF-8 comes as bytes, which are not text."""
    dialect = sqlite.dialect()
    file.text_factory = _text
    for table in schema.metadata.sorted_tables:
        columns = [column for column in table.columns if column.name != "id"]
        checks = [
            column.type.dialect_impl(dialect).result_processor(dialect, None) for column in columns
        ]
        names = ", ".join(f'"{column.name}"' for column in columns)
        try:
            for number, *values in file.execute(f"SELECT rowid, {names} FROM {table.name}"):
                for check, value in zip(checks, values):
                    if check and (problem := _problem(check, value)):
                        yield "values", f"{table.name} {number}: {problem}"
        except sqlite3.Error as error:
            yield "values", f"{table.name}: cannot be read to its end: {error}"


def _text(stored: bytes) -> str | bytes:
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return stored


def _problem(check: Callable[[Any], Any], value: Any) -> str | None:
    try:
        check(value)
    except (ValueError, TypeError, RecursionError) as error:
        return str(error)
    return None


# -- what is in it ---------------------------------------------------------------------------------


def _records(connection: Connection) -> Iterator[Finding]:
    """Each run through what stores and exports runs."""
    run = schema.run
    rows = iter(connection.execute(select(run.c.id, run.c.uid).order_by(run.c.id)).all())
    while chunk := dict(tuple(row) for row in islice(rows, CHUNK)):
        try:
            yield from _of_runs(connection, chunk)
        except Exception:  # one of them
            for number, uid in chunk.items():
                try:
                    yield from _of_runs(connection, {number: uid})
                except Exception as error:
                    yield "runs", f"run {uid}: {driver.reason(error, connection.engine.url)}"


def _of_runs(connection: Connection, uids: dict[int, str]) -> list[Finding]:
    with connection.begin_nested():  # PostgreSQL would answer nothing more after an error
        rows = connection.execute(select_runs().where(schema.run.c.id.in_(uids))).mappings().all()
        measured = read_measurements(connection, list(uids))
    findings: list[Finding] = []
    for row in rows:
        try:
            record = checked_policy(checked_run(run_from_row(row, measured[row["id"]])))
            findings += [("runs", f"run {record.uid}: {words}") for words in _beyond_end(record)]
        except InputError as error:
            findings.append(("runs", f"run {row['uid']}: {error}"))
    lost = uids.keys() - {row["id"] for row in rows}
    return [
        *findings,
        *(
            ("runs", f"run {uids[number]}: its task, policy or solver is missing")
            for number in lost
        ),
    ]


def _beyond_end(record: RunRecord) -> Iterator[str]:
    """The tests that a training of ours cannot have done; what a log says is its own matter."""
    last = max((m.iteration for m in record.measurements), default=0)
    if record.source == "measured" and last > record.max_iter:
        yield f"it has a test at iteration {last}, after its end at {record.max_iter}"


def _keys(connection: Connection) -> Iterator[Finding]:
    """Rows whose key is a digest of their content."""
    for name in sorted(PARTS):
        table = schema.metadata.tables[name]
        names = part_fields(name)
        for row in connection.execute(select(table)).mappings():
            if digest({field: row[field] for field in names}) != row["key"]:
                yield "keys", f"{name} {row['id']}: it differs from what was stored"


def _best(connection: Connection) -> Iterator[Finding]:
    """The best measurement that each run is said to have."""
    run, measured = schema.run, schema.measurement
    best = (func.max(measured.c.top1), func.min(measured.c.test_loss))
    joined = run.outerjoin(measured, (measured.c.run_id == run.c.id) & (measured.c.net == 0))
    query = select(run.c.uid, run.c.best_top1, run.c.best_loss, *best).select_from(joined)
    ended = query.where(run.c.status.in_(summaries.COUNTED)).group_by(run.c.id)
    for uid, *values in connection.execute(ended):
        if values[:2] != values[2:]:
            yield "runs", f"run {uid}: its best Top-1 and test loss differ from its tests"


def _summaries(connection: Connection) -> Iterator[Finding]:
    """Each summary against the runs that it is of."""
    groups = [schema.summary.c[name] for name in summaries.RunGroup._fields]
    stored = {
        summaries.RunGroup(*(row[column.name] for column in groups)): row
        for row in connection.execute(select(schema.summary)).mappings()
    }
    for group, values in summaries.computed(connection):
        row = stored.pop(group, None)
        if row is None:
            yield "summaries", f"task {group.task_id}: a policy has no summary"
        elif other := [name for name, value in values.items() if not _same(row, name, value)]:
            yield "summaries", f"summary {row['id']}: its {other[0]} differs from that of its runs"
    yield from (("summaries", f"summary {row['id']}: it has no run") for row in stored.values())


def _same(row: RowMapping, name: str, value: Any) -> bool:
    if isinstance(value, float) and isinstance(row[name], (float, int)):
        return math.isclose(row[name], value, rel_tol=NEAR, abs_tol=NEAR)
    return name == "outputs" or bool(row[name] == value)
