"""What the metrics mean, and under what terms the data can be used."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from lrbench_caffe.metrics import METRICS
from lrbench_caffe.web.api import READ
from lrbench_caffe.web.rendering import page

router = APIRouter(dependencies=[READ])


@router.get("/about")
def about(request: Request) -> Response:
    return page(request, "about.html", {"title": "About", "metrics": METRICS.values()})
