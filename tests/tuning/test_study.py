"""A study's bookkeeping and a tuner's stages, with a pool that answers by rule instead of training."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lrbench_caffe.errors import InputError, TrainingError
from lrbench_caffe.jobs import Job, JobResult
from lrbench_caffe.jobs.naming import directory_name
from lrbench_caffe.jobs.opening import training_flags
from lrbench_caffe.lr import parse
from lrbench_caffe.progress import Progress
from lrbench_caffe.records import SCRATCH, Start
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.terminal.tuning_tables import train_line
from lrbench_caffe.tuning import running
from lrbench_caffe.tuning.measure import Measure
from lrbench_caffe.tuning.observer import TuningObserver
from lrbench_caffe.tuning.report import cost_rows, finalist_rows, write_report
from lrbench_caffe.tuning.request import RangeRequest, TuningRequest
from lrbench_caffe.tuning.space import FAMILIES
from lrbench_caffe.tuning.study import Study
from lrbench_caffe.tuning.trainings import settings_of
from lrbench_caffe.tuning.verdict import KEEP_OWN, judge, unsoundness
from tests.tuning.rule_pool import (
    INTERVAL,
    MAX_ITER,
    RulePool,
    measurement,
    plan,
    prepared,
    report,
    result,
    tune,
)

TOP1 = Measure.of_top1(10.0)


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


@pytest.mark.parametrize("slots", [1, 3, 8])
def test_the_order_in_which_trainings_end_changes_no_decision(tmp_path: Path, slots: int) -> None:
    last_first, first_first = RulePool(), RulePool(next_one=0)
    first_first.slots = 2
    tune(tmp_path / "last", last_first, slots=slots)
    tune(tmp_path / "first", first_first, slots=slots)
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
    kept = json.loads((tmp_path / "study.json").read_text())["plan"]
    assert (kept["budget"], kept["top"], kept["seeds"]) == (8000, 1, 3)  # as the web shows it
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


def test_without_cyclic_functions_nothing_is_kept_for_compositions(tmp_path: Path) -> None:
    decays = FAMILIES["decaying"]
    plain, asked = (
        tune(tmp_path / name, functions=decays, compose=compose)[1]
        for name, compose in (("plain", False), ("asked", True))
    )
    assert asked.spent == plain.spent and asked.composed == []


def test_what_was_kept_for_compositions_is_named(tmp_path: Path) -> None:
    _, outcome = tune(tmp_path, compose=True)
    assert "compositions (" in outcome.why_untried


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
    many = [f"; {at}: FIX(k0=0.{at})" for at in range(1, 100)]
    long = [directory_name(parse("FIX(k0=0.1) " + " ".join(many[:n])), 1) for n in (98, 99)]
    assert max(map(len, long)) < 130 and long[0] != long[1]


def test_settings_of_a_run(tmp_path: Path) -> None:
    for study in (tmp_path / "study", tmp_path / "also" / "mine"):  # a folder of that name is none
        combination = study / "also" / "batch-40"
        combination.mkdir(parents=True)
        (study / "study.json").touch()
        assert settings_of(combination / "trainings" / "fix-1-seed1") == "batch-40"
        assert settings_of(study / "trainings" / "fix-1-seed1") == ""


@pytest.mark.parametrize("request_of", [TuningRequest, RangeRequest])
def test_a_test_in_each_training(request_of: Any) -> None:
    solver: Any = SimpleNamespace(message=SimpleNamespace(test_interval=1000))
    ask = lambda interval: running._interval(  # noqa: E731
        request_of(Path("solver.prototxt"), test_interval=interval), solver, 1000
    )
    assert [ask(interval) for interval in (1, 1000, None)] == [1, 1000, 50]
    with pytest.raises(InputError, match="^test_interval: 1001; allowed: 1 to 1000, the length of"):
        ask(1001)


def test_a_range_tests_interval_may_be_as_long_as_its_trainings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """These are longer than the solver's own where they are asked for."""
    solver: Any = SimpleNamespace(message=SimpleNamespace(max_iter=2000, test_interval=100))
    lengths: list[tuple[int, int]] = []

    def planned(request: Any, solver: Any, wanted: Any, measure: Any, *more: int) -> Any:
        lengths.append((more[0], more[1]))
        return plan()

    monkeypatch.setattr(running, "_plan", planned)
    monkeypatch.setattr(running, "_measure", lambda *args: None)
    solver.tests = [None]
    for interval in (2500, 3000):
        request = RangeRequest(
            Path("solver.prototxt"), form="ladder", iterations=5000, test_interval=interval
        )
        wanted: Any = SimpleNamespace(task=None)
        running._range_plan(request, solver, wanted, lambda text: None)
    assert lengths == [(5000, 2500), (5000, 2500)]


def test_a_range_test_goes_on_with_as_many_ahead_as_it_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the LRs that it tries would depend on how many jobs there are then."""
    solver = SimpleNamespace(path=Path("solver.prototxt"))
    wanted = SimpleNamespace(task=SimpleNamespace(title="digits"))
    seen: list[int] = []

    def climb(request: RangeRequest, study: Study, *rest: Any) -> None:
        seen.append(study.plan.ahead)

    monkeypatch.setattr(running, "_open", lambda *args: (solver, wanted))
    monkeypatch.setattr(running, "_range_plan", lambda *args: replace(plan(), form="ladder"))
    monkeypatch.setattr(running, "climb", climb)
    for out, slots in (("range", 3), ("range", 8), ("range", 1), ("other", 8)):
        pool = RulePool()
        pool.slots = slots
        monkeypatch.setattr(running, "open_pool", lambda *args, pool=pool: pool)
        request = RangeRequest(solver.path, out=tmp_path / out, no_database=True)
        running.find_range(request, TuningObserver(), Progress())
    assert seen == [3, 3, 3, 8]


def test_more_finalists_than_candidates_are_not_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(TuningObserver, "say", lambda self, text: said.append(text))
    _, outcome = tune(tmp_path, functions=("POLY", "EXP", "INV", "COS"), top=400, budget=3000)
    candidates, finalists = len(outcome.candidates), len(outcome.finalists)
    assert finalists < candidates < 40
    most = next(text for text in said if text.startswith("this takes up to "))
    # Each of them and the solver's own with two seeds, the range test, and a search that is not cut short.
    least = (candidates + 1) * 2 * MAX_ITER
    assert least <= int(most.split(" ")[4].replace(",", "")) < least + 5 * MAX_ITER
    assert f"only {finalists} finalists: no other candidate is eligible" in said


def test_a_single_candidate_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(TuningObserver, "say", lambda self, text: said.append(text))
    monkeypatch.setattr("lrbench_caffe.tuning.tuner.candidates", lambda *args, **more: [])
    study, outcome = tune(tmp_path, top=1)
    assert any(text.startswith("1 candidate; all in full: 1,000 iterations") for text in said)
    assert cost_rows(study, outcome)[-1][0] == "1 candidate in full"


@pytest.mark.parametrize("name", ["policy", "values", "trainings", "iteration", "settings", "iou"])
def test_an_output_may_have_any_name_in_the_result(tmp_path: Path, name: str) -> None:
    class Named(RulePool):
        def _train(self, training: Job) -> JobResult:
            done = super()._train(training)
            tests = [replace(m, outputs={name: m.top1 or 0.0}) for m in done.measurements]
            return replace(done, measurements=tests)

    study, outcome = tune(tmp_path, Named(), functions=("POLY",), by=name)
    best = result(study, outcome)["finalists"][0]
    assert best["policy"] in {str(one.policy) for one in outcome.finalists}
    assert isinstance(best["values"], list) and best["trainings"] == 2
    place = best if name == "iou" else best["outputs"]
    assert place[name] == pytest.approx(sum(best["values"]) / 2)
    assert place[f"{name}_sd"] is not None


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
    target = 99.5 if goal == "cost" else None  # which no single policy has
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
