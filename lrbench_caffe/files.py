"""Files in places that others can write to: links are not followed, a kill leaves nothing behind.

A run directory may lie where others can write. A link or a named pipe that was put in place of one
of its files would let a training write over a file elsewhere, or wait forever.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
# Former versions did not name the machine.
_TEMPORARY = re.compile(
    r"\.(?P<name>.+?)(?:\.(?P<where>[0-9a-f]{8}))?\.(?P<pid>\d+)(?:\.tmp(?:-wal|-shm|-journal)?)?",
    re.DOTALL,
)
_OTHER_KINDS = "a symbolic link or not a regular file; allowed: a file of the run's own"


def open_own(path: Path, mode: str) -> IO[Any]:
    """Open a regular file.

    Args:
        mode: "rb", "r+b", "ab" or "wb"; for the latter two the file is made where it is missing.

    Raises:
        OSError: it is a link, a folder, a pipe or a device, or it cannot be opened.
    """
    flags = {
        "rb": os.O_RDONLY,
        "r+b": os.O_RDWR,
        "ab": os.O_WRONLY | os.O_APPEND | os.O_CREAT,
        "wb": os.O_WRONLY | os.O_CREAT,
    }[mode]
    try:
        handle = os.open(
            path, flags | _NO_LINK | os.O_NONBLOCK, 0o666
        )  # does not wait for a pipe's other end
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise OSError(error.errno, _OTHER_KINDS, str(path)) from None
        raise
    try:
        kind = os.fstat(handle).st_mode
        if stat.S_ISDIR(kind):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(kind):
            raise OSError(errno.EINVAL, _OTHER_KINDS, str(path))
        if mode == "wb":
            os.ftruncate(handle, 0)
        return os.fdopen(handle, mode)
    except BaseException:
        os.close(handle)
        raise


def read_own(path: Path) -> bytes:
    """The content of a regular file; see ``open_own``."""
    with open_own(path, "rb") as file:
        return bytes(file.read())


def write_own(path: Path, content: bytes) -> None:
    """Write a regular file; see ``open_own``."""
    with open_own(path, "wb") as file:
        file.write(content)


def replace_own(path: Path, content: bytes) -> None:
    """Replace a file, so that a kill leaves the old or the new one; a link is replaced, not followed."""
    replace_by(path, lambda temporary: write_own(temporary, content))


def publish(path: Path, content: bytes) -> None:
    """Write a file that a user named, so that a kill leaves the old or the new one.

    A link is followed, and a pipe or a device written to, as the user wants it. What killed
    commands left of it is removed.

    Raises:
        OSError: it cannot be written; the error names this file.
    """
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            path.write_bytes(content)
        else:
            remove_leftovers(path.parent, re.escape(path.name))
            replace_own(path, content)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def make_folder(root: Path, name: str) -> Path:
    """Make a folder that was not there: NAME in ``root``, or NAME-2, NAME-3, ...

    Of several processes that ask for one name at the same time, each gets a folder of its own.
    """
    root.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = root / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return path


def is_full(folder: Path, scanty: int) -> bool:
    """Whether fewer bytes than ``scanty`` are free on a folder's disk."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return False
    return (
        usage.total > 0 and usage.free < scanty
    )  # without a size it is /proc or the like, no disk


class SharedUse:
    """A folder that several processes use until they end, and where the last one tidies up."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._handle: int | None = None

    def begin(self) -> None:
        """Use the folder, which is there, from now on; wait while another process tidies up."""
        if self._handle is None:
            self._handle = os.open(self._folder, os.O_RDONLY)
            fcntl.flock(self._handle, fcntl.LOCK_SH)

    @contextlib.contextmanager
    def end(self) -> Iterator[bool]:
        """Use it no more; yields whether nobody else does, nor begins to before the block ends."""
        handle = os.open(self._folder, os.O_RDONLY) if self._handle is None else self._handle
        self._handle = None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
        finally:
            os.close(handle)


# -- temporary files -------------------------------------------------------------------------------


@functools.cache
def _here() -> str:
    """An id of this machine or container, whose process numbers are its own, on a shared disk."""
    space = b""
    with contextlib.suppress(OSError):
        space = os.readlink(b"/proc/self/ns/pid")
    return hashlib.sha256(os.uname().nodename.encode() + space).hexdigest()[:8]


def temporary_of(path: Path, suffix: str = "") -> Path:
    """Where this process writes a file that is then renamed to ``path``."""
    return path.with_name(f".{path.name}.{_here()}.{os.getpid()}{suffix}")


@contextlib.contextmanager
def replacing(path: Path, suffix: str = "") -> Iterator[Path]:
    """Another name to write a file under; it gets its own name when the block ends without an error."""
    temporary = temporary_of(path, suffix)
    temporary.unlink(missing_ok=True)  # whatever was put there is not ours
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_durably(path: Path) -> Iterator[Path]:
    """The same for a file that must be on the disk before it replaces another.

    What killed commands left of it is removed.
    """
    remove_leftovers(path.parent, re.escape(path.name))
    with replacing(path, ".tmp") as temporary:
        yield temporary
        sync(temporary)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_by(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` write a file under another name, and rename it when it is whole."""
    with replacing(path) as temporary:
        write(temporary)


def remove_leftovers(folder: Path, name: str) -> None:
    """Remove the temporary files of processes that were killed while they wrote files.

    Args:
        name: a regular expression for the names of these files.

    Those of processes that are alive, or on another machine, are left alone.
    """
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            match = _TEMPORARY.fullmatch(entry.name)
            if match is None or not re.fullmatch(name, match["name"], re.DOTALL):
                continue
            if match["where"] not in (None, _here()) or _alive(match["pid"]):
                continue
            if not entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is another user's
        return True
    return True
