"""The errors of the LR module."""

from __future__ import annotations

from collections.abc import Iterable


class PolicyError(ValueError):
    """An LR policy that cannot be read, built or evaluated. The message is one line and names the value."""


class NoBaseLR(PolicyError):
    """A solver's base_lr cannot replace the k0 that was left out."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A " did you mean X?" for an unknown word, or nothing where no known word is near.

    >>> nearest("SINE2", ["FIX", "SIN2"])
    ' did you mean SIN2?'
    >>> nearest("zzz", ["FIX", "SIN2"])
    ''
    """
    import difflib  # only a name that is not known needs it

    close = difflib.get_close_matches(word, list(known), n=1)
    return f" did you mean {close[0]}?" if close else ""
