"""One call of the command: trains what is missing and shows each plan once it is complete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lrbench_caffe.database.errors import DamagedDatabase
from lrbench_caffe.errors import InputError, LRBenchError, TrainingError
from lrbench_caffe.files import publish
from lrbench_caffe.jobs import Job, JobResult, Pool, RetryingPool
from lrbench_caffe.records import RunRecord
from lrbench_caffe.reproduction import publishing
from lrbench_caffe.reproduction.missing import (
    Item,
    Options,
    check_files,
    known_runs,
    missing,
    provide_files,
)
from lrbench_caffe.reproduction.observer import ReproductionObserver, TrainingsObserver
from lrbench_caffe.reproduction.plan import ExperimentPlan, Row
from lrbench_caffe.reproduction.speed import Prober, Speed, duration
from lrbench_caffe.reproduction.starts import start_rows, starts
from lrbench_caffe.runs.opening import open_database
from lrbench_caffe.tabular import csv_text

WAIT = 0.5  # seconds between two looks at what still runs


@dataclass(frozen=True)
class Goal:
    """A table or figure, and the rows of it that may be trained."""

    plan: ExperimentPlan
    rows: tuple[Row, ...]


class Reproduction:
    """Trains what is missing of some plans and shows the results.

    Args:
        observer: is told what happens and what came out.
        goals: what is wanted, in order.
        options: how it is trained.
        pool: where; closed by the caller.
        prober: tells how long it takes.
    """

    def __init__(
        self,
        observer: ReproductionObserver,
        goals: Sequence[Goal],
        options: Options,
        pool: Pool,
        prober: Prober,
    ) -> None:
        self._observer = observer
        self._say = observer.say
        self._goals = goals
        self._options = options
        self._pool = pool
        self._prober = prober
        self._damaged = False  # whether it was reported that the LR database is

    def run(self, dry: bool = False) -> None:
        """Run everything; with ``dry`` nothing is trained.

        Raises:
            InputError: a solver, its data or a flag is wrong.
            TrainingError: some trainings failed; all others were made.
        """
        records = self._known([goal.plan for goal in self._goals])
        todo = [missing(goal.plan, goal.rows, records, self._options) for goal in self._goals]
        items = unique(todo)
        self._announce(todo, items)
        if dry:
            self._paces(items, dry=True)
            for goal in self._goals:
                self._report(goal.plan, records)
            return
        for setup in {item.plan.setup.key: item.plan.setup for item in items}.values():
            provide_files(setup, self._say)
            check_files(setup)
        problems = self._train(todo, items)
        if problems:
            raise TrainingError("; ".join(problems))

    def _train(self, todo: Sequence[Sequence[Item]], items: Sequence[Item]) -> list[str]:
        """Train all, and report each plan; returns what went wrong."""
        failed: dict[Job, str] = {}
        problems = []
        with self._observer.training(items, self._paces(items), self._pool.slots) as watch:
            pool = RetryingPool(self._pool, watch.say)
            for goal, wanted, results in zip(self._goals, todo, carry_out(pool, todo, watch)):
                lost = _lost(wanted, results)
                failed.update(lost)
                try:
                    self._report_trained(goal, results, list(lost.values()))
                except (
                    LRBenchError
                ) as error:  # the database is away, say: no reason to end what trains
                    problems.append(f"{goal.plan.name} could not be shown: {error}")
        for text in failed.values():
            self._say(f"lost: {text}")
        if failed:
            count = f"{len(failed)} of {_count(len(items), 'training')}"
            problems.append(f"{count} failed; the same command tries them again")
        return problems

    def _known(self, plans: Sequence[ExperimentPlan]) -> list[RunRecord]:
        try:
            url, warn = self._options.db, self._observer.warn
            with open_database(url, to_write=True, say=warn) as database:
                return known_runs(plans, database, self._options.folder)
        except DamagedDatabase as error:
            if not self._damaged:
                where = self._options.folder
                self._say(
                    f"the LR database: {error}; the results are read from {where}, where they wait"
                )
            self._damaged = True
            return known_runs(plans, None, self._options.folder)

    # -- before -----------------------------------------------------------------------------------

    def _announce(self, todo: Sequence[Sequence[Item]], items: Sequence[Item]) -> None:
        for goal, wanted in zip(self._goals, todo):
            whole = len(goal.rows) * len(goal.plan.seeds)
            text = f"{goal.plan.title}: {len(wanted)} of {_count(whole, 'training')} missing"
            notes = [_iterations(wanted)] if wanted else []
            notes += (
                [f"until iteration {self._options.until}"]
                if self._options.until is not None
                else []
            )
            self._say(", ".join([text, *notes, *([goal.plan.note] if goal.plan.scaled else [])]))
        if len(self._goals) > 1:
            self._say(
                f"in total {_count(len(items), 'training')}, {_iterations(items)}; each is trained once"
            )

    def _paces(self, items: Sequence[Item], dry: bool = False) -> dict[str, float]:
        """Seconds for an iteration and its share of the tests, by the setup's key, and say how long it takes.

        Nothing where there is nothing to do or it cannot be measured.

        Raises:
            InputError: nothing could be trained either, for a reason that is in the input; with
                ``dry`` it is only said.
        """
        needed = [item for item in items if item.left]
        setups = {item.plan.setup.key: item.plan.setup for item in needed}
        try:
            for setup in setups.values():
                check_files(setup)
            speeds = self._prober.speeds(setups.values())
        except LRBenchError as error:
            if isinstance(error, InputError) and not dry:
                raise
            self._say(f"the duration was not measured: {error}")
            return {}
        for key, speed in speeds.items():
            times = f"{1000 * speed.iteration:,.0f} ms an iteration, {speed.test:.1f} s a test"
            self._say(f"{setups[key].title}: {times}, measured now")
        seconds = seconds_of(needed, speeds)
        if needed:
            slots = max(1, min(self._pool.slots, len(needed)))
            whole = duration(sum(seconds.values()) / slots)
            self._say(f"about {whole} on this machine, {slots} at a time")
        left = {key: sum(i.left for i in needed if i.plan.setup.key == key) for key in setups}
        return {key: seconds[key] / left[key] for key in setups}

    # -- after ------------------------------------------------------------------------------------

    def _report_trained(
        self, goal: Goal, results: Sequence[JobResult], lost: Sequence[str]
    ) -> None:
        records = self._known([goal.plan])
        if self._options.until is None:
            self._report(goal.plan, records, lost)
        else:
            self._report_starts(goal.plan, records, results)

    def _report(
        self, plan: ExperimentPlan, records: Sequence[RunRecord], lost: Sequence[str] = ()
    ) -> None:
        publishing.show(self._observer, plan, records)
        files = publishing.write(self._options.folder, plan, records, lost)
        self._say(f"{plan.name}: {', '.join(map(str, files))}")

    def _report_starts(
        self, plan: ExperimentPlan, records: Sequence[RunRecord], results: Sequence[JobResult]
    ) -> None:
        """Which trainings came to the iteration ``until``, in this call or in another."""
        rows = start_rows(plan, starts(plan, records, self._options, results))
        title = f"{plan.title}: the first {self._options.until} iterations"
        self._observer.table(rows, title, publishing.LEFT)
        path = self._options.folder / f"{plan.file_name}-until-{self._options.until}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        publish(path, csv_text(rows).encode())
        self._say(f"{plan.name}: {path}")


def _lost(items: Sequence[Item], results: Sequence[JobResult]) -> dict[Job, str]:
    """The lost trainings of a plan, and where they would have counted."""
    return {
        result.training: (
            f"{item.plan.title}, row {item.row.number}: {result.loss}; this row has one seed fewer"
        )
        for item, result in zip(items, results)
        if result.lost
    }


def unique(todo: Iterable[Iterable[Item]]) -> list[Item]:
    """Each training once, in the order of the plans that want them first."""
    items_once: dict[Job, Item] = {}
    for items in todo:
        for item in items:
            items_once.setdefault(item.training, item)
    return list(items_once.values())


def carry_out(
    pool: Pool, todo: Sequence[Sequence[Item]], watch: TrainingsObserver
) -> Iterator[list[JobResult]]:
    """Train all items, each once; yields the results of each list as soon as it is whole, in their order."""
    for item in unique(todo):
        pool.submit(item.training)
    results: dict[Job, JobResult] = {}
    for items in todo:
        while any(item.training not in results for item in items):
            result = pool.next(timeout=WAIT)
            if result is not None:
                results[result.training] = result
                watch.ended(result)
            watch.look()
        yield [results[item.training] for item in items]


def seconds_of(items: Iterable[Item], speeds: Mapping[str, Speed]) -> dict[str, float]:
    """Seconds that trainings take one after the other, by the setup's key."""
    seconds = dict.fromkeys(speeds, 0.0)
    for item in items:
        key = item.plan.setup.key
        seconds[key] += speeds[key].seconds(item.left, item.plan.test_interval)
    return seconds


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _iterations(items: Iterable[Item]) -> str:
    return _count(sum(item.left for item in items), "iteration")
