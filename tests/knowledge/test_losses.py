"""Nets that do not classify: policies are compared by the test loss, and lower is better."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lrbench_caffe.errors import InputError
from lrbench_caffe.knowledge.criteria import CRITERIA, criteria, output
from lrbench_caffe.knowledge.exporting import ranking_rows
from lrbench_caffe.knowledge.proposing import recommend
from lrbench_caffe.knowledge.ranking import RankingEntry, rank
from lrbench_caffe.knowledge.recommendation import Recommendation
from lrbench_caffe.knowledge.utility import Utility, caution, standard_error
from lrbench_caffe.records import SCRATCH, Spread
from lrbench_caffe.tabular import records_of
from tests.knowledge.summaries import summary
from tests.knowledge.tasks import DIGITS, LENET_DIGITS, MNIST_HERE, Memory, paper_memory

REGRESSION = replace(DIGITS, task_type="other", dataset=replace(DIGITS.dataset, classes=None))


def fix(lr: float, loss: float | None, sd: float | None = None, **other):
    counts = {"runs": 5, "repeats": 5} if sd is not None else {}
    made = summary(
        f"FIX(k0={lr})", None, iterations=1000,
        **{"solver": LENET_DIGITS, "max_iter": 2000, "epoch": 25.94, **counts, **other},
    )  # fmt: skip
    return made if loss is None else replace(made, test_loss=Spread(loss, sd))


def regression(
    *results, untrained: float | None = 4.0, memory: Memory | None = None
) -> Recommendation:
    memory = Memory() if memory is None else memory
    task = memory.add(REGRESSION, *results)
    if untrained is not None:
        memory.untrained[task.id] = untrained
    return recommend(memory, REGRESSION, solver=LENET_DIGITS, max_iter=2000, epoch=25.94)


def texts(found: Recommendation) -> list[str]:
    return [str(proposal.policy) for proposal in found.proposals]


def test_the_lowest_loss_comes_first_and_is_promised():
    found = regression(fix(0.01, 0.5), fix(0.02, 0.25), fix(0.04, 0.75), memory=paper_memory())
    assert found.experienced and texts(found) == ["FIX(k0=0.02)", "FIX(k0=0.01)", "FIX(k0=0.04)"]
    first = found.proposals[0]
    assert first.expected == Spread(0.25, None)
    assert first.evidence[0].startswith("test loss 0.25 (1 training) on the same task, digits /")
    assert first.evidence[1] == "lowest test loss at iteration 1000 of 2000 (38.6 epochs)"
    assert first.evidence[2] == "expected: test loss 0.25"


def test_the_cautious_loss():
    """0.3 + 2 * 0.02 / sqrt(4) = 0.32; one of five diverged, which is worth the untrained net's 4.0."""
    utility = Utility.test_loss(4.0)
    one = fix(0.01, 0.3, 0.0, runs=4, repeats=4)
    assert caution(one, standard_error(one, 0.02, utility), utility) == pytest.approx(-0.32)
    one = replace(one, diverged=1)
    assert caution(one, standard_error(one, 0.02, utility), utility) == pytest.approx(
        -(4 * 0.32 + 4.0) / 5
    )


def test_without_the_untrained_nets_loss_the_worst_result_takes_its_place():
    utility = Utility.test_loss(None, [fix(0.01, 0.5), fix(0.02, 2.5)])
    assert (utility.worthless, utility.learned) == (2.5, None)


@pytest.mark.parametrize(("best", "experienced"), [(1.9, True), (2.1, False)])
def test_it_learned_below_half_of_the_untrained_nets_loss(best, experienced):
    found = regression(fix(0.01, 3.0), fix(0.02, best), fix(0.04, 3.5))
    assert found.experienced == experienced
    if not experienced:
        assert "the untrained net's is 4, 2 would count" in found.set_aside[0]


def test_a_policy_that_diverged_once_loses_to_a_steady_one():
    found = regression(
        fix(0.01, 0.5, 0.0), fix(0.02, 0.4, 0.0, runs=4, repeats=4, diverged=1), fix(0.005, 1.0)
    )
    # (4 * 0.4 + 4.0) / 5 = 1.12
    assert texts(found) == ["FIX(k0=0.01)", "FIX(k0=0.005)", "FIX(k0=0.02)"]


def test_a_classification_says_nothing_about_it():
    found = recommend(
        paper_memory(), REGRESSION, start=SCRATCH, solver=LENET_DIGITS, max_iter=2000, epoch=25.94
    )
    assert found.proposals == () and found.similar == ()


def test_a_similar_regression_promises_nothing():
    memory = Memory()
    other = replace(
        MNIST_HERE, task_type="other", dataset=replace(MNIST_HERE.dataset, classes=None)
    )
    memory.add(
        other, replace(fix(0.02, 0.01), solver=replace(LENET_DIGITS, batch=100), epoch=600.0)
    )
    found = regression(fix(0.01, 0.5), fix(0.03, 0.25), fix(0.06, 0.75), memory=memory)
    assert found.experienced and found.proposals[-1].unknown == ("the task differs",)


# -- other outputs ---------------------------------------------------------------------------------


def detection(**asked) -> Recommendation:
    """A net with no loss in its test net, as SSD's: FIX(0.02) has the best map, and the worst error."""
    memory = Memory()
    values = ((0.01, 0.6, 0.2), (0.02, 0.7, 0.3), (0.04, 0.5, 0.1))
    spreads = [{"map": Spread(a, None), "box_error": Spread(b, None)} for _, a, b in values]
    if asked.pop("only_map", False):
        spreads = [{"map": found["map"]} for found in spreads]
    results = [replace(fix(lr, None), outputs=found) for (lr, *_), found in zip(values, spreads)]
    memory.add(REGRESSION, *results)
    return recommend(memory, REGRESSION, solver=LENET_DIGITS, max_iter=2000, epoch=25.94, **asked)


@pytest.mark.parametrize(
    ("asked", "order", "note"),
    [
        ({"only_map": True}, [0.02, 0.01, 0.04], "map: higher is better (assumed; "),
        ({}, [0.04, 0.01, 0.02], "box_error: lower is better (assumed; "),  # the first by name
        ({"by": "map"}, [0.02, 0.01, 0.04], "map: higher is better (assumed; "),
        ({"by": "map", "higher": False}, [0.04, 0.01, 0.02], "map: lower is better"),
    ],
)
def test_a_net_without_any_loss_is_recommended_by_an_output(asked, order, note):
    found = detection(**asked)
    assert texts(found) == [f"FIX(k0={lr})" for lr in order]
    assert found.remarks[0].startswith(note)
    assert found.proposals[0].expected is not None


def test_the_words_for_an_output():
    assert detection(by="map").proposals[0].evidence[1:] == (
        "map measured at iteration 1000 of 2000 (38.6 epochs)", "expected: map 0.7",
    )  # fmt: skip


def test_an_output_that_nobody_has():
    with pytest.raises(
        InputError, match="by: unknown output 'mapp'; did you mean 'map'. known: top1, test_l"
    ):
        detection(by="mapp")


def test_an_output_with_the_name_of_another_column():
    summary = replace(fix(0.01, None), outputs={"score": Spread(0.6, 0.1)})
    ranked = rank([RankingEntry(summary)], [output("score", higher=True)])
    (row,) = records_of(ranking_rows(ranked, [output("score", higher=True)]))
    assert (row["output.score"], row["output.score_sd"], row["score"]) == (0.6, 0.1, None)


def test_an_output_in_capitals_is_not_the_metric_of_that_name():
    measured = [replace(fix(0.01, 0.5), outputs={"AC": Spread(0.9, None)})]
    (found,) = criteria("AC", results=measured, higher=True)
    assert (found.name, found.kind) == ("AC", "output")
    assert criteria("ac", results=measured)[0] is CRITERIA["ac"]
