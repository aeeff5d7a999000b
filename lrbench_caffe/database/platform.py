"""What a shared database has beside its runs: tokens, uploads, and which runs are shown.

A token is a name and a secret. The database keeps the secret's SHA-256 only: it has 256 random
bits, so that nobody can guess it and a slow hash would add nothing.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Update, and_, func, select, text, update
from sqlalchemy.engine import Connection, RowMapping

from lrbench_caffe.database import schema, stamps, writing
from lrbench_caffe.database.checks import check_contributor, storable
from lrbench_caffe.database.rows import task_key
from lrbench_caffe.database.store import PAGE, Database
from lrbench_caffe.database.summaries import RunGroup, refresh
from lrbench_caffe.errors import InputError, ParameterError
from lrbench_caffe.records import STANDINGS, Contribution, NotShown, Task

PREFIX = "lrb_"  # begins a secret, so that one that was published by mistake can be searched for
SCOPES = schema.SCOPES


@dataclass(frozen=True)
class AccessToken:
    """Who may read, upload or administer.

    Attributes:
        name: the contributor's.
        scope: "read", "write" or "admin"; each may do what those before it may.
        made, expires, revoked: seconds since 1970; None for one that never expires, or is valid.
    """

    name: str
    scope: str
    made: float
    expires: float | None
    revoked: float | None

    def valid(self, now: float) -> bool:
        return self.revoked is None and (self.expires is None or now < self.expires)

    def may(self, scope: str) -> bool:
        """Whether it may do what needs a scope."""
        return SCOPES.index(self.scope) >= SCOPES.index(scope)


@dataclass(frozen=True)
class Batch:
    """An upload, and the number of its runs, of these the hidden and the unverified ones."""

    contribution: Contribution
    runs: int
    hidden: int
    unverified: int


@dataclass(frozen=True)
class RunOutcome:
    """What a list shows of a run without reading its measurements.

    Attributes:
        top1: its highest Top-1 in percent; loss: its lowest test loss. None before it has ended, or
            where it has none.
        standing: one of ``STANDINGS``, and the doubt where it is not shown.
    """

    top1: float | None
    loss: float | None
    standing: str
    doubt: str | None


class Platform:
    """The tokens and uploads of a database. Each method is one transaction, as those of ``Database``."""

    def __init__(self, database: Database) -> None:
        self._transactions = database.transactions

    # -- tokens ------------------------------------------------------------------------------------

    def add_token(self, name: str, scope: str, seconds: float | None = None) -> str:
        """Make a token and return its secret, which cannot be had again.

        Args:
            name: the contributor's name, unique.
            scope: one of ``SCOPES``.
            seconds: for which it is valid; None for ever.

        Raises:
            InputError: the name is taken or cannot be one, or a value is not allowed.
        """
        check_contributor(name, "name")
        if scope not in SCOPES:
            raise ParameterError("{scope}: {0!r}; allowed: {1}", scope, ", ".join(SCOPES))
        secret, validity = _new_secret(seconds)
        values = {"name": name, "scope": scope, **validity}

        def work(connection: Connection) -> None:
            stored = _token(connection, schema.token.c.name == name)
            # Repeated after a commit that seemed to fail, it is there already.
            if stored is not None and stored["hash"] != values["hash"]:
                raise InputError(
                    f"name: there is a token for {name!r}; allowed: another name, or to renew it"
                )
            if stored is None:
                connection.execute(schema.token.insert().values(**values))

        self._transactions.write(work)
        return secret

    def renew_token(self, name: str, seconds: float | None = None) -> str:
        """Give a contributor another secret and return it; the one before is not valid any more.

        Of a token that is expired or revoked, too: the contributor's runs keep one name.

        Args:
            seconds: for which it is valid; None for ever.

        Raises:
            InputError: there is no token of this name.
        """
        secret, validity = _new_secret(seconds)
        self._change_token(name, lambda change: change.values(revoked=None, **validity))
        return secret

    def tokens(self) -> list[AccessToken]:
        """All tokens, by name."""
        query = select(schema.token).order_by(schema.token.c.name)
        rows = self._transactions.read(lambda c: c.execute(query).mappings().all())
        return list(map(_of_row, rows))

    def revoke(self, name: str) -> None:
        """Make a token invalid until it is renewed.

        Raises:
            InputError: there is none of this name.
        """
        valid, now = schema.token.c.revoked.is_(None), time.time()
        self._change_token(name, lambda change: change.where(valid).values(revoked=now))

    def _change_token(self, name: str, changed: Callable[[Update], Update]) -> None:
        table = schema.token

        def work(connection: Connection) -> None:
            if _token(connection, table.c.name == name) is None:
                raise InputError(f"name: there is no token for {name!r}")
            connection.execute(changed(update(table).where(table.c.name == name)))

        self._transactions.write(work)

    def token(self, secret: str) -> AccessToken | None:
        """The token of a secret, valid or not; None if there is none."""
        condition = schema.token.c.hash == _hash(secret)
        row = self._transactions.read(lambda c: _token(c, condition))
        return None if row is None else _of_row(row)

    # -- uploads -----------------------------------------------------------------------------------

    def batches(self, contributor: str | None = None, limit: int | None = None) -> list[Batch]:
        """Uploads, the newest first; those of one contributor if it is named."""
        table, run = schema.batch, schema.run
        query = (
            select(
                table,
                func.count(run.c.id).label("runs"),
                *(
                    func.count(run.c.id).filter(run.c.standing == standing).label(standing)
                    for standing in STANDINGS[1:]
                ),
            )
            .select_from(table.outerjoin(run, run.c.batch_id == table.c.id))
            .group_by(table.c.id)
            .order_by(table.c.sent.desc(), table.c.id.desc())
            .limit(limit)
        )
        if contributor is not None:
            query = query.where(table.c.contributor == contributor)
        rows = self._transactions.read(lambda c: c.execute(query).mappings().all())
        return [
            Batch(_contribution(row), row["runs"], row["hidden"], row["unverified"]) for row in rows
        ]

    def batch(self, uid: str) -> Contribution | None:
        """An upload by its uid; None if there is none."""
        query = select(schema.batch).where(schema.batch.c.uid == uid)
        row = self._transactions.read(lambda c: c.execute(query).mappings().first())
        return None if row is None else _contribution(row)

    def take_back(self, uid: str) -> int:
        """Delete an upload with all of its runs. Returns how many there were."""
        removed = 0
        run, batch = schema.run, schema.batch
        of_batch = (
            select(run.c.uid)
            .join(batch, batch.c.id == run.c.batch_id)
            .where(batch.c.uid == uid)
            .order_by(run.c.uid)
            .limit(PAGE)
        )
        while True:
            uids = self._transactions.read(lambda c: c.execute(of_batch).scalars().all())
            if not uids:
                break
            removed += self._transactions.write(lambda c, uids=uids: writing.remove(c, uids))  # type: ignore[misc]
        empty = batch.delete().where(batch.c.uid == uid)
        self._transactions.write(lambda c: c.execute(empty) and None)
        return removed

    # -- which runs are shown ----------------------------------------------------------------------

    def set_standing(self, uids: Sequence[str], standing: str, doubt: str | None = None) -> None:
        """Show runs, hide them or mark them as unverified; their groups' summaries are new at once.

        Args:
            doubt: why they are not shown.
        """
        if standing not in STANDINGS:
            raise ParameterError("{standing}: {0!r}; allowed: {1}", standing, ", ".join(STANDINGS))
        run = schema.run
        words = None if doubt is None or standing == "shown" else storable(doubt)

        def work(connection: Connection) -> None:
            chosen = run.c.uid.in_(uids)
            query = select(run).where(chosen).order_by(run.c.id).with_for_update()
            rows = connection.execute(query).mappings().all()
            change = update(run).where(chosen)
            connection.execute(change.values(standing=standing, doubt=words))
            refresh(connection, {RunGroup(*(row[n] for n in RunGroup._fields)) for row in rows})
            stamps.renew(connection, {row["task_id"] for row in rows})

        self._transactions.write(work)

    def outcomes(self, uids: Sequence[str]) -> dict[str, RunOutcome]:
        """What runs reached, and whether they are shown, by uid; a run that is gone is not in it."""
        run = schema.run
        query = select(run.c.uid, run.c.best_top1, run.c.best_loss, run.c.standing, run.c.doubt)
        chosen = query.where(run.c.uid.in_(uids))
        rows = self._transactions.read(lambda c: c.execute(chosen).all())
        return {row[0]: RunOutcome(*row[1:]) for row in rows}

    def not_shown(self, task_id: int | None = None) -> dict[str, int]:
        """Numbers of runs that do not count, by standing: of one task, or of all."""
        run = schema.run
        query = select(run.c.standing, func.count()).where(text(schema.NOT_SHOWN))
        query = query.group_by(run.c.standing)
        if task_id is not None:
            query = query.where(run.c.task_id == task_id)
        rows = self._transactions.read(lambda c: c.execute(query).all())
        found = {row[0]: row[1] for row in rows}
        return {standing: found.get(standing, 0) for standing in STANDINGS[1:]}

    def standings(self) -> dict[str, NotShown]:
        """The standings of all runs that do not count, by uid."""
        run = schema.run
        query = select(run.c.uid, run.c.standing, run.c.doubt).where(text(schema.NOT_SHOWN))
        rows = self._transactions.read(lambda c: c.execute(query).all())
        return {row[0]: NotShown(*row[1:]) for row in rows}

    def best_top1(self, task: Task) -> float | None:
        """The highest Top-1 in percent of a task's finished runs that are shown; None without one."""
        run = schema.run
        query = (
            select(run.c.best_top1)
            .join(schema.task, schema.task.c.id == run.c.task_id)
            .where(schema.task.c.key == task_key(task), run.c.best_top1.is_not(None))
            .where(run.c.standing == "shown", run.c.status == "finished")
            .order_by(run.c.best_top1.desc())
            .limit(1)
        )
        return self._transactions.read(lambda c: c.execute(query).scalar())

    def best_runs(self, task_id: int, summary_ids: Sequence[int]) -> list[str]:
        """The best run of each of a task's summaries, by uid, in their order.

        It is the finished one with the highest Top-1, then the lowest test loss, then the first.
        """
        run, summary = schema.run, schema.summary
        found: list[str] = []

        def work(connection: Connection) -> None:
            found.clear()
            for number in summary_ids:
                same = (run.c[name] == summary.c[name] for name in RunGroup._fields)
                query = (
                    select(run.c.uid)
                    .join(summary, and_(*same))
                    .where(summary.c.id == number, summary.c.task_id == task_id)
                    .where(run.c.standing == "shown", run.c.status == "finished")
                    .order_by(
                        run.c.best_top1.desc().nulls_last(),
                        run.c.best_loss.asc().nulls_last(),
                        run.c.id,
                    )
                    .limit(1)
                )
                found.extend(connection.execute(query).scalars())

        self._transactions.read(work)
        return found


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _new_secret(seconds: float | None) -> tuple[str, dict[str, Any]]:
    """A secret that is valid for so long from now on, and what the database has of it."""
    secret, now = PREFIX + secrets.token_urlsafe(32), time.time()
    return secret, {
        "hash": _hash(secret),
        "made": now,
        "expires": None if seconds is None else now + seconds,
    }


def _token(connection: Connection, condition: object) -> RowMapping | None:
    return connection.execute(select(schema.token).where(condition)).mappings().first()  # type: ignore[arg-type]


def _of_row(row: RowMapping) -> AccessToken:
    return AccessToken(row["name"], row["scope"], row["made"], row["expires"], row["revoked"])


def _contribution(row: RowMapping) -> Contribution:
    return Contribution(row["uid"], row["contributor"], row["note"], row["link"], row["sent"])
