"""Results of chosen contributors, and who stands behind a result: on SQLite and PostgreSQL."""

from __future__ import annotations

import dataclasses
import math

import pytest

from lrbench_caffe.database.errors import RecordError
from lrbench_caffe.database.platform import Platform
from lrbench_caffe.errors import ParameterError
from lrbench_caffe.knowledge.contributors import results_of, told
from lrbench_caffe.records import Contribution, Start
from tests.database.records import DATASET, at, policy, run

ADA = Contribution("b1", "ada", None, None, 5000.0)
BOB = Contribution("b2", "bob", None, None, 6000.0)
WEIGHTS = Start("weights", "1" * 32, 4, 4, name="x.caffemodel")
FIX = policy("FIX(k0=0.01)")


def ended(uid: str, top1: float, seed: int | None, sent: Contribution | None = None, **others):
    """A run with one test, at iteration 200."""
    return run(uid, measurements=[at(200, top1)], seed=seed, contribution=sent, **others)


@pytest.fixture
def shared(database):
    """SIN2: 90 (own), 94 and 96 (ada), 80 (bob), and bob's repetition of ada's seed 2, which counts once.

    FIX: 70 (bob), and one that diverged of ada's.
    """
    database.put_many(
        [
            ended("own", 90.0, 1),
            ended("ada1", 94.0, 2, ADA),
            ended("ada2", 96.0, 3, ADA),
            ended("bob1", 80.0, 4, BOB),
            ended("bob2", 94.0, 2, BOB),
            ended("bob3", 70.0, 1, BOB, policy=FIX),
            ended("ada3", 10.0, 2, ADA, policy=FIX, status="diverged"),
        ]
    )
    return database


def task_id(database) -> int:
    (found,) = (t.id for t in database.tasks() if t.dataset == DATASET)
    return found


def results(database, *names: str, **others):
    """By function: runs, mean and deviation of Top-1, and how many diverged."""
    found = database.summaries(task_id(database), contributors=names or None, **others)
    return {
        s.policy.function: (s.runs, s.top1 and s.top1.mean, s.top1 and s.top1.sd, s.diverged)
        for s in found
    }


def test_all_of_them_are_pooled(shared):
    # 90, 94, 96, 80: mean 90, squares 0 + 16 + 36 + 100
    assert results(shared) == {
        "SIN2": (4, 90.0, pytest.approx(math.sqrt(38)), 0),
        "FIX": (1, 70.0, None, 1),
    }


def test_one_has_the_values_of_the_own_runs(shared):
    assert results(shared, "ada") == {"SIN2": (2, 95.0, 1.0, 0), "FIX": (0, None, None, 1)}
    # Bob's seed 2 is nobody's repetition where ada's runs are left out: 80 and 94
    assert results(shared, "bob") == {"SIN2": (2, 87.0, 7.0, 0), "FIX": (1, 70.0, None, 0)}
    assert results(shared, "own") == {"SIN2": (1, 90.0, None, 0)}


def test_several_are_pooled_with_one_another(shared):
    # 90, 94, 96: mean 280 / 3
    assert results(shared, "own", "ada")["SIN2"] == (
        3,
        pytest.approx(280 / 3),
        pytest.approx(math.sqrt((90**2 + 94**2 + 96**2) / 3 - (280 / 3) ** 2)),
        0,
    )
    assert results(shared, "ada", "bob", "own") == results(shared)


def test_nobody_of_the_name_has_nothing(shared):
    assert results(shared, "carol") == {}
    assert shared.starts(task_id(shared), contributors=["carol"]) == []
    assert shared.tasks(contributors=["carol"]) == []


def test_filters_order_and_limit_hold_for_them(shared):
    assert results(shared, "bob", functions=["fix"]) == {"FIX": (1, 70.0, None, 0)}
    assert list(results(shared, "bob")) == ["SIN2", "FIX"]
    assert list(results(shared, "bob", "ada", order_by="num_params")) == ["FIX", "SIN2"]
    assert list(results(shared, "ada", limit=1)) == ["SIN2"]
    assert list(results(shared, "ada", unfinished=True)) == ["FIX"]
    assert results(shared, "bob", unfinished=True) == {}
    assert results(shared, "bob", sources=["imported"]) == {}
    assert results(shared, "bob", start=WEIGHTS) == {}


def test_they_have_the_identity_of_the_stored_group(shared):
    (stored, _), (theirs, _) = (
        shared.summaries(task_id(shared)),
        shared.summaries(task_id(shared), contributors=["ada"]),
    )
    names = ("id", "task_id", "policy", "source", "max_iter", "solver", "start")
    assert [getattr(theirs, n) for n in names] == [getattr(stored, n) for n in names]
    assert (stored.origin, theirs.origin) == ("runs/bob1", "runs/ada2")


def test_everybody_chosen_gives_what_is_stored(shared):
    task = task_id(shared)
    everybody = ["own", "paper", *shared.contributors()]
    for order in ("top1", "num_params", "iterations"):
        assert shared.summaries(task, order_by=order, contributors=everybody) == shared.summaries(
            task, order_by=order
        )


def test_the_papers_results_are_chosen_by_a_word(shared):
    papers = [t.id for t in shared.tasks() if t.dataset != DATASET]
    for task in papers:
        stored = shared.summaries(task)
        assert stored and shared.summaries(task, contributors=["paper"]) == stored
        assert shared.summaries(task, contributors=["own", "ada"]) == []
    assert results(shared, "paper") == {}
    assert [t.id for t in shared.tasks(contributors=["paper"])] == papers
    assert [t.id for t in shared.tasks(contributors=["bob"])] == [task_id(shared)]


def test_starts_are_those_of_their_runs(shared):
    shared.put(ended("ada4", 99.0, 1, ADA, start=WEIGHTS))
    shared.put(ended("ada5", 99.0, 1, ADA, start=WEIGHTS, status="running"))
    task = task_id(shared)
    assert set(shared.starts(task, contributors=["ada"])) == {Start(), WEIGHTS}
    assert shared.starts(task, contributors=["bob"]) == [Start()]
    assert results(shared, "ada", start=WEIGHTS)["SIN2"] == (1, 99.0, None, 0)


def test_the_test_before_the_first_update_is_that_of_their_runs(shared):
    for uid, top1, loss, sent in (
        ("u1", 8.0, 2.0, None),
        ("u2", 12.0, 3.0, ADA),
        ("u3", 14.0, 4.0, ADA),
    ):
        first = dataclasses.replace(at(0, top1), test_loss=loss)
        shared.put(run(uid, seed=9, measurements=[first, at(100, 90.0)], contribution=sent))
    task = task_id(shared)
    assert shared.untrained_top1(task, Start()) == pytest.approx(34 / 3)
    assert shared.untrained_top1(task, Start(), contributors=["ada"]) == 13.0
    assert shared.untrained_loss(task, Start(), contributors=["ada"]) == 3.5
    assert shared.untrained_loss(task, Start(), contributors=["own"]) == 2.0
    assert shared.untrained_loss(task, Start(), contributors=["bob"]) is None


def behind(database, *names: str):
    """By function, who contributed to the result."""
    chosen = names or None
    found = database.summaries(task_id(database), contributors=chosen)
    counts = database.contributions(found, contributors=chosen)
    return {s.policy.function: counts.get(s.id) for s in found}


def test_who_stands_behind_a_result(shared):
    # The training with seed 2 is ada's, who sent it first; FIX finished with bob alone.
    assert behind(shared) == {"SIN2": {"ada": 2, "bob": 1}, "FIX": {"bob": 1}}
    assert behind(shared, "bob") == {"SIN2": {"bob": 2}, "FIX": {"bob": 1}}
    assert behind(shared, "ada") == {"SIN2": {"ada": 2}, "FIX": {"ada": 1}}  # it diverged
    assert behind(shared, "own") == {"SIN2": None}
    assert shared.contributions([]) == {}


def test_what_is_hidden_or_failed_counts_for_nobody(shared):
    Platform(shared).set_standing(["ada1"], "hidden")
    assert behind(shared)["SIN2"] == {"ada": 1, "bob": 2}  # seed 2 is bob's now
    assert results(shared, "ada")["SIN2"] == (1, 96.0, None, 0)
    shared.put(
        ended("bob4", 50.0, 7, BOB, policy=policy("EXP(k0=0.1, gamma=0.9)"), status="failed")
    )
    assert behind(shared)["EXP"] is None


def test_nobody_has_contributed_to_an_own_database(database):
    database.put(ended("own", 90.0, 1))
    assert behind(database) == {"SIN2": None}
    assert database.contributors() == []


def test_contributors_are_those_of_uploads(shared):
    assert shared.contributors() == ["ada", "bob"]
    chosen = results_of(shared, ["bob", "bob", "own"])
    assert chosen.contributors == ("bob", "own")
    assert {s.top1.mean for s in chosen.summaries(task_id(shared))} == {(90 + 80 + 94) / 3, 70.0}
    assert chosen.contributions(chosen.summaries(task_id(shared)))
    assert results_of(shared, []) is shared
    with pytest.raises(ParameterError, match="'bop' has contributed nothing; did you mean 'bob'"):
        results_of(shared, ["bop"])
    with pytest.raises(ParameterError, match="allowed: own, paper, ada, bob"):
        results_of(shared, ["carol"])


@pytest.mark.parametrize("name", ["own", "Paper", "OWN", "ada, bob"])
def test_words_with_a_meaning_are_no_names(database, name):
    with pytest.raises(
        RecordError, match="allowed: a name without a comma, other than own and paper"
    ):
        Platform(database).add_token(name, "write")
    with pytest.raises(RecordError, match="contribution.contributor"):
        database.put(ended("a", 90.0, 1, dataclasses.replace(ADA, contributor=name)))


def test_contributors_in_words():
    many = dict.fromkeys("fedcba", 2)
    assert told({"bob": 1, "ada": 1}, 5) == ", of these 1 from ada, 1 from bob"
    assert told({"bob": 2, "ada": 1}, 3) == ", of these 2 from bob, 1 from ada"
    assert told({**many, "g": 3}, 20) == (
        ", of these 3 from g, 2 from a, 2 from b, 2 from c, 2 from d, 4 from 2 more"
    )
