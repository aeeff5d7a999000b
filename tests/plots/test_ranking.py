"""Pictures of rankings: what stands at the points, in the list and at the axis."""

from __future__ import annotations

from lrbench_caffe.knowledge.criteria import CRITERIA
from lrbench_caffe.knowledge.ranking import Ranked, pareto_front
from lrbench_caffe.plots.ranking import pareto_figure, table_figure
from tests.knowledge.summaries import candidate

COST, TOP1 = CRITERIA["iterations"], CRITERIA["top1"]
LONG = f"NSTEP(k0=0.01, gamma=0.9, l={list(range(100, 9000, 100))})"


def test_policies_at_the_same_point_have_their_numbers_beside_each_other():
    entries = [
        candidate(f"FIX(k0=0.0{n})", top1, iterations=at)
        for n, (top1, at) in enumerate(
            ((99.0, 500), (99.0, 500), (98.0, 500), (98.0, 500), (98.0, 700), (98.0, 500)), 1
        )
    ]
    figure = pareto_figure("x", entries, pareto_front(entries, COST, TOP1), COST, TOP1)
    found = {text.xy: text.get_text() for text in figure.axes[0].texts}
    assert found == {(500, 99): "1, 2", (500, 98): "3, 4, 6", (700, 98): "5"}
    assert len(figure.axes[0].texts) == 3


def test_a_long_policy_makes_room_for_its_values():
    entries = [
        candidate(LONG, 99.0, iterations=500),
        candidate("FIX(k0=0.01)", 98.0, iterations=500),
    ]
    figure = pareto_figure("x", entries, entries[:1], COST, TOP1)
    listed = [text.get_text() for text in figure.legends[0].get_texts()]
    assert listed[1].startswith("1  NSTEP(k0=0.01, gamma=0.9, l=[100, ")
    assert listed[1].endswith("…: 99.00 at 500") and len(listed[1]) < 100

    shown = [Ranked(7, candidate(LONG, 99.0, iterations=500, max_iter=800)), Ranked(8, entries[1])]
    bars = table_figure("x", shown, COST, TOP1).axes[0]
    assert bars.get_yticklabels()[0].get_text().endswith("…  of 800  7")
