"""Chooses a policy, or the parameters that were left out, from the LR database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrbench_caffe.database.patience import BESIDE_TRAINING
from lrbench_caffe.errors import LRBenchError, ParameterError, named
from lrbench_caffe.lr import Filled, FunctionPolicy, Policy, PolicyError
from lrbench_caffe.lr.text import read, read_value
from lrbench_caffe.progress import Progress
from lrbench_caffe.prototxt.messages import Messages
from lrbench_caffe.prototxt.patch import check_settable
from lrbench_caffe.prototxt.solver import Solver
from lrbench_caffe.prototxt.task import open_worker, read_with_caffe, solver_settings, task_of
from lrbench_caffe.runtime.locate import CaffePython
from lrbench_caffe.runtime.replies import CaffeInfo
from lrbench_caffe.training.beginning import check_one_start, check_start, find_state
from lrbench_caffe.training.settings import (
    ChosenPolicy,
    Origin,
    RunSettings,
    check_weights,
    choose_policy,
    complete_policy,
)

if TYPE_CHECKING:
    from lrbench_caffe.knowledge.evidence import Proposal, Wanted
    from lrbench_caffe.knowledge.lookup import ResultSource
    from lrbench_caffe.knowledge.recommendation import Recommendation

AUTO = "auto"


def wants_experience(
    text: str | None, flags: Mapping[str, Any], solver: Solver, max_iter: int
) -> bool:
    """Whether the policy is incomplete: "auto", or a function without all its parameters.

    Raises:
        PolicyError: it is not a policy.
    """
    if text is None:
        return False
    if text.strip().lower() == AUTO:
        given = [f"{{{name}}}" for name, value in flags.items() if value is not None]
        if given:
            raise ParameterError(
                f"{', '.join(given)}: {{policy}} auto chooses all parameters; allowed: none of them"
            )
        return True
    filled = complete_policy(text, flags, solver, max_iter).filled
    return any(item.chosen for item in filled)


def open_wanted(
    path: Path,
    *,
    caffe_python: str | None = None,
    head: str | None = None,
    snapshot: str | None = None,
    weights: str | None = None,
    level: int = 0,
    stages: Sequence[str] = (),
    check_data: Progress | None = None,
) -> tuple[Solver, Wanted]:
    """A solver file, and what it would train from which start.

    Args:
        caffe_python, head, snapshot, weights: the values of the flags; weights default to the
            solver's own.
        level, stages: of the training net.
        check_data: as for ``load_solver``.

    Raises:
        InputError: the solver, or what it is to begin with, is wrong, or Caffe does not take it, or
            it takes no LR policy on this Caffe; or there is no Caffe.
    """
    check_one_start(snapshot, weights)
    solver, info, python, messages = read_with_caffe(
        path, caffe_python, level=level, stages=stages, head=head, check_data=check_data
    )
    check_settable(solver, info)
    models = [] if snapshot else check_weights(weights, solver, messages)
    return solver, describe_wanted(
        solver, info, python, messages,
        snapshot=snapshot, weights=models, level=level, stages=stages,
    )  # fmt: skip


def describe_wanted(
    solver: Solver,
    info: CaffeInfo,
    python: CaffePython,
    messages: Messages,
    *,
    snapshot: str | None = None,
    weights: Sequence[str] = (),
    gpu: int | None = None,
    level: int = 0,
    stages: Sequence[str] = (),
) -> Wanted:
    """The task of a solver, and its start. Caffe opens it (see task.open_worker).

    Args:
        snapshot, weights: a solver state, or caffemodels, to begin with.
        gpu, level, stages: as for task.describe_task.
    """
    from lrbench_caffe.knowledge.evidence import Wanted

    with open_worker(solver, info, python, level=level, stages=stages) as (_, opened):
        state = find_state(Path(snapshot), messages) if snapshot else None
        models = [Path(name) for name in weights]
        start, _ = check_start(opened.nets, solver.type, messages, state=state, weights=models)
        return Wanted(task_of(solver, info, opened, gpu), start)


def recommend_for(
    database: ResultSource,
    wanted: Wanted,
    solver: Solver,
    max_iter: int,
    *,
    functions: Sequence[str] | None,
    top: int,
    by: str | None = None,
    higher: bool | None = None,
) -> Recommendation:
    """What is recommended for a solver's training (see ``knowledge.proposing.recommend``).

    Args:
        database: what is known.
        wanted: what will be trained, of ``open_wanted``.
        max_iter: iterations of the training.
        functions, top, by, higher: as for ``recommend``.
    """
    from lrbench_caffe.knowledge.proposing import recommend  # most trainings ask no database

    return recommend(
        database,
        wanted.task,
        start=wanted.start,
        solver=solver_settings(solver),
        max_iter=max_iter,
        epoch=solver.epoch,
        functions=functions,
        by=by,
        higher=higher,
        top=top,
    )


def look_up(
    database_url: str | None,
    wanted: Wanted,
    solver: Solver,
    max_iter: int,
    function: str | None,
    *,
    contributors: Sequence[str] = (),
    must_exist: bool = False,
) -> Recommendation:
    """The database's best proposal (of one function), if it has one.

    Args:
        contributors: use only their results (see ``knowledge.contributors.results_of``).
        must_exist: whether a file that is not there is an error, and not a new database.

    Raises:
        DatabaseError: it is out of reach.
        ParameterError: a contributor has no results there.
    """
    from lrbench_caffe.database import Database  # most trainings ask no database
    from lrbench_caffe.knowledge.contributors import results_of

    functions = [function] if function else None
    with Database.open(database_url, patience=BESIDE_TRAINING, must_exist=must_exist) as database:
        known = results_of(database, contributors)
        return recommend_for(known, wanted, solver, max_iter, functions=functions, top=1)


def experienced_policy(
    text: str,
    flags: Mapping[str, Any],
    database_url: str | None,
    wanted: Wanted,
    solver: Solver,
    max_iter: int,
    *,
    contributors: Sequence[str] = (),
    preview: bool = False,
) -> tuple[ChosenPolicy | None, list[str]]:
    """The given policy, completed by experience.

    Args:
        flags: the parameters that were given as flags.
        wanted: what will be trained.
        contributors: use only their results; none for all.
        preview: whether nothing will be trained after all.

    Returns:
        The policy, None where simple rules have to do; and lines for a person that say why.

    Raises:
        LRBenchError: the policy is "auto", and the database knows nothing or is out of reach; or a
            contributor has no results there.
    """
    auto = text.strip().lower() == AUTO
    function = None if auto else read(text)[0].call.name.upper()
    try:
        must_exist = preview and database_url is not None
        recommendation = look_up(
            database_url,
            wanted,
            solver,
            max_iter,
            function,
            contributors=contributors,
            must_exist=must_exist,
        )
    except ParameterError:
        raise
    except LRBenchError as error:
        if auto:
            raise
        return None, [f"the LR database: {error}; the parameters come from simple rules"]
    remarks = list(recommendation.remarks)
    theirs = f" of {', '.join(contributors)}" if contributors else ""
    if not recommendation.proposals:
        if auto:
            nothing = f"the LR database has nothing{theirs} to propose for this task or from a similar one"
            raise ParameterError("{policy} auto: {0}", "; ".join([nothing, *remarks]))
        why = (
            f"the LR database has no result{theirs} with {function}; "
            "the parameters come from simple rules"
        )
        return None, [*remarks, why]
    proposal = recommendation.proposals[0]
    if auto:
        return ChosenPolicy(proposal.policy, Origin.DATABASE), [*remarks, *proposal.evidence]
    chosen, lines = _with_given(text, flags, proposal)
    return chosen, [*remarks, *lines]


def _with_given(
    text: str, flags: Mapping[str, Any], proposal: Proposal
) -> tuple[ChosenPolicy | None, list[str]]:
    """The proposal with the parameters that were given over its own."""
    call = read(text)[0].call
    given = {**call.arguments, **_values(flags)}
    known = dict(proposal.policy.params)
    try:
        policy = FunctionPolicy(call.name, {**known, **given})
    except PolicyError as error:
        return None, [
            f"the LR database has {proposal.policy:.7g}, but {error}; simple rules instead"
        ]
    filled = tuple(
        Filled(name, value, "the LR database") for name, value in known.items() if name not in given
    )
    if str(policy) != str(proposal.policy):  # then the result there promises nothing for this one
        own = ", ".join(f"{name}={value}" for name, value in given.items())
        proposal = replace(proposal, policy=policy, changes=(*proposal.changes, f"as given: {own}"))
    return ChosenPolicy(policy, Origin.COMPLETED, filled), list(proposal.evidence)


def repeats_policy(
    text: str | None, flags: Mapping[str, Any], settings: RunSettings, solver: Solver
) -> bool:
    """Whether the policy and parameters that a resumed run is given are the policy that it has.

    A function without all its parameters is, where those it has are the run's; so are parameters
    alone. The solver's own lr_policy may be repeated as it is shown, with the solver's decimals.
    """
    policies = (settings.bound_policy(), settings.recorded_policy())
    given = _values(flags)
    if text is None:
        return any(_has(own, given) for own in policies)
    if not wants_experience(text, flags, solver, settings.max_iter):
        asked = str(choose_policy(text, flags, solver, settings.max_iter).policy)
        return asked in map(str, policies)
    if text.strip().lower() == AUTO:
        return True
    call = read(text)[0].call
    given = {**call.arguments, **given}
    return any(call.name.upper() == own.function and _has(own, given) for own in policies)


def _has(policy: Policy, given: Mapping[str, Any]) -> bool:
    values = policy.values if isinstance(policy, FunctionPolicy) else {}
    return all(values.get(name) == value for name, value in given.items())


def _values(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that were given as flags."""
    return {
        name: read_value(str(value), named(name))
        for name, value in flags.items()
        if value is not None
    }
