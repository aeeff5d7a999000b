"""Policies for a training: of a task of the database, or of a solver that is uploaded or pasted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Optional
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, UploadFile
from fastapi.routing import APIRoute
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from lrbench_caffe.errors import InputError
from lrbench_caffe.lr import PolicyError
from lrbench_caffe.prototxt.uploads import SolverTexts
from lrbench_caffe.records import Dataset, Task
from lrbench_caffe.web.api import LONGEST, READ, AskedFor, all_tasks, database, known_task
from lrbench_caffe.web.charts import policies_chart
from lrbench_caffe.web.errors import Refused
from lrbench_caffe.web.recommending import (
    MOST,
    Advice,
    Count,
    Wishes,
    advise,
    known_data,
    sent_training,
    training_of,
)
from lrbench_caffe.web.rendering import page
from lrbench_caffe.web.settings import MIB, WebSettings


class _PastedTexts(APIRoute):
    """Reads a form whose fields may be as large as a text, which is more than the form parser allows."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        handler = super().get_route_handler()

        async def with_form(request: Request) -> Response:
            if request.method == "POST":  # the body is limited as a whole, and each text below
                try:
                    await request.form(max_part_size=request.app.state.settings.texts)
                except (ValueError, LookupError):  # text that is none, or of an unknown encoding
                    raise Refused(400, "the form cannot be read") from None
            return await handler(request)

        return with_form


router = APIRouter(dependencies=[READ], route_class=_PastedTexts)
CHOICES = 300  # tasks and data sets that a list offers

Words = Annotated[Optional[str], Field(max_length=LONGEST)]
Few = Annotated[Optional[int], Field(ge=1, le=MOST)]


class TaskQuery(AskedFor):
    """A task, and what is asked for it: names are separated by commas."""

    task: Count = None
    max_iter: Count = None
    functions: Words = None
    contributors: Words = None
    by: Words = None
    higher: Optional[bool] = None
    top: Few = None


class SolverForm(TaskQuery):
    """A solver: each text by itself or in a file, and what the data is like."""

    solver: str = ""
    net: str = ""
    test_net: str = ""
    data: Count = None
    name: Words = None
    channels: Count = None
    height: Count = None
    width: Count = None
    classes: Count = None
    train_samples: Count = None
    test_samples: Count = None
    head: Words = None
    solver_file: Optional[UploadFile] = None
    net_file: Optional[UploadFile] = None
    test_net_file: Optional[UploadFile] = None


@router.get("/recommend")
def recommend(request: Request, query: Annotated[TaskQuery, Query()]) -> Response:
    if query.task is None:
        return _shown(request, query, None)
    training = training_of(database(request), known_task(request, query.task))
    return _shown(request, query, advise(database(request), training, _wishes(query)))


@router.post("/recommend")
def recommend_sent(
    request: Request, form: Annotated[SolverForm, Form(media_type="multipart/form-data")]
) -> Response:
    """Nothing is kept: the page that answers shows the texts again."""
    texts = {
        "solver": _text(request, "solver", form.solver, form.solver_file),
        "net": _text(request, "net", form.net, form.net_file),
        "test_net": _text(request, "test_net", form.test_net, form.test_net_file),
    }
    form = form.model_copy(
        update={name: (text or b"").decode("utf-8", "replace") for name, text in texts.items()}
    )
    try:
        if not texts["solver"]:
            raise InputError("solver: is missing; allowed: a file, or its text")
        data = _data(request, form)
        sent = SolverTexts(texts["solver"], texts["net"], texts["test_net"])
        training = sent_training(request, sent, data, form.max_iter, form.head)
        advice = advise(database(request), training, _wishes(form))
    except (InputError, PolicyError) as error:  # what was filled in is kept
        return _shown(request, form, None, error)
    return _shown(request, form, advice)


def _text(request: Request, name: str, pasted: str, file: UploadFile | None) -> bytes | None:
    """The text of a file or, without one, of the field to paste it into; None for neither."""
    settings: WebSettings = request.app.state.settings
    most = settings.solver_mib * MIB
    if file is None or not file.filename:
        text = pasted.encode("utf-8", "replace") if pasted.strip() else None
    else:
        text = file.file.read(most + 1)
    if len(text or b"") > most:
        raise Refused(413, f"{name}: more than {settings.solver_mib} MiB")
    return text


def _data(request: Request, form: SolverForm) -> Dataset:
    if form.data is not None:
        return known_data(request, form.data)
    if not (form.channels and form.height and form.width):
        raise InputError(
            "data: is missing; allowed: a data set of the list, or channels, height and width"
        )
    names = (
        "channels",
        "height",
        "width",
        "classes",
        "train_samples",
        "test_samples",
    )
    return Dataset(form.name or "unknown", **{name: getattr(form, name) for name in names})


def _wishes(query: TaskQuery) -> Wishes:
    return Wishes(
        max_iter=query.max_iter,
        functions=_names(query.functions),
        contributors=_names(query.contributors),
        by=query.by,
        higher=query.higher,
        top=query.top,
    )


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def _shown(
    request: Request, query: TaskQuery, advice: Advice | None, problem: Exception | None = None
) -> Response:
    tasks = all_tasks(request)
    form = query if isinstance(query, SolverForm) else SolverForm(**query.model_dump())
    values: dict[str, Any] = {
        "title": f"Policies for {advice.wanted.task.title}" if advice else "Recommend",
        "query": form,
        "advice": advice,
        "problem": str(problem) if problem else None,
        "tasks": tasks[:CHOICES],
        "datasets": _datasets(tasks)[:CHOICES],
        "contributors": database(request).contributors()[:CHOICES],
        "mib": request.app.state.settings.solver_mib,
        "sent": bool(form.solver) or problem is not None,
    }
    if advice:
        policies = [p.policy.bind(advice.max_iter) for p in advice.recommendation.proposals]
        values["chart"] = policies_chart(policies, advice.max_iter)
        words = [("policy", str(policy)) for policy in policies]
        values["playground"] = urlencode([*words, ("max_iter", advice.max_iter)])
    return page(request, "recommend.html", values, 400 if problem else 200)


def _datasets(tasks: list[Task]) -> list[tuple[int, Dataset]]:
    """Each data set, with the number of the first task that has it."""
    first: dict[Dataset, int] = {}
    for task in tasks:
        first.setdefault(task.dataset, task.id or 0)
    return [(number, data) for data, number in first.items()]
