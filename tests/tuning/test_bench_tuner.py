"""The replay benchmark: what a training costs, what was found by then, and who is compared."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest

from lrbench_caffe.lr import parse
from tunerbench import contenders, curves, oracle, ours, peers, results
from tunerbench.curves import Curve, CurveSet
from tunerbench.keeping import KeptRuns
from tunerbench.ledger import Ledger
from tunerbench.pool import CNN3, pool
from tunerbench.space import Space, place

POLICIES = [parse(f"FIX(k0={k0})") for k0 in (0.001, 0.01, 0.1)]
SEED = 1


def curve(top1: list[float], status: str = "finished", end: int = 300) -> Curve:
    """Tests at 0, 100, 200, ..."""
    values = np.array(top1)
    return Curve(
        100 * np.arange(len(top1)), values, 2 - values / 100, 2 - values / 100, status, end
    )


SLOW = curve([10, 50, 70, 80])
GOOD = curve([10, 60, 90, 85])
BAD = curve([10, 20], "diverged", end=130)
CURVES = [SLOW, GOOD, BAD]


def task(*made: list[Curve]) -> CurveSet:
    about = {"max_iter": 300, "test_interval": 100, "epoch": 50.0}
    return CurveSet("made up", about, POLICIES, dict(enumerate(made or (CURVES,), 1)))


def test_the_first_test_is_free_and_the_best_counts_from_when_it_was_seen():
    ledger = Ledger(CURVES)
    assert ledger.full_cost == 300 + 300 + 130
    ledger.train(1, 200)
    assert ledger.cost == 200
    assert ledger.trace == [(0, 0.0), (0, 10.0), (100, 60.0), (200, 90.0)]


def test_a_training_goes_on_from_where_it_was():
    ledger = Ledger(CURVES)
    ledger.train(0, 100)  # 100 iterations: 50
    ledger.train(1, 100)  # 200: 60
    ledger.train(0, 300)  # at 300: 70, at 400: 80
    assert ledger.cost == 400
    assert ledger.trace[2:] == [(100, 50.0), (200, 60.0), (300, 70.0), (400, 80.0)]


def test_what_is_known_costs_nothing():
    ledger = Ledger(CURVES)
    ledger.train(0, 200)
    again = ledger.train(0, 100)
    assert ledger.cost == 200
    assert again.end == 200 and again.top1.tolist() == [10, 50, 70]


def test_a_training_between_two_tests_shows_only_the_first():
    seen = Ledger(CURVES).train(0, 150)
    assert (seen.end, seen.status, seen.iterations.tolist()) == (150, "running", [0, 100])


def test_a_diverged_training_costs_what_it_took():
    ledger = Ledger(CURVES)
    assert ledger.train(2, 120).status == "running"
    assert ledger.train(2, 300).status == "diverged"
    ledger.train(2, 300)
    assert ledger.cost == 130


def test_nothing_is_looked_for_once_the_best_is_found():
    ledger = Ledger(CURVES)
    ledger.train(0, 300)
    assert not ledger.over
    ledger.train(1, 200)
    assert ledger.over


def test_the_goal_is_between_the_median_and_the_best():
    way = results.Way.of(CURVES)
    assert way.goal == pytest.approx(80 + 0.99 * (90 - 80))
    assert [way.gone(top1) for top1 in (75, 80, 90)] == [-50, 0, 100]


def test_figures_of_a_run():
    """90 is seen at 200 of 730 iterations, 60 at 100."""
    (run,) = results.replay(task(), lambda task, ledger, seed: train_in_order(ledger, [1, 0]), 1)
    assert run.cost_of_goal == pytest.approx(100 * 200 / 730)
    assert [run.best_at(share) for share in (0, 13, 14, 27, 28, 100)] == [10, 10, 60, 60, 90, 90]


def test_a_goal_that_is_not_reached_costs_infinitely_much():
    (run,) = results.replay(task(), lambda task, ledger, seed: train_in_order(ledger, [0]), 1)
    assert run.cost_of_goal == math.inf
    assert results.table({"slow": [run]})[1][:4] == ["slow", "never", "never to never", "1"]


def train_in_order(ledger: Ledger, order: list[int]) -> peers.SearchOutcome:
    for index in order:
        ledger.train(index, 300)
    return peers.SearchOutcome()


def test_quartiles_with_some_that_never_arrive():
    assert results.quantiles([3.0, 1.0, math.inf, 2.0]) == (1.0, 2.0, 3.0)


def test_seeds_take_turns_on_the_curves():
    runs = results.replay(task([SLOW, SLOW, BAD], [GOOD, GOOD, BAD]), peers.random_search, 4)
    assert [run.bests[-1] for run in runs] == [80, 90, 80, 90]


def test_the_oracle_trains_the_best_policies_to_their_first_best_test_only():
    policy_curves = [curve([10, 60, 50, 60]), curve([10, 20, 30, 40]), curve([10, 70, 70, 60])]
    costs = set()
    for seed in range(20):
        ledger = Ledger(policy_curves)
        oracle.oracle(2)(task(), ledger, seed)
        assert ledger.best == 70
        costs.add(ledger.cost)
    assert costs == {
        100,
        200,
    }  # the second and third curve's best is at 100; by chance the best one is first


@pytest.mark.parametrize("search", [peers.random_search, peers.grid_search])
def test_searches_in_full_train_everything_once(search):
    for seed in range(10):
        ledger = Ledger([SLOW, SLOW, BAD])
        ledger._goal = 100  # so that it goes on to the end
        outcome = search(task(), ledger, seed)
        assert ledger.cost == ledger.full_cost and outcome.trials == 3


def test_a_grid_is_walked_in_nested_loops():
    """The outermost axis takes each of its values once: it changes one time less than it has values."""
    policies = pool(1000)
    places = [place(policy) for policy in policies]
    curve_of_each = [curve([10, 20, 30, 40 + i]) for i in range(len(policies))]
    outermost = set()
    for seed in range(10):
        order: list[int] = []

        class Noting(Ledger):
            over = False

            def train(self, index, until, order=order):
                order.append(index)
                return super().train(index, until)

        grid = CurveSet(
            "grid", {"max_iter": 300, "test_interval": 100}, policies, {1: curve_of_each}
        )
        peers.grid_search(grid, Noting(curve_of_each), seed)
        assert sorted(order) == list(range(64))
        columns = list(zip(*(places[i] for i in order)))
        changes = [sum(a != b for a, b in zip(column, column[1:])) for column in columns]
        outer = [axis for axis in range(3) if changes[axis] == len(set(columns[axis])) - 1]
        assert outer
        outermost.update(outer)
    assert outermost == {0, 1, 2}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("POLY(k0=0.03, p=1.2)", ("POLY", 0.03, 0)),
        ("STEP(k0=0.03, gamma=0.85, l=100)", ("STEP", 0.03, 0)),
        ("TRI(k0=0.006, k1=0.06, l=200)", ("TRI", 0.06, 200)),
    ],
)
def test_where_a_policy_stands_in_the_grid(policy, expected):
    assert place(parse(policy)) == expected


# -- the tuner -------------------------------------------------------------------------------------


def test_the_tuner_pays_for_what_its_search_asks_for():
    (run,) = results.replay(task(), ours.tuner_search, 1)
    # It ends with the best Top-1 of all, 90 at iteration 200 of GOOD, and has trained no more than
    # there is.
    assert run.bests[-1] == 90
    assert run.costs[-1] <= 100


# -- Optuna ----------------------------------------------------------------------------------------


def test_optuna_is_given_the_whole_pool():
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    policies = pool(1000)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    space = Space(policies)
    assert {peers.suggest(space, study.ask()) for _ in range(1500)} == set(range(64))


def test_optuna_pays_for_stopped_trials_and_no_second_time():
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    class Stops(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            return True

    ledger = Ledger([SLOW, SLOW, BAD])
    outcome = peers._optuna(task(), ledger, 1, optuna.samplers.RandomSampler(seed=1), Stops())
    assert ledger.cost == 3 * 100
    assert (outcome.trials, outcome.repeats) == (peers.TRIALS * 3, peers.TRIALS * 3 - 3)


# -- the other peers --------------------------------------------------------------------------------


def test_the_space_of_the_pool_has_each_policy_once():
    """13 functions; k of FIX, of the decays and of the cyclic ones; l of the cyclic ones."""
    policies = pool(1000)
    space = Space(policies)
    assert len(space.functions) == 13
    assert sorted(map(len, space.choices.values())) == [2, 3, 3, 7]
    found = []
    for function in space.functions:
        axes = [[(name, value) for value in space.choices[name]] for name in space.open[function]]
        found += [
            space.index({"function": function, **dict(values)})
            for values in itertools.product(*axes)
        ]
    assert sorted(found) == list(range(64))


def test_a_function_without_a_choice_leaves_nothing_open():
    space = Space([parse("FIX(k0=0.1)"), parse("POLY(k0=0.1, p=1)"), parse("POLY(k0=0.2, p=1)")])
    assert space.open == {"FIX": [], "POLY": ["k of [0.1, 0.2]"]}
    assert space.index({"function": "FIX", "k of [0.1, 0.2]": 0.2}) == 0
    assert space.index({"function": "POLY", "k of [0.1, 0.2]": 0.2}) == 2


@pytest.mark.parametrize(
    "peer", [p for p in contenders.PEERS if p.package != "optuna"], ids=lambda peer: peer.key
)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_peer_trains_through_the_ledger(peer, seed):
    """It finds the best of three, or has nothing more to try, and pays for no iteration twice."""
    if not peer.installed:
        pytest.skip(f"{peer.package} is not installed")
    policies, trained = task(), Ledger(CURVES)
    outcome = peer.make(peer.default)(policies, trained, seed)
    assert 0 < outcome.trials <= peers.TRIALS * 3
    assert 0 < trained.cost <= trained.full_cost


def test_a_budget_between_two_tests_ends_at_the_nearest_one():
    ledger = Ledger(CURVES)
    assert peers.train_tests(task(), ledger, 0, 0.2) == 50  # one test at least
    assert ledger.cost == 100
    assert peers.train_tests(task(), ledger, 0, 2.22) == 70
    assert ledger.cost == 200


def test_what_is_not_installed_is_named_with_the_way_to_install_it():
    absent = dataclasses.replace(contenders.PEERS[2], package="surely-no-such-package")
    other = dataclasses.replace(contenders.PEERS[0], label="pytest", package="pytest", version="0.")
    here = dataclasses.replace(contenders.PEERS[0], package="pytest")
    assert contenders.left_out([absent, other, here]) == [
        "SMAC3 multi-fidelity is left out: surely-no-such-package 2 is not installed",
        "pytest is left out: pytest 0 is not installed",
        contenders.INSTALL,
    ]
    assert contenders.left_out([here]) == []


def test_kept_runs_are_not_made_again(tmp_path):
    made = []

    def optimiser(policies, ledger, seed):
        made.append(seed)
        return train_in_order(ledger, [seed % 2])

    file = tmp_path / "runs.jsonl"
    first = list(KeptRuns(file).replay(task(), "in order (1.0)", optimiser, range(2)))
    with file.open("a") as torn:
        torn.write('{"set": "made up", "optim')  # killed here
    again = list(KeptRuns(file).replay(task(), "in order (1.0)", optimiser, range(3)))
    assert made == [0, 1, 2]
    assert [run.cost_of_goal for run in again[:2]] == [run.cost_of_goal for run in first]
    list(KeptRuns(file).replay(task(), "in order (1.0)", optimiser, range(3)))
    assert made == [0, 1, 2]
    list(KeptRuns(file).replay(task(), "in order (1.1)", optimiser, [0]))
    assert made == [0, 1, 2, 0]
    # Another seed of the curves was recorded: of the optimiser's seeds each second one is given it.
    more = task()
    more = dataclasses.replace(more, curves={**more.curves, 2: [SLOW, SLOW, BAD]})
    list(KeptRuns(file).replay(more, "in order (1.0)", optimiser, range(3)))
    assert made == [0, 1, 2, 0, 1]


def test_ratios_to_the_best_rival():
    """200 and 300 of 730 iterations to the goal; the best rival of the first set takes 300."""
    (fast,) = results.replay(task(), lambda task, ledger, seed: train_in_order(ledger, [1]), 1)
    (slow,) = results.replay(
        task([SLOW, curve([10, 20, 60, 90]), BAD]),
        lambda task, ledger, seed: train_in_order(ledger, [1]),
        1,
    )
    (never,) = results.replay(task(), lambda task, ledger, seed: train_in_order(ledger, [0]), 1)
    first = results.ratio("a", [fast], {"lost": [never], "slow": [slow]}, 1)
    assert (first.rival, first.value) == ("slow", pytest.approx(200 / 300))
    second = results.ratio("b", [slow], {"fast": [fast]}, 1)
    assert results.ratio_table([first, second])[1:] == [
        ["a", "27.4", "slow", "41.1", "0.67", "-"],
        ["b", "41.1", "fast", "27.4", "1.50", "-"],
        ["geometric mean", "", "", "", "1.00", ""],
    ]
    assert results.ratio("c", [never], {"fast": [fast]}, 1).value == math.inf
    assert results.ratio("d", [fast], {"lost": [never]}, 1).value == 0

    # On the curves of two seeds in turn: one median may hide that the tuner is worse on one of them.
    ours, rivals = [fast, slow] * 3, {"grid": [slow, fast] * 3, "lost": [never] * 6}
    found = results.ratio("e", ours, rivals, 2)
    assert found.by_seed == pytest.approx([200 / 300, 300 / 200])
    assert results.ratio_table([found])[1][-1] == "0.67, 1.50"
    assert results.seeds_table({"tuner": ours, **rivals}, [1, 5]) == [
        ["optimiser", "trainings' seed 1", "trainings' seed 5"],
        ["tuner", "27.4", "41.1"],
        ["grid", "41.1", "27.4"],
        ["lost", "never", "never"],
    ]
    # With fewer seeds of the optimisers than of the trainings.
    assert results.seeds_table({"tuner": [fast]}, [1, 5])[1] == ["tuner", "27.4", "-"]
    assert results.ratio("f", [fast], {"grid": [slow]}, 2).by_seed == pytest.approx([200 / 300])


# -- data files ------------------------------------------------------------------------------------


def test_the_pool():
    policies = pool(1000)
    assert len(set(map(str, policies))) == 64
    assert {policy.function for policy in policies} == {
        "FIX", "STEP", "NSTEP", "EXP", "INV", "POLY",
        "TRI", "TRI2", "TRIEXP", "SIN", "SIN2", "SINEXP", "COS",
    }  # fmt: skip


def test_the_pool_of_the_long_trainings_is_three_quarters_as_large():
    policies = pool(3000, CNN3)
    assert len(set(map(str, policies))) == 48
    assert {policy.function for policy in policies} == {policy.function for policy in pool(1000)}


def test_a_data_file_is_read_back(tmp_path):
    row = {"seed": SEED, "status": "finished", "end": 200, "iterations": [0, 100, 200]}
    row.update(top1=[10, None, 80.2], test_loss=[2.3, 1.0, 0.5], train_loss=[None, 1.5, 0.7])
    about = {"max_iter": 200, "test_interval": 100, "epoch": 50.0}
    rows = [{**row, "policy": str(policy)} for policy in POLICIES]
    lone = {**row, "policy": str(POLICIES[0]), "seed": 2}  # the seed's others are not trained yet
    curves.write(tmp_path / "made.json", {"about": about, "runs": [*rows, lone]})
    found = curves.read(tmp_path / "made.json")
    assert list(found.policies) == POLICIES and list(found.curves) == [SEED]
    assert found.curves[SEED][0].best == 80.2
    assert np.isnan(found.curves[SEED][0].top1[1])
    assert len((tmp_path / "made.json").read_text().splitlines()) >= 4


@pytest.mark.parametrize(
    ("losses", "end"),
    [([1.0, 0.9, 0.8], 3), ([1.0, math.nan, math.nan], 2), ([1.0, math.inf, 0.5], 2)],
)
def test_a_training_ends_with_the_first_infinite_loss(losses, end):
    rows = np.array([[i, 0.1, loss] for i, loss in enumerate(losses)])
    assert curves._end(rows) == end
