"""What the metrics mean, and under what terms the data can be used."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from lrbench_caffe.knowledge.criteria import CRITERIA
from lrbench_caffe.metrics import METRICS
from lrbench_caffe.web.api import READ
from lrbench_caffe.web.rendering import page

router = APIRouter(dependencies=[READ])

# Of what policies are ranked by, beside the metrics.
COST_MEANINGS = {
    "iterations": "The cost of a training: the iteration of the first test with the highest Top-1; of a net "
    "that does not classify, of the first with the lowest test loss.",
    "num_params": "The cost of tuning: how many numbers the policy has, such as k0, k1 and l.",
    "target": "The iterations to a Top-1 that is asked for: the mean over the trainings that reached it, "
    "times all trainings, divided by those that reached it.",
}


@router.get("/about")
def about(request: Request) -> Response:
    told = [(m.name, m.heading, m.higher, m.meaning) for m in METRICS.values()]
    told += [(name, CRITERIA[name].heading, False, text) for name, text in COST_MEANINGS.items()]
    metrics = [
        (name if name in CRITERIA else None, heading, "Higher" if higher else "Lower", text)
        for name, heading, higher, text in told
    ]
    values = {"title": "About", "metrics": metrics, "terms": request.app.state.settings.terms}
    return page(request, "about.html", values)
