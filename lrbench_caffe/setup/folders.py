"""The folders and files that setup makes: each is either complete or missing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


def digest(*parts: object) -> str:
    """Return a short fingerprint of what something was made from."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Write ``text`` so that ``path`` is never seen half written.

    Not by ``lrbench_caffe.files``: a Python that is too old for the program can still set it up
    with another.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(mode)
    temporary.replace(path)


def update(path: Path, text: str, mode: int = 0o644) -> None:
    """Write ``text``, unless the file has it already."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, text, mode)


def leftovers(path: Path) -> list[Path]:
    """Return the files beside ``path`` of interrupted setups and of one that is running."""
    return sorted(path.parent.glob(f"{path.name}.*"))


@contextlib.contextmanager
def workplace(path: Path) -> Iterator[Path]:
    """Make a folder beside ``path``, on the same disk, to build what is then moved to ``path``."""
    work = Path(tempfile.mkdtemp(prefix=f"{path.name}.", dir=path.parent))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
