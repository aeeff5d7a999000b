"""The paper's figures from data: Figure 1 is computed, Figures 3 to 5 are drawn from trainings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from lrbench_caffe.lr import FunctionPolicy
from lrbench_caffe.metrics import of_first_net
from lrbench_caffe.plots.descent import Surface, Track, descent_animation, descent_figure
from lrbench_caffe.plots.files import save
from lrbench_caffe.plots.sweeps import Point, range_figure, steps_figure, updates_figure
from lrbench_caffe.records import RunRecord
from lrbench_caffe.reproduction import plan as plans
from lrbench_caffe.reproduction import surface
from lrbench_caffe.reproduction.compare import belongs
from lrbench_caffe.reproduction.plan import ExperimentPlan, Row
from lrbench_caffe.reproduction.results import counted, finished, runs_of, spread, top1_until

EVERY = 2  # iterations from one frame of the animation to the next
WHOLE = (-2.0, 0.9, -1.5, 1.0)
CLOSE_UP = (-0.5, 0.4, -0.9, 0.3)


def figure1(folder: Path) -> list[Path]:
    """Draw Figure 1: a PNG at each of the paper's iterations, and a GIF of the whole.

    Returns:
        The files: figure1_070.png, figure1_115.png, figure1_199.png, figure1.gif.

    Raises:
        OSError: a file cannot be written.
    """
    left, right, low, high = WHOLE
    x, y = np.linspace(left, right, 300), np.linspace(low, high, 300)
    ground = Surface(x, y, surface.loss(*np.meshgrid(x, y)), CLOSE_UP)
    tracks = [
        Track(str(p.policy), p.colour, p.points, p.losses, p.policy(np.arange(surface.ITERATIONS)))
        for p in surface.paths()
    ]
    files = []
    for iteration in surface.SHOWN:
        files.append(folder / f"figure1_{iteration:03d}.png")
        save(descent_figure(ground, tracks, iteration), files[-1])
    files.append(folder / "figure1.gif")
    last = surface.ITERATIONS - 1
    descent_animation(files[-1], ground, tracks, [*range(0, last, EVERY), last])
    return files


def figure3(path: Path, plan: ExperimentPlan, records: Iterable[RunRecord]) -> None:
    """Draw Figure 3: Top-1 and error (100 - Top-1) over k0, a curve for each number of epochs.

    The paper does not say what its error is; its accuracy and error pictures show the same range.

    Args:
        plan: ``plan("figure3")``, or some of its rows, or a scaled one: then the epochs are scaled,
            too.
        records: runs with their measurements, of whatever task; those of the plan are taken.

    Raises:
        OSError: the file cannot be written.
    """
    runs = _runs(plan, records)
    curves = {}
    for epochs in plans.FIGURE3_EPOCHS:
        until = round(plan.max_iter * epochs / max(plans.FIGURE3_EPOCHS))
        points = [
            _point(row, top1_until(counted(runs[row.number]), until), "k0") for row in plan.rows
        ]
        curves[f"{epochs * plan.share:g} epochs"] = [point for point in points if point is not None]
    save(
        range_figure(
            curves,
            good=plans.FIGURE3_GOOD,
            marks=plans.FIGURE3_MARKS,
            close_up=plans.FIGURE3_CLOSE_UP,
            stated=[]
            if plan.scaled
            else [Point(k0, top1) for k0, top1 in plans.FIGURE3_STATED.items()],
            note=plan.note,
            error=True,
        ),
        path,
    )


def figure4(path: Path, plan: ExperimentPlan, records: Iterable[RunRecord]) -> None:
    """Draw Figure 4: the highest Top-1 of STEP over l, with the paper's numbers (Table IV b).

    Args:
        plan, records: as in ``figure3``.

    Raises:
        OSError: the file cannot be written.
    """
    runs = _runs(plan, records)
    points = [
        _point(row, top1_until(finished(runs[row.number]), plan.max_iter), "l") for row in plan.rows
    ]
    paper = [
        Point(_parameter(row, "l"), row.paper.measurements[0].top1 or 0.0)
        for row in plan.rows
        if row.paper is not None and not plan.scaled
    ]
    measured = [point for point in points if point is not None]
    save(steps_figure(measured, marks=plans.FIGURE4_MARKS, paper=paper, note=plan.note), path)


def figure5(path: Path, plan: ExperimentPlan, records: Iterable[RunRecord]) -> None:
    """Draw Figure 5: accuracy and losses of NSTEP over iterations, the LR updates marked; the first seed.

    Args:
        plan, records: as in ``figure3``.

    Raises:
        OSError: the file cannot be written.
    """
    (row,) = plan.rows
    kept = _runs(plan, records)[row.number]
    measured = of_first_net(kept[0].measurements) if kept else []
    seed = f", seed {kept[0].seed}" if kept else ", not trained"
    note = f"\n{plan.note}" if plan.note else ""
    updates = row.trained.params["l"]
    assert isinstance(updates, tuple)
    save(
        updates_figure(f"{row.trained}{seed}{note}", measured, [int(update) for update in updates]),
        path,
    )


def _runs(plan: ExperimentPlan, records: Iterable[RunRecord]) -> dict[int, list[RunRecord]]:
    """The runs of each row, one for each seed, by the row's number."""
    mine = [record for record in records if belongs(plan, record)]
    return {
        row.number: runs_of(r for r in mine if r.policy.text == str(row.trained))
        for row in plan.rows
    }


def _point(row: Row, values: Sequence[float], parameter: str) -> Point | None:
    if not values:
        return None
    result = spread(values)
    return Point(_parameter(row, parameter), result.mean, result.sd)


def _parameter(row: Row, name: str) -> float:
    """A parameter as the paper prints it, also where the plan is scaled."""
    assert isinstance(row.policy, FunctionPolicy)
    return float(row.policy.values[name])
