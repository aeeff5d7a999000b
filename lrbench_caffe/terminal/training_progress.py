"""The progress of a training: a bar on a terminal, lines in a file."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from rich.progress import BarColumn

from lrbench_caffe.metrics import TEST_LOSS as LOSS
from lrbench_caffe.metrics import TOP1, Measurement, scalars
from lrbench_caffe.tabular import clock
from lrbench_caffe.terminal.console import Console, TextColumn, progress
from lrbench_caffe.terminal.stopwatch import Stopwatch
from lrbench_caffe.training.observer import Observer

OUTPUTS = 3  # of a net that does not classify, in a line
LONGEST = (
    600.0  # seconds from one iteration to the next that count at most: what is silent longer hangs
)
LINE_SECONDS = 30.0  # between two lines where there is no terminal and no test


class Rate:
    """Iterations per second of the last seconds, and the time left by the mean since the start."""

    def __init__(self, start: int, stop: int) -> None:
        self._start, self._stop = start, stop
        self._watch = Stopwatch(LONGEST)
        self._recent: deque[tuple[float, int]] = deque([(0.0, start)], maxlen=40)

    def update(self, iteration: int) -> None:
        self._recent.append((self._watch.look(), iteration))

    @property
    def per_second(self) -> float:
        (since, first), (now, last) = self._recent[0], self._recent[-1]
        return (last - first) / (now - since) if now > since else 0.0

    @property
    def left(self) -> str:
        """Time left as h:mm:ss, tests included."""
        done = self._recent[-1][1] - self._start
        if done <= 0:
            return "-:--:--"
        return clock(self._watch.look() / done * (self._stop - self._recent[-1][1]))


class ProgressDisplay(Observer):
    """The training's observer on a console.

    Args:
        console: where to; a bar is drawn on a terminal, lines are printed elsewhere.
        start, stop: iterations.
    """

    def __init__(self, console: Console, start: int, stop: int) -> None:
        self._console = console
        self._stop = stop
        self._rate = Rate(start, stop)
        self._top1 = "-"
        self._said = time.monotonic()
        self._bar = progress(
            console,
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[status]}"),
        )
        self._task: Any = self._bar.add_task("train", total=stop, completed=start, status="")

    def __enter__(self) -> ProgressDisplay:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, iteration: int) -> None:
        """The training starts at ``iteration``, and so does the time."""
        self._rate = Rate(iteration, self._stop)
        self._bar.update(self._task, completed=iteration)

    def trained(self, iteration: int, lr: float, loss: float) -> None:
        self._rate.update(iteration)
        status = (
            f"{self._rate.per_second:.1f} it/s  lr {lr:.3g}  loss {loss:.4f}  "
            f"Top-1 {self._top1}  left {self._rate.left}"
        )
        self._bar.update(self._task, completed=iteration, status=status)
        if not self._console.is_terminal and time.monotonic() - self._said > LINE_SECONDS:
            self._line(f"iteration {iteration}/{self._stop}  {status}")

    def tested(self, measurements: list[Measurement]) -> None:
        for m in measurements:
            top1 = "-" if m.top1 is None else TOP1.text(m.top1)
            if m.of_first_net:
                self._top1 = top1
            loss = "-" if m.test_loss is None else LOSS.text(m.test_loss)
            train = "" if m.train_loss is None else f"  training loss {LOSS.text(m.train_loss)}"
            which = f" (test net #{m.net})" if len(measurements) > 1 else ""
            left = "" if m.iteration >= self._stop else f"  left {self._rate.left}"
            result = f"Top-1 {top1}" if m.top1 is not None else _outputs(m)
            self._line(
                f"iteration {m.iteration}/{self._stop}{which}  {result}  test loss {loss}{train}"
                f"  lr {m.lr:.4g}{left}"
            )

    def note(self, text: str) -> None:
        self._line(text)

    def replaying(self, done: int, total: int) -> None:
        status = f"restoring the data's position: {done}/{total} batches"
        self._bar.update(self._task, status=status)
        if not self._console.is_terminal and time.monotonic() - self._said > LINE_SECONDS:
            self._line(status)

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        self._said = time.monotonic()


def _outputs(measurement: Measurement) -> str:
    """The outputs of a net that does not classify, as many as a line can hold."""
    values = list(scalars(measurement).items())[:OUTPUTS]
    return "  ".join(f"{name} {value:.5g}" for name, value in values) or "Top-1 -"
