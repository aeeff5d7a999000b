"""Policies that are known are tried first, and what is not tried is said."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lrbench_caffe.lr import parse
from lrbench_caffe.tuning.prior import Prior
from lrbench_caffe.tuning.report import training_rows, write_report
from lrbench_caffe.tuning.verdict import judge
from tests.tuning.rule_pool import MAX_ITER, RulePool, tune

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
        "the budget of 1 iteration was used up by "
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
