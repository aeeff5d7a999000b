"""Recommendations say from whom their evidence is, and can be limited to contributors."""

from __future__ import annotations

import dataclasses

import pytest

from lrbench_caffe.database import Database
from lrbench_caffe.knowledge.contributors import results_of
from lrbench_caffe.knowledge.evidence import Wanted
from lrbench_caffe.knowledge.exporting import recommendation_json
from lrbench_caffe.knowledge.proposing import recommend
from lrbench_caffe.records import SCRATCH, Contribution, Dataset, Network, Task
from tests.database.records import FRAMEWORK, SOLVER, at, policy, run

ADA = Contribution("b1", "ada", None, None, 5000.0)
BOB = Contribution("b2", "bob", None, None, 6000.0)
# Unlike anything of the paper's, so that its results come last.
DATA = Dataset("spectra", 7, 1, 4096, 2, 900, 100, "s1")
NET = Network("Net", "net", {"InnerProduct": 2}, 5000, 2)
TASK = Task(FRAMEWORK, "classification", DATA, NET)
HIGH, LOW, MIDDLE = (policy(f"FIX(k0={k0})") for k0 in (0.1, 0.001, 0.01))


def ended(uid, lr_policy, top1, seed, sent=None):
    return run(
        uid, dataset=DATA, network=NET, policy=lr_policy, seed=seed, contribution=sent, epoch=14.0625,
        measurements=[at(0, 50.0), at(300, top1)],
    )  # fmt: skip


@pytest.fixture
def database(new_database):
    """MIDDLE: 90 (own), 92 and 94 (ada); HIGH: 95 (bob); LOW: 91 (own)."""
    with Database.open(new_database) as opened:
        opened.put_many(
            [
                ended("own1", MIDDLE, 90.0, 1),
                ended("ada1", MIDDLE, 92.0, 2, ADA),
                ended("ada2", MIDDLE, 94.0, 3, ADA),
                ended("bob1", HIGH, 95.0, 1, BOB),
                ended("own2", LOW, 91.0, 1),
            ]
        )
        yield opened


def asked(source, **others):
    return recommend(source, TASK, solver=SOLVER, max_iter=300, epoch=14.0625, top=9, **others)


def own_task(recommendation):
    """The proposals with results on the very task, by policy."""
    same = [p for p in recommendation.proposals if p.main.same_task]
    return {str(p.policy): p for p in same}


def test_evidence_says_from_whom_it_is(database):
    found = own_task(asked(database))
    assert found.keys() == {"FIX(k0=0.01)", "FIX(k0=0.1)", "FIX(k0=0.001)"}
    middle, high, low = (found[f"FIX(k0={k0})"].evidence[0] for k0 in (0.01, 0.1, 0.001))
    assert "(measured, 3 runs, of these 2 from ada, the newest runs/ada2)" in middle
    assert "(measured, 1 run, from bob, the newest runs/bob1)" in high
    assert low.endswith("(measured, 1 run, the newest runs/own2)")  # as without a platform


def test_so_does_the_json(database):
    recommendation = asked(database)
    told = recommendation_json(Wanted(TASK, SCRATCH), recommendation, 2000)
    contributors = {p["policy"]: p["contributors"] for p in told["proposals"] if p["same_task"]}
    assert contributors == {
        "FIX(k0=0.01)": {"ada": 2},
        "FIX(k0=0.1)": {"bob": 1},
        "FIX(k0=0.001)": {},
    }


def test_limited_to_contributors_it_knows_nothing_else(database):
    found = asked(results_of(database, ["ada"]))
    assert [str(p.policy) for p in found.proposals] == ["FIX(k0=0.01)"]
    assert found.proposals[0].main.summary.top1.mean == 93.0
    assert "(measured, 2 runs, from ada, the newest runs/ada2)" in found.proposals[0].evidence[0]
    assert not found.similar  # the paper's are left out, too
    assert own_task(asked(results_of(database, ["own"]))).keys() == {
        "FIX(k0=0.01)",
        "FIX(k0=0.001)",
    }
    of_both = own_task(asked(results_of(database, ["own", "ada"])))
    assert of_both["FIX(k0=0.01)"].main.summary.top1.mean == pytest.approx(92.0)
    papers = asked(results_of(database, ["paper"]))
    assert papers.proposals and {p.main.summary.source for p in papers.proposals} == {"paper"}


def test_of_several_results_each_says_it(database):
    """The runs of another length become the same policy, and are listed behind the main result."""
    longer = dataclasses.replace(ended("bob2", MIDDLE, 93.0, 1, BOB), max_iter=600)
    database.put(longer)
    lines = own_task(asked(database))["FIX(k0=0.01)"].evidence
    (other,) = (line for line in lines if line.startswith("also: "))
    assert "measured, 1 run, from bob, the newest runs/bob2" in other


def test_what_is_passed_over_says_it(database):
    """Bob's divergence here speaks against a policy that another task speaks for."""
    bold, net = policy("FIX(k0=0.5)"), dataclasses.replace(NET, digest="other", depth=3)
    elsewhere = dataclasses.replace(ended("x1", bold, 99.0, 1), network=net)
    here = dataclasses.replace(ended("bob3", bold, 50.0, 1, BOB), status="diverged")
    database.put_many([elsewhere, here])
    (passed,) = (
        line for line in asked(database).remarks if line.startswith("passed over: FIX(k0=0.5)")
    )
    assert "1 training diverged on this task (measured, 1 run, from bob" in passed
