"""Whose fault it is that a training failed: the machine's, which passes, or that of what it was given."""

from __future__ import annotations

import errno
import os
import re

_PASSING = (
    errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE,
    errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE,
)  # fmt: skip
# Words of ``train`` for what passes, although its exit code is that of bad input.
_PASSES = re.compile(
    "|".join(map(re.escape, map(os.strerror, _PASSING)))
    + r"|was ended by SIG|no sign of life|is in use by|(?i:out of memory)|bad_alloc|MemoryError"
    + "|failed to map segment"
)
_MEMORY = re.compile(r"(?i:memory)|bad_alloc|failed to map segment")
BAD_INPUT = 2  # exit code


def passes(error: OSError) -> bool:
    """Whether an error of the operating system may be gone at the next attempt, such as a full disk."""
    return error.errno in _PASSING


def is_refusal(code: int, reason: str) -> bool:
    """Whether ``train``, by its exit code and last words, would end in the same way at every attempt."""
    return code == BAD_INPUT and _PASSES.search(reason) is None


def is_memory(reason: str) -> bool:
    """Whether a training ended for lack of memory, or perhaps did."""
    return _MEMORY.search(reason) is not None
