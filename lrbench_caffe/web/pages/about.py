"""What the metrics mean, and under what terms the data can be used."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from lrbench_caffe.knowledge.ranking import CRITERIA
from lrbench_caffe.web.api import READ
from lrbench_caffe.web.rendering import page

router = APIRouter(dependencies=[READ])

# In words, what docs/metrics.md has as formulas; the numbers are those of the paper's equations.
MEANINGS = {
    "top1": "The share of correct samples, in percent of n.",
    "top5": "The share of samples whose true class is among the 5 most probable ones (among all, where "
    "there are fewer classes), in percent of n.",
    "ac": "Average confidence: the mean, over the correct samples, of the probability of the true class (3).",
    "cd": "Confidence deviation: the standard deviation of the same probabilities (4).",
    "cdac": "Confidence deviation across classes: the standard deviation, over the classes, of the average "
    "confidence of each class's correct samples (5). Classes without one are left out.",
    "test_loss": "The loss that Caffe computes, averaged over the batches of the test pass.",
    "ld": "Loss difference, for robustness against over-fitting: the test loss minus the mean training loss "
    "of all iterations since the test before (6).",
    "iterations": "The cost of a training: the iteration of the first test with the highest Top-1; of a net "
    "that does not classify, of the first with the lowest test loss.",
    "num_params": "The cost of tuning: how many numbers the policy has, such as k0, k1 and l.",
    "target": "The iterations to a Top-1 that is asked for: the mean over the trainings that reached it, "
    "times all trainings, divided by those that reached it.",
}


@router.get("/about")
def about(request: Request) -> Response:
    metrics = [
        (CRITERIA[name].heading, "Higher" if CRITERIA[name].higher else "Lower", text)
        for name, text in MEANINGS.items()
    ]
    values = {"title": "About", "metrics": metrics, "terms": request.app.state.settings.terms}
    return page(request, "about.html", values)
