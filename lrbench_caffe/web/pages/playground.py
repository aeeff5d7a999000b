"""The policy playground: what a policy does, without training anything."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from lrbench_caffe.database.ranges import INT32
from lrbench_caffe.lr import Policy, PolicyError, describe_functions, parse
from lrbench_caffe.web.api import LONGEST, READ
from lrbench_caffe.web.charts import policies_chart
from lrbench_caffe.web.rendering import page

router = APIRouter(dependencies=[READ])
MOST = 8  # policies at once
EXAMPLE = "SIN2(k0=0.01, k1=0.06, l=2000)"


@router.get("/playground")
def playground(
    request: Request,
    policy: Annotated[list[str], Query(max_length=MOST)] = [],  # noqa: B006
    max_iter: Annotated[int, Query(ge=1, le=INT32)] = 10_000,
) -> Response:
    texts = [text.strip()[:LONGEST] for text in policy if text.strip()] or [EXAMPLE]
    policies: list[Policy] = []
    problems: list[tuple[str, str]] = []
    for text in texts:
        try:
            policies.append(parse(text).bind(max_iter))
        except PolicyError as error:
            problems.append((text, str(error)))
    values = {
        "title": "Policy playground",
        "texts": texts,
        "max_iter": max_iter,
        "policies": policies,
        "problems": problems,
        "chart": policies_chart(policies, max_iter),
        "functions": describe_functions(),
    }
    return page(request, "playground.html", values)
