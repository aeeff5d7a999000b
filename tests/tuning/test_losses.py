"""Trainings that are lost or fail: what a study decides without them, and what it says of them."""

from __future__ import annotations

import hashlib
import io
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lrbench_caffe import tune as tune_command
from lrbench_caffe.errors import TrainingError
from lrbench_caffe.jobs import Job, JobResult
from lrbench_caffe.jobs.retrying import RETRIES
from lrbench_caffe.prototxt.messages import Messages
from lrbench_caffe.terminal.console import Console
from lrbench_caffe.terminal.tuning_tables import show_range
from lrbench_caffe.tuning import running
from lrbench_caffe.tuning.observer import TuningObserver
from lrbench_caffe.tuning.report import cost_rows, finalist_rows
from lrbench_caffe.tuning.request import RangeRequest
from lrbench_caffe.tuning.study import Study
from lrbench_caffe.tuning.trainings import FINAL, OWN, RANGE_TEST, SEARCH
from tests.tuning.rule_pool import (
    INTERVAL,
    MAX_ITER,
    RulePool,
    plan,
    prepared,
    report,
    result,
    tune,
)


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
    solver: Any = SimpleNamespace(weights=[], message=SimpleNamespace(max_iter=study.plan.max_iter))
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


@pytest.mark.ci
def test_a_failure_is_a_result_and_the_tuning_completes(tmp_path: Path) -> None:
    study, outcome = tune(tmp_path, RulePool(fails="^(TRI|EXP)"))
    failed = [r for t in study.known.values() for r in t.results.values() if r.status == "failed"]
    assert failed
    assert all(not t.policy.function.startswith(("TRI", "EXP")) for t in outcome.finalists)
    assert "failed: killed by SIGSEGV" in report(study, outcome)


@pytest.mark.ci
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


# As docs/tuning.md lists them.
RESULT_KEYS = {
    "solver", "goal", "by", "higher", "target", "target_top1", "start", "level", "stages", "max_iter",
    "test_interval", "seeds", "verdict", "finalists", "own", "also", "known", "range", "candidates",
    "untried", "why_untried", "budget", "iterations", "iterations_taken_over", "seconds", "holdout",
    "lost", "folder",
}  # fmt: skip


@pytest.mark.parametrize("stage", [RANGE_TEST, SEARCH])
def test_where_nothing_could_be_trained_what_was_lost_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def loses(training: Job) -> int:
        return 99 * (stage == RANGE_TEST or training.until != 2 * INTERVAL)

    reason, said = fail_to_tune(tmp_path, LosingPool(loses), monkeypatch)
    kept = json.loads((tmp_path / "result.json").read_text())
    assert (kept["failure"], kept["verdict"], kept["finalists"]) == (reason, None, [])
    assert set(kept) - {"failure"} == RESULT_KEYS
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
