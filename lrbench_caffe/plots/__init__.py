"""Drawing. Everything that is drawn was measured or calculated elsewhere.

Each picture's module is loaded when it is first used, and so is matplotlib.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lrbench_caffe.plots.files import SUFFIXES, load, plot_file, save, warm_up

if TYPE_CHECKING:
    from lrbench_caffe.plots.comparison import Pair, comparison_figure
    from lrbench_caffe.plots.curves import run_figure
    from lrbench_caffe.plots.ranking import front_figure, pareto_figure, table_figure
    from lrbench_caffe.plots.schedules import (
        LONGEST,
        function_sheet,
        natural_length,
        schedule_figure,
    )
    from lrbench_caffe.plots.traces import traces_figure
    from lrbench_caffe.plots.training import RunCurves, runs_figure, training_figure

__all__ = [
    "LONGEST",
    "SUFFIXES",
    "Pair",
    "RunCurves",
    "comparison_figure",
    "front_figure",
    "function_sheet",
    "load",
    "natural_length",
    "pareto_figure",
    "plot_file",
    "run_figure",
    "runs_figure",
    "save",
    "schedule_figure",
    "table_figure",
    "traces_figure",
    "training_figure",
    "warm_up",
]

_LAZY = {
    "LONGEST": "schedules",
    "Pair": "comparison",
    "RunCurves": "training",
    "comparison_figure": "comparison",
    "front_figure": "ranking",
    "function_sheet": "schedules",
    "natural_length": "schedules",
    "pareto_figure": "ranking",
    "run_figure": "curves",
    "runs_figure": "training",
    "schedule_figure": "schedules",
    "table_figure": "ranking",
    "traces_figure": "traces",
    "training_figure": "training",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
