"""The progress of a tuning: a bar of iterations on a terminal, a line for each result."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from rich.progress import BarColumn

from lrbench_caffe.jobs import Job, JobResult
from lrbench_caffe.jobs.naming import result_line
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.tabular import clock
from lrbench_caffe.terminal.console import Console, TextColumn, progress
from lrbench_caffe.terminal.database import complain
from lrbench_caffe.terminal.stopwatch import Stopwatch
from lrbench_caffe.tuning.also import with_settings, words_of
from lrbench_caffe.tuning.measure import Measure
from lrbench_caffe.tuning.observer import TuningObserver
from lrbench_caffe.tuning.trainings import HELD_OUT, settings_of

LINE_SECONDS = 30.0  # between two lines where there is no terminal and no result
LEAST = 0.01  # of all iterations: before that, the time that is left is not known


class TuningDisplay(TuningObserver):
    """The study's watch on a console.

    A training that continues in steps is one line when its first result is there, and another one
    when it ends.

    Args:
        console: where to; a bar is drawn on a terminal, lines are printed elsewhere.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._running: set[Job] = set()
        # Iterations of each run directory: that the study counts, and that this command need not
        # train or has counted. An interrupted training has some of which the study knows when it ends.
        self._ended: dict[str, int] = {}
        self._counted: dict[str, int] = {}
        self._scales: dict[str, float] = {}  # of each run directory; see ``Study``
        self._lines: set[str] = set()  # run directories that have theirs
        self._measure = Measure.of_top1(0.0)
        self._best = ""
        self._value: float | None = None  # the best so far
        self._held_out = False
        self._expected: int | None = None
        self._trained = 0  # iterations since the command began
        self._watch = Stopwatch()
        self._said = time.monotonic()
        self._bar = progress(
            console,
            BarColumn(bar_width=24),
            TextColumn("{task.fields[status]}"),
        )
        self._task = self._bar.add_task("tune", total=None, status="")

    def __enter__(self) -> TuningDisplay:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    # -- the watch ------------------------------------------------------------------------------

    def compares(self, measure: Measure) -> None:
        self._measure = measure

    def expect(self, iterations: int) -> None:
        self._expected = iterations
        self._bar.update(self._task, total=max(1, iterations))

    def begun(self, training: Job, scale: float = 1.0) -> None:
        self._running.add(training)
        self._scales[training.out] = scale
        self._counted.setdefault(training.out, training.reached)

    def waiting(self, iterations: int) -> None:
        self._watch.look()
        reached = self._reached()
        self._show(iterations, reached)
        if not self._console.is_terminal and time.monotonic() - self._said > LINE_SECONDS:
            best_so_far = f"; best so far {self._best}" if self._best else ""
            self.say(f"{self._done(iterations, reached)}{best_so_far}")

    def ended(self, result: JobResult, iterations: int) -> None:
        self._watch.look()
        training = result.training
        held_out = training.out.endswith(HELD_OUT)
        if held_out != self._held_out:  # results on other records do not compare
            self._held_out, self._value, self._best = held_out, None, ""
        self._running.discard(training)
        before = self._counted.get(training.out, 0)
        self._counted[training.out] = max(before, result.iteration)
        self._ended[training.out] = max(self._ended.get(training.out, 0), result.iteration)
        record, reached = self._is_record(result), self._reached()
        if result.seconds:  # existing trainings are not reported
            scale = self._scales.get(training.out, 1.0)
            self._trained += round(scale * max(0, result.iteration - before))
            if result.status != "stopped" or training.out not in self._lines:
                self._lines.add(training.out)
                line = result_line(result, self._best_test)
                settings = with_settings(words_of(settings_of(training.run.path)))
                done = self._done(iterations, reached)
                so_far = self._so_far(record) + (f"; {done}" if self._expected else "")
                self.say(line + settings + so_far)
        self._show(iterations, reached)

    def _is_record(self, result: JobResult) -> bool:
        """Whether a training has the best test so far; it is noted then."""
        measure, top = self._measure, self._measure.best_test(result.measurements)
        for value in measure.values([top] if top else []):
            if self._value is None or measure.goodness(value) > measure.goodness(self._value):
                self._value, self._best = value, f"{measure.text(value)} {result.training.policy}"
                return True
        return False

    def _so_far(self, record: bool) -> str:
        if record:
            return "; the best so far"
        return "" if self._value is None else f"; best so far {self._measure.text(self._value)}"

    def _best_test(self, measurements: Sequence[Measurement]) -> str:
        """A training's best test in words; empty without one."""
        measure, top = self._measure, self._measure.best_test(measurements)
        values = measure.values([top] if top else [])
        if top is None or not values:
            return ""
        where = " on held-out records" * self._held_out
        return f"best {measure.title} {measure.text(values[0])} at {top.iteration}{where}"

    def warn(self, text: str) -> None:
        complain(text)

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        self._said = time.monotonic()

    def _show(self, iterations: int, reached: Mapping[str, int]) -> None:
        best_so_far = f"; best {self._best}" if self._best else ""
        status = f"{self._done(iterations, reached)}{best_so_far}"
        done = iterations + self._beyond(self._ended, reached)
        self._bar.update(self._task, completed=done, status=status)

    def _reached(self) -> dict[str, int]:
        """Iterations of each run directory whose training has not ended; this reads files."""
        reached: dict[str, int] = {}
        for training in self._running:  # several may be parts of one
            now = training.reached
            if training.until is not None:
                now = min(training.until, now)
            reached[training.out] = max(now, reached.get(training.out, 0))
        return reached

    def _beyond(self, before: Mapping[str, int], reached: Mapping[str, int]) -> int:
        """Iterations beyond those of each run directory that do not count, as the solver's own."""
        new = (self._scales[out] * max(0, now - before.get(out, 0)) for out, now in reached.items())
        return round(sum(new))

    def _done(self, iterations: int, reached: Mapping[str, int]) -> str:
        """ "20 % of 31,028 iterations, about 0:06:38 left".

        The time is by the rate since the command began. Until it has trained a little, starting
        trainings took most of it.
        """
        expected, now = self._expected, iterations + self._beyond(self._ended, reached)
        trained = self._trained + self._beyond(self._counted, reached)
        if not expected:
            return f"{now:,} iterations"
        text = f"{100 * now / expected:.0f} % of {expected:,} iterations"
        if trained < LEAST * expected or now >= expected:
            return text
        seconds = self._watch.seconds / trained * (expected - now)
        return f"{text}, about {clock(seconds)} left"
