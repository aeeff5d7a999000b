"""Runs a requested tuning or range test, from its solver to its result."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrbench_caffe.database.urls import resolve_url
from lrbench_caffe.errors import ParameterError, TrainingError
from lrbench_caffe.files import replace_own
from lrbench_caffe.jobs.opening import open_pool, training_flags
from lrbench_caffe.jobs.pool import Pool
from lrbench_caffe.knowledge.evidence import Wanted
from lrbench_caffe.lr import Policy, PolicyError, parse
from lrbench_caffe.plots.files import save
from lrbench_caffe.plots.tuning import ramp_figure
from lrbench_caffe.progress import Progress
from lrbench_caffe.prototxt.solver import Solver, check_length
from lrbench_caffe.records import Task, digest
from lrbench_caffe.runs.opening import bring_in_the_rest
from lrbench_caffe.training.beginning import without_weights
from lrbench_caffe.training.choosing import open_wanted
from lrbench_caffe.training.continuation import fingerprint
from lrbench_caffe.tuning import chooser, folder, ramp
from lrbench_caffe.tuning.also import Combinations
from lrbench_caffe.tuning.folder import study_folder
from lrbench_caffe.tuning.holdout import Holdout, choose_holdout
from lrbench_caffe.tuning.levels import Ladder
from lrbench_caffe.tuning.measure import Measure
from lrbench_caffe.tuning.observer import TuningObserver
from lrbench_caffe.tuning.outer import OuterTuner
from lrbench_caffe.tuning.outer_report import RECOMMENDED, to_judge
from lrbench_caffe.tuning.plan import TuningPlan, test_interval
from lrbench_caffe.tuning.prior import Prior
from lrbench_caffe.tuning.report import ladder_figure, lost_note, write_failure, write_report
from lrbench_caffe.tuning.request import RangeRequest, StudyRequest, TuningRequest
from lrbench_caffe.tuning.reuse import EarlierTrainings
from lrbench_caffe.tuning.side_studies import (
    SideStudies,
    check_batches,
    combinations_of,
    remove_recommended,
    texts,
    write_recommended,
)
from lrbench_caffe.tuning.space import GoodRange, candidates, functions
from lrbench_caffe.tuning.study import Study
from lrbench_caffe.tuning.tuner import Tuner, TuningOutcome, range_length
from lrbench_caffe.tuning.untrained import choose_measure
from lrbench_caffe.tuning.verdict import TuningVerdict, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RAMP_SHARE = 0.15  # of a training: length of a pass
LEAST_RAMP = 50  # iterations of a pass
RANGE_MAY_CHANGE = ("max_iter", "seed", "slots", "split")  # when a range test continues


# -- tuning ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PreparedTuning:
    """A tuning that was checked.

    Attributes:
        request: what was asked for.
        plan: what it comes to for this solver.
        solver, wanted: what is trained, and what it begins with.
        holdout: the records that are held out, None for none.
        combinations: of other settings that are chosen from; None for the solver's own.
        earlier: trainings that are not made again, None for none.
    """

    request: TuningRequest
    plan: TuningPlan
    solver: Solver
    wanted: Wanted
    holdout: Holdout | None = None
    combinations: Combinations | None = None
    earlier: EarlierTrainings | None = None

    @property
    def folder(self) -> Path:
        """The folder of its study."""
        return self.request.out or study_folder("tune", self.solver.path)

    @property
    def own_settings(self) -> str:
        """The solver's own settings, for people; empty where none are chosen."""
        return f"your own {self.combinations.own}" if self.combinations else ""


class NothingTrained(TrainingError):
    """No policy could be trained.

    Attributes:
        result: the result.json that says so.
    """

    def __init__(self, reason: str, result: Path) -> None:
        super().__init__(reason)
        self.result = result


@dataclass(frozen=True)
class Tuning:
    """A tuning that has ended.

    Attributes:
        study: its trainings.
        outcome: what was found.
        verdict: what to train with.
        report: the report's file, with result.json and tuning.png beside it.
    """

    study: Study
    outcome: TuningOutcome
    verdict: TuningVerdict
    report: Path


def prepare_tuning(request: TuningRequest, progress: Progress) -> PreparedTuning:
    """Check what can be checked before the first training.

    Args:
        progress: is told of a check of the data that takes longer.

    Raises:
        InputError: the solver, its data or a parameter cannot be tuned with.
    """
    if not request.no_database:
        resolve_url(request.database)
    if request.also:
        chooser.check_installed()
    solver, wanted = _open(request, progress)
    measure = _measure(request, solver, wanted.task, progress.say)
    plan = _tuning_plan(request, solver, wanted, measure)
    where = request.out or study_folder("tune", solver.path)
    kept = folder.read(where)
    share = folder.kept_holdout(kept)
    holdout, why = choose_holdout(request.holdout, share, solver, request.seed, where)
    if why:
        progress.say(why)
    plan = folder.keeping_chance(replace(plan, holdout=holdout.share if holdout else 0.0), kept)
    combinations = _combinations(request, solver, plan)
    earlier = EarlierTrainings(
        request.reuse, plan, wanted.task, layers=request.layers, gpu=request.gpus is not None
    )
    earlier.look(progress.say)
    return PreparedTuning(request, plan, solver, wanted, holdout, combinations, earlier)


def _combinations(request: TuningRequest, solver: Solver, plan: TuningPlan) -> Combinations | None:
    """The combinations of other settings, checked; None where none are asked for."""
    if not request.also:
        return None
    combinations = combinations_of(solver, request.also)
    with tempfile.TemporaryDirectory(prefix="lrbench-") as scratch:
        check_batches(solver, combinations, plan, request.caffe_python, Path(scratch))
    return combinations if len(combinations) > 1 else None


def _tuning_plan(
    request: TuningRequest, solver: Solver, wanted: Wanted, measure: Measure
) -> TuningPlan:
    _check_target(request, measure)
    max_iter = request.max_iter or solver.message.max_iter
    check_length(solver, max_iter)
    interval = _interval(request, solver, max_iter)
    return replace(
        _plan(request, solver, wanted, measure, max_iter, interval),
        goal=request.goal,
        functions=functions(request.functions),
        seeds=request.seeds,
        top=request.top,
        budget=request.iterations(max_iter),
        target_top1=request.target_top1,
        target=request.target,
        compose=request.compose,
        also=texts(request.also),
        try_first=_to_try(request, max_iter),
        lr_range=tuple(map(float, request.lr_range or ())),
    )


def _to_try(request: TuningRequest, max_iter: int) -> tuple[str, ...]:
    """The policies that are tried first, each once and complete."""
    found = []
    for text in request.try_first:
        try:
            policy = parse(text).bind(max_iter)
        except PolicyError as error:
            raise ParameterError("{try_first}: {0}", error) from error
        if policy.pending:
            raise ParameterError(
                "{try_first}: {0}: a plateau cannot be searched with; allowed: a policy whose LRs are known",
                text,
            )
        found.append(str(policy))
    return tuple(dict.fromkeys(found))


def carry_out(prepared: PreparedTuning, watch: TuningObserver) -> Tuning:
    """Tune. A killed study trains only what is missing.

    Args:
        watch: is told how it goes.

    Raises:
        InputError: the study's directory holds another one; a GPU or scheduler is not there.
        NothingTrained: no policy could be trained; what was lost is reported all the same.
    """
    request, plan = prepared.request, prepared.plan
    where = prepared.folder
    db = "" if request.no_database else resolve_url(request.database)
    with _pool(request, watch) as pool:
        study = _study(
            request, where, plan, pool, watch,
            holdout=prepared.holdout, earlier=prepared.earlier, settings=prepared.own_settings,
        )  # fmt: skip
        asked = None if request.no_database or request.fresh else db
        try:
            outcome = _tuner(prepared, study, asked).tune()
        except TrainingError as error:
            result = write_failure(study, str(error), prepared.wanted.task.title)
            remove_recommended((where / RECOMMENDED).parent)
            for one in study.lost:
                watch.say(f"lost: {one.text}")
            _remove_what_was_for_trainings(study)
            raise NothingTrained(str(error), result) from error
    study.say_if_finished_before()
    if not request.no_database:
        bring_in_the_rest(db, where, watch.say, watch.warn)
    finalists, about_settings = to_judge(study, outcome)
    notes = (about_settings, outcome.why_untried, lost_note(study.lost))
    note = "; ".join(filter(None, notes))
    verdict = judge(plan, finalists, outcome.baseline, note)
    outer = outcome.outer
    remove_recommended((where / RECOMMENDED).parent)  # an earlier command's
    if outer is not None and verdict.policy is not None:
        write_recommended(
            prepared.solver,
            outer.combination_of(verdict.settings),
            verdict.policy,
            outer.plan_of(verdict.settings) or study.plan,
            (study.folder / RECOMMENDED).parent,
        )
    report = write_report(study, outcome, verdict, prepared.wanted.task.title)
    _remove_what_was_for_trainings(study)
    return Tuning(study, outcome, verdict, report)


def _remove_what_was_for_trainings(study: Study) -> None:
    """Snapshots to branch from, and copies of the data unless what was lost may be trained again."""
    study.drop_branch_points()
    if study.holdout and not study.lost:
        study.holdout.remove()


def _tuner(prepared: PreparedTuning, study: Study, db: str | None) -> Tuner:
    """What runs a study."""
    solver, wanted, combinations = prepared.solver, prepared.wanted, prepared.combinations
    if combinations is None:
        return Tuner(study, wanted, solver, db, prepared.request.fresh)
    open_study = SideStudies(solver, prepared.request.caffe_python).open
    return OuterTuner(study, wanted, solver, db, combinations, open_study, prepared.request.fresh)


# -- range test ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RangeTest:
    """A range test that has ended.

    Attributes:
        study: its trainings. Where some of them were lost for good, there is no range.
        good: the range of good LRs; None where it depends on what was lost.
        rule: by which rule, in words.
        policies: a policy of each function to begin with.
        file: range.json.
        picture: its plot's file, None without a range.
        figure: makes its plot, None without a range.
        ladder: the trainings with a constant LR, None for a ramp.
    """

    study: Study
    good: GoodRange | None
    rule: str
    policies: Mapping[str, Policy]
    file: Path
    picture: Path | None
    figure: Callable[[], Figure] | None
    ladder: Ladder | None


def find_range(request: RangeRequest, watch: TuningObserver, progress: Progress) -> RangeTest:
    """Carry out a range test. A killed test trains only what is missing.

    Args:
        watch: is told how it goes.
        progress: is told of a check of the data that takes longer.

    Raises:
        InputError: the solver or a parameter is wrong, or the directory holds another study.
        TrainingError: it shows no range; range.json says why.
    """
    if not request.no_database:
        resolve_url(request.database)
    solver, wanted = _open(request, progress)
    where = request.out or study_folder("range", solver.path)
    plan = _range_plan(request, solver, wanted, progress.say)
    kept = folder.read(where)
    folder.check_solver(where, plan, kept)
    folder.check_range_test(where, kept, plan)
    # A ramp has no tests; one beside a ladder, in the same folder, has nothing to agree with.
    ladder = kept if kept and kept["plan"].get("form") == plan.form == "ladder" else None
    if ladder is not None:
        plan = folder.keeping_chance(plan, ladder)
        folder.check_plan(where, plan, ladder, RANGE_MAY_CHANGE)
    with _pool(request, watch) as pool:
        # So many are decided on ahead, also when it is continued with more of them.
        slots = pool.slots if ladder is None else int(ladder["plan"].get("slots", pool.slots))
        plan = replace(plan, slots=slots)
        if kept is None or (plan.form == "ladder" and ladder is None):
            folder.write(where, plan, Prior())
        study = _study(request, where, plan, pool, watch)
        if kept is not None:
            study.say_what_is_there()
        find = climb if request.form == "ladder" else rise
        try:
            test = find(request, study, solver, wanted.task.title)
        except TrainingError as error:
            _keep(request, study, failure=str(error))
            raise
    study.say_if_finished_before()
    if not request.no_database:
        bring_in_the_rest(request.database, where, watch.say, watch.warn)
    return test


def _range_plan(
    request: RangeRequest, solver: Solver, wanted: Wanted, say: Callable[[str], None]
) -> TuningPlan:
    if request.form == "ladder" and not solver.tests:
        raise ParameterError(
            "{0}: no test net; allowed: {form} ramp, which reads the training loss", solver.path
        )
    measure = Measure.of_top1(0.0)
    if request.form == "ladder":
        measure = _measure(request, solver, wanted.task, say)
    max_iter = max(solver.message.max_iter, request.iterations or 0)
    check_length(solver, max_iter, "iterations")
    interval = _interval(request, solver, max_iter)
    if request.iterations:
        interval = min(interval, max(1, request.iterations // 2))
    plan = _plan(request, solver, wanted, measure, max_iter, interval)
    return replace(plan, form=request.form)


def _interval(request: StudyRequest, solver: Solver, max_iter: int) -> int:
    """Iterations between tests: as asked for, or the solver's where it tests often enough."""
    asked = request.test_interval
    if asked is not None and asked > max_iter:
        raise ParameterError(
            "{test_interval}: {0}; allowed: 1 to {1}, the length of a training", asked, max_iter
        )
    return asked or test_interval(solver.message.test_interval, max_iter)


def climb(request: RangeRequest, study: Study, solver: Solver, title: str) -> RangeTest:
    """The ladder: short trainings with a constant LR each."""
    ladder = Ladder(study.plan.measure, pretrained=study.plan.start.pretrained)
    try:
        good = study.find_range(ladder, request.iterations or range_length(study.plan))
    except TrainingError:
        if not study.lost:
            raise
    if study.lost:
        return _without_range(request, study, ladder)
    picture = study.folder / "range.png"

    def figure() -> Figure:
        return ladder_figure(f"{title}, seed {request.seed}", study, ladder, good)

    save(figure(), picture)
    return _with_range(request, study, solver, good, ladder.rule, picture, figure, ladder)


def rise(request: RangeRequest, study: Study, solver: Solver, title: str) -> RangeTest:
    """The ramp: passes with an LR that rises."""
    iterations = request.iterations or max(LEAST_RAMP, round(RAMP_SHARE * study.plan.max_iter))
    passes = ramp.rise(study, solver, iterations, request.passes)
    if study.lost:
        return _without_range(request, study, None)
    good = ramp.read(passes, iterations)
    picture = study.folder / "ramp.png"
    mean = ramp.smoothed(passes, iterations)
    last = request.seed + request.passes - 1
    seeds = f"seed {request.seed}" if request.passes == 1 else f"seeds {request.seed} to {last}"
    lines = [(one.lrs, one.losses) for one in passes]
    ends = (good.low, good.high)

    def figure() -> Figure:
        return ramp_figure(f"{title}, {seeds}: an LR that rises", lines, mean, ends)

    save(figure(), picture)
    return _with_range(request, study, solver, good, ramp.RULE, picture, figure, None)


def _with_range(
    request: RangeRequest,
    study: Study,
    solver: Solver,
    good: GoodRange,
    rule: str,
    picture: Path,
    figure: Callable[[], Figure],
    ladder: Ladder | None,
) -> RangeTest:
    plan = study.plan
    max_iter = solver.message.max_iter or plan.max_iter  # the test's trainings may be longer
    proposed = candidates(good, plan.functions, max_iter=max_iter, epoch=plan.epoch)
    first = {candidate.policy.function: candidate.policy for candidate in reversed(proposed)}
    policies = {name: first[name] for name in plan.functions}
    file = _keep(request, study, good=good, rule=rule, policies=policies)
    return RangeTest(study, good, rule, policies, file, picture, figure, ladder)


def _without_range(request: RangeRequest, study: Study, ladder: Ladder | None) -> RangeTest:
    """Each LR that was lost may be an end of the range, the best one, or bad between good ones."""
    file = _keep(request, study)
    return RangeTest(study, None, "", {}, file, None, None, ladder)


def _keep(
    request: RangeRequest,
    study: Study,
    *,
    good: GoodRange | None = None,
    rule: str | None = None,
    policies: Mapping[str, Policy] | None = None,
    failure: str | None = None,
) -> Path:
    """Write range.json; returns its path.

    Args:
        failure: why the test shows no range, although no training of it was lost.
    """
    content = {
        "solver": study.plan.solver,
        "form": request.form,
        "low": good and good.low,
        "high": good and good.high,
        "best": good and good.best,
        "rule": rule,
        "failure": failure,
        "source": "measured",
        "seed": study.plan.seed,
        "lost": [one.as_json() for one in study.lost],
        "iterations": study.iterations,
        "policies": {name: str(policy) for name, policy in (policies or {}).items()},
    }
    path = study.folder / folder.RANGE_FILE
    replace_own(path, (json.dumps(content, indent=2) + "\n").encode())
    return path


# -- both ------------------------------------------------------------------------------------------


def _open(request: StudyRequest, progress: Progress) -> tuple[Solver, Wanted]:
    """The solver, and what it trains from which start."""
    solver, wanted = open_wanted(
        request.solver,
        caffe_python=request.caffe_python,
        head=request.head,
        weights=request.weights,
        level=request.level or 0,
        stages=request.stages or (),
        check_data=None if request.trust_data else progress,
    )
    if warning := without_weights(wanted.start):
        progress.say(warning)
    return solver, wanted


def _plan(
    request: StudyRequest,
    solver: Solver,
    wanted: Wanted,
    measure: Measure,
    max_iter: int,
    interval: int,
) -> TuningPlan:
    """What the plans of a tuning and of a range test have in common."""
    return TuningPlan(
        solver=str(solver.path),
        max_iter=max_iter,
        test_interval=interval,
        epoch=solver.epoch,
        by=measure.name,
        higher=measure.higher,
        classifies=bool(solver.tests and solver.tests[0].heads),
        chance=measure.worthless,
        start=wanted.start,
        weights=request.weights,
        level=request.level or 0,
        stages=tuple(request.stages or ()),
        seed=request.seed,
        flags=training_flags(request.layers, request.caffe_python, solver.head),
        files=digest(fingerprint(solver)),
        data=solver.content_digest,
    )


def _measure(
    request: StudyRequest, solver: Solver, task: Task, say: Callable[[str], None]
) -> Measure:
    """What the study compares by."""
    measure, note = choose_measure(
        solver, task, request.by, request.higher,
        caffe_python=request.caffe_python, level=request.level or 0, stages=request.stages or (),
    )  # fmt: skip
    if note:
        say(f"note: {note}")
    return measure


def _check_target(request: TuningRequest, measure: Measure) -> None:
    """Check that the target is one of what is compared by."""
    wrong, right = ("target", "target_top1") if measure.is_top1 else ("target_top1", "target")
    if getattr(request, wrong) is not None:
        raise ParameterError(
            "{" + wrong + "}: the tuning is by {0}; allowed: {" + right + "}", measure.title
        )


def _study(
    request: StudyRequest,
    where: Path,
    plan: TuningPlan,
    pool: Pool,
    watch: TuningObserver,
    **more: Any,
) -> Study:
    """A study of a request; ``more`` as for ``Study``."""
    return Study(
        where,
        plan,
        pool,
        db="" if request.no_database else resolve_url(request.database),
        hang_seconds=request.hang_seconds,
        watch=watch,
        trust_data=request.trust_data,
        **more,
    )


@contextmanager
def _pool(request: StudyRequest, watch: TuningObserver) -> Iterator[Pool]:
    pool = open_pool(
        request.jobs, request.gpus, request.scheduler, request.caffe_python, watch.warn
    )
    try:
        yield pool
    finally:
        pool.close()
