"""What is in an LMDB, by the lmdb package alone."""

from __future__ import annotations

from pathlib import Path

import lmdb


def records(path: Path) -> list[tuple[bytes, bytes]]:
    """Its keys and values, in their order."""
    environment = lmdb.open(str(path), readonly=True, lock=False)
    with environment.begin() as transaction:
        found = [(bytes(key), bytes(value)) for key, value in transaction.cursor()]
    environment.close()
    return found
