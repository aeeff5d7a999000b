"""What is proposed, and why."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import pytest

from lrbench_caffe.errors import InputError
from lrbench_caffe.knowledge.evidence import Wanted
from lrbench_caffe.knowledge.proposing import recommend
from lrbench_caffe.knowledge.recommendation import against
from lrbench_caffe.knowledge.trials import nearly_equal
from lrbench_caffe.knowledge.utility import Utility, caution, standard_error, usual_deviation
from lrbench_caffe.lr import PolicyError, parse
from lrbench_caffe.records import AT_PLACE, SCRATCH, Spread
from lrbench_caffe.terminal.recommendation_text import lines
from lrbench_caffe.training.recommending import Recommended
from tests.knowledge.summaries import summary
from tests.knowledge.tasks import (
    CNN3,
    DIGITS,
    LENET,
    LENET_DIGITS,
    MNIST,
    MNIST_HERE,
    Memory,
    paper_memory,
)

ON_MNIST = {"solver": LENET, "max_iter": 10_000, "epoch": 600.0}
ON_DIGITS = {"solver": LENET_DIGITS, "max_iter": 2000, "epoch": 25.94}
SIN2 = "SIN2(k0=0.01, k1=0.06, l=2000)"


def texts(recommendation) -> list[str]:
    return [str(proposal.policy) for proposal in recommendation.proposals]


# -- the two cases -------------------------------------------------------------------------


def test_mnist_on_a_fresh_database():
    found = recommend(paper_memory(), MNIST_HERE, **ON_MNIST)
    assert texts(found)[0] == SIN2
    first = found.proposals[0]
    assert first.main.same_task and first.changes == () and found.similar == ()
    assert (first.expected.mean, first.expected.sd, first.iterations) == (99.33, 0.02, 4000)
    assert first.evidence == (
        "Top-1 99.33 ± 0.02 % (5 trainings) on the same task (the same data by name and form), "
        "mnist / LeNet_MNIST (Wu et al. 2019, Table VII)",
        "highest Top-1 at iteration 4000 of 10000 (6.7 epochs)",
        "expected: Top-1 99.33 ± 0.02 %",
    )


def test_digits_on_a_fresh_database():
    found = recommend(paper_memory(), DIGITS, **ON_DIGITS)
    assert found.compared == 0
    assert [task.title for task, _ in found.similar] == ["mnist / LeNet_MNIST"]
    first = found.proposals[0]
    assert str(first.policy) == "SIN2(k0=0.01, k1=0.06, l=86)"
    assert str(first.original) == SIN2
    assert first.expected is None
    assert not first.main.same_task and first.main.similarity == pytest.approx(0.72, abs=0.005)
    text = "\n".join(first.evidence)
    assert (
        "on a similar task (0.72), mnist / LeNet_MNIST with SIN2(k0=0.01, k1=0.06, l=2000)" in text
    )
    assert "which is iteration 173 here" in text
    assert "l kept in epochs: 25.94 iterations in each instead of 600" in text
    assert "expected Top-1: not known, since the task differs" in text


def test_one_function_only():
    found = recommend(paper_memory(), DIGITS, functions=["sinexp"], **ON_DIGITS)
    # 0.99994^(600/25.94) = 0.9986131
    assert texts(found)[0] == "SINEXP(k0=0.01, k1=0.06, gamma=0.9986131, l=86)"
    assert {proposal.policy.function for proposal in found.proposals} == {"SINEXP"}
    # The next ones are those of the next tasks, with their LRs relative to base_lr: 0.01 instead of
    # 0.001.
    assert texts(found)[1].startswith("SINEXP(k0=0.0005, k1=0.06, ")
    assert [task.title for task, _ in found.similar][:2] == [
        "mnist / LeNet_MNIST",
        "cifar10 / CNN3_CIFAR10",
    ]


def test_a_function_that_nobody_tried():
    assert recommend(paper_memory(), DIGITS, functions=["UPCOS2"], **ON_DIGITS).proposals == ()


def test_an_empty_database():
    found = recommend(Memory(), MNIST, **ON_MNIST)
    assert (found.proposals, found.compared, found.similar) == ((), 0, ())


# -- the same task ---------------------------------------------------------------------------------


HERE = {"solver": LENET_DIGITS, "max_iter": 2000, "epoch": 25.94, "iterations": 1500}


def on_digits(*results, **other):
    memory = paper_memory()
    memory.add(DIGITS, *results)
    return recommend(memory, DIGITS, **{**ON_DIGITS, **other})


def test_three_policies_on_the_task_itself_come_first():
    found = on_digits(
        summary("FIX(k0=0.1)", 95.0, **HERE),
        summary("FIX(k0=0.2)", 97.0, **HERE),
        summary("FIX(k0=0.3)", 96.0, **HERE),
        top=4,
    )
    assert (found.compared, found.experienced, found.remarks) == (3, True, ())
    assert texts(found) == [
        "FIX(k0=0.2)",
        "FIX(k0=0.3)",
        "FIX(k0=0.1)",
        "SIN2(k0=0.01, k1=0.06, l=86)",
    ]
    assert found.proposals[0].expected.mean == 97.0
    assert (
        found.proposals[0]
        .evidence[0]
        .endswith("digits / LeNet_digits (measured, 1 run, the newest runs/x)")
    )


def test_fewer_follow_the_best_of_the_most_similar_task():
    memory = paper_memory()
    memory.add(
        DIGITS, summary("FIX(k0=0.1)", 97.0, solver=LENET_DIGITS, max_iter=2000, epoch=25.94)
    )
    found = recommend(memory, DIGITS, top=3, **ON_DIGITS)
    assert texts(found) == [
        "SIN2(k0=0.01, k1=0.06, l=86)",
        "FIX(k0=0.1)",
        "COS(k0=0.01, k1=0.06, l=86)",
    ]
    assert found.compared == 1


def test_what_was_tried_after_a_proposal_is_its_evidence():
    memory = paper_memory()
    tried = summary(
        "SIN2(k0=0.01, k1=0.06, l=86)",
        96.0,
        solver=LENET_DIGITS,
        max_iter=2000,
        epoch=25.94,
        iterations=500,
    )
    memory.add(DIGITS, tried)
    first = recommend(memory, DIGITS, **ON_DIGITS).proposals[0]
    assert first.main.same_task and first.expected.mean == 96.0
    assert [other.summary.origin for other in first.more] == ["Wu et al. 2019, Table VII"]
    assert (
        first.evidence[-1] == "also: Wu et al. 2019, Table VII: Top-1 99.33 ± 0.02 % (5 trainings)"
    )


@pytest.mark.parametrize(
    ("iterations", "max_iter", "promised"),
    [
        # Best tests at 500, 500 and 1,900: mean 966.7, deviation 660.
        ([500, 500, 1900], 1000, False),
        ([500, 500, 1900], 1901, True),
        ([400, 500, 600], 1000, True),
        ([500], 1000, True),
    ],
)
def test_what_one_training_reached_beyond_this_ones_end_is_not_promised(
    iterations, max_iter, promised
):
    spread = Spread(
        statistics.fmean(iterations),
        statistics.pstdev(iterations) if len(iterations) > 1 else None,
        len(iterations),
    )
    there = {"runs": len(iterations), "repeats": len(iterations), "solver": LENET_DIGITS}
    result = summary("FIX(k0=0.01)", 95.0, 0.1, max_iter=2000, epoch=25.94, **there)
    memory = Memory()
    memory.add(DIGITS, replace(result, iterations=spread))
    found = recommend(memory, DIGITS, **{**ON_DIGITS, "max_iter": max_iter}).proposals[0]
    assert (found.expected is not None) == promised
    assert promised or "this training is shorter" in found.evidence[-1]


# -- what is known to fail here --------------------------------------------------------------------

FIRST = "SIN2(k0=0.01, k1=0.06, l=86)"  # what MNIST speaks for
SECOND = "COS(k0=0.01, k1=0.06, l=86)"
HERE_5 = {
    "solver": LENET_DIGITS,
    "max_iter": 2000,
    "epoch": 25.94,
    "iterations": 500,
    "repeats": 5,
    "runs": 5,
}
DIVERGED_5 = {**HERE_5, "iterations": None, "repeats": 0, "runs": 0, "diverged": 5}


@pytest.mark.parametrize("tried", [FIRST, "SIN2(k0=0.01, k1=0.06, l=88)"], ids=["itself", "nearly"])
def test_what_only_diverged_here_is_not_proposed(tried):
    found = on_digits(summary(tried, None, **DIVERGED_5), top=20)
    assert texts(found)[0] == SECOND
    assert not {FIRST, tried} & set(texts(found))
    assert (found.compared, found.diverged) == (0, 1)
    ((policy, result),) = found.passed_over
    assert str(policy) == FIRST
    assert (
        against(result) == "5 trainings diverged on this task (measured, 5 runs, the newest runs/x)"
    )
    text = lines(Recommended(Wanted(DIGITS, SCRATCH), found, 2000), ["train"])
    assert "no result on this task, and 1 that only diverged; proposals are from" in text[1]
    assert text[2] == f"passed over: {FIRST}, since {against(result)}"


@pytest.mark.parametrize("functions", [None, ["sin2"]])
def test_what_is_worse_than_the_best_here_is_not_proposed_first(functions):
    found = on_digits(
        summary(FIRST, 10.2, 0.0, **HERE_5),
        summary("FIX(k0=0.02)", 96.0, 0.1, **HERE_5),
        functions=functions,
    )
    first = str(found.proposals[0].policy)
    assert first == SECOND if functions is None else first.startswith("SIN2(") and first != FIRST
    assert [str(policy) for policy, _ in found.passed_over] == [FIRST]
    if functions is None:
        assert texts(found)[1] == "FIX(k0=0.02)" and FIRST not in texts(found)
        text = lines(Recommended(Wanted(DIGITS, SCRATCH), found, 2000), ["train"])
        assert "Top-1 10.20 ± 0.00 % (5 trainings) on this task" in text[3]


def test_the_best_here_may_be_proposed_by_others_too():
    found = on_digits(
        summary(FIRST, 97.0, 0.1, **HERE_5), summary("FIX(k0=0.02)", 96.0, 0.1, **HERE_5)
    )
    assert texts(found)[:2] == [FIRST, "FIX(k0=0.02)"] and found.passed_over == ()


@pytest.mark.parametrize(("times", "proposed"), [(1, True), (2, False)])
def test_divergence_here_outweighs_the_papers_result_once_it_is_repeated(times, proposed):
    memory = paper_memory()
    memory.add(MNIST_HERE, summary(SIN2, None, runs=0, repeats=0, diverged=times))
    found = recommend(memory, MNIST_HERE, top=20, **ON_MNIST)
    assert (SIN2 in texts(found)) == proposed
    if proposed:
        assert (
            found.proposals[0]
            .evidence[-1]
            .endswith("1 run, the newest runs/x: 1 training diverged")
        )


@pytest.mark.parametrize(
    ("one", "other", "near"),
    [
        ("FIX(k0=0.1)", "FIX(k0=0.104)", True),
        ("FIX(k0=0.1)", "FIX(k0=0.11)", False),
        ("FIX(k0=0.1)", "POLY(k0=0.1, p=1.2)", False),
        ("EXP(k0=0.1, gamma=0.9999)", "EXP(k0=0.1, gamma=0.99994)", False),
        ("NSTEP(k0=0.1, gamma=0.1, l=[500])", "NSTEP(k0=0.1, gamma=0.1, l=[500, 700])", False),
        ("NSTEP(k0=0.1, gamma=0.1, l=[500, 700])", "NSTEP(k0=0.1, gamma=0.1, l=[501, 699])", True),
        ("FIX(k0=0.1) ; 50: FIX(k0=0.2)", "FIX(k0=0.1) ; 51: FIX(k0=0.2)", False),
    ],
)
def test_nearly_equal(one, other, near):
    assert nearly_equal(parse(one), parse(other)) == nearly_equal(parse(other), parse(one)) == near


@pytest.mark.parametrize("wrong", [{"max_iter": 0}, {"epoch": 5e-324}, {"max_iter": 10**15}])
def test_records_that_cannot_be_are_no_evidence(wrong):
    found = on_digits(summary("FIX(k0=0.5)", 99.0, **{**HERE_5, **wrong}))
    assert "FIX(k0=0.5)" not in texts(found) and texts(found)[0] == FIRST


# -- measured and printed --------------------------------------------------------------------------


def on_mnist(*results) -> list[str]:
    memory = paper_memory()
    memory.add(MNIST_HERE, *results)
    return texts(recommend(memory, MNIST_HERE, **ON_MNIST))


@pytest.mark.parametrize(("top1", "first"), [(99.35, SIN2), (99.36, "FIX(k0=0.5)")])
def test_a_single_training_must_be_better_by_its_risk(top1, first):
    # SIN2: 99.33 - 2 * 0.02236 / sqrt(5) = 99.31; a single one loses 2 * 0.02236 = 0.0447.
    assert on_mnist(summary("FIX(k0=0.5)", top1))[0] == first


def test_more_trainings_need_less_of_a_lead():
    # With ten: 99.33 - 2 * 0.02236 / sqrt(10) = 99.3159, above SIN2's 99.31.
    assert on_mnist(summary("FIX(k0=0.5)", 99.33, 0.01, repeats=10))[0] == "FIX(k0=0.5)"


def test_an_unsteady_policy_is_judged_by_its_own_deviation():
    # 99.4 - 2 * 0.2 * sqrt(5/4) / sqrt(5) = 99.2
    assert on_mnist(summary("FIX(k0=0.5)", 99.4, 0.2, repeats=5))[0] == SIN2


def test_a_policy_that_diverges():
    # (99.5 * 9 + 10 * 1) / 10 = 90.55, less than any of the paper's
    assert (
        "FIX(k0=0.5)"
        not in on_mnist(summary("FIX(k0=0.5)", 99.5, 0.0, repeats=9, runs=9, diverged=1))[:5]
    )


def test_own_repeated_results_take_the_place_of_the_papers():
    # SIN2 came out worse here, in two trainings: it is no longer first, and says why.
    ours = summary(SIN2, 99.2, 0.0, repeats=2, runs=2, iterations=4000)
    memory = paper_memory()
    memory.add(MNIST_HERE, ours)
    found = recommend(memory, MNIST_HERE, top=10, **ON_MNIST)
    assert texts(found)[0] == "COS(k0=0.01, k1=0.06, l=2000)"
    (sin2,) = [p for p in found.proposals if str(p.policy) == SIN2]
    assert sin2.expected.mean == 99.2
    assert [other.summary.source for other in sin2.more] == ["paper"]


def test_one_own_training_does_not():
    ours = summary(SIN2, 99.2, iterations=4000)
    assert on_mnist(ours)[0] == SIN2


def test_a_result_of_another_length_does_not_either():
    ours = summary(SIN2, 98.0, 0.01, repeats=3, runs=3, max_iter=500, iterations=500)
    assert on_mnist(ours)[0] == SIN2


# -- what is promised ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"max_iter": 3999}, "the policy is adapted"),
        ({"solver": replace(LENET, weight_decay=0.0)}, "weight_decay differs"),
        ({"solver": replace(LENET, type="Adam")}, "the solver type differs"),
        ({"solver": replace(LENET, batch=200), "epoch": 300.0}, "the policy is adapted"),
    ],
)
def test_no_promise_for_another_training(other, reason):
    first = recommend(
        paper_memory(), MNIST_HERE, functions=["SIN2"], **{**ON_MNIST, **other}
    ).proposals[0]
    assert first.expected is None
    assert first.evidence[-1] == f"expected Top-1: not known, since {reason}"


@pytest.mark.parametrize("digest", [None, f"{AT_PLACE}cafe"])
def test_no_promise_where_the_data_may_be_another(digest):
    """The paper's results are of MNIST; data of which only name, form and place are known may be anything."""
    task = replace(MNIST_HERE, dataset=replace(MNIST_HERE.dataset, digest=digest))
    first = recommend(paper_memory(), task, functions=["SIN2"], **ON_MNIST).proposals[0]
    assert first.expected is None


def test_the_same_lrs_up_to_the_best_test_are_enough():
    found = recommend(
        paper_memory(), MNIST_HERE, functions=["SIN2"], **{**ON_MNIST, "max_iter": 4000}
    )
    first = found.proposals[0]
    assert first.expected.mean == 99.33


def test_a_policy_that_ends_with_the_training_is_another_one():
    found = recommend(
        paper_memory(), MNIST_HERE, functions=["POLY"], **{**ON_MNIST, "max_iter": 9000}
    )
    first = found.proposals[0]
    assert str(first.policy) == "POLY(k0=0.01, p=1.2)"
    assert first.expected is None


TOP1 = Utility.top1(10)

# -- parts -----------------------------------------------------------------------------------------


def test_usual_deviation():
    # Sample variances: 0.02^2 * 5/4 = 0.0005, 0.04^2 * 2 = 0.0032, 0.1^2 * 5/4 = 0.0125; the median
    # 0.0032
    results = [
        summary(top1=1.0, sd=0.02, repeats=5),
        summary(top1=1.0, sd=0.04, repeats=2),
        summary(top1=1.0, sd=0.1, repeats=5),
        summary(top1=1.0),
    ]
    assert usual_deviation(results, TOP1) == pytest.approx(math.sqrt(0.0032))
    assert usual_deviation(results[3:], TOP1) == 0


def cautious(of, usual: float = 0.5, utility: Utility = TOP1) -> float:
    return caution(of, standard_error(of, usual, utility), utility)


def test_cautious_top1():
    assert cautious(summary(top1=90.0)) == 89.0
    assert cautious(summary(top1=90.0, sd=0.0, repeats=4)) == 89.5
    assert cautious(summary(top1=90.0, runs=3, diverged=1), 0.0) == (3 * 90 + 10) / 4
    assert cautious(summary(top1=None, runs=0)) == -math.inf
    assert cautious(summary(top1=None, runs=0, repeats=0, diverged=2)) == 10
    # Only 4 of 9 trainings have a Top-1: 90 - 2 * 0.5 / sqrt(4)
    assert cautious(replace(summary(repeats=9), top1=Spread(90.0, None, 4))) == 89.5


def test_wrong_input():
    with pytest.raises(PolicyError, match="did you mean SIN2"):
        recommend(paper_memory(), MNIST_HERE, functions=["sine2"], **ON_MNIST)
    with pytest.raises(InputError, match="top: 0; allowed: 1 or more"):
        recommend(paper_memory(), MNIST, top=0, **ON_MNIST)


def test_no_proposal_twice():
    found = recommend(
        paper_memory(),
        CNN3,
        solver=replace(LENET, weight_decay=0.004),
        max_iter=70_000,
        epoch=500.0,
        top=60,
    )
    assert len(found.proposals) > 40
    assert len(set(texts(found))) == len(found.proposals)


@pytest.mark.parametrize("digest", [None, "at 0123456789abcdef"])
def test_nothing_is_promised_for_data_that_cannot_be_told_apart(digest):
    task = replace(MNIST_HERE, dataset=replace(MNIST_HERE.dataset, digest=digest))
    memory = Memory()
    memory.add(task, summary(SIN2, 99.3, iterations=4000))
    (proposal,) = recommend(memory, task, **ON_MNIST).proposals
    assert proposal.main.same_task and proposal.expected is None
    assert proposal.evidence[-1].endswith(
        "since this data cannot be distinguished from other data of its form"
    )


# -- functions that are asked for ------------------------------------------------------------------


def test_each_function_that_is_asked_for_is_proposed():
    """TRIEXP was missing where SIN2 alone had results enough to fill the places."""
    own = [summary(f"SIN2(k0=0.01, k1={k1}, l=86)", top1, **HERE) for k1, top1 in
           ((0.03, 95.0), (0.1, 97.0), (0.2, 96.0))]  # fmt: skip
    found = on_digits(*own, functions=["SIN2", "TRIEXP"], top=3)
    assert [p.policy.function for p in found.proposals] == ["SIN2", "SIN2", "TRIEXP"]
    assert found.missing == ()


SIG = "SIG(k0=0.1, gamma=0.001, l=100)"


@pytest.mark.parametrize(
    ("results", "functions", "top", "why"),
    [
        ([], ["UPCOS2"], 3, "no result on this task or a similar one"),
        ([], ["sin2", "upcos2"], 2, "no result on this task or a similar one"),  # SIN2 has both places
        ([], ["sin2", "tri", "triexp"], 2, "others come first (top 2)"),
        ([summary(FIRST, None, **DIVERGED_5)], ["sin2"], 1, None),
        ([summary(SIG, None, **DIVERGED_5)], ["sig"], 3, "5 trainings diverged on this task"),
        ([summary(SIG, 99.0, **{**HERE, "max_iter": 0})], ["sig"], 3,
         "the results cannot be adapted: max_iter 0 and 2000"),
    ],
)  # fmt: skip
def test_one_that_is_not_proposed_has_a_reason(results, functions, top, why):
    found = on_digits(*results, functions=functions, top=top)
    if why is None:  # another SIN2 is there
        assert found.missing == () and found.proposals
        return
    ((name, reason),) = found.missing
    assert reason.startswith(why) and name == functions[-1].upper()
    assert f"{name} is not proposed: {reason}" in found.remarks


def test_no_policy_is_both_passed_over_and_proposed():
    """FIRST is worse than FIX here; among SIN2 alone it is the best, and proposed."""
    found = on_digits(
        summary(FIRST, 90.0, 0.0, **HERE_5),
        summary("FIX(k0=0.02)", 96.0, 0.1, **HERE_5),
        functions=["sin2"],
    )
    assert FIRST in texts(found) and found.passed_over == ()
