"""Recommendations on the platform: for a task of the database, or for a solver that somebody sends.

Nothing is trained, and nothing of what is sent is executed or opened (see ``reading``).
"""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Optional

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from lrbench_caffe.database.ranges import INT32
from lrbench_caffe.database.store import Database
from lrbench_caffe.errors import InputError
from lrbench_caffe.knowledge.contributors import results_of
from lrbench_caffe.knowledge.evidence import Proposal, Wanted
from lrbench_caffe.knowledge.exporting import recommendation_json
from lrbench_caffe.knowledge.proposing import recommend, usual_top
from lrbench_caffe.knowledge.recommendation import Recommendation
from lrbench_caffe.knowledge.utility import classifies
from lrbench_caffe.prototxt.uploads import SolverTexts, ToldTraining
from lrbench_caffe.records import SCRATCH, Dataset, Task
from lrbench_caffe.web.api import LONGEST, Number, database, known_task, only_known
from lrbench_caffe.web.errors import FAILURES, Refused
from lrbench_caffe.web.reading import read_training
from lrbench_caffe.web.security import needs
from lrbench_caffe.web.settings import MIB, WebSettings

router = APIRouter(prefix="/api/v1", responses=FAILURES, dependencies=[Depends(only_known)])
ASK = Depends(needs("read", changes=False))
MOST = 20  # proposals
Count = Annotated[Optional[int], Field(ge=1, le=INT32)]
Name = Annotated[str, Field(max_length=LONGEST)]
Names = Annotated[list[Name], Field(max_length=50)]


@dataclass(frozen=True)
class Wishes:
    """What is asked for besides the training: the flags of ``recommend``.

    Attributes:
        max_iter: iterations of the training; None for the solver's, or those of the task's best one.
        functions, contributors, by, higher, top: as for ``recommend``.
    """

    max_iter: int | None = None
    functions: tuple[str, ...] = ()
    contributors: tuple[str, ...] = ()
    by: str | None = None
    higher: bool | None = None
    top: int | None = None


@dataclass(frozen=True)
class Advice:
    """A recommendation with what it is for."""

    training: ToldTraining
    wishes: Wishes
    wanted: Wanted
    recommendation: Recommendation

    @property
    def max_iter(self) -> int:
        return self.wishes.max_iter or self.training.max_iter

    def command(self, proposal: Proposal) -> str:
        """The command that trains with a proposal, where the solver is."""
        length = f" --max-iter {self.wishes.max_iter}" if self.wishes.max_iter else ""
        return (
            f"lrbench-caffe train solver.prototxt{length} --lr {shlex.quote(str(proposal.policy))}"
        )

    def to_json(self) -> dict[str, Any]:
        told = recommendation_json(self.wanted, self.recommendation, self.max_iter)
        for row, proposal in zip(told["proposals"], self.recommendation.proposals):
            row["command"] = self.command(proposal)
        return {
            **told,
            "known": self.recommendation.known,
            "remarks": list(self.recommendation.remarks),
            "epoch": self.training.epoch,
            "solver": asdict(self.training.solver),
            "described": asdict(self.training.task),
            "notes": list(self.training.notes),
        }


def advise(known: Database, training: ToldTraining, wishes: Wishes) -> Advice:
    """What the database recommends for a training.

    Raises:
        InputError: a wish cannot be granted.
    """
    recommendation = recommend(
        results_of(known, wishes.contributors),
        training.task,
        start=training.start,
        solver=training.solver,
        max_iter=wishes.max_iter or training.max_iter,
        epoch=training.epoch,
        functions=wishes.functions or None,
        by=wishes.by,
        higher=wishes.higher,
        top=wishes.top or usual_top(wishes.functions),
    )
    return Advice(training, wishes, Wanted(training.task, training.start), recommendation)


def training_of(known: Database, task: Task) -> ToldTraining:
    """A training of a task with the settings of the best one there, from scratch if there is one.

    Raises:
        Refused: none has ended.
    """
    order = "top1" if classifies(task) else "test_loss"
    number = task.id or 0
    best = known.summaries(number, start=SCRATCH, order_by=order, limit=1) or known.summaries(
        number, order_by=order, limit=1
    )
    if not best:
        raise Refused(404, f"task {number}: no training of it has ended")
    result = best[0]
    return ToldTraining(task, result.start, result.solver, result.max_iter, result.epoch)


def sent_training(
    request: Request, texts: SolverTexts, data: Dataset, max_iter: int | None, head: str | None
) -> ToldTraining:
    """The training of a solver that was sent.

    Raises:
        InputError: it is wrong.
        Refused: it is too large, or others are being read.
    """
    settings: WebSettings = request.app.state.settings
    for name, text in vars(texts).items():
        if len(text or b"") > settings.solver_mib * MIB:
            raise Refused(413, f"{name}: more than {settings.solver_mib} MiB")
    return read_training(texts, data, max_iter, head)


def known_data(request: Request, number: int) -> Dataset:
    """The data set of a task."""
    return known_task(request, number).dataset


# -- the API ---------------------------------------------------------------------------------------


class DataForm(BaseModel):
    """What the data layers give the net, after their crop; what is left out is not known."""

    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, Field(min_length=1, max_length=200)] = "unknown"
    channels: Count = None
    height: Count = None
    width: Count = None
    classes: Count = None
    train_samples: Count = None
    test_samples: Count = None

    def dataset(self) -> Dataset:
        return Dataset(**self.model_dump())


class RecommendationQuery(BaseModel):
    """A task of the database, or a solver with its net and what its data is like.

    Attributes:
        task: the task's number, instead of all about a solver.
        solver, net, test_net: prototxt: the solver, the net that it names, and its test_net where
            that is another one.
        data: the number of a task with the same data set; or ``form``, what it is like.
        head: the scores that Top-1 is of; None for the main ones.
        max_iter, functions, contributors, by, higher, top: as for ``recommend``; a contributor "own"
            means runs that were never uploaded, "paper" the paper's results.
    """

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"task": 1, "functions": ["SIN2"]}]}
    )
    task: Optional[Number] = None
    solver: Optional[str] = None
    net: Optional[str] = None
    test_net: Optional[str] = None
    data: Optional[Number] = None
    form: Optional[DataForm] = None
    head: Optional[Name] = None
    max_iter: Count = None
    functions: Names = []
    contributors: Names = []
    by: Optional[Name] = None
    higher: Optional[bool] = None
    top: Annotated[Optional[int], Field(ge=1, le=MOST)] = None

    def wishes(self) -> Wishes:
        names = ("max_iter", "by", "higher", "top")
        return Wishes(
            functions=tuple(self.functions),
            contributors=tuple(self.contributors),
            **{name: getattr(self, name) for name in names},
        )


@router.post(
    "/recommendations", tags=["policies"], dependencies=[ASK], summary="Policies for a training."
)
def recommendations(request: Request, query: RecommendationQuery) -> dict[str, Any]:
    """What the command ``recommend`` gives as JSON, for a task of the database or for a solver and its net.

    Nothing is trained, and no file that the texts name is opened.
    """
    wishes = query.wishes()
    return advise(database(request), _training(request, query), wishes).to_json()


def _training(request: Request, query: RecommendationQuery) -> ToldTraining:
    sent = ("solver", "net", "test_net", "data", "form", "head")
    if query.task is not None:
        others = [name for name in sent if getattr(query, name) is not None]
        if others:
            raise InputError(f"task: {query.task}; allowed: without {', '.join(others)}")
        return training_of(database(request), known_task(request, query.task))
    if query.solver is None:
        raise InputError("solver: is missing; allowed: a solver's text, or the number of a task")
    if (query.data is None) == (query.form is None):
        given = "none" if query.data is None else "both"
        raise InputError(f"data, form: {given}; allowed: one of them")
    data = query.form.dataset() if query.form else known_data(request, query.data or 0)
    texts = SolverTexts(_bytes(query.solver) or b"", _bytes(query.net), _bytes(query.test_net))
    return sent_training(request, texts, data, query.max_iter, query.head)


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode("utf-8", "replace")
