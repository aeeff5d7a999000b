"""LRBench from Python: what the commands do, with keyword arguments and results as objects.

>>> from lrbench_caffe import api
>>> run = api.train("solver.prototxt", policy="sin2", seed=1)  # doctest: +SKIP
>>> run.best.top1  # doctest: +SKIP
97.4

Nothing is printed. In a notebook a training shows its progress, and a result its picture. A
parameter that is not allowed raises ``errors.ParameterError``, a failed training
``errors.TrainingError``; both are ``errors.LRBenchError``. A policy that cannot be understood raises
``lr.PolicyError``, which is a ValueError.
"""

from __future__ import annotations

import base64
import functools
import html
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lrbench_caffe.database.urls import scrub_text
from lrbench_caffe.errors import InputError, ParameterError, did_you_mean
from lrbench_caffe.knowledge import selection
from lrbench_caffe.knowledge.criteria import CRITERIA
from lrbench_caffe.knowledge.evidence import Proposal, Wanted
from lrbench_caffe.knowledge.exporting import ranking_rows
from lrbench_caffe.knowledge.ranking import Ranked
from lrbench_caffe.knowledge.recommendation import Recommendation
from lrbench_caffe.knowledge.selection import Query
from lrbench_caffe.lr import Policy
from lrbench_caffe.lr.defaults import FLAGS as PARAMETERS
from lrbench_caffe.metrics import TOP1, Measurement, best, of_first_net
from lrbench_caffe.parameters import TERMINAL_NAMES, python_value
from lrbench_caffe.progress import Progress
from lrbench_caffe.prototxt.task import solver_task
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.runs.runjson import recorded_text, task_title
from lrbench_caffe.tabular import Rows, records_of
from lrbench_caffe.training.observer import Observer
from lrbench_caffe.training.preparing import prepare
from lrbench_caffe.training.request import TrainingRequest
from lrbench_caffe.training.running import begin
from lrbench_caffe.training.settings import RunSettings
from lrbench_caffe.training.signals import Signals
from lrbench_caffe.tuning.observer import TuningObserver
from lrbench_caffe.tuning.request import RangeRequest, TuningRequest

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from lrbench_caffe.tuning.running import RangeTest, Tuning

__all__ = [
    "Range",
    "Ranking",
    "Recommendations",
    "Run",
    "TunedPolicy",
    "find_range",
    "rank",
    "read_run",
    "recommend",
    "runs_figure",
    "schedule_figure",
    "train",
    "tune",
]

AnyRequest = TypeVar("AnyRequest", RangeRequest, TuningRequest)


class _Shown(ABC):
    """A result that a notebook shows as its picture."""

    @abstractmethod
    def figure(self) -> Figure: ...

    def _repr_html_(self) -> str:
        figure: Any = self.figure()
        data = base64.b64encode(figure._repr_png_()).decode()
        return f'<img alt="{html.escape(str(self))}" src="data:image/png;base64,{data}"/>'


# -- training --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run(_Shown):
    """A training, as its run directory has it.

    Attributes:
        path: the run directory.
        title: data set and net.
        policy: the LR policy, to the last digit; the solver's own as it is written there.
        seed, max_iter, iteration: iterations; ``iteration`` is the one reached.
        status, reason: "finished", "stopped", "diverged", "failed" or "running"; why, unless it
            finished.
        measurements: the tests of all test nets, by iteration.
        notes: what the command would have printed: where the policy comes from, what was unusual.
    """

    path: Path
    title: str
    policy: str
    seed: int | None
    max_iter: int
    iteration: int
    status: str
    reason: str | None
    measurements: tuple[Measurement, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        top = self.best
        at = f": {TOP1.text(top.top1)} at {top.iteration}" if top and top.top1 is not None else ""
        return f"{self.policy}, {self.status} at {self.iteration}{at}"

    @property
    def best(self) -> Measurement | None:
        """The test with the first highest Top-1 or, of a net that does not classify, lowest test loss."""
        return best(of_first_net(self.measurements))

    def iterations(self) -> pandas.DataFrame:
        """Learning rate and training loss of every iteration; needs pandas."""
        names = ("iteration", "lr", "loss")
        return (
            _pandas()
            .DataFrame(RunDirectory(self.path).iterations(), columns=names)
            .astype({"iteration": int})
        )

    def to_dataframe(self) -> pandas.DataFrame:
        """A row for each test, a column for each metric and each of the net's own outputs; needs pandas.

        Of an output with the name of a metric, it is the metric.
        """
        rows = []
        for measurement in self.measurements:
            row = asdict(measurement)
            outputs = row.pop("outputs")
            rows.append(row | {name: outputs[name] for name in outputs if name not in row})
        return _pandas().DataFrame(rows)

    def figure(self) -> Figure:
        """Accuracy, loss and learning rate over iterations."""
        from lrbench_caffe.plots import run_figure

        return run_figure(RunDirectory(self.path), self.policy, self.measurements)


def read_run(path: str | Path) -> Run:
    """The training that a run directory has.

    Raises:
        InputError: there is none, or it is damaged.
    """
    run = RunDirectory(_path("path", path))
    record = run.read()
    return Run(
        path=run.path,
        title=task_title(record),
        policy=_policy(record),
        seed=record.get("seed"),
        max_iter=record["max_iter"],
        iteration=record.get("iteration") or 0,
        status=record["status"],
        reason=record.get("reason"),
        measurements=tuple(run.measurements()),
    )


def _policy(record: Mapping[str, Any]) -> str:
    if not record.get("own_policy"):
        return str(record["policy"])
    settings = RunSettings.from_json(record)
    return str(settings.recorded_policy(recorded_text(record)))


def train(
    solver: str | Path | None,
    policy: str | Policy | None = None,
    *,
    on_measurement: Callable[[Measurement], None] | None = None,
    on_iteration: Callable[[int, float, float], None] | None = None,
    progress: bool | None = None,
    **parameters: Any,
) -> Run:
    """Train a solver; the command ``train``.

    An interrupt (Ctrl-C, a notebook's stop button) stops the training with a snapshot: the run's
    status is "stopped", and ``train(solver, resume=True, out=run.path)`` continues it.

    Args:
        solver: the solver.prototxt; None with ``resume`` and ``out``, which name the run.
        policy: an LR function's name, a policy, a composition, the result.json of a tuning, or
            "auto"; None for the solver's lr_policy.
        on_measurement: called with each test's metrics.
        on_iteration: called with iteration, LR and training loss from time to time.
        progress: show the progress in a notebook; None to show it where there is one.
        parameters: ``k0``, ``k1``, ``gamma``, ``p``, ``l`` of the policy, and any attribute of
            ``training.request.TrainingRequest``: ``seed``, ``max_iter``, ``out``, ...

    Raises:
        InputError: what was asked for cannot be trained.
        TrainingError: Caffe died or hung. A loss that diverges raises nothing: see ``Run.status``.
    """
    notes: list[str] = []
    say = _without_passwords(notes.append)
    callbacks = _Callbacks(on_measurement, on_iteration, say)
    shown = _shows_progress(progress)
    request = _training_request(solver, policy, parameters)
    prepared = prepare(request, Progress(say))
    observers: list[Observer] = [callbacks]
    with begin(prepared, say) as session, ExitStack() as stack:
        if shown:
            from lrbench_caffe.terminal.notebook import NotebookProgress

            observers.append(stack.enter_context(NotebookProgress(session.settings.max_iter)))
        if not request.no_database and session.settings.trains:
            from lrbench_caffe.training.recorder import Recorder

            observers.append(Recorder(request.database, session.run, session.describe, say))
        for note in session.notes:
            say(note)
        session.train(
            observers,
            Signals(),
            hang_seconds=request.hang_seconds,
            checkpoint_seconds=60 * request.checkpoint_minutes,
        )
        run = read_run(session.run.path)
    return replace(run, notes=tuple(notes))


def _training_request(
    solver: str | Path | None, policy: str | Policy | None, parameters: Mapping[str, Any]
) -> TrainingRequest:
    given = {name: _policy_value(parameters.get(name)) for name in PARAMETERS}
    others = _plain({name: value for name, value in parameters.items() if name not in PARAMETERS})
    _check_names(TrainingRequest, others)
    if others.get("preview"):
        raise ParameterError("{preview}: not here; allowed: schedule_figure draws a schedule")
    policy_text = None if policy is None else str(policy)
    return TrainingRequest(_solver_path(solver), policy_text, given, **others)


def _policy_value(value: Any) -> str | None:
    """A policy's parameter as text: a list of iterations in brackets, anything else as it prints."""
    values = python_value(value)
    if isinstance(values, Iterable) and not isinstance(values, (str, bytes)):
        return f"[{', '.join(str(python_value(one)) for one in values)}]"
    return None if value is None else str(value)


_TEXTS = ("snapshot", "weights", "caffe_python", "database", "functions", "by", "gpus")
_NUMBERED = ("gpu", "gpus", "task", "budget")  # text that may be a whole number


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as requests have them: paths and lists of names as text, a directory as a path."""
    plain = {name: python_value(value) for name, value in parameters.items()}
    for name in _TEXTS:
        value = plain.get(name)
        if isinstance(value, os.PathLike):
            plain[name] = os.fspath(value)
        elif isinstance(value, (list, tuple)):
            plain[name] = ",".join(map(str, value))
    for name in _NUMBERED:
        value = plain.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            plain[name] = str(value)
    for name in ("out", "branch"):
        if plain.get(name) is not None:
            plain[name] = _path(name, plain[name])
    return plain


def _check_names(kind: type, parameters: Mapping[str, Any], *others: str) -> None:
    """Raise a TypeError for a parameter that a request does not have, as Python does for a call.

    Args:
        others: parameters of the function that are not the request's.
    """
    known = [*(item.name for item in fields(kind)), *others]
    at_terminal = {TERMINAL_NAMES.get(name, name): name for name in known}
    for name in parameters:
        if name not in known:
            meant = at_terminal.get(name)
            hint = f"; did you mean {meant!r}?" if meant else did_you_mean(name, known)
            raise TypeError(f"unexpected keyword argument {name!r}{hint}")


def _names(value: Any, lower: bool = True) -> Any:
    """Names that were given as a list, or as text with commas; the request refuses anything else."""
    names = python_value("" if value is None else value)
    if isinstance(names, str):
        names = names.split(",")
    if isinstance(names, Mapping) or not isinstance(names, Iterable):
        return names
    plain = [name.strip() if isinstance(name, str) else name for name in names]
    if lower:
        plain = [name.lower() if isinstance(name, str) else name for name in plain]
    return tuple(name for name in plain if name != "")


def _path(name: str, value: Any) -> Path:
    if not isinstance(value, (str, os.PathLike)) or "\0" in str(value):
        raise ParameterError("{" + name + "}: {0!r}; allowed: a path", value)
    return Path(value)


def _solver_path(value: Any) -> Path | None:
    return None if value is None else _path("solver", value)


def _database_url(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, (str, os.PathLike)) or "\0" in str(value):
        raise ParameterError("{database}: {0!r}; allowed: a URL or a file", value)
    return str(value)


def _check_callback(name: str, value: Any) -> None:
    if value is not None and not callable(value):
        raise ParameterError("{" + name + "}: {0!r}; allowed: a function", value)


def _without_passwords(hand_over: Callable[[str], object]) -> Callable[[str], None]:
    """Hands lines over as a command prints them: without the passwords that URLs in them have."""

    def say(text: str) -> None:
        hand_over(scrub_text(text))

    return say


@dataclass
class _Callbacks(Observer):
    """Passes a training's events to callbacks."""

    on_measurement: Callable[[Measurement], None] | None
    on_iteration: Callable[[int, float, float], None] | None
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        _check_callback("on_measurement", self.on_measurement)
        _check_callback("on_iteration", self.on_iteration)

    def trained(self, iteration: int, lr: float, loss: float) -> None:
        if self.on_iteration:
            self.on_iteration(iteration, lr, loss)

    def tested(self, measurements: list[Measurement]) -> None:
        if self.on_measurement:
            for measurement in measurements:
                self.on_measurement(measurement)

    def note(self, text: str) -> None:
        self.say(text)


# -- range test and tuning -------------------------------------------------------------------------


@dataclass(frozen=True)
class Range(_Shown):
    """A range of good learning rates.

    Attributes:
        low, high: its ends.
        best: the best constant LR.
        rule: how it was found, in words.
        policies: a policy of each LR function to begin with.
        iterations: that the test took, with those of earlier calls.
        path: range.json, which has all of this.
    """

    low: float
    high: float
    best: float
    rule: str
    policies: Mapping[str, Policy]
    iterations: int
    path: Path
    _figure: Callable[[], Figure] = field(repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}, best constant LR {self.best:g}"

    def figure(self) -> Figure:
        """Top-1 (or what was compared by) over the LR, or for a ramp the loss over it."""
        return self._figure()


def find_range(
    solver: str | Path, *, on_note: Callable[[str], None] | None = None, **parameters: Any
) -> Range:
    """Find the range of good LRs of a solver; the command ``range``.

    Existing results are reused.

    Args:
        solver: the solver.prototxt.
        on_note: called with each message for the user during the test.
        parameters: any attribute of ``tuning.request.RangeRequest``: ``form``, ``iterations``,
            ``jobs``, ...

    Raises:
        InputError: the solver or a parameter is wrong.
        TrainingError: a training was lost for good; the same call tries it again.
    """
    from lrbench_caffe.tuning import running

    watch = _StudyNotes(on_note)
    test: RangeTest = running.find_range(
        _study_request(RangeRequest, solver, parameters), watch, Progress(watch.say)
    )
    test.study.check_losses()
    assert test.good is not None and test.figure is not None  # as nothing was lost
    good, iterations = test.good, test.study.iterations
    return Range(
        good.low, good.high, good.best, test.rule, test.policies, iterations, test.file, test.figure
    )


@dataclass(frozen=True)
class TunedPolicy(_Shown):
    """The policy that a tuning recommends.

    Attributes:
        policy: the recommended policy; None where none is better than the solver's own beyond
            noise.
        best: the best finalist.
        verdict: the comparison with the solver's own policy, in words.
        details: result.json: the finalists' metrics, the range, what was spent.
        path: the report, with result.json and tuning.png beside it.
    """

    policy: Policy | None
    best: Policy
    verdict: str
    details: Mapping[str, Any] = field(repr=False)
    path: Path
    _figure: Callable[[], Figure] = field(repr=False, compare=False)

    def __str__(self) -> str:
        return self.verdict

    def to_dataframe(self) -> pandas.DataFrame:
        """A row for each finalist, the best first; needs pandas."""
        return _pandas().DataFrame(self.details["finalists"])

    def figure(self) -> Figure:
        """Top-1, or what was compared by, over iterations of all trainings, the finalists in colour."""
        return self._figure()


def tune(
    solver: str | Path, *, on_note: Callable[[str], None] | None = None, **parameters: Any
) -> TunedPolicy:
    """Find a good LR policy for a solver; the command ``tune``.

    Interrupted or killed at any time, the same call continues.

    Args:
        solver: the solver.prototxt.
        on_note: called with each message for the user during the tuning.
        parameters: any attribute of ``tuning.request.TuningRequest``: ``functions``, ``budget``,
            ``by``, ``weights``, ...

    Raises:
        InputError: the solver or a parameter is wrong.
        TrainingError: nothing could be trained, or a training was lost for good, so that another
            decision is possible; the same call tries it again.
    """
    from lrbench_caffe.tuning import report, running

    watch = _StudyNotes(on_note)
    request = _study_request(TuningRequest, solver, parameters)
    prepared = running.prepare_tuning(request, Progress(watch.say))
    tuning: Tuning = running.carry_out(prepared, watch)
    study, outcome, verdict = tuning.study, tuning.outcome, tuning.verdict
    study.check_losses()
    title = prepared.wanted.task.title
    return TunedPolicy(
        policy=verdict.policy,
        best=verdict.best,
        verdict=verdict.text,
        details=report.result(study, outcome, verdict),
        path=tuning.report,
        _figure=lambda: report.study_figure(title, study, outcome),
    )


def _study_request(
    kind: type[AnyRequest], solver: str | Path, parameters: Mapping[str, Any]
) -> AnyRequest:
    plain = _plain(parameters)
    first = plain.get("try_first")
    if isinstance(first, (list, tuple)):
        plain["try_first"] = [str(one) if isinstance(one, Policy) else one for one in first]
    earlier = plain.get("reuse")
    if earlier is not None:
        listed = earlier if isinstance(earlier, (list, tuple)) else [earlier]
        plain["reuse"] = [_path("reuse", one) for one in listed]
    _check_names(kind, plain)
    return kind(_path("solver", solver), **plain)


class _StudyNotes(TuningObserver):
    """Passes a study's messages to a callback."""

    def __init__(self, on_note: Callable[[str], None] | None) -> None:
        _check_callback("on_note", on_note)
        self._hand_over = _without_passwords(on_note) if on_note else None

    def say(self, text: str) -> None:
        if self._hand_over:
            self._hand_over(text)

    warn = say


# -- what the database knows -----------------------------------------------------------------------


@dataclass(frozen=True)
class Ranking(_Shown):
    """The policies of a task, in order.

    Attributes:
        title: the task and the order.
        policies: the best of each start first; each has its place and its ``candidate.summary``.
    """

    title: str
    policies: tuple[Ranked, ...]
    _selection: selection.Selection = field(repr=False, compare=False)

    def __str__(self) -> str:
        return self.title

    def rows(self) -> Rows:
        """A row for each policy, a column for each number; the first row is the heading."""
        shown = [
            c
            for name, c in CRITERIA.items()
            if name != "target" or c in self._selection.order.asked
        ]
        own = [c for c in self._selection.order.asked if c not in shown]
        return ranking_rows(self.policies, [*shown, *own])

    def to_dataframe(self) -> pandas.DataFrame:
        """The same as a data frame; needs pandas."""
        return _pandas().DataFrame(records_of(self.rows()))

    def figure(self) -> Figure:
        """The ranking as a picture."""
        from lrbench_caffe.plots import table_figure

        order = self._selection.order
        return table_figure(self.title, self._selection.ranked, order.cost, order.utility)

    def pareto_figure(self) -> Figure:
        """Top-1 over cost of all policies of the first start, with the Pareto front."""
        from lrbench_caffe.plots import front_figure

        return front_figure(self._selection)


def rank(
    solver: str | Path | None = None, *, database: str | Path | None = None, **parameters: Any
) -> Ranking:
    """Rank the policies of a task; the command ``rank``.

    Args:
        solver: the task is what this solver trains; or give ``task``.
        database: the LR database's URL, or a SQLite file; None for the default one.
        parameters: any attribute of ``knowledge.selection.Query``: ``task``, ``by``, ``functions``,
            ...

    Raises:
        InputError: a parameter is wrong, or the database has no such task or no result of it.
        DatabaseError: the database is out of reach.
    """
    from lrbench_caffe.database import Database

    asked = _plain(parameters)
    for name in ("functions", "sources", "starts"):
        if name in asked:
            asked[name] = _names(asked[name])
    if isinstance(asked.get("weights"), Mapping):
        asked["weights"] = ",".join(f"{name}={value}" for name, value in asked["weights"].items())
    _check_names(Query, asked, "database")
    query = Query(solver=_solver_path(solver), **asked)
    wanted = solver_task(query.solver, query.caffe_python, query.head)
    with Database.open(_database_url(database), must_exist=database is not None) as opened:
        selected = selection.select_ranked(query, opened, wanted, everything=True)
    return Ranking(selected.title, tuple(selected.ranked), selected)


@dataclass(frozen=True, repr=False)
class Recommendations(_Shown):
    """Policies for a training, the most promising first.

    Attributes:
        wanted: what is to be trained, and what it begins with.
        proposals: each has ``policy``, ``expected`` (None where nothing is promised) and
            ``evidence``.
        remarks: what a person should know.
        recommendation: all that was found.
        max_iter: iterations of the training.
    """

    wanted: Wanted
    proposals: tuple[Proposal, ...]
    remarks: tuple[str, ...]
    recommendation: Recommendation
    max_iter: int

    def __repr__(self) -> str:
        policies = ", ".join(f"{policy:.7g}" for policy in self.policies)
        return f"Recommendations({self.wanted.task.title}: {policies or 'none'})"

    def __str__(self) -> str:
        lines = [f"{self.wanted.task.title}, {self.max_iter} iterations", *self.remarks]
        for place, proposal in enumerate(self.proposals, 1):
            lines.append(f"{place}. {proposal.policy:.7g}")
            lines += [f"   {line}" for line in proposal.evidence]
        return "\n".join(lines if self.proposals else [*lines, "nothing to propose"])

    def _repr_html_(self) -> str:
        text = f"<pre>{html.escape(str(self))}</pre>"
        return text + super()._repr_html_() if self.proposals else text

    def figure(self) -> Figure:
        """The learning rates of the proposed policies over iterations.

        Raises:
            InputError: nothing is proposed.
        """
        from lrbench_caffe.plots import LONGEST

        if not self.proposals:
            raise InputError(f"{self.wanted.task.title}: nothing to propose, so nothing to draw")
        return schedule_figure(*self.policies, max_iter=min(self.max_iter, LONGEST) or None)

    @property
    def policies(self) -> list[Policy]:
        return [proposal.policy for proposal in self.proposals]

    def to_dataframe(self) -> pandas.DataFrame:
        """A row for each proposal; needs pandas."""
        rows = [
            {
                "policy": str(one.policy),
                "expected": one.expected.mean if one.expected else None,
                "iterations": one.iterations,
                "evidence": "; ".join(one.evidence),
            }
            for one in self.proposals
        ]
        return _pandas().DataFrame(rows, columns=["policy", "expected", "iterations", "evidence"])


def recommend(
    solver: str | Path, *, database: str | Path | None = None, **parameters: Any
) -> Recommendations:
    """Propose policies for a solver from what the LR database knows; the command ``recommend``.

    Args:
        solver: the solver.prototxt.
        database: the LR database's URL, or a SQLite file; None for the default one.
        parameters: any attribute of ``training.recommending.RecommendationRequest``: ``max_iter``,
            ``functions``, ``contributors``, ``top``, ...

    Raises:
        InputError: a parameter is wrong.
        DatabaseError: the database is out of reach.
    """
    from lrbench_caffe.database import Database
    from lrbench_caffe.training.recommending import RecommendationRequest, carry_out

    asked = _plain(parameters)
    if "functions" in asked:
        asked["functions"] = _names(asked["functions"])
    if "contributors" in asked:
        asked["contributors"] = _names(asked["contributors"], lower=False)
    _check_names(RecommendationRequest, asked, "database")
    request = RecommendationRequest(_path("solver", solver), **asked)
    url = _database_url(database)
    opened = functools.partial(Database.open, url, must_exist=database is not None)
    made = carry_out(request, opened)
    recommendation = made.recommendation
    return Recommendations(
        made.wanted,
        recommendation.proposals,
        made.remarks,
        recommendation,
        made.max_iter,
    )


# -- pictures --------------------------------------------------------------------------------------


def schedule_figure(
    *policies: str | Policy, max_iter: int | None = None, log: bool = False
) -> Figure:
    """The learning rate of policies over iterations; the command ``plot schedule``.

    Args:
        max_iter: number of iterations; None chooses a length that shows the policies' shape.
        log: a log axis for the learning rate.

    Raises:
        ParameterError: there is no policy, or ``max_iter`` is not allowed.
        PolicyError: a policy cannot be understood.
    """
    from lrbench_caffe import plots
    from lrbench_caffe.lr import parse

    if not policies:
        raise ParameterError("{policies}: none; allowed: one or more")
    for policy in policies:
        if not isinstance(policy, (str, Policy)):
            raise ParameterError("{policies}: {0!r}; allowed: policies, or their text", policy)
    read = [parse(policy) if isinstance(policy, str) else policy for policy in policies]
    length = python_value(max_iter)
    if length is None:
        length = plots.natural_length(read)
    elif type(length) is not int or not 1 <= length <= plots.LONGEST:
        raise ParameterError("{max_iter}: {0!r}; allowed: 1 to {1}", length, plots.LONGEST)
    return plots.schedule_figure([policy.bind(length) for policy in read], length, log=log)


def runs_figure(
    *runs: Run | str | Path, by: str | None = None, higher: bool | None = None
) -> Figure:
    """Accuracy, loss and learning rate of trainings in one picture; the command ``plot runs``.

    Args:
        runs: trainings or run directories; they may be in progress.
        by: a metric, or an output of the test net, to show rather than the accuracy.
        higher: whether more of it is better; None to take it from its name.

    Raises:
        InputError: one is not there or damaged, or nothing was measured yet in any of them.
    """
    from lrbench_caffe import plots
    from lrbench_caffe.plots.curves import compared, distinct, read_curves, title_of, told_apart

    if not runs:
        raise ParameterError("{runs}: none; allowed: one or more")
    if by is not None and not isinstance(by, str):
        raise ParameterError("{by}: {0!r}; allowed: text", by)
    higher = python_value(higher)
    if higher is not None and not isinstance(higher, bool):
        raise ParameterError("{higher}: {0!r}; allowed: True or False", higher)
    folders = distinct([run.path if isinstance(run, Run) else _path("runs", run) for run in runs])
    curves = [read_curves(folder) for folder in folders]
    if all(run.empty for run in curves):
        raise InputError(f"{folders[0]}: nothing was measured yet")
    return plots.runs_figure(
        title_of(folders), told_apart(curves, folders), compared(curves, by, higher)
    )


def _pandas() -> Any:
    import pandas

    return pandas


def _shows_progress(asked: bool | None) -> bool:
    """Whether a training's progress is shown, where it was asked for or not.

    Raises:
        ParameterError: it was asked for, and there is no notebook to show it in.
    """
    if asked and not _in_notebook():
        raise ParameterError(
            "{progress}: {0!r}; allowed: only in a notebook; elsewhere use {on_iteration}", asked
        )
    return _in_notebook() if asked is None else bool(asked)


def _in_notebook() -> bool:
    """Whether this runs in a Jupyter kernel; IPython is not loaded for that."""
    import sys

    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module else None
    # Other notebooks, such as Colab, have a shell that is derived from Jupyter's.
    return any(kind.__name__ == "ZMQInteractiveShell" for kind in type(shell).__mro__)
