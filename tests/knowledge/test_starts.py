"""What trainings began with: only equal starts are pooled, compared and promised."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lrbench_caffe.errors import InputError
from lrbench_caffe.knowledge.proposing import recommend
from lrbench_caffe.knowledge.recommendation import Recommendation
from lrbench_caffe.records import SCRATCH, UNKNOWN_START, Spread, Start
from lrbench_caffe.training.beginning import check_before_end
from tests.knowledge.summaries import summary
from tests.knowledge.tasks import DIGITS, LENET_DIGITS, MNIST_HERE, Memory, paper_memory

WEIGHTS = Start("weights", "a" * 32, 4, 4, name="mnist.caffemodel")
OTHER_WEIGHTS = Start("weights", "b" * 32, 4, 4, name="other.caffemodel")
SNAPSHOT = Start("snapshot", "c" * 32, iteration=500, name="x.solverstate")
HERE = {"solver": LENET_DIGITS, "max_iter": 2000, "epoch": 25.94, "iterations": 1000}


def digits(
    *results, start: Start = SCRATCH, memory: Memory | None = None, **other
) -> Recommendation:
    memory = Memory() if memory is None else memory
    memory.add(DIGITS, *results)
    return recommend(
        memory, DIGITS, start=start, solver=LENET_DIGITS, max_iter=2000, epoch=25.94, **other
    )


def fix(lr: float, top1: float, start: Start = SCRATCH):
    return summary(f"FIX(k0={lr})", top1, start=start, **HERE)


def texts(found: Recommendation) -> list[str]:
    return [str(proposal.policy) for proposal in found.proposals]


def test_a_continued_run_promises_nothing_to_a_training_from_scratch():
    """It was "expected 95.08 %", and ended at 72 %."""
    found = digits(fix(0.0002, 95.08, SNAPSHOT), memory=paper_memory(), top=3)
    assert "FIX(k0=0.0002)" not in texts(found) and found.compared == 0
    (alone,) = digits(fix(0.0002, 95.08, SNAPSHOT)).proposals
    assert alone.expected is None and alone.unknown == ("the start differs",)
    assert (
        ", from snapshot x.solverstate, iteration 500, digits / LeNet_digits" in alone.evidence[0]
    )


def test_for_a_training_from_the_same_snapshot_it_is_promised():
    same = replace(SNAPSHOT, name="moved.solverstate")  # the name is no part of it
    (proposal,) = digits(fix(0.0002, 95.08, SNAPSHOT), start=same).proposals
    assert proposal.expected.mean == 95.08


@pytest.mark.parametrize(
    ("start", "order"),
    [
        (SCRATCH, ["FIX(k0=0.01)", "FIX(k0=0.0001)", "FIX(k0=0.0002)", "FIX(k0=0.5)"]),
        (WEIGHTS, ["FIX(k0=0.0001)", "FIX(k0=0.0002)", "FIX(k0=0.01)", "FIX(k0=0.5)"]),
        (OTHER_WEIGHTS, ["FIX(k0=0.0002)", "FIX(k0=0.0001)", "FIX(k0=0.01)", "FIX(k0=0.5)"]),
    ],
)
def test_the_same_start_first_then_its_kind_and_an_unknown_one_last(start, order):
    results = [fix(0.01, 90.0), fix(0.0001, 97.0, WEIGHTS), fix(0.0002, 96.0, OTHER_WEIGHTS)]
    found = digits(*results, fix(0.5, 99.0, UNKNOWN_START), start=start)
    assert sorted(texts(found)) == sorted(order)
    if start != SCRATCH:
        # One result is too few: the best from weights of other content comes first, the own one
        # follows.
        order = [order[1], order[0], *order[2:]]
    assert texts(found) == order
    promised = [str(p.policy) for p in found.proposals if p.expected]
    assert promised == [
        {SCRATCH: "FIX(k0=0.01)", WEIGHTS: "FIX(k0=0.0001)"}.get(start, "FIX(k0=0.0002)")
    ]
    assert "from an unknown start" in found.proposals[-1].evidence[0]
    assert found.proposals[-1].unknown == ("its start is unknown",)


def test_unknown_starts_are_equal_to_nothing_not_even_each_other():
    found = digits(fix(0.5, 99.0, UNKNOWN_START), start=UNKNOWN_START)
    assert found.compared == 0 and found.proposals[0].expected is None


def test_a_similar_task_from_scratch_comes_before_this_one_from_other_starts():
    memory = Memory()
    memory.add(MNIST_HERE, summary("FIX(k0=0.02)", 99.0, iterations=4000))
    found = digits(fix(0.0002, 95.0, SNAPSHOT), memory=memory)
    assert [p.main.task.title for p in found.proposals] == [
        "mnist / LeNet_MNIST",
        "digits / LeNet_digits",
    ]


def test_what_failed_from_another_start_says_nothing_against_a_policy():
    memory = paper_memory()
    sin2 = "SIN2(k0=0.01, k1=0.06, l=86)"
    lost = summary(sin2, None, start=WEIGHTS, **{**HERE, "runs": 0, "repeats": 0, "diverged": 5})
    found = digits(lost, memory=memory)
    assert texts(found)[0] == sin2 and found.passed_over == ()
    assert sin2 not in texts(digits(memory=memory, start=WEIGHTS))


@pytest.mark.parametrize(("start", "at"), [(WEIGHTS, 0), (SNAPSHOT, 500)])
def test_a_policy_that_improved_nothing_is_not_proposed_and_a_line_says_so(start, at):
    result = replace(fix(0.001, 95.2, start), iterations=Spread(float(at), None))
    found = digits(result, start=start)
    assert not found.proposals
    assert "FIX(k0=0.001), brought no improvement: Top-1 95.20 % (1 training)" in found.remarks[0]
    (proposal,) = digits(replace(result, iterations=Spread(at + 1.0, None)), start=start).proposals
    assert "before the first update" not in proposal.evidence[1]


def tuned(lr: float, top1: float, at: int, start: Start = WEIGHTS):
    return summary(f"FIX(k0={lr})", top1, start=start, **{**HERE, "iterations": at})


@pytest.mark.parametrize("first", [94.0, None], ids=["tested before", "not tested before"])
def test_fine_tuning_that_improves_nothing_is_no_experience(first):
    """They have the 94 % of the weights that they began with, and an update is too small to change that."""
    memory = Memory(before={WEIGHTS: first})
    idle = [tuned(k * 1e-9, 94.0, 0 if first else 100) for k in (1, 2, 3)]
    found = digits(*idle, start=WEIGHTS, memory=memory)
    assert not found.experienced and not found.proposals
    assert "brought no improvement: Top-1 94.00 % (1 training)" in found.set_aside[0]
    assert found.remarks[-1].endswith(
        "before the first update: FIX(k0=1e-09), FIX(k0=2e-09), FIX(k0=3e-09)"
    )


@pytest.mark.parametrize(("best", "experienced"), [(94.05, False), (94.5, False), (94.7, True)])
def test_fine_tuning_learned_by_what_it_adds_to_the_weights(best, experienced):
    """94 + (100 - 94) / 10 = 94.6 count."""
    memory = Memory(before={WEIGHTS: 94.0})
    results = [tuned(1e-4, 94.0, 0), tuned(1e-3, best, 800), tuned(1e-2, 80.0, 800)]
    found = digits(*results, start=WEIGHTS, memory=memory)
    assert found.experienced == experienced
    assert "FIX(k0=0.0001)" not in texts(found)
    assert ("FIX(k0=0.001)" in texts(found)) == (best > 94.06)  # a hundredth of the 6 points


def test_a_continued_run_whose_best_test_is_the_snapshots_own_is_not_proposed():
    own = [tuned(k * 1e-3, 97.0 - k, 500, SNAPSHOT) for k in (1, 2, 3)]
    found = digits(*own, start=SNAPSHOT)
    assert not found.proposals and not found.experienced
    elsewhere = digits(*own, start=SCRATCH)
    assert not elsewhere.proposals and elsewhere.other_starts and elsewhere.compared == 0


def test_fine_tuning_by_a_loss_is_measured_by_the_weights_own():
    memory = Memory(before={WEIGHTS: 1.0})
    results = [
        summary(f"FIX(k0={k0})", None, test_loss=loss, start=WEIGHTS, **HERE)
        for k0, loss in ((1e-9, 0.9999), (2e-9, 0.9998), (3e-9, 0.9997))
    ]
    regression = replace(DIGITS, task_type="other")
    memory.add(regression, *results)
    found = recommend(
        memory, regression, start=WEIGHTS, solver=LENET_DIGITS, max_iter=2000, epoch=25.94
    )
    assert not found.proposals and "brought no improvement" in found.set_aside[0]


def test_the_terminal_says_that_results_are_of_another_start():
    own = fix(0.001, 95.2, WEIGHTS)
    assert digits(own).known == (
        "in the database: no result from this start; proposals are from another start"
    )
    assert "no result from this start; proposals are from the most similar one" in (
        digits(own, memory=paper_memory()).known
    )
    assert "no result on this task" in digits(memory=paper_memory()).known


def test_nothing_is_left_to_train_from_a_snapshot_at_the_end():
    check_before_end("x.solverstate", 399, 400)
    for iteration in (400, 500):
        with pytest.raises(
            InputError, match=f"x.solverstate is at iteration {iteration}; max_iter is 400"
        ):
            check_before_end("x.solverstate", iteration, 400)
