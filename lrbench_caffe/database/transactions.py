"""Transactions that survive temporary failures: lost connections, restarts, deadlocks, locks."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import TimeoutError as PoolTimeout

from lrbench_caffe.database import engine as driver
from lrbench_caffe.database.errors import DatabaseError, DatabaseUnavailable, RecordError
from lrbench_caffe.errors import InputError, LRBenchError

Result = TypeVar("Result")

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0  # seconds


class Transactions:
    """Runs work in transactions on an engine, and retries it until it succeeds or patience ends.

    Args:
        engine: the database.
        patience: seconds after which an attempt that fails is the last one.

    The work is repeated when it is unknown whether a commit succeeded. So all work must be
    idempotent.
    """

    def __init__(self, engine: Engine, patience: float) -> None:
        self.engine = engine
        self.patience = patience

    def write(self, work: Callable[[Connection], Result]) -> Result:
        """The result of ``work``, whose writes are durable when this returns.

        Raises:
            DatabaseUnavailable: the database stayed away for longer than the patience.
            RecordError: it refuses a value that is to be written.
            InputError: a number is larger than any that it can have.
            DamagedDatabase: it is broken, or has what cannot be read.
            DatabaseError: it refuses for another reason that does not pass.
        """
        return self._persist(work, read_only=False)

    def read(self, work: Callable[[Connection], Result]) -> Result:
        """The result of ``work``, which sees one state of the database and writes nothing."""
        return self._persist(work, read_only=True)

    def _persist(self, work: Callable[[Connection], Result], read_only: bool) -> Result:
        began = time.monotonic()
        deadline = began + self.patience
        pause = FIRST_PAUSE
        while True:
            try:
                return self._attempt(work, read_only, deadline - time.monotonic())
            except driver.DriverError as error:
                refused = driver.refuses_value(error)
                if driver.shows_damage(error) or (refused and read_only):
                    why = driver.reason(error, self.engine.url)
                    raise driver.damaged(self.engine.url, why) from error
                message = driver.explain(error, self.engine.url)
                # In a write a missing row was there a moment ago: another process deletes what
                # nobody uses.
                passing = driver.passes(error) or driver.refers_to_missing_row(error)
            except PoolTimeout:  # SQLAlchemy has waited for longer than the patience of most
                raise DatabaseUnavailable(
                    f"database {driver.shown(self.engine.url)}: all connections of this process "
                    "are in use"
                ) from None
            except (LRBenchError, OSError):
                raise
            except (
                Exception
            ) as error:  # what was read is not what was written: text, JSON, a number
                if driver.takes_no_such_number(error):
                    raise InputError(
                        "a number is too large for the database; allowed: -2**63 to 2**63 - 1"
                    ) from error
                why = f"it cannot be read ({type(error).__name__}: {driver.reason(error, self.engine.url)})"
                raise driver.damaged(self.engine.url, why) from error
            if not passing:
                raise (RecordError if refused else DatabaseError)(message) from None
            if time.monotonic() + pause > deadline:
                waited = time.monotonic() - began
                raise DatabaseUnavailable(f"{message} (tried for {waited:.1f} s)") from None
            # By chance, so that many that were stopped together do not come back together.
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _attempt(
        self, work: Callable[[Connection], Result], read_only: bool, seconds: float
    ) -> Result:
        options: dict[str, Any] = {driver.READ_ONLY: read_only}
        postgresql = self.engine.dialect.name == "postgresql"
        if postgresql:
            options["isolation_level"] = "REPEATABLE READ" if read_only else "READ COMMITTED"
        with self.engine.connect().execution_options(**options) as connection, connection.begin():
            if postgresql:
                driver.limit_waiting(connection, seconds)
            return work(connection)
