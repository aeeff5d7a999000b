"""The paper's statements about Figures 3 to 5, as checks of results.

The paper prints none of these curves: a check that needs more than a policy's highest Top-1 can be
made for our trainings only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from lrbench_caffe.metrics import Measurement, of_first_net
from lrbench_caffe.records import RunRecord
from lrbench_caffe.reproduction.checks import (
    Judgement,
    Results,
    Unknown,
    decided,
    diverged,
    known,
    shown,
    signed,
    value,
)
from lrbench_caffe.reproduction.plan import FIGURE3_EPOCHS, FIGURE3_GOOD, FIGURE3_K0, FIGURE4_L
from lrbench_caffe.reproduction.results import counted, finished, spread, top1_until

AROUND = 4  # tests before and after an update of the LR that are taken: single ones vary
END = max(FIGURE3_K0)


def best_in_good_range(results: Results) -> Judgement:
    """Figure 3: the k0 with the highest Top-1 is in the good range."""
    low, high = FIGURE3_GOOD
    tops, missing = known(FIGURE3_K0, lambda k0: _fix_top1(results, k0))
    if missing and not tops:
        raise missing
    best = max(tops, key=lambda k0: tops[k0])
    good = low <= best <= high
    numbers = f"best: {_fix(best)} {tops[best]:.2f}{diverged(results[_fix(best)])}"
    # A missing one in the good range could yet be the best, one outside could not mend it.
    mendable = any(low <= k0 <= high for k0 in FIGURE3_K0 if k0 not in tops)
    return decided(good or mendable, numbers, missing)


def falls_faster_above_good_range(results: Results) -> Judgement:
    """Figure 3: Top-1 falls faster, over the logarithm of k0, above the good range than at its upper end."""
    low, high = FIGURE3_GOOD
    used = [k0 for k0 in FIGURE3_K0 if low <= k0 <= high or k0 == END]
    tops = {k0: _fix_top1(results, k0) for k0 in used}
    best = max((k0 for k0 in tops if k0 <= high), key=lambda k0: tops[k0])
    before = 0.0 if best == high else (tops[best] - tops[high]) / math.log10(high / best)
    after = (tops[high] - tops[END]) / math.log10(END / high)
    points = [
        f"{_fix(k0)} {tops[k0]:.2f}{diverged(results[_fix(k0)])}"
        for k0 in dict.fromkeys((best, high, END))
    ]
    numbers = f"{', '.join(points)}: {after:.2f} points per tenfold k0, {before:.2f} before"
    return Judgement(after > max(0.0, before), numbers)


def same_shape(share: float, results: Results) -> Judgement:
    """Figure 3: after each number of epochs the k0 with the highest Top-1 is in the good range."""
    low, high = FIGURE3_GOOD
    best_k0 = {}
    for epochs in FIGURE3_EPOCHS:
        tops = {k0: _fix_until(results, k0, epochs / max(FIGURE3_EPOCHS)) for k0 in FIGURE3_K0}
        best_k0[epochs] = max(tops, key=lambda k0: tops[k0])
    numbers = ", ".join(f"{epochs * share:g} epochs: k0 = {k0:g}" for epochs, k0 in best_k0.items())
    return Judgement(all(low <= k0 <= high for k0 in best_k0.values()), numbers)


def best_l(results: Results) -> Judgement:
    """Figure 4: the l with the highest Top-1 is within the paper's peak, 1000 to 10,000."""
    tops = {steps: value(results, _step(steps), "top1") for steps in FIGURE4_L}
    best = max(FIGURE4_L, key=lambda steps: tops[steps])
    return Judgement(1000 <= best <= 10_000, f"best: {shown(results, _step(best), 'top1')}")


def small_impact(limit: float, results: Results) -> Judgement:
    """Figure 4: the Top-1 of all l are closer together than ``limit`` points."""
    tops = {steps: value(results, _step(steps), "top1") for steps in FIGURE4_L}
    low, *_, high = sorted(tops, key=lambda steps: tops[steps])
    ends = ", ".join(shown(results, _step(steps), "top1") for steps in (high, low))
    difference = tops[high] - tops[low]
    return Judgement(round(difference, 2) < limit, f"{ends}: {difference:.2f}, limit {limit:.2f}")


def better_after(key: str, updates: Sequence[int], results: Results) -> Judgement:
    """Figure 5: right after each update of the LR, Top-1 is higher or the test loss lower than right before.

    Both are means over up to ``AROUND`` tests on either side, none beyond the next update, and over
    the runs. A test at the iteration of an update comes before it.
    """
    value(results, key, "top1")  # there is one
    held, numbers = [], []
    for start, update, end in zip([0, *updates], updates, [*updates[1:], math.inf]):
        changes = {
            name: _change(results[key].runs, name, start, update, end)
            for name in ("top1", "test_loss")
        }
        held.append(changes["top1"] > 0 or changes["test_loss"] < 0)
        top1, loss = (
            signed(changes[name], digits) for name, digits in (("top1", 2), ("test_loss", 4))
        )
        numbers.append(f"{update}: Top-1 {top1}, test loss {loss}")
    return Judgement(all(held), "; ".join(numbers) + diverged(results[key]))


def _change(runs: Sequence[RunRecord], name: str, start: int, update: int, end: float) -> float:
    """The rise of a metric from right before an update to right after it."""
    changes = []
    for run in finished(runs):
        tests = of_first_net(run.measurements)
        before = _values((m for m in tests if start < m.iteration <= update), name)[-AROUND:]
        after = _values((m for m in tests if update < m.iteration <= end), name)[:AROUND]
        if before and after:
            changes.append(spread(after).mean - spread(before).mean)
    if not changes:
        raise Unknown(f"tests around iteration {update}")
    return spread(changes).mean


def _values(measured: Iterable[Measurement], name: str) -> list[float]:
    return [
        values
        for m in measured
        if (values := getattr(m, name)) is not None and not math.isnan(values)
    ]


def _fix_top1(results: Results, k0: float) -> float:
    """The Top-1 of a k0, as in the table; where all its trainings diverged that of their tests until then."""
    result = results.get(_fix(k0))
    return (
        value(results, _fix(k0), "top1")
        if result is None or result.seeds
        else _fix_until(results, k0, 1)
    )


def _fix_until(results: Results, k0: float, share: float) -> float:
    """The highest Top-1 of a k0 up to a share of its iterations, as Figure 3 draws it."""
    result = results.get(_fix(k0))
    if result is None:
        raise Unknown(_fix(k0))
    runs = counted(result.runs)
    tops = [top for run in runs for top in top1_until([run], round(run.max_iter * share))]
    if not tops:
        raise Unknown(f"tests of {_fix(k0)}")
    return spread(tops).mean


def _fix(k0: float) -> str:
    return f"FIX(k0={k0:g})"


def _step(steps: int) -> str:
    return f"STEP(k0=0.001, gamma=0.85, l={steps})"
