"""The paper's tables, with this database's results beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from lrbench_caffe.knowledge.similarity import comparable
from lrbench_caffe.records import SCRATCH, PolicySummary, Spread
from lrbench_caffe.reproduction.compare import DIGITS, HEADINGS, PaperComparison, paper_results
from lrbench_caffe.reproduction.plan import TABLES, ExperimentPlan, Row, plan
from lrbench_caffe.web.api import READ, all_tasks, database
from lrbench_caffe.web.errors import Refused
from lrbench_caffe.web.rendering import page

router = APIRouter(dependencies=[READ])


@dataclass(frozen=True)
class PaperLine:
    """A row of a table beside ours.

    Attributes:
        row: the paper's policy.
        ours: what was measured with it; None where nothing was.
        cells: the numbers, by metric in the order of the headings.
    """

    row: Row
    ours: PolicySummary | None
    cells: list[PaperComparison]


@router.get("/paper")
def paper(request: Request) -> Response:
    plans = [plan(name) for name in TABLES]
    counts = {
        wanted.name: sum(line.ours is not None for line in _lines(request, wanted))
        for wanted in plans
    }
    values = {"title": "The paper's tables", "plans": plans, "counts": counts}
    return page(request, "paper.html", values)


@router.get("/paper/{name}")
def paper_table(request: Request, name: str) -> Response:
    if name not in TABLES:
        raise Refused(404, f"there is no such table; known: {', '.join(TABLES)}")
    wanted = plan(name)
    values = {
        "title": wanted.title,
        "plan": wanted,
        "lines": list(_lines(request, wanted)),
        "headings": HEADINGS,
        "digits": DIGITS,
    }
    return page(request, "paper_table.html", values)


def _lines(request: Request, wanted: ExperimentPlan) -> Iterator[PaperLine]:
    ours = _measured(request, wanted)
    printed = paper_results(wanted)
    for row in wanted.rows:
        summary = ours.get(str(row.trained))
        theirs = printed[row.key].spreads if row.key in printed else {}
        cells = [
            PaperComparison(row, name, theirs.get(name), _spread(summary, name))
            for name in HEADINGS
        ]
        yield PaperLine(row, summary, cells)


def _spread(summary: PolicySummary | None, name: str) -> Spread | None:
    return None if summary is None else getattr(summary, name)


def _measured(request: Request, wanted: ExperimentPlan) -> dict[str, PolicySummary]:
    """What was measured from scratch with the paper's settings and length, by policy.

    Of several tasks that are the paper's (of several frameworks), the one with the most trainings.
    """
    functions = list(dict.fromkeys(row.trained.function for row in wanted.rows))
    found: dict[str, PolicySummary] = {}
    for task in all_tasks(request):
        if not comparable(wanted.setup.task, task):
            continue
        for summary in database(request).summaries(
            task.id or 0, functions=functions, sources=["measured"], start=SCRATCH
        ):
            same = summary.max_iter == wanted.max_iter and summary.solver == wanted.setup.settings
            known = found.get(summary.policy.text)
            if same and summary.top1 and (known is None or known.repeats < summary.repeats):
                found[summary.policy.text] = summary
    return found
