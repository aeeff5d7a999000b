"""A pool that answers by rule instead of training, and what the tests of studies do with it."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from lrbench_caffe.jobs import Job, JobResult
from lrbench_caffe.lr import parse
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.prototxt.solver import caffe_policy
from lrbench_caffe.records import SCRATCH, Start
from lrbench_caffe.tuning import report as reports
from lrbench_caffe.tuning import running
from lrbench_caffe.tuning.plan import TuningPlan
from lrbench_caffe.tuning.report import write_report
from lrbench_caffe.tuning.request import TuningRequest
from lrbench_caffe.tuning.space import functions
from lrbench_caffe.tuning.study import Study
from lrbench_caffe.tuning.tuner import Tuner, TuningOutcome
from lrbench_caffe.tuning.verdict import judge

MAX_ITER, INTERVAL = 1000, 50
LIMIT = 0.15  # from this LR on a training diverges; with seed 2 a little earlier


class RulePool:
    """Trains at once: Top-1 rises with the LR that was spent, and a higher LR ends higher.

    Args:
        own: Top-1 that FIX(k0=0.01), the solver's own policy, has beyond that.
    """

    slots = 1
    room = 99

    def __init__(self, fails: str = "nothing", next_one: int = -1, own: float = 0.0) -> None:
        self._own = own
        self._fails = fails
        self._next_one = next_one
        self._results: list[JobResult] = []
        self.submitted: list[Job] = []

    def submit(self, training: Job) -> None:
        self.submitted.append(training)
        self._results.append(self._train(training))

    def _train(self, training: Job) -> JobResult:
        rates = np.asarray(parse(str(training.policy)).bind(MAX_ITER)(np.arange(MAX_ITER)))
        if re.search(self._fails, str(training.policy)):
            return JobResult(training, "failed", "killed by SIGSEGV", 0)
        limit = LIMIT * (0.8 if training.seed > 1 else 1.0)
        if rates[: training.until].max() >= limit:
            return JobResult(training, "diverged", "the loss of iteration 20 is nan", 20)
        tests = range(INTERVAL, (training.until or MAX_ITER) + 1, INTERVAL)
        spent = np.cumsum(rates)
        more = self._own if str(training.policy) == "FIX(k0=0.01)" else 0.0
        tops = [99.0 * (1 - np.exp(-spent[t - 1])) - 0.01 * training.seed + more for t in tests]
        measured = [measurement(t, top1) for t, top1 in zip(tests, tops)]
        status = "finished" if training.until == MAX_ITER else "stopped"
        return JobResult(training, status, None, training.until or MAX_ITER, 1.0, measured)

    def next(self, timeout: float | None = None) -> JobResult | None:
        # The last first, by default: no order is promised.
        return self._results.pop(self._next_one) if self._results else None

    def close(self) -> None: ...


def measurement(iteration: int, top1: float) -> Measurement:
    values: dict[str, Any] = dict.fromkeys(Measurement.__dataclass_fields__, 0.5)
    return Measurement(
        **{
            **values,
            "outputs": {},
            "iteration": iteration,
            "net": 0,
            "top1": top1,
            "seconds": iteration / 100,
        }
    )


def plan(**more: Any) -> TuningPlan:
    options = {"functions": functions("all"), "seeds": 2, "top": 2, **more}
    return TuningPlan("solver.prototxt", MAX_ITER, INTERVAL, 25.0, 10.0, 1, **options)


def tune(
    folder: Path,
    pool: RulePool | None = None,
    db: str | None = None,
    start: Start = SCRATCH,
    **more: Any,
) -> tuple[Study, TuningOutcome]:
    message = SimpleNamespace(
        lr_policy="fixed",
        base_lr=0.01,
        gamma=0.0,
        power=0.0,
        stepsize=0,
        stepvalue=[],
        max_iter=MAX_ITER,
    )
    study = Study(folder, plan(start=start, **more), pool or RulePool(), db="")
    solver: Any = SimpleNamespace(
        message=message, path=Path("solver.prototxt"), epoch=25.0,
        lr_policy=lambda max_iter: caffe_policy(message, max_iter),
    )  # fmt: skip
    return study, Tuner(study, SimpleNamespace(start=start), solver, db).tune()  # type: ignore[arg-type]


def report(study: Study, outcome: TuningOutcome) -> str:
    verdict = judge(study.plan, outcome.finalists, outcome.baseline)
    return write_report(study, outcome, verdict, "digits / LeNet").read_text()


def result(study: Study, outcome: TuningOutcome) -> dict[str, Any]:
    """What result.json would have."""
    return reports.result(study, outcome, judge(study.plan, outcome.finalists, outcome.baseline))


def prepared(folder: Path) -> running.PreparedTuning:
    """A tuning of a solver that Caffe never sees."""
    message = SimpleNamespace(lr_policy="fixed", base_lr=0.01, max_iter=MAX_ITER)
    solver: Any = SimpleNamespace(
        message=message, path=Path("solver.prototxt"), epoch=25.0, lr_policy=lambda max_iter: None
    )
    wanted: Any = SimpleNamespace(start=SCRATCH, task=SimpleNamespace(title="digits / LeNet"))
    request = TuningRequest(Path("solver.prototxt"), out=folder, no_database=True)
    return running.PreparedTuning(request, plan(), solver, wanted)
