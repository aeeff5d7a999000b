"""Runs a script, the worker, with this Caffe as Python saw Caffe 1.0 (April 2017): what came later is gone.

Above all base_lr: an attribute of that name can then be set on ``solver.param`` without an error,
and changes nothing, as in Caffe 1.0 itself.
"""

import os
import runpy
import sys

import caffe

LATER = (
    (caffe._caffe.SolverParameter, "base_lr"),
    (caffe._caffe.Solver, "apply_update"),
    (caffe.SGDSolver, "lr"),
    (caffe.Net, "before_forward"),
    (caffe.Net, "after_forward"),
    (caffe.Net, "before_backward"),
    (caffe.Net, "after_backward"),
    (caffe, "log"),
    (caffe, "init_log"),
)

for owner, name in LATER:
    delattr(owner, name)
del sys.argv[0]
sys.path[0] = os.path.dirname(sys.argv[0])  # as Python does for a script
runpy.run_path(sys.argv[0], run_name="__main__")
