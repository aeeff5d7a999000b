"""The search's decisions, on curves that are made by rule."""

from __future__ import annotations

import numpy as np
import pytest

from lrbench_caffe.lr import Policy, parse
from lrbench_caffe.tuning.curves import Curve
from lrbench_caffe.tuning.measure import Measure
from lrbench_caffe.tuning.scouting import MOST, level
from lrbench_caffe.tuning.search import PolicySearch, Step, mean_rates

MAX_ITER, INTERVAL = 2000, 100
TESTS = MAX_ITER // INTERVAL
TOP1 = Measure.of_top1(10.0)


def policies(*texts: str) -> list[Policy]:
    return [parse(text).bind(MAX_ITER) for text in texts]


def curve(
    top1: list[float] | np.ndarray, status: str = "stopped", trained: int | None = None
) -> Curve:
    values = np.asarray(top1, dtype=float)
    iterations = INTERVAL * np.arange(1, len(values) + 1)
    return Curve(iterations, values, trained or INTERVAL * len(values), status)


class World:
    """Trainings by rule: Top-1 rises to a policy's ``top``, and what is above ``limit`` diverges."""

    def __init__(self, candidates: list[Policy], tops: list[float], limit: float = 0.1) -> None:
        self.candidates, self.tops, self.limit = candidates, tops, limit
        self.trained = [0] * len(candidates)

    def curve(self, index: int, until: int) -> Curve:
        if level(self.candidates[index], MAX_ITER) >= np.log10(self.limit):
            return curve([], "diverged", trained=30)
        t = np.arange(INTERVAL, until + 1, INTERVAL)
        return curve(self.tops[index] * (1 - np.exp(-t / 300)))

    def play(self, search: PolicySearch) -> list[Step]:
        taken = []
        while step := search.ask():
            self.take(step)
            search.tell(step, self.curve(step.index, step.until))
            taken.append(step)
        return taken

    def take(self, step: Step) -> None:
        assert self.trained[step.index] < step.until <= MAX_ITER  # a step is always new iterations
        self.trained[step.index] = step.until


def search(candidates: list[Policy], **more: object) -> PolicySearch:
    return PolicySearch(candidates, max_iter=MAX_ITER, test_interval=INTERVAL, measure=TOP1, **more)  # type: ignore[arg-type]


MANY = policies(*(f"FIX(k0={lr})" for lr in (0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5)))
TOPS = [70.0, 80.0, 90.0, 93.0, 94.0, 95.0, 0.0, 0.0, 0.0]


def test_without_a_budget_everything_that_does_not_diverge_is_trained_to_its_end() -> None:
    world = World(MANY, TOPS)
    one = search(MANY)
    world.play(one)
    assert world.trained[:6] == [MAX_ITER] * 6
    assert one.best == 5
    assert one.ranking() == [5, 4, 3, 2, 1, 0]


def test_the_best_comes_long_before_that() -> None:
    world = World(MANY, TOPS)
    one = search(MANY, budget=3 * MAX_ITER)
    world.play(one)
    assert one.best == 5
    assert sum(world.trained) <= 3 * MAX_ITER + MAX_ITER // 5  # the last step may go beyond


def test_steps_that_are_asked_for_ahead_are_of_different_candidates_and_within_the_budget() -> None:
    world = World(MANY, TOPS)
    one = search(MANY, budget=2 * MAX_ITER)
    one.know(parse("FIX(k0=0.08)"), curve([], "diverged", trained=20))
    one.know(parse("FIX(k0=0.015)"), curve([50.0, 60.0]))
    begun: list[Step] = []
    while True:
        while len(begun) < 4 and (step := one.ask()):
            assert step.index not in [other.index for other in begun]
            world.take(step)
            begun.append(step)
        assert sum(world.trained) <= 2 * MAX_ITER + MAX_ITER // 5
        if not begun:
            break
        first = begun.pop(0)
        one.tell(first, world.curve(first.index, first.until))
    assert sum(world.trained) >= 2 * MAX_ITER


def test_while_a_scout_is_on_its_way_nothing_else_is_begun() -> None:
    one = search(MANY)
    scout = one.ask()
    assert scout is not None and one.ask() is None
    one.tell(scout, World(MANY, TOPS).curve(scout.index, scout.until))
    assert one.ask() is not None


LRS = [0.001 * 1.2**n for n in range(28)]  # up to 0.14, about as many as a pool has levels


@pytest.mark.parametrize("dull", [0, 2])
def test_where_a_test_teaches_nothing_scouting_ends(dull: int) -> None:
    """Two classes, of which the best get 70 %, after ``dull`` tests without any progress."""
    candidates = policies(*(f"FIX(k0={lr:g})" for lr in LRS))

    class Slow(World):
        def curve(self, index: int, until: int) -> Curve:
            t = np.maximum(0, np.arange(INTERVAL, until + 1, INTERVAL) - dull * INTERVAL)
            return curve(50.0 + (self.tops[index] - 50.0) * (1 - np.exp(-t / 500)))

    world = Slow(candidates, [70.0 - 5 * abs(np.log10(lr / 0.02)) for lr in LRS])
    one = PolicySearch(
        candidates, max_iter=MAX_ITER, test_interval=INTERVAL, measure=Measure.of_top1(50.0),
        budget=round(0.15 * len(LRS) * MAX_ITER),
    )  # fmt: skip
    steps = world.play(one)
    scouts = [step for step in steps if step.until == INTERVAL]
    assert len(scouts) <= MOST
    best = one.best
    assert best is not None and abs(np.log10(LRS[best] / 0.02)) < 0.4


def test_what_comes_first_is_opened_before_all_else_whatever_its_lr() -> None:
    world = World(MANY, TOPS)
    one = search(MANY, first=[MANY[8], MANY[0], MANY[4]], budget=INTERVAL)
    one.know(parse("FIX(k0=0.08)"), curve([], "diverged", trained=20))
    steps = world.play(one)
    assert [(step.index, step.until) for step in steps] == [
        (i, 3 * INTERVAL) for i in (0, 4, 8)
    ]  # 15 %


def test_what_is_at_or_above_what_diverged_is_tried_when_nothing_else_is_left() -> None:
    world = World(MANY, TOPS)
    steps = world.play(search(MANY))
    ends = [number for number, step in enumerate(steps) if step.index < 6]
    scouts = [step.index for step in steps[: ends[-1]] if step.index >= 6]
    assert len(scouts) <= 2 and scouts == sorted(set(scouts), reverse=True)
    last = [step.index for step in steps[ends[-1] + 1 :]]
    assert sorted(scouts + last) == [6, 7, 8]


def test_what_rises_to_an_lr_is_tried_though_one_that_begins_there_diverged() -> None:
    """Until iteration 29, COS has a mean LR of about 0.06, FIX has 0.07, and SIN has 0.009."""
    candidates = policies("SIN(k0=0.006, k1=0.06, l=400)", "FIX(k0=0.07)", "FIX(k0=0.01)")
    one = search(candidates)
    one.know(parse("COS(k0=0.006, k1=0.06, l=100)"), curve([], "diverged", trained=29))
    world = World(candidates, [95.0, 0.0, 90.0], limit=0.065)
    steps = world.play(one)
    assert world.trained == [MAX_ITER, 3 * INTERVAL, MAX_ITER]  # FIX diverges
    assert steps[-1].index == 1


def test_a_failure_is_no_limit() -> None:
    """A crash of a low LR must not close all that is above it."""
    one = search(MANY)
    one.know(parse("FIX(k0=0.002)"), curve([], "failed", trained=20))
    world = World(MANY, TOPS)
    world.play(one)
    assert world.trained[:6] == [MAX_ITER] * 6


def test_too_low_an_lr_is_no_sign_of_one_that_is_too_high() -> None:
    one = search(MANY)
    one.know(parse("FIX(k0=0.0001)"), curve([10.0, 10.0]))
    one.know(parse("FIX(k0=0.01)"), curve([30.0, 50.0]))
    one.know(parse("FIX(k0=0.2)"), curve([], "diverged", trained=20))
    world = World(MANY, TOPS)
    world.play(one)
    assert world.trained[:6] == [MAX_ITER] * 6


def test_the_same_seed_takes_the_same_steps_and_another_one_others() -> None:
    alike = policies(*(f"SIN(k0=0.001, k1=0.03, l={cycle})" for cycle in range(100, 900, 50)))
    tops = [90.0 + 0.1 * number for number in range(len(alike))]
    first, again, other = (World(alike, tops).play(search(alike, seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_what_is_known_is_taken_in() -> None:
    """A range test's trainings: the candidate among them begins where it stands, the limit is known."""
    one = search(MANY)
    one.know(MANY[5], curve([60.0, 80.0]))
    one.know(parse("FIX(k0=0.08)"), curve([], "diverged", trained=20))
    world = World(MANY, TOPS)
    world.trained[5] = 2 * INTERVAL
    steps = world.play(one)
    above = [number for number, step in enumerate(steps) if step.index >= 6]
    assert above == [
        len(steps) - 3,
        len(steps) - 2,
        len(steps) - 1,
    ]  # above 0.08: no scout is needed


def test_a_cycle_is_judged_by_its_calm_tests() -> None:
    """TRI is at its bottom at 800 and 1600; in between, Top-1 is low, and that is no sign of an end."""
    tri, fix = policies("TRI(k0=0.0006, k1=0.06, l=400)", "FIX(k0=0.03)")
    one = search([tri, fix])
    falling = curve([80.0, 85.0, 86.0, 84.0, 87.0, 90.0, 93.0, 95.0, 92.0, 88.0, 86.0, 85.0])
    assert one._age(0, falling) == 0
    assert one._age(1, falling) == 4


def test_with_a_target_the_search_ends_there() -> None:
    world = World(MANY, TOPS)
    one = search(MANY, target=90.0)
    world.play(one)
    assert sum(world.trained) < 6 * MAX_ITER
    assert one.best is not None and world.curve(one.best, MAX_ITER).best >= 90.0


def test_a_target_is_for_a_candidate_to_reach_not_for_the_range_test() -> None:
    one = search(MANY, target=90.0)
    one.know(parse("FIX(k0=0.015)"), curve([85.0, 95.0]))
    World(MANY, TOPS).play(one)
    assert one.best is not None and one.best in (2, 3, 4, 5)
    cheap = search(MANY[2:4], goal="cost", target=89.0)
    cheap.know(parse("FIX(k0=0.015)"), curve([95.0]))
    world = World(MANY[2:4], TOPS[2:4])
    world.play(cheap)
    assert world.curve(1, world.trained[1]).best >= 89.0


def test_for_cost_nothing_is_trained_beyond_the_cheapest_way_to_the_target() -> None:
    slow, fast = policies("FIX(k0=0.01)", "FIX(k0=0.011)")
    one = search([slow, fast], goal="cost", target=90.0)
    rising = {0: np.linspace(5, 100, TESTS), 1: np.linspace(40, 100, TESTS)}  # 90 at test 18 and 17
    trained = [0, 0]
    while step := one.ask():
        trained[step.index] = step.until
        one.tell(step, curve(rising[step.index][: step.until // INTERVAL]))
    assert one.ranking()[0] == 1
    assert max(trained) <= 1800


def test_for_cost_nothing_is_tried_once_the_first_test_has_the_target() -> None:
    one = search(MANY, goal="cost", target=50.0)
    while step := one.ask():
        one.tell(step, curve([60.0] * (step.until // INTERVAL)))
    assert one.won and len(one.ranking()) == 1


def test_for_cost_a_new_candidate_is_trained_only_as_long_as_it_can_be_the_cheapest() -> None:
    one = search(MANY[2:6], goal="cost", target=50.0)
    one.know(MANY[2], curve([20.0, 60.0]))  # at the second test
    untils = []
    while step := one.ask():
        untils.append(step.until)
        one.tell(step, curve([30.0] * (step.until // INTERVAL)))
    assert untils == [INTERVAL] * 3


class OftenTested(World):
    """The same trainings with ten times as many tests, of which those in between are noisy."""

    def curve(self, index: int, until: int) -> Curve:
        rough = super().curve(index, MAX_ITER)
        if not rough.alive:
            return rough
        between = INTERVAL // 10
        t = np.arange(between, until + 1, between)
        top1 = np.interp(t, np.append(0, rough.iterations), np.append(0.0, rough.scores))
        top1 -= 5.0 * (t % INTERVAL > 0)
        return Curve(t, top1, until, "stopped")


@pytest.mark.parametrize("target", [None, 90.0])
def test_decisions_do_not_depend_on_how_often_is_tested(target: float | None) -> None:
    steps = []
    for world, interval in (
        (World(MANY, TOPS), INTERVAL),
        (OftenTested(MANY, TOPS), INTERVAL // 10),
    ):
        one = PolicySearch(
            MANY, max_iter=MAX_ITER, test_interval=interval, measure=TOP1, budget=3 * MAX_ITER,
            target=target,
        )  # fmt: skip
        steps.append((world.play(one), one.ranking()))
    assert steps[0] == steps[1]


def test_tests_of_a_part_are_one_with_the_best_of_them() -> None:
    often = Curve(np.arange(10, 251, 10), np.arange(25) % 10 + 50.0, 250, "stopped")
    parts = often.in_parts(np.array([100, 200, 300]))
    assert parts.iterations.tolist() == [100, 200]  # what is behind them is no whole part yet
    assert parts.scores.tolist() == [59.0, 59.0]
    assert (parts.trained, parts.status) == (250, "stopped")
    assert len(often.in_parts(np.array([300])).scores) == 0
    gap = Curve(np.array([100, 300]), np.array([1.0, 2.0]), 300, "stopped").in_parts(
        np.array([100, 200, 300])
    )
    assert (gap.iterations.tolist(), gap.scores.tolist()) == ([100, 300], [1.0, 2.0])
    assert len(curve([], "diverged", trained=30).in_parts(np.array([100])).scores) == 0


@pytest.mark.parametrize("tests", [1, 19, 20, 39, 40, 59, 99, 119, 280, 398])
def test_a_candidate_can_be_trained_to_its_end(tests: int) -> None:
    one = PolicySearch(MANY[:1], max_iter=10 * tests + 3, test_interval=10, measure=TOP1)
    untils = []
    while step := one.ask():
        untils.append(step.until)
        t = np.arange(10, step.until + 1, 10)
        one.tell(step, Curve(t, 50.0 + t / 1000, step.until, "stopped"))
    assert untils[-1] == 10 * tests and len(untils) <= 39
    assert one._done[0] == one._tests


def test_for_cost_known_policies_are_not_opened_where_they_can_no_longer_be_the_cheapest() -> None:
    one = search(MANY[2:5], goal="cost", target=50.0, first=MANY[2:4])
    step = one.ask()
    assert step is not None and step.until == 3 * INTERVAL
    one.tell(step, curve([20.0, 60.0, 70.0]))  # at the second test
    untils = []
    while step := one.ask():
        untils.append(step.until)
        one.tell(step, curve([30.0] * (step.until // INTERVAL)))
    assert untils == [INTERVAL, INTERVAL]


def test_for_cost_every_test_counts() -> None:
    one = PolicySearch(
        MANY[2:4], max_iter=MAX_ITER, test_interval=10, measure=TOP1, goal="cost", target=50.0
    )
    world = OftenTested(MANY[2:4], TOPS[2:4])
    world.play(one)
    reached = world.curve(1, MAX_ITER).reaches(50.0)
    assert reached is not None and reached % INTERVAL and one._cheapest() == reached


def test_levels() -> None:
    assert level(parse("FIX(k0=0.01)"), MAX_ITER) == pytest.approx(-2)
    nstep = parse("NSTEP(k0=0.1, gamma=0.1, l=[100])")
    lasting, recent = mean_rates(nstep, np.array([100, 200, 350]))
    assert lasting == pytest.approx([-1, -2, -2]) and recent == pytest.approx([-1, -2, -2])
    half, last = mean_rates(nstep, np.array([200]))
    assert (10 ** half[0], last[0]) == pytest.approx((0.055, -2))


# -- other measures --------------------------------------------------------------------------------


class LossWorld(World):
    """The same trainings, told as a loss that falls to a share of what it begins with."""

    def __init__(self, candidates: list[Policy], ends: list[float], measure: Measure) -> None:
        super().__init__(candidates, ends)
        self.measure = measure

    def curve(self, index: int, until: int) -> Curve:
        if level(self.candidates[index], MAX_ITER) >= np.log10(self.limit):
            return Curve(np.array([], dtype=int), np.array([]), 30, "diverged")
        t = np.arange(INTERVAL, until + 1, INTERVAL)
        end = self.tops[index]
        losses = self.measure.worthless * (end + (1 - end) * np.exp(-t / 300))
        return Curve(t, self.measure.scores(losses), until, "stopped")


ENDS = [0.3, 0.2, 0.1, 0.07, 0.06, 0.05, 1.0, 1.0, 1.0]


def by_loss(start: float, **more: object) -> tuple[PolicySearch, LossWorld]:
    measure = Measure.of("loss", False, start)
    one = PolicySearch(MANY, max_iter=MAX_ITER, test_interval=INTERVAL, measure=measure, **more)  # type: ignore[arg-type]
    return one, LossWorld(MANY, ENDS, measure)


def test_the_lowest_loss_is_found_before_half_of_all_is_spent() -> None:
    one, world = by_loss(2.3, budget=3 * MAX_ITER)
    world.play(one)
    assert one.best == 5
    assert sum(world.trained) <= 3 * MAX_ITER + MAX_ITER // 5


def test_the_unit_of_a_loss_changes_no_decision() -> None:
    """A loss in grams or kilograms; 1024 and 1/1024, so that not even a rounding differs."""
    steps = []
    for start in (2.0, 2048.0, 2.0 / 1024):
        one, world = by_loss(start, budget=4 * MAX_ITER)
        steps.append(world.play(one))
    assert steps[0] == steps[1] == steps[2]


def test_a_loss_that_is_low_enough_ends_the_search() -> None:
    one, world = by_loss(2.0, target=0.25)
    steps = world.play(one)
    assert one.target_reached
    reached = world.curve(steps[-1].index, steps[-1].until)
    assert reached.best >= 10 * np.log(2.0 / 0.25)


def test_a_loss_above_that_of_random_weights_is_reached_by_a_test_only() -> None:
    one, world = by_loss(2.0, target=5.0)
    assert not one.target_reached and not one.over
    world.play(one)
    assert one.target_reached and one.best is not None


def test_what_hardly_fell_beside_others_is_too_high_an_lr() -> None:
    """After one test: 1 % lower than at the beginning, where a lower LR has halved it."""
    one, _ = by_loss(2.0)
    score = one.measure.score
    one.know(
        parse("FIX(k0=0.005)"),
        Curve(np.array([INTERVAL]), np.array([score(1.0)]), INTERVAL, "stopped"),
    )
    one.know(
        parse("FIX(k0=0.08)"),
        Curve(np.array([INTERVAL]), np.array([score(1.98)]), INTERVAL, "stopped"),
    )
    begun = one._begun()
    assert one._scouts.limit(begun) == pytest.approx(np.log10(0.08))


def test_an_accuracy_as_an_output_decides_as_top1() -> None:
    as_output = Measure.of("accuracy", True, 0.1)
    found = []
    for measure, unit in ((TOP1, 1.0), (as_output, 0.01)):
        world = World(MANY, TOPS)
        one = PolicySearch(
            MANY, max_iter=MAX_ITER, test_interval=INTERVAL, measure=measure, budget=5 * MAX_ITER
        )
        steps = []
        while step := one.ask():
            told = world.curve(step.index, step.until)
            scores = measure.scores(unit * told.scores).round(9)
            one.tell(step, Curve(told.iterations, scores, told.trained, told.status))
            steps.append(step)
        found.append(steps)
    assert found[0] == found[1]


@pytest.mark.parametrize("missing", [0, 1, 7, TESTS - 1])
def test_a_test_without_a_value_is_not_trained_for_again(missing: int) -> None:
    """Precision is 0/0 where nothing was found: Caffe's layer then gives NaN."""
    measure = Measure.of("precision", True, 0.1)
    found = policies("FIX(k0=0.01)", "FIX(k0=0.02)", "STEP(k0=0.05, gamma=0.5, l=500)")
    world = World(found, [0.9, 0.8, 0.7])
    asked = PolicySearch(
        found, max_iter=MAX_ITER, test_interval=INTERVAL, measure=measure, budget=None
    )
    while step := asked.ask():
        world.take(step)
        values = 0.01 * world.curve(step.index, step.until).scores
        values[missing : missing + 1] = np.nan
        scores = measure.scores(values)
        asked.tell(step, curve(scores))
    assert world.trained == [MAX_ITER] * 3
    assert asked.best == 0
