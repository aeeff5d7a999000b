"""Whose fault a failure is: the machine's, which passes, or that of what was given. Standard library only."""

from __future__ import annotations

import errno
import os
import re
import signal

_PASSING = (
    errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE,
    errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE,
)  # fmt: skip
_OUT_OF_MEMORY = r"(?i:out of memory)|bad_alloc|MemoryError|failed to map segment|host allocation"
_GPU = r"\bcuda[A-Z]\w*|\bCU(?:DNN|BLAS|RAND)_|Cannot use GPU"
_FORK = r"(?i:can(?:no|')t fork)"  # shells at a limit of processes; the others say why
_SYSTEM = [re.escape(os.strerror(code)) for code in _PASSING]
_MACHINE = re.compile("|".join([_OUT_OF_MEMORY, _GPU, _FORK, *_SYSTEM]))
# A process that Linux killed may have been killed for its memory.
_PERHAPS_MEMORY = re.compile(rf"{_OUT_OF_MEMORY}|(?i:memory)")
# Words of ``train`` for what passes, although its exit code is that of bad input. The command that
# trains has seen the launcher start a Caffe: one that ends by itself later has met with an
# accident.
_PASSES = re.compile("was killed by SIG|Caffe ended with exit code|is in use by")
BAD_INPUT = 2  # exit code


def passes(error: OSError) -> bool:
    """Whether an error of the operating system may be gone at the next attempt, such as a full disk."""
    return error.errno in _PASSING


def is_of_machine(words: str) -> bool:
    """Whether the words of a failure blame the machine: its memory, GPU, disk or limits."""
    return _MACHINE.search(words) is not None


def is_refusal(code: int, reason: str) -> bool:
    """Whether ``train``, by its exit code and last words, would end in the same way at every attempt."""
    return code == BAD_INPUT and not (is_of_machine(reason) or _PASSES.search(reason))


def is_memory(reason: str) -> bool:
    """Whether a training ended for lack of memory, or perhaps did."""
    return _PERHAPS_MEMORY.search(reason) is not None


def signal_of(code: int) -> signal.Signals | None:
    """The signal behind the exit code of a process, which may be a shell or a container around Caffe's."""
    number = -code if code < 0 else code - 128  # as shells report it
    return signal.Signals(number) if number in set(signal.Signals) else None
