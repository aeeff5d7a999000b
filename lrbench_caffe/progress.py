"""The progress of long work: reported by its worker, shown or not by its caller."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

Item = TypeVar("Item")
Moved = Callable[[int], object]  # is called with the amount that is done of all

_REFRESH = 500  # items between two calls: showing them must not cost more than the work


def _ignore(_: object) -> None:
    pass


class Progress:
    """Receives the progress of work. This one passes lines to a function and shows no bar.

    On a terminal, ``terminal.progress.Bars`` takes its place.

    Args:
        say: called with each message for the user; by default none is passed on.
    """

    def __init__(self, say: Callable[[str], object] = _ignore) -> None:
        self._say = say

    def say(self, text: str) -> None:
        """Report something that a person should know."""
        self._say(text)

    def bar(
        self, what: str, total: int | None, *, in_bytes: bool = False
    ) -> AbstractContextManager[Moved]:
        """A bar for the work inside a ``with`` block.

        Args:
            what: names it.
            total: items, or with ``in_bytes`` bytes; None where that is not known.
        """
        return nullcontext(_ignore)


SILENT = Progress()


def track(items: Iterable[Item], progress: Progress, what: str, total: int) -> Iterator[Item]:
    """The items unchanged; their progress is reported as they are taken."""
    with progress.bar(what, total) as moved:
        for done, item in enumerate(items, start=1):
            yield item
            if done % _REFRESH == 0:
                moved(done)
