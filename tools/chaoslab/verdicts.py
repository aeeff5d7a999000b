"""What a trial can come to."""

from __future__ import annotations

from dataclasses import dataclass

EQUAL = "equal"  # bit for bit what the untouched run has
REFUSED = "refused"  # one line, exit code 1 or 2, nothing lost
SKIPPED = "skipped"  # this machine lacks what the scenario needs
WRONG = "wrong"  # another result, a loss, or an error that is not one line
TRACEBACK = "traceback"
HANG = "hang"
LEFT = "left"  # processes or temporary files that outlive the trial
BAD = (WRONG, TRACEBACK, HANG, LEFT)


@dataclass(frozen=True)
class TrialVerdict:
    """What a trial came to.

    Attributes:
        kind: one of the above.
        detail: why, for what is bad or was skipped.
    """

    kind: str
    detail: str = ""

    @property
    def bad(self) -> bool:
        return self.kind in BAD


class TrialError(Exception):
    """A trial that cannot end well; ``kind`` is its verdict."""

    kind = WRONG


class Wrong(TrialError):
    """The result differs from the untouched one, or something was lost."""


class Hang(TrialError):
    """A command did not end in many times the time of an untouched one."""

    kind = HANG


class Skip(TrialError):
    """The machine lacks what the scenario needs."""

    kind = SKIPPED
