"""Drawing. What is drawn was measured or calculated elsewhere; matplotlib is loaded when it is needed."""

from lrbench_caffe.plots.comparison import Pair, comparison_figure
from lrbench_caffe.plots.files import SUFFIXES, plot_file, save, warm_up
from lrbench_caffe.plots.ranking import pareto_figure, table_figure
from lrbench_caffe.plots.schedules import function_sheet, natural_length, schedule_figure
from lrbench_caffe.plots.training import RunCurves, runs_figure, training_figure

__all__ = [
    "SUFFIXES",
    "Pair",
    "RunCurves",
    "comparison_figure",
    "function_sheet",
    "natural_length",
    "pareto_figure",
    "plot_file",
    "runs_figure",
    "save",
    "schedule_figure",
    "table_figure",
    "training_figure",
    "warm_up",
]
