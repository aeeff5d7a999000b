"""Learning-rate policies as pure functions of the iteration, for Caffe or any framework (numpy only).

>>> from lrbench_caffe.lr import parse
>>> policy = parse("SIN2(k0=0.01, k1=0.06, l=2000)")
>>> policy(2000), policy.num_params
(0.06, 3)
>>> policy([0, 2000, 4000, 6000])
array([0.01 , 0.06 , 0.01 , 0.035])

With one's own pycaffe loop: `solver.param.base_lr = policy(solver.iter)`.
"""

from .composition import Composition, Segment
from .defaults import Completed, Filled, complete, complete_text
from .errors import NoBaseLR, PolicyError
from .functions import FUNCTIONS, PAPER_FUNCTIONS, FunctionRow, LRFunction, describe_functions
from .native import caffe_fields, current_step, from_caffe
from .plateau import PlateauWatch, Trigger
from .policy import FunctionPolicy, Policy
from .text import parse

__all__ = [
    "FUNCTIONS",
    "PAPER_FUNCTIONS",
    "Completed",
    "Composition",
    "Filled",
    "FunctionPolicy",
    "FunctionRow",
    "LRFunction",
    "NoBaseLR",
    "PlateauWatch",
    "Policy",
    "PolicyError",
    "Segment",
    "Trigger",
    "caffe_fields",
    "complete",
    "complete_text",
    "current_step",
    "describe_functions",
    "from_caffe",
    "parse",
]
