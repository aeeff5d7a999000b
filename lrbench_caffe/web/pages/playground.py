"""The policy playground: what a policy does, without training anything."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from lrbench_caffe import plots
from lrbench_caffe.database.ranges import INT32
from lrbench_caffe.lr import Policy, PolicyError, describe_functions, parse
from lrbench_caffe.web.api import LONGEST, READ, AskedFor
from lrbench_caffe.web.charts import policies_chart
from lrbench_caffe.web.errors import Refused
from lrbench_caffe.web.pictures import picture
from lrbench_caffe.web.rendering import page

router = APIRouter(dependencies=[READ])
MOST = 8  # policies at once
MEANINGS = {
    "k0": "one end of the LR's range; of a decaying function where it begins",
    "k1": "the other end; of a decaying function the bound that it does not fall below",
    "l": "iterations: half a cycle, a step, or (as a list) where the LR changes; of POLY where it ends",
    "gamma": "the factor that shrinks the LR, at every iteration or step; of SIG how steep it is",
    "p": "the power that bends the curve",
    "n": "tests without an improvement after which the LR falls",
    "metric": "what has to improve",
    "min_delta": "how much it has to improve to count",
}
EXAMPLE = "SIN2(k0=0.01, k1=0.06, l=2000)"


class PlaygroundQuery(AskedFor):
    """The policies, and the length of the training."""

    policy: Annotated[list[str], Query(max_length=MOST + 1)] = []
    max_iter: Annotated[int, Query(ge=1, le=INT32)] = 10_000
    log: bool = False

    @property
    def texts(self) -> list[str]:
        return [text.strip()[:LONGEST] for text in self.policy if text.strip()][:MOST] or [EXAMPLE]

    def parsed(self) -> tuple[list[Policy], list[tuple[str, str]]]:
        """The policies, and the texts that are none, each with the reason."""
        policies: list[Policy] = []
        problems: list[tuple[str, str]] = []
        for text in self.texts:
            try:
                policies.append(parse(text).bind(self.max_iter))
            except PolicyError as error:
                problems.append((text, str(error)))
        return policies, problems


@router.get("/playground")
def playground(request: Request, query: Annotated[PlaygroundQuery, Query()]) -> Response:
    policies, problems = query.parsed()
    values = {
        "title": "Policy playground",
        "query": query,
        "texts": query.texts,
        "policies": policies,
        "problems": problems,
        "chart": policies_chart(policies, query.max_iter, log=query.log),
        "functions": describe_functions(),
        "rows": {row.name: row for row in describe_functions()},
        "meanings": MEANINGS,
        "most": MOST,
    }
    return page(request, "playground.html", values)


@router.get("/playground.{form}", name="schedule_picture")
def schedule_picture(form: str, query: Annotated[PlaygroundQuery, Query()]) -> Response:
    """The picture of ``plot schedule``."""
    policies, problems = query.parsed()
    if problems:
        raise Refused(400, problems[0][1])
    if query.max_iter > plots.LONGEST:
        raise Refused(
            400, f"max_iter: {query.max_iter}; allowed in a picture: 1 to {plots.LONGEST}"
        )
    draw = plots.schedule_figure
    return picture(form, "schedule", lambda: draw(policies, query.max_iter, log=query.log))
