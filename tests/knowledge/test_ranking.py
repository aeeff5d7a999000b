"""Ranking, with values worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrbench_caffe.errors import InputError
from lrbench_caffe.knowledge.criteria import COSTS, CRITERIA, criteria, direction_by_name, weights
from lrbench_caffe.knowledge.ranking import TargetCost, pareto_front, rank, rank_weighted
from tests.knowledge.summaries import candidate

A = candidate("FIX(k0=0.1)", 90.0, iterations=4000, ld=0.02)
B = candidate("FIX(k0=0.2)", 92.0, iterations=8000, ld=0.03)
C = candidate("FIX(k0=0.3)", 90.0, iterations=2000)  # LD not measured
D = candidate("FIX(k0=0.4)", 80.0, iterations=6000, ld=0.01)


def order(ranked):
    return [row.candidate for row in ranked]


def places(ranked):
    return [row.place for row in ranked]


def test_singly_equal_values_share_a_place():
    ranked = rank([A, B, C, D], criteria("top1"))
    assert order(ranked) == [B, A, C, D]
    assert places(ranked) == [1, 2, 2, 4]


def test_lexicographically():
    assert order(rank([A, B, C, D], criteria("top1,iterations"))) == [B, C, A, D]
    assert places(rank([A, B, C, D], criteria("top1,iterations"))) == [1, 2, 3, 4]


def test_lower_is_better_and_what_was_not_measured_comes_last():
    assert order(rank([A, B, C, D], criteria("ld"))) == [D, A, B, C]


@pytest.mark.parametrize("name", CRITERIA)
def test_every_criterion_has_its_direction(name):
    better = {"top1": 91, "top5": 91, "ac": 0.91}.get(name, 0.1)
    worse = {"top1": 90, "top5": 90, "ac": 0.9}.get(name, 0.2)
    if name == "target":
        one, other = (
            candidate(target=TargetCost(100, 1, 1)),
            candidate(target=TargetCost(200, 1, 1)),
        )
    elif name == "num_params":
        one, other = candidate("FIX(k0=0.1)"), candidate("EXP(k0=0.1, gamma=0.9)")
    else:
        one, other = candidate(**{name: better}), candidate(**{name: worse})
    assert order(rank([other, one], [CRITERIA[name]])) == [one, other]


def test_a_target_that_is_not_always_reached_costs_more():
    # 1000 iterations in one run of three count as 3000.
    often, seldom = (
        candidate(target=TargetCost(2000, 3, 3)),
        candidate(target=TargetCost(1000, 1, 3)),
    )
    never = candidate()
    assert order(rank([never, seldom, often], criteria("target"))) == [often, seldom, never]


def test_weighted():
    # top1: 90 -> 10/12, 92 -> 1, 80 -> 0; iterations: 4000 -> 4/6, 8000 -> 0, 2000 -> 1, 6000 ->
    # 2/6
    ranked = rank_weighted([A, B, C, D], {CRITERIA["top1"]: 2, CRITERIA["iterations"]: 1})
    scores = {row.candidate.summary.policy.text: row.score for row in ranked}
    assert scores == pytest.approx(
        {
            "FIX(k0=0.1)": (2 * 10 / 12 + 4 / 6) / 3,
            "FIX(k0=0.2)": (2 * 1 + 0) / 3,
            "FIX(k0=0.3)": (2 * 10 / 12 + 1) / 3,
            "FIX(k0=0.4)": (0 + 2 / 6) / 3,
        }
    )
    assert order(ranked) == [C, A, B, D]


def test_weighted_what_was_not_measured_counts_as_the_worst():
    # ld: D 1, A 0.5, B 0, C (not measured) 0
    ranked = rank_weighted([A, B, C, D], {CRITERIA["ld"]: 1})
    assert [row.score for row in ranked] == pytest.approx([1, 0.5, 0, 0])
    assert places(ranked) == [1, 2, 3, 3]


def test_weighted_equal_values():
    ranked = rank_weighted([A, C], {CRITERIA["top1"]: 1})
    assert [row.score for row in ranked] == [1, 1]
    assert [row.score for row in rank_weighted([A], {CRITERIA["cdac"]: 1})] == [0]


def test_comparisons():
    best = candidate("FIX(k0=0.1)", 99.33, 0.02, repeats=5)
    near = candidate("FIX(k0=0.2)", 99.31, 0.04, repeats=5)
    far = candidate("FIX(k0=0.3)", 99.28, 0.02, repeats=5)
    single = candidate("FIX(k0=0.4)", 99.0)
    rows = rank([single, far, near, best], criteria("top1"))
    assert [row.from_best and row.from_best.mark for row in rows] == [None, "~", "", "?"]
    assert [row.from_next and row.from_next.mark for row in rows] == ["~", "~", "?", None]
    assert rows[2].from_best.p == pytest.approx(0.00767, abs=1e-5)


def test_the_number_of_parameters_has_no_noise():
    rows = rank(
        [candidate("EXP(k0=0.1, gamma=0.9)"), candidate("FIX(k0=0.1)")], criteria("num_params")
    )
    assert rows[1].from_best.mark == ""


def test_pareto_front():
    # B is the best, C the cheapest; A is beaten by C (as good, cheaper), D by A.
    assert pareto_front([A, B, C, D], CRITERIA["iterations"]) == [C, B]
    twin = candidate("FIX(k0=0.5)", 92.0, iterations=8000)
    assert pareto_front([A, B, C, D, twin], CRITERIA["iterations"]) == [C, B, twin]
    assert pareto_front([candidate(top1=None, iterations=1)], CRITERIA["iterations"]) == []
    assert pareto_front([], CRITERIA["iterations"]) == []


def test_what_was_best_before_any_update_is_not_cheap():
    idle = candidate("FIX(k0=1e-9)", 11.0, iterations=0)
    assert pareto_front([A, idle], CRITERIA["iterations"]) == [A]
    ranked = rank([idle, A, C], [CRITERIA["iterations"]])
    assert [one.candidate for one in ranked] == [C, A, idle]


points = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), max_size=12)


@given(points)
def test_pareto_front_by_its_definition(values):
    candidates = [candidate(top1=top1, iterations=cost) for top1, cost in values]

    def beaten(one, other):
        a, b = (c.spread("top1").mean for c in (one, other))
        p, q = (c.spread("iterations").mean for c in (one, other))
        return b >= a and q <= p and (b > a or q < p)

    expected = [c for c in candidates if not any(beaten(c, other) for other in candidates)]
    front = pareto_front(candidates, CRITERIA["iterations"])
    assert len(front) == len(expected)
    assert all(c in expected for c in front)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tops1", "unknown criterion 'tops1'; did you mean 'top1'? known: top1, "),
        ("top1,top1", "each once"),
        ("", "one or more of top1, top5"),
    ],
)
def test_wrong_criteria(text, words):
    with pytest.raises(InputError) as error:
        criteria(text)
    assert words in str(error.value)


@pytest.mark.parametrize(
    "text", ["top1", "top1=0", "top1=-1", "top1=nan", "top1=inf", "top1=1,top1=2", "foo=1", ""]
)
def test_wrong_weights(text):
    with pytest.raises(InputError, match="weights"):
        weights(text)


def test_weights():
    found = weights("top1=2, iterations=0.5")
    assert found == {CRITERIA["top1"]: 2.0, CRITERIA["iterations"]: 0.5}
    assert set(COSTS) == {"iterations", "num_params", "target"}


def test_nan_is_not_measured():
    assert candidate(ld=math.nan).spread("ld") is None


@pytest.mark.parametrize(
    ("names", "higher"),
    [
        (("mape", "rmse1", "top5_errors", "top1err", "loss1/loss1", "test_error_rate"), False),
        (("softmaxloss", "bboxLoss", "lossA", "L2dist", "crossentropy", "map_loss"), False),
        (("accuracy_terrain", "mAP@0.5", "AP50", "ious", "F1_score", "lossless_psnr"), True),
        (("loss3/top-1", "acc1", "scores"), True),  # the first is an accuracy of GoogLeNet
        (("aperture", "mapping", "mirror", "topology", "y", "42", ""), None),
    ],
)
def test_whole_words_of_a_name_tell_the_direction(names, higher):
    assert {name: direction_by_name(name) for name in names} == dict.fromkeys(names, higher)
