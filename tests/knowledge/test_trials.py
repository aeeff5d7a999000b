"""When results on the task itself are experience to choose from (docs/recommending.md)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lrbench_caffe.knowledge.proposing import recommend
from lrbench_caffe.knowledge.recommendation import Recommendation
from lrbench_caffe.knowledge.utility import Utility
from tests.knowledge.summaries import summary
from tests.knowledge.tasks import DIGITS, LENET_DIGITS, MNIST_HERE, Memory, paper_memory

MNISTS_BEST = "SIN2(k0=0.01, k1=0.06, l=86)"  # as adapted to the digits


def fix(lr: float, top1: float | None, max_iter: int = 2000, **other):
    at = None if top1 is None else max_iter
    defaults = {"solver": LENET_DIGITS, "max_iter": max_iter, "epoch": 25.94, "iterations": at}
    return summary(f"FIX(k0={lr})", top1, **{**defaults, **other})


def diverged(lr: float, **other):
    return fix(lr, None, runs=0, repeats=0, diverged=2, **other)


def on_digits(
    *results, max_iter: int = 2000, memory: Memory | None = None, **other
) -> Recommendation:
    memory = paper_memory() if memory is None else memory
    memory.add(DIGITS, *results)
    return recommend(memory, DIGITS, solver=LENET_DIGITS, max_iter=max_iter, epoch=25.94, **other)


def texts(found: Recommendation) -> list[str]:
    return [str(proposal.policy) for proposal in found.proposals]


@pytest.mark.parametrize("own", [[], [fix(0.01, 90.0)]], ids=["no results", "own results"])
def test_what_was_chosen_on_records_held_out_of_the_task_is_no_experience(own):
    data = replace(
        DIGITS.dataset, name="digits_holdout", train_samples=1167, test_samples=130, digest="rest"
    )
    held_out, result = replace(DIGITS, dataset=data), fix(0.05, 99.9, 300)
    memory = paper_memory()
    memory.add(held_out, result)
    found = on_digits(*own, memory=memory)
    assert "FIX(k0=0.05)" not in texts(found)
    assert all(task.dataset.name != "digits_holdout" for task, _ in found.similar)
    assert texts(found) == texts(on_digits(*own))
    # The same result on data that is no part of this task's is experience from a similar task.
    memory = paper_memory()
    memory.add(replace(DIGITS, dataset=replace(data, name="figures")), result)
    assert texts(on_digits(*own, memory=memory))[0] == "FIX(k0=0.05)"


BAD = [(1e-5, 12.0), (2e-5, 15.0), (3e-5, 20.0)]


@pytest.mark.parametrize("max_iter", [2000, 400], ids=["longer", "as long"])
def test_three_bad_trials_are_not_experience(max_iter):
    found = on_digits(*(fix(lr, top1, 400) for lr, top1 in BAD), max_iter=max_iter, top=3)
    assert not found.experienced and found.compared == 3
    assert all(proposal.main.task.title == "mnist / LeNet_MNIST" for proposal in found.proposals)
    assert len(found.proposals) == 3 and found.proposals[0].expected is None
    (why,) = [line for line in found.remarks if line.startswith("results on this task set aside: ")]
    if max_iter == 2000:
        assert "they have 400 iterations, this training has 2000 (the best, FIX(k0=3e-05): " in why
    else:  # of ten classes, min(sqrt(10 * 100), 10 + 90 / 4)
        assert why.endswith("Top-1 20.00 % (1 training); chance is 10.00 %, 31.62 % would count")


def test_a_short_training_promises_nothing_for_a_longer_one():
    found = on_digits(fix(0.01, 90.0, 400), top=50)
    (own,) = [p for p in found.proposals if p.main.same_task]
    assert own.expected is None
    assert own.evidence[-1].endswith("since this training is longer (2000 iterations, not 400)")


@pytest.mark.parametrize(
    ("results", "why"),
    [
        ([fix(0.01, 95.0), fix(0.02, 97.0), fix(0.04, 96.0)], None),
        ([fix(0.01, 95.0), fix(0.02, 97.0), diverged(0.04)], None),
        # A divergence bounds the LRs whatever its length.
        ([fix(0.01, 95.0), fix(0.02, 97.0), fix(0.015, 96.0), diverged(0.04, max_iter=200)], None),
        (
            [fix(0.01, 97.0), fix(0.02, 96.0), fix(0.04, 95.0)],
            "has the lowest LR of all that were tried",
        ),
        (
            [fix(0.01, 95.0), fix(0.02, 96.0), fix(0.04, 97.0)],
            "has the highest LR of all that were tried",
        ),
        ([fix(0.0199, 95.0), fix(0.02, 97.0), fix(0.0201, 96.0)], "has the highest LR"),
        (
            [fix(0.01, 95.0), fix(0.02, 97.0)],
            "2 policies were tried at a comparable length, too few",
        ),
        (
            [fix(0.01, 95.0), fix(0.02, 97.0), fix(0.04, 96.0, 900)],
            "2 policies were tried at a comparable",
        ),
        ([fix(0.01, 95.0), fix(0.02, 97.0), fix(0.04, 96.0, 1000)], None),
        # MNIST at similarity 0.72, its best at 99.31 with its risk: 10 + 0.72 * 0.9923 * 90 = 74.3
        ([fix(0.01, 60.0), fix(0.02, 73.0), fix(0.04, 70.0)], "(0.72) suggests about 74 %"),
        ([fix(0.01, 60.0), fix(0.02, 75.0), fix(0.04, 70.0)], None),
        # A single one of two that diverged: (97 + 10) / 2 = 53.5
        ([fix(0.01, 40.0), fix(0.02, 97.0, diverged=1), fix(0.04, 40.0)], "suggests about 74 %"),
    ],
)
def test_what_counts(results, why):
    found = on_digits(*results)
    assert found.experienced == (why is None)
    assert (texts(found)[0] == "FIX(k0=0.02)") == (why is None)
    if why:
        assert why in "; ".join(found.set_aside)
        assert texts(found)[0] == MNISTS_BEST
        assert found.proposals[1].main.same_task  # they learned, so they come second


def test_within_noise_of_the_best_is_bracketed_too():
    """0.04 leads 0.02 by 0.1; the standard error of the difference is sqrt(2 * 0.2^2 / 5 * 5 / 4) = 0.14."""
    five = {"sd": 0.2, "runs": 5, "repeats": 5}
    results = [fix(0.01, 90.0, **five), fix(0.02, 96.9, **five), fix(0.04, 97.0, **five)]
    assert on_digits(*results).experienced
    results[1] = fix(0.02, 96.7, **five)  # 0.3 is more than 0.28
    assert not on_digits(*results).experienced


def test_once_the_best_of_the_similar_task_was_tried_its_promise_is_settled():
    """Else a harder task than the similar one would never have experience."""
    results = [fix(0.01, 60.0), fix(0.02, 70.0), fix(0.04, 73.0)]
    assert not on_digits(*results).experienced
    tried = summary(
        MNISTS_BEST, 65.0, solver=LENET_DIGITS, max_iter=2000, epoch=25.94, iterations=2000
    )
    found = on_digits(*results, tried)
    assert found.experienced and texts(found)[0] == "FIX(k0=0.04)"


def test_results_of_a_much_longer_training_are_not_compared_with_ones_of_this_length():
    """FIX(0.08) needed 9000 iterations for its 98 %."""
    own = [fix(0.01, 90.0), fix(0.02, 93.0), fix(0.04, 91.0)]
    longer = fix(0.08, 98.0, 10_000, iterations=9000)
    assert texts(on_digits(*own, longer, top=4))[:4] == [
        *("FIX(k0=0.02)", "FIX(k0=0.04)", "FIX(k0=0.01)", "FIX(k0=0.08)")
    ]
    at_its_best_early = fix(0.08, 98.0, 10_000, iterations=1500)
    assert texts(on_digits(*own, at_its_best_early, fix(0.2, 50.0)))[0] == "FIX(k0=0.08)"


def test_alone_they_are_proposed_with_a_word():
    found = on_digits(fix(0.01, 95.0), fix(0.02, 97.0), memory=Memory())
    assert texts(found) == ["FIX(k0=0.02)", "FIX(k0=0.01)"]
    assert not found.experienced and "too few to choose from" in found.remarks[0]


def test_what_lost_here_is_not_proposed():
    """12 % of 2000 iterations is no policy, where others learned."""
    found = on_digits(fix(1e-5, 12.0), fix(0.01, 95.0), fix(0.02, 97.0), fix(0.04, 96.0), top=100)
    assert "FIX(k0=1e-05)" not in texts(found)


@pytest.mark.parametrize(
    ("classes", "least"), [(2, 62.5), (10, 31.6228), (100, 10.0), (1000, 3.16228), (None, None)]
)
def test_well_above_chance(classes, least):
    assert Utility.top1(classes).learned == (None if least is None else pytest.approx(least))


def test_the_papers_results_are_experience():
    found = recommend(paper_memory(), MNIST_HERE, solver=LENET_DIGITS, max_iter=10_000, epoch=600.0)
    assert found.experienced and found.compared == 10
