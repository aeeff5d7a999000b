"""Finds the missing trainings of a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lrbench_caffe import installation
from lrbench_caffe.database import Database
from lrbench_caffe.datasets.catalogue import DATASETS
from lrbench_caffe.errors import InputError
from lrbench_caffe.jobs import Job
from lrbench_caffe.jobs.naming import directory_name
from lrbench_caffe.knowledge.similarity import comparable
from lrbench_caffe.prototxt import examples
from lrbench_caffe.records import RunRecord
from lrbench_caffe.reproduction.compare import belongs
from lrbench_caffe.reproduction.plan import ExperimentPlan, Row, Setup
from lrbench_caffe.reproduction.results import one_for_each_seed
from lrbench_caffe.runs.syncing import NotForDatabase, StillRunning, read_run
from lrbench_caffe.runtime.client import HANG_SECONDS


@dataclass(frozen=True)
class Options:
    """The options of all trainings.

    Attributes:
        folder: what they are kept below.
        db: URL of the LR database.
        flags: more flags for ``train``.
        until: the iteration that they stop at, None for their end.
        hang_seconds: see ``Job``.
    """

    folder: Path
    db: str
    flags: tuple[str, ...] = ()
    until: int | None = None
    hang_seconds: float = HANG_SECONDS


@dataclass(frozen=True)
class Item:
    """A training that is missing.

    Attributes:
        plan, row: what it is for, in the first plan that wants it.
        training: the job; equal for equal trainings of several plans.
    """

    plan: ExperimentPlan
    row: Row
    training: Job

    @property
    def end(self) -> int:
        """The iteration that it is to reach."""
        return self.plan.max_iter if self.training.until is None else self.training.until

    @property
    def left(self) -> int:
        """The iterations that it still needs, by its run directory."""
        return max(0, self.end - self.training.reached)


def known_runs(
    plans: Iterable[ExperimentPlan], database: Database | None, folder: Path
) -> list[RunRecord]:
    """The runs of the plans' tasks with their measurements: in the LR database, and below a folder.

    Without a database, those below the folder only.

    A run that is in both is the one that ended later: the database may have been away when it was
    trained.
    """
    tasks = {plan.setup.key: plan.setup.task for plan in plans}.values()
    records: dict[str, RunRecord] = {}
    for known in database.tasks() if database else ():
        if database and any(comparable(task, known) for task in tasks):
            runs = database.runs(task_id=known.id, source="measured", measurements=True)
            records.update((record.uid, record) for record in runs)
    for path in sorted(file.parent for file in folder.rglob("run.json")):
        try:
            record = read_run(path)
        except (StillRunning, NotForDatabase, InputError):
            continue
        other = records.get(record.uid)
        if other is None or (other.ended or 0.0) < (record.ended or 0.0):
            records[record.uid] = record
    return list(records.values())


def missing(
    plan: ExperimentPlan, rows: Iterable[Row], records: Iterable[RunRecord], options: Options
) -> list[Item]:
    """The trainings of these rows that neither finished nor diverged: seed by seed, in the rows' order."""
    mine = [record for record in records if belongs(plan, record)]
    done = {(row.number, seed) for row in plan.rows for seed in _seeds(row, mine)}
    return [
        Item(plan, row, training_of(plan, row, seed, options))
        for seed in plan.seeds
        for row in rows
        if (row.number, seed) not in done
    ]


def _seeds(row: Row, records: Sequence[RunRecord]) -> set[int | None]:
    """The seeds that a row is complete for."""
    of_row = [record for record in records if record.policy.text == str(row.trained)]
    finished, _ = one_for_each_seed(of_row)
    return {r.seed for r in finished} | {r.seed for r in of_row if r.status == "diverged"}


def training_of(plan: ExperimentPlan, row: Row, seed: int, options: Options) -> Job:
    """The training of a row with a seed."""
    setting = (
        f"{plan.setup.key}-{plan.max_iter}-{plan.test_interval}"  # runs of two scales never meet
    )
    return Job(
        solver=plan.setup.solver,
        seed=seed,
        out=str(options.folder / setting / directory_name(row.trained, seed)),
        policy=str(row.trained),
        max_iter=plan.max_iter,
        until=options.until,
        test_interval=plan.test_interval,
        db=options.db,
        hang_seconds=options.hang_seconds,
        flags=options.flags,
        retry=True,
    )


def provide_files(setup: Setup, say: Callable[[str], None]) -> None:
    """Write the solver of a task and its net to the current folder, unless that solver exists.

    Args:
        say: is told which files were written.

    Raises:
        InputError: they cannot be written.
    """
    if not Path(setup.solver).exists():
        written = examples.write(Path(), examples.names_of(setup.key))
        say(f"written because they were missing: {' and '.join(map(str, written))}")


def check_files(setup: Setup) -> None:
    """Raise an InputError if the solver or the data set of a task is missing."""
    if not Path(setup.solver).is_file():
        raise InputError(
            f"no such file: {setup.solver}; {installation.command('init')} . writes it"
        )
    for target in DATASETS[setup.data].targets:
        path = Path("data") / target.name
        if not path.exists():
            command = f"{installation.command('data')} {setup.data}"
            raise InputError(f"no data: {path}; {command} makes it")
