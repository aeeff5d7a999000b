"""A study's bookkeeping and a tuner's stages, with a pool that answers by rule instead of training."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import re
import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lrbench_caffe import tune as tune_command
from lrbench_caffe.errors import InputError, TrainingError
from lrbench_caffe.jobs import Job, JobResult, retrying
from lrbench_caffe.jobs.naming import directory_name
from lrbench_caffe.jobs.opening import training_flags
from lrbench_caffe.jobs.retrying import RETRIES
from lrbench_caffe.lr import parse
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.prototxt.messages import Messages
from lrbench_caffe.prototxt.solver import caffe_policy
from lrbench_caffe.records import SCRATCH, Start
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.terminal.console import Console
from lrbench_caffe.terminal.tuning_tables import show_range, train_line
from lrbench_caffe.tuning import report as reports
from lrbench_caffe.tuning import running
from lrbench_caffe.tuning.measure import Measure
from lrbench_caffe.tuning.observer import TuningObserver
from lrbench_caffe.tuning.plan import TuningPlan
from lrbench_caffe.tuning.prior import Prior
from lrbench_caffe.tuning.report import cost_rows, finalist_rows, training_rows, write_report
from lrbench_caffe.tuning.request import RangeRequest, TuningRequest
from lrbench_caffe.tuning.space import functions
from lrbench_caffe.tuning.study import Study
from lrbench_caffe.tuning.trainings import FINAL, OWN, RANGE_TEST, SEARCH
from lrbench_caffe.tuning.tuner import Tuner, TuningOutcome
from lrbench_caffe.tuning.verdict import KEEP_OWN, judge, unsoundness

TOP1 = Measure.of_top1(10.0)
MAX_ITER, INTERVAL = 1000, 50
LIMIT = 0.15  # from this LR on a training diverges; with seed 2 a little earlier


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "PAUSES", (0.0,))


class RulePool:
    """Trains at once: Top-1 rises with the LR that was spent, and a higher LR ends higher.

    Args:
        own: Top-1 that FIX(k0=0.01), the solver's own policy, has beyond that.
    """

    slots = 1
    room = 99

    def __init__(self, fails: str = "nothing", next_one: int = -1, own: float = 0.0) -> None:
        self._own = own
        self._fails = fails
        self._next_one = next_one
        self._results: list[JobResult] = []
        self.submitted: list[Job] = []

    def submit(self, training: Job) -> None:
        self.submitted.append(training)
        self._results.append(self._train(training))

    def _train(self, training: Job) -> JobResult:
        rates = np.asarray(parse(str(training.policy)).bind(MAX_ITER)(np.arange(MAX_ITER)))
        if re.search(self._fails, str(training.policy)):
            return JobResult(training, "failed", "killed by SIGSEGV", 0)
        limit = LIMIT * (0.8 if training.seed > 1 else 1.0)
        if rates[: training.until].max() >= limit:
            return JobResult(training, "diverged", "the loss of iteration 20 is nan", 20)
        tests = range(INTERVAL, (training.until or MAX_ITER) + 1, INTERVAL)
        spent = np.cumsum(rates)
        more = self._own if str(training.policy) == "FIX(k0=0.01)" else 0.0
        tops = [99.0 * (1 - np.exp(-spent[t - 1])) - 0.01 * training.seed + more for t in tests]
        measured = [measurement(t, top1) for t, top1 in zip(tests, tops)]
        status = "finished" if training.until == MAX_ITER else "stopped"
        return JobResult(training, status, None, training.until or MAX_ITER, 1.0, measured)

    def next(self, timeout: float | None = None) -> JobResult | None:
        # The last first, by default: no order is promised.
        return self._results.pop(self._next_one) if self._results else None

    def close(self) -> None: ...


def measurement(iteration: int, top1: float) -> Measurement:
    values: dict[str, Any] = dict.fromkeys(Measurement.__dataclass_fields__, 0.5)
    return Measurement(
        **{
            **values,
            "outputs": {},
            "iteration": iteration,
            "net": 0,
            "top1": top1,
            "seconds": iteration / 100,
        }
    )


def plan(**more: Any) -> TuningPlan:
    options = {"functions": functions("all"), "seeds": 2, "top": 2, **more}
    return TuningPlan("solver.prototxt", MAX_ITER, INTERVAL, 25.0, 10.0, 1, **options)


def tune(
    folder: Path,
    pool: RulePool | None = None,
    db: str | None = None,
    start: Start = SCRATCH,
    **more: Any,
) -> tuple[Study, TuningOutcome]:
    message = SimpleNamespace(
        lr_policy="fixed",
        base_lr=0.01,
        gamma=0.0,
        power=0.0,
        stepsize=0,
        stepvalue=[],
        max_iter=MAX_ITER,
    )
    study = Study(folder, plan(start=start, **more), pool or RulePool(), db="")
    solver: Any = SimpleNamespace(
        message=message, path=Path("solver.prototxt"), epoch=25.0,
        lr_policy=lambda max_iter: caffe_policy(message, max_iter),
    )  # fmt: skip
    return study, Tuner(study, SimpleNamespace(start=start), solver, db).tune()  # type: ignore[arg-type]


def report(study: Study, outcome: TuningOutcome) -> str:
    verdict = judge(study.plan, outcome.finalists, outcome.baseline)
    return write_report(study, outcome, verdict, "digits / LeNet").read_text()


def test_from_the_range_to_the_finalists(tmp_path: Path) -> None:
    study, outcome = tune(tmp_path)
    assert (outcome.good.high, outcome.good.limit) == (0.1, 0.2)
    reliable = [finalist for finalist in outcome.finalists if finalist.reliable]
    assert len(reliable) == 2
    for finalist in reliable:
        assert sorted(finalist.results) == [1, 2]
        assert all(result.status == "finished" for result in finalist.results.values())
    assert outcome.baseline is not None and str(outcome.baseline.policy) == "FIX(k0=0.01)"
    assert sum(outcome.spent.values()) == study.iterations


def test_it_costs_what_it_may(tmp_path: Path) -> None:
    study, outcome = tune(tmp_path)
    assert outcome.full == MAX_ITER * len(outcome.candidates)
    assert study.iterations <= 0.15 * outcome.full + 2 * MAX_ITER
    _, small = tune(tmp_path / "small", budget=6000)
    assert small.spent["search"] < outcome.spent["search"]


def test_what_was_trained_is_not_asked_for_again_beyond_its_end(tmp_path: Path) -> None:
    pool = RulePool()
    tune(tmp_path, pool)
    ends: dict[str, int] = {}
    for training in pool.submitted:
        assert ends.get(training.out, 0) <= (training.until or MAX_ITER)
        ends[training.out] = training.until or MAX_ITER


def test_the_same_study_again_makes_the_same_decisions(tmp_path: Path) -> None:
    first, second = RulePool(), RulePool()
    tune(tmp_path, first)
    tune(tmp_path, second)
    assert first.submitted == second.submitted


def test_the_order_in_which_trainings_end_changes_no_decision(tmp_path: Path) -> None:
    last_first, first_first = RulePool(), RulePool(next_one=0)
    first_first.slots = 2
    tune(tmp_path / "last", last_first)
    tune(tmp_path / "first", first_first)
    wanted = [
        [(t.policy, t.seed, t.until) for t in pool.submitted] for pool in (last_first, first_first)
    ]
    assert wanted[0] == wanted[1]


def test_the_solvers_own_policy_is_trained_to_the_end_beside_the_finalists(tmp_path: Path) -> None:
    study, outcome = tune(tmp_path, top=1)
    assert outcome.baseline is not None and outcome.baseline not in outcome.finalists
    ends = {seed: r.status for seed, r in outcome.baseline.results.items()}
    assert ends == {1: "finished", 2: "finished"}  # the finalists' seeds
    own = finalist_rows(study, outcome)[-1]
    assert own[:3] == ["own", "FIX(k0=0.01)", "2"]


def test_another_plan_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    tune(tmp_path)
    with pytest.raises(
        InputError, match=r"holds a study with functions \[.*\], not \['SIN', 'COS'\]"
    ):
        tune(tmp_path, functions=("SIN", "COS"))
    tune(tmp_path, budget=8000, top=1, seeds=3)  # these may change
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(InputError, match="study.json: not a study"):
        tune(tmp_path)


def test_an_edited_solver_is_another_study(tmp_path: Path) -> None:
    tune(tmp_path, files="one")
    with pytest.raises(
        InputError, match=r"a study of solver\.prototxt as it was before it or its net was edited"
    ):
        tune(tmp_path, files="other")


def test_a_cluster_that_has_grown_changes_no_decision(tmp_path: Path) -> None:
    first, grown = RulePool(), RulePool()
    grown.slots = 8
    tune(tmp_path, first)
    tune(tmp_path, grown)
    assert first.submitted == grown.submitted


def test_a_finalist_that_diverges_with_another_seed_gives_way(tmp_path: Path) -> None:
    """What peaks between the limits of seed 1 and of the other seeds looks best, and is not reliable."""
    study, outcome = tune(tmp_path, functions=("TRI", "FIX"))
    unreliable = [t for t in outcome.finalists if not t.reliable]
    if not unreliable:  # the rule above must have produced the case, or this test shows nothing
        rates = [max(t.policy(np.arange(MAX_ITER))) for t in study.known.values()]
        pytest.fail(f"no finalist diverged: {sorted(rates)}")
    rows = finalist_rows(study, outcome)
    assert "diverged" not in rows[1][2]
    assert "diverged" in rows[-2][2] + rows[-1][2]
    one = next(t for t in unreliable if t.results[1].status == "finished")
    (row,) = [row for row in rows[1:] if row[1] == f"{one.policy:.6g}"]
    assert row[2] == "1 (+1 diverged)"
    top1 = max(m.top1 or 0.0 for m in one.results[1].measurements)
    assert row[4] == f"{top1:.2f}"  # of the one that ended alone


class SeedlessPool(RulePool):
    """Its trainings are those of the first seed, as where nothing in a net with all weights is random."""

    def _train(self, training: Job) -> JobResult:
        return replace(super()._train(replace(training, seed=1)), training=training)


FILLED = Start("weights", "d" * 32, 4, 4)


def test_where_the_seed_changes_nothing_it_is_tried_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(TuningObserver, "say", lambda self, text: said.append(text))
    pool = SeedlessPool()
    study, outcome = tune(tmp_path, pool, start=FILLED, seeds=3)
    trained = {(t.policy, t.seed) for t in pool.submitted if t.seed > 1}
    assert len(trained) == 1 and {seed for _, seed in trained} == {2}
    assert len([text for text in said if "another seed changes nothing" in text]) == 1
    text = judge(study.plan, outcome.finalists, outcome.baseline).text
    assert text.startswith("train with ") and "the seed changes nothing: each counts" in text


@pytest.mark.parametrize(
    ("pool", "start"),
    [
        (RulePool, FILLED),  # something is random
        (SeedlessPool, Start("weights", "d" * 32, 3, 4)),  # what is not filled is: a chance
        (SeedlessPool, SCRATCH),
    ],
)
def test_else_all_seeds_are_trained(
    tmp_path: Path, pool: Callable[[], RulePool], start: Start
) -> None:
    made = pool()
    _, outcome = tune(tmp_path, made, start=start, seeds=3)
    policies = {str(t.policy) for t in outcome.finalists if t.reliable} | {"FIX(k0=0.01)"}
    ended = {(t.policy, t.seed) for t in made.submitted if t.until == MAX_ITER}
    assert {(p, s) for p in policies for s in (1, 2, 3)} <= ended
    assert not any(t.seedless for t in outcome.finalists)


class NanPool(RulePool):
    """Its trainings with other seeds go on where those of ``RulePool`` diverge, and their Top-1 is NaN."""

    def _train(self, training: Job) -> JobResult:
        result = super()._train(training)
        if result.status != "diverged" or training.seed == 1:
            return result
        tests = [measurement(at, float("nan")) for at in range(INTERVAL, MAX_ITER + 1, INTERVAL)]
        return JobResult(training, "finished", None, MAX_ITER, 1.0, tests)


def test_a_finalist_without_a_finite_value_gives_way_as_one_that_diverged_does(
    tmp_path: Path,
) -> None:
    _, diverging = tune(tmp_path / "diverging", functions=("TRI", "FIX"))
    _, outcome = tune(tmp_path / "nan", NanPool(), functions=("TRI", "FIX"))
    finalists = [str(one.policy) for one in outcome.finalists]
    assert finalists == [str(one.policy) for one in diverging.finalists]
    unsound = [one for one in outcome.finalists if unsoundness(one, TOP1)]
    assert unsound and not any(one.diverged for one in unsound)
    assert len(outcome.finalists) - len(unsound) == 2


def test_it_is_said_why_there_are_other_finalists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(TuningObserver, "say", lambda self, text: said.append(text))
    _, outcome = tune(tmp_path, functions=("TRI", "FIX"))
    named = [text for text in said if text.startswith("finalists")]
    assert named[0].startswith("finalists: ") and len(named) > 1
    gone = sum(not one.reliable for one in outcome.finalists[: len(named[0].split("), "))])
    assert gone > 0
    assert named[1].startswith(
        f"finalists, instead of {gone} that diverged or could not be trained: "
    )


def test_a_continued_study_says_how_far_it_is_and_whether_anything_was_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(TuningObserver, "say", lambda self, text: said.append(text))
    study, _ = tune(tmp_path)
    study.say_if_finished_before()
    assert not [text for text in said if text.startswith(("continuing", "nothing"))]
    for name, iterations in (("one", 400), ("two", 1000)):
        run = RunDirectory(tmp_path / "trainings" / name)
        run.path.mkdir(parents=True)
        run.write({"solver": "s", "iteration": iterations, "max_iter": MAX_ITER})
    study, _ = tune(tmp_path)
    expected = f"continuing the study in {tmp_path}: 2 trainings with 1,400 iterations so far"
    assert expected in said
    Study(tmp_path, plan(), RulePool(), db="").say_if_finished_before()
    assert said[-1] == "nothing was left to train: the result is of earlier trainings"


class LosingPool(RulePool):
    """Loses each training that is chosen by ``loses`` so many times before it trains it, as a crash does.

    What ends before another is random.
    """

    slots = 2

    def __init__(self, loses: Callable[[Job], int], seed: int = 0) -> None:
        super().__init__()
        self._loses, self._lost = loses, Counter[Job]()
        self._random = random.Random(seed)

    def _train(self, training: Job) -> JobResult:
        self._lost[training] += 1
        if self._lost[training] <= self._loses(training):
            return JobResult(
                training, "failed", "Caffe was killed by SIGSEGV", self._lost[training] % 2
            )
        return super()._train(training)

    def next(self, timeout: float | None = None) -> JobResult | None:
        self._random.shuffle(self._results)
        return super().next(timeout)


def result(study: Study, outcome: TuningOutcome) -> dict[str, Any]:
    """What result.json would have."""
    return reports.result(study, outcome, judge(study.plan, outcome.finalists, outcome.baseline))


def times_lost(training: Job) -> int:
    """0 to 5, by the training."""
    return int(hashlib.sha256(repr(training).encode()).hexdigest(), 16) % 6


@pytest.mark.parametrize("options", [{"compose": True}, {"goal": "cost", "target_top1": 60.0}])
def test_losses_and_the_order_in_which_trainings_end_change_nothing(
    tmp_path: Path, options: Any
) -> None:
    options = {**options, "functions": ("POLY", "TRI")}
    untouched, outcome = tune(tmp_path, RulePool(), **options)
    wanted, costs = result(untouched, outcome), cost_rows(untouched, outcome)
    for seed in (1, 2):
        pool = LosingPool(times_lost, seed)
        study, outcome = tune(tmp_path, pool, **options)
        assert len(pool.submitted) > 2 * len(set(pool.submitted))
        assert result(study, outcome) == wanted
        assert cost_rows(study, outcome) == costs
        study.check_losses()


@pytest.mark.parametrize("stage", [RANGE_TEST, SEARCH, FINAL, OWN])
def test_what_is_lost_for_good_is_said_with_its_place_and_made_up_for(
    tmp_path: Path, stage: str
) -> None:
    pool, functions = RulePool(), ("POLY", "TRI")
    untouched, outcome = tune(tmp_path, pool, functions=functions)
    wanted = result(untouched, outcome)
    step = next(t for t in pool.submitted if t.until not in (2 * INTERVAL, MAX_ITER))
    best = str(outcome.finalists[0].policy)
    chosen = {
        RANGE_TEST: lambda t: t.policy == "FIX(k0=0.1)" and t.until == 100,
        SEARCH: lambda t: t == step,
        FINAL: lambda t: (t.policy, t.seed) == (best, 2),
        OWN: lambda t: (t.policy, t.seed) == ("FIX(k0=0.01)", 2),
    }[stage]
    losing = LosingPool(lambda training: 99 * chosen(training))
    study, outcome = tune(tmp_path, losing, functions=functions)
    found = result(study, outcome)
    assert found["lost"] and {one["stage"] for one in found["lost"]} == {stage}
    one = found["lost"][0]
    assert (one["reason"], one["losses"]) == (
        "Caffe was killed by SIGSEGV",
        study.lost[0].result.losses,
    )
    assert one["losses"] > RETRIES
    text = report(study, outcome)
    assert "## Lost trainings" in text
    assert f"- {one['policy']}, seed {one['seed']}: lost at iteration {one['iteration']} (" in text
    assert one["counts"] in text
    with pytest.raises(
        TrainingError, match=r"\d+ trainings? failed; the same command tries (it|them) again"
    ):
        study.check_losses()
    again, outcome = tune(tmp_path, functions=functions)
    assert result(again, outcome) == wanted and again.lost == []


def climb(folder: Path, pool: RulePool) -> tuple[Study, str]:
    """What ``range`` prints of a ladder; its exit code is 1 where ``check_losses`` raises."""
    folder.mkdir(exist_ok=True)
    study, said = Study(folder, plan(), pool), io.StringIO()
    request = RangeRequest(Path("solver.prototxt"), iterations=100)
    solver: Any = SimpleNamespace(weights=[])
    show_range(
        Console(unbreakable=True, width=160, file=said),
        running.climb(request, study, solver, "digits"),
    )
    return study, said.getvalue()


def test_a_lost_lr_leaves_range_without_a_range(tmp_path: Path) -> None:
    """0.1 is the highest LR that does not diverge: without it 0.05 would look like the end."""
    study, said = climb(
        tmp_path, LosingPool(lambda training: 99 * (training.policy == "FIX(k0=0.1)"))
    )
    kept = json.loads((tmp_path / "range.json").read_text())
    assert (kept["low"], kept["high"], kept["best"], kept["policies"]) == (None, None, None, {})
    assert [one["policy"] for one in kept["lost"]] == ["FIX(k0=0.1)"]
    assert "0.1 (failed)" in said and "lost: FIX(k0=0.1), seed 1: lost at iteration " in said
    assert "; whether an LR of 0.1 is good is unknown\nno range of good LRs: it depends on " in said
    assert "starting policy" not in said and "range of good LRs: 0" not in said
    assert not (tmp_path / "range.png").exists()
    with pytest.raises(TrainingError, match="^1 training failed; the same command tries it again$"):
        study.check_losses()

    study, said = climb(tmp_path, RulePool())
    kept = json.loads((tmp_path / "range.json").read_text())
    assert (kept["high"], kept["lost"]) == (0.1, [])
    assert f"range of good LRs: {kept['low']:g} to 0.1, best constant LR 0.1" in said
    assert (tmp_path / "range.png").exists()
    study.check_losses()


def test_a_lost_seed_is_no_divergence(tmp_path: Path) -> None:
    """Its policy stays a finalist, and those with higher LRs stay candidates."""
    _, outcome = tune(tmp_path / "untouched", functions=("POLY",), top=1)
    best = str(outcome.finalists[0].policy)
    pool = LosingPool(lambda t: 99 * ((t.policy, t.seed) == (best, 2)))
    study, outcome = tune(tmp_path / "lost", pool, functions=("POLY",), top=1)
    assert [str(one.policy) for one in outcome.finalists] == [best]
    assert finalist_rows(study, outcome)[1][2] == "1 (+1 failed)"


def test_a_failure_is_a_result_and_the_tuning_completes(tmp_path: Path) -> None:
    study, outcome = tune(tmp_path, RulePool(fails="^(TRI|EXP)"))
    failed = [r for t in study.known.values() for r in t.results.values() if r.status == "failed"]
    assert failed
    assert all(not t.policy.function.startswith(("TRI", "EXP")) for t in outcome.finalists)
    assert "failed: killed by SIGSEGV" in report(study, outcome)


def test_where_all_candidates_fail_nothing_is_composed_of_them(tmp_path: Path) -> None:
    class Breaks(RulePool):
        """Fails after the range test."""

        def _train(self, training: Job) -> JobResult:
            if training.until != 2 * INTERVAL:
                return JobResult(training, "failed", "killed by SIGSEGV", 0)
            return super()._train(training)

    with pytest.raises(TrainingError, match="no candidate could be trained; see the logs in"):
        tune(tmp_path, Breaks(), compose=True)


def test_where_everything_fails_the_reason_is_said(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="all trainings failed: killed by SIGSEGV; see .*fix-"):
        tune(tmp_path, RulePool(fails="."))


def prepared(folder: Path) -> running.PreparedTuning:
    """A tuning of a solver that Caffe never sees."""
    message = SimpleNamespace(lr_policy="fixed", base_lr=0.01, max_iter=MAX_ITER)
    solver: Any = SimpleNamespace(
        message=message, path=Path("solver.prototxt"), epoch=25.0, lr_policy=lambda max_iter: None
    )
    wanted: Any = SimpleNamespace(start=SCRATCH, task=SimpleNamespace(title="digits / LeNet"))
    request = TuningRequest(Path("solver.prototxt"), out=folder, no_database=True)
    return running.PreparedTuning(request, plan(), solver, wanted)


def fail_to_tune(
    folder: Path, pool: RulePool, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, list[str]]:
    """What ``tune`` ends with where nothing can be trained, and what it said before."""
    said: list[str] = []
    monkeypatch.setattr(TuningObserver, "say", lambda self, text: said.append(text))
    monkeypatch.setattr(running, "open_pool", lambda *args: pool)
    with pytest.raises(TrainingError) as caught:
        running.carry_out(prepared(folder), TuningObserver())
    return str(caught.value), said


@pytest.mark.parametrize("stage", [RANGE_TEST, SEARCH])
def test_where_nothing_could_be_trained_what_was_lost_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def loses(training: Job) -> int:
        return 99 * (stage == RANGE_TEST or training.until != 2 * INTERVAL)

    reason, said = fail_to_tune(tmp_path, LosingPool(loses), monkeypatch)
    kept = json.loads((tmp_path / "result.json").read_text())
    assert (kept["failure"], kept["verdict"], kept["finalists"]) == (reason, None, [])
    assert kept["lost"] and {one["stage"] for one in kept["lost"]} == {stage}
    lost = [text for text in said if text.startswith("lost: ")]
    assert len(lost) == len(kept["lost"])
    text = (tmp_path / "report.md").read_text()
    for one, line in zip(kept["lost"], lost):
        assert f"{one['policy']}, seed 1: lost at iteration " in line and one["counts"] in line
        assert f"- {one['policy']}, seed 1: lost at" in text


def test_where_nothing_could_be_trained_json_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(running, "open_pool", lambda *args: RulePool(fails="."))
    monkeypatch.setattr(tune_command, "prepare_tuning", lambda *args: prepared(tmp_path))
    with pytest.raises(TrainingError, match="all trainings failed") as caught:
        tune_command.main(["solver.prototxt", "--json"])
    text = capsys.readouterr().out
    assert text == (tmp_path / "result.json").read_text()
    assert json.loads(text)["failure"] == str(caught.value)


@pytest.mark.parametrize("fails", ["nothing", "."])
def test_what_an_earlier_command_recommended_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    monkeypatch.setattr(running, "open_pool", lambda *args: RulePool(fails=fails))
    folder = tmp_path / "recommended"
    folder.mkdir()
    for name in ("solver", "train", "test_0", "test_1"):
        (folder / f"{name}.prototxt").touch()
    (folder / "mine.caffemodel").touch()
    with contextlib.suppress(TrainingError):
        running.carry_out(prepared(tmp_path), TuningObserver())
    assert (tmp_path / "result.json").exists()
    assert [path.name for path in folder.iterdir()] == ["mine.caffemodel"]


@pytest.mark.parametrize("request_of", [TuningRequest, RangeRequest])
@pytest.mark.parametrize("name", ["by", "weights"])
def test_an_empty_name_is_refused(request_of: Any, name: str) -> None:
    with pytest.raises(InputError, match=f"^{name}: ''; allowed: "):
        request_of(Path("solver.prototxt"), **{name: ""})


def test_a_ladder_all_of_which_is_lost_is_reported(tmp_path: Path) -> None:
    study, said = climb(tmp_path, LosingPool(lambda training: 99))
    kept = json.loads((tmp_path / "range.json").read_text())
    assert [one["policy"] for one in kept["lost"]] == [
        f"FIX(k0={lr:g})" for lr in (0.1, 0.01, 0.001)
    ]
    assert said.count("lost: FIX(") == 3 and kept["low"] is None
    with pytest.raises(
        TrainingError, match="^3 trainings failed; the same command tries them again$"
    ):
        study.check_losses()


def test_a_ramp_whose_passes_are_lost_is_reported(tmp_path: Path, messages: Messages) -> None:
    study = Study(tmp_path, plan(), LosingPool(lambda training: 99))
    solver: Any = SimpleNamespace(message=messages.new("SolverParameter"))
    request = RangeRequest(Path("solver.prototxt"), form="ramp", iterations=100, passes=2)
    test = running.rise(request, study, solver, "digits")
    assert test.good is None
    kept = json.loads((tmp_path / "range.json").read_text())
    assert ([one["seed"] for one in kept["lost"]], kept["low"]) == ([1, 2], None)


def test_compositions_are_tried_and_kept_only_where_they_win(tmp_path: Path) -> None:
    study, outcome = tune(tmp_path, compose=True)
    assert outcome.composed
    trained = [c for c in outcome.composed if str(c.policy) in study.known]
    assert trained
    best_single = max(
        t.curve(1, TOP1).best
        for t in study.known.values()
        if ";" not in str(t.policy) and t.curve(1, TOP1)  # type: ignore[union-attr]
    )
    for finalist in outcome.finalists:
        if ";" in str(finalist.policy):
            curve = finalist.curve(1, TOP1)
            assert curve is not None and curve.best >= best_single - 1e-9


def test_for_cost_the_first_to_the_target_is_the_best(tmp_path: Path) -> None:
    study, outcome = tune(tmp_path, goal="cost", target_top1=60.0)
    rows = finalist_rows(study, outcome)
    assert rows[0][4] == "to 60 %"
    reached = [float(row[4].split(" ")[0]) for row in rows[1:3]]
    assert reached == sorted(reached)


def test_the_smallest_budget_still_tries_a_candidate(tmp_path: Path) -> None:
    _, outcome = tune(tmp_path, budget=1, top=1)
    assert outcome.spent["search"] > 0
    assert outcome.finalists


def test_the_report(tmp_path: Path) -> None:
    study, outcome = tune(tmp_path)
    text = report(study, outcome)
    assert (tmp_path / "tuning.png").stat().st_size > 10_000
    assert (tmp_path / "range.png").stat().st_size > 10_000
    for number, finalist in enumerate(outcome.finalists, 1):
        assert f"| {number} | " in text and f"{finalist.policy:.6g}" in text
    assert "| the solver's own lr_policy |" in text and "| range test |" in text
    total = cost_rows(study, outcome)[-3]
    assert total[1] == f"{study.iterations:,}"
    assert json.loads((tmp_path / "study.json").read_text())["plan"]["seeds"] == 2


KNOWN = ("SIN2(k0=0.002, k1=0.03, l=250)", "COS(k0=0.001, k1=0.02, l=200)", "FIX(k0=0.0003)")


def test_known_policies_are_tried_before_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one whose LR is far from the usual, and where the budget is less than they cost."""
    experience = Prior(tuple((text, "from the LR database") for text in KNOWN))
    monkeypatch.setattr("lrbench_caffe.tuning.tuner.look_up", lambda *_: experience)
    for name, budget in (("usual", None), ("small", 1)):
        pool = RulePool()
        study, outcome = tune(
            tmp_path / name, pool, db="unused", budget=budget, functions=("TRI", "POLY")
        )
        searched = [
            t for t in pool.submitted if not str(t.policy).startswith("FIX") or t.policy == KNOWN[2]
        ]
        assert [t.policy for t in searched[:3]] == [
            str(parse(text).bind(MAX_ITER)) for text in KNOWN
        ]
        assert {t.until for t in searched[:3]} == {MAX_ITER * 15 // 100}
        assert [str(c.policy) for c in outcome.known] == [t.policy for t in searched[:3]]
        origins = {row[0]: row[-1] for row in training_rows(study, outcome)}
        assert {origins[str(c.policy)] for c in outcome.known} == {"from the LR database"}


def know(
    monkeypatch: pytest.MonkeyPatch, *texts: str, results: tuple[tuple[str, float], ...] = ()
) -> None:
    experience = Prior(tuple((text, "from the LR database") for text in texts), None, results)
    monkeypatch.setattr("lrbench_caffe.tuning.tuner.look_up", lambda *_: experience)


def test_what_was_not_tried_is_said_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    know(monkeypatch, *KNOWN[:2], "FIX(k0=0.1)")  # the last one is in the range test, too
    monkeypatch.setattr(
        "lrbench_caffe.tuning.observer.TuningObserver.say", lambda _, text: print(text)
    )
    study, outcome = tune(tmp_path, db="unused", budget=1)
    begun = [c for c in outcome.candidates if str(c.policy) in study.known]
    untried, all_of_them = len(outcome.untried), len(outcome.candidates)
    assert untried == all_of_them - len(begun) > 0
    words = (
        f"{untried} of {all_of_them} candidates were not tried: "
        "the budget of 1 iterations was used up by "
    )
    assert outcome.why_untried.startswith(words)
    users = [
        int(number.replace(",", "")) for number in re.findall(r"\(([\d,]+)\)", outcome.why_untried)
    ]
    assert (
        users[0] == outcome.spent["range test"] and users[1] >= 350
    )  # 150 open a known one; one had 100 of them
    assert sum(users[:-1]) == outcome.spent["range test"] + outcome.spent["search"]
    assert users[-1] == 3 * 2 * MAX_ITER  # two finalists and the own policy, two seeds
    verdict = judge(study.plan, outcome.finalists, outcome.baseline, outcome.why_untried)
    text = write_report(study, outcome, verdict, "digits / LeNet").read_text()
    found = json.loads((tmp_path / "result.json").read_text())
    assert words in text and words in capsys.readouterr().out and words in found["verdict"]["text"]
    assert len(found["untried"]) == untried and found["budget"] == 1


def test_where_all_are_tried_nothing_is_said(tmp_path: Path) -> None:
    _, outcome = tune(tmp_path, budget=10**6, functions=("FIX",))
    assert outcome.untried == [] and outcome.why_untried == ""


def test_a_target_that_is_reached_is_the_reason(tmp_path: Path) -> None:
    _, outcome = tune(tmp_path, target_top1=20.0)
    assert outcome.untried and outcome.why_untried.endswith(
        "not tried: the target of 20 % was reached"
    )


def test_known_policies_leave_something_of_a_small_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    know(monkeypatch, *KNOWN)
    pool = RulePool()
    tune(tmp_path, pool, db="unused", budget=1, functions=("TRI", "POLY"))
    others = {t.policy for t in pool.submitted if str(t.policy).startswith(("TRI", "POLY"))}
    assert len(others) >= 3


def test_a_known_result_of_a_whole_training_keeps_its_place_in_the_final(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose LR is low is behind at 15 %, and is a finalist all the same, where its end is known."""
    slow = str(parse(KNOWN[1]).bind(MAX_ITER))
    for results, there in (((), False), (((slow, 99.9),), True)):
        know(monkeypatch, *KNOWN, results=results)
        _, outcome = tune(tmp_path / str(there), db="unused", top=1, functions=("TRI", "POLY"))
        assert (slow in [str(one.policy) for one in outcome.finalists]) == there


def test_the_report_says_what_the_verdict_says(tmp_path: Path) -> None:
    for name, own, code in (("worse", -5.0, 0), ("better", 5.0, KEEP_OWN)):
        study, outcome = tune(tmp_path / name, RulePool(own=own), functions=("TRI", "POLY"))
        verdict = judge(study.plan, outcome.finalists, outcome.baseline)
        text = write_report(study, outcome, verdict, "digits / LeNet").read_text()
        assert verdict.exit_code == code
        assert verdict.text[1:] in text
        found = json.loads((tmp_path / name / "result.json").read_text())
        assert found["verdict"]["text"] == verdict.text
        assert found["verdict"]["keep_own"] == (code == KEEP_OWN)
        assert found["own"]["policy"] == "FIX(k0=0.01)"
        assert found["own"]["trainings"] == 2
        values = [c.best for seed in (1, 2) if (c := outcome.baseline.curve(seed, TOP1))]  # type: ignore[union-attr]
        assert found["own"]["top1"] == pytest.approx(sum(values) / 2)
        assert sum(found["iterations"].values()) == study.iterations


def test_a_directory_for_each_policy_and_seed() -> None:
    names = {
        directory_name(parse(text), seed)
        for text in ("FIX(k0=0.1)", "FIX(k0=0.2)")
        for seed in (1, 2)
    }
    assert len(names) == 4
    assert all(re.fullmatch(r"fix-[0-9a-f]{10}-seed[12]", name) for name in names)
    both = directory_name(parse("FIX(k0=0.1) ; 5: SIN(k0=0.1, k1=0.2, l=5)"), 1)
    assert both.startswith("fix-sin-")


def test_the_command_at_the_end_has_the_head_that_was_tuned() -> None:
    flags = training_flags("stock", None, "the head")
    assert flags == ("--layers", "stock", "--head", "the head")
    words = shlex.split(train_line(replace(plan(), flags=flags), None))
    assert words[4:6] == ["--head", "the head"]


def test_the_command_at_the_end_trains_as_the_tuning_did() -> None:
    policy = parse("TRI(k0=0.01, k1=0.1, l=100)")
    words = shlex.split(train_line(replace(plan(), solver="my solvers/s.prototxt"), policy))
    assert words[3:] == [
        "my solvers/s.prototxt", "--lr", str(policy),
        "--max-iter", str(MAX_ITER), "--test-interval", str(INTERVAL),
    ]  # fmt: skip


class OncePool(RulePool):
    """Takes no training of which a part is still under way."""

    slots = 4

    def submit(self, training: Job) -> None:
        assert training.out not in [result.training.out for result in self._results]
        super().submit(training)


@pytest.mark.parametrize("next_one", [0, -1])
@pytest.mark.parametrize("budget", range(3000, 9000, 500))
def test_the_solvers_own_policy_is_not_begun_beside_a_part_of_itself(
    tmp_path: Path, budget: int, next_one: int
) -> None:
    pool = OncePool(next_one=next_one, own=80.0)
    _, outcome = tune(tmp_path, pool, functions=("FIX",), budget=budget)
    assert outcome.baseline is not None and set(outcome.baseline.results) == {1, 2}


class ComposingPool(RulePool):
    """Compositions learn faster than anything else."""

    def _train(self, training: Job) -> JobResult:
        result = super()._train(training)
        more = 20.0 * (";" in str(training.policy))
        tests = [replace(m, top1=min(99.9, (m.top1 or 0.0) + more)) for m in result.measurements]
        return replace(result, measurements=tests)


@pytest.mark.parametrize("goal", ["accuracy", "cost"])
def test_a_composition_that_is_better_becomes_a_finalist(tmp_path: Path, goal: str) -> None:
    target = 60.0 if goal == "cost" else None
    _, outcome = tune(tmp_path, ComposingPool(), compose=True, goal=goal, target_top1=target)
    assert any(";" in str(trained.policy) for trained in outcome.finalists)


def test_copies_of_the_data_are_removed_where_nothing_could_be_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[bool] = []
    copies: Any = SimpleNamespace(
        solver="study/holdout/solver.prototxt", records=1000, held=100, seed=1, digest="x",
        make=lambda say: None, remove=lambda: removed.append(True),
    )  # fmt: skip
    asked = prepared(tmp_path)
    asked = replace(asked, holdout=copies, plan=replace(asked.plan, holdout=0.1))
    monkeypatch.setattr(running, "open_pool", lambda *args: BlindPool())
    with pytest.raises(TrainingError, match="learned"):
        running.carry_out(asked, TuningObserver())
    assert removed == [True]


class BlindPool(RulePool):
    """Nothing learns anything."""

    def _train(self, training: Job) -> JobResult:
        result = super()._train(training)
        return replace(result, measurements=[replace(m, top1=10.0) for m in result.measurements])
