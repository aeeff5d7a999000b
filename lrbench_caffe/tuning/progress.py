"""What a person sees while a tuning goes on: a bar of iterations on a terminal, a line for each result."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from lrbench_caffe.jobs import Result, Training
from lrbench_caffe.metrics import best
from lrbench_caffe.records import BROKEN
from lrbench_caffe.tuning.study import Watch

LINE_SECONDS = 30.0  # between two lines where there is no terminal and no result


class TuningDisplay(Watch):
    """The study's watch on a console.

    Args:
        console: where to; a bar is drawn on a terminal, lines are printed elsewhere.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._running: dict[Training, int] = {}  # iterations each had when it was begun
        self._best = ""
        self._top1 = -1.0
        self._said = time.monotonic()
        self._bar = Progress(
            BarColumn(bar_width=24),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} iterations"),
            TextColumn("{task.fields[status]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("tune", total=1, status="")

    def __enter__(self) -> TuningDisplay:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    # -- the watch ------------------------------------------------------------------------------

    def budget(self, iterations: int) -> None:
        self._bar.update(self._task, total=max(1, iterations))

    def begun(self, training: Training) -> None:
        self._running[training] = training.reached

    def waiting(self, iterations: int) -> None:
        now = iterations + sum(t.reached - before for t, before in self._running.items())
        self._show(now)
        if not self._console.is_terminal and time.monotonic() - self._said > LINE_SECONDS:
            self.say(f"{now:,} iterations so far, {len(self._running)} trainings to go; best {self._best}")

    def ended(self, result: Result, iterations: int) -> None:
        self._running.pop(result.training, None)
        top = best(result.measurements)
        if top and top.top1 is not None and top.top1 > self._top1:
            self._top1, self._best = top.top1, f"{top.top1:.2f} % {result.training.policy}"
        if result.seconds:  # what was there already is no news
            self.say(line(result))
        self._show(iterations)

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        self._said = time.monotonic()

    def _show(self, iterations: int) -> None:
        self._bar.update(self._task, completed=iterations, status=f"best {self._best}")


def line(result: Result) -> str:
    """A result for people."""
    training = result.training
    top = best(result.measurements)
    what = training.policy or Path(training.solver).stem  # a pass of the ramp has no policy
    text = f"{what}  seed {training.seed}  iteration {result.iteration}"
    if top and top.top1 is not None:
        text += f"  best Top-1 {top.top1:.2f} % at {top.iteration}"
    if result.status in BROKEN:
        text += f"  {result.status}: {result.reason}"
    return text
