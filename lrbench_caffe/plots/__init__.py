"""Drawing. What is drawn was measured or calculated elsewhere; matplotlib is loaded when it is needed."""

from lrbench_caffe.plots.comparison import Pair, comparison_plot
from lrbench_caffe.plots.files import SUFFIXES, plot_file, save, warm_up
from lrbench_caffe.plots.ranking import pareto_plot, table_plot
from lrbench_caffe.plots.schedules import function_sheet, natural_length, schedule_plot
from lrbench_caffe.plots.training import RunCurves, runs_plot, training_plot

__all__ = [
    "SUFFIXES",
    "Pair",
    "RunCurves",
    "comparison_plot",
    "function_sheet",
    "natural_length",
    "pareto_plot",
    "plot_file",
    "runs_plot",
    "save",
    "schedule_plot",
    "table_plot",
    "training_plot",
    "warm_up",
]
