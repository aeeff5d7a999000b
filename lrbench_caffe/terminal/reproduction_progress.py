"""The progress of a reproduction: iterations done, and a line for each training that ends."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from rich.progress import BarColumn

from lrbench_caffe.jobs import Job, JobResult
from lrbench_caffe.jobs.naming import result_line
from lrbench_caffe.reproduction.missing import Item
from lrbench_caffe.reproduction.observer import ReproductionObserver, TrainingsObserver
from lrbench_caffe.reproduction.speed import duration
from lrbench_caffe.tabular import Rows
from lrbench_caffe.terminal.console import Console, TextColumn, progress
from lrbench_caffe.terminal.database import complain
from lrbench_caffe.terminal.stopwatch import Stopwatch
from lrbench_caffe.terminal.tables import terminal_table

LINE_SECONDS = 60.0  # between two lines where there is no terminal and nothing has ended


class ReproductionDisplay(ReproductionObserver):
    """The reproduction's observer on a console.

    Args:
        console: where to; a bar is drawn on a terminal, lines are printed elsewhere.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        complain(text)

    def table(self, rows: Rows, title: str, left: int) -> None:
        self._console.print(terminal_table(rows, title, left))

    def training(
        self, items: Sequence[Item], paces: Mapping[str, float], slots: int
    ) -> TrainingsDisplay:
        return TrainingsDisplay(self._console, items, paces, slots)


class TrainingsDisplay(TrainingsObserver):
    """The progress of trainings: a bar on a terminal, lines elsewhere.

    Args:
        console: where to.
        items: all that is to be trained.
        paces: seconds that an iteration takes, by the setup's key; empty where that is not known.
        slots: how many are trained at a time.
    """

    def __init__(
        self, console: Console, items: Sequence[Item], paces: Mapping[str, float], slots: int
    ) -> None:
        self._console = console
        self._items = {item.training: item for item in items}
        self._missing = {item.training: item.left for item in items}
        self._open = set(self._items)
        self._paces = paces
        self._slots = max(1, slots)
        self._watch = Stopwatch()
        self._said = time.monotonic()
        self._goal = sum(self._missing.values())
        self._bar = progress(
            console,
            BarColumn(bar_width=24),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} iterations{task.fields[status]}"),
        )
        self._task = self._bar.add_task("train", total=max(1, self._goal), status="")

    def __enter__(self) -> TrainingsDisplay:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def look(self) -> None:
        self._watch.look()
        done = {training: self._done(training) for training in self._items}
        status = f", {self._trainings()}{self._left(done)}"
        count = sum(done.values())
        self._bar.update(self._task, completed=count, status=status)
        if not self._console.is_terminal and time.monotonic() - self._said > LINE_SECONDS:
            self.say(f"{count:,} of {self._goal:,} iterations{status}")

    def ended(self, result: JobResult) -> None:
        self._watch.look()
        self._open.discard(result.training)
        note = self._items[result.training].plan.note
        self.say(f"{self._trainings()}: {result_line(result)}" + (f"  {note}" if note else ""))

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        self._said = time.monotonic()

    def _done(self, training: Job) -> int:
        """Iterations since the command began; all of one that ended early, as no more of it comes."""
        missing = self._missing[training]
        if training not in self._open:
            return missing
        return max(0, missing - max(0, self._items[training].end - training.reached))

    def _trainings(self) -> str:
        return f"{len(self._items) - len(self._open)}/{len(self._items)} trainings"

    def _left(self, done: Mapping[Job, int]) -> str:
        """The time that is left: at first by what was measured, then by the rate so far."""
        if not self._paces:
            return ""
        ready, whole = self._seconds(done), self._seconds(self._missing)
        elapsed = self._watch.seconds
        rate = ready / elapsed if elapsed > LINE_SECONDS and ready else self._slots
        return f", about {duration((whole - ready) / rate)} left"

    def _seconds(self, iterations: Mapping[Job, int]) -> float:
        """The time of the given iterations of each training, one after the other."""
        paces = self._paces
        return sum(
            paces[self._items[t].plan.setup.key] * count for t, count in iterations.items() if count
        )
