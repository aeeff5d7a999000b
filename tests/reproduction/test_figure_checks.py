"""What the paper says about Figures 3 to 5, of trainings with numbers by hand."""

from __future__ import annotations

import pytest

from lrbench_caffe.reproduction.checks import Judgement
from lrbench_caffe.reproduction.compare import our_results
from lrbench_caffe.reproduction.conclusions import conclusions
from lrbench_caffe.reproduction.plan import FIGURE3_K0, FIGURE4_L, plan, scale
from tests.reproduction.runs import measured, run

BEST, NUMBER, FALL, SHAPE = range(4)  # the conclusions about Figure 3
UPDATES = (30_000, 50_000, 60_000, 65_000)


def figure3(tops: dict[float, float], early: dict[float, float] | None = None) -> dict:
    """Results of Figure 3: 50 for each k0 but these; early: at 10 epochs (5000 iterations)."""
    of = plan("figure3")
    records = []
    for row, k0 in zip(of.rows, FIGURE3_K0):
        top = tops.get(k0, 50.0)
        first = (early or tops).get(k0, 50.0) - 20
        records.append(run(of, row.policy, 1, [measured(5000, first), measured(70_000, top)]))
    return our_results(of, records)


def judge(figure: str, number: int, results: dict) -> Judgement:
    return conclusions(figure)[number].judge(results)


def test_figure_3_by_the_whole_training():
    good = figure3({0.001: 78.0, 0.006: 76.0, 0.1: 10.0})
    assert judge("figure3", BEST, good) == Judgement(True, "best: FIX(k0=0.001) 78.00")
    # By hand: 2 / log10(0.006 / 0.001) = 2 / 0.7782 = 2.57; 66 / log10(0.1 / 0.006) = 66 / 1.2218 =
    # 54.02.
    assert judge("figure3", FALL, good) == Judgement(
        True,
        "FIX(k0=0.001) 78.00, FIX(k0=0.006) 76.00, FIX(k0=0.1) 10.00: 54.02 points per tenfold k0, "
        "2.57 before",
    )
    assert judge("figure3", FALL, figure3({0.001: 78.0, 0.006: 60.0, 0.1: 40.0})).holds is False
    assert judge("figure3", FALL, figure3({0.006: 78.0, 0.1: 77.0})).holds is True  # nothing before
    assert judge("figure3", FALL, figure3({0.006: 78.0, 0.1: 79.0})).holds is False


def test_figure_3_after_each_number_of_epochs():
    assert judge("figure3", SHAPE, figure3({0.001: 78.0})) == Judgement(
        True,
        "10 epochs: k0 = 0.001, 20 epochs: k0 = 0.001, 40 epochs: k0 = 0.001, 80 epochs: k0 = 0.001, "
        "140 epochs: k0 = 0.001",
    )
    other = judge("figure3", SHAPE, figure3({0.001: 78.0}, early={0.01: 78.0}))
    assert other.holds is False and other.numbers.startswith(
        "10 epochs: k0 = 0.01, 20 epochs: k0 = 0.01"
    )


def test_a_k0_that_diverged_is_at_chance_as_it_is_drawn():
    of = plan("figure3")
    lost = run(of, of.row("FIX(k0=0.1)").policy, 1, [measured(0, 10.0)], status="diverged")
    results = {**figure3({0.001: 78.0, 0.006: 76.0}), **our_results(of, [lost])}
    assert judge("figure3", BEST, results).holds is True
    assert judge("figure3", SHAPE, results).holds is True
    fall = judge("figure3", FALL, results)
    assert fall.holds is True and "FIX(k0=0.1) 10.00 (1 diverged)" in fall.numbers


def test_a_seed_that_diverged_does_not_count_beside_one_that_finished():
    of = plan("figure3")
    policy = of.row("FIX(k0=0.001)").policy
    ended = run(of, policy, 1, [measured(5000, 58.0), measured(70_000, 78.0)])
    lost = run(of, policy, 2, [measured(5000, 10.0)], status="diverged")
    results = {**figure3({}), **our_results(of, [ended, lost])}
    for number in (BEST, SHAPE):  # 58 and 78, not the means 34 and 44
        assert judge("figure3", number, results).holds is True


def test_how_fast_it_falls_needs_no_k0_in_between():
    results = figure3({0.001: 78.0, 0.006: 76.0, 0.1: 10.0})
    del results["FIX(k0=0.008)"], results["FIX(k0=0.05)"], results["FIX(k0=5e-05)"]
    assert judge("figure3", FALL, results).holds is True
    del results["FIX(k0=0.002)"]
    assert judge("figure3", FALL, results) == Judgement(None, "no result: FIX(k0=0.002)")


def test_figure_3_needs_every_k0():
    results = figure3({0.001: 78.0})
    del results["FIX(k0=5e-05)"]
    for number in (BEST, SHAPE):
        assert judge("figure3", number, results) == Judgement(None, "no result: FIX(k0=5e-05)")


def figure4(tops: dict[int, float], of=None) -> dict:
    of = of or plan("figure4")
    rows = zip(of.rows, FIGURE4_L)
    return our_results(
        of, [run(of, row.trained, 1, [measured(0, tops.get(steps, 75.0))]) for row, steps in rows]
    )


def test_figure_4():
    best, impact = conclusions("figure4")
    results = figure4({7000: 80.0, 100: 72.0})
    assert best.judge(results) == Judgement(True, "best: STEP(k0=0.001, gamma=0.85, l=7000) 80.00")
    assert impact.judge(results) == Judgement(
        True,
        "STEP(k0=0.001, gamma=0.85, l=7000) 80.00, STEP(k0=0.001, gamma=0.85, l=100) 72.00: 8.00, limit 8.99",
    )
    assert best.judge(figure4({15_000: 80.0})).holds is False
    assert impact.judge(figure4({7000: 80.0, 100: 71.01})).holds is False  # 8.99


def figure5(after: dict[int, tuple[float, float]], **others) -> dict:
    """A training with Top-1 60 and test loss 1 but for the 1000 iterations after these updates."""
    of = plan("figure5")
    tests = []
    for iteration in range(0, 70_001, 250):
        last = max((update for update in UPDATES if update < iteration), default=None)
        near = last is not None and iteration - last <= 1000
        top1, loss = after.get(last, (60.0, 1.0)) if near else (60.0, 1.0)
        tests.append(measured(iteration, top1, test_loss=loss))
    return our_results(of, [run(of, of.rows[0].policy, 1, tests, **others)])


def test_figure_5():
    (conclusion,) = conclusions("figure5")
    rises = dict.fromkeys(UPDATES, (62.0, 1.0))
    assert conclusion.judge(figure5({**rises, 65_000: (60.0, 0.75)})) == Judgement(
        True,
        "30000: Top-1 +2.00, test loss 0.0000; 50000: Top-1 +2.00, test loss 0.0000; "
        "60000: Top-1 +2.00, test loss 0.0000; 65000: Top-1 0.00, test loss -0.2500",
    )
    assert conclusion.judge(figure5({**rises, 65_000: (59.0, 1.5)})).holds is False
    assert conclusion.judge(figure5({30_000: (62.0, 1.0)})).holds is False  # nothing changes later
    key = plan("figure5").rows[0].key
    assert conclusion.judge({}) == Judgement(None, f"no result: {key}")
    assert (
        conclusion.judge(figure5(rises, status="diverged")).numbers
        == f"no result: {key} (1 diverged)"
    )


# -- scaled ----------------------------------------------------------------------------------------


def test_scaled_figures():
    assert conclusions("figure4", 0.01)[0].statement == "the best l is from 10 to 100"
    assert conclusions("figure3", 0.1)[SHAPE].statement.startswith(
        "after 1, 2, 4, 8 and 14 epochs alike"
    )
    of = scale(plan("figure4"), 0.1)
    assert conclusions("figure4", of.share)[0].judge(figure4({7000: 80.0}, of)).holds is True
    of = scale(plan("figure5"), 0.1)
    tests = [
        measured(t, 60.0 + sum(t > update / 10 for update in UPDATES)) for t in range(0, 7001, 350)
    ]
    verdict = conclusions("figure5", of.share)[0].judge(
        our_results(of, [run(of, of.rows[0].trained, 1, tests)])
    )
    assert verdict.holds is True and verdict.numbers.startswith("3000: Top-1 +1.00")


@pytest.mark.parametrize("figure", ["figure3", "figure4", "figure5"])
def test_before_anything_was_trained(figure):
    assert {conclusion.judge({}).word for conclusion in conclusions(figure)} == {"undecided"}
