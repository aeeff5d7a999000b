"""The errors of the LR database. No message contains a password."""

from __future__ import annotations

from lrbench_caffe.errors import InputError, LRBenchError


class DatabaseError(LRBenchError):
    """The database refuses what was asked: no rights, no space, damaged, or of another program."""


class DatabaseUnavailable(DatabaseError):
    """The database cannot be reached, or was away for longer than the caller's patience."""


class DamagedDatabase(DatabaseError):
    """The database cannot be read, or contains a value that this program did not write.

    The message says how to restore it.

    Attributes:
        why: what is wrong, without the database's name and what to do.
    """

    def __init__(self, message: str, why: str = "") -> None:
        super().__init__(message)
        self.why = why


class RecordError(InputError):
    """A run that cannot be stored. The message names the field, the value and what is allowed."""


class ConflictError(RecordError):
    """A run whose uid is in the database with other content, and neither is the later one."""


class UnknownRun(InputError):
    """The database has no run with this uid."""
