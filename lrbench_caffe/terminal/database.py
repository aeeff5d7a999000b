"""Opens the LR database for a person who waits at the terminal."""

from __future__ import annotations

import sys

from lrbench_caffe.database.store import Database
from lrbench_caffe.database.urls import scrub_text
from lrbench_caffe.runs.opening import open_database


def open_at_terminal(url: str | None, *, to_write: bool = False) -> Database:
    """``runs.opening.open_database`` that says on stderr what a person should know.

    Args:
        url: the value of --db.
        to_write: whether the command will record something.
    """
    return open_database(url, to_write=to_write, say=complain)


def complain(text: str) -> None:
    """A line on stderr."""
    print(scrub_text(text), file=sys.stderr)
