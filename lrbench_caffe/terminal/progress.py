"""Progress bars on the terminal, on stderr; silent where stderr is a file or a pipe."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TimeRemainingColumn,
)

from lrbench_caffe.terminal.console import Console, TextColumn, progress

Item = TypeVar("Item")
_REFRESH = 500  # items between two updates: drawing must not cost more than the work


def bar(unit_is_bytes: bool = False) -> Progress:
    """A progress display that vanishes when it is left; counts items, or bytes in MB."""
    console = Console(stderr=True)
    if not console.is_terminal:
        # Some releases of rich write an empty line even when they are told to show nothing.
        console = Console(file=io.StringIO())
    amount = DownloadColumn() if unit_is_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
    return progress(console, *columns)


def track(items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
    """The items unchanged, with a progress bar while they are taken."""
    with bar() as shown:
        task = shown.add_task(description, total=total)
        for done, item in enumerate(items, start=1):
            yield item
            if done % _REFRESH == 0:
                shown.update(task, completed=done)
