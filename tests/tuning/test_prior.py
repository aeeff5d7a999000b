"""What a tuning takes from the LR database: only what learned, from the same start."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from lrbench_caffe.knowledge.evidence import Wanted
from lrbench_caffe.records import SCRATCH, UNKNOWN_START, Start
from lrbench_caffe.training import choosing
from lrbench_caffe.tuning import prior as experience
from lrbench_caffe.tuning.measure import Measure
from lrbench_caffe.tuning.prior import Prior
from tests.knowledge.tasks import DIGITS, LENET_DIGITS, Memory, paper_memory
from tests.knowledge.test_trials import diverged, fix

MAX_ITER = 2000


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    """The paper's results, and what a test adds."""
    found = paper_memory()

    @contextlib.contextmanager
    def opened(_: object, **__: object) -> Iterator[Memory]:
        yield found

    monkeypatch.setattr(experience, "open_database", opened)
    monkeypatch.setattr(choosing, "solver_settings", lambda _: LENET_DIGITS)
    return found


def look_up(names: tuple[str, ...] = ("FIX", "SIN2", "STEP"), start: Start = SCRATCH) -> Prior:
    solver: Any = SimpleNamespace(epoch=25.94)
    wanted, top1 = Wanted(DIGITS, start), Measure.of_top1(10.0)
    return experience.look_up(None, wanted, solver, MAX_ITER, names, print, top1)


GOOD = [fix(0.002, 90.0), fix(0.01, 95.0), fix(0.03, 94.0), fix(0.1, 60.0), diverged(0.5)]


def test_own_results_that_bracket_the_best_are_the_range(memory: Memory) -> None:
    memory.add(DIGITS, *GOOD)
    found = look_up(("FIX",))
    assert found.policies[0][0] == "FIX(k0=0.01)"
    assert "Top-1 95.00 %" in found.policies[0][1]
    assert found.good is not None
    assert (found.good.low, found.good.high) == (0.002, 0.1)


def test_results_of_whole_trainings_of_this_length_are_kept(memory: Memory) -> None:
    memory.add(DIGITS, *GOOD)
    found = look_up(("FIX",))
    assert ("FIX(k0=0.01)", 95.0) in found.results
    assert "FIX(k0=0.5)" not in dict(found.results)  # it diverged
    assert Prior.from_json(found.as_json()) == found
    old = found.as_json()
    del old["results"]  # a study of a former version
    assert Prior.from_json(old).results == ()


def test_results_with_other_settings_are_not_those_of_this_training(memory: Memory) -> None:
    """They are tried first all the same."""
    other = replace(LENET_DIGITS, momentum=0.5, weight_decay=0.01)
    memory.add(DIGITS, *(replace(one, solver=other) for one in GOOD))
    found = look_up(("FIX",))
    assert "FIX(k0=0.01)" in dict(found.policies)
    assert found.results == ()


def test_nothing_above_the_range_is_proposed(memory: Memory) -> None:
    top = 0.07
    memory.add(DIGITS, *(fix(lr, top1) for lr, top1 in ((0.002, 90.0), (0.03, 95.0), (top, 94.9))))
    memory.add(DIGITS, diverged(0.5))
    good = look_up(("FIX",)).good
    assert good is not None and (good.high, good.above) == (top, pytest.approx(top, rel=1e-12))


def test_three_bad_trials_do_not_narrow_the_range_and_are_not_tried_first(memory: Memory) -> None:
    memory.add(DIGITS, *(fix(lr, top1) for lr, top1 in ((1e-5, 12.0), (2e-5, 15.0), (6e-5, 20.0))))
    found = look_up()
    assert found.good is None
    texts = [text for text, _ in found.policies]
    assert texts and not [text for text in texts if "e-05" in text]
    assert texts[0].startswith("SIN2(")  # of MNIST


@pytest.mark.parametrize(
    "start",
    [Start("weights", "ab" * 16, 2, 4), Start("snapshot", "cd" * 16, iteration=500), UNKNOWN_START],
)
def test_results_of_another_start_do_not_count(memory: Memory, start: Start) -> None:
    without = look_up()
    results = [
        fix(lr, top1, start=start) for lr, top1 in ((2e-4, 95.1), (6e-4, 95.2), (2e-3, 95.0))
    ]
    memory.add(DIGITS, *results)
    assert look_up() == without
    if start.known:  # they count for an equal one
        assert look_up(start=start).policies[0][0] == "FIX(k0=0.0006)"


def test_what_fine_tuned_well_from_other_weights_is_tried_first_but_narrows_nothing(
    memory: Memory,
) -> None:
    other = Start("weights", "ab" * 16, 2, 4)
    results = [
        fix(lr, top1, start=other) for lr, top1 in ((2e-4, 94.1), (6e-4, 95.2), (2e-3, 93.0))
    ]
    memory.add(DIGITS, *results, *GOOD)
    found = look_up(("FIX",), start=Start("weights", "ef" * 16, 2, 4))
    texts = [text for text, _ in found.policies]
    assert texts[0] == "FIX(k0=0.0006)"
    assert "FIX(k0=0.01)" not in texts  # the best from scratch
    assert found.good is None and found.results == ()
    assert "FIX(k0=0.0006)" not in [text for text, _ in look_up(("FIX",)).policies]


def test_weights_of_which_the_net_takes_none_are_random_ones(memory: Memory) -> None:
    tuned = Start("weights", "ab" * 16, 2, 4)
    results = [
        fix(lr, top1, start=tuned) for lr, top1 in ((2e-4, 95.1), (6e-4, 95.2), (2e-3, 95.0))
    ]
    memory.add(DIGITS, *results, *GOOD)
    none_of_it = Start("weights", "ef" * 16, 0, 4)
    texts = [text for text, _ in look_up(("FIX",), start=none_of_it).policies]
    assert texts[0] == "FIX(k0=0.01)"  # the best from scratch
    assert "FIX(k0=0.0006)" not in texts


def test_what_was_given_comes_before_what_is_known(memory: Memory) -> None:
    memory.add(DIGITS, *GOOD)
    known = look_up(("FIX",))
    assert known.good is not None and known.policies[0][0] == "FIX(k0=0.01)"
    both = known.with_given(["FIX(k0=0.03)", "FIX(k0=0.7)"], [0.004, 0.4])
    assert [text for text, _ in both.policies[:3]] == [
        "FIX(k0=0.03)",
        "FIX(k0=0.7)",
        "FIX(k0=0.01)",
    ]
    assert [why for _, why in both.policies[:2]] == ["given", "given"]
    texts = [text for text, _ in both.policies]
    assert len(set(texts)) == len(texts)
    good = both.good
    assert good is not None and (good.low, good.best, good.high) == (0.004, 0.04, 0.4)
    assert good.above == pytest.approx(0.4, rel=1e-12)  # nothing above it is proposed
    assert Prior.from_json(both.as_json()) == both
    assert known.with_given([], []) == known
