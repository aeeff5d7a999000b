"""Progress bars on the terminal, on stderr; silent where stderr is a file or a pipe."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, TimeRemainingColumn

from lrbench_caffe.progress import Moved, Progress
from lrbench_caffe.terminal.console import Console, TextColumn, progress


class Bars(Progress):
    """Progress whose bars are drawn, and vanish when they are left; they count items, or MB."""

    @contextmanager
    def bar(self, what: str, total: int | None, *, in_bytes: bool = False) -> Iterator[Moved]:
        console = Console(stderr=True)
        if not console.is_terminal:
            # Some releases of rich write an empty line even when they are told to show nothing.
            console = Console(file=io.StringIO())
        amount = DownloadColumn() if in_bytes else MofNCompleteColumn()
        columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
        with progress(console, *columns) as shown:
            task = shown.add_task(what, total=total)
            yield lambda done: shown.update(task, completed=done)
