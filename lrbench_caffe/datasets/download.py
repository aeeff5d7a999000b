"""Downloads a published file: several mirrors, resumed where it broke off, checked before it counts."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from lrbench_caffe import __version__
from lrbench_caffe.datasets.lmdb_writer import writing_to
from lrbench_caffe.errors import InputError, named
from lrbench_caffe.progress import SILENT, Progress

_TIMEOUT = 30.0  # seconds without a byte
_BLOCK = 1 << 18


class _MirrorError(Exception):
    """This mirror did not deliver; the next may."""


def fetch(
    name: str,
    md5: str,
    folder: Path,
    mirrors: Sequence[str],
    first: str | None = None,
    progress: Progress = SILENT,
) -> Path:
    """The file ``name`` in ``folder``, downloaded unless it is already there with the right checksum.

    Args:
        md5: its published MD5 in hex.
        mirrors: base URLs, tried in this order.
        first: a base URL to try before them.
        progress: told how many bytes have arrived.

    Raises:
        InputError: no mirror delivered it (with the way to do it by hand), or it cannot be written.
    """
    path = folder / name
    if path.is_file() and md5_of(path) == md5:
        return path
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{name}.partial")
    urls = [base.rstrip("/") + "/" + name for base in ([first] if first else []) + list(mirrors)]
    failures = []
    for url in urls:
        try:
            with writing_to(path):
                _retrieve(url, partial, progress)
                _check(partial, md5)
                os.replace(partial, path)
            return path
        except _MirrorError as failure:
            failures.append(f"{url}: {failure}")
    raise InputError(
        f"cannot download {name} ({'; '.join(failures)}); fetch it by hand, for example from {urls[-1]}, "
        f"and name its folder with {named('source')} DIR"
    )


def _retrieve(url: str, partial: Path, progress: Progress) -> None:
    """Download to ``partial``, resuming after the bytes that it already has."""
    have = partial.stat().st_size if partial.exists() else 0
    headers = {"User-Agent": f"lrbench-caffe/{__version__}"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=_TIMEOUT
        )
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is left to get: the checksum decides
        raise _MirrorError(f"HTTP {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _MirrorError(str(getattr(error, "reason", error))) from error
    with response:
        resumed = getattr(response, "status", None) == http.client.PARTIAL_CONTENT
        _copy(response, partial, have if resumed else 0, progress)


def _copy(response: http.client.HTTPResponse, partial: Path, have: int, progress: Progress) -> None:
    length = response.headers.get("Content-Length", "")
    total = have + int(length) if length.isdecimal() else None
    what = f"downloading {partial.name[: -len('.partial')]}"
    bar = progress.bar(what, total, in_bytes=True)
    with open(partial, "ab" if have else "wb") as file, bar as moved:
        moved(have)
        while True:
            try:
                block = response.read(_BLOCK)
            except (OSError, http.client.HTTPException) as error:
                raise _MirrorError(f"broke off after {file.tell():,} bytes ({error})") from error
            if not block:
                break
            file.write(block)
            moved(file.tell())
        if total is not None and file.tell() < total:
            raise _MirrorError(f"broke off after {file.tell():,} of {total:,} bytes")


def _check(partial: Path, md5: str) -> None:
    checksum = md5_of(partial)
    if checksum != md5:
        partial.unlink()
        raise _MirrorError(f"wrong checksum (MD5 {checksum}, published {md5})")


def md5_of(path: Path) -> str:
    """The MD5 of a file, in hex."""
    digest = hashlib.md5()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
