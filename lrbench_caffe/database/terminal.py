"""Opening the database for somebody who waits at the terminal."""

from __future__ import annotations

import sys
import threading

from lrbench_caffe.database.store import Database
from lrbench_caffe.database.urls import resolve_url, safe_url

PATIENCE = 10.0  # seconds for which a server that is away is tried
SILENCE = 2.0  # seconds after which it is said that we wait


def open_at_terminal(url: str | None) -> Database:
    """``Database.open`` that gives up sooner than a training would, and says on stderr that it waits."""
    where = safe_url(resolve_url(url))
    words = f"waiting for the database {where}, for at most {PATIENCE:g} s"
    notice = threading.Timer(SILENCE, print, (words,), {"file": sys.stderr})
    notice.daemon = True
    notice.start()
    try:
        return Database.open(url, patience=PATIENCE)
    finally:
        notice.cancel()
