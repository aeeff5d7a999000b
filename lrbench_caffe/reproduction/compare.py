"""The paper's results beside ours: rows for the terminal, Markdown and CSV."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lrbench_caffe.knowledge.criteria import CRITERIA
from lrbench_caffe.knowledge.similarity import comparable
from lrbench_caffe.records import SCRATCH, RunRecord, Spread, Task
from lrbench_caffe.reproduction.checks import Results, printed, signed
from lrbench_caffe.reproduction.conclusions import conclusions
from lrbench_caffe.reproduction.plan import ExperimentPlan, Row
from lrbench_caffe.reproduction.results import PAPER_METRICS, PolicyResult, result_of
from lrbench_caffe.tabular import Rows, plus_minus

HEADINGS = {
    "iterations": "#Iter",
    **{name: CRITERIA[name].heading for name in PAPER_METRICS if name != "iterations"},
}
DIGITS = {name: CRITERIA[name].digits for name in PAPER_METRICS}
WITHIN = (
    "the paper's range mean ± deviation and ours overlap; because the paper's means are rounded, they may be "
    "off by half of the last digit (except #Iter)"
)


@dataclass(frozen=True)
class PaperComparison:
    """One number of the paper and ours.

    Attributes:
        row: the policy.
        metric: one of ``PAPER_METRICS``.
        paper: what the paper prints: a deviation for Top-1 in Tables VII to IX only; None for
            nothing.
        ours: mean and deviation over seeds; None where nothing was trained or measured.
    """

    row: Row
    metric: str
    paper: Spread | None
    ours: Spread | None

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        return None if self.paper is None or self.ours is None else self.ours.mean - self.paper.mean

    @property
    def within(self) -> bool | None:
        """Whether |difference| <= deviation of the paper + deviation of ours, as printed numbers go.

        A deviation that is not known counts 0; None where neither is, or there is nothing to
        compare.
        """
        if self.difference is None or self.paper is None or self.ours is None:
            return None
        if self.paper.sd is None and self.ours.sd is None:
            return None
        digit = 0.5 * 10.0 ** -DIGITS[self.metric]  # the paper's number is rounded to it
        allowed = (self.paper.sd or 0.0) + (self.ours.sd or 0.0) + (digit if digit < 0.5 else 0.0)
        return abs(self.difference) <= allowed + 1e-12


def paper_results(plan: ExperimentPlan) -> dict[str, PolicyResult]:
    """The paper's results for the rows of a plan, from its tables or its text, by key."""
    results = {}
    for row in plan.rows:
        if row.paper is not None:
            results[row.key] = _paper_result(row.paper)
        elif row.stated is not None:
            results[row.key] = PolicyResult({"top1": Spread(row.stated, None, 1)})
    return results


def _paper_result(record: RunRecord) -> PolicyResult:
    (printed,) = record.measurements
    spreads = {}
    for name in PAPER_METRICS:
        value = printed.iteration if name == "iterations" else getattr(printed, name)
        if value is not None:
            sd = record.top1_sd if name == "top1" else None
            spreads[name] = Spread(float(value), sd, record.repeats)
    return PolicyResult(spreads)


def our_results(plan: ExperimentPlan, records: Iterable[RunRecord]) -> dict[str, PolicyResult]:
    """Our results for a plan, by key: only runs of its length, net, policies and seeds.

    Args:
        records: runs with their measurements, of whatever task and length.
    """
    by_policy: dict[str, list[RunRecord]] = {}
    for record in records:
        if belongs(plan, record):
            by_policy.setdefault(record.policy.text, []).append(record)
    results = {row.key: result_of(by_policy.get(str(row.trained), [])) for row in plan.rows}
    return {key: result for key, result in results.items() if result is not None}


def belongs(plan: ExperimentPlan, record: RunRecord) -> bool:
    """Whether a run was measured here, from scratch, of the plan's task, settings, length and seeds."""
    task = Task(record.framework, record.task_type, record.dataset, record.network)
    return (
        record.source == "measured"
        and record.start.same(SCRATCH)
        and record.max_iter == plan.max_iter
        and record.test_interval == plan.test_interval
        and record.seed in plan.seeds
        and record.solver == plan.setup.settings
        and comparable(plan.setup.task, task)
    )


def compare(plan: ExperimentPlan, ours: Mapping[str, PolicyResult]) -> list[PaperComparison]:
    """Every number of a plan's rows, in the paper's order of rows and columns."""
    paper = paper_results(plan)
    return [
        PaperComparison(
            row, metric, _spread(paper.get(row.key), metric), _spread(ours.get(row.key), metric)
        )
        for row in plan.rows
        for metric in PAPER_METRICS
    ]


def _spread(result: PolicyResult | None, metric: str) -> Spread | None:
    return None if result is None else result.spreads.get(metric)


# -- rows ------------------------------------------------------------------------------------------


def table_rows(
    plan: ExperimentPlan, ours: Mapping[str, PolicyResult], *, short: bool = False
) -> Rows:
    """The table for people: for each policy three lines (paper, ours, difference).

    A difference has "=" where it is within the two deviations, "≠" where it is not, and nothing
    where that cannot be said. A scaled-down plan says so in every line, makes no such statement,
    and compares no iterations; the paper's line has the paper's own policy. With ``short`` a policy
    is called by its key where that is enough.
    """
    note = [plan.note] if plan.scaled else []
    heading = [
        "#",
        "policy",
        "",
        *(HEADINGS[name] for name in PAPER_METRICS),
        *(["scale"] if note else []),
    ]
    rows = [heading]
    comparisons = compare(plan, ours)
    for index, row in enumerate(plan.rows):
        cells = comparisons[index * len(PAPER_METRICS) : (index + 1) * len(PAPER_METRICS)]
        name = [str(row.number), _name(row) if short else str(row.trained)]
        printed = [str(row.number), row.key if short else str(row.policy)]
        rows.append([*printed, "paper", *(_cell(c.paper, c.metric) for c in cells), *note])
        rows.append(
            [*name, _ours(ours.get(row.key)), *(_cell(c.ours, c.metric) for c in cells), *note]
        )
        rows.append([*name, "difference", *(_difference(c, plan) for c in cells), *note])
    return rows


def _name(row: Row) -> str:
    """The short name of the trained policy: its key, unless that is another policy in full."""
    return str(row.trained) if row.key == str(row.policy) else row.key


def _ours(result: PolicyResult | None) -> str:
    """ "ours, 2 seeds", "ours, 1 seed (+1 diverged)", "ours, 2 diverged"."""
    if result is None:
        return "ours, not trained"
    count = len(result.seeds)
    if not count:
        return f"ours, {result.diverged} diverged"
    diverged = f" (+{result.diverged} diverged)" if result.diverged else ""
    return f"ours, {count} seed{'s' * (count != 1)}{diverged}"


def _cell(spread: Spread | None, metric: str) -> str:
    if spread is None:
        return "-"
    digits = DIGITS[metric]
    return plus_minus(
        printed(spread.mean, digits), None if spread.sd is None else printed(spread.sd, digits)
    )


def _difference(comparison: PaperComparison, plan: ExperimentPlan) -> str:
    difference = _comparable(comparison, plan)
    if difference is None:
        return "-"
    text = signed(difference, DIGITS[comparison.metric])
    mark = {True: " =", False: " ≠", None: ""}[None if plan.scaled else comparison.within]
    return text + mark


def _comparable(comparison: PaperComparison, plan: ExperimentPlan) -> float | None:
    """The difference; none of iterations of a scaled-down plan, which has fewer of them."""
    return None if plan.scaled and comparison.metric == "iterations" else comparison.difference


def data_rows(plan: ExperimentPlan, ours: Mapping[str, PolicyResult]) -> Rows:
    """The same for programs: a line for each number. In a scaled-down plan the paper's policy is another."""
    heading = [
        "plan",
        "row",
        "policy",
        "paper_policy",
        "metric",
        "paper",
        "paper_sd",
        "ours",
        "ours_sd",
        "seeds",
        "diverged",
    ]
    rows = [[*heading, "difference", "within", "max_iter", "scale"]]
    for c in compare(plan, ours):
        result = ours.get(c.row.key)
        within = None if plan.scaled else c.within
        difference = _comparable(c, plan)
        rows.append(
            [
                plan.name, str(c.row.number), str(c.row.trained), str(c.row.policy), c.metric,
                *_exact(c.paper), *_exact(c.ours),
                str(len(result.seeds)) if result else "0", str(result.diverged) if result else "0",
                "-" if difference is None else f"{round(difference, 10) + 0.0:.6g}",  # no -0
                {True: "yes", False: "no", None: "-"}[within],
                str(plan.max_iter), f"{plan.scale:.6g}",
            ]
        )  # fmt: skip
    return rows


def _exact(spread: Spread | None) -> list[str]:
    if spread is None:
        return ["-", "-"]
    return [f"{spread.mean + 0.0:.10g}", "-" if spread.sd is None else f"{spread.sd:.10g}"]


def conclusion_rows(plan: ExperimentPlan, ours: Results) -> Rows:
    """The paper's conclusions about a plan: for the paper's numbers, and for ours with the numbers.

    For a scaled-down plan they name its iterations and policies; the paper's numbers are judged by
    its own.
    """
    note = [plan.note] if plan.scaled else []
    paper = paper_results(plan)
    rows = [["section", "conclusion", "paper", "ours", "our numbers", *(["scale"] if note else [])]]
    for whole, conclusion in zip(conclusions(plan.name), conclusions(plan.name, plan.share)):
        verdict, of_paper = conclusion.judge(ours), whole.judge(paper)
        numbers = _as_trained(plan, verdict.numbers)
        rows.append(
            [conclusion.section, conclusion.statement, of_paper.word, verdict.word, numbers, *note]
        )
    return rows


def _as_trained(plan: ExperimentPlan, text: str) -> str:
    """A text with the policies that are trained in place of the paper's."""
    names = {row.key: _name(row) for row in plan.rows if _name(row) != row.key}
    if not names:
        return text
    return re.sub("|".join(map(re.escape, names)), lambda matching: names[matching[0]], text)
