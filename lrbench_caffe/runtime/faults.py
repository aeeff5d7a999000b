"""Tells temporary failures of the machine from bad input. Standard library only."""

from __future__ import annotations

import errno
import os
import re
import signal

_PASSING = (
    errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE,
    errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE,
)  # fmt: skip
_OUT_OF_MEMORY = (
    r"(?i:out of memory)|bad_alloc|MemoryError|failed to map segment|host allocation|MemoryAllocation|"
    + re.escape(os.strerror(errno.ENOMEM))
)
_GPU = r"\bcuda[A-Z]\w*|\bCU(?:DNN|BLAS|RAND)_|Cannot use GPU"
_FORK = r"(?i:can(?:no|')t fork)"  # shells at a limit of processes; the others say why
_SYSTEM = [re.escape(os.strerror(code)) for code in _PASSING]
_MACHINE = re.compile("|".join([_OUT_OF_MEMORY, _GPU, _FORK, *_SYSTEM]))
_MEMORY = re.compile(_OUT_OF_MEMORY)
BAD_INPUT = 2  # exit code


def passes(error: OSError) -> bool:
    """Whether an error of the operating system may be gone at the next attempt, such as a full disk."""
    return error.errno in _PASSING


def is_of_machine(words: str) -> bool:
    """Whether the words of a failure blame the machine: its memory, GPU, disk or limits."""
    return _MACHINE.search(words) is not None


def is_of_memory(words: str) -> bool:
    """Whether the words of a failure, which are another program's, are about a lack of memory."""
    return _MEMORY.search(words) is not None


def is_of_full_disk(words: str) -> bool:
    """Whether the words of a failure are about a disk, or a share of it, that is full."""
    return any(os.strerror(code) in words for code in (errno.ENOSPC, errno.EDQUOT))


def signal_of(code: int) -> signal.Signals | None:
    """The signal behind the exit code of a process, which may be a shell or a container around Caffe's."""
    number = -code if code < 0 else code - 128  # as shells report it
    return signal.Signals(number) if number in set(signal.Signals) else None
