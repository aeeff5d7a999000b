"""Takes over trainings that have ended from earlier studies and runs.

A training need not be made again where everything that decides it is the same: Caffe, the solver
and its nets, the data, the start, the policy, the seed, the length and the tests. A copy of its run
directory then stands in its place, so that the study is whole without the other one.

Trainings that are only paused are left where they are: continued in both places, one run would be
two.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from lrbench_caffe.errors import InputError, ParameterError
from lrbench_caffe.files import temporary_of
from lrbench_caffe.jobs import Job
from lrbench_caffe.lr import parse
from lrbench_caffe.records import RunRecord, Task, digest
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.runs.runjson import branch_json
from lrbench_caffe.runs.snapshots import share
from lrbench_caffe.runs.syncing import NotForDatabase, StillRunning, read_run, run_directories
from lrbench_caffe.tabular import count_of
from lrbench_caffe.training.settings import RunSettings
from lrbench_caffe.tuning.plan import TuningPlan

_OWN = shutil.ignore_patterns(".*")  # locks and what is being written are not copied


class EarlierTrainings:
    """Trainings that were made before.

    Args:
        folders: of studies or single runs, at any depth.
        plan: what the trainings of the study have in common; ``task``: what they train.
        layers: the layers that were asked for: others round otherwise.
        gpu: whether they are made on GPUs.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        plan: TuningPlan,
        task: Task,
        *,
        layers: str = "auto",
        gpu: bool = False,
    ) -> None:
        self._folders, self._plan, self._task = folders, plan, task
        self._layers, self._gpu = layers, gpu
        self._runs: dict[tuple[str | None, int], RunDirectory] = {}  # by policy and seed

    def look(self, say: Callable[[str], None]) -> None:
        """Look which runs can be taken over.

        Args:
            say: is told how many of each folder, and what is different about the others.

        Raises:
            InputError: there is no run in a folder.
        """
        for folder in self._folders:
            try:
                runs = list(run_directories([folder]))
            except InputError as error:
                raise ParameterError(
                    "{reuse}: {0} holds no run; allowed: the folder of an earlier study or run",
                    folder,
                ) from error
            differences = [self._add(RunDirectory(path)) for path in runs]
            others = Counter(filter(None, differences))
            alike = len(runs) - sum(others.values())
            text = f"{alike} of {count_of(len(runs), 'run')} in {folder} can be taken over"
            reasons = "; ".join(f"{number} {reason}" for reason, number in others.most_common())
            say(f"{text} ({reasons})" if reasons else text)

    def take_over(self, training: Job) -> RunDirectory | None:
        """Copy an earlier training of the same kind to where this one is to be made.

        A kill leaves nothing in its place, or all of it.

        Returns:
            The earlier one, None if there is none that has ended.

        Raises:
            OSError: it cannot be copied.
        """
        earlier = self._runs.get((training.policy, training.seed))
        if earlier is None:
            return None
        target = training.run.path
        target.parent.mkdir(parents=True, exist_ok=True)
        # Not among the trainings, where it would count for one of them before it is whole.
        unfinished = temporary_of(target.parent.parent / target.name)
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            shutil.copytree(earlier.path, unfinished, ignore=_OWN, copy_function=_copy)
            _record_origin(RunDirectory(unfinished), earlier)
            unfinished.rename(target)
        except shutil.Error as error:  # a list of what could not be copied, and why
            raise OSError(error.args[0][0][2]) from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return earlier

    def _add(self, run: RunDirectory) -> str:
        """Take a run for one that can be taken over; returns in words what it is instead, else nothing."""
        try:
            settings, record = RunSettings.from_json(run.read()), read_run(run.path)
            policy = str(parse(settings.policy).bind(settings.max_iter))
        except (InputError, NotForDatabase, StillRunning, OSError, ValueError, TypeError):
            return "cannot be read, or still trained"
        different = self._difference(settings, record)
        if not different:
            self._runs.setdefault((policy, settings.seed), run)
        return different

    def _difference(self, settings: RunSettings, record: RunRecord) -> str:
        """What is not as in the study's trainings, besides the policy and the seed."""
        plan, task = self._plan, self._task
        framework = replace(record.framework, device=task.framework.device)  # compared by itself
        checks = {
            "not ended": record.status in ("finished", "diverged"),
            "of another length": settings.max_iter == plan.max_iter,
            "tested at other intervals": settings.test_interval == plan.test_interval,
            "of another net": record.network == task.network,
            "on other data": record.dataset == task.dataset,
            "with other settings in the solver or net": digest(settings.fingerprint) == plan.files
            and (settings.level, tuple(settings.stages)) == (plan.level, plan.stages),
            "from another start": not settings.snapshot and plan.start.same(settings.start),
            "with another Caffe, device or other layers": framework == task.framework
            and (settings.gpu is not None) == self._gpu
            and (self._layers == "auto" or self._layers.startswith(settings.layers)),
        }
        return next((words for words, same in checks.items() if not same), "")


def _copy(source: str, target: str) -> None:
    """Copy a file; of snapshots, which nobody writes to, only a further name where that is possible."""
    if Path(source).parent.name == "snapshots":
        share(Path(source), Path(target))
    else:
        shutil.copy2(source, target)


def _record_origin(copy: RunDirectory, earlier: RunDirectory) -> None:
    """Let a copy's run.json say that all of it was taken over."""
    copy.lock()
    try:
        record, tests = copy.read(), copy.measurements()
        uid = (record.get("record") or {}).get("uid")
        seconds = tests[-1].seconds or 0.0 if tests else 0.0
        branch = branch_json(earlier.path, uid, after=0, at=record["iteration"], seconds=seconds)
        copy.update(branches=[branch])
    finally:
        copy.release()
