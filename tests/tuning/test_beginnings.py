"""Where the trainings of a study branch from one another; the iterations are worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lrbench_caffe.lr import Policy, parse
from lrbench_caffe.tuning.beginnings import Beginnings, Branch
from lrbench_caffe.tuning.space import FAMILIES, GoodRange, candidates

MAX_ITER = 1000
TEXTS = {
    "fix": "FIX(k0=0.1)",
    "step": "STEP(k0=0.1, gamma=0.5, l=100)",
    "slow": "STEP(k0=0.1, gamma=0.9, l=100)",
    "nstep": "NSTEP(k0=0.1, gamma=0.5, l=[500, 700])",
    "other": "FIX(k0=0.2)",
    "late": "NSTEP(k0=0.1, gamma=0.5, l=[1000, 2000])",
    "tri": "TRI(k0=0.01, k1=0.1, l=100)",
    "tri2": "TRI2(k0=0.01, k1=0.1, l=100)",
    "cos": "COS(k0=0.01, k1=0.1, l=100)",
    "poly": "POLY(k0=0.1, p=1)",
    "poly2": "POLY(k0=0.1, p=2)",
}
POLICIES = {name: parse(text).bind(MAX_ITER) for name, text in TEXTS.items()}


class Plans:
    """A study's plans by name."""

    def __init__(self, *expected: str) -> None:
        self.beginnings = Beginnings(MAX_ITER)
        self.beginnings.expected = [POLICIES[name] for name in expected]

    def plan(
        self, name: str, until: int, like: int = 1, wanted: tuple[int, ...] = ()
    ) -> tuple[tuple[str, int] | None, tuple[int, ...]]:
        policy = POLICIES[name]
        branch, points = self.beginnings.plan(policy, f"{name}-{like}", until, like, wanted)
        return (branch.origin, branch.at) if branch else None, points


@pytest.mark.parametrize(
    ("one", "other", "length"),
    [
        ("fix", "step", 100),
        ("fix", "nstep", 500),
        ("step", "nstep", 100),
        ("step", "slow", 100),
        ("fix", "other", 0),
        # The factor of TRI2 changes at 200, where both are 0.
        ("tri", "tri2", 201),
        ("tri", "cos", 0),
        ("poly", "poly2", 1),
        ("fix", "fix", 1000),
    ],
)
def test_shared_lengths(one: str, other: str, length: int) -> None:
    beginnings = Beginnings(MAX_ITER)
    assert beginnings.shared(POLICIES[one], POLICIES[other]) == length
    assert beginnings.shared(POLICIES[other], POLICIES[one]) == length


def test_a_plateau_shares_nothing() -> None:
    plateau = parse("FIX(k0=0.1) ; plateau(n=2): FIX(k0=0.01)").bind(MAX_ITER)
    assert Beginnings(MAX_ITER).shared(plateau, POLICIES["fix"]) == 0


def test_what_never_parts_branches_before_the_end() -> None:
    """Where the first one's training ends, Caffe does more than in the middle of a longer one."""
    plans = Plans("fix", "late", "other")
    assert plans.plan("fix", 150) == (None, ())
    assert plans.plan("fix", 1000) == (None, (999,))
    assert plans.plan("late", 1000) == (("fix-1", 999), (999,))
    assert plans.plan("other", 1000) == (None, ())  # itself it does not wait for


def test_snapshots_are_made_where_others_will_branch() -> None:
    plans = Plans(*TEXTS)
    assert plans.plan("fix", 600) == (None, (100, 500))
    assert plans.plan("step", 150) == (("fix-1", 100), (100,))
    assert plans.plan("nstep", 1000) == (("fix-1", 500), (100, 500))
    assert plans.plan("other", 1000) == (None, ())
    assert plans.plan("tri", 150) == (None, ())
    assert plans.plan("tri2", 150) == (("tri-1", 150), ())  # all of it is there
    assert plans.plan("tri", 400) == (None, (201,))
    assert plans.plan("tri2", 400) == (("tri-1", 201), (201,))  # more than it had itself
    assert plans.plan("poly", 400) == (None, ())
    assert plans.plan("poly2", 400) == (None, ())


def test_the_first_part_of_those_to_come() -> None:
    plans = Plans("fix", "nstep", "step")
    plans.beginnings.opening = 150
    assert plans.plan("fix", 400) == (None, (100, 150))
    assert plans.plan("nstep", 150) == (("fix-1", 150), (100,))
    assert plans.plan("step", 150) == (("fix-1", 100), (100,))  # its LRs are others before 150


def test_another_seed_has_other_trainings() -> None:
    plans = Plans(*TEXTS)
    plans.plan("fix", 600)
    assert plans.plan("step", 150, like=2) == (None, (100,))
    assert plans.plan("fix", 600, like=2) == (("step-2", 100), (100, 500))


def test_what_nobody_was_expected_to_need_is_there_at_the_end_of_a_part() -> None:
    plans = Plans()
    plans.plan("fix", 300)
    assert plans.plan("nstep", 400) == (("fix-1", 300), ())
    plans.plan("fix", 700)  # the snapshot of 300 gives way
    assert plans.plan("step", 400) == (None, ())
    assert plans.plan("nstep", 500) == (None, ())


def test_a_snapshot_that_others_wait_for_stays() -> None:
    plans = Plans()
    plans.plan("fix", 300)
    assert plans.plan("fix", 700, wanted=(300,)) == (None, (300,))
    assert plans.plan("nstep", 400) == (("fix-1", 300), ())


def test_nothing_is_planned_for_what_was_trained() -> None:
    plans = Plans("fix", "step")
    plans.plan("step", 400)
    plans.plan("fix", 400)
    assert plans.plan("step", 400) == plans.plan("step", 300) == (None, (100,))


def test_a_short_beginning_is_not_worth_it() -> None:
    short = parse("STEP(k0=0.1, gamma=0.5, l=19)").bind(MAX_ITER)  # 2 % are 20
    beginnings = Beginnings(MAX_ITER)
    beginnings.expected = [short]
    assert beginnings.plan(POLICIES["fix"], "fix", 500, 1) == (None, ())
    assert beginnings.plan(short, "short", 500, 1) == (None, ())


def test_no_branch_is_behind_a_difference() -> None:
    """Over random orders of random parts of a whole space: what is taken over is the same, and is there."""
    good = GoodRange(0.002, 0.1, 0.05)
    found = candidates(good, FAMILIES["all"], max_iter=MAX_ITER, epoch=25.0)
    policies: list[Policy] = [candidate.policy for candidate in found]
    random = np.random.default_rng(0)
    beginnings = Beginnings(MAX_ITER)
    beginnings.expected = policies
    kept: dict[str, set[int]] = {}
    reached = dict.fromkeys(map(str, policies), 0)
    branches = 0
    for _ in range(400):
        policy = policies[random.integers(len(policies))]
        text, until = str(policy), int(random.integers(1, 11)) * 100
        branch, points = beginnings.plan(policy, text, until, 1)
        if until <= reached[text]:
            assert branch is None
            continue
        start = reached[text]
        if branch is not None:
            branches += 1
            assert isinstance(branch, Branch) and start < branch.at <= until
            assert branch.at in kept[branch.origin]
            times = np.arange(branch.at)
            other = parse(branch.origin).bind(MAX_ITER)
            assert (np.asarray(policy(times)) == np.asarray(other(times))).all()
            start = branch.at
        before = {*kept.get(text, ()), reached[text], start} & set(points)
        kept[text] = {*before, *(p for p in points if start < p <= until), until}
        reached[text] = until
    assert branches > 10


def test_shared_lengths_are_those_of_the_lrs() -> None:
    beginnings = Beginnings(MAX_ITER)
    times = np.arange(MAX_ITER)
    for one, other in itertools.combinations(POLICIES.values(), 2):
        same = np.asarray(one(times)) == np.asarray(other(times))
        length = MAX_ITER if same.all() else int(np.argmin(same))
        assert beginnings.shared(one, other) == length
