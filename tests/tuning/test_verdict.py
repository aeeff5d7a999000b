"""The best finalist against the solver's own policy. The p of Welch's test were calculated independently."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest

from lrbench_caffe.jobs import Job, JobResult
from lrbench_caffe.lr import parse
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.tuning.plan import TuningPlan
from lrbench_caffe.tuning.trainings import PolicyTrainings
from lrbench_caffe.tuning.verdict import KEEP_OWN, judge, ranked, reach, tops
from tests.tuning.rule_pool import measurement

BEST, OWN = "SIN2(k0=0.01, k1=0.06, l=50)", "STEP(k0=0.1, gamma=0.5, l=100)"


def trained(policy: str, ends: Sequence[float | str]) -> PolicyTrainings:
    """A policy whose trainings with seeds 1, 2, ... end with these Top-1, reached half-way to a tenth of a
    point, or with a status."""
    found = PolicyTrainings(parse(policy).bind(200))
    for seed, end in enumerate(ends, 1):
        training = Job("solver.prototxt", seed=seed, out=f"runs/{seed}", policy=policy)
        if isinstance(end, str):
            found.results[seed] = JobResult(training, end, "as it was", 20)
        else:
            tests = [measurement(100, end - 0.1), measurement(200, end)]
            found.results[seed] = JobResult(training, "finished", None, 200, 1.0, tests)
    return found


def test_trainings_are_in_the_order_of_their_seeds() -> None:
    found = trained(BEST, [81.0, 82.0, "failed", 84.0])
    found.results = {seed: found.results[seed] for seed in (4, 2, 3, 1)}
    assert [test.top1 for test in tops(found, plan().measure)] == [81.0, 82.0, 84.0]
    assert reach(found, 82.0, plan().measure) == [200.0, 100.0]


def plan(**more: Any) -> TuningPlan:
    return TuningPlan("solver.prototxt", 200, 100, None, 10.0, 1, seeds=3, **more)


@pytest.mark.parametrize(
    ("best", "own", "recommended", "p", "words"),
    [
        # t = 1.38 / sqrt(0.01 / 3 + 0.01 / 3) = 16.9, 4 degrees of freedom.
        ([81.54, 81.64, 81.74], [82.92, 83.02, 83.12], False, 7.2e-05, "1.38 points of Top-1 less"),
        ([83.0, 83.1, 83.2], [82.0, 82.1, 82.2], True, 0.00026, "1.00 points of Top-1 more"),
        # t = 0.05 / sqrt(0.01 / 3 + 0.01 / 3) = 0.612.
        ([83.05, 83.15, 83.25], [83.0, 83.1, 83.2], False, 0.573, "within noise"),
        ([83.0], [82.0], True, None, "too few to test for noise; use seeds 3"),
        ([82.0], [83.0], False, None, "too few to test for noise; use seeds 3"),
        ([83.0, 83.0], [83.0, 83.0], False, None, "is as good as"),
        # Both trainings of each are the same, and then they are not.
        ([95.8, 95.8], [94.0, 94.0], True, None, "(2 and 2 trainings; the seed changes nothing: each counts"),
        ([95.8, 95.8, 95.8], [94.0, 94.0, "failed"], True, None, "the seed changes nothing"),
        ([95.8, math.nan], [94.0, 94.1], False, None, "had no finite Top-1 in 1 of 2 trainings"),
        ([95.8, 95.9], [math.nan, math.nan], True, None, "had no finite Top-1 in 2 of 2 trainings, this"),
        ([math.nan, math.nan], [math.nan, 94.0], False, None, "had no finite Top-1 in 1 of 2"),
        ([90.0, "diverged", 91.0], [82.0, 82.1, 82.2], False, None, "diverged in 1 of 3 trainings"),
        ([82.0, 82.1, 82.2], [90.0, "diverged", 91.0], True, None, "in 1 of 3 trainings, this one never"),
        ([90.0, "diverged"], ["diverged", "diverged"], False, None, "diverged in 2 of 2"),
        # A failure says nothing about a policy: what is left is compared.
        ([83.0, 83.1, "failed"], [82.0, 82.1, 82.2], True, 0.00136, "2 and 3 trainings"),
        ([83.0], ["failed"], True, None, "could not be compared with it: as it was"),
        (["failed"], [83.0], False, None, "no training of SIN2"),
    ],
)  # fmt: skip
def test_the_verdict(best: Any, own: Any, recommended: bool, p: float | None, words: str) -> None:
    found = judge(plan(), [trained(BEST, best)], trained(OWN, own))
    assert (found.policy is not None) == recommended
    assert found.exit_code == (0 if recommended else KEEP_OWN)
    assert found.text.startswith(
        f"train with {parse(BEST):.6g}" if recommended else ("keep your own", "no policy is")
    )
    assert words in found.text
    if p is None:
        assert found.p is None
    else:
        assert found.p == pytest.approx(p, rel=0.02)
        assert found.difference == pytest.approx(
            sum(v for v in best if v != "failed") / len([v for v in best if v != "failed"])
            - sum(own) / len(own)
        )


def test_the_interval_of_the_difference() -> None:
    # Student's t of 4 degrees of freedom is 2.776 for 95 % (tables); 2.776 * sqrt(2 * 0.01 / 3) = 0.2267.
    found = judge(plan(), [trained(BEST, [83.0, 83.1, 83.2])], trained(OWN, [82.0, 82.1, 82.2]))
    assert found.interval == pytest.approx((0.7733, 1.2267), abs=1e-4)
    assert "difference +0.77 to +1.23 with 95 % confidence; beyond noise" in found.text
    assert found.as_json()["interval"] == list(found.interval or ())
    # t of 2 and 1 trainings or without deviations says nothing.
    assert judge(plan(), [trained(BEST, [83.0])], trained(OWN, [82.0, 82.1])).interval is None
    assert judge(plan(), [trained(BEST, [83.0, 83.0])], trained(OWN, [82.0, 82.0])).interval is None


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.2, 0.2266, 0.2268, 0.3, 1.0])
def test_the_interval_contains_zero_where_the_test_says_noise(shift: float) -> None:
    best = [83.0 + shift, 83.1 + shift, 83.2 + shift]
    found = judge(plan(), [trained(BEST, best)], trained(OWN, [83.0, 83.1, 83.2]))
    assert found.interval is not None
    assert (found.interval[0] <= 0 <= found.interval[1]) == found.within_noise == (shift < 0.2267)


def seeded(policy: str, begins: Sequence[float], end: float) -> PolicyTrainings:
    """Trainings that differ half-way, and all end with ``end``."""
    found = trained(policy, [end] * len(begins))
    for result, begin in zip(found.results.values(), begins):
        result.measurements[0] = measurement(100, begin)
    return found


@pytest.mark.parametrize(
    ("more", "recommended", "p"),
    [
        # Of 500 images a step is 0.2. s^2 = 0.2^2 * 3 / 2 of each; t = more / sqrt(2 * 0.06 / 3); 4 degrees
        # of freedom: t = 1, 2, 3 and 10 have these p (tables of Student's t).
        (0.2, False, 0.374),
        (0.4, False, 0.116),
        (0.6, True, 0.0399),
        (2.0, True, 0.00056),
    ],
)
def test_without_deviations_a_step_of_the_measure_counts_as_one(
    more: float, recommended: bool, p: float
) -> None:
    """One image more in each of three trainings is no proof: the next one may have another."""
    own = seeded(OWN, [90.0, 90.2, 90.4], 94.0)
    found = judge(plan(), [seeded(BEST, [91.0, 91.2, 91.0], 94.0 + more)], own)
    assert (found.policy is not None) == recommended
    assert found.p == pytest.approx(p, rel=0.01)
    assert "neither deviates, so that 0.20 is taken for it; difference " in found.text


def test_where_all_tests_are_the_same_nothing_is_better() -> None:
    best, own = seeded(BEST, [94.0, 94.0], 94.0), seeded(OWN, [94.0, 94.0], 94.0)
    own.results[1].measurements[0] = measurement(50, 94.0)  # they are not alike
    best.results[1].measurements[0] = measurement(50, 94.0)
    found = judge(plan(), [best], own)
    assert found.policy is None and "no deviation in either" in found.text


@pytest.mark.parametrize(("own_at", "recommended", "p"), [(200, False, 0.374), (400, True, 0.0399)])
def test_the_step_of_a_cost_is_that_between_two_tests(
    own_at: int, recommended: bool, p: float
) -> None:
    """100 against 200 and 400 iterations, tested each 100."""
    best, own = trained(BEST, [91.0] * 3), trained(OWN, [91.0] * 3)
    for number, one in enumerate((*best.results.values(), *own.results.values())):
        tests = [(at, 80.0 + number) for at in (100, 200, 300, 400)]
        at_target = 100 if number < 3 else own_at
        one.measurements[:] = [measurement(at, 91.0 if at >= at_target else v) for at, v in tests]
        one.measurements.append(measurement(500, 91.0 + number))
    found = judge(plan(goal="cost", target_top1=91.0), [best], own)
    assert (found.policy is not None) == recommended
    assert found.p == pytest.approx(p, rel=0.01)
    assert "neither deviates, so that 100 is taken for it" in found.text


def test_where_the_test_set_chose_it_the_verdict_says_so() -> None:
    best, own = trained(BEST, [83.0, 83.1, 83.2]), trained(OWN, [82.0, 82.1, 82.2])
    chosen = "the test set chose it, too"
    assert chosen in judge(plan(), [best], own).text
    assert chosen not in judge(plan(), [own], best).text  # it is not recommended
    for one in (best, own):
        one.held_out = trained(str(one.policy), [90.0])
    assert chosen not in judge(plan(holdout=0.1), [best], own).text


def test_one_without_a_diverged_seed_beats_one_with_one_whatever_its_top1() -> None:
    bad, good = trained(BEST, [95.0, 95.1, "diverged"]), trained("FIX(k0=0.01)", [90.0, 90.1, 90.2])
    assert ranked(plan(), [bad, good]) == [good, bad]
    found = judge(plan(), [bad, good], trained(OWN, [80.0, 80.1, 80.2]))
    assert str(found.policy) == "FIX(k0=0.01)"


def test_where_the_own_policy_is_a_finalist_the_others_are_compared_with_it() -> None:
    own, other = trained(OWN, [83.0, 83.1, 83.2]), trained(BEST, [82.0, 82.1, 82.2])
    found = judge(plan(), [own, other], own)
    assert found.policy is None and str(found.best) == str(other.policy)
    assert found.difference == pytest.approx(-1.0)
    alone = judge(plan(), [own], own)
    assert alone.exit_code == KEEP_OWN and "no other policy became a finalist" in alone.text


def test_the_test_before_the_first_update_is_nobodys_result() -> None:
    """Of fine-tuning: it is the same for every LR."""
    worse, better = trained(BEST, [93.0]), trained("FIX(k0=0.01)", [93.5])
    for one in (worse, better):
        one.results[1].measurements.insert(0, measurement(0, 94.0))
    assert ranked(plan(), [worse, better]) == [better, worse]
    assert [m.iteration for m in tops(better, plan().measure)] == [200]
    found = judge(plan(), [worse, better], trained(OWN, [92.0]))
    assert "no training of FIX(k0=0.01) rose above the 94.00 % that it began with" in found.text
    assert "rose above" not in judge(plan(), [trained(BEST, [95.0])], None).text


def test_a_solver_without_a_policy_of_its_own() -> None:
    found = judge(plan(), [trained(BEST, [83.0, 83.1])], None)
    assert found.exit_code == 0 and "no lr_policy to compare it with" in found.text
    assert judge(plan(), [trained(BEST, [83.0, "diverged"])], None).exit_code == KEEP_OWN


@pytest.mark.parametrize(
    ("best", "own", "recommended", "difference"),
    [
        ([90.1, 90.1, 90.1], [90.0, 90.0, 90.0], True, -100.0),  # 100 iterations against 200
        ([90.0, 90.0, 90.0], [90.1, 90.1, 90.1], False, 100.0),
        (
            [90.0, 90.0, 90.0],
            [89.0, 90.1, 90.1],
            False,
            None,
        ),  # 3 of 3 against 2 of 3: Fisher's p = 1
        ([90.0, 90.0, 90.0], [89.0, 89.1, 89.1], True, None),  # 3 of 3 against none
        ([90.0, 89.0, 89.0], [89.0, 89.1, 89.1], False, None),  # 1 of 3 against none
        ([90.0] * 5, [90.0, *[89.0] * 5], True, None),  # p = 0.015
        ([89.0, 89.0, 89.0], [89.5, 89.5, 89.5], False, None),  # neither ever
        ([90.1, 89.0, 89.0], [90.0, 89.0, 89.0], False, None),  # both once: no more than luck
    ],
)
def test_for_cost_the_iterations_to_the_target_count(
    best: list[float], own: list[float], recommended: bool, difference: float | None
) -> None:
    asked = plan(goal="cost", target_top1=90.0)
    found = judge(asked, [trained(BEST, best)], trained(OWN, own))
    assert found.metric == "iterations"
    assert (found.policy is not None) == recommended
    assert found.difference == difference


def test_a_loss_that_is_no_number_comes_last_among_equals() -> None:
    ones = {name: trained(f"FIX(k0={name})", [90.0]) for name in (0.1, 0.2, 0.3)}
    for (name, one), loss in zip(ones.items(), (math.nan, 0.2, 0.1)):
        one.held_out = trained(f"FIX(k0={name})", [90.0])
        for test in one.held_out.results[1].measurements:
            object.__setattr__(test, "test_loss", loss)
    for order in itertools.permutations(ones.values()):
        assert ranked(plan(holdout=0.1), order) == [ones[0.3], ones[0.2], ones[0.1]]


def test_for_cost_the_best_finalist_reaches_the_target_that_is_its_own() -> None:
    """190 of 200 right and 247 of 260: rounded to two digits, 95.0769 would be more than it is."""
    best = trained(BEST, [100 * 1236 / 1300])
    found = judge(plan(goal="cost"), [best], trained(OWN, [95.0]))
    assert found.policy is not None
    assert "95.07 % in 1 of 1" in found.text


def test_a_lost_training_does_not_count_against_its_policy() -> None:
    """Neither is one of which nothing is known the best."""
    lost_one, whole = trained(BEST, [90.0, "failed", 91.0]), trained(OWN, [89.0, 89.0, 89.0])
    lost_all = trained("FIX(k0=0.1)", ["failed"] * 3)
    unreliable = trained("FIX(k0=0.2)", [99.0, "diverged"])
    assert ranked(plan(), [unreliable, lost_all, whole, lost_one]) == [
        lost_one,
        whole,
        lost_all,
        unreliable,
    ]
    assert [one.reliable for one in (lost_one, whole, lost_all, unreliable)] == [
        True,
        True,
        False,
        False,
    ]


# -- other measures --------------------------------------------------------------------------------


def by_loss(policy: str, ends: Sequence[float], begins: float | None = None) -> PolicyTrainings:
    """Trainings that end with these losses, a tenth above them half-way."""
    found = trained(policy, [50.0] * len(ends))
    for seed, end in enumerate(ends, 1):
        values = [(100, 1.1 * end), (200, end)] + ([] if begins is None else [(0, begins)])
        tests = [Measurement(at, 0.1, outputs={"iou_loss": v}) for at, v in sorted(values)]
        found.results[seed].measurements[:] = tests
    return found


def loss_plan(**more: Any) -> TuningPlan:
    return TuningPlan(
        "solver.prototxt", 200, 100, None, 2.0, 1, seeds=3, by="iou_loss", higher=False, **more
    )


def test_the_lower_loss_is_recommended() -> None:
    # t = 0.01 / sqrt(1e-6 / 3 + 1e-6 / 3) = 12.2, as s of 0.100, 0.101, 0.102 is 0.001; p by R's pt.
    best, own = by_loss(BEST, [0.1, 0.101, 0.102]), by_loss(OWN, [0.11, 0.111, 0.112])
    found = judge(loss_plan(), [best], own)
    assert str(found.policy) == str(best.policy)
    assert (found.metric, found.difference) == ("iou_loss", pytest.approx(-0.01))
    assert found.p == pytest.approx(0.00026, rel=0.02)
    assert "has 0.01 less iou_loss than your own policy" in found.text
    assert "0.101 ± 0.00082 against 0.111 ± 0.00082 (3 and 3 trainings" in found.text
    assert judge(loss_plan(), [own], best).exit_code == KEEP_OWN
    assert ranked(loss_plan(), [own, best]) == [best, own]


def test_a_loss_that_never_fell_below_the_weights_is_told() -> None:
    best, own = by_loss(BEST, [0.1], begins=0.09), by_loss(OWN, [0.2], begins=0.09)
    text = judge(loss_plan(), [best], own).text
    assert (
        "no training of SIN2(k0=0.01, k1=0.06, l=50) fell below the 0.09 that it began with" in text
    )


def test_the_cost_of_a_loss() -> None:
    """The target is the best mean and its deviation, 0.101 + 0.00082, with as many digits as are shown and
    not harder; OWN reaches it never."""
    best, own = by_loss(BEST, [0.1, 0.101, 0.102]), by_loss(OWN, [0.11, 0.111, 0.112])
    found = judge(loss_plan(goal="cost"), [best], own)
    assert found.policy is not None
    assert (
        "reached 0.1019 in 2 of 3 trainings, your own policy, STEP(k0=0.1, gamma=0.5, l=100), in 0 of 3"
        in (found.text)
    )
