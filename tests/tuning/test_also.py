"""Other settings beside the LR policy: their combinations, which is tried next, and how they are judged."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lrbench_caffe.errors import InputError, ParameterError
from lrbench_caffe.jobs import Job, JobResult
from lrbench_caffe.knowledge.adaptation import TrainingContext, change_between
from lrbench_caffe.lr import parse
from lrbench_caffe.prototxt.solver import caffe_policy
from lrbench_caffe.records import SCRATCH, SolverSettings
from lrbench_caffe.terminal import cli
from lrbench_caffe.terminal.tuning_flags import add_flags, tuning_request
from lrbench_caffe.tuning import chooser
from lrbench_caffe.tuning.also import (
    Combination,
    Combinations,
    check_also,
    parse_also,
    words_of,
)
from lrbench_caffe.tuning.chooser import CombinationChooser
from lrbench_caffe.tuning.outer import OuterTuner
from lrbench_caffe.tuning.outer_report import outer_json, to_judge, trial_rows
from lrbench_caffe.tuning.plan import TuningPlan
from lrbench_caffe.tuning.report import cost_rows, finalist_rows, training_rows
from lrbench_caffe.tuning.request import TuningRequest
from lrbench_caffe.tuning.side_studies import SideStudy, texts
from lrbench_caffe.tuning.space import functions
from lrbench_caffe.tuning.study import Study
from lrbench_caffe.tuning.trainings import ALSO, COMBINATIONS, OWN
from lrbench_caffe.tuning.tuner import TuningOutcome
from lrbench_caffe.tuning.verdict import judge, tops
from tests.tuning.rule_pool import RulePool, measurement

MAX_ITER, INTERVAL = 1000, 50
OWN_VALUES = {"batch": 50, "momentum": 0.9, "weight_decay": 0.0005}


# -- what is asked for -----------------------------------------------------------------------------


def test_the_values_of_the_flags() -> None:
    found = check_also(parse_also(["weight-decay=1e-4, 0", "batch=32,64,32"]))
    assert found == {"batch": (32, 64), "weight_decay": (0.0001, 0.0)}
    assert list(found) == ["batch", "weight_decay"]  # in an order of its own
    assert texts(found) == ("batch=32,64", "weight_decay=0.0001,0.0")
    assert parse_also(None) is None and check_also(None) is None and texts(None) == ()


def test_a_folder_tells_its_combination() -> None:
    values = {"batch": 64, "momentum": 0.8, "weight_decay": 1e-05}
    for n in (1, 2, 3):
        one = Combination.of(dict(list(values.items())[-n:]))
        assert words_of(one.folder) == str(one)
    assert words_of("batch64-weight_decay1e-05") == "batch=64, weight_decay=1e-05"


def test_the_flags_and_the_parameter_of_the_api_are_one() -> None:
    parser = cli.Parser()
    add_flags(parser)
    words = ["x.prototxt", "--also", "momentum=0.8,0.9", "--also", "batch=64"]
    typed = tuning_request(parser.parse_args(words))
    values = {"batch": np.array([64]), "momentum": [np.float64(0.8), 0.9]}
    assert typed.also == TuningRequest(Path("x.prototxt"), also=values).also
    assert typed.also == {"batch": (64,), "momentum": (0.8, 0.9)}


@pytest.mark.parametrize(
    ("also", "words"),
    [
        (["lr=0.1"], "unknown name 'lr'; allowed: batch, momentum, weight_decay"),
        (["momentm=0.1"], "unknown name 'momentm'; did you mean 'momentum'?"),
        (["batch"], "'batch'; allowed: NAME=VALUE,VALUE"),
        (["batch=32", "batch=64"], "batch is given twice"),
        (["batch=1.5"], "batch=1.5; allowed: whole numbers that are 1 or more"),
        (["batch=0"], "batch=0; allowed: whole numbers"),
        (["batch=-1"], "batch=-1; allowed: whole numbers"),
        (["batch=many"], "batch=many; allowed: whole numbers"),
        (["batch=99999999999"], "batch=99999999999; allowed: whole numbers"),
        (["batch="], "batch=; allowed: whole numbers"),
        (["momentum=1"], "momentum=1; allowed: numbers from 0 to 1, 1 excluded"),
        (["momentum=-0.1"], "momentum=-0.1; allowed: numbers from 0 to 1"),
        (["momentum=nan"], "momentum=nan; allowed: numbers from 0 to 1"),
        (["weight_decay=inf"], "weight_decay=inf; allowed: numbers that are 0 or more"),
        (["weight_decay=-1"], "weight_decay=-1; allowed: numbers that are 0 or more"),
        (["weight_decay=1e300"], "weight_decay=1e300; allowed: numbers that are 0 or more, up to 3.4e38"),
        (["weight_decay=1e-60"], "weight_decay=1e-60 is 0 to Caffe, whose numbers are float32; allowed:"),
        (["momentum=0.999999999999"], "momentum=0.999999999999; allowed: numbers from 0 to 1, 1 excluded"),
    ],
)  # fmt: skip
def test_wrong_values_are_one_line(also: list[str], words: str) -> None:
    with pytest.raises(ParameterError, match=f"^also: {re.escape(words)}") as error:
        TuningRequest(Path("x.prototxt"), also=parse_also(also))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "also", [{}, [1], "batch=32", {"batch": []}, {"batch": True}, {"batch": [1.5]}]
)
def test_what_is_no_choice(also: Any) -> None:
    with pytest.raises(ParameterError, match="^also: "):
        TuningRequest(Path("x.prototxt"), also=also)


def test_iterations_with_other_settings_do_not_compare() -> None:
    with pytest.raises(ParameterError, match="also: .*allowed: goal accuracy"):
        TuningRequest(Path("x.prototxt"), also={"batch": [1]}, goal="cost")


def test_the_own_values_are_always_among_them() -> None:
    found = Combinations.of({"momentum": (0.8, 0.9), "batch": (100,)}, OWN_VALUES)
    assert str(found.own) == "batch=50, momentum=0.9"
    assert [one.folder for one in found] == [
        "batch50-momentum0.9", "batch50-momentum0.8", "batch100-momentum0.9", "batch100-momentum0.8",
    ]  # fmt: skip
    assert len(found) == 4
    assert found.own == Combination.of({"momentum": 0.9, "batch": 50})
    assert found.own.get("weight_decay") is None


# -- which one is tried next -----------------------------------------------------------------------


def many() -> Combinations:
    also = {"batch": (25, 100, 200), "momentum": (0.0, 0.5, 0.95), "weight_decay": (0.0, 0.01)}
    return Combinations.of(also, OWN_VALUES)


def score(combination: Combination) -> float:
    """Each setting has a best value of its own."""
    best = {"batch": 100, "momentum": 0.5, "weight_decay": 0.0}
    return 90.0 + sum(2.0 * (value == best[name]) for name, value in combination.values)


def order(most: int, seed: int, among: Combinations | None = None) -> list[Combination]:
    """What is asked for, with two in flight; the third one is lost."""
    choose = CombinationChooser(among or many(), most, seed)
    asked: list[Combination] = []
    told = 0
    while True:
        while len(asked) - told < 2 and (chosen := choose.ask()) is not None:
            asked.append(chosen)
        if told == len(asked):
            return asked
        choose.tell(asked[told], None if told == 2 else score(asked[told]))
        told += 1


def few() -> Combinations:
    """12: near the end of more, Optuna takes seconds to propose each that is left."""
    return Combinations.of({"batch": (25, 100, 200), "momentum": (0.0, 0.5)}, OWN_VALUES)


@pytest.mark.parametrize("most, among, tried", [(2, many(), 2), (12, many(), 12), (99, few(), 12)])
def test_each_is_tried_once_the_own_one_first(most: int, among: Combinations, tried: int) -> None:
    pytest.importorskip("optuna")
    asked = order(most, seed=3, among=among)
    assert asked[0] == among.own
    assert len(set(asked)) == len(asked) == tried


def test_the_order_is_a_function_of_the_seed_and_of_what_was_told() -> None:
    pytest.importorskip("optuna")
    assert order(20, seed=1) == order(20, seed=1)
    assert order(20, seed=1) != order(20, seed=2)


def test_what_was_told_decides_on_what_follows() -> None:
    """Of 48 combinations 4 have two of the best values or more besides each other's; the second half
    of 20 trials has more of them than the first, over ten seeds."""
    pytest.importorskip("optuna")
    orders = [order(20, seed) for seed in range(10)]
    first, second = (
        sum(score(one) for found in orders for one in found[part])
        for part in (slice(10), slice(10, 20))
    )
    assert second > first


def test_without_optuna_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chooser.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"^also needs .* pip install 'lrbench-caffe\[also\]'$"):
        chooser.check_installed()


def test_values_that_are_one_float32_are_one() -> None:
    also = check_also(parse_also(["momentum=0.8,0.90000000001,0.80000000001", "batch=16777217"]))
    assert also == {"momentum": (0.8, 0.90000000001), "batch": (16777217,)}
    found = Combinations.of(also, {**OWN_VALUES, "batch": 16777216})
    assert found.values == {"batch": (16777216, 16777217), "momentum": (0.9, 0.8)}


# -- the stages ------------------------------------------------------------------------------------


class SettingsPool(RulePool):
    """Trains at once: Top-1 is best where the sum of LRs is 20, and has what the settings add.

    Args:
        adds: Top-1 of each combination's folder beyond that of the solver's own settings.
    """

    slots = 2

    def __init__(self, adds: dict[str, float]) -> None:
        super().__init__()
        self._adds = adds

    def _train(self, training: Job) -> JobResult:
        length = training.max_iter or 0
        until = training.until or length
        rates = np.asarray(parse(str(training.policy)).bind(length)(np.arange(length)))
        spent = np.cumsum(rates) * MAX_ITER / length
        folder = Path(training.solver).parent.name
        added = self._adds.get(folder, 0.0)
        tests = range(training.test_interval or 1, until + 1, training.test_interval or 1)
        tops = [
            80.0 - abs(np.log(spent[t - 1] / 20.0)) + added - 0.01 * training.seed for t in tests
        ]
        measured = [measurement(t, float(top)) for t, top in zip(tests, tops)]
        if added < -50:
            return JobResult(training, "diverged", "the loss of iteration 20 is nan", 20)
        status = "finished" if until == length else "stopped"
        return JobResult(training, status, None, until, 1.0, measured)


def open_study(main: Study, combination: Combination) -> SideStudy:
    """The study of a combination of batch and momentum, by the rules of ``prototxt.variant``."""
    batch, momentum = combination.get("batch") or 50, combination.get("momentum") or 0.9
    lr = 0.01 * batch / 50 * (1 - momentum) / 0.1
    old, new = (
        TrainingContext("", SolverSettings("SGD", int(b), 1, k0, m, 0.0), length, length / 40)
        for b, k0, m, length in (
            (50, 0.01, 0.9, MAX_ITER),
            (batch, lr, momentum, MAX_ITER * 50 // int(batch)),
        )
    )
    folder = main.folder / ALSO / combination.folder
    plan = TuningPlan(
        str(folder / "solver.prototxt"), new.max_iter, INTERVAL * 50 // int(batch), new.epoch, 10.0, 1,
        functions=main.plan.functions, seeds=main.plan.seeds, top=main.plan.top, slots=main.plan.slots,
    )  # fmt: skip
    study = Study(
        folder, plan, main.pool, db="", beside=main, settings=str(combination), scale=batch / 50
    )
    return SideStudy(combination, study, change_between(old, new))


COMBINATIONS_OF = Combinations.of({"batch": (100,), "momentum": (0.8,)}, OWN_VALUES)


def tune(
    folder: Path, adds: dict[str, float], pool: type[SettingsPool] = SettingsPool, **more: Any
) -> tuple[Study, TuningOutcome, SettingsPool]:
    options = {"functions": functions("decaying"), "seeds": 2, "top": 2, **more}
    plan = TuningPlan("solver.prototxt", MAX_ITER, INTERVAL, 25.0, 10.0, 1, **options)
    trainer = pool(adds)
    message = SimpleNamespace(
        lr_policy="fixed", base_lr=0.01, gamma=0.0, power=0.0, stepsize=0, stepvalue=[],
        max_iter=MAX_ITER,
    )  # fmt: skip
    solver: Any = SimpleNamespace(
        message=message, path=Path("solver.prototxt"), epoch=25.0,
        lr_policy=lambda max_iter: caffe_policy(message, max_iter),
    )  # fmt: skip
    study = Study(folder, plan, trainer, db="", settings=f"your own {COMBINATIONS_OF.own}")
    wanted: Any = SimpleNamespace(start=SCRATCH)
    tuner = OuterTuner(study, wanted, solver, None, COMBINATIONS_OF, open_study)
    return study, tuner.tune(), trainer


def test_better_settings_are_found_searched_and_recommended(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    study, outcome, _ = tune(tmp_path / "study", {"batch100-momentum0.8": 5.0})
    outer = outcome.outer
    assert outer is not None
    assert str(outer.best) == "batch=100, momentum=0.8"
    assert outer.trials[0].combination == COMBINATIONS_OF.own
    assert len(outer.trials) == 4
    # The same policy everywhere: half the iterations with twice the batch; LRs x 2, and x 0.2 / 0.1.
    k0 = {str(t.combination): t.policy.params["k0"] for t in outer.trials}  # type: ignore[attr-defined]
    own = k0["batch=50, momentum=0.9"]
    assert k0["batch=100, momentum=0.9"] == pytest.approx(2 * own)
    assert k0["batch=50, momentum=0.8"] == pytest.approx(2 * own)
    assert k0["batch=100, momentum=0.8"] == pytest.approx(4 * own)
    verdict = judge(study.plan, outcome.finalists, outcome.baseline)
    # Two finalists with them, and the best policy with the solver's own settings to compare with.
    assert [trained.settings for trained in outcome.finalists] == [
        "batch=100, momentum=0.8", "batch=100, momentum=0.8", study.settings,
    ]  # fmt: skip
    mine = outcome.finalists[-1]
    assert set(mine.results) == {1, 2} and mine is not outcome.baseline
    judged, note = to_judge(study, outcome)
    first, second = (
        np.mean([test.top1 for test in tops(one, study.plan.measure)])
        for one in (outcome.finalists[0], mine)
    )
    assert judged == outcome.finalists
    assert note.startswith(f"other settings are better: {outcome.finalists[0].name} has ")
    assert f"{first - second:.2f} points of Top-1 more than {mine.name}: {first:.2f} ± " in note
    assert verdict.settings == "batch=100, momentum=0.8"
    assert "with batch=100, momentum=0.8: it has" in verdict.text
    assert "FIX(k0=0.01) with your own batch=50, momentum=0.9: " in verdict.text
    # The solver's own policy has its own settings, and all seeds.
    assert outcome.baseline is not None and set(outcome.baseline.results) == {1, 2}
    assert {r.training.solver for r in outcome.baseline.results.values()} == {"solver.prototxt"}
    told = outer_json(study, outer, verdict)
    assert told is not None
    assert told["recommended"] == told["best"] == {"batch": 100, "momentum": 0.8}
    assert told["solver"].endswith("study/recommended/solver.prototxt")
    rows = trial_rows(study.plan.measure, outer)
    assert rows[1][0] == "batch=100, momentum=0.8"
    assert [row[0] for row in rows if "(own)" in row[0]] == ["batch=50, momentum=0.9 (own)"]
    assert finalist_rows(study, outcome)[-1][1].endswith("with your own batch=50, momentum=0.9")


def test_iterations_are_counted_as_the_solvers_own(tmp_path: Path) -> None:
    """A training with twice the batch has half the iterations, and costs the same."""
    pytest.importorskip("optuna")
    study, outcome, pool = tune(tmp_path / "study", {"batch100-momentum0.9": 5.0})
    reached = {}
    for job in pool.submitted:
        scale = 2 if "batch100" in job.solver else 1
        reached[job.out] = max(reached.get(job.out, 0), scale * (job.until or job.max_iter or 0))
    assert study.iterations_asked_for == sum(outcome.spent.values()) == sum(reached.values())
    # Three combinations in full, and what was left of the training of the solver's own.
    assert 3 * MAX_ITER <= outcome.spent[COMBINATIONS] <= 4 * MAX_ITER
    assert ["combinations", f"{outcome.spent[COMBINATIONS]:,}"] in [
        row[:2] for row in cost_rows(study, outcome)
    ]
    # Nothing is trained twice.
    steps = Counter((job.out, job.until) for job in pool.submitted)
    assert max(steps.values()) == 1
    assert len(training_rows(study, outcome)) - 1 == len(reached)


def test_own_settings_that_are_the_best_continue_the_search(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    adds = dict.fromkeys(("batch100-momentum0.9", "batch50-momentum0.8"), -20.0)
    study, outcome, pool = tune(tmp_path / "study", {**adds, "batch100-momentum0.8": -99.0})
    outer = outcome.outer
    assert outer is not None and outer.best == COMBINATIONS_OF.own
    assert {trial.status for trial in outer.trials} == {"finished", "diverged"}
    assert [t.value for t in outer.trials if t.status == "diverged"] == [None]
    assert {trained.settings for trained in outcome.finalists} == {study.settings}
    elsewhere = {job.solver for job in pool.submitted} - {"solver.prototxt"}
    assert len(elsewhere) == 3
    assert sum(job.solver in elsewhere for job in pool.submitted) == 3  # no second search there
    assert outcome.spent["second search"] > 0
    verdict = judge(study.plan, outcome.finalists, outcome.baseline)
    told = outer_json(study, outer, verdict)
    assert told is not None and told["best"] == COMBINATIONS_OF.own.as_json()
    assert told["recommended"] == (None if verdict.policy is None else told["best"])


@pytest.mark.parametrize("budget", [1, 8_000, 30_000])
def test_the_budget_decides_how_many_are_tried(tmp_path: Path, budget: int) -> None:
    pytest.importorskip("optuna")
    _, outcome, _ = tune(tmp_path / "study", {}, budget=budget)
    assert outcome.outer is not None
    searches = outcome.spent["search"] + outcome.spent["second search"]
    if budget == 30_000:
        assert len(outcome.outer.trials) == 4
        assert sum(outcome.spent.values()) <= budget
    else:
        assert len(outcome.outer.trials) == 2  # the own one, and one other
        assert searches <= max(budget, 3 * MAX_ITER)


def test_the_smallest_budget_has_a_first_search(tmp_path: Path) -> None:
    """Known are constant LRs alone, of the range test: others have to be searched for."""
    pytest.importorskip("optuna")
    _, outcome, _ = tune(tmp_path / "study", {}, budget=1, functions=functions("cyclic"))
    assert outcome.spent["search"] > 0
    assert outcome.outer is not None and len(outcome.outer.trials) == 2


def test_settings_that_are_not_better_beyond_noise_are_not_recommended(tmp_path: Path) -> None:
    """With seed 1, which chooses, they are a point better; with the others they are not."""
    pytest.importorskip("optuna")
    study, outcome, _ = tune(tmp_path / "study", {"batch100-momentum0.8": 1.0}, seeds=3)
    (mine,) = (one for one in outcome.finalists if one.settings == study.settings)
    for one in outcome.finalists:
        if one is not mine:
            for seed in (2, 3):
                (*_, last) = one.results[seed].measurements
                one.results[seed].measurements[:] = [dataclasses.replace(last, top1=75.0)]
    judged, note = to_judge(study, outcome)
    assert judged == [mine] and note.startswith("other settings are not better beyond noise: ")
    verdict = judge(study.plan, judged, outcome.baseline, note)
    assert verdict.settings == study.settings and note in verdict.text
    told = outer_json(study, outcome.outer, verdict)
    assert told is not None and told["best"] == {"batch": 100, "momentum": 0.8}
    assert told["recommended"] in (None, told["own"])


def test_what_is_good_enough_needs_no_other_settings(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    study, outcome, pool = tune(tmp_path / "study", {}, target_top1=75.0)
    assert outcome.outer is not None and outcome.outer.trials == []
    assert {job.solver for job in pool.submitted} == {"solver.prototxt"}
    assert outcome.baseline is not None and len(outcome.baseline.results) == 2
    told = outer_json(study, outcome.outer, judge(study.plan, outcome.finalists, outcome.baseline))
    assert told is not None and told["trials"] == [] and told["best"] == told["own"]


def test_the_same_results_make_the_same_decisions(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    adds = {"batch100-momentum0.9": 1.0, "batch50-momentum0.8": 2.0}
    first, second = (tune(tmp_path / name, adds) for name in ("a", "b"))
    jobs = [
        [(job.out.partition("/trainings")[2], job.policy, job.until) for job in pool.submitted]
        for _, _, pool in (first, second)
    ]
    assert jobs[0] == jobs[1]


def test_a_lost_combination_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")
    from lrbench_caffe.jobs import retrying

    monkeypatch.setattr(retrying, "PAUSES", (0.0,))
    train = SettingsPool._train

    def losing(self: SettingsPool, training: Job) -> JobResult:
        if "momentum0.8" in training.solver:
            return JobResult(training, "failed", "killed by SIGSEGV", 0)
        return train(self, training)

    monkeypatch.setattr(SettingsPool, "_train", losing)
    study, outcome, _ = tune(tmp_path / "study", {})
    assert outcome.outer is not None
    lost = [one for one in study.lost if one.stage == COMBINATIONS]
    assert [one.counts for one in lost] == [
        f"whether {trial.combination} is better is unknown"
        for trial in outcome.outer.trials
        if trial.status == "failed"
    ]
    assert len(lost) == 2 and OWN not in {one.stage for one in study.lost}


class EdgePool(SettingsPool):
    """With the solver's own settings EXP, which begins high, is best and diverges with the second seed."""

    def _train(self, training: Job) -> JobResult:
        result = super()._train(training)
        if training.solver != "solver.prototxt" or "EXP(k0=10," not in str(training.policy):
            return result
        if training.seed == 2:
            return JobResult(training, "diverged", "the loss of iteration 20 is nan", 20)
        tests = [dataclasses.replace(m, top1=(m.top1 or 0.0) + 8.0) for m in result.measurements]
        return dataclasses.replace(result, measurements=tests)


def test_other_settings_are_compared_with_a_policy_that_did_not_diverge(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    study, outcome, _ = tune(
        tmp_path / "study", {"batch100-momentum0.8": 10.0}, pool=EdgePool, functions=("FIX", "EXP")
    )
    mine = [one for one in outcome.finalists if one.settings == study.settings]
    assert [one.diverged for one in mine] == [1, 0]  # the first one gave way
    _, note = to_judge(study, outcome)
    assert f"points of Top-1 more than {mine[1].name}: " in note


def test_without_a_policy_to_compare_with_the_note_says_so(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    study, outcome, _ = tune(tmp_path / "study", {"batch100-momentum0.8": 5.0})
    mine = next(one for one in outcome.finalists if one.settings == study.settings)
    mine.results[2] = JobResult(mine.results[2].training, "diverged", "nan", 20)
    _, note = to_judge(study, outcome)
    assert note == (
        f"nothing to compare other settings with: {mine.name} diverged in 1 of 2 trainings"
    )
