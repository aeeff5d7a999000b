"""The trainings of a plan that reached iteration ``until``, and how their loss fell until then."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lrbench_caffe.errors import InputError
from lrbench_caffe.jobs import Job, JobResult, read_result
from lrbench_caffe.records import RunRecord
from lrbench_caffe.reproduction.compare import belongs
from lrbench_caffe.reproduction.missing import Options, training_of
from lrbench_caffe.reproduction.plan import ExperimentPlan
from lrbench_caffe.tabular import Rows, number

LOSSES = 10  # iterations that a loss is the mean of, as single ones vary


def starts(
    plan: ExperimentPlan,
    records: Iterable[RunRecord],
    options: Options,
    results: Iterable[JobResult] = (),
) -> list[JobResult]:
    """The results of the first iterations of a plan's trainings, in the order of rows and seeds.

    All that came to the iteration of ``options.until`` and further, whenever that was, and all that
    ended before for a reason. What a call has just made counts, then what is in its run directory,
    then what is in the LR database: trained elsewhere.

    Args:
        records: known runs, of whatever task.
        results: what this call has made.
    """
    made = {result.training: result for result in results}
    mine = [record for record in records if belongs(plan, record)]
    results_there = []
    for row in plan.rows:
        for seed in plan.seeds:
            training = training_of(plan, row, seed, options)
            of_training = [r for r in mine if (r.policy.text, r.seed) == (str(row.trained), seed)]
            result = made.get(training) or _kept(training) or _elsewhere(training, of_training)
            if result is not None:
                results_there.append(result)
    return results_there


def _kept(training: Job) -> JobResult | None:
    """The content of its run directory; nothing if it is damaged, or if no run was begun in it."""
    try:
        return read_result(training)
    except InputError:
        return None


def _elsewhere(training: Job, records: Sequence[RunRecord]) -> JobResult | None:
    """The result of a training in the LR database: of several runs, the one that got farthest."""
    until = training.until or 0
    reached = {r.uid: r.max_iter if r.status == "finished" else _last_test(r) for r in records}
    farthest = max(records, key=lambda r: reached[r.uid], default=None)
    if farthest is not None and reached[farthest.uid] >= until:
        return JobResult(training, "stopped", None, until)
    lost = [r for r in records if r.status == "diverged"]
    return JobResult(training, "diverged", lost[0].reason, reached[lost[0].uid]) if lost else None


def _last_test(record: RunRecord) -> int:
    return max((m.iteration for m in record.measurements), default=0)


def start_rows(plan: ExperimentPlan, results: Iterable[JobResult]) -> Rows:
    """Row, policy, seed, iteration, training losses (the mean of so many iterations at its beginning and
    before that iteration), and how it came out; no losses of what was trained elsewhere."""
    numbers = {str(row.trained): str(row.number) for row in plan.rows}
    note = [plan.note] if plan.scaled else []
    losses = [f"loss, {which} {LOSSES}" for which in ("first", "last")]
    rows = [["#", "policy", "seed", "iteration", *losses, "outcome", *(["scale"] if note else [])]]
    for result in results:
        training, reached = result.training, result.iteration
        policy = str(training.policy)
        loss = training.run.iterations()[:reached, 2]
        means = [
            number(part.mean(), 3) if len(part) else "-" for part in (loss[:LOSSES], loss[-LOSSES:])
        ]
        rows.append(
            [
                numbers[policy],
                policy,
                str(training.seed),
                str(reached),
                *means,
                _outcome(result),
                *note,
            ]
        )
    return rows


def _outcome(result: JobResult) -> str:
    """ "started", or how it ended before it came there."""
    if result.status in ("stopped", "finished"):
        return "started"
    return f"{result.status}: {result.reason}"
